#!/bin/bash
# SPDX-License-Identifier: GPL-2.0-or-later
# Copyright (C) 2026 the rbdcrypt-nbd authors
#
# layered-peers.sh: what other clients of both releases may do to an image that we write to, idle
# and under load: maintenance works, what could be meant in another view is refused at once and
# changes nothing, and nobody else writes. With --exclusive nothing is allowed. LONG=1 adds the peer
# that dies with the lock: a minute.
# test: heavy time=600

set -u
# shellcheck source=tests/ceph/layered.sh
. "${BASH_SOURCE[0]%/*}/layered.sh"
layered_start bluestore
layered_run layered-peers
