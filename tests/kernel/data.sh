#!/bin/bash
# SPDX-License-Identifier: GPL-2.0-or-later
# Copyright (C) 2026 the rbdcrypt-nbd authors
#
# data.sh: what images carry as /dev/nbdX: filesystems, partitions, the bytes that others read, and
# space that comes back.

# test: heavy time=900

# Paths and names of ours have no blanks.
# shellcheck disable=SC2086
# shellcheck source=tests/kernel/guest.sh
. "${BASH_SOURCE[0]%/*}/guest.sh"

in_guest || guest_boot 860 --mem 3G --nbds 4

# ---- what it carries ----

used_kib() { rbd du --format json "$1" 2>/dev/null | jq '.images[0].used_size / 1024 | floor'; }

fill() { # DIR: some files, large and small, and their sums
	mkdir -p "$1/many"
	head -c 24M /dev/urandom >"$1/large"
	local i
	for i in {1..60}; do
		head -c $((i * 311)) /dev/urandom >"$1/many/$i"
	done
	head -c 64M /dev/urandom >"$1/passing"
	(cd "$1" && find many large -type f -exec sha256sum {} + >sums)
	sync -f "$1"
}

filesystem() { # ext4|xfs IMAGE FSCK...
	local dev full
	dev=$(map_luks "$2")
	"mkfs.$1" -q "$dev"
	mount "$dev" $T/mnt
	fill $T/mnt
	full=$(used_kib "$2")
	rm $T/mnt/passing
	# Space is free once it is so in the journal.
	sync -f $T/mnt
	fstrim -v $T/mnt
	echo "used KiB: $full, after fstrim $(used_kib "$2")"
	# Objects of which other files have a part stay, and how many these are is chance.
	(($(used_kib "$2") <= full - 40 * 1024))
	(cd $T/mnt && sha256sum --quiet -c sums)
	umount $T/mnt
	"${@:3}" "$dev"
	nbd unmap "$dev"

	dev=$(map_luks "$2")
	mount "$dev" $T/mnt
	(cd $T/mnt && sha256sum --quiet -c sums)
	echo more >$T/mnt/more
	umount $T/mnt
	"${@:3}" "$dev"
	nbd unmap "$dev"
	settled
}

ext4_lives_on_it() { filesystem ext4 enc fsck.ext4 -fn; }
xfs_lives_on_it() { filesystem xfs xfs xfs_repair -n; }

rbd_nbd_reads_what_we_wrote() {
	local dev
	dev=$(rbd-nbd map enc --encryption-format luks2 --encryption-passphrase-file $T/pass)
	# Its blocks are smaller, which this filesystem does not mind.
	mount "$dev" $T/mnt
	(cd $T/mnt && sha256sum --quiet -c sums)
	echo theirs >$T/mnt/theirs
	umount $T/mnt
	rbd-nbd unmap "$dev"
	settled
	dev=$(map_luks enc)
	mount "$dev" $T/mnt
	same file theirs "$(cat $T/mnt/theirs)"
	umount $T/mnt
	nbd unmap "$dev"
}

# Every sector was written, so that dm-crypt, which knows no holes, has none to misread.
dm_crypt_has_the_same_bytes() {
	local dev ours theirs
	dev=$(map_luks small)
	head -c "$(bytes_of "$dev")" /dev/urandom >$T/random
	dd if=$T/random of="$dev" bs=1M oflag=direct conv=fsync status=none
	ours=$(sha256sum <"$dev")
	nbd unmap "$dev"
	dev=$(map small)
	modprobe dm-crypt
	cryptsetup open --key-file $T/pass "$dev" dm-same
	theirs=$(sha256sum </dev/mapper/dm-same)
	same bytes "$ours" "$theirs"
	refused 5 "dm-same" nbd unmap "$dev"
	# The other way round, at odd places.
	dd if=/dev/urandom of=/dev/mapper/dm-same bs=4096 seek=77 count=513 conv=fsync status=none
	theirs=$(sha256sum </dev/mapper/dm-same)
	cryptsetup close dm-same
	nbd unmap "$dev"
	dev=$(map_luks small)
	same bytes "$theirs" "$(sha256sum <"$dev")"
	nbd unmap "$dev"
	rm $T/random
	settled
}

plain_image_is_a_device_too() {
	local dev
	dev=$(map plain)
	same size $((32 << 20)) "$(bytes_of "$dev")"
	head -c 3M /dev/urandom | dd of="$dev" bs=1537k seek=1536 oflag=direct,seek_bytes \
		conv=fsync iflag=fullblock status=none
	same bytes "$(rbd export --no-progress plain - | sha256sum)" "$(sha256sum <"$dev")"
	nbd unmap plain
	settled
}

