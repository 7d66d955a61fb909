#!/bin/bash
# SPDX-License-Identifier: GPL-2.0-or-later
# Copyright (C) 2026 the rbdcrypt-nbd authors
#
# store-read.sh [ROUNDS]: 4 KiB random reads at depth 32 through the librbd store and through
# fio's rbd engine, in turns, on one fully written image of a private cluster. Prints each
# round, and the ratio of the medians. There is no crypto in either.

# shellcheck source=tests/ceph/claims.sh
. "${BASH_SOURCE[0]%/*}/../tests/ceph/claims.sh"
requires rbd ceph fio

rounds=${1:-7}
tmpdir dir
cluster_start "$dir" memstore || fail "no cluster"
rbd create --size 512M bench || fail "no image"
rbd bench --io-type write --io-size 4M --io-total 512M bench >/dev/null || fail "not written"

of_fio() {
	fio --name=read --ioengine=rbd --clientname=admin --pool=rbd --rbdname=bench \
		--rw=randread --bs=4k --iodepth=32 --time_based --runtime=2 \
		--output-format=terse 2>/dev/null | cut -d';' -f8
}
median() { sort -n | sed -n "$((rounds / 2 + 1))p"; }

for ((i = 0; i < rounds; i++)); do
	echo "$(store --depth 32 --seconds 2 bench rbd/bench) $(of_fio)"
done | tee "$dir/results" | sed 's/\(.*\) \(.*\)/store \1 fio \2 IOPS/'
awk -v a="$(cut -d' ' -f1 "$dir/results" | median)" -v b="$(cut -d' ' -f2 "$dir/results" | median)" \
	'BEGIN { printf "median: store %d fio %d ratio %.2f\n", a, b, a / b }'
