#!/bin/bash
# SPDX-License-Identifier: GPL-2.0-or-later
# Copyright (C) 2026 the rbdcrypt-nbd authors
#
# The host's daemon and its control socket: the commands by it, clients that misbehave, many
# volumes at once, and that nothing of them stays.
# test: heavy time=900
#
# LONG=1: as many rounds as a host sees in a year (four minutes more).

set -u
# shellcheck source=tests/lib/functions.sh
. "${BASH_SOURCE[0]%/*}/../lib/functions.sh"
requires qemu-io cryptsetup python3
need_program
CONTROL=$(realpath "$LIB_DIR/control.py")

tmpdir T
cd "$T" || fail "no folder"
export RBDCRYPT_NBD_RUN_DIR=$T/run
CASE_LOGS=("$T/daemon.log")
printf 'correct horse' >key
printf 'wrong' >other

start_daemon() { # [OPTION]...
	"$PROGRAM" daemon "$@" >/dev/null 2>>daemon.log &
	daemon=$!
	cleanup_fn end "$daemon"
	wait_for 30 control Status >/dev/null
}

stop_daemon() {
	kill -TERM "$daemon"
	wait "$daemon" && [[ ! -e run/control ]]
}

control() { timeout 180 /usr/bin/python3 "$CONTROL" "$T/run/control" "$@"; }
nbd() { timeout 60 "$PROGRAM" "$@"; }
luks() { # FILE ITERATIONS
	truncate -s 32M "$1"
	cryptsetup luksFormat -q --type luks2 --pbkdf pbkdf2 --pbkdf-force-iterations "$2" "$1" key
}
refused() { # STATUS TEXT COMMAND...
	local status=$1 text=$2 rc=0
	shift 2
	"$@" >refusal 2>&1 || rc=$?
	cat refusal
	[[ $rc == "$status" ]] && grep -qF -- "$text" refusal
}
io() { # SOCKET
	timeout 60 qemu-io -f raw -c 'write -P 7 1M 1M' -c 'read -P 7 1M 1M' \
		"nbd+unix:///?socket=$T/$1" | tee io.log
	! grep -q "failed" io.log
}
usage() { # descriptors and threads
	local fds=("/proc/$daemon/fd/"*) threads=("/proc/$daemon/task/"*)
	echo "${#fds[@]} ${#threads[@]}"
}
has_volume_threads() { [[ $(grep -lx volume "/proc/$daemon/task/"*/comm | wc -l) == "$1" ]]; }
# What it has when it rests: what went before may not have ended yet.
usage_at_rest() {
	wait_for 60 is_at_rest
	echo "$rest"
}
is_at_rest() {
	local i
	has_volume_threads 0 || return
	rest=$(usage)
	for i in 1 2 3 4 5; do
		sleep 0.1
		[[ $(usage) == "$rest" ]] || return
	done
}

serves() { timeout 10 qemu-io -f raw -c 'read 0 64k' "nbd+unix:///?socket=$T/$1" 2>&1 | grep -q '^read '; }
uses() { [[ $(usage) == "$1" ]]; }
has_slow() { [[ $(find run -name '*slow*') ]]; }
has_no_slow() { ! has_slow; }

# ---- the commands by it ----

luks disk 1000 || fail "no LUKS2 header"
truncate -s 4M plain
start_daemon || { cat daemon.log; fail "no daemon"; }

serve_is_done_by_the_daemon() {
	local said id
	said=$(nbd serve --socket s --encryption-passphrase-file key file:disk) || return
	[[ $said == "nbd+unix:///?socket=$T/s" ]] || return
	id=$(nbd list --all --json | python3 -c 'import json, sys; print(json.load(sys.stdin)[0]["id"])')
	[[ $id == "$daemon" ]] && io s && nbd unmap s && [[ ! -e s ]] && alive "$daemon"
}
run_case serve-is-done-by-the-daemon serve_is_done_by_the_daemon

