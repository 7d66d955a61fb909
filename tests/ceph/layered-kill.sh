#!/bin/bash
# SPDX-License-Identifier: GPL-2.0-or-later
# Copyright (C) 2026 the rbdcrypt-nbd authors
#
# layered-kill.sh: we die at each step of a copy-up, of an object-map update, of a write and of a
# removal, and are started again; we are stopped while another client takes over; another owner dies
# under load. Nothing that was answered is lost, nothing of the dead comes late, maps and snapshots
# hold, no object is leaked. And so without a parent, with --store rados. LONG=1 also kills at more
# steps, and at random, under load, fifty times.
# test: heavy time=600

set -u
# shellcheck source=tests/ceph/layered.sh
. "${BASH_SOURCE[0]%/*}/layered.sh"
layered_start bluestore
"${CC:-gcc}" -shared -fPIC -D_GNU_SOURCE -o "$T/die.so" "$ROOT/tests/ceph/preload/die.c" ||
	skip "no compiler for the library that kills"
layered_run layered-kill "$T/die.so"
