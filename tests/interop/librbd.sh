#!/usr/bin/env bash
# SPDX-License-Identifier: GPL-2.0-or-later
# Copyright (C) 2026 the rbdcrypt-nbd authors
#
# Whole-device compare with Ceph's own client, both ways, for every format and cipher that
# `rbd encryption format` makes: written by us and read through librbd's encryption (QEMU's rbd
# driver), written through librbd and read by us; trimmed and zeroed areas too. Then a clone that
# inherits, and a snapshot. The oracle is librbd, never our own expectation. (On bluestore: memstore
# has no holes, and librbd decrypts what it gives instead.)
# test: heavy time=1200

set -u
. "${BASH_SOURCE[0]%/*}/../lib/functions.sh"
. "${BASH_SOURCE[0]%/*}/../lib/cluster.sh"
requires rbd qemu-io nbdcopy ceph-osd cmp
/usr/bin/python3 -c 'import rados, rbd' 2>/dev/null || skip "missing: python3-rbd"
program_on_cluster bluestore none
printf 'correct horse' >"$T/key"

# librbd IMAGE FORMAT: QEMU's words for the image as librbd decrypts it. LUKS1 is "luks" there.
librbd() {
	echo "driver=rbd,pool=rbd,image=$1,conf=$CEPH_CONF,cache.direct=on,encrypt.format=${2/luks1/luks},encrypt.key-secret=key"
}
SECRET=(--object "secret,id=key,file=$T/key")

ours() { # start SPEC | stop SPEC
	case $1 in
	start) "$PROGRAM" serve --socket "$T/nbd.sock" --encryption-passphrase-file "$T/key" "${@:2}" >/dev/null ;;
	stop) "$PROGRAM" unmap "$2" ;;
	esac
}
URI="nbd+unix:///?socket=$T/nbd.sock"

# theirs SPEC FORMAT FILE: all of it. Not by qemu-img, whose map of holes forgets that there is a header.
theirs() {
	/usr/bin/python3 "${BASH_SOURCE[0]%/*}/librbd-dump" "$CEPH_CONF" "$1" "$2" "$T/key" "$3"
}

# same SPEC FORMAT: the device as we show it and as librbd does, to the last byte.
same() {
	nbdcopy --no-extents "$URI" "$T/ours" && theirs "$1" "$2" "$T/theirs" &&
		cmp "$T/ours" "$T/theirs"
}

# Random data with unwritten areas between, odd edges, zeros and trims over written data.
write_ours() {
	local size at
	head -c 20000000 /dev/urandom >"$T/data" &&
		nbdcopy "$T/data" "$URI" || return 1
	size=$(nbdinfo --size "$URI")
	at=$((size - 65536))
	qemu-io -f raw "$URI" -c "write -P 0x11 30000000 777" -c "write -P 0x22 41943041 1048577" \
		-c "write -z 1000001 5000003" -c "discard 8388608 8388608" -c "write -zu 17825792 1048576" \
		-c "write -P 0x33 $at 65536" -c flush
}

write_theirs() { # IMAGE FORMAT
	qemu-io "${SECRET[@]}" --image-opts "$(librbd "$1" "$2")" -c "write -P 0x44 0 1M" \
		-c "write -P 0x55 5000192 70144" -c "write -P 0x66 33554432 4M" -c "write -z 10M 64k" \
		-c "discard 12M 4M" -c flush
}

one_format() { # FORMAT CIPHER
	local image=$1-$2
	rbd create --size 88M --object-size 4M "rbd/$image" &&
		rbd encryption format --cipher-alg "$2" "rbd/$image" "$1" "$T/key" || return 1
	run_case "$image: unwritten device reads as zeros" unwritten "$image" "$1"
	ours start "$image" || return 1
	run_case "$image: we write at any alignment, trim and zero" write_ours
	ours stop "$image" || return 1
	ours start "$image" || return 1
	run_case "$image: librbd reads what we wrote" same "$image" "$1"
	ours stop "$image" || return 1
	run_case "$image: librbd writes" write_theirs "$image" "$1"
	ours start "$image" || return 1
	run_case "$image: we read what librbd wrote" same "$image" "$1"
	ours stop "$image"
}

refused() { # STATUS SPEC [OPTION]...
	ours start "${@:2}"
	[[ $? -eq $1 ]]
}

unwritten() { # IMAGE FORMAT
	local rc
	ours start "$1" && nbdcopy --no-extents "$URI" "$T/ours"
	rc=$?
	ours stop "$1" || return 1
	truncate -s "$(stat -c %s "$T/ours")" "$T/zeros"
	[[ $rc -eq 0 ]] && cmp "$T/ours" "$T/zeros"
}

for format in luks1 luks2; do
	for cipher in aes-128 aes-256; do
		one_format $format $cipher || fail "$format $cipher stopped half-way"
	done
done

# A clone without a header of its own: one key for both layers, by one passphrase or two.
rbd --no-progress snap create rbd/luks2-aes-256@base && rbd snap protect rbd/luks2-aes-256@base &&
	rbd clone rbd/luks2-aes-256@base rbd/clone || fail "no clone"
ours start clone || fail "the clone is not served"
run_case "clone: reads its parent" same clone luks2
run_case "clone: we write at any alignment, trim and zero" write_ours
ours stop clone || fail "the clone is not stopped"
ours start clone --encryption-passphrase-file "$T/key" || fail "two passphrases for two layers"
run_case "clone: librbd reads what we wrote" same clone luks2
ours stop clone || fail "the clone is not stopped"
run_case "clone: three passphrases are too many" refused 1 clone \
	--encryption-passphrase-file "$T/key" --encryption-passphrase-file "$T/key"
ours start luks2-aes-256@base || fail "the snapshot is not served"
run_case "snapshot: unchanged by its clone" same luks2-aes-256@base luks2
run_case "snapshot: is read-only" bash -c "nbdinfo --is readonly '$URI'"
ours stop rbd/luks2-aes-256@base || fail "the snapshot is not stopped"

run_case "a wrong format is refused" refused 10 luks1-aes-128 --encryption-format luks2
printf 'wrong' >"$T/wrong"
run_case "a wrong passphrase is refused" bash -c \
	"'$PROGRAM' serve --socket '$T/nbd.sock' --encryption-passphrase-file '$T/wrong' clone; [[ \$? -eq 2 ]]"
printf 'correct horse\n' >"$T/newline"
run_case "a newline that an older rbd would not count is tolerated, and told" bash -c \
	"'$PROGRAM' serve --socket '$T/nbd.sock' --encryption-passphrase-file '$T/newline' clone 2>&1 >/dev/null | grep newline"
ours stop clone || fail "the clone is not stopped"
run_case "nothing is left" bash -c "[[ ! -e '$T/nbd.sock' && -z \$('$PROGRAM' list --all) && -z \$(rbd status clone | grep watcher=) ]]"

[[ $failures -eq 0 ]] || fail "$failures claims do not hold"
