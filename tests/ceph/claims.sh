# shellcheck shell=bash
# SPDX-License-Identifier: GPL-2.0-or-later
# Copyright (C) 2026 the rbdcrypt-nbd authors
#
# claims.sh: what the tests of the stores share. A claim is a function without arguments whose
# name ends in _; it runs in a subshell with "set -e", and what it printed is shown when it
# failed. Names on the command line choose claims.

set -u
# shellcheck source=tests/lib/cluster.sh
. "${BASH_SOURCE[0]%/*}/../lib/cluster.sh"

STORE_CHECK=${O:-${LIB_DIR%/tests/lib}/build}/tests/component/store_check
[[ -x $STORE_CHECK ]] || fail "no program $STORE_CHECK: make tests"

store() { timeout 300 "$STORE_CHECK" "$@"; }

same() { # WHAT WANTED GOT
	[[ $2 == "$3" ]] || { echo "$1: wanted '$2', got '$3'"; return 1; }
}

# refused STATUS PATTERN CMD...: CMD ends with the status, and with one line on stderr, which
# has the pattern in its message and a hint behind it.
refused() {
	local status=$1 pattern=$2 rc=0 text
	shift 2
	text=$("$@" 2>&1 >/dev/null) || rc=$?
	same "status of $* ($text)" "$status" "$rc"
	text=$(grep '^store_check: ' <<<"$text")
	[[ ${text%% | *} =~ $pattern ]] || { echo "message: $text"; return 1; }
	[[ ${text#* | } ]] || { echo "no hint: $text"; return 1; }
}

make_claims() {
	local claim claims failed=0 logs
	tmpdir logs
	mapfile -t claims < <(declare -F | sed -n 's/^declare -f \([^_].*\)_$/\1/p')
	for claim in "${claims[@]}"; do
		[[ $# -eq 0 || " $* " == *" $claim "* ]] || continue
		# Not in a condition: "set -e" would be off in there.
		(set -e; "${claim}_") >"$logs/$claim" 2>&1 </dev/null
		# shellcheck disable=SC2181
		if [[ $? -eq 0 ]]; then
			echo "ok $claim"
		else
			echo "not ok $claim"
			sed 's/^/# /' "$logs/$claim"
			failed=1
		fi
	done
	return $failed
}
