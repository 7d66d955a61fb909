#!/bin/bash
# SPDX-License-Identifier: GPL-2.0-or-later
# Copyright (C) 2026 the rbdcrypt-nbd authors
#
# A host's daemon that answers as none should: what the commands make of it. It is a program of ours.

set -u
# shellcheck source=tests/lib/functions.sh
. "${BASH_SOURCE[0]%/*}/../lib/functions.sh"
requires python3
need_program

tmpdir T
cd "$T" || fail "no folder"
export RBDCRYPT_NBD_RUN_DIR=$T/run
mkdir run

# with_daemon ANSWER... -- STATUS COMMAND...: what it says is in "err".
with_daemon() {
	local answers=() daemon rc=0
	while [[ $1 != -- ]]; do answers+=("$1"); shift; done
	rm -f run/control
	/usr/bin/python3 "$LIB_DIR/control.py" run/control --daemon "${answers[@]}" &
	daemon=$!
	cleanup_fn end "$daemon"
	wait_for 30 test -S run/control || return
	timeout 60 "${@:3}" 2>err || rc=$?
	end "$daemon"
	wait "$daemon" 2>/dev/null
	cat err
	[[ $rc == "$2" ]] || { echo "exit status $rc"; return 1; }
}
says() { grep -qF -- "$1" err; }

started='{"parameters": {"device": "/dev/nbd7", "cookie": "a"}}'
refusal='{"error": "org.rbdcrypt.Host.Failed", "parameters":
	{"status": 5, "errno": 16, "message": "in use", "hint": "unmount it"}}'

to_full() { "$@" >/dev/full; }
export -f to_full

a_refusal_to_take_it_back_is_told() {
	local command
	for command in map "attach --device /dev/nbd7"; do
		# shellcheck disable=SC2086
		with_daemon "$started" "$refusal" -- 1 bash -c 'to_full "$@"' bash "$PROGRAM" $command rbd/a &&
			says 'standard output cannot be written: No space left' &&
			says 'hint: it is there: rbdcrypt-nbd unmap /dev/nbd7' || return
	done
	with_daemon "$started" hang-up -- 1 bash -c 'to_full "$@"' bash "$PROGRAM" map rbd/a &&
		says 'standard output cannot be written: No space left' && says 'hint: it is there'
}
run_case a-refusal-to-take-it-back-is-told a_refusal_to_take_it_back_is_told

# A volume that starts is known to the daemon alone. One that ends has none that starts.
starts_are_asked_for_where_a_daemon_answers() {
	with_daemon '{"parameters": {}}' -- 0 "$PROGRAM" unmap rbd/a || return
	with_daemon "$refusal" -- 5 "$PROGRAM" unmap rbd/a && says 'in use' || return
	with_daemon hang-up -- 4 "$PROGRAM" unmap rbd/a && says 'rbd/a is not mapped' || return
	with_daemon turn-away "$refusal" -- 5 "$PROGRAM" unmap rbd/a && says 'in use' || return
	# As with a socket that systemd holds.
	with_daemon -- 4 "$PROGRAM" unmap rbd/a && says 'rbd/a is not mapped'
}
run_case starts-are-asked-for-where-a-daemon-answers starts_are_asked_for_where_a_daemon_answers

# Without a word it would look as if the daemon had died.
who_is_turned_away_says_why() {
	with_daemon turn-away "$refusal" -- 5 bash -c '{ sleep 1; printf key; } | "$@"' bash \
		"$PROGRAM" map --encryption-passphrase-file - rbd/a && says 'in use' || return
	with_daemon hang-up -- 8 "$PROGRAM" map rbd/a && says 'the daemon went away'
}
run_case who-is-turned-away-says-why who_is_turned_away_says_why

exit $((failures > 0))
