#!/bin/bash
# SPDX-License-Identifier: GPL-2.0-or-later
# Copyright (C) 2026 the rbdcrypt-nbd authors
#
# map.sh: images as /dev/nbdX: what appears and when, what is refused, what happens while it is
# mapped.

# test: heavy time=900

# Paths and names of ours have no blanks.
# shellcheck disable=SC2086
# shellcheck source=tests/kernel/guest.sh
. "${BASH_SOURCE[0]%/*}/guest.sh"

in_guest || guest_boot 860 --mem 2G --nbds 4

# ---- what appears ----

sysfs_says_what_was_announced() {
	local dev
	dev=$(map_luks --device /dev/nbd1 enc)
	same device /dev/nbd1 "$dev"
	same "size" "$(($(rbd info --format json enc | jq .size) - 16777216))" "$(bytes_of "$dev")"
	same ro 0 "$(sysfs "$dev" ro)"
	same logical_block_size 4096 "$(sysfs "$dev" queue/logical_block_size)"
	same write_cache 'write back' "$(sysfs "$dev" queue/write_cache)"
	same fua 1 "$(sysfs "$dev" queue/fua)"
	[[ $(sysfs "$dev" queue/discard_max_bytes) -gt 0 ]]
	same discard_granularity 4096 "$(sysfs "$dev" queue/discard_granularity)"
	# The kernel names the thread that connected.
	same pid "$(daemon_of "$dev")" "$(awk '$1 == "Tgid:" { print $2 }' "/proc/$(sysfs "$dev" pid)/status")"
	same backend "$(listed '.[0].cookie')" "$(sysfs "$dev" backend)"
	nbd unmap "$dev"
	settled

	dev=$(map_luks --notrim --connections 3 enc)
	same discard_max_bytes 0 "$(sysfs "$dev" queue/discard_max_bytes)"
	# Readers rather than queues: the kernel makes no more of those than it has processors.
	same readers 3 "$(grep -cx reader "/proc/$(daemon_of "$dev")/task/"*/comm | grep -c ':1')"
	fails blkdiscard "$dev"
	nbd unmap enc
	settled
}

# Blkid, lsblk and the links are asked without waiting for anything.
device_is_usable_when_it_is_printed() {
	local dev uuid _
	dev=$(map_luks small)
	mkfs.ext4 -q "$dev"
	uuid=$(blkid -p -s UUID -o value "$dev")
	nbd unmap "$dev"
	for _ in 1 2 3 4; do
		# Until then the link may be the last device's.
		udevadm settle --timeout 20
		dev=$(map_luks small)
		same lsblk "ext4 $uuid" "$(lsblk -dnro FSTYPE,UUID "$dev")"
		same link "$dev" "$(realpath "/dev/disk/by-uuid/$uuid")"
		same blkid "$uuid" "$(blkid -s UUID -o value "$dev")"
		nbd unmap "$dev"
	done
	settled
}

cookie_is_kept_and_shown() {
	same output '/dev/nbd0 abc de' "$(map_luks --show-cookie --cookie 'abc de' small)"
	same backend 'abc de' "$(sysfs nbd0 backend)"
	same list 'abc de' "$(listed '.[0].cookie')"
	nbd unmap 'abc de'
	settled
}

list_has_the_keys_of_rbd_nbd() {
	local ours theirs dev
	dev=$(rbd-nbd map plain)
	theirs=$(rbd-nbd list-mapped --format json)
	rbd-nbd unmap "$dev"
	dev=$(map plain)
	ours=$(nbd list-mapped --format json)
	same keys "$(jq -c '.[0] | keys_unsorted' <<<"$theirs")" \
		"$(jq -c '.[0] | keys_unsorted[:7]' <<<"$ours" | sed 's/,"cookie"//')" ||
		same keys "$(jq -c '.[0] | keys_unsorted' <<<"$theirs")" \
			"$(jq -c '.[0] | keys_unsorted[:7]' <<<"$ours")"
	same values "$(jq -c '.[0] | del(.id, .cookie)' <<<"$theirs")" \
		"$(jq -c '.[0] | {pool, namespace, image, snap, device}' <<<"$ours")"
	same types "$(jq -c '.[0] | del(.cookie) | map_values(type)' <<<"$theirs")" \
		"$(jq -c '.[0] | {id, pool, namespace, image, snap, device} | map_values(type)' \
			<<<"$ours")"
	same xml plain "$(nbd list --format xml | sed -n 's/.*<image>\(.*\)<\/image>.*/\1/p')"
	nbd list | grep -E '^id +pool +namespace +image +snap +device'
	nbd list | grep -E "^[0-9]+ +rbd +plain +- +$dev"
	nbd unmap "$dev"
	same empty-json '[]' "$(nbd list --format json)"
	same empty-xml '<devices></devices>' "$(nbd list --format xml)"
	same empty-plain '' "$(nbd list)"
}

