#!/bin/bash
# SPDX-License-Identifier: GPL-2.0-or-later
# Copyright (C) 2026 the rbdcrypt-nbd authors
#
# store-block-device.sh: the file store on a block device: same bytes as a model, and hands off
# what others use.

set -u
# shellcheck source=tests/lib/functions.sh
. "${BASH_SOURCE[0]%/*}/../lib/functions.sh"
requires losetup mkfs.ext4
requires_root

check=${O:-${LIB_DIR%/tests/lib}/build}/tests/component/store_check
[[ -x $check ]] || fail "no program $check: make tests"
tmpdir dir
truncate -s 32M "$dir/disk"
dev=$(losetup -f --show "$dir/disk" 2>/dev/null) || skip "no loop devices"
cleanup_fn losetup -d "$dev"

same_bytes_as_the_model() {
	"$check" check "file:$dev" && "$check" --encrypted --data-offset 4096 check "file:$dev"
}

in_use() {
	local rc=0
	"$check" hold "file:$dev" </dev/null 2>"$dir/err" || rc=$?
	[[ $rc == 5 ]] && grep "in use" "$dir/err"
}

second_writer_is_refused_reader_is_not() {
	local rc=0 fd pid
	mkfifo "$dir/in"
	"$check" hold "file:$dev" <"$dir/in" >"$dir/out" &
	pid=$!
	exec {fd}>"$dir/in"
	wait_for 60 grep -q ^open "$dir/out" || rc=1
	in_use && "$check" --read-only hold "file:$dev" </dev/null || rc=1
	exec {fd}>&-
	wait "$pid" && return "$rc"
}

mounted_device_is_refused() {
	local rc=0
	{ mkfs.ext4 -q "$dev" && mkdir "$dir/mnt" && mount "$dev" "$dir/mnt"; } || return
	in_use || rc=1
	umount "$dir/mnt"
	return "$rc"
}

trimmed_space_is_given_back() {
	dd if=/dev/urandom of="$dev" bs=1M count=32 conv=fsync status=none
	"$check" --encrypted trim "file:$dev" && sync "$dir/disk"
	(($(stat -c %b "$dir/disk") < 2048))
}

failed=0
for claim in same_bytes_as_the_model second_writer_is_refused_reader_is_not \
	mounted_device_is_refused trimmed_space_is_given_back; do
	if $claim >"$dir/log" 2>&1; then
		echo "ok $claim"
	else
		echo "not ok $claim"
		sed 's/^/# /' "$dir/log"
		failed=1
	fi
done
exit $failed
