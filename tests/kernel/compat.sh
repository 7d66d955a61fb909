#!/bin/bash
# SPDX-License-Identifier: GPL-2.0-or-later
# Copyright (C) 2026 the rbdcrypt-nbd authors
#
# compat.sh: the program in rbd-nbd's place: the command lines of ceph-csi, word for word, and those
# of the rbd tool, which runs what lies beside it under its own name plus "-nbd".

# test: heavy time=900

# Paths and names of ours have no blanks.
# shellcheck disable=SC2086
# shellcheck source=tests/kernel/guest.sh
. "${BASH_SOURCE[0]%/*}/guest.sh"

in_guest || guest_boot 860 --mem 2G --nbds 4

VOLUME=0001-0009-rook-ceph-0000000000000001-a5c1
IMAGE=csi-vol-a5c1

# As ceph-csi calls it, with the monitors and the key on the command line.
csi() { # COMMAND...
	rbd-nbd --id csi -m "$MONITORS" --keyfile=$T/keyfile --log-file $T/logs/rbd-nbd-$VOLUME.log "$@"
}
csi_map() {
	csi map replicapool/$IMAGE --try-netlink --reattach-timeout=300 --io-timeout=0 \
		--cookie=$VOLUME "$@"
}
csi_attach() {
	csi attach replicapool/$IMAGE --try-netlink --reattach-timeout=300 --io-timeout=0 \
		--cookie=$VOLUME --device "$@"
}
csi_list() { rbd-nbd list-mapped --format=json; }
csi_device() {
	csi_list | jq -r '.[] | select(.pool == "replicapool" and .image == "'$IMAGE'") | .device'
}

# ---- ceph-csi ----

probes_find_it() {
	rbd-nbd --version
	rbd-nbd --help >$T/help 2>$T/help.err
	same stderr '' "$(cat $T/help.err)"
	grep -q -e --cookie $T/help
	same list '[]' "$(csi_list)"
}

