#!/bin/bash
# SPDX-License-Identifier: GPL-2.0-or-later
# Copyright (C) 2026 the rbdcrypt-nbd authors
#
# daemon.sh: the host's daemon on real devices, while every write is stamped and checked (stamp.c):
# restarted and killed again and again, with a service manager that keeps its sockets meanwhile and
# without one, with the key away, and many devices at once.
#
# LONG=1: what waits long, a hundred restarts and a hundred kills of each kind, and twenty rounds of
# sixteen devices (two hours). TIMES=N: N of them.

# test: heavy time=1500

# Paths and names of ours have no blanks.
# shellcheck disable=SC2086
# shellcheck source=tests/kernel/guest.sh
. "${BASH_SOURCE[0]%/*}/guest.sh"
# shellcheck source=tests/kernel/stamps.sh
. "${BASH_SOURCE[0]%/*}/stamps.sh"

if ! in_guest; then
	limit=1460
	[[ ! ${LONG:-}${TIMES:-} ]] || limit=14000
	guest_boot $limit --mem 3G --nbds 16
fi

MANAGER=$KERNEL_DIR/../lib/manager.py
UNITS=2048
THREADS=12
[[ ! ${LONG:-} ]] || TIMES=${TIMES:-100}
[[ ! ${TIMES:-} ]] || CLAIM_SECONDS=3500
TIMES=${TIMES:-5}

daemon_start() {
	"$PROGRAM" daemon --log-file $T/log --log-level info "$@" &
	DAEMON=$!
	wait_for 60 test -S /run/rbdcrypt-nbd/control
}
daemon_stop() {
	kill -TERM $DAEMON
	wait $DAEMON
}
daemon_kill() {
	kill -KILL $DAEMON
	wait $DAEMON || true
}
# No option about the process, so it is done by the daemon.
map_by_daemon() { nbd map -o encryption-passphrase-file=$T/pass "$@"; }
is_mapped_by() { [[ $(listed ".[] | select(.device == \"$1\") | [.id, .state] | @csv") == "$2,\"mapped\"" ]]; }

commands_are_done_by_the_daemon() {
	local dev
	daemon_start
	dev=$(map_by_daemon disk)
	same "owner" $DAEMON "$(daemon_of $dev)"
	mkfs.ext4 -q $dev
	mount $dev $T/mnt
	refused 5 "mounted on $T/mnt" nbd unmap $dev
	umount $T/mnt
	refused 5 "already mapped to $dev" map_by_daemon disk
	nbd detach $dev
	is_connected $dev
	same attach $dev "$(nbd attach -o encryption-passphrase-file=$T/pass --device $dev disk)"
	nbd unmap disk
	fails is_connected $dev
	refused 2 "No key available" nbd map -o encryption-passphrase-file=$T/other disk
	daemon_stop
	settled
}

control() { timeout 60 /usr/bin/python3 "$KERNEL_DIR/../lib/control.py" /run/rbdcrypt-nbd/control "$@"; }

# By the command and by a script of one's own.
lost_key_keeps_the_device() {
	local dev
	daemon_start
	dev=$(map_by_daemon disk)
	mv $T/pass $T/away
	refused 7 "might not open again" nbd detach $dev
	fails control Detach "{\"name\": \"$dev\"}" >$T/said
	grep '"status": 7.*might not open again' $T/said
	refused 7 "might not open again" nbd unmap $dev
	is_mapped_by $dev $DAEMON
	control Detach "{\"name\": \"$dev\", \"force\": true}"
	mv $T/away $T/pass
	same attach $dev "$(nbd attach -o encryption-passphrase-file=$T/pass --device $dev disk)"
	control Detach "{\"name\": \"$dev\"}"
	same attach $dev "$(nbd attach -o encryption-passphrase-file=$T/pass --device $dev disk)"
	mv $T/pass $T/away
	nbd detach --force $dev
	mv $T/away $T/pass
	nbd unmap $dev
	daemon_stop
	settled
}

