#!/bin/bash
# SPDX-License-Identifier: GPL-2.0-or-later
# Copyright (C) 2026 the rbdcrypt-nbd authors
#
# layered-places.sh: writing to chains as a user with no more than "profile rbd", in a namespace,
# with the data in another pool, in large and small objects, with sectors of 512 bytes, while
# features come and go; read by Reef, and by QEMU with both passphrases.

set -u
# shellcheck source=tests/ceph/layered.sh
. "${BASH_SOURCE[0]%/*}/layered.sh"
layered_start bluestore cephx
ceph osd pool create data 16 >/dev/null 2>&1 && rbd pool init data &&
	rbd namespace create rbd/ns || fail "no pools"
layered_run layered-places
