# shellcheck shell=bash
# SPDX-License-Identifier: GPL-2.0-or-later
# Copyright (C) 2026 the rbdcrypt-nbd authors
#
# files.sh: what the tests in this folder share.

set -u
# shellcheck source=tests/lib/functions.sh
. "${BASH_SOURCE[0]%/*}/../lib/functions.sh"
cd "$LIB_DIR/../.." || exit 1

O=${O:-$PWD/build}
# shellcheck disable=SC2034 # for those who source this
PROGRAM=${RBDCRYPT_NBD:-$O/rbdcrypt-nbd}
failures=0

# tree [PATTERN]...: the files of the project, or those that match.
tree() {
	local file pattern
	{
		git ls-files 2>/dev/null || find . -type f -not -path './build*' -printf '%P\n'
	} | sort | while read -r file; do
		[[ -f $file ]] || continue
		[[ $# -gt 0 ]] || echo "$file"
		for pattern; do
			# shellcheck disable=SC2053
			[[ $file == $pattern ]] && echo "$file" && break
		done
	done
}

scripts() {
	local file line
	tree | while read -r file; do
		read -r line 2>/dev/null <"$file" || continue
		[[ $file == *.sh || $line == '#!'*sh* ]] && echo "$file"
	done
}

complain() {
	echo "$*"
	failures=$((failures + 1))
}

finish() { [[ $failures == 0 ]] || fail "$failures complaints"; }
