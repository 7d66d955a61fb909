#!/usr/bin/env bash
# SPDX-License-Identifier: GPL-2.0-or-later
# Copyright (C) 2026 the rbdcrypt-nbd authors
#
# The host's daemon with the volumes of a cluster: many at once, of which nothing stays, neither
# here nor in the cluster, and a cluster that is away when the daemon starts.
# test: heavy time=600
#
# LONG=1: 50 volumes by four clients, twenty rounds, and what is left of them; else 8, twice.

set -u
. "${BASH_SOURCE[0]%/*}/../lib/functions.sh"
. "${BASH_SOURCE[0]%/*}/../lib/cluster.sh"
requires rbd ceph ceph-osd qemu-io cryptsetup jq
program_on_cluster memstore
cd "$T" || fail "no folder"
failures=0
# After the first round, which leaves caches.
volumes=8 rounds=1
[[ ! ${LONG:-} ]] || { volumes=50; rounds=19; }
printf 'correct horse' >key
chmod 600 key

# claim NAME COMMAND...: what it says is shown when it fails.
claim() {
	local name=$1
	shift
	if "$@" >said 2>&1; then
		echo "ok $name"
		sed -n 's/^FIGURE /	/p' said
	else
		sed 's/^/	/' said
		tail -n 20 daemon.log | sed 's/^/	daemon: /'
		echo "not ok $name"
		failures=$((failures + 1))
	fi
}
nbd() { timeout 120 "$PROGRAM" "$@"; }
start_daemon() {
	"$PROGRAM" daemon >/dev/null 2>>daemon.log &
	daemon=$!
	cleanup_fn end "$daemon"
	wait_for 30 test -S run/control
}
stop_daemon() {
	kill -TERM "$daemon"
	wait "$daemon"
}
reads() { timeout 20 qemu-io -f raw -c 'read 0 64k' "nbd+unix:///?socket=$T/$1" 2>&1 | grep -q '^read '; }

# The passphrase costs little: what is counted here is what is left.
{ rbd create --size 24M rbd/v0 && nbd serve --socket first rbd/v0 >/dev/null; } || fail "no image"
truncate -s 24M luks
cryptsetup luksFormat -q --type luks2 --pbkdf pbkdf2 --pbkdf-force-iterations 1000 luks key || fail "no LUKS2 header"
{ qemu-img convert -n -f raw -O raw luks "nbd+unix:///?socket=$T/first" && nbd unmap first; } || fail "no encrypted image"
for ((i = 1; i < volumes; i++)); do rbd cp --no-progress rbd/v0 "rbd/v$i" || fail "no images"; done
start_daemon || { cat daemon.log; fail "no daemon"; }

# ---- many, and what is left of them ----

# The heap in use grows by some hundred bytes with each volume, but with the threads of librados
# come the arenas and stacks of as many threads: a process comes to rest only after many rounds. So
# the bound is far above that, and still far below what a volume or a connection has in memory.

some_volumes() { # FIRST ROUNDS: every fourth
	local r i
	for ((r = 0; r < $2; r++)); do
		for ((i = $1; i < volumes; i += 4)); do
			nbd serve --queue-memory 33M --exclusive --encryption-passphrase-file key \
				--socket "v$i.sock" "rbd/v$i" >/dev/null || return
		done
		for ((i = $1; i < volumes; i += 4)); do reads "v$i.sock" || return; done
		for ((i = $1; i < volumes; i += 4)); do nbd unmap "v$i.sock" || return; done
	done
}
by_four() { # ROUNDS
	local client pids=() rc=0
	for client in 0 1 2 3; do
		some_volumes "$client" "$1" &
		pids+=($!)
	done
	for client in "${pids[@]}"; do wait "$client" || rc=1; done
	return "$rc"
}
usage() { # descriptors and threads
	local fds=("/proc/$daemon/fd/"*) threads=("/proc/$daemon/task/"*)
	echo "${#fds[@]} ${#threads[@]}"
}
memory() { awk '$1 == "Anonymous:" { print $2 }' "/proc/$daemon/smaps_rollup"; }
uses() { [[ $(usage) == "$1" ]]; }
# What it has when it rests: what went before may not have ended yet.
usage_at_rest() {
	wait_for 60 is_at_rest
	echo "$rest"
}
is_at_rest() {
	local i
	rest=$(usage)
	for i in 1 2 3 4 5; do
		sleep 0.1
		[[ $(usage) == "$rest" ]] || return
	done
}

