#!/bin/bash
# SPDX-License-Identifier: GPL-2.0-or-later
# Copyright (C) 2026 the rbdcrypt-nbd authors
#
# A daemon that is stopped or hangs is told from one that only takes long, and from one that is not
# there yet. Waiting is what this takes its time for, so all that can wait side by side.
# test: heavy time=300

set -u
# shellcheck source=tests/lib/functions.sh
. "${BASH_SOURCE[0]%/*}/../lib/functions.sh"
requires cryptsetup python3
need_program

tmpdir T
cd "$T" || fail "no folder"
CASE_LOGS=("$T/daemon.log")
(umask 077 && printf 'correct horse' >key)
for i in hosted other own starting slow checked; do
	truncate -s 32M $i && cryptsetup luksFormat -q --type luks2 --pbkdf pbkdf2 \
		--pbkdf-force-iterations 1000 $i key || fail "no LUKS2 header"
done
truncate -s 4M plain
# Takes longer than a daemon may say nothing, from the second time on or always.
helper() { # NAME CONDITION
	printf '#!/bin/sh\n%s || { : >%s/%s.asked; sleep 60; }\nexec cat %s/key\n' "$2" "$T" "$1" "$T" >"$1.key"
	chmod 700 "$1.key"
}

nbd() { timeout 120 "$PROGRAM" "$@"; }
listens() { python3 -c "import socket; socket.socket(socket.AF_UNIX).connect('$1')" 2>/dev/null; }
start_daemon() { # RUN_DIR
	RBDCRYPT_NBD_RUN_DIR=$T/$1 "$PROGRAM" daemon 2>>daemon.log &
	daemon=$!
	cleanup_fn end "$daemon"
	wait_for 30 listens "$1/control"
}
stop_daemon() { kill -CONT "$daemon" && kill -TERM "$daemon" && wait "$daemon"; }
# ask NAME COMMAND...: its exit status and time are in NAME.rc, what it says in NAME.said.
ask() {
	local rc=0 name=$1 start=$SECONDS
	shift
	nbd "$@" >"$name.said" 2>&1 || rc=$?
	echo "$rc $((SECONDS - start))" >"$name.rc"
}
# gave_up NAME TEXT [SECONDS]: after the time that a daemon has, and no later than that.
gave_up() {
	local rc seconds limit=${3:-100}
	read -r rc seconds <"$1.rc"
	echo "$1: exit status $rc after $seconds s"
	cat "$1.said"
	[[ $rc == 6 ]] && ((seconds >= 40 && seconds < limit)) && grep -qF -- "$2" "$1.said"
}

# ---- one that takes its time, meanwhile ----

(
	export RBDCRYPT_NBD_RUN_DIR=$T/slow-run
	helper slow false
	helper checked "[ ! -e '$T/known' ]"
	start_daemon slow-run || exit 1
	nbd serve --socket slow.sock --encryption-passphrase-file "exec:$T/slow.key" file:slow &
	start=$!
	nbd serve --socket checked.sock --encryption-passphrase-file "exec:$T/checked.key" file:checked || exit 1
	: >known
	nbd check-keys checked.sock || exit 1
	wait "$start" && [[ -e slow.asked && -e checked.asked ]] && rm known && nbd unmap slow.sock --force &&
		nbd unmap checked.sock && stop_daemon
) >slow.said 2>&1 &
slow=$!

# ---- a socket that is there before its daemon, as systemd has it, meanwhile ----

cat >holder.py <<'END'
import os, socket, sys, time
run_dir, program = sys.argv[1:]
os.mkdir(run_dir)
s = socket.socket(socket.AF_UNIX)
s.bind(run_dir + "/control")
s.listen(100)
while not os.path.exists(run_dir + "/go"):
    time.sleep(0.1)
if os.fork() == 0:
    os.dup2(os.dup2(s.fileno(), 100), 3)
    os.environ.update(LISTEN_PID=str(os.getpid()), LISTEN_FDS="1", LISTEN_FDNAMES="control")
    os.execv(program, [program, "daemon"])