# ---- block size ----

block_size_512_stays_512() {
	local dev
	dev=$(map_luks --block-size 512 xfs)
	same logical_block_size 512 "$(sysfs "$dev" queue/logical_block_size)"
	mkfs.xfs -q -f "$dev"
	nbd unmap "$dev"
	dev=$(map_luks xfs)
	same logical_block_size 512 "$(sysfs "$dev" queue/logical_block_size)"
	mount "$dev" $T/mnt
	umount $T/mnt
	wipefs -q -a "$dev"
	nbd unmap "$dev"
	dev=$(map_luks --block-size 512 xfs)
	printf 'label: gpt\nsize=64M\n' | sfdisk -q "$dev"
	nbd unmap "$dev"
	dev=$(map_luks xfs)
	same logical_block_size 512 "$(sysfs "$dev" queue/logical_block_size)"
	same partition $((64 * 2048)) "$(cat "/sys/block/${dev##*/}/${dev##*/}p1/size")"
	[[ -b ${dev}p1 ]]
	mkfs.ext4 -q "${dev}p1"
	mount "${dev}p1" $T/mnt
	refused 5 "partition ${dev##*/}p1 is mounted on $T/mnt" nbd unmap "$dev"
	umount $T/mnt
	wipefs -q -a "$dev"
	nbd unmap "$dev"
	settled
}

block_size_4096_is_remembered_by_what_is_on_it() {
	local dev
	dev=$(map_luks --block-size 4096 xfs)
	blkdiscard -f "$dev"
	nbd unmap "$dev"
	dev=$(map_luks xfs)
	same logical_block_size 4096 "$(sysfs "$dev" queue/logical_block_size)"
	printf 'label: gpt\nsize=64M\n' | sfdisk -q "$dev"
	nbd unmap "$dev"
	dev=$(map_luks xfs)
	same logical_block_size 4096 "$(sysfs "$dev" queue/logical_block_size)"
	same partition $((64 * 2048)) "$(cat "/sys/block/${dev##*/}/${dev##*/}p1/size")"
	wipefs -q -a "$dev"
	nbd unmap "$dev"
	settled
}

# ---- read-only ----

is_really_read_only() { # DEVICE
	same ro 1 "$(sysfs "$1" ro)"
	same getro 1 "$(blockdev --getro "$1")"
	fails dd if=/dev/zero of="$1" bs=4096 count=1 oflag=direct
	fails blkdiscard "$1"
	# Its flag can be cleared, but then we are asked.
	blockdev --setrw "$1"
	fails dd if=/dev/zero of="$1" bs=4096 count=1 oflag=direct
}

read_only_map_is_really_read_only() {
	local dev sum
	sum=$(rbd export --no-progress enc - | sha256sum)
	dev=$(map_luks --read-only enc)
	is_really_read_only "$dev"
	mount -o ro "$dev" $T/mnt
	(cd $T/mnt && sha256sum --quiet -c sums)
	umount $T/mnt
	nbd unmap "$dev"
	same image "$sum" "$(rbd export --no-progress enc - | sha256sum)"
	settled
}

snapshots_are_really_read_only() {
	local dev id
	rbd snap create --no-progress enc@before
	id=$(rbd snap ls --format json enc | jq '.[0].id')
	dev=$(map_luks enc)
	mount "$dev" $T/mnt
	head -c 4M /dev/urandom >$T/mnt/large
	umount $T/mnt
	nbd unmap "$dev"
	for how in enc@before "--snap-id $id enc"; do
			dev=$(map_luks $how)
		is_really_read_only "$dev"
		mount -o ro,noload "$dev" $T/mnt
		(cd $T/mnt && sha256sum --quiet -c sums)
		umount $T/mnt
		nbd list
			nbd unmap $how
		settled
	done
	refused 4 "enc@gone" map_luks enc@gone
	refused 4 "9999" map_luks --snap-id 9999 enc
}

guest_cluster bluestore || fail "no cluster"
quick_image enc 256M && quick_image xfs 640M && quick_image small 32M &&
	rbd create --size 32M plain || fail "no images"
claim plain-image-is-a-device-too
claim ext4-lives-on-it
claim xfs-lives-on-it
claim rbd-nbd-reads-what-we-wrote
claim dm-crypt-has-the-same-bytes
claim block-size-512-stays-512
claim block-size-4096-is-remembered-by-what-is-on-it
claim read-only-map-is-really-read-only
claim snapshots-are-really-read-only
guest_end
