#!/bin/bash
# SPDX-License-Identifier: GPL-2.0-or-later
# Copyright (C) 2026 the rbdcrypt-nbd authors
#
# demo.sh: the program at work on a private Ceph cluster, every command shown. "make demo"
# installs what it needs and calls it. All it makes is in one temporary folder and ends with it,
# at Ctrl-C too.
#
# The part with a device runs on this machine when its kernel has the nbd driver, else in User
# Mode Linux, where this script runs once more (--guest) with a cluster of its own: the guest has
# no network. The image goes there as the encrypted bytes that "rbd export" gives.

set -u
# shellcheck source=tests/lib/cluster.sh
. "${BASH_SOURCE[0]%/*}/lib/cluster.sh"
# shellcheck source=tests/lib/uml.sh
. "${BASH_SOURCE[0]%/*}/lib/uml.sh"

SELF=$LIB_DIR/../demo.sh
PROGRAM=$(realpath "${RBDCRYPT_NBD:-$LIB_DIR/../../build/rbdcrypt-nbd}")
# Where the parts with and without a device meet: what was written, and where.
DATA_BYTES=33554432

# ---- what one sees ----

bold='' dim='' green='' red='' plain=''
if [[ ${DEMO_COLOUR:=$([[ -t 1 && -z ${NO_COLOR:-} ]] && echo yes)} ]]; then
	bold=$'\e[1m' dim=$'\e[2m' green=$'\e[32m' red=$'\e[31m' plain=$'\e[0m'
fi
now_ms() { echo $((${EPOCHREALTIME/[.,]/} / 1000)); }
took() { # SINCE_MS
	local ms=$(($(now_ms) - $1))
	printf '%d.%d s' $((ms / 1000)) $((ms % 1000 / 100))
}

# step TITLE
step() {
	step_end ok
	((++steps))
	title=$1 step_start=$(now_ms)
	printf '\n%s%d. %s%s\n' "$bold" "$steps" "$title" "$plain"
}

step_end() { # ok|FAILED|skipped [REASON]
	[[ $title ]] || return 0
	printf '%s\t%s\t%s\t%s\n' "$1" "$title" "$(took "$step_start")" "${2:-}" >>"$T/steps"
	title=
}

# try COMMAND-LINE: shows it, runs it, shows what it says; the demo ends when it fails. It runs
# in the background, because only then does Ctrl-C reach us at once.
try() { expect 0 "$1"; }

# expect STATUS COMMAND-LINE: STATUS is the right answer.
expect() {
	local rc start
	start=$(now_ms)
	printf '   %s$ %s%s\n' "$bold" "$2" "$plain"
	(set -o pipefail; eval "$2") >"$T/said" 2>&1 &
	wait $!
	rc=$?
	if [[ $rc == "$1" ]]; then
		sed -n "1,12s/^/     $dim/; 1,12s/\$/$plain/p; 13{s/.*/     .../p;q}" "$T/said"
		printf '     %sok%s%s, %s\n' "$green" "$plain" \
			"$([[ $rc == 0 ]] || echo ", as it should be: exit status $rc")" "$(took "$start")"
		return
	fi
	sed 's/^/     /' "$T/said"
	printf '     %sFAILED%s: exit status %d\n' "$red" "$plain" "$rc"
	step_end FAILED
	exit 1
}

# ---- the end ----

tidy() {
	local pid
	trap '' HUP INT TERM PIPE
	! mountpoint -q "$T/mnt" || umount "$T/mnt" || umount -l "$T/mnt"
	[[ ! ${device:-} ]] || timeout 30 "$PROGRAM" unmap --force "$device" 2>/dev/null
	for pid in $("$PROGRAM" list --all | awk 'NR > 1 { print $1 }'); do
		kill "$pid" && wait_for 30 gone "$pid"
	done
	cluster_stop "$T/ceph"
	[[ ! ${loaded_nbd:-} ]] || modprobe -r nbd
	for pid in $(processes_left | cut -d ' ' -f 1); do
		kill -KILL "$pid" 2>/dev/null
	done
}

