# shellcheck shell=bash
# SPDX-License-Identifier: GPL-2.0-or-later
# Copyright (C) 2026 the rbdcrypt-nbd authors
#
# layered.sh: what the scripts about writing to chains with several keys start with. The program
# and the daemons are this machine's; peers are of this release and, from the Debian 13 tree, Reef.

# shellcheck source=tests/lib/cluster.sh
. "${BASH_SOURCE[0]%/*}/../lib/cluster.sh"
# shellcheck source=tests/lib/trixie.sh
. "${BASH_SOURCE[0]%/*}/../lib/trixie.sh"

# layered_start [memstore|bluestore] [none|cephx]: $T, a cluster in $T/cluster, the tree.
layered_start() {
	requires rbd ceph-osd cryptsetup jq
	/usr/bin/python3 -c 'import nbd, rados, rbd' 2>/dev/null || skip "missing: python3-rbd or python3-libnbd"
	ROOT=$(realpath "${BASH_SOURCE[0]%/*}/../..")
	export RBDCRYPT_NBD=${RBDCRYPT_NBD:-${O:-$ROOT/build}/rbdcrypt-nbd} PYTHONDONTWRITEBYTECODE=1
	[[ -x $RBDCRYPT_NBD ]] || fail "no program at $RBDCRYPT_NBD: make first"
	trixie_root || exit
	unset REEF_ROOT # the daemons are this machine's
	tmpdir T
	export RBDCRYPT_NBD_RUN_DIR=$T/run
	cleanup_fn layered_stop
	# memstore has no holes, which librbd would decrypt.
	cluster_start "$T/cluster" "${1:-bluestore}" "${2:-none}" || fail "no cluster"
}

# Whatever the Python script left behind when it was stopped half-way.
layered_stop() {
	local pid
	for pid in $(pgrep -f -- "--socket $T/cluster/"); do kill -KILL "$pid"; done
	cluster_stop "$T/cluster"
}

# layered_run NAME [ARGUMENT]...: the Python script beside the shell script.
layered_run() {
	/usr/bin/python3 "$ROOT/tests/ceph/$1" "$T/cluster/ceph.conf" "$T/cluster" "${@:2}"
}