nothing_stays() {
	local before kib after i
	before=$(usage_at_rest)
	by_four 1 || { echo "first round"; return 1; }
	wait_for 60 uses "$before" || { echo "$before, then $(usage)"; return 1; }
	kib=$(memory)
	by_four "$rounds" || { echo "later rounds"; return 1; }
	wait_for 60 uses "$before" || { echo "$before, then $(usage)"; return 1; }
	after=$(memory)
	echo "FIGURE memory: $kib KiB after one round, $after KiB after $rounds more of $volumes volumes"
	((after - kib < 16384 + 256 * rounds * volumes)) || return
	for ((i = 0; i < volumes; i++)); do
		[[ $(rbd lock ls "rbd/v$i") == "" ]] || { echo "v$i is locked"; return 1; }
		! rbd status "rbd/v$i" | grep 'watcher=' || { echo "v$i is watched"; return 1; }
	done
	[[ -z $(find run -name '*.json*') ]] && [[ $(nbd list --all --json) == '[]' ]]
}
claim nothing-stays nothing_stays

# While they are served they have one connection to the cluster, then none.
sockets() { # PROCESS: to others than this machine's processes
	local fd
	for fd in "/proc/$1/fd/"*; do readlink "$fd"; done | sed -n 's/^socket:\[\(.*\)\]/\1/p' |
		sort >mine
	awk 'NR > 1 && $4 == "01" { print $10 }' /proc/net/tcp | sort | comm -12 - mine | wc -l
}
one_connection_serves_them_all() {
	local one two
	[[ $(sockets "$daemon") == 0 ]] || return
	nbd serve --socket a rbd/v0 >/dev/null && one=$(sockets "$daemon") &&
		nbd serve --socket b rbd/v1 >/dev/null && two=$(sockets "$daemon") || return
	echo "connections: $one, then $two"
	((one > 0 && two <= one + 1)) && nbd unmap a && [[ $(sockets "$daemon") -gt 0 ]] && nbd unmap b || return
	wait_for 60 no_sockets
}
no_sockets() { [[ $(sockets "$daemon") == 0 ]]; }
claim one-connection-serves-them-all one_connection_serves_them_all

# What the client names without a folder is in the client's.
files_are_where_the_client_is() {
	mkdir sub && (cd sub && unset CEPH_CONF && export CEPH_ARGS='--conf ../cluster/ceph.conf' &&
		nbd serve --socket b rbd/v0 && reads sub/b && nbd unmap b)
}
claim files-are-where-the-client-is files_are_where_the_client_is

# One lock that another client broke shuts all volumes of the daemon out, but none that come after.
shut_out() { # once the OSD knows
	! nbd serve --socket b rbd/v1 >said.b 2>&1 || { nbd unmap b; return 1; }
	grep -q 'blocklisted' said.b && grep -q 'hint: .*try again' said.b
}
new_volumes_get_past_a_blocklist() {
	local client
	nbd serve --socket a rbd/v0 && reads a || return
	client=$(nbd list --all --json | jq -r '.[0].client')
	ceph osd blocklist add "$client" && wait_for 60 shut_out || return
	nbd serve --socket b rbd/v1 && reads b && nbd unmap b && nbd unmap --force a || return
	ceph osd blocklist rm "$client" && wait_for 60 no_sockets
}
claim new-volumes-get-past-a-blocklist new_volumes_get_past_a_blocklist