# A member of the daemon's group: with a key of his own, which the daemon does not keep.
as_member() {
	env -u CEPH_CONF -u CEPH_ARGS setpriv --reuid nobody --regid nogroup --groups games /proc/self/fd/9 "$1" \
		--run-dir /run/rbdcrypt-nbd "${@:2}" 9<"$PROGRAM"
}
says_what_it_waits_for() { nbd status --json | grep -F '"health"' | grep -qF "$1"; }
members_map_with_their_own_keys() {
	local dev key=(--encryption-passphrase-file "$T/own")
	install -o nobody -m 600 $T/pass $T/own
	daemon_start --control-group games
	dev=$(as_member map "${key[@]}" disk)
	same "owner" $DAEMON "$(daemon_of $dev)"
	mkfs.ext4 -q $dev
	refused 2 "only root" as_member map --cluster ../../tmp/x "${key[@]}" disk
	daemon_stop
	daemon_start --control-group games
	wait_for 60 says_what_it_waits_for "given once and is not kept: attach $dev again"
	same attach $dev "$(as_member attach --device $dev "${key[@]}" disk)"
	e2fsck -fn $dev
	as_member unmap $dev
	fails is_connected $dev
	# What root keeps for the image is root's.
	mkdir -p /run/rbdcrypt-keys.d/rbd
	install -m 600 $T/pass /run/rbdcrypt-keys.d/rbd/disk.key
	dev=$(as_member map disk)
	cryptsetup isLuks $dev
	nbd unmap $dev
	dev=$(nbd map disk)
	e2fsck -fn $dev
	nbd unmap $dev
	rm -r /run/rbdcrypt-keys.d
	daemon_stop
	settled
}

killed_daemon_is_succeeded_under_load() {
	local dev i
	daemon_start
	dev=$(map_by_daemon --connections 3 disk)
	stamp_start $dev
	for ((i = 0; i < TIMES; i++)); do
		daemon_kill
		daemon_start
		wait_for 60 is_mapped_by $dev $DAEMON
		sleep 0.5
	done
	grep -c "daemon died: client" $T/log
	stamp_ends_well $dev
	nbd unmap $dev
	daemon_stop
	settled
}

restarted_daemon_is_succeeded_under_load() {
	local dev i
	daemon_start
	dev=$(map_by_daemon --connections 3 disk)
	stamp_start $dev
	for ((i = 0; i < TIMES; i++)); do
		daemon_stop
		daemon_start
		wait_for 60 is_mapped_by $dev $DAEMON
		sleep 0.5
	done
	stamp_ends_well $dev
	nbd unmap $dev
	daemon_stop
	settled
}

waits_for_key() { nbd status "$1" | grep "waits: .*cannot read passphrase file"; }

device_waits_for_its_key() {
	local dev
	daemon_start
	dev=$(map_by_daemon --reattach-timeout 60 disk)
	stamp_start $dev
	mv $T/pass $T/away
	daemon_kill
	daemon_start
	wait_for 60 waits_for_key $dev
	is_connected $dev
	mv $T/away $T/pass
	kill -HUP $DAEMON
	wait_for 60 is_mapped_by $dev $DAEMON
	stamp_ends_well $dev
	nbd unmap $dev
	daemon_stop
	settled
}

# ---- with a service manager that has a descriptor store ----

