#!/bin/bash
# SPDX-License-Identifier: GPL-2.0-or-later
# Copyright (C) 2026 the rbdcrypt-nbd authors
#
# fence.sh: a daemon that was killed is blocklisted by the next one on its host before that writes,
# which need not wait for the dead one's watch; one that ended in order is not.

set -u
# shellcheck source=tests/lib/cluster.sh
. "${BASH_SOURCE[0]%/*}/../lib/cluster.sh"
requires rbd ceph-osd qemu-io pgrep
ROOT=$(realpath "${BASH_SOURCE[0]%/*}/../..")
PROGRAM=${RBDCRYPT_NBD:-${O:-$ROOT/build}/rbdcrypt-nbd}
[[ -x $PROGRAM ]] || fail "no program at $PROGRAM: make first"
tmpdir T
export RBDCRYPT_NBD_RUN_DIR=$T/run
cleanup_fn cluster_stop "$T/cluster"
cluster_start "$T/cluster" memstore || fail "no cluster"
failures=0
check() { # NAME COMMAND...
	if "${@:2}"; then echo "ok $1"; else
		echo "not ok $1"
		ceph osd blocklist ls
		cat "$T/out"
		failures=$((failures + 1))
	fi
}
io() { [[ $(qemu-io -f raw -c "$1" "nbd:unix:$T/s" 2>&1) == *"$2"* ]]; }
serve() { "$PROGRAM" serve --socket "$T/s" "$@" rbd/image >"$T/out" 2>&1 || { cat "$T/out"; return 1; }; }
blocked() { ceph osd blocklist ls 2>/dev/null | grep -c .; }
fenced() { grep -q 'is blocklisted' "$T/out" && [[ $(blocked) -eq $1 ]]; }
quick() { (($(date +%s) - $1 < 10)); }

rbd create --size 32M --image-feature layering,exclusive-lock,object-map rbd/image || fail "no image"
n=0
for store in librbd rados; do
	serve --store "$store" || fail "cannot serve with $store"
	check "$store: written before the kill" io 'write -P 0x11 0 64k' wrote
	kill -9 "$(pgrep -f "serve --socket $T/s")"
	n=$((n + 1)) begun=$(date +%s)
	check "$store: served again after a kill" serve --store "$store"
	check "$store: the dead client is blocklisted" fenced $n
	check "$store: what was written is there" io 'read -P 0x11 0 64k' read
	check "$store: it is written at once" io 'write -P 0x22 0 64k' wrote
	check "$store: nobody waited for the dead one's watch" quick "$begun"
	check "$store: unmapped" "$PROGRAM" unmap rbd/image
	check "$store: served after an orderly end" serve --store "$store"
	check "$store: nobody else is blocklisted" test "$(blocked)" -eq $n
	check "$store: unmapped again" "$PROGRAM" unmap rbd/image
done
exit $((failures > 0))
