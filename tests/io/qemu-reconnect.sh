#!/bin/bash
# SPDX-License-Identifier: GPL-2.0-or-later
# Copyright (C) 2026 the rbdcrypt-nbd authors
#
# QEMU's block layer with a reconnect delay, over the end of our daemon: SIGTERM and SIGKILL in the
# middle of verified IO, and a new one each time. No request fails, every byte is the last one
# written. The same without a delay does fail, so the test can.
# test: heavy time=600
#
# LONG=1: 50 of each instead of 2 (about six minutes).

set -u
# shellcheck source=tests/lib/functions.sh
. "${BASH_SOURCE[0]%/*}/../lib/functions.sh"
[[ ! ${SANITIZE:-} ]] || skip "clients.sh does the same to a sanitized program"
requires qemu-storage-daemon qemu-io cryptsetup python3
/usr/bin/python3 -c 'import nbd' 2>/dev/null || skip "missing: python3-libnbd"
need_program

tmpdir T
cd "$T" || fail "no folder"
export RBDCRYPT_NBD_RUN_DIR=$T/run
ROUNDS=${LONG:+50}
ROUNDS=${ROUNDS:-2}
CASE_LOGS=(daemon.log)
printf 'correct horse' >key
truncate -s 64M disk
cryptsetup luksFormat -q --type luks2 --pbkdf pbkdf2 --pbkdf-force-iterations 1000 disk key ||
	fail "no LUKS2 header"
start_daemon() {
	"$PROGRAM" daemon >/dev/null 2>>daemon.log &
	daemon=$!
	cleanup_fn end "$daemon"
}
serves() { timeout 10 "$PROGRAM" status "$T/s" 2>/dev/null | grep -q "serving, process $daemon"; }

# writer N: through QEMU, on slots of its own: writes, flushes, and reads of what it knows. Ends when
# there is a file "enough"; an error is an exception. Says how much it did.
cat >writer.py <<'END'
import os, random, sys, nbd

own, SLOT, SLOTS = int(sys.argv[1]), 20000, 400
h = nbd.NBD()
h.connect_uri("nbd+unix:///vol?socket=qemu.sock")
rnd = random.Random(own)
versions = [0] * SLOTS


def content(slot):
    v = versions[slot]
    return (b"%4d%4d%8d" % (own, slot, v)) * (SLOT // 16) if v else bytes(SLOT)


def check(slot):
    assert h.pread(SLOT, place(slot)) == content(slot), (own, slot, versions[slot])


def place(slot):
    return (own * SLOTS + slot) * SLOT


h.zero(SLOTS * SLOT, place(0))
done = 0
while not os.path.exists("enough"):
    slot = rnd.randrange(SLOTS)
    if rnd.random() < 0.5:
        versions[slot] += 1
        h.pwrite(content(slot), place(slot))
    else:
        check(slot)
    done += 1
    if done % 16 == 0:
        h.flush()
        os.pwrite(1, b"%d\n" % done, 0)
for slot in range(SLOTS):
    check(slot)
h.flush()
h.shutdown()
END

# qemu OPTION...: QEMU's block layer, as a client of ours; what is behind it is for the writers.
qemu() {
	qemu-storage-daemon --blockdev "driver=nbd,node-name=vol,server.type=unix,server.path=$T/s$1" \
		--nbd-server addr.type=unix,addr.path=qemu.sock,max-connections=9 \
		--export type=nbd,id=vol,node-name=vol,name=vol,writable=on >qemu.log 2>&1 &
	qemu=$!
	cleanup_fn end "$qemu"
	wait_for 60 test -S qemu.sock
}
no_qemu() {
	kill -TERM "$qemu"
	wait "$qemu"
	rm -f qemu.sock
}
writers=()
start_writers() {
	local i
	rm -f enough
	writers=()
	for i in 0 1 2 3; do
		/usr/bin/python3 writer.py "$i" >"progress.$i" 2>"writer.$i.log" &
		writers+=($!)
		cleanup_fn end $!
	done
	wait_for 60 moved 0 0 0 0
}
progress() { tail -qn 1 progress.? | xargs; }
# moved COUNTS: every writer is past its count.
moved() {
	local i now before=("$@")
	read -ra now < <(progress)
	[[ ${#now[@]} == 4 ]] || return
	for i in 0 1 2 3; do ((now[i] > before[i])) || return; done
}
end_writers() {
	local rc=0 pid
	touch enough
	for pid in "${writers[@]}"; do wait "$pid" || rc=1; done
	[[ $rc == 0 ]] || cat writer.?.log
	return "$rc"
}

# Everybody gets on after each end, so IO was waiting and came through.
ends_are_not_noticed() { # SIGNAL
	local i before longest=0 begin
	start_writers || { cat writer.?.log qemu.log; return 1; }
	for ((i = 0; i < ROUNDS; i++)); do
		sleep 0.3
		begin=${EPOCHREALTIME/./}
		kill "-$1" "$daemon"
		wait "$daemon" 2>/dev/null
		before=$(progress)
		start_daemon
		# shellcheck disable=SC2086 # numbers
		wait_for 60 moved $before || { echo "stuck at $before"; cat writer.?.log qemu.log; return 1; }
		begin=$(((${EPOCHREALTIME/./} - begin) / 1000))
		((begin < longest)) || longest=$begin
	done
	end_writers && echo "# longest pause after $1: $longest ms; requests: $(progress)" | tee -a pauses
}

without_a_delay_it_fails() {
	local rc=0
	qemu "" && start_writers || return
	kill -KILL "$daemon"
	wait "$daemon" 2>/dev/null
	start_daemon
	end_writers && { echo "nobody noticed"; rc=1; }
	no_qemu
	wait_for 60 serves && return "$rc"
}

start_daemon
wait_for 30 test -S run/control || fail "no daemon"
"$PROGRAM" serve --socket s --encryption-passphrase-file key file:disk >/dev/null || fail "not served"
qemu ",reconnect-delay=60" || fail "no QEMU"
run_case sigterm-is-not-noticed ends_are_not_noticed TERM
run_case sigkill-is-not-noticed ends_are_not_noticed KILL
no_qemu
cat pauses
run_case without-a-delay-it-fails without_a_delay_it_fails
"$PROGRAM" unmap "$T/s" && kill -TERM "$daemon" && wait "$daemon" || fail "it does not end"
exit $((failures > 0))
