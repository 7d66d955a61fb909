#!/bin/bash
# SPDX-License-Identifier: GPL-2.0-or-later
# Copyright (C) 2026 the rbdcrypt-nbd authors
#
# key-loss.sh: a volume in use whose passphrase or header is lost says so, and only then.
# test: light time=600

set -u
# shellcheck source=tests/lib/functions.sh
. "${BASH_SOURCE[0]%/*}/../lib/functions.sh"
requires cryptsetup python3

PROGRAM=${RBDCRYPT_NBD:-${LIB_DIR%/tests/lib}/build/rbdcrypt-nbd}
[[ -x $PROGRAM ]] || fail "no program at $PROGRAM: make first"
tmpdir T
cd "$T" || exit 1
export RBDCRYPT_NBD_RUN_DIR=$T/run
FAST=(-q --pbkdf pbkdf2 --pbkdf-force-iterations 1000)
printf 'correct horse' >key.saved
cp key.saved key
truncate -s 20M image
cryptsetup luksFormat --type luks2 "${FAST[@]}" image key || fail "no image"
cp image image.saved

state() { # EXPRESSION: of v, the volume's state, with l its first layer
	"$PROGRAM" status --json "$T/s" | python3 -c "
import json, sys
v = json.load(sys.stdin)[0]
l = v['layers'][0]
print($1)"
}
is() { [[ $(state "$1") == "$2" ]]; }

up() { "$PROGRAM" serve --socket "$T/s" --log-file "$T/log" "$@" file:image >out; }
down() { "$PROGRAM" unmap "$T/s"; }
exits() { # STATUS COMMAND...: without a word on standard output if it fails
	local want=$1 rc
	shift
	"$PROGRAM" "$@" >out 2>err
	rc=$?
	cat out err
	[[ $rc == "$want" ]]
}
# lost PATTERN: check-keys and unmap say so with status 7, the state and the log too; it stays.
lost() {
	: >log
	exits 7 check-keys "$T/s" && grep -E "layer 1: failed, from .*$1" out && grep -qE "^rbdcrypt-nbd: layer 1: .* might not open again: .*$1" err &&
		sed -n 2p err | grep -q '^hint: .*data' && exits 7 unmap "$T/s" && [[ ! -s out ]] &&
		grep -E "error: file:image: layer 1: file:image might not open again: .*$1" log &&
		is "l['key']" failed && "$PROGRAM" status "$T/s" | grep -E "health .*$1"
}
restored() {
	cp key.saved key
	cat image.saved >image
	exits 0 check-keys "$T/s" && grep -q 'layer 1: ok' out && [[ ! -s err ]] && is "l['key']" ok && is "v['health']" '' &&
		grep 'notice: file:image: all layers can be opened again' log
}
claim() { run_case "${1//_/-}" "$1" </dev/null; } # FUNCTION

