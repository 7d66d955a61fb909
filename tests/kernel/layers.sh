#!/bin/bash
# SPDX-License-Identifier: GPL-2.0-or-later
# Copyright (C) 2026 the rbdcrypt-nbd authors
#
# layers.sh: a clone with a key of its own, formatted by Reef's rbd, on one kernel with Reef's own
# rbd-nbd: both map it in turn, and each reads the files that the other has written, on ext4 and,
# with LONG=1, on xfs.

# test: heavy time=900

# Paths and names of ours have no blanks.
# shellcheck disable=SC2086
# shellcheck source=tests/kernel/guest.sh
. "${BASH_SOURCE[0]%/*}/guest.sh"
# shellcheck source=tests/lib/trixie.sh
. "${BASH_SOURCE[0]%/*}/../lib/trixie.sh"

if ! in_guest; then
	trixie_root || exit
	reef "$PROGRAM" --version >/dev/null 2>&1 || skip "the program does not run on Debian 13"
	[[ ${LONG:-} ]] || export KERNEL_CLAIMS=${KERNEL_CLAIMS:-ext4|nothing}
	guest_boot 860 --mem 3G --nbds 4 --root "$REEF_ROOT"
fi

ours() { # IMAGE
	map --encryption-passphrase-file $T/other --encryption-passphrase-file $T/pass "$1"
}
theirs() { # IMAGE
	rbd-nbd map "$1" --encryption-format luks2 --encryption-passphrase-file $T/other \
		--encryption-format luks1 --encryption-passphrase-file $T/pass
}
their_unmap() {
	rbd-nbd unmap "$1"
	wait_for 30 eval '! pgrep -x rbd-nbd'
}

mounted() { # DEVICE
	mount "$1" $T/mnt
}

# The files that there should be, all of them as they were written.
has_files() { # NAME...
	local name
	for name; do cmp $T/file-$name $T/mnt/$name; done
}
add_file() { # NAME
	head -c 3000000 /dev/urandom >$T/file-$1
	cp $T/file-$1 $T/mnt/$1
	sync -f $T/mnt
}

# With a header where rbd would put it, but one that opens at once.
parent_image() { # NAME
	rm -f $T/image
	truncate -s 480M $T/image
	cryptsetup luksFormat -q --type luks1 --pbkdf-force-iterations 1000 --offset 8192 \
		$T/image $T/pass
	rbd import --no-progress $T/image $1
}

# The clone's header is larger by 12 MiB, which is what it does not see of the parent's end. Most often
# a file system has nothing there, but sometimes its first file.
SEEN=460M
make_ext4() { mkfs.ext4 -q $1 $SEEN; }
make_xfs() { mkfs.xfs -q -d size=$SEEN $1; }

# A file system in the parent, seen and written through the clone by both in turn.
in_turn() { # IMAGE MKFS CHECK
	local dev image=$1
	parent_image $image
	dev=$(map_luks $image)
	$2 $dev
	mounted $dev
	add_file parent
	umount $T/mnt
	nbd unmap $dev
	rbd snap create --no-progress $image@s
	rbd snap protect $image@s
	rbd clone $image@s $image-clone
	rbd encryption format $image-clone luks2 $T/other
	# What the larger header takes from the end is given back first, as Ceph's manual has it.
	rbd resize --no-progress --size 480M --encryption-passphrase-file $T/other \
		--encryption-passphrase-file $T/pass $image-clone

	dev=$(ours $image-clone)
	mounted $dev
	has_files parent
	add_file ours
	rm $T/mnt/parent
	umount $T/mnt
	$3 $dev
	nbd unmap $dev

	dev=$(theirs $image-clone)
	mounted $dev
	has_files ours
	fails test -e $T/mnt/parent
	add_file theirs
	umount $T/mnt
	their_unmap $dev

	dev=$(ours $image-clone)
	mounted $dev
	has_files ours theirs
	fstrim $T/mnt
	add_file again
	umount $T/mnt
	nbd unmap $dev

	dev=$(theirs $image-clone)
	mounted $dev
	has_files ours theirs again
	umount $T/mnt
	$3 $dev
	their_unmap $dev
	rbd object-map check --no-progress $image-clone
}

ext4_in_turn() { in_turn e make_ext4 "fsck.ext4 -fn"; }
xfs_in_turn() { in_turn x make_xfs "xfs_repair -n"; }
nothing_is_left() { settled; }

guest_cluster bluestore || skip "no cluster in the guest"
claim ext4-in-turn
claim xfs-in-turn
claim nothing-is-left
guest_end