volume_is_staged_healed_and_unstaged() {
	local dev pid
	dev=$(csi_map)
	same device /dev/nbd0 "$dev"
	same listed "$dev" "$(csi_device)"
	same namespace '""' "$(csi_list | jq -c '.[0].namespace')"
	same backend $VOLUME "$(sysfs "$dev" backend)"
	[[ -e $T/logs/rbd-nbd-$VOLUME.log ]]
	mkfs.ext4 -q "$dev"
	mount "$dev" $T/mnt
	head -c 5M /dev/urandom >$T/mnt/data
	sync -f $T/mnt
	sha256sum <$T/mnt/data >$T/sum

	# The node plugin restarts: its daemons are killed, and its healer attaches.
	pid=$(csi_list | jq '.[0].id')
	kill -KILL "$pid"
	wait_for 30 eval '[[ $(csi_list) == "[]" ]]'
	echo 3 >/proc/sys/vm/drop_caches
	sha256sum <$T/mnt/data >$T/sum2 &
	same attached "$dev" "$(csi_attach "$dev")"
	wait $!
	cmp $T/sum $T/sum2
	same listed "$dev" "$(csi_device)"
	umount $T/mnt

	rbd-nbd unmap "$dev"
	settled
	rm $T/logs/*
}

# Its passphrase is for cryptsetup, above the device.
volume_encrypted_by_csi_works() {
	local dev
	dev=$(csi_map)
	modprobe dm-crypt
	# Made by systemd, which the guest does not have.
	ln -sf /proc/self/fd/0 /dev/stdin
	printf 'twenty bytes of text' | cryptsetup -q luksFormat --type luks2 --hash sha256 \
		--pbkdf-memory 32768 "$dev" -d /dev/stdin
	printf 'twenty bytes of text' | cryptsetup luksOpen "$dev" luks-$VOLUME -d /dev/stdin \
		--disable-keyring
	mkfs.ext4 -q /dev/mapper/luks-$VOLUME
	refused 5 luks-$VOLUME rbd-nbd unmap "$dev"
	cryptsetup luksClose luks-$VOLUME
	rbd-nbd unmap "$dev"
	settled
}

unmap_by_spec_says_what_csi_looks_for() {
	local dev
	dev=$(csi_map --read-only)
	same ro 1 "$(sysfs "$dev" ro)"
	rbd-nbd unmap replicapool/$IMAGE
	settled
	refused 4 "rbd-nbd: replicapool/$IMAGE is not mapped" rbd-nbd unmap replicapool/$IMAGE
}

# The part of the storage class behind "nbd:" arrives as one word.
map_options_may_be_one_word() {
	local dev
	dev=$(csi_map --notrim,block-size=512)
	same discard_max_bytes 0 "$(sysfs "$dev" queue/discard_max_bytes)"
	same logical_block_size 512 "$(sysfs "$dev" queue/logical_block_size)"
	rbd-nbd unmap "$dev"
	settled
}

images_in_a_namespace_work() {
	local dev
	dev=$(csi map replicapool/blue/disk --try-netlink --reattach-timeout=300 --io-timeout=0)
	same listed '["replicapool","blue","disk"]' \
		"$(csi_list | jq -c '.[0] | [.pool, .namespace, .image]')"
	rbd-nbd unmap replicapool/blue/disk
	settled
}

# ---- the rbd tool ----

rbd_device_commands_reach_it() {
	local dev
	dev=$(rbd device map -t nbd -o try-netlink,reattach-timeout=60 -o 'cookie=a b' replicapool/$IMAGE)
	same listed "replicapool $IMAGE $dev" \
		"$(rbd device list -t nbd --format json | jq -r '.[0] | [.pool, .image, .device] | join(" ")')"
	rbd device list -t nbd | grep -E "replicapool +$IMAGE +- +$dev"
	rbd device detach -t nbd "$dev"
	is_connected "$dev"
	same attached "$dev" "$(rbd device attach -t nbd --device "$dev" --cookie 'a b' \
		replicapool/$IMAGE)"
	rbd device unmap -t nbd replicapool/$IMAGE
	settled
	dev=$(rbd --id csi -m "$MONITORS" --keyfile=$T/keyfile map replicapool/$IMAGE \
		--device-type nbd --read-only)
	same ro 1 "$(sysfs "$dev" ro)"
	rbd unmap --device-type nbd "$dev"
	settled
}

rbd_device_map_opens_what_rbd_encrypted() {
	local dev
	dev=$(rbd device map -t nbd -o encryption-format=luks2,encryption-passphrase-file=$T/pass \
		-o block-size=512 replicapool/enc)
	same size $((48 << 20)) "$(bytes_of "$dev")"
	[[ $("$T/bin/rbd-nbd" list --format json | jq -r '.[0].layers[0].format') == luks2 ]]
	rbd device unmap -t nbd replicapool/enc
	settled
	dev=$(rbd device unmap -t nbd replicapool/enc 2>&1) && return 1
	[[ $dev == *"rbd-nbd: replicapool/enc is not mapped"* ]]
}

guest_cluster memstore cephx || fail "no cluster"
mkdir -p $T/bin $T/logs
cp "$(type -P rbd)" $T/bin/rbd && cp "$PROGRAM" $T/bin/rbd-nbd || fail "no tools"
PATH=$T/bin:$PATH
ceph osd pool create replicapool 8 2>/dev/null && rbd pool init replicapool &&
	rbd namespace create replicapool/blue && rbd create --size 64M replicapool/$IMAGE &&
	rbd create --size 16M replicapool/blue/disk && quick_image replicapool/enc 64M ||
	fail "no images"
ceph auth get-or-create-key client.csi mon 'profile rbd' osd 'profile rbd' >$T/keyfile
MONITORS=$(sed -n 's/^mon host = .*v1:\([0-9.:]*\).*/\1/p' "$CEPH_CONF")
# The plugin's configuration says nothing about where the cluster is.
printf '[global]\nauth client required = cephx\nrbd cache = false\n' >$T/csi.conf

claim probes-find-it
claim rbd-device-commands-reach-it
claim rbd-device-map-opens-what-rbd-encrypted
export CEPH_CONF=$T/csi.conf
claim volume-is-staged-healed-and-unstaged
claim volume-encrypted-by-csi-works
claim unmap-by-spec-says-what-csi-looks-for
claim map-options-may-be-one-word
claim images-in-a-namespace-work
guest_end
