#!/bin/sh
# SPDX-License-Identifier: GPL-2.0-or-later
# Copyright (C) 2026 the rbdcrypt-nbd authors
#
# The manual page, --help, the option table and the exit statuses agree, and mandoc is content.
#
#	tests/man/check.sh [PROGRAM]           exit 0, 1, or 77 when mandoc is missing
#	tests/man/check.sh --update PROGRAM    puts the options of PROGRAM into the page
set -eu

update=
if [ "${1-}" = --update ]; then
	update=yes
	shift
fi
program=${1:-${RBDCRYPT_NBD:?usage: check.sh [--update] PROGRAM}}
top=$(cd "$(dirname "$0")/../.." && pwd)
page=$top/man/rbdcrypt-nbd.8
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
status=0

fail() {
	echo "man: $*" >&2
	status=1
}

"$program" --dump-options >"$work/options"
awk -v options="$work/options" '
	/^\.\\" OPTIONS END/ { inside = 0 }
	!inside { print }
	/^\.\\" OPTIONS BEGIN/ {
		inside = 1
		while ((getline line < options) > 0)
			print line
	}' "$page" >"$work/page"

if [ -n "$update" ]; then
	cat "$work/page" >"$page"
	exit 0
fi

diff -u "$page" "$work/page" >&2 ||
	fail "the OPTIONS section is not what the program says: tests/man/check.sh --update"

# Every option of the page is in --help, and the other way round.
"$program" --help >"$work/help" 2>"$work/stderr"
[ -s "$work/stderr" ] && fail "--help writes to standard error"
sed -n 's/^\.It .*Fl \\-\([a-z_0-9-]*\).*/\1/p' "$work/options" | sort >"$work/in-page"
sed -n 's/^  *\(-[a-zA-Z], \)\{0,1\}--\([a-z_0-9-]*\).*/\2/p' "$work/help" | sort >"$work/in-help"
diff -u "$work/in-page" "$work/in-help" >&2 || fail "--help and the page list different options"

# Every exit status of the contract is explained once.
sed -n 's/^	EXIT_[A-Z_]* = \([0-9]*\),.*/\1/p' "$top/include/fault.h" | sort -n >"$work/statuses"
sed -n '/^\.Sh EXIT STATUS/,/^\.El/s/^\.It \([0-9]*\)$/\1/p' "$page" | sort -n >"$work/explained"
diff -u "$work/statuses" "$work/explained" >&2 || fail "exit statuses and include/fault.h differ"

# So is every member of a volume's JSON.
sed -n '/^\.Sh JSON AND XML/,/^\.Sh EXIT STATUS/p' "$page" | tr -c 'a-z_\n' '\n' | sort -u >"$work/explained"
sed -n -e 's/^	[VLK]("\([a-z_]*\)", .*/\1/p' -e 's/.*[^_]add(o, "\([a-z_]*\)", .*/\1/p' \
	"$top/daemon/state_json.c" "$top/daemon/view.c" | sort -u | comm -23 - "$work/explained" >"$work/missing"
[ -s "$work/missing" ] && fail "members without explanation: $(tr '\n' ' ' <"$work/missing")"

# Every command is explained, and is in the synopsis.
sed -n '/^\.Sh SYNOPSIS/,/^\.Sh DESCRIPTION/p' "$page" >"$work/synopsis"
"$program" --help | sed -n 's/^  \([a-z-][a-z-]*\) .*[A-Z].*\.$/\1/p' | while read -r command; do
	grep -q "^\.It Cm $command" "$page" && grep -qx "\.Cm $command" "$work/synopsis" ||
		echo "$command"
done >"$work/missing"
[ -s "$work/missing" ] && fail "commands without explanation: $(tr '\n' ' ' <"$work/missing")"

# What the daemon says of its interface, the other page explains.
sed -n 's/^	"\(method\|error\) \([A-Za-z]*\).*/\2/p' "$top/daemon/control_interface.c" |
	while read -r name; do
		grep -q "^\.It \(Fn $name\|Er org\.rbdcrypt\.Host\.$name$\)" "$top/man/rbdcrypt-nbd-control.7" ||
			echo "$name"
	done >"$work/missing"
[ -s "$work/missing" ] && fail "not in rbdcrypt-nbd-control(7): $(tr '\n' ' ' <"$work/missing")"

if ! command -v mandoc >/dev/null; then
	[ $status = 0 ] || exit $status
	echo "man: mandoc is not installed: not linted" >&2
	exit 77
fi
# Cross references to pages of other packages need not be installed here.
mandoc -Tlint -Wstyle "$top"/man/*.[578] 2>&1 |
	grep -v 'mandoc.db\|referenced manual not found' >"$work/lint" || :
if [ -s "$work/lint" ]; then
	cat "$work/lint" >&2
	fail "mandoc has complaints"
fi
exit $status
