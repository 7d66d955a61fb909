#!/bin/bash
# SPDX-License-Identifier: GPL-2.0-or-later
# Copyright (C) 2026 the rbdcrypt-nbd authors
#
# librbd-write.sh: images without a parent and clones of one key, served as by default: requests of
# three clients at once, large ones and neighbours in a sector among them, while clients of both
# releases make snapshots, grow, shrink, sparsify, flatten or write, and we are killed, against
# a model: every byte of the head and of each snapshot, as we read it in all ways and as Reef does, and
# block status. SEED and IMAGES choose; LONG=1 does 100 images, half an hour, and kills the OSD, too.
# test: heavy time=600

set -u
# shellcheck source=tests/ceph/layered.sh
. "${BASH_SOURCE[0]%/*}/layered.sh"
layered_start bluestore
layered_run librbd-write "${IMAGES:-${LONG:+100}}"