# ---- one device, one image ----

unmap_refuses_what_is_mounted() {
	local dev
	dev=$(map_luks enc)
	mkfs.ext4 -q "$dev"
	mount "$dev" $T/mnt
	refused 5 "mounted on $T/mnt" nbd unmap "$dev"
	refused 5 "mounted on $T/mnt" nbd unmap enc
	echo still-there >$T/mnt/check
	sync -f $T/mnt
	nbd unmap --force "$dev"
	[[ -z $(listed '.[]') ]]
	umount $T/mnt
	settled
	dev=$(map_luks enc)
	mount "$dev" $T/mnt
	same file still-there "$(cat $T/mnt/check)"
	umount $T/mnt
	exec 7<"$dev"
	refused 5 "opened by" nbd unmap "$dev"
	exec 7<&-
	nbd unmap "$dev"
	settled
}

unmap_waits_for_users_if_told() {
	local dev pid
	dev=$(map_luks small)
	pid=$(daemon_of "$dev")
	exec 7<"$dev"
	refused 5 "opened by" nbd unmap --wait 1 "pid:$pid"
	nbd unmap --wait 20 "pid:$pid" 7<&- &
	sleep 1
	[[ -e /proc/$pid ]]
	exec 7<&-
	wait $!
	settled
	refused 4 "not mapped" nbd unmap "pid:$pid"
}

map_resumes_what_was_left() {
	local dev
	same new /dev/nbd0 "$(map_luks --resume --cookie 'my disk' small)"
	nbd detach small
	same resumed /dev/nbd0 "$(map_luks --resume small)"
	same cookie 'my disk' "$(listed '.[0].cookie')"
	refused 5 "/dev/nbd0" map_luks --resume small
	kill -KILL "$(daemon_of /dev/nbd0)"
	wait_for 30 eval '[[ $(listed ".[0].state") == dead ]]'
	same resumed /dev/nbd0 "$(map_luks --resume rbd/small)"
	dd if=/dev/nbd0 of=/dev/null bs=1M count=1 iflag=direct status=none
	nbd unmap small
	settled
}

second_map_is_refused() {
	local dev other
	dev=$(map_luks enc)
	refused 5 "$dev" map_luks enc
	other=$(map_luks --read-only enc)
	same devices 2 "$(listed 'length')"
	refused 1 "could be" nbd unmap enc
	nbd unmap "$other"
	nbd unmap "$dev"
	settled
}

device_can_be_chosen() {
	same device /dev/nbd3 "$(map_luks --device /dev/nbd3 small)"
	refused 5 "/dev/nbd3 is in use: rbd/small is mapped to it" map --device /dev/nbd3 plain
	same hint "hint: without --device, a free one is taken" "$(tail -n 1 $T/refused.err)"
	# The driver makes those it does not have yet.
	same device /dev/nbd6 "$(map --device nbd6 plain)"
	nbd unmap nbd6
	nbd unmap 3
	refused 4 "/dev/nbd4000000" map --device /dev/nbd4000000 plain
	refused 1 "no nbd device" map --device /dev/sda plain
	settled
}

is_opened_by() { # PID DEVICE: by a program, not by the shell that starts it
	[[ $(<"/proc/$1/comm") == sleep && $(readlink "/proc/$1/fd/7") == "$2" ]]
}

# As udev has each for a moment. The kernel refuses a device that anybody has open.
chosen_device_may_be_open_for_a_moment() {
	local pid
	(exec 7</dev/nbd3 sleep 100) &
	pid=$!
	wait_for 20 is_opened_by $pid /dev/nbd3
	{ sleep 2; kill $pid; } &
	same device /dev/nbd3 "$(map_luks --device /dev/nbd3 small)"
	gone $pid
	nbd unmap small
	(exec 7</dev/nbd3 sleep 100) &
	pid=$!
	wait_for 20 is_opened_by $pid /dev/nbd3
	refused 5 "/dev/nbd3 is in use: opened by sleep" map_luks --device /dev/nbd3 small
	kill $pid
	settled
}

# ---- while it is mapped ----