# Storage does not answer, a write is under way: who wants that volume to go is told in time, and all
# others go on.
in_flight() { [[ $(nbd stats --json a | jq '.[0].in_flight') -gt 0 ]]; }
is_empty() { [[ $(nbd list --all --json) == '[]' ]]; }
wedged_volume_holds_nobody() {
	local writer rc=0 status=0
	truncate -s 4M aside
	nbd serve --socket a rbd/v0 && nbd serve --socket near file:aside && cluster_osd_pause "$T/cluster" || return
	timeout 100 qemu-io -f raw -c 'write 20M 64k' "nbd+unix:///?socket=$T/a" &
	writer=$!
	wait_for 60 in_flight || rc=1
	nbd unmap --force --reattach-timeout 2 a || status=$?
	[[ $status == 6 ]] && reads near && nbd unmap near || rc=1
	cluster_osd_resume "$T/cluster"
	wait_for 60 is_empty || rc=1
	wait "$writer"
	return "$rc"
}
claim wedged-volume-holds-nobody wedged_volume_holds_nobody

# The monitor is the first that it has a connection to.
asks_an_osd() { [[ $(sockets "$1") -ge 2 ]]; }

# Storage does not answer, so an image is being opened for as long as it may take; who is told to stop
# then does so, with exit status 6.
opening_is_interrupted() {
	local pid rc=0 status=0 start
	cluster_osd_pause "$T/cluster"
	"$PROGRAM" serve --no-daemon --foreground --open-timeout 60 --socket b rbd/v0 >/dev/null 2>err &
	pid=$!
	cleanup_fn end "$pid"
	wait_for 60 asks_an_osd "$pid" && sleep 1 || rc=1
	start=$SECONDS
	kill -TERM "$pid"
	wait "$pid" || status=$?
	cat err
	echo "ended with $status after $((SECONDS - start)) s"
	((status == 6 && SECONDS - start < 30)) && [[ ! -e b ]] && grep -q 'rbd/v0: interrupted' err || rc=1
	cluster_osd_resume "$T/cluster"
	nbd serve --socket b rbd/v0 && reads b && nbd unmap b && return "$rc"
}
claim opening-is-interrupted opening_is_interrupted

# Storage goes away later, before the CALL of Ceph's libraries that is named.
"${CC:-gcc}" -shared -fPIC -D_GNU_SOURCE -o stop.so "$LIB_DIR/../ceph/preload/stop.c" || fail "no library"
start_that_is_stopped() { # CALL OPEN-TIMEOUT
	: >err
	STOP_BEFORE=$1 STOP_PID=$osd LD_PRELOAD=$T/stop.so "$PROGRAM" serve --no-daemon --foreground \
		--open-timeout "$2" --socket b --encryption-passphrase-file key rbd/v0 >/dev/null 2>err &
	pid=$!
	cleanup_fn end "$pid"
	wait_for 60 _paused "$osd" && return
	echo "$1 is not called"
	kill -KILL "$pid"
	return 1
}
ends_with_6() { # SECONDS TEXT
	local rc=0 status=0 start=$SECONDS
	wait "$pid" || status=$?
	cat err
	echo "ended with $status after $((SECONDS - start)) s"
	((status == 6 && SECONDS - start < $1)) && [[ ! -e b ]] && grep -qF "$2" err || rc=1
	cluster_osd_resume "$T/cluster"
	nbd serve --socket b rbd/v0 && reads b && nbd unmap b && return "$rc"
}
first_reads_are_interrupted() {
	local osd pid
	osd=$(_cluster_pids "$T/cluster" osd)
	start_that_is_stopped rados_aio_read 60 && kill -TERM "$pid" && ends_with_6 30 'rbd/v0: interrupted'
}
claim first-reads-are-interrupted first_reads_are_interrupted
# Ceph is not waited for, neither for what it has not done yet nor to undo the rest in order.
all_of_opening_is_interrupted() {
	local osd pid call
	osd=$(_cluster_pids "$T/cluster" osd)
	for call in rbd_update_watch rbd_get_data_pool_id; do
		start_that_is_stopped $call 60 && kill -TERM "$pid" && ends_with_6 30 interrupted || return
	done
}
claim all-of-opening-is-interrupted all_of_opening_is_interrupted
first_reads_are_waited_for_as_long_as_opening() {
	local osd pid
	osd=$(_cluster_pids "$T/cluster" osd)
	start_that_is_stopped rados_aio_read 3 && ends_with_6 30 'rbd/v0: cannot read the image: no answer in time'
}
claim first-reads-are-waited-for-as-long-as-opening first_reads_are_waited_for_as_long_as_opening

