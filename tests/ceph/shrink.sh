#!/bin/bash
# SPDX-License-Identifier: GPL-2.0-or-later
# Copyright (C) 2026 the rbdcrypt-nbd authors
#
# shrink.sh: an image that loses its end while that is written. librbd knows before us that it is
# gone; each request is answered all the same, and the volume can be ended.

set -u
# shellcheck source=tests/lib/cluster.sh
. "${BASH_SOURCE[0]%/*}/../lib/cluster.sh"
requires rbd ceph-osd fio
program_on_cluster memstore
cd "$T" || fail "no folder"

every_write_is_answered() { # [OPTION]...
	local pid rc=0
	rbd create --size 8M --object-size 64K vol && "$PROGRAM" serve --socket s "$@" rbd/vol || return
	fio --name=w --ioengine=nbd --uri="nbd+unix:///?socket=$T/s" --rw=randwrite --bs=4k --iodepth=16 \
		--offset=4M --size=4M --time_based --runtime=4 --continue_on_error=all >fio.out 2>&1 &
	pid=$!
	sleep 1
	for size in 4M 8M 4M; do
		rbd resize --no-progress --allow-shrink --size "$size" vol || rc=1
	done
	wait_for 20 gone "$pid" || { rc=1; kill -KILL "$pid"; }
	grep 'total_err\|err=' fio.out
	timeout 20 "$PROGRAM" unmap rbd/vol || rc=1
	rbd rm --no-progress vol && return "$rc"
}
run_case every-write-is-answered every_write_is_answered
run_case every-write-is-answered-of-the-rados-store every_write_is_answered --store rados

exit $((failures > 0))
