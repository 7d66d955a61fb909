#!/bin/bash
# SPDX-License-Identifier: GPL-2.0-or-later
# Copyright (C) 2026 the rbdcrypt-nbd authors
#
# Who may connect to a volume: users of all kinds at sockets of all kinds; those who may not get not
# one byte, are told of in the log, and counted.
# test: heavy time=300

set -u
# shellcheck source=tests/lib/functions.sh
. "${BASH_SOURCE[0]%/*}/../lib/functions.sh"
requires python3 setpriv qemu-io
requires_root
need_program

tmpdir T
cd "$T" || fail "no folder"
export RBDCRYPT_NBD_RUN_DIR=$T/run
CASE_LOGS=(log)
truncate -s 4M disk
# Others cannot walk through the folders above it, but may start in it.
mkdir -m 755 pub

start() { # [OPTION]...
	: >log
	"$PROGRAM" serve --foreground --socket "$T/pub/s" --export-name x "$@" file:disk >/dev/null 2>log &
	server=$!
	cleanup_fn end "$server"
	wait_for 30 serving || { cat log; return 1; }
}
stop() {
	kill -TERM "$server"
	wait "$server"
}
serving() { [[ $("$PROGRAM" list --all --json) == *'"id":'* && -S pub/s ]]; }

# greeting USER GROUP OTHER-GROUPS: what the first bytes are that the user gets at pub/s: "NBDMAGIC",
# "nothing" when the connection is closed without one, or "kept out" when there is none at all.
greeting() {
	local groups=(--clear-groups)
	[[ ! $3 ]] || groups=(--groups "$3")
	(cd pub && exec setpriv --reuid "$1" --regid "$2" "${groups[@]}" timeout 30 /usr/bin/python3 -c '
import socket
s = socket.socket(socket.AF_UNIX)
try:
    s.connect("s")
except PermissionError:
    print("kept out")
else:
    try:
        print(s.recv(8).decode() or "nothing")
    except ConnectionResetError:
        print("nothing")')
}
gets() { # WANTED USER GROUP [OTHER-GROUPS]
	local got
	got=$(greeting "$2" "$3" "${4:-}")
	[[ $got == "$1" ]] || { echo "user $2, group $3, groups ${4:-none}: $got instead of $1"; return 1; }
}
mode() { [[ $(stat -c '%a %u %g' pub/s) == "$1" ]] || { stat pub/s; return 1; }; }
refusals() {
	[[ $("$PROGRAM" stats --interval 0 --json | python3 -c '
import json, sys
print(json.load(sys.stdin)[0]["refused_clients"])') == "$1" ]]
}

without_a_list_the_file_decides() {
	start && mode "600 0 0" && gets NBDMAGIC 0 0 && gets "kept out" 7001 7001 && stop &&
		start --socket-mode 0606 && mode "606 0 0" && gets NBDMAGIC 7001 7001 && stop &&
		start --socket-owner 7001 --socket-group 7005 && mode "660 7001 7005" &&
		gets NBDMAGIC 7001 7001 && gets NBDMAGIC 7002 7002 7005 && gets "kept out" 7002 7002 &&
		refusals 0 && stop
}
run_case without-a-list-the-file-decides without_a_list_the_file_decides

only_those_on_the_list_get_a_byte() {
	start --allow-user 7001 --allow-user games --allow-group 7005 && mode "666 0 0" || return
	gets NBDMAGIC 7001 7002 && gets NBDMAGIC "$(id -u games)" 7002 && gets NBDMAGIC 0 0 &&
		gets NBDMAGIC 7009 7005 && gets NBDMAGIC 7009 7009 7004,7005,7006 &&
		gets nothing 7009 7009 && gets nothing 7005 7001 && gets nothing 7009 7009 7004,7001 &&
		gets nothing 65534 65534
}
run_case only-those-on-the-list-get-a-byte only_those_on_the_list_get_a_byte

# Four were refused, within one window of the log.
who_was_refused_is_logged_and_counted() {
	refusals 4 && "$PROGRAM" stats --interval 0 | grep -F 'clients turned away 4' &&
		[[ $(grep -c 'turned a client away' log) == 1 ]] &&
		grep -E 'file:disk: turned a client away: process [1-9][0-9]* of user 7009 is not on the list' log
}
run_case who-was-refused-is-logged-and-counted who_was_refused_is_logged_and_counted

# A crowd that may not come in does not keep out who may, nor make the log grow.
refused_crowd_harms_nobody() {
	local crowd
	(cd pub && exec setpriv --reuid 7009 --regid 7009 --clear-groups timeout 60 /usr/bin/python3 -c '
import os, socket, time
end = time.monotonic() + 1
while time.monotonic() < end:
    s = socket.socket(socket.AF_UNIX)
    s.setblocking(False)
    try:
        s.connect("s")
    except BlockingIOError:
        pass
    s.close()') &
	crowd=$!
	sleep 0.3
	qemu-io -f raw -c 'write -P 7 0 1M' -c 'read -P 7 0 1M' "nbd+unix:///?socket=$T/pub/s" | tee io.log
	wait "$crowd" || return
	! grep -q failed io.log && gets NBDMAGIC 7001 7002 && (($(grep -c '' log) < 6)) && stop
}
run_case refused-crowd-harms-nobody refused_crowd_harms_nobody

list_and_file_both_have_to_agree() {
	start --allow-user 7001 --socket-group 7005 && mode "660 0 7005" && gets NBDMAGIC 7001 7005 &&
		gets "kept out" 7001 7001 && gets nothing 7002 7005 && stop
}
run_case list-and-file-both-have-to-agree list_and_file_both_have_to_agree

# Who is to be let in but does not exist; the plan itself is shown all the same.
dry_run_finds_wrong_names() {
	local wrong
	for wrong in "--allow-user nobody-has-this" "--allow-group nobody-has-this" \
		"--socket-owner nobody-has-this" "--socket-group nobody-has-this"; do
		# shellcheck disable=SC2086
		"$PROGRAM" serve --dry-run --socket pub/s $wrong file:disk >plan 2>err && return 1
		[[ $(head -n 1 err) == *"${wrong% *}"*nobody-has-this* ]] && grep '^layers: 1$' plan || return
	done
	"$PROGRAM" serve --dry-run --socket pub/s --allow-user games --socket-group 7005 file:disk | grep '^verdict: would work$'
}
run_case dry-run-finds-wrong-names dry_run_finds_wrong_names

passed_socket_is_judged() {
	type -P systemd-socket-activate >/dev/null || { echo "no systemd-socket-activate"; return 0; }
	rm -f pub/s
	systemd-socket-activate -l "$T/pub/s" -E RBDCRYPT_NBD_RUN_DIR="$RBDCRYPT_NBD_RUN_DIR" \
		-E TESTBED_TAGS="$TESTBED_TAGS" "$PROGRAM" serve --foreground --allow-user 7001 file:disk \
		2>log &
	server=$!
	cleanup_fn end "$server"
	wait_for 60 test -S pub/s && chmod 666 pub/s || return
	gets NBDMAGIC 7001 7001 && gets nothing 7002 7002 && gets NBDMAGIC 0 0 || return
	grep -F "of user 7002 is not on the list" log && stop
}
run_case passed-socket-is-judged passed_socket_is_judged

# The host's daemon, and the one that goes on after it was killed.
daemons_volumes_have_their_lists() {
	rm -f pub/s
	: >log
	"$PROGRAM" daemon >/dev/null 2>>log &
	server=$!
	cleanup_fn end "$server"
	wait_for 30 test -S run/control || return
	"$PROGRAM" serve --socket pub/s --allow-group 7005 file:disk && mode "666 0 0" &&
		gets NBDMAGIC 7001 7005 && gets nothing 7001 7001 || return
	kill -KILL "$server"
	wait "$server" 2>/dev/null
	"$PROGRAM" daemon >/dev/null 2>>log &
	server=$!
	cleanup_fn end "$server"
	wait_for 30 answers && gets NBDMAGIC 7001 7005 && gets nothing 7001 7001 && mode "666 0 0" &&
		"$PROGRAM" unmap "$T/pub/s" && stop
}
answers() { [[ $(greeting 0 0 "" 2>/dev/null) == NBDMAGIC ]]; }
run_case daemons-volumes-have-their-lists daemons_volumes_have_their_lists

exit $((failures > 0))