a_lost_key_keeps_the_volume() {
	local rc=0
	nbd serve --socket s --encryption-passphrase-file key file:disk && mv key away || return
	refused 7 "might not open again" nbd unmap s || rc=1
	refused 7 "might not open again" nbd check-keys s || rc=1
	io s && alive "$daemon" || rc=1
	nbd unmap --force s && mv away key && [[ ! -e s ]] && return "$rc"
}
run_case a-lost-key-keeps-the-volume a_lost_key_keeps_the_volume

passphrase_of_standard_input_travels() {
	nbd serve --socket s --encryption-passphrase-file - file:disk <key && io s && nbd unmap file:disk
}
run_case passphrase-of-standard-input-travels passphrase_of_standard_input_travels

faults_are_the_commands_own() {
	refused 2 "No key available" nbd serve --socket s --encryption-passphrase-file other file:disk &&
		refused 4 "nowhere" nbd serve --socket s file:nowhere &&
		refused 1 "is no nbd device" nbd map --device /dev/null file:disk &&
		refused 4 "is not mapped" nbd unmap file:disk && [[ ! -e s ]]
}
run_case faults-are-the-commands-own faults_are_the_commands_own

options_about_the_process_get_one() {
	local id
	nbd serve --log-file "$T/own.log" --socket s file:plain || return
	id=$(nbd list --all --json | python3 -c 'import json, sys; print(json.load(sys.stdin)[0]["id"])')
	[[ $id != "$daemon" ]] && nbd unmap file:plain &&
		nbd serve --no-daemon --socket s file:plain && nbd unmap file:plain &&
		CEPH_ARGS="--key=AQBaa" nbd serve --socket s file:plain || return
	! grep -rqF AQBaa run && nbd unmap file:plain
}
run_case options-about-the-process-get-one options_about_the_process_get_one

# Names are bytes, but no JSON has these: there is a process for them, and others see a mark.
names_that_are_no_text() {
	local name=$'caf\xe9' said
	truncate -s 4M "$name"
	nbd serve --socket s "file:$name" && shows_a_mark || return
	said=$(control Status) && grep -qF 'caf?' <<<"$said" && nbd unmap "file:$name" && [[ ! -e s ]]
}
shows_a_mark() {
	local command
	for command in "list --all" status "stats --interval 0"; do
		# shellcheck disable=SC2086
		nbd $command --json | python3 -c 'import json, sys
assert "caf?" in json.load(sys.stdin.buffer)[0]["spec"]' || return
	done
	nbd list --all --format xml | python3 -c 'import sys, xml.etree.ElementTree as tree
assert "caf?" in tree.parse(sys.stdin.buffer).findtext(".//file")'
}
run_case names-that-are-no-text names_that_are_no_text

an_answer_that_cannot_be_given_is_taken_back() {
	nbd serve --socket s --encryption-passphrase-file key file:disk >/dev/full 2>refusal
	[[ $? == 1 ]] && grep -F 'standard output cannot be written: No space left' refusal &&
		[[ ! -e s && $(nbd list --all --json) == '[]' ]] && alive "$daemon"
}
run_case an-answer-that-cannot-be-given-is-taken-back an_answer_that_cannot_be_given_is_taken_back

second_daemon_is_refused() { refused 5 "another daemon" "$PROGRAM" daemon; }
run_case second-daemon-is-refused second_daemon_is_refused

# ---- the socket ----

service_describes_itself() {
	control org.varlink.service.GetInfo | grep -F '"org.rbdcrypt.Host"' &&
		control org.varlink.service.GetInterfaceDescription '{"interface": "org.rbdcrypt.Host"}' |
		grep -F 'method Map(' &&
		refused 1 MethodNotFound control Nothing &&
		refused 1 InterfaceNotFound control a.b.C &&
		refused 1 InvalidParameter control org.varlink.service.GetInterfaceDescription '{}'
}
run_case service-describes-itself service_describes_itself

