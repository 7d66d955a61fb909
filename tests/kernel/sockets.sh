#!/bin/bash
# SPDX-License-Identifier: GPL-2.0-or-later
# Copyright (C) 2026 the rbdcrypt-nbd authors
#
# sockets.sh: what goes wrong between the kernel, the daemon and the store, while every write is
# stamped and checked: dead sockets, dead storage, another size. Dead daemons are in deaths.sh.

# test: heavy time=1500

# Paths and names of ours have no blanks.
# shellcheck disable=SC2086
# shellcheck source=tests/kernel/guest.sh
. "${BASH_SOURCE[0]%/*}/guest.sh"
# shellcheck source=tests/kernel/stamps.sh
. "${BASH_SOURCE[0]%/*}/stamps.sh"

in_guest || guest_boot 1460 --mem 3G --nbds 4

UNITS=2048
THREADS=12

readers() { cat "/proc/$(daemon_of "$1")/task/"*/comm | grep -cx reader; }
has_readers() { [[ $(readers "$1") == "$2" ]]; }
# Cuts none, and counts them.
has_sockets() { [[ $("$TOOLS/cut" "$(daemon_of "$1")" 0) == "$2" ]]; }
reconnects() { dmesg | grep -c 'reconnected socket' || true; }
has_replaced() { (($(reconnects) >= $1)); }

# Each socket has a worker in the kernel that reads it. Where those come late, as on a busy machine,
# one that is there for when memory is short takes over several sockets, and reads the first alone:
# of the others nobody sees that they died.
has_receivers() { [[ $(cat /proc/[0-9]*/comm 2>/dev/null | grep -c "+${1##*/}-recv\$") == "$2" ]]; }

# ---- sockets ----

cut_sockets_are_replaced() {
	local dev pid round cut=0
	until dev=$(map_luks --connections 4 --io-timeout 4 --log-level debug disk 2>/dev/null) &&
		has_receivers "$dev" 4; do
		nbd unmap "$dev"
	done
	pid=$(daemon_of "$dev")
	stamp_start "$dev"
	for round in 1 2 3 4 5 6; do
		same "sockets in round $round" 4 "$("$TOOLS/cut" "$pid" $((round % 4 + 1)))"
		((cut += round % 4 + 1))
		wait_for 20 has_replaced $cut
		wait_for 20 has_readers "$dev" 4
		# What was in flight on the dead ones ends first.
		wait_for 20 has_sockets "$dev" 4
		sleep 0.3
	done
	stamp_ends_well "$dev"
	same daemon "$pid" "$(daemon_of "$dev")"
	has_readers "$dev" 4
	grep -q 'reports a dead link' $T/log
	nbd unmap "$dev"
	settled
}

# For much longer than the kernel waits for an answer, and then for a socket.
stalled_store_costs_sockets_but_no_request() {
	local dev
	dev=$(map_luks --connections 3 --io-timeout 2 --reattach-timeout 6 --log-level debug disk \
		2>/dev/null)
	stamp_start "$dev"
	cluster_osd_pause $T/cluster
	sleep 13
	cluster_osd_resume $T/cluster
	stamp_ends_well "$dev"
	(($(stamp_longest_ms) > 12000))
	grep -q 'reports a dead link' $T/log
	wait_for 20 has_readers "$dev" 3
	nbd unmap "$dev"
	settled
}

# ---- storage ----

killed_storage_is_a_pause() {
	local dev
	dev=$(map_luks --connections 2 disk)
	stamp_start "$dev"
	cluster_osd_kill $T/cluster
	sleep 20
	cluster_osd_start $T/cluster
	dead_clients_are_missed_soon
	stamp_ends_well "$dev"
	(($(stamp_longest_ms) > 19000))
	nbd unmap "$dev"
	settled
}

resize_under_load_stops_nothing() {
	local dev
	dev=$(map_luks --connections 2 disk)
	stamp_start "$dev"
	rbd resize --no-progress --size 96M disk
	wait_for 20 eval "[[ \$(bytes_of $dev) == $((80 << 20)) ]]"
	sleep 1
	rbd resize --no-progress --allow-shrink --size 64M disk
	wait_for 20 eval "[[ \$(bytes_of $dev) == $((48 << 20)) ]]"
	stamp_ends_well_and_unmaps "$dev"
}

# ---- again and again ----

# Of the kernel, for itself: the cluster is in here, too, and takes of the rest what it likes.
kernel_kib() {
	sync
	echo 3 >/proc/sys/vm/drop_caches
	sed -n 's/SUnreclaim: *\([0-9]*\) kB/\1/p' /proc/meminfo
}
unix_sockets() { grep -c . /proc/net/unix; }
has_no_more_sockets_than() { (($(unix_sockets) <= $1)); }
watchers() { rbd status --format json disk | jq '.watchers | length'; }

twenty_maps_leave_nothing_behind() {
	local dev round memory sockets
	for round in {1..22}; do
		dev=$(map_luks disk)
		dd if="$dev" of=/dev/null bs=1M count=1 iflag=direct status=none
		nbd unmap "$dev"
		# The first ones leave caches.
		[[ $round != 2 ]] || { settled; memory=$(kernel_kib); sockets=$(unix_sockets); }
	done
	settled
	same watchers 0 "$(watchers)"
	# The kernel lets go of its ends in its own time.
	wait_for 20 has_no_more_sockets_than "$sockets" || { cat /proc/net/unix; return 1; }
	echo "memory: $memory KiB, then $(kernel_kib)"
	(($(kernel_kib) < memory + 4 * 1024))
	[[ -z $(find /run/rbdcrypt-nbd -type f ! -name '*.lock') ]]
}

# A dead client keeps its exclusive lock until the OSD misses it: 30 seconds, by default.
dead_clients_are_missed_soon() {
	ceph --admin-daemon $T/cluster/osd.0.asok config set osd_client_watch_timeout 8 >/dev/null
}

guest_cluster bluestore || fail "no cluster"
quick_image disk 64M && dead_clients_are_missed_soon || fail "no image"

claim cut-sockets-are-replaced
claim stalled-store-costs-sockets-but-no-request
claim killed-storage-is-a-pause
claim resize-under-load-stops-nothing
claim twenty-maps-leave-nothing-behind
guest_end
