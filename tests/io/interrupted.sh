#!/bin/bash
# SPDX-License-Identifier: GPL-2.0-or-later
# Copyright (C) 2026 the rbdcrypt-nbd authors
#
# Whoever is told to stop while it still unlocks, stops, and leaves nothing.

set -u
# shellcheck source=tests/lib/functions.sh
. "${BASH_SOURCE[0]%/*}/../lib/functions.sh"
requires cryptsetup ps
PROGRAM=$(realpath "${RBDCRYPT_NBD:-$LIB_DIR/../../build/rbdcrypt-nbd}")
[[ -x $PROGRAM ]] || fail "no program at $PROGRAM: make first"

tmpdir T
cd "$T" || fail "no folder"
export RBDCRYPT_NBD_RUN_DIR=$T/run

# A header whose keyslot takes half a minute: the iterations are the big-endian number at 212.
printf 'correct horse' >key
chmod 600 key
truncate -s 8M slow
cryptsetup luksFormat -q --type luks1 --pbkdf-force-iterations 1000 slow key || fail "no LUKS1 header"
printf '\002' | dd of=slow bs=1 seek=212 conv=notrunc status=none

# The process below $1 that derives the key.
unlock_child() {
	local pid
	for pid in "$1" $(ps -o pid= --ppid "$1"); do
		ps -o pid=,args= --ppid "$pid" | awk '$2 == "rbdcrypt-nbd-unlock" { print $1 }'
	done
}
unlocks() { [[ $(unlock_child "$1") ]]; }
left() { # SOCKET...
	local file
	for file in "$@"; do [[ ! -e $file ]] || echo "$file is left"; done
	find run -name '*.json*' -o -name '.tmp-*' -o -name control
}

# SIGNAL STATUS COMMAND...: starts, is interrupted, and is gone within three seconds.
stopped() {
	local signal=$1 status=$2 pid child start rc=0
	shift 2
	"$PROGRAM" "$@" </dev/null 2>err &
	pid=$!
	cleanup_fn end "$pid"
	wait_for 20 unlocks "$pid" || { cat err; return 1; }
	child=$(unlock_child "$pid")
	start=$EPOCHREALTIME
	kill -"$signal" "$pid"
	wait "$pid" || rc=$?
	start=$(((${EPOCHREALTIME/./} - ${start/./}) / 1000))
	cat err
	echo "ended with $rc after $start ms"
	[[ $rc == "$status" ]] && ((start < 3000)) && ! alive "$child" && [[ -z $(left s) ]]
}

serve=(serve --socket "$T/s" --encryption-passphrase-file key file:slow)
run_case serve-in-the-background-stops stopped TERM 6 "${serve[@]}"
run_case serve-in-the-foreground-stops stopped INT 6 "${serve[@]}" --foreground

# A service: its volume is on its way while it is stopped, and its client is told.
daemon_stops() {
	local daemon client rc=0 start
	"$PROGRAM" daemon 2>err &
	daemon=$!
	cleanup_fn end "$daemon"
	wait_for 20 test -S run/control || return
	"$PROGRAM" "${serve[@]}" 2>client.err &
	client=$!
	wait_for 20 unlocks "$daemon" || return
	start=$SECONDS
	kill -TERM "$daemon"
	wait "$daemon" || return
	wait "$client" || rc=$?
	cat err client.err
	echo "the client ended with $rc after $((SECONDS - start)) s"
	((rc != 0 && SECONDS - start <= 4)) && [[ -z $(left s) ]]
}
run_case the-daemon-stops daemon_stops

exit $((failures > 0))