requests_are_judged() {
	refused 1 "cannot be given to a daemon" control Serve \
		'{"spec": "file:/x", "options": ["socket=/x", "log-file=/x"]}' &&
		refused 1 "cannot be given to a daemon" control Serve '{"options": ["help"]}' &&
		refused 1 "cannot be given to a daemon" control Serve '{"options": ["options=force"]}' &&
		refused 1 "unknown option" control Map '{"options": ["bogus=1"]}' &&
		refused 1 "absolute" control Serve '{"spec": "file:x", "options": ["socket=/x"]}' &&
		refused 1 "absolute" control Serve '{"spec": "file:/x", "options": ["socket=x"]}' &&
		refused 1 "socket=PATH" control Serve '{"spec": "file:/x"}' &&
		refused 1 "must not travel as text" control Map '{"spec": "a", "ceph": ["--key=AQ=="]}' &&
		refused 1 "did not come" control Map '{"spec": "a", "keys": [{"fd": 3}]}' &&
		refused 1 "neither source nor fd" control Map '{"spec": "a", "keys": [{}]}' &&
		refused 1 "no array" control Map '{"spec": "a", "keys": 5}' &&
		refused 1 "no text" control Map '{"spec": 7}' &&
		refused 1 '\"name\" must be' control Unmap '{}' &&
		refused 1 "org.rbdcrypt.Host.Failed" control Map '{}'
}
run_case requests-are-judged requests_are_judged

misbehaving_clients_are_harmless() {
	local before
	before=$(usage_at_rest)
	control --misbehave || return
	control Status >/dev/null && wait_for 60 uses "$before" || return
}
run_case misbehaving-clients-are-harmless misbehaving_clients_are_harmless

stalling_clients_are_cut() { control --stall; }
run_case stalling-clients-are-cut stalling_clients_are_cut

client_that_dies_takes_its_start_back() {
	local client
	luks slow 4000000 || return
	"$PROGRAM" serve --socket slow.sock --encryption-passphrase-file key file:slow &
	client=$!
	wait_for 60 has_slow || return
	# Meanwhile nobody else waits.
	nbd serve --socket s file:plain && io_plain && nbd unmap file:plain || return
	kill -KILL "$client"
	wait "$client" 2>/dev/null
	wait_for 60 has_no_slow && [[ ! -e slow.sock ]] && alive "$daemon"
}
io_plain() { timeout 30 qemu-io -f raw -c 'write 0 64k' "nbd+unix:///?socket=$T/s"; }
run_case client-that-dies-takes-its-start-back client_that_dies_takes_its_start_back

several_calls_about_one_volume() { control --at-once "$T/plain" "$T/s"; }
run_case several-calls-about-one-volume several_calls_about_one_volume

crowds_are_answered() { control --crowd "$T/disk"; }
run_case crowds-are-answered crowds_are_answered

# A quiet volume has no thread of its own, and gets one when a client comes and when it is to end.
quiet_volumes_have_no_thread() {
	local before
	before=$(usage_at_rest)
	nbd serve --socket s file:plain && nbd serve --socket s2 --encryption-passphrase-file key file:disk &&
		wait_for 30 has_volume_threads 0 && io s2 && has_volume_threads 1 || return
	wait_for 30 has_volume_threads 0 && io s2 && nbd check-keys s2 && nbd status s2 || return
	wait_for 30 has_volume_threads 0 && nbd unmap s && nbd unmap s2 && wait_for 60 uses "$before"
}
run_case quiet-volumes-have-no-thread quiet_volumes_have_no_thread

# A daemon that ends or dies meanwhile leaves what it leaves at any other time.
quiet_volumes_are_left_in_order() {
	nbd serve --socket s file:plain && wait_for 30 has_volume_threads 0 && stop_daemon && [[ ! -e s ]] &&
		start_daemon && wait_for 60 serves s && wait_for 30 has_volume_threads 0 && nbd unmap s
}
run_case quiet-volumes-are-left-in-order quiet_volumes_are_left_in_order

