#!/bin/bash
# SPDX-License-Identifier: GPL-2.0-or-later
# Copyright (C) 2026 the rbdcrypt-nbd authors
#
# vm-guest.sh: a virtual machine, emulated by QEMU as a user of its own, whom a volume of the host's
# daemon lets in, on a clone and its parent with a key each: what its Linux reads before and after is
# what Reef's librbd reads, to the last byte; the daemon is killed while it writes, and another takes
# its place.
# test: heavy time=600
#
# LONG=1: three minutes, 40 MB of downloads (QEMU, and a kernel that is unpacked but not installed),
# 66 MB installed. Else it skips.

set -u
[[ ${LONG:-} ]] || { echo "a long run: LONG=1" >&2; exit 77; }
# shellcheck source=tests/ceph/layered.sh
. "${BASH_SOURCE[0]%/*}/layered.sh"
[[ $(uname -m) == x86_64 ]] || skip "the guest is for x86_64"
need_packages guest || skip "no QEMU"
layered_start bluestore

# kernel: Debian's smallest, for clouds, in $T/vmlinuz, and what it needs to see a disk in $T/initrd.
kernel() {
	local name module file
	mkdir -p "$T/deb" "$T/tree/bin" "$T/tree/m" && cd "$T/deb" || return
	name=$(apt-cache depends linux-image-cloud-amd64 | sed -n 's/^ *Depends: \(linux-image-[0-9]\)/\1/p')
	[[ $name ]] && apt-get download "$name" >"$T/apt" 2>&1 || { cat "$T/apt"; return 1; }
	dpkg-deb --fsys-tarfile "$T"/deb/linux-image-*.deb |
		tar -x --wildcards './boot/vmlinuz*' '*/virtio*.ko*' || return
	mv "$T"/deb/boot/vmlinuz* "$T/vmlinuz" || return
	for module in virtio virtio_ring virtio_pci_legacy_dev virtio_pci_modern_dev virtio_pci virtio_blk; do
		file=$(find "$T/deb" -name "$module.ko*" -print -quit)
		case $file in
		'') ;; # built in
		*.xz) xz -dc "$file" >"$T/tree/m/$module.ko" ;;
		*) mv "$file" "$T/tree/m/" ;;
		esac
	done
	cp "$(type -P busybox)" "$T/tree/bin/busybox" &&
		install -m 755 "$ROOT/tests/ceph/vm-guest-init" "$T/tree/init" &&
		cd "$T/tree" && find . | busybox cpio -o -H newc 2>/dev/null | gzip -1 >"$T/initrd"
}
kernel || fail "no kernel for the guest"
layered_run vm-guest "$T/vmlinuz" "$T/initrd"
