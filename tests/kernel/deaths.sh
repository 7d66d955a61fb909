#!/bin/bash
# SPDX-License-Identifier: GPL-2.0-or-later
# Copyright (C) 2026 the rbdcrypt-nbd authors
#
# deaths.sh: daemons that leave, die or lose their device, while every write is stamped and checked.
# The daemon of the host is in daemon.sh.

# test: heavy time=900

# Paths and names of ours have no blanks.
# shellcheck disable=SC2086
# shellcheck source=tests/kernel/guest.sh
. "${BASH_SOURCE[0]%/*}/guest.sh"
# shellcheck source=tests/kernel/stamps.sh
. "${BASH_SOURCE[0]%/*}/stamps.sh"

in_guest || guest_boot 860 --mem 3G --nbds 4

UNITS=2048
THREADS=12

kill_daemon_of() { # DEVICE
	kill -KILL "$(daemon_of "$1")"
	wait_for 30 eval '[[ $(listed ".[0].state") == dead ]]'
}

# The kernel sends what a dead daemon did not answer again after the io-timeout, 30 seconds
# if there is none.

detach_and_attach_under_load() {
	local dev _
	dev=$(map_luks --connections 3 --io-timeout 4 disk)
	stamp_start "$dev"
	for _ in 1 2; do
		nbd detach "$dev"
		same state detached "$(listed '.[0].state')"
		same attach "$dev" "$(attach_luks --device "$dev" --io-timeout 4 disk)"
		sleep 0.5
	done
	stamp_ends_well_and_unmaps "$dev"
}

killed_daemon_and_attach_under_load() {
	local dev _
	dev=$(map_luks --connections 3 --io-timeout 4 disk)
	stamp_start "$dev"
	for _ in 1 2; do
		kill_daemon_of "$dev"
		same attach "$dev" "$(attach_luks --device "$dev" --io-timeout 4 disk)"
		sleep 0.5
	done
	stamp_ends_well_and_unmaps "$dev"
}

# As systemd does with those that it was to pass on: the kernel sees no dead socket until they are
# let go, and udev wants to read the device meanwhile.
held_sockets_of_a_killed_daemon_are_outwaited() {
	local dev
	dev=$(map_luks --connections 2 --reattach-timeout 20 disk)
	stamp_start "$dev"
	"$TOOLS/cut" "$(daemon_of "$dev")" hold 6 >$T/held &
	wait_for 30 grep -qx 2 $T/held
	kill_daemon_of "$dev"
	same attach "$dev" "$(attach_luks --device "$dev" --reattach-timeout 20 disk)"
	stamp_ends_well_and_unmaps "$dev"
}

# What a service with a lost key does when it is started again: it says so, and may be tried again.
resumed_device_waits_for_its_key() {
	local dev
	dev=$(map_luks --reattach-timeout 60 disk)
	kill_daemon_of "$dev"
	mv $T/pass $T/away
	refused 6 "the device waits: cannot read passphrase file $T/pass" map_luks --resume disk
	is_connected "$dev"
	nbd status $dev | grep "waits: .*$T/pass"
	# It does not fit, and will not fit the next time.
	echo wrong >$T/pass
	refused 2 "passphrase" map_luks --resume disk
	mv $T/away $T/pass
	same attached "$dev" "$(map_luks --resume disk)"
	nbd unmap "$dev"
	settled
}

# Its device goes by the name that the service knows, however often it is started again.
renamed_image_is_resumed() {
	local dev i
	dev=$(map_luks --connections 2 --reattach-timeout 60 disk)
	stamp_start "$dev"
	rbd mv disk moved
	for i in 1 2; do
		kill_daemon_of "$dev"
		same attached "$dev" "$(map_luks --resume --reattach-timeout 60 disk)"
	done
	stamp_ends_well_and_unmaps "$dev"
	rbd mv moved disk
}

what_was_flushed_is_there() {
	local dev
	dev=$(map_luks disk)
	"$TOOLS/stamp" check "$dev" $T/table
	nbd unmap "$dev"
}

killed_daemon_loses_nothing_flushed() {
	local dev
	dev=$(map_luks --connections 2 disk)
	stamp_start "$dev"
	kill -KILL "$(daemon_of "$dev")"
	nbd unmap --force "$dev"
	stamp_ends_with_error
	settled
	what_was_flushed_is_there
}