# ---- many ----

# Four clients, 50 volumes, all served and all taken away, again and again.
many_volumes_leave_nothing() {
	local round=1 volumes=50 before after kib i
	[[ ! ${LONG:-} ]] || round=10
	# Every command costs a second there.
	[[ ! ${SANITIZE:-} ]] || volumes=12
	for ((i = 0; i < 50; i++)); do truncate -s 1M "v$i"; done
	some_volumes 0 13 1 || return
	before=$(usage_at_rest)
	by_four "$volumes" "$round" || return
	kib=$(memory)
	by_four "$volumes" "$round" || return
	wait_for 60 uses "$before" || { after=$(usage); echo "descriptors and threads: $before, then $after"; return 1; }
	# A volume costs some MiB while it is there. The heap needs rounds to come to rest.
	after=$(memory)
	echo "memory: $kib KiB after $round rounds, $after KiB after as many more"
	[[ ${SANITIZE:-} ]] || ((after - kib < 4096)) || return
	[[ $(control Status) == '{"volumes":[]}' ]]
	[[ -z $(find run -name '*.json*') ]]
}
by_four() { # VOLUMES ROUNDS
	local client pids=() rc=0
	for client in 0 1 2 3; do
		some_volumes "$client" "$1" "$2" &
		pids+=($!)
	done
	for client in "${pids[@]}"; do wait "$client" || rc=1; done
	return "$rc"
}
memory() { awk '$1 == "Anonymous:" { print $2 }' "/proc/$daemon/smaps_rollup"; }
some_volumes() { # FIRST END ROUNDS
	local r i
	for ((r = 0; r < $3; r++)); do
		for ((i = $1; i < $2; i += 4)); do
			nbd serve --queue-memory 33M --socket "v$i.sock" "file:v$i" >/dev/null || return
		done
		for ((i = $1; i < $2; i += 4)); do
			nbd unmap "v$i.sock" || return
		done
	done
}
run_case many-volumes-leave-nothing many_volumes_leave_nothing

# ---- what a daemon finds ----

kill_daemon() {
	kill -KILL "$daemon"
	wait "$daemon" 2>/dev/null
}
health() { # TEXT
	nbd status --json | grep -F '"health"' | grep -qF -- "$1"
}

# A restart in the middle of a start is no death of the daemon.
a_daemon_that_ends_says_so() {
	local client rc=0
	"$PROGRAM" serve --socket slow.sock --encryption-passphrase-file \
		"exec:/bin/sh -c ': >$T/asked; sleep 30'" file:disk 2>refusal &
	client=$!
	wait_for 60 test -e asked || rc=1
	stop_daemon || rc=1
	wait "$client"
	[[ $? == 6 ]] && grep -F 'the daemon ended before this was done' refusal && [[ ! -e slow.sock ]] || rc=1
	start_daemon && [[ $(control Status) == '{"volumes":[]}' ]] && return "$rc"
}
run_case a-daemon-that-ends-says-so a_daemon_that_ends_says_so

# What was served is served again by the next one, whether the last had time to end or not.
successor_goes_on() {
	nbd serve --socket s --encryption-passphrase-file key file:disk && io s || return
	stop_daemon && [[ ! -e s ]] && start_daemon && wait_for 60 serves s || return
	kill_daemon
	start_daemon && wait_for 60 serves s && [[ $(control Status | grep -c '"hosted":true') == 1 ]]
}
run_case successor-goes-on successor_goes_on

# The key is away: the volume waits and says so; when it is back, it goes on.
successor_waits_for_the_key() {
	stop_daemon && mv key away && start_daemon && wait_for 60 health "cannot read passphrase file" &&
		! serves s || return
	# And nobody who could say that it opens.
	refused 4 "its keys were not checked: waits: cannot read passphrase file" nbd check-keys "$T/s" &&
		mv away key && wait_for 60 serves s && health '""'
}
run_case successor-waits-for-the-key successor_waits_for_the_key

