#!/usr/bin/env bash
# SPDX-License-Identifier: GPL-2.0-or-later
# Copyright (C) 2026 the rbdcrypt-nbd authors
#
# Every way to say which cluster, which user and which image, on a cluster with cephx, as a user who
# has no more than 'profile rbd'. Standard error stays empty where all is well.
# test: heavy time=600

set -u
. "${BASH_SOURCE[0]%/*}/../lib/functions.sh"
. "${BASH_SOURCE[0]%/*}/../lib/cluster.sh"
requires rbd ceph ceph-osd nbdinfo
program_on_cluster memstore cephx
CONF=$CEPH_CONF
failures=0

rbd create --size 9M rbd/image && rbd namespace create rbd/space && rbd create --size 10M rbd/space/image || fail "no images"
rbd --no-progress snap create rbd/image@snap && rbd resize --no-progress --size 11M rbd/image || fail "no snapshot"
ID=$(rbd snap ls rbd/image --format json | sed 's/.*"id":\([0-9]*\).*/\1/')
KEYRING=$T/cluster/ceph.client.vm.keyring
ceph auth get-key client.vm -o "$T/vm.key" || fail "no key"
MON=$(ceph-conf -c "$CONF" --lookup "mon host" || ceph-conf -c "$CONF" --lookup mon_host)
# A file that says nothing but how to behave: the rest comes by options.
printf '[global]\nms_bind_ipv6 = false\n' >"$T/empty.conf"
# And one whose default pool is another.
ceph osd pool create other 1 >/dev/null 2>&1 && rbd pool init other && rbd create --size 12M other/image || fail "no pool"
sed 's/^\[global\]/[global]\nrbd default pool = other/' "$CONF" >"$T/other.conf"

# serves NAME MEBIBYTES ARGUMENT...: serves an image of that size, silently.
serves() {
	local name=$1 size=$(($2 << 20)) why='' got
	shift 2
	timeout 60 "$PROGRAM" serve --socket "$T/s" "$@" >"$T/out" 2>"$T/err" </dev/null || why="exit status $?"
	[[ ! -s $T/err ]] || why+=" standard error"
	got=$(nbdinfo --size "nbd+unix:///?socket=$T/s" 2>/dev/null)
	[[ $got == "$size" ]] || why+=" size $got"
	timeout 60 "$PROGRAM" unmap "$T/s" >>"$T/out" 2>>"$T/err" || why+=" unmap"
	if [[ $why ]]; then
		echo "not ok $name"
		echo "	$why: $*"
		sed 's/^/	/' "$T/out" "$T/err"
		failures=$((failures + 1))
		pkill -f -- "serve --socket $T/s" && rm -f "$T/s"
	else
		echo "ok $name"
	fi
}

export CEPH_CONF=$CONF CEPH_ARGS=
serves "CEPH_CONF, client.admin" 11 rbd/image
serves "default pool" 11 image
serves "default pool, with a log" 11 --log-file "$T/log" image
# Its whole name, as whoever searches the log would have it.
if [[ $(cut -d' ' -f4- "$T/log") == "rbd/image: serves $T/s"$'\n'"rbd/image: ended" ]]; then
	echo "ok the log has the pool"
else
	echo "not ok the log has the pool"
	sed 's/^/	/' "$T/log"
	failures=$((failures + 1))
fi
serves "namespace" 10 rbd/space/image
serves "snapshot by name" 9 rbd/image@snap
serves "snapshot by number" 9 --snap-id "$ID" rbd/image
serves "pool, namespace and image apart" 10 --pool rbd --namespace space --image image
serves "image and snapshot apart" 9 --image image --snap snap
serves "default pool from the file" 12 -c "$T/other.conf" image
serves "any Ceph option" 12 --rbd-default-pool other image
serves "a Ceph option with its value apart, before the command's operand" 11 --debug-rbd 0 rbd/image
unset CEPH_CONF
serves "--conf" 11 --conf "$CONF" rbd/image
serves "-c and --id" 11 -c "$CONF" --id vm --keyring "$KEYRING" rbd/image
serves "--name" 11 -c "$CONF" --name client.vm -k "$KEYRING" rbd/image
serves "-n and --keyfile" 11 -c "$CONF" -n client.vm --keyfile "$T/vm.key" rbd/image
serves "monitors and key by options" 11 -c "$T/empty.conf" -m "$MON" --id vm -K "$T/vm.key" rbd/image
CEPH_ARGS="--id vm --keyring $KEYRING -c $CONF" serves "CEPH_ARGS" 11 rbd/image
export CEPH_CONF=$CONF
mkdir "$T/etc" && cp "$CONF" "$T/etc/site.conf"
CEPH_CONF=$T/etc/site.conf serves "read-only" 11 --read-only rbd/image

[[ $failures -eq 0 ]] || fail "$failures claims do not hold"