forced_unmap_loses_nothing_flushed() {
	local dev
	dev=$(map_luks --connections 3 disk)
	stamp_start "$dev"
	refused 5 "opened by stamp" nbd unmap "$dev"
	nbd unmap --force "$dev"
	stamp_ends_with_error
	settled
	what_was_flushed_is_there
}

# A device that is new has no names without it. One that was there has, and whoever uses it does not
# wait for udev.
attach_outlasts_a_stuck_udev() {
	local dev attach other rc=0
	dev=$(map_luks --connections 2 --reattach-timeout 100 disk)
	stamp_start "$dev"
	nbd detach "$dev"
	udevadm control --stop-exec-queue
	attach_luks --device "$dev" --reattach-timeout 100 disk >$T/attached 2>$T/said &
	attach=$!
	"$PROGRAM" map --foreground -o encryption-passphrase-file=$T/pass --new --read-only disk \
		>$T/other 2>&1 &
	other=$!
	wait_for 60 is_connected /dev/nbd1
	# It has steps to go from there to udev.
	sleep 1
	kill -TERM $other
	wait_for 30 gone $other
	fails is_connected /dev/nbd1
	grep "interrupted while udev" $T/other
	refused 6 "udev did not finish" map_luks --new --read-only disk
	tail -n 1 $T/refused.err | grep "^hint: .*--no-udev-wait"
	wait $attach || rc=$?
	udevadm control --start-exec-queue
	cat $T/said
	same status 0 $rc
	grep "udev did not finish" $T/said
	stamp_ends_well_and_unmaps "$dev"
}

is_stuck() { [[ $(ps -o stat= -p "$1") == D* ]]; }

# The first to open a device reads its partitions, or somebody has the kernel read them again; until
# then nobody else can open it, and who tries cannot even be killed.
device_that_cannot_be_opened_is_unmapped() {
	local dev reader
	dev=$(map_luks disk)
	cluster_osd_pause $T/cluster
	blockdev --rereadpt "$dev" &
	reader=$!
	wait_for 20 is_stuck $reader
	sleep 1
	kill_daemon_of "$dev"
	cluster_osd_resume $T/cluster
	refused 6 "$dev cannot be opened" nbd unmap --reattach-timeout 3 "$dev"
	nbd unmap --force "$dev"
	fails is_connected "$dev"
	wait_for 30 gone $reader
	settled
}

# Whoever reads what unmap says to its end is not kept by what it has left waiting: the daemon of the
# host does.
stuck_openers_do_not_hold_the_answer() {
	local dev daemon
	"$PROGRAM" daemon --log-file $T/log &
	daemon=$!
	wait_for 60 test -S /run/rbdcrypt-nbd/control
	rbd create --size 16M rbd/plain
	dev=$(nbd map rbd/plain)
	cluster_osd_pause $T/cluster
	dd if=/dev/zero of="$dev" bs=64k count=1 conv=nocreat 2>/dev/null &
	wait_for 20 is_stuck $!
	sleep 1
	refused 6 "$dev cannot be opened" timeout 60 "$PROGRAM" unmap --reattach-timeout 3 "$dev"
	cluster_osd_resume $T/cluster
	wait $!
	wait_for 20 nbd unmap "$dev"
	kill -TERM $daemon
	wait $daemon
	rbd rm --no-progress rbd/plain
	settled
}

guest_cluster memstore || fail "no cluster"
quick_image disk 64M || fail "no image"
# A dead client keeps its exclusive lock until the OSD misses it: 30 seconds, by default.
ceph --admin-daemon $T/cluster/osd.0.asok config set osd_client_watch_timeout 8 >/dev/null ||
	fail "no such setting"

claim detach-and-attach-under-load
claim killed-daemon-and-attach-under-load
claim held-sockets-of-a-killed-daemon-are-outwaited
claim attach-outlasts-a-stuck-udev
claim resumed-device-waits-for-its-key
claim device-that-cannot-be-opened-is-unmapped
claim stuck-openers-do-not-hold-the-answer
claim renamed-image-is-resumed
claim killed-daemon-loses-nothing-flushed
claim forced-unmap-loses-nothing-flushed
guest_end