# A passphrase that does not fit is tried once, and again when somebody asks for it.
successor_does_not_hammer() {
	local tries
	stop_daemon && cp key right && cp other key && : >daemon.log && start_daemon &&
		wait_for 60 health "No key available" && sleep 5 || return
	tries=$(grep -c "waits:" daemon.log)
	cp right key
	[[ $tries == 1 ]] && kill -HUP "$daemon" && wait_for 60 serves s && nbd unmap s && stop_daemon &&
		start_daemon && [[ $(control Status) == '{"volumes":[]}' ]] && stop_daemon
}
run_case successor-does-not-hammer successor_does_not_hammer

# What was read from standard input is gone with the daemon: the next one says what to do.
successor_has_no_key_that_was_given_once() {
	local way=(--socket s --encryption-passphrase-file - file:disk)
	start_daemon && nbd serve "${way[@]}" <key && io s && stop_daemon && start_daemon &&
		wait_for 60 health "its passphrase was given once and is not kept: serve it again" &&
		! serves s && nbd serve "${way[@]}" <key && serves s && health '""' && nbd unmap s && stop_daemon
}
run_case successor-has-no-key-that-was-given-once successor_has_no_key_that_was_given_once

# One that is on its way back can be taken away, whatever it is called, and stays away.
is_state() { # NAME
	nbd status --json | grep '"state"' | grep -qF "\"$1\""
}
successor_lets_go_of_what_is_unmapped() {
	local name
	printf '#!/bin/sh\n[ ! -e %s/stuck ] || exec sleep 300\nexec cat %s/key\n' "$T" "$T" >helper
	chmod 755 helper
	start_daemon || return
	for name in "$T/s" file:disk; do
		nbd serve --socket s --encryption-passphrase-file "exec:$T/helper" file:disk || return
		: >stuck
		stop_daemon && start_daemon && wait_for 60 is_state starting && nbd unmap "$name" || return
		rm stuck
		[[ $(control Status) == '{"volumes":[]}' ]] && control Reload && sleep 1 &&
			[[ $(control Status) == '{"volumes":[]}' ]] || return
	done
	stop_daemon
}
run_case successor-lets-go-of-what-is-unmapped successor_lets_go_of_what_is_unmapped

# From inside the run directory, because others cannot walk through the folders above it.
as_member() { # OPTION METHOD [PARAMETERS]
	local option=$1
	shift
	(cd run && exec setpriv --reuid 65534 --regid 65534 "$option" /usr/bin/python3 - control "$@" <"$CONTROL")
}
only_its_group_may_speak() {
	[[ $EUID == 0 ]] || { echo "# SKIP needs root"; return 0; }
	start_daemon --control-group games || return
	! as_member --clear-groups Status || return
	as_member --groups=games Status &&
		refused 1 "only root may name a file" as_member --groups=games Map '{"spec": "file:/etc/hostname"}' &&
		refused 1 "only root" as_member --groups=games Reload &&
		refused 1 "only root" as_member --groups=games Map '{"spec": "a/b", "options": ["conf=/etc/x"]}' &&
		refused 1 "only root" as_member --groups=games Map '{"spec": "a/b", "ceph": ["--mon-host=x"]}' &&
		refused 1 "only root" as_member --groups=games Map '{"spec": "a/b", "options": ["cluster=../../tmp/x"]}' &&
		refused 1 "only root" as_member --groups=games Serve '{"spec": "a/b"}' &&
		refused 1 "must pass an open descriptor" as_member --groups=games Map \
			'{"spec": "a/b", "keys": [{"source": "/etc/shadow"}]}' &&
		stop_daemon
}
run_case only-its-group-may-speak only_its_group_may_speak