has_size() { [[ $(bytes_of "$1") == "$2" ]]; }

size_follows_the_image_both_ways() {
	local dev
	quick_image grow 64M
	dev=$(map_luks grow)
	same size $((48 << 20)) "$(bytes_of "$dev")"
	rbd resize --no-progress --size 96M grow
	wait_for 30 has_size "$dev" $((80 << 20))
	same getsize64 $((80 << 20)) "$(blockdev --getsize64 "$dev")"
	dd if=/dev/urandom of="$dev" bs=1M seek=79 count=1 oflag=direct status=none
	same list $((80 << 20)) "$(listed '.[0].size')"
	rbd resize --no-progress --allow-shrink --size 48M grow
	wait_for 30 has_size "$dev" $((32 << 20))
	fails dd if=/dev/urandom of="$dev" bs=1M seek=40 count=1 oflag=direct
	dd if=/dev/urandom of="$dev" bs=1M seek=31 count=1 oflag=direct status=none
	nbd unmap "$dev"
	settled
}

detach_looks_for_the_key() {
	local dev pid
	cp $T/pass $T/mine
	dev=$(nbd map -o encryption-passphrase-file=$T/mine small)
	pid=$(daemon_of "$dev")
	mv $T/mine $T/gone
	refused 7 "might not open again" nbd detach "$dev"
	alive "$pid"
	mv $T/gone $T/mine
	nbd detach "$dev"
	# Nobody looks any more, and nobody says that it is all right.
	fails nbd check-keys >$T/checked 2>&1
	same checked "rbd/small: not checked" "$(head -n 1 $T/checked)"
	nbd attach -o encryption-passphrase-file=$T/mine --device "$dev" small
	rm $T/mine
	nbd detach --force "$dev"
	nbd unmap "$dev"
}

attach_takes_the_right_image_only() {
	local dev pid
	dev=$(map_luks --cookie 'my disk' --block-size 512 --connections 2 small)
	pid=$(daemon_of "$dev")
	refused 5 "served" attach_luks --device "$dev" --cookie 'my disk' small
	nbd detach "$dev"
	gone "$pid"
	is_connected "$dev"
	same list '[]' "$(nbd list --format json)"
	same state detached "$(listed '.[0].state')"
	same lock "unknown: it has no daemon" "$(nbd status --json | jq -r '.[0] | .lock + ": " + .lock_reason')"
	refused 1 "--device" attach_luks --cookie 'my disk' small
	refused 4 "cookie" attach_luks --device "$dev" --cookie other small
	refused 4 "cookie" attach_luks --device "$dev" small
	refused 4 "not mapped" attach_luks --device /dev/nbd2 --cookie 'my disk' small
	# The same cookie on another image is still the wrong image.
	refused 4 "another image" attach_luks --device "$dev" --cookie 'my disk' second
	refused 4 "another image" nbd attach --device "$dev" --cookie 'my disk' plain
	refused 1 "writable" attach_luks --device "$dev" --cookie 'my disk' --read-only small
	refused 1 "blocks of 512" attach_luks --device "$dev" --cookie 'my disk' \
		--block-size 4096 small
	refused 5 "attach" map_luks small
	head -c 1M /dev/urandom >$T/piece
	dd if=$T/piece of="$dev" bs=64k seek=9 oflag=direct conv=fsync status=none &
	sleep 1
	same attach "$dev" "$(attach_luks --device "$dev" --cookie 'my disk' small)"
	wait $!
	same logical_block_size 512 "$(sysfs "$dev" queue/logical_block_size)"
	same bytes "$(sha256sum <$T/piece)" \
		"$(dd if="$dev" bs=64k skip=9 count=16 iflag=direct status=none | sha256sum)"
	same state mapped "$(listed '.[0].state')"
	same connections 2 "$(listed '.[0].connections')"
	nbd unmap "$dev"
	settled
}

# What a forced unmap takes away from under its users can neither be attached nor mapped anew, and a
# try leaves nothing that speaks against the next.
disconnected_device_stays_until_it_is_closed() {
	local dev
	dev=$(map_luks small)
	exec {held}<"$dev"
	nbd unmap --force "$dev"
	is_connected "$dev"
	refused 5 "disconnected, but somebody has it open" nbd attach --device "$dev" small
	refused 5 "disconnected, but somebody has it open" attach_luks --device "$dev" small
	same left '[]' "$(nbd list --all --format json)"
	refused 5 "$dev is in use: opened by bash" map_luks --device "$dev" small
	exec {held}<&-
	same device "$dev" "$(map_luks --device "$dev" small)"
	nbd unmap "$dev"
	settled
}