# Prints nothing but sets DAEMON, STRAYS, how many of them are closed, and KEPT, the names in the store.
managed() {
	timeout 90 /usr/bin/python3 "$MANAGER" $T/manager "$@" >$T/managed
	read -r DAEMON STRAYS KEPT <$T/managed
}
# Its messages may still be on their way.
keeps() { managed status && [[ $KEPT == "$*" ]]; }
managed_start() {
	rm -rf $T/manager
	mkdir $T/manager
	setpriv --pdeathsig KILL /usr/bin/python3 "$MANAGER" $T/manager run \
		"$PROGRAM" daemon --log-file $T/log --log-level info &
	wait_for 30 test -S $T/manager/control
	wait_for 60 test -S /run/rbdcrypt-nbd/control
	managed status
}
managed_quit() { # DEVICE
	nbd unmap $1
	managed quit
	settled
}
# Until the next one serves.
managed_do() { # restart|kill DEVICE
	managed "$1"
	wait_for 60 is_mapped_by $2 $DAEMON
}
note_sockets() { find /proc/$DAEMON/fd -lname 'socket:*' -printf '%l\n' | sort >$T/sockets.$1; }
# Of the three between the kernel and us. A number is not given to two sockets.
has_its_first_sockets() {
	note_sockets now
	same "sockets that were always there" 3 "$(comm -12 $T/sockets.first $T/sockets.now | wc -l)"
}
reconnects() { dmesg | grep -c 'reconnected socket' || true; }
has_replaced() { (($(reconnects) >= $1)); }
handovers() { grep -c 'goes on with 3 of 3 sockets' $T/log; }

restarted_daemon_goes_on_with_its_sockets() {
	local dev i
	managed_start
	dev=$(map_by_daemon --connections 3 disk)
	note_sockets first
	stamp_start $dev
	for ((i = 0; i < TIMES; i++)); do
		managed_do restart $dev
		sleep 0.2
	done
	stamp_ends_well $dev
	has_its_first_sockets
	same "hand-overs" $TIMES "$(handovers)"
	same "new sockets" 0 "$(reconnects)"
	wait_for 30 keeps
	managed_quit $dev
}