# The program, too, where others cannot walk to it.
member_nbd() {
	(cd run && RBDCRYPT_NBD_RUN_DIR=. exec setpriv --reuid 65534 --regid 65534 --groups=games \
		/proc/self/fd/9 "$@" 9<"$PROGRAM")
}
members_use_the_commands() {
	[[ $EUID == 0 ]] || { echo "# SKIP needs root"; return 0; }
	start_daemon --control-group games && nbd serve --socket s file:plain || return
	member_nbd list --all --json | grep -F "\"$T/s\"" && member_nbd status "$T/s" &&
		refused 2 "only root" member_nbd serve --socket x a/b &&
		refused 2 "only root" member_nbd map --cluster ../../tmp/x a/b &&
		refused 2 "only root" member_nbd map --user x a/b &&
		refused 2 "only root" member_nbd map file:/etc/hostname &&
		serves s && member_nbd unmap "$T/s" && [[ ! -e s ]] || return
	# A volume of another process is not the daemon's.
	nbd serve --no-daemon --socket s file:plain &&
		refused 1 "only root may unmap" as_member --groups=games Unmap "{\"name\": \"$T/s\", \"force\": true}" &&
		serves s && nbd unmap s || return
	# One that waits for its passphrase is.
	nbd serve --socket s --encryption-passphrase-file - file:disk <key && stop_daemon &&
		start_daemon --control-group games && wait_for 60 health "given once" &&
		member_nbd unmap "$T/s" && [[ $(control Status) == '{"volumes":[]}' ]] && stop_daemon
}
run_case members-use-the-commands members_use_the_commands

# The process that its state file names is another by now.
reused_pid_is_left_alone() {
	local other
	start_daemon && nbd serve --socket s file:plain || return
	kill_daemon
	sleep 300 &
	other=$!
	cleanup_fn end "$other"
	sed -i "s/\"id\": *[0-9]*/\"id\":$other/" run/*plain*.json
	start_daemon && wait_for 60 serves s && io_plain && nbd unmap file:plain &&
		alive "$other" || return
	kill "$other"
	stop_daemon
}
run_case reused-pid-is-left-alone reused_pid_is_left_alone

# As many volumes as a shell's limit on open files has no room for; it holds for helpers, though.
many_volumes_need_many_files() {
	local i rc=0 hard
	hard=$(ulimit -H -n)
	[[ $hard == unlimited || $hard -ge 1100 ]] || { echo "# SKIP no more than $hard open files"; return 0; }
	ulimit -S -n 64
	start_daemon
	ulimit -S -n "$hard"
	for i in {1..8}; do
		truncate -s 4M "many$i"
		nbd serve --socket "m$i" "file:many$i" || rc=1
	done
	io m8 || rc=1
	nbd serve --socket s --encryption-passphrase-file \
		'exec:/bin/sh -c "sleep 1; [ $(ulimit -S -n) -le 1024 ] && cat '"$T/key"'"' file:disk &&
		nbd unmap s || rc=1
	for i in {1..8}; do nbd unmap "m$i" || rc=1; done
	stop_daemon || rc=1
	return $rc
}
run_case many-volumes-need-many-files many_volumes_need_many_files

# A state file that cannot be removed is there again in the next list, so it was not unmapped.
unmap_of_the_dead_is_told_true() {
	local id rc=0
	export RBDCRYPT_NBD_RUN_DIR=$T/dead
	nbd serve --socket s file:plain || return
	id=$(sed -n 's/.*"id": *\([0-9]*\).*/\1/p' dead/*plain.json)
	kill -KILL "$id" && wait_for 60 gone "$id" && rm -f dead/.lock && mkdir dead/.lock || return
	refused 2 "plain: its state file cannot be removed" nbd unmap file:plain || rc=1
	rmdir dead/.lock && nbd unmap file:plain || rc=1
	refused 4 "is not mapped" nbd unmap file:plain || rc=1
	export RBDCRYPT_NBD_RUN_DIR=$T/run
	rm -f s
	return "$rc"
}
run_case unmap-of-the-dead-is-told-true unmap_of_the_dead_is_told_true

