#!/bin/bash
# SPDX-License-Identifier: GPL-2.0-or-later
# Copyright (C) 2026 the rbdcrypt-nbd authors
#
# layered-write.sh: random writes, trims and zeros by us on random chains, with snapshots, growing
# and object-map rebuilds by clients of both releases in between, against a model: every byte of the
# head and of each snapshot, as we read it and as Reef does; object maps; and all of it once more
# after a deep-flatten by Reef. Images without a parent, which librbd could serve, are written by us
# in the same way. SEED and CHAINS choose; LONG=1 does 200 chains, an hour or more.
# test: heavy time=600

set -u
# shellcheck source=tests/ceph/layered.sh
. "${BASH_SOURCE[0]%/*}/layered.sh"
layered_start bluestore
layered_run layered-write "${CHAINS:-${LONG:+200}}"