attach_takes_a_size_that_changed_meanwhile() {
	local dev
	quick_image grow2 64M
	dev=$(map_luks grow2)
	nbd detach "$dev"
	rbd resize --no-progress --size 96M grow2
	attach_luks --device "$dev" grow2
	wait_for 30 has_size "$dev" $((80 << 20))
	dd if=/dev/urandom of="$dev" bs=1M seek=79 count=1 oflag=direct status=none
	nbd unmap "$dev"
	settled
}

unmap_of_a_detached_device_is_quick() {
	local dev
	dev=$(map_luks small)
	kill -KILL "$(daemon_of "$dev")"
	wait_for 30 eval '[[ $(listed ".[0].state") == dead ]]'
	is_connected "$dev"
	timeout 15 "$PROGRAM" unmap "$dev"
	settled
	same again "$dev" "$(map_luks small)"
	nbd unmap small
	settled
	refused 4 "small is not mapped" nbd unmap small
	refused 4 "not mapped" nbd unmap /dev/nbd0
}

# ---- what is refused leaves nothing behind ----

refusals_have_their_status() {
	refused 2 "enc" map -o encryption-passphrase-file=$T/other enc
	refused 2 "/nowhere" map -o encryption-passphrase-file=/nowhere enc
	refused 4 "rbd/none" map none
	refused 4 "nopool" map nopool/none
	refused 1 "encryption-format" map_luks --encryption-format luks2 \
		--encryption-format luks1 enc
	refused 1 "" map_luks --encryption-format luks3 enc
	refused 9 "no monitor answered" nbd map --conf /dev/null -m 127.0.0.9:3 --open-timeout 2 enc
	refused 1 "" nbd map --no-such-option=1 --nonsense
	settled
}

kernel_without_the_driver_is_said() {
	# Udev may look at a device once more.
	wait_for 20 rmmod nbd
	echo 'install nbd /bin/false' >/etc/modprobe.d/none.conf
	refused 8 "nbd" nbd map -o encryption-passphrase-file=$T/pass small
	[[ $(cat $T/refused.err) == *hint:* ]]
	same list '[]' "$(nbd list --format json)"
	settled
	rm /etc/modprobe.d/none.conf
}

# Not always with /dev/nbd0: udev has the first devices open at that moment, and the kernel passes
# over them.
map_loads_the_driver() {
	local dev
	[[ ! -e /sys/module/nbd ]]
	dev=$(map_luks --nbds_max 7 --max_part 3 small)
	is_connected "$dev"
	[[ $dev == /dev/nbd[0-6] && -e /sys/block/nbd6 && ! -e /sys/block/nbd7 ]]
	nbd unmap small
	settled
}

# Where a generator's words are found on every release; a long one is cut, not lost.
generator_speaks_in_the_kernels_log() {
	# The longest that it has to say.
	printf 'one rbd/one\ntwo rbd/two %01500d\n' 0 >$T/tab
	RBDCRYPTTAB=$T/tab SYSTEMD_SCOPE=system fails "$BUILD/rbdcrypt-generator" $T/units
	dmesg | grep "rbdcrypt-generator.*: $T/tab:1: too few fields; expected"
	dmesg | grep "rbdcrypt-generator.*: $T/tab:2: key file"
	rm $T/tab
}

guest_cluster memstore || fail "no cluster"
encrypted_image enc 64M && quick_image small 32M && quick_image second 32M &&
	rbd create --size 16M plain || fail "no images"
claim sysfs-says-what-was-announced
claim device-is-usable-when-it-is-printed
claim cookie-is-kept-and-shown
claim list-has-the-keys-of-rbd-nbd
claim unmap-refuses-what-is-mounted
claim unmap-waits-for-users-if-told
claim map-resumes-what-was-left
claim second-map-is-refused
claim device-can-be-chosen
claim chosen-device-may-be-open-for-a-moment
claim size-follows-the-image-both-ways
claim detach-looks-for-the-key
claim attach-takes-the-right-image-only
claim disconnected-device-stays-until-it-is-closed
claim attach-takes-a-size-that-changed-meanwhile
claim unmap-of-a-detached-device-is-quick
claim refusals-have-their-status
claim kernel-without-the-driver-is-said
claim map-loads-the-driver
claim generator-speaks-in-the-kernels-log
guest_end