# Runs however the demo ends, before the folder goes.
the_end() {
	local rc=$? result name time reason
	[[ $rc -lt 128 ]] || printf '\n   %sinterrupted%s\n' "$red" "$plain"
	step_end "$([[ $rc == 0 ]] && echo ok || echo FAILED)"
	tidy
	if [[ $IN_GUEST ]]; then
		cp "$T/steps" "${RESULT:?}/steps"
		return
	fi
	printf '\n%sSummary%s\n' "$bold" "$plain"
	while IFS=$'\t' read -r result name time reason; do
		case $result in
		ok) printf '   %s%-8s%s' "$green" ok "$plain" ;;
		FAILED) printf '   %s%-8s%s' "$red" FAILED "$plain"; [[ $rc != 0 ]] || rc=1 ;;
		*) printf '   %-8s' "$result" ;;
		esac
		printf '%-62s %8s  %s\n' "$name" "$time" "$reason"
	done <"$T/steps"
	rm -rf --one-file-system -- "$T"
	if wait_for 5 nothing_left "$T" 2>/dev/null; then
		printf '   Nothing is left: no process, no mount, no file.\n'
	else
		nothing_left "$T"
		rc=1
	fi
	if [[ $rc == 0 ]]; then
		printf '   %sAll of it worked%s, in %s.\n' "$green" "$plain" "$(took "$demo_start")"
	elif [[ $rc -ge 128 ]]; then
		printf '   Interrupted after %s.\n' "$(took "$demo_start")"
	else
		printf '   %sIt did not work%s.\n' "$red" "$plain"
	fi
	exit "$rc"
}

# ---- the steps ----

start_cluster() {
	step "A private Ceph cluster on loopback${IN_GUEST:+, in the guest}"
	try "cluster start --owner $$ ceph"
	cluster_env "$T/ceph"
}

on_the_socket() {
	local uri="'nbd+unix:///?socket=disk.sock'"

	step "An image, encrypted by Ceph's own tool"
	try "rbd create --size 128M disk"
	try "rbd encryption format disk luks2 passphrase"

	step "Served as NBD on a unix socket"
	try "rbdcrypt-nbd serve --socket disk.sock --encryption-passphrase-file passphrase disk"
	try "nbdinfo $uri"
	try "rbdcrypt-nbd list --all"

	step "Written and read by libnbd and QEMU"
	try "nbdcopy data $uri"
	try "nbdcopy $uri back && cmp --bytes=$DATA_BYTES back data"
	try "qemu-io -f raw -c 'write -P 0xa5 40M 1M' -c 'read -P 0xa5 40M 1M' $uri"
	try "rbdcrypt-nbd unmap disk"
}

with_ceph() {
	local uri="'nbd+unix:///?socket=disk.sock'" copy="'nbd+unix:///?socket=copy.sock'"
	local librbd="driver=rbd,pool=rbd,image=disk,encrypt.format=luks2,encrypt.key-secret=k"

	step "Ceph has only ciphertext, and its own client can read it"
	try "grep -c 'in plain words' data"
	expect 1 "rbd export --no-progress disk - | grep -c 'in plain words'"
	try "qemu-io -r -c 'read -P 0xa5 40M 1M' --object secret,id=k,file=passphrase \\
         --image-opts $librbd"

	step "A wrong passphrase"
	expect 2 "rbdcrypt-nbd serve --socket disk.sock --encryption-passphrase-file wrong disk"

	step "A snapshot, and a clone of it that inherits the encryption"
	try "rbd snap create --no-progress disk@monday"
	try "rbd clone --rbd-default-clone-format 2 disk@monday copy"
	try "rbdcrypt-nbd serve --socket copy.sock --encryption-passphrase-file passphrase copy"
	try "nbdcopy $copy back && cmp --bytes=$DATA_BYTES back data"
	try "qemu-io -f raw -c 'write -P 0x11 40M 64k' -c 'read -P 0x11 40M 64k' $copy"
	try "rbdcrypt-nbd unmap copy"
	try "rbdcrypt-nbd serve --socket disk.sock --encryption-passphrase-file passphrase disk@monday"
	try "qemu-io -r -f raw -c 'read -P 0xa5 40M 1M' $uri"
	try "rbdcrypt-nbd unmap disk@monday"
}

# Its header is made by cryptsetup, because rbd of Ceph 17 and older does not format clones.
on_two_layers() {
	local raw="'nbd+unix:///?socket=raw.sock'" uri="'nbd+unix:///?socket=clone.sock'"
	local keys="--encryption-passphrase-file second --encryption-passphrase-file passphrase"

	step "A clone with a key of its own: two layers, two passphrases"
	try "rbd clone --rbd-default-clone-format 2 disk@monday clone"
	try "truncate -s 32M header && cryptsetup luksFormat -q --type luks2 header second"
	try "rbdcrypt-nbd serve --socket raw.sock --encryption-passphrase-file none clone"
	try "head -c 16M header >head && nbdcopy head $raw"
	try "rbdcrypt-nbd unmap clone"
	try "rbdcrypt-nbd map --dry-run $keys clone"
	expect 2 "rbdcrypt-nbd serve --socket clone.sock --encryption-passphrase-file passphrase \\
         --encryption-passphrase-file second clone"
	try "rbdcrypt-nbd serve --socket clone.sock $keys clone"
	try "nbdcopy $uri back && cmp --bytes=$DATA_BYTES back data"
	try "qemu-io -f raw -c 'write -P 0x22 40M 64k' -c 'read -P 0x22 40M 64k' \\
         -c 'read -P 0xa5 41900k 4k' $uri"
	try "rbd snap create --no-progress clone@tuesday"
	try "qemu-io -f raw -c 'write -P 0x33 40M 64k' $uri"
	try "rbdcrypt-nbd unmap clone"
	try "rbdcrypt-nbd serve --socket clone.sock $keys clone@tuesday"
	try "qemu-io -r -f raw -c 'read -P 0x22 40M 64k' $uri"
	try "rbdcrypt-nbd unmap clone@tuesday"
	try "rbd object-map check --no-progress clone"
}

