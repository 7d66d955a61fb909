#!/bin/bash
# SPDX-License-Identifier: GPL-2.0-or-later
# Copyright (C) 2026 the rbdcrypt-nbd authors
#
# layered-snapshots.sh: four writers stamp their blocks one write after the other while peers of
# both releases take snapshots. Each snapshot holds, of each writer, all up to some write and nothing
# after it; that write is none that was answered before the snapshot was asked for, or begun after it
# was there. And how long peers and writers had to wait. SNAPSHOTS says how many; LONG=1: 200.
# test: heavy time=900

set -u
# shellcheck source=tests/ceph/layered.sh
. "${BASH_SOURCE[0]%/*}/layered.sh"
layered_start bluestore
layered_run layered-snapshots "${SNAPSHOTS:-${LONG:+200}}"