# Whoever unmaps has asked it to end by then; that it dies instead changes nothing.
was_asked_to_end() { grep -qE '^ShdPnd:.*[4-7c-f][0-9a-f]{3}$' "/proc/$1/status"; }
a_death_meanwhile_leaves_nothing() {
	local id client rc=0
	nbd serve --no-daemon --socket s file:plain || return
	id=$(sed -n 's/.*"id": *\([0-9]*\).*/\1/p' run/*plain.json)
	pause "$id" || return
	nbd unmap file:plain &
	client=$!
	wait_for 60 was_asked_to_end "$id" || rc=1
	kill -KILL "$id"
	wait "$client" || rc=1
	refused 4 "is not mapped" nbd unmap file:plain && [[ -z $(find run -name '*plain*') ]] || rc=1
	rm -f s
	return "$rc"
}
run_case a-death-meanwhile-leaves-nothing a_death_meanwhile_leaves_nothing

# Of several of a name the living one is meant. The files of readers that died are no other reader's,
# and would stay for ever.
the_dead_are_out_of_the_way() {
	local id i
	nbd serve --read-only --socket live file:plain || return
	for i in 1 2 3; do
		nbd serve --no-daemon --read-only --socket "r$i" file:plain || return
	done
	for id in $(nbd list --all --json | python3 -c "import json, sys
for v in json.load(sys.stdin):
    if v['socket'].split('/')[-1] != 'live': print(v['id'])"); do
		kill -KILL "$id" && wait_for 60 gone "$id" || return
	done
	nbd unmap file:plain && [[ ! -e live ]] || return
	nbd serve --read-only --socket live file:plain && nbd unmap live || return
	[[ -z $(find run -name '*plain*') ]]
}
both_ways_the_dead_are_out_of_the_way() {
	the_dead_are_out_of_the_way && start_daemon && the_dead_are_out_of_the_way && stop_daemon
	local rc=$?
	rm -f r[123]
	return $rc
}
run_case the-dead-are-out-of-the-way both_ways_the_dead_are_out_of_the_way

small_daemon() {
	RBDCRYPT_NBD_RUN_DIR=$T/small "$PROGRAM" daemon 2>>daemon.log &
	daemon=$!
	cleanup_fn end "$daemon"
	wait_for 30 test -S small/control
}
is_listed() { nbd list --all --json | grep -qF "\"$T/kept\""; }
full_run_directory_is_told() {
	[[ $EUID == 0 ]] || { echo "# SKIP needs root"; return 0; }
	local rc=0
	mkdir small && mount -t tmpfs -o size=64k,mode=755 tmpfs small || return
	cleanup_fn umount -q -l "$T/small"
	small_daemon || return
	export RBDCRYPT_NBD_RUN_DIR=$T/small
	nbd serve --socket kept --encryption-passphrase-file key file:disk || rc=1
	dd if=/dev/zero of=small/fill bs=4k 2>/dev/null
	refused 3 "No space left" nbd serve --socket s file:plain || rc=1
	[[ ! -e s && -z $(find small -name '*plain*' -o -name '.tmp-*') ]] || rc=1
	# What was there before goes on, and is known, although no news of it can be written.
	nbd check-keys kept && io kept && is_listed || rc=1
	kill -TERM "$daemon"
	wait "$daemon" && is_listed || rc=1
	rm small/fill
	small_daemon && wait_for 60 serves kept && nbd unmap kept || rc=1
	nbd serve --socket s file:plain && nbd unmap file:plain || rc=1
	export RBDCRYPT_NBD_RUN_DIR=$T/run
	kill -TERM "$daemon"
	wait "$daemon" || rc=1
	umount small
	return "$rc"
}
run_case full-run-directory-is-told full_run_directory_is_told

exit $((failures > 0))