on_a_device() {
	step "Mapped to a block device of Linux $(uname -r)"
	try "rbdcrypt-nbd map --encryption-passphrase-file passphrase disk | tee device"
	device=$(<"$T/device")
	try "rbdcrypt-nbd list"
	try "head -c $DATA_BYTES $device | cmp - data"

	step "A filesystem on it"
	try "mkfs.ext4 -q $device"
	try "mount $device mnt"
	try "cp data mnt/ && sha256sum mnt/data && df -h mnt"
	try "fstrim -v mnt"
	expect 5 "rbdcrypt-nbd unmap $device"
	try "umount mnt"
	try "fsck.ext4 -fn $device"

	step "Unmapped, mapped again, and still there"
	try "rbdcrypt-nbd unmap $device"
	device=''
	try "rbdcrypt-nbd map --read-only --encryption-passphrase-file passphrase disk | tee device"
	device=$(<"$T/device")
	try "mount -o ro,noload $device mnt"
	try "cmp data mnt/data"
	try "umount mnt"
	try "rbdcrypt-nbd unmap $device"
	device=''
	try "rbdcrypt-nbd list --all"
}

in_a_guest() {
	local rc
	step "A kernel with the nbd driver, as an ordinary process"
	try "rbd export --no-progress disk disk.raw"
	step_end ok
	uml_run --mem 2G --time 900 --nbds 4 --result "$T/guest" env DEMO_COLOUR="$DEMO_COLOUR" \
		DEMO_STEPS="$steps" RBDCRYPT_NBD="$PROGRAM" "$SELF" --guest "$T" 2>"$T/guest.err"
	rc=$?
	[[ ! -e $T/guest/steps ]] || cat "$T/guest/steps" >>"$T/steps"
	case $rc in
	0) return ;;
	77)
		title="A block device" step_start=$(now_ms)
		step_end skipped "$(tail -n 1 "$T/guest.err" | sed 's/.*SKIPPED: //')"
		;;
	*) cat "$T/guest.err"; exit 1 ;;
	esac
}

guest_part() { # FOLDER-OF-THE-MACHINE
	cp "$1"/{passphrase,data} "$T"
	start_cluster
	try "rbd import --no-progress $1/disk.raw disk"
	on_a_device
}

has_nbd() { [[ $EUID -eq 0 ]] && modprobe -nq nbd && [[ -e /sys/class/block ]]; }

machine_part() {
	printf 'correct horse battery staple' >passphrase
	printf 'guess' >wrong
	printf 'of the clone alone' >second
	chmod 600 passphrase wrong second
	yes "in plain words, $(</proc/sys/kernel/random/uuid)" | head -c 4096 >data
	head -c $((DATA_BYTES - 4096)) /dev/urandom >>data
	printf '%srbdcrypt-nbd %s: a demonstration%s in %s\n' "$bold" \
		"$("$PROGRAM" --version | sed 's/.* //')" "$plain" "$T"
	start_cluster
	on_the_socket
	# A test that is about what follows.
	if [[ ! ${DEMO_SHORT:-} ]]; then
		with_ceph
		on_two_layers
	fi
	if [[ $EUID -ne 0 ]]; then
		step "A block device"
		step_end skipped "needs root"
	elif has_nbd; then
		[[ -e /sys/module/nbd ]] || loaded_nbd=yes
		on_a_device
	else
		in_a_guest
	fi
	step_end ok
}

IN_GUEST='' steps=${DEMO_STEPS:-0} title='' device='' demo_start=$(now_ms)
[[ ${1:-} != --guest ]] || IN_GUEST=yes
[[ -x $PROGRAM ]] || fail "no program at $PROGRAM: make first"
tmpdir T
cleanup_fn the_end
trap 'exit 141' PIPE
cd "$T" || exit 1
mkdir mnt run
: >steps
export RBDCRYPT_NBD_RUN_DIR=$T/run PATH=${PROGRAM%/*}:$LIB_DIR:$PATH CLUSTER_OWNER=$$
if [[ $IN_GUEST ]]; then
	guest_part "$2"
else
	machine_part
fi