os.wait()
END
(
	export RBDCRYPT_NBD_RUN_DIR=$T/held-run
	python3 holder.py "$T/held-run" "$PROGRAM" 2>>daemon.log &
	wait_for 30 test -S held-run/control || exit 1
	ask none unmap nowhere
	ask held serve --socket held.sock file:plain &
	call=$!
	sleep 55
	[[ ! -e held.rc && -s held.said ]] || exit 1
	: >held-run/go
	wait "$call"
	grep -qF "$T/held.sock" held.said || exit 1
	daemon=$(nbd list --all --json | python3 -c 'import json, sys; print(json.load(sys.stdin)[0]["id"])')
	pause "$daemon" || exit 1
	ask stopped unmap held.sock
	kill -CONT "$daemon"
	echo "$daemon" >held.pid
	nbd unmap held.sock && kill -TERM "$daemon" && wait
) >held.log 2>&1 &
held=$!

# ---- one that is stopped ----

export RBDCRYPT_NBD_RUN_DIR=$T/run
start_daemon run || fail "no daemon"
helper starting false
nbd serve --socket s --encryption-passphrase-file key file:hosted &&
	nbd serve --socket o --encryption-passphrase-file key file:other || fail "cannot serve"
nbd serve --no-daemon --socket own.sock --encryption-passphrase-file key file:own || fail "cannot serve"
own=$(nbd status --json own.sock | python3 -c 'import json, sys; print(json.load(sys.stdin)[0]["id"])')
cleanup_fn end "$own"
ask started serve --socket started.sock --encryption-passphrase-file "exec:$T/starting.key" file:starting &
calls=($!)
sleep 2
pause "$daemon" "$own" || fail "it goes on"
while read -r name command; do
	# shellcheck disable=SC2086
	ask "$name" $command &
	calls+=($!)
done <<'END'
serve serve --socket s2 file:plain
map map rbd/nothing
unmap unmap s
force unmap --force s
unknown unmap rbd/nothing
check check-keys
own unmap own.sock
END

what_files_say_is_shown() {
	nbd list --all | grep -F "$T/hosted" && nbd status | grep -F "process $daemon" &&
		nbd stats --interval 0 s | grep -F 'in flight 0'
}
run_case what-files-say-is-shown what_files_say_is_shown

calls_that_nobody_answers_end() {
	local name
	wait "${calls[@]}"
	for name in serve map unmap force unknown; do
		gave_up $name "host's daemon (process $daemon) has not answered" || return
		grep -qF "hint: if somebody has stopped it, kill -CONT $daemon" $name.said || return
	done
	gave_up started "what became of it is not known: the host's daemon (process $daemon)" &&
		gave_up own "file:$T/own: its daemon (process $own)" &&
		# Each of the two is waited for once.
		gave_up check "file:$T/hosted: its daemon (process $daemon)" 140
}
run_case calls-that-nobody-answers-end calls_that_nobody_answers_end

# Whoever was told that it did not work may use it on.
nothing_of_them_is_done_later() {
	kill -CONT "$daemon" "$own" && sleep 2 && nbd check-keys && [[ -S s && -S o && -S own.sock && ! -e s2 ]] &&
		wait_for 70 are_those_left && nbd unmap s && nbd unmap o && nbd unmap own.sock && stop_daemon
}
are_those_left() { [[ $(nbd list --all --json | grep -o '"id"' | wc -l) == 3 ]]; }
run_case nothing-of-them-is-done-later nothing_of_them_is_done_later

what_takes_long_is_waited_for() { wait "$slow" || { cat slow.said; return 1; }; }
run_case what-takes-long-is-waited-for what_takes_long_is_waited_for

a_daemon_that_is_not_there_yet_is_waited_for() {
	local rc seconds
	wait "$held" || { cat held.log held.said; return 1; }
	read -r rc seconds <none.rc
	[[ $rc == 4 ]] && ((seconds < 40)) && grep -F 'nowhere is not mapped' none.said &&
		grep -F "the host's daemon is not there yet" held.said &&
		gave_up stopped "host's daemon (process $(<held.pid)) has not answered"
}
run_case a-daemon-that-is-not-there-yet-is-waited-for a_daemon_that_is_not_there_yet_is_waited_for

exit $((failures > 0))