# The same in the daemon, which has no state file of it yet: unmap knows it, and whoever waits is told.
unmap_ends_what_is_being_opened() {
	local pid rc=0 status=0 start
	nbd unmap rbd/v0
	[[ $? == 4 ]] || return
	cluster_osd_pause "$T/cluster"
	"$PROGRAM" serve --open-timeout 60 --socket b rbd/v0 >/dev/null 2>err &
	pid=$!
	cleanup_fn end "$pid"
	wait_for 60 asks_an_osd "$daemon" && sleep 1 || rc=1
	start=$SECONDS
	nbd unmap --image v0 --pool rbd || rc=1
	wait "$pid" || status=$?
	cat err
	echo "ended with $status after $((SECONDS - start)) s"
	((status == 6 && SECONDS - start < 30)) && [[ ! -e b ]] || rc=1
	cluster_osd_resume "$T/cluster"
	nbd serve --socket b rbd/v0 && reads b && nbd unmap b && return "$rc"
}
claim unmap-ends-what-is-being-opened unmap_ends_what_is_being_opened

# ---- names change while volumes are served ----

content() { timeout 60 qemu-img convert -f raw -O raw "nbd+unix:///?socket=$T/$1" seen && cmp -n 65536 "$2" seen; }
listed() { nbd list --all --json | jq -er ".[] | select(.socket == \"$T/$1\") | .image"; }
# Its clients would write into another image. The key is the one that the name meant, too.
swapped_names_swap_no_volume() {
	local i
	for i in 1 2; do
		head -c 4M /dev/urandom >plain$i && rbd import --no-progress plain$i rbd/plain$i || return
		(umask 077 && printf %s "key of $i" >image$i.key)
		truncate -s 24M luks$i && cryptsetup luksFormat -q --type luks2 --pbkdf pbkdf2 \
			--pbkdf-force-iterations 1000 luks$i image$i.key &&
			rbd import --no-progress luks$i rbd/image$i || return
	done
	nbd serve --socket a rbd/plain1 && nbd serve --socket b --encryption-passphrase-file %i.key rbd/image1 &&
		timeout 60 qemu-io -f raw -c 'write -P 7 0 64k' "nbd+unix:///?socket=$T/b" || return
	for i in plain image; do
		rbd mv rbd/${i}1 rbd/other && rbd mv rbd/${i}2 rbd/${i}1 && rbd mv rbd/other rbd/${i}2 || return
	done
	stop_daemon
	start_daemon
	wait_for 30 reads a && content a plain1 && wait_for 30 reads b &&
		timeout 60 qemu-io -f raw -c 'read -P 7 0 64k' "nbd+unix:///?socket=$T/b" || return
	[[ $(listed a) == plain1 ]] && nbd check-keys b && nbd unmap b || return
	# Now by name.
	nbd unmap a && nbd serve --socket a rbd/plain1 && content a plain2 && nbd unmap a
}
claim swapped-names-swap-no-volume swapped_names_swap_no_volume

# ---- a cluster that is away when the daemon starts ----

waits() { nbd status --json | grep -F '"health"' | grep -qF 'waits: '; }
cluster_is_away_at_boot() {
	local rc=0
	truncate -s 4M plain
	nbd serve --socket far --open-timeout 3 --encryption-passphrase-file key rbd/v0 &&
		nbd serve --socket near file:plain && stop_daemon || return
	_cluster_signal STOP "$T/cluster"
	start_daemon && wait_for 60 reads near && wait_for 30 waits && ! reads far && reads near || rc=1
	# A new one gets through as well, and one that waits does not hold up the end.
	truncate -s 4M other
	nbd serve --socket more file:other && reads more && nbd unmap more || rc=1
	_cluster_signal CONT "$T/cluster"
	wait_for 90 reads far || rc=1
	nbd unmap far && nbd unmap near && return "$rc"
}
claim cluster-is-away-at-boot cluster_is_away_at_boot

stop_daemon || failures=1
exit $((failures > 0))
