#!/bin/bash
# SPDX-License-Identifier: GPL-2.0-or-later
# Copyright (C) 2026 the rbdcrypt-nbd authors
#
# key-loss.sh: a volume in use whose passphrase or header is lost says so, and only then.
# test: light time=120

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
failures=0

state() { # EXPRESSION: of v, the volume's state, with l its first layer
	"$PROGRAM" status --json "$T/s" | python3 -c "
import json, sys
v = json.load(sys.stdin)[0]
l = v['layers'][0]
print($1)"
}
is() { [[ $(state "$1") == "$2" ]]; }
checked_since() { (($(state "l['key_checked']") > $1)); }

up() { "$PROGRAM" serve --socket "$T/s" --key-check-interval 1 --log-file "$T/log" "$@" file:image >out; }
down() { "$PROGRAM" unmap "$T/s"; }
# becomes HEALTH PATTERN: within a few seconds, and says it in the log
becomes() {
	local now
	wait_for 15 is "l['key']" "$1" || { "$PROGRAM" status "$T/s"; return 1; }
	[[ $1 == ok ]] && { is "v['health']" ''; return; }
	now=$(state "l['key_reason']")
	[[ $now =~ $2 ]] || { echo "reason: $now"; return 1; }
	grep -E "error: file:image: layer 1: file:image might not open again: .*$2" log &&
		"$PROGRAM" status "$T/s" | grep -E "health .*$2"
}
restored() {
	cp key.saved key
	cat image.saved >image
	becomes ok '' && grep 'notice: file:image: all layers can be opened again' log && : >log
}
claim() { # FUNCTION
	local log
	if log=$("$1" 2>&1 </dev/null); then
		echo "ok ${1//_/-}"
	else
		echo "not ok ${1//_/-}"
		sed 's/^/	/' <<<"$log"
		failures=$((failures + 1))
	fi
}

a_key_that_is_there_stays_ok() {
	local start
	is "l['key']" ok && is "l['key_source']" "$T/key" || return
	start=$(state "l['key_checked']")
	wait_for 15 checked_since "$start" && is "l['key']" ok && is "v['health']" '' && [[ ! -s log ]]
}
a_lost_passphrase_file() { rm key && becomes failed 'No such file' && restored; }
another_passphrase() { printf wrong >key && becomes failed "$T/key: no keyslot opens" && restored; }
a_header_that_was_overwritten() {
	dd if=/dev/zero of=image bs=64k count=1 conv=notrunc status=none
	becomes failed 'no LUKS header' && restored
}
a_header_that_is_another_ones() {
	cryptsetup luksFormat --type luks2 "${FAST[@]}" image key
	becomes failed 'with another key than the data has' && restored
}
a_header_whose_keyslots_changed() {
	cryptsetup luksAddKey "${FAST[@]}" --key-file key image image.saved --new-keyfile-size 20
	becomes failed 'has changed since it was loaded; it opens' && restored
}
what_can_be_read_once_only_its_header_is_watched() {
	local rc=0
	up --encryption-passphrase-file - <key || return
	sleep 1.5
	is "l['key']" once && is "v['health']" '' || rc=1
	printf 'XX' | dd of=image bs=1 seek=30 conv=notrunc status=none
	becomes failed 'cannot be read again' || rc=1
	down && cat image.saved >image && return $rc
}
an_image_without_encryption_has_no_key_to_lose() {
	up --encryption-passphrase-file none || return
	sleep 1.5
	is "l['key']" none && is "v['health']" ''
	local rc=$?
	down && return $rc
}

up --encryption-passphrase-file key || fail "cannot serve"
for c in a_key_that_is_there_stays_ok a_lost_passphrase_file another_passphrase \
	a_header_that_was_overwritten a_header_that_is_another_ones a_header_whose_keyslots_changed; do
	claim $c
done
down || fail "cannot stop"
claim what_can_be_read_once_only_its_header_is_watched
claim an_image_without_encryption_has_no_key_to_lose
[[ $failures -eq 0 ]]