# The kernel must see at once that the sockets are dead, although they were in the store once, and
# whatever else is there.
kill_after_a_hand_over_is_seen() {
	local dev i rounds=1
	((TIMES <= 5)) || rounds=$TIMES
	managed_start
	dev=$(map_by_daemon --connections 3 --reattach-timeout 60 disk)
	stamp_start $dev
	managed stray garbage
	managed stray nbd9-0
	managed stray ${dev##*/}-1
	managed_do restart $dev
	same "hand-overs" 1 "$(handovers)"
	wait_for 30 keeps
	same "closed strays" 3 $STRAYS
	for ((i = 0; i < rounds; i++)); do
		managed_do kill $dev
		wait_for 30 has_replaced 3
		dmesg -C
		managed_do restart $dev
	done
	same "hand-overs" $((rounds + 1)) "$(handovers)"
	stamp_ends_well $dev
	managed_quit $dev
}

# Much longer than the kernel would wait for a new socket.
sockets_wait_with_their_key() {
	local dev
	managed_start
	dev=$(map_by_daemon --connections 3 --reattach-timeout 2 disk)
	note_sockets first
	stamp_start $dev
	mv $T/pass $T/away
	managed restart
	wait_for 60 waits_for_key $dev
	sleep 3
	keeps ${dev##*/}-0 ${dev##*/}-1 ${dev##*/}-2
	managed restart
	sleep 0.5
	wait_for 60 waits_for_key $dev
	mv $T/away $T/pass
	kill -HUP $DAEMON
	wait_for 60 is_mapped_by $dev $DAEMON
	wait_for 30 keeps
	has_its_first_sockets
	stamp_ends_well $dev
	managed_quit $dev
}

# Nobody knows what they belong to, so they must not keep the kernel from taking others.
sockets_without_a_state_file_are_let_go() {
	local dev
	managed_start
	dev=$(map_by_daemon --connections 3 --reattach-timeout 60 disk)
	stamp_start $dev
	managed stop
	same "kept" "${dev##*/}-0 ${dev##*/}-1 ${dev##*/}-2" "$KEPT"
	rm /run/rbdcrypt-nbd/*.json
	managed start
	wait_for 30 keeps
	same attach $dev "$(nbd attach -o encryption-passphrase-file=$T/pass --connections 3 --device $dev disk)"
	wait_for 30 has_replaced 3
	stamp_ends_well $dev
	managed_quit $dev
}

# ---- many at once ----

# many_volumes IMAGES: v0 to v15, that many of them encrypted images of the cluster, with LUKS1, whose
# header is small; the others are plain files, which take less time.
many_volumes() {
	local i
	rm -f $T/image
	truncate -s 4M $T/image
	cryptsetup luksFormat -q --type luks1 --pbkdf-force-iterations 1000 $T/image $T/pass
	for ((i = 0; i < 16; i++)); do
		VOLUMES[i]=v$i OPTIONS[i]="--exclusive --encryption-passphrase-file $T/pass"
		if ((i < $1)); then
			rbd import --no-progress $T/image v$i
		else
			truncate -s 4M $T/v$i
			VOLUMES[i]=file:$T/v$i OPTIONS[i]=
		fi
	done
}
every_fourth() { # FIRST ROUNDS
	local r i dev
	for ((r = 0; r < $2; r++)); do
		for ((i = $1; i < 16; i += 4)); do
			dev=$(nbd map --queue-memory 33M ${OPTIONS[i]} ${VOLUMES[i]}) || return
			echo "round $r" | dd of=$dev bs=4096 conv=sync,fsync oflag=direct status=none || return
		done
		for ((i = $1; i < 16; i += 4)); do nbd unmap ${VOLUMES[i]} || return; done
	done
}
by_four() { # ROUNDS
	local client pids=()
	for client in 0 1 2 3; do
		every_fourth $client $1 &
		pids+=($!)
	done
	for client in "${pids[@]}"; do wait $client; done
}
# What the daemon has: descriptors and threads; and all the files that one could find, but for those
# that are there to be locked.
usage() {
	local fds=("/proc/$DAEMON/fd/"*) threads=("/proc/$DAEMON/task/"*)
	echo "${#fds[@]} descriptors, ${#threads[@]} threads"
	find /dev /run/rbdcrypt-nbd -not -name '*.lock' | sort
}
uses_what_it_used() { usage | diff $T/usage - >$T/more; }
memory() { awk '$1 == "Anonymous:" { print $2 }' /proc/$DAEMON/smaps_rollup; }

# The heap comes to rest in the first half.
sixteen_devices_leave_nothing() {
	local images=4 rounds=1 before after=0 i VOLUMES=() OPTIONS=()
	[[ ! ${LONG:-} ]] || images=16 rounds=10
	many_volumes $images
	daemon_start
	usage >$T/usage
	for ((i = 0; i < 2; i++)); do
		by_four $rounds
		wait_for 60 uses_what_it_used || { cat $T/more; return 1; }
		before=$after after=$(memory)
	done
	echo "memory after half of $((2 * rounds)) rounds: $before KiB, after all: $after KiB" | tee $T/memory
	((after - before < 4096))
	for ((i = 0; i < images; i++)); do
		same "lock of v$i" "" "$(rbd lock ls v$i)"
		same "watchers of v$i" "Watchers: none" "$(rbd status v$i)"
	done
	daemon_stop
	settled
}

guest_cluster bluestore || fail "no cluster"
chmod 600 $T/pass $T/other
quick_image disk 64M || fail "no image"
# So it does not miss a dead client meanwhile: whoever comes next has to shut it out.
ceph --admin-daemon $T/cluster/osd.0.asok config set osd_client_watch_timeout 600 >/dev/null ||
	fail "no such setting"

claim commands-are-done-by-the-daemon
claim lost-key-keeps-the-device
claim members-map-with-their-own-keys
claim killed-daemon-is-succeeded-under-load
claim restarted-daemon-is-succeeded-under-load
grep 'longest wait' $T/stamp | sed 's/^/# with new sockets: /'
claim device-waits-for-its-key
claim restarted-daemon-goes-on-with-its-sockets
grep 'longest wait' $T/stamp | sed 's/^/# with a hand-over: /'
claim kill-after-a-hand-over-is-seen
if [[ ${LONG:-}${KERNEL_CLAIMS:-} ]]; then
	claim sockets-wait-with-their-key
	claim sockets-without-a-state-file-are-let-go
fi
claim sixteen-devices-leave-nothing
[[ ! -e $T/memory ]] || sed 's/^/# /' $T/memory
guest_end
