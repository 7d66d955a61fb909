#!/usr/bin/env bash
# SPDX-License-Identifier: GPL-2.0-or-later
# Copyright (C) 2026 the rbdcrypt-nbd authors
#
# Volumes of the host's daemon that share a connection to the cluster, some of them in a pool that
# answers nothing: however much of theirs is under way, the others go on. Each time the pool comes
# back in the end, and every request has its answer.
# test: heavy time=300

set -u
. "${BASH_SOURCE[0]%/*}/../lib/functions.sh"
. "${BASH_SOURCE[0]%/*}/../lib/cluster.sh"
requires rbd ceph ceph-osd qemu-io jq
/usr/bin/python3 -c 'import nbd' 2>/dev/null || skip "missing: python3-libnbd"
program_on_cluster memstore
cd "$T" || fail "no folder"
CASE_LOGS=(daemon.log)
nbd() { timeout 60 "$PROGRAM" "$@"; }

# One OSD has one of the two copies that the pool wants; that is enough, or it is not.
pool_min_size() { timeout 60 ceph osd pool set lame min_size "$1" 2>/dev/null; }
pool_is() { # active|peered
	[[ $(timeout 30 ceph pg "$lame.0" query | jq -r .state) == *"$1"* ]]
}

# flood SOCKET CONNECTIONS REQUESTS BYTES STRIDE write|trim: all at once; until each has succeeded.
flood() {
	exec timeout 200 /usr/bin/python3 - "$@" <<-'PYTHON'
		import nbd, select, sys
		socket, command = sys.argv[1], sys.argv[6]
		connections, requests, size, stride = map(int, sys.argv[2:6])
		data = nbd.Buffer.from_bytearray(bytearray(size if command == "write" else 1))
		handles, cookies = [], []
		for i in range(connections):
		    h = nbd.NBD()
		    h.connect_unix(socket)
		    handles.append(h)
		    for j in range(requests):
		        at = (i * requests + j) * stride
		        cookies.append((h, h.aio_pwrite(data, at) if command == "write" else h.aio_trim(size, at)))
		while any(h.aio_in_flight() for h in handles):
		    poll = select.poll()
		    for h in handles:
		        to = h.aio_get_direction()
		        poll.register(h.aio_get_fd(), select.POLLIN * (to & 1 > 0) | select.POLLOUT * (to & 2 > 0))
		    ready = dict(poll.poll())
		    for h in handles:
		        events, to = ready.get(h.aio_get_fd(), 0), h.aio_get_direction()
		        if events & (select.POLLIN | select.POLLHUP) and to & 1:
		            h.aio_notify_read()
		        elif events & select.POLLOUT and to & 2:
		            h.aio_notify_write()
		for h, cookie in cookies:
		    assert h.aio_command_completed(cookie)
	PYTHON
}
in_flight() { # SOCKET REQUESTS
	[[ $(nbd stats --json "$1" | jq '.[0].in_flight') -ge $2 ]]
}
io() { timeout 60 qemu-io -f raw -c "$2" "nbd+unix:///?socket=$T/$1" 2>&1 | grep -E '^(read|wrote) '; }
others_go_on() {
	io a 'read 0 64k' && io a 'write 0 64k' && nbd serve --socket later rbd/later && io later 'read 0 64k' &&
		nbd unmap later
}

# holds_nobody IN_FLIGHT FLOOD-ARGUMENTS...: several floods are separated by "and".
holds_nobody() {
	local want=$1 args=() word pids=() sockets=() rc=0
	shift
	pool_min_size 2 && wait_for 60 pool_is peered || return
	for word in "$@" and; do
		[[ $word == and ]] || { args+=("$word"); continue; }
		flood "${args[@]}" &
		pids+=($!) sockets+=("${args[0]}") args=()
	done
	for word in "${sockets[@]}"; do wait_for 60 in_flight "$word" "$want" || { echo "$word is idle"; rc=1; }; done
	others_go_on || { echo "the others stand still"; rc=1; }
	pool_min_size 1 || rc=1
	for word in "${pids[@]}"; do wait "$word" || { echo "a request failed"; rc=1; }; done
	others_go_on || rc=1
	return "$rc"
}

# ---- volumes ----

features=layering,exclusive-lock # with an object map, what was never written is not trimmed
{
	timeout 60 ceph osd pool create lame 4 && timeout 60 ceph osd pool set lame size 2 && pool_min_size 1 &&
		timeout 60 rbd pool init lame
} >/dev/null 2>&1 || fail "no pool"
lame=$(timeout 60 ceph osd pool ls detail -f json | jq '.[] | select(.pool_name == "lame").pool_id')
for image in rbd/a rbd/later lame/b lame/c lame/parent; do
	timeout 60 rbd create --size 8G --image-feature $features "$image" || fail "no image"
done
{
	timeout 60 rbd snap create --no-progress lame/parent@snap && timeout 60 rbd snap protect lame/parent@snap &&
		timeout 60 rbd clone --image-feature $features lame/parent@snap rbd/clone
} || fail "no clone"
"$PROGRAM" daemon >/dev/null 2>>daemon.log &
daemon=$!
cleanup_fn end "$daemon"
wait_for 30 test -S run/control || { cat daemon.log; fail "no daemon"; }
for image in rbd/a lame/b lame/c rbd/clone; do
	{ nbd serve --socket "${image#*/}" "$image" && io "${image#*/}" 'write 0 64k'; } >/dev/null ||
		fail "no volume $image"
done

# librados lets 1024 operations and 100 MiB of them be under way, if it is not told otherwise.
run_case many-small-writes-hold-nobody holds_nobody 2048 b 16 128 4096 4096 write
run_case large-writes-of-two-hold-nobody \
	holds_nobody 10 b 1 10 $((8 << 20)) $((8 << 20)) write and c 1 10 $((8 << 20)) $((8 << 20)) write
run_case trims-hold-nobody holds_nobody 4 b 1 4 $((2 << 30)) $((2 << 30)) trim
# What is written for the first time in a clone is read from the parent, a whole object each; the
# parent is in the pool that does not answer.
run_case first-writes-of-a-clone-hold-nobody holds_nobody 120 clone 1 128 4096 $((4 << 20)) write

for socket in a b c clone; do nbd unmap "$socket" || failures=1; done
kill -TERM "$daemon"
wait_for 60 gone "$daemon" || failures=1
exit $((failures > 0))
