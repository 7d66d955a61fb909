#!/bin/bash
# SPDX-License-Identifier: GPL-2.0-or-later
# Copyright (C) 2026 the rbdcrypt-nbd authors
#
# layered-stop.sh: a client that was given the lock for a snapshot keeps it. Writes wait, the volume
# says why, and it stops in time all the same: the write that waited is told that it was not made.
# test: heavy time=300

set -u
# shellcheck source=tests/ceph/layered.sh
. "${BASH_SOURCE[0]%/*}/layered.sh"
layered_start bluestore
layered_run layered-stop
