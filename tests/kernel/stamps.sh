# shellcheck shell=bash
# SPDX-License-Identifier: GPL-2.0-or-later
# Copyright (C) 2026 the rbdcrypt-nbd authors
#
# stamps.sh: a writer on a device whose every write is stamped and checked (stamp.c). Sourced after
# guest.sh, by those who set UNITS of 4096 bytes and THREADS.

# Sets STAMP.
stamp_start() { # DEVICE
	rm -f $T/stamp
	"$TOOLS/stamp" run "$1" $T/table 4096 $UNITS $THREADS >$T/stamp 2>&1 &
	STAMP=$!
	# The store may first have to find out that an earlier daemon is dead.
	wait_for 60 grep -q running $T/stamp
	sleep 1
}
stamp_ops() { sed -n 's/ operations.*//p' $T/stamp; }
stamp_longest_ms() { sed -n 's/.*longest wait \([0-9]*\) ms/\1/p' $T/stamp; }

# It ran without an error, and everything it wrote is there.
stamp_ends_well() { # DEVICE
	local rc=0
	sleep 1
	kill -TERM "$STAMP" || true
	wait "$STAMP" || rc=$?
	cat $T/stamp
	same "status of the writer" 0 $rc
	# Few, as the machine may be busy, but each thread did some.
	(($(stamp_ops) > THREADS))
	"$TOOLS/stamp" check "$1" $T/table exact
}

stamp_ends_well_and_unmaps() { # DEVICE
	stamp_ends_well "$1"
	nbd unmap "$1"
	settled
}

# The device gave it an error.
stamp_ends_with_error() {
	local rc=0
	wait_for 30 gone "$STAMP" || kill -KILL "$STAMP"
	wait "$STAMP" || rc=$?
	cat $T/stamp
	same "status of the writer" 2 $rc
}