a_key_that_is_there_is_ok() {
	is "l['key']" ok && is "l['key_source']" "$T/key" && exits 0 check-keys && [[ ! -s err ]] && is "v['health']" '' && ! grep -v ' notice: file:image: serves ' log
}
a_lost_passphrase_file() { rm key && lost 'No such file' && restored; }
another_passphrase() { printf wrong >key && lost "$T/key: no keyslot opens" && restored; }
a_header_that_was_overwritten() {
	dd if=/dev/zero of=image bs=64k count=1 conv=notrunc status=none
	lost 'no LUKS header' && restored
}
a_header_that_is_another_ones() {
	cryptsetup luksFormat --type luks2 "${FAST[@]}" image key
	lost 'with another key than the data has' && restored
}
a_header_whose_keyslots_changed_can_be_accepted() {
	cryptsetup luksAddKey "${FAST[@]}" --key-file key image image.saved --new-keyfile-size 20
	lost 'has changed since it was loaded; it opens' && grep -- --accept-header err &&
		exits 0 check-keys --accept-header && exits 0 check-keys && is "l['key']" ok || return
	# What was accepted is the one to expect.
	cat image.saved >image
	lost 'has changed since it was loaded; it opens' && exits 0 check-keys --accept-header
}
a_header_that_is_gone_is_not_accepted() {
	cryptsetup luksFormat --type luks2 "${FAST[@]}" image key
	exits 7 check-keys --accept-header && restored
}
ten_ask_at_once() {
	local pids=() rc=0 i
	for ((i = 0; i < 10; i++)); do
		"$PROGRAM" check-keys "$T/s" >"out.$i" &
		pids+=($!)
	done
	for i in "${pids[@]}"; do wait "$i" || rc=1; done
	[[ $(cat out.* | grep -c 'layer 1: ok') == 10 ]] && return $rc
}
silent_clients_take_nothing_from_others() {
	python3 - "$T/run" <<'END' &
import glob, os, socket, sys, time
os.chdir(sys.argv[1])
path = glob.glob("*.keys")[0]
all = []
for i in range(12):
    s = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    s.connect(path)
    if i % 3 == 0:
        s.send(b"\0garbage" * 100)
        assert s.recv(1) == b"", "a question that there is not was answered"
    all.append(s)
open("../silent", "w").close()
time.sleep(3)
END
	local rc=0 python=$!
	wait_for 60 test -e silent && exits 0 check-keys || rc=1
	wait $python && return $rc
}
the_timer_finds_it_too() {
	local rc=0
	up --encryption-passphrase-file key --key-check-interval 1 || return
	: >log
	rm key
	wait_for 60 is "l['key']" failed || rc=1
	grep "error: file:image: layer 1" log || rc=1
	cp key.saved key
	wait_for 60 is "l['key']" ok || rc=1
	down && return $rc
}
force_does_not_look() { up --encryption-passphrase-file key && rm key && exits 0 unmap --force "$T/s" && cp key.saved key; }
what_can_be_read_once_is_said_so() { # -, a substituted process: only the header is watched
	local rc=0 source
	for source in - <(cat key.saved); do
		: >log
		up --encryption-passphrase-file "$source" <key || return
		exits 0 check-keys && grep -q 'layer 1: once, from .*: its source could be read only once' out || rc=1
		grep 'notice: file:image: layer 1: its passphrase was not checked' log || rc=1
		printf 'XX' | dd of=image bs=1 seek=30 conv=notrunc status=none
		lost 'cannot be read again' || rc=1
		cat image.saved >image
		down || return
	done
	return $rc
}
a_header_that_is_replaced_meanwhile_is_not_used() {
	local pid rc
	mkfifo -m 600 fifo
	"$PROGRAM" serve --socket "$T/s" --encryption-passphrase-file fifo file:image >out 2>err &
	pid=$!
	# When it opens the pipe, it has read the header.
	timeout 30 bash -c 'exec 9>fifo; cryptsetup luksFormat --type luks2 "$@" image key; cat key.saved >&9' - "${FAST[@]}"
	wait $pid
	rc=$?
	cat image.saved >image
	cat out err
	[[ $rc == 7 && ! -e s && ! -s out ]] && grep 'layer 1: file:image: its LUKS header has changed' err
}
who_may_not_ask_is_told_so() {
	local meek=() rc=0 c
	[[ $EUID -ne 0 ]] || meek=(setpriv --bounding-set "-dac_override,-dac_read_search")
	up --encryption-passphrase-file key && chmod 0 run/*.keys || return
	for c in check-keys unmap; do
		"${meek[@]}" "$PROGRAM" "$c" "$T/s" >out 2>err
		[[ $? == 2 ]] && grep 'may not be asked .*: Permission denied' err && ! grep force err || { cat err; rc=1; }
	done
	chmod 600 run/*.keys
	down && return $rc
}
an_image_without_encryption_has_no_key_to_lose() {
	up --encryption-passphrase-file none || return
	exits 0 check-keys && [[ $(<out) == *'no key is in use' ]] && is "l['key']" none && down
}
a_name_of_two_lines_is_shown_on_one() {
	local name=$'two\nlines' rc=0
	cp image "$name" && "$PROGRAM" serve --socket "$T/s" --encryption-passphrase-file key "file:$name" || return
	exits 0 check-keys && grep -x "file:$T/two?lines: layer 1: ok, from $T/key" out && [[ $(wc -l <out) == 1 ]] || rc=1
	exits 0 stats --interval 0 && grep -x "file:$T/two?lines" out || rc=1
	down && rm "$name" && return $rc
}
no_daemon_lives() { [[ $("$PROGRAM" status --json) == '[]' ]] || is "v['state']" dead; }
a_daemon_that_is_killed_has_no_key_to_lose() {
	up --encryption-passphrase-file key && kill -KILL "$(state "v['id']")" && rm key || return
	wait_for 60 no_daemon_lives
	exits 0 unmap "file:$T/image" || exits 4 unmap "file:$T/image"
	local rc=$?
	cp key.saved key
	rm -f s
	return $rc
}

up --encryption-passphrase-file key || fail "cannot serve"
for c in a_key_that_is_there_is_ok a_lost_passphrase_file another_passphrase \
	a_header_that_was_overwritten a_header_that_is_another_ones \
	a_header_whose_keyslots_changed_can_be_accepted a_header_that_is_gone_is_not_accepted \
	ten_ask_at_once silent_clients_take_nothing_from_others; do
	claim $c
done
down || fail "cannot stop"
[[ -z $(ls run/*.keys 2>/dev/null) ]] || fail "a socket is left"
claim the_timer_finds_it_too
claim force_does_not_look
claim what_can_be_read_once_is_said_so
claim a_header_that_is_replaced_meanwhile_is_not_used
claim who_may_not_ask_is_told_so
claim an_image_without_encryption_has_no_key_to_lose
claim a_name_of_two_lines_is_shown_on_one
claim a_daemon_that_is_killed_has_no_key_to_lose
[[ $failures -eq 0 ]]
