#!/bin/bash
# SPDX-License-Identifier: GPL-2.0-or-later
# Copyright (C) 2026 the rbdcrypt-nbd authors
#
# direct-reads.sh: reads that go straight to their objects, past librbd: what is configured for an
# image holds all the same, maintenance by others changes no byte, and reads of any length agree.
# store-io.sh has such reads beside writes, on every layout.

set -u
# shellcheck source=tests/lib/cluster.sh
. "${BASH_SOURCE[0]%/*}/../lib/cluster.sh"
requires rbd rados ceph-osd nbdcopy qemu-io fio cmp jq
program_on_cluster memstore
cd "$T" || fail "no folder"
URI="nbd+unix:///?socket=$T/s"

serve() { # [OPTION]... SPEC
	"$PROGRAM" serve --socket s "$@"
}
# Completed reads per second, for two seconds.
rate() {
	fio --name=r --ioengine=nbd --uri="$URI" --rw=randread --bs=4k --iodepth=8 --runtime=2 --time_based \
		--output-format=terse 2>fio.err | tee fio.out | grep -a '^3;' | cut -d ';' -f 8
}
slow() { (($(rate) < 250)); }
fast() { (($(rate) > 400)); }

rbd create --size 32M vol
rbd bench --io-type write --io-size 64K --io-total 24M --io-pattern rand vol >bench.log || fail "no data"

limits_hold() { # [OPTION]...
	local rc=0
	serve "$@" rbd/vol && wait_for 60 fast || return
	rbd config image set rbd/vol rbd_qos_read_iops_limit 100
	wait_for 60 slow || rc=1
	rbd config image rm rbd/vol rbd_qos_read_iops_limit
	wait_for 60 fast || rc=1
	"$PROGRAM" unmap rbd/vol && return "$rc"
}
run_case limits-of-an-image-hold limits_hold
run_case limits-hold-for-readers-too limits_hold --read-only

limits_from_before_hold() {
	local rc=0
	rbd config pool set rbd rbd_qos_read_iops_limit 100
	serve rbd/vol && slow || rc=1
	rbd config pool rm rbd rbd_qos_read_iops_limit
	"$PROGRAM" unmap rbd/vol && return "$rc"
}
run_case limits-from-before-hold limits_from_before_hold

# Objects of the clone, of its parent, and of nobody; then all are the clone's.
flatten_changes_nothing() {
	local rc=0
	rbd snap create --no-progress vol@v1
	rbd clone --rbd-default-clone-format 2 vol@v1 clone
	rbd bench --io-type write --io-size 64K --io-total 4M --io-pattern rand clone >bench.log
	serve rbd/clone || return
	nbdcopy --no-extents "$URI" before
	rbd snap create --no-progress clone@s && nbdcopy --no-extents "$URI" after && cmp before after || rc=1
	rbd flatten --no-progress clone && nbdcopy --no-extents "$URI" after && cmp before after || rc=1
	"$PROGRAM" unmap rbd/clone || rc=1
	rbd export --no-progress clone exported && cmp before exported && return "$rc"
}
run_case flatten-and-snapshots-change-nothing flatten_changes_nothing

# Flattening gives the snapshot objects of its own, and then nobody keeps its parent.
snapshot_outlives_its_parent() {
	local store rc=0
	for store in auto librbd; do
		rbd cp --no-progress vol base && rbd snap create --no-progress base@v1
		rbd clone --rbd-default-clone-format 2 base@v1 heir && rbd snap create --no-progress heir@then
		serve --store "$store" rbd/heir@then && nbdcopy --no-extents "$URI" was || return
		rbd flatten --no-progress heir && rbd snap rm --no-progress base@v1 && rbd rm --no-progress base || rc=1
		# librbd has to be told first, see librbd.c. So auto leaves no snapshot to it.
		if [[ $store == auto ]]; then
			"$PROGRAM" status rbd/heir@then | grep '^  store  *rados' || rc=1
		else
			wait_for 60 reads_as_it_was
		fi
		reads_as_it_was && nbdcopy "$URI" now && cmp was now || rc=1
		"$PROGRAM" unmap rbd/heir@then && rbd snap rm --no-progress heir@then && rbd rm --no-progress heir || return
	done
	return "$rc"
}
reads_as_it_was() { nbdcopy --no-extents "$URI" now && cmp was now; }
run_case a-snapshot-outlives-its-parent snapshot_outlives_its_parent

# The snapshot's new map is made while it is served.
snapshot_outlives_its_map() {
	local rc=0
	rbd snap create --no-progress vol@mapped
	serve rbd/vol@mapped && nbdcopy --no-extents "$URI" was || return
	rbd feature disable vol object-map,fast-diff && rbd feature enable vol object-map,fast-diff &&
		rbd object-map rebuild --no-progress vol && rbd object-map rebuild --no-progress vol@mapped || rc=1
	reads_as_it_was || rc=1
	"$PROGRAM" unmap rbd/vol@mapped && rbd snap rm --no-progress vol@mapped && return "$rc"
}
run_case a-snapshot-outlives-its-map snapshot_outlives_its_map

# What is cut off and added again is zeros.
resize_is_followed() {
	local rc=0
	serve rbd/clone || return
	rbd resize --no-progress --allow-shrink --size 9M clone && wait_for 60 has_size $((9 << 20)) &&
		rbd resize --no-progress --size 32M clone && wait_for 60 has_size $((32 << 20)) || rc=1
	nbdcopy --no-extents "$URI" after && cmp -n $((9 << 20)) before after &&
		cmp -n $((23 << 20)) -i $((9 << 20)):0 after /dev/zero || rc=1
	"$PROGRAM" unmap rbd/clone && return "$rc"
}
has_size() { [[ $(nbdinfo --size "$URI") == "$1" ]]; }
run_case resize-is-followed resize_is_followed

# OSDs read a snapshot that they have removed as nothing at all, which is no content of anybody's.
removed_snapshot_is_an_error() {
	local store rc=0
	for store in librbd rados; do
		rbd snap create --no-progress vol@gone
		serve --store "$store" rbd/vol@gone && nbdcopy --no-extents "$URI" was || return
		rbd snap rm --no-progress vol@gone
		wait_for 60 says_it_is_gone || rc=1
		nbdcopy --no-extents "$URI" now && rc=1
		[[ $store == rados ]] || ! nbdinfo --map "$URI" || rc=1
		"$PROGRAM" unmap rbd/vol@gone || return
	done
	return "$rc"
}
says_it_is_gone() { "$PROGRAM" status rbd/vol@gone | grep -q 'the snapshot was removed'; }
run_case a-removed-snapshot-is-an-error removed_snapshot_is_an_error

# As librbd's rebuild of an object map does to objects that are written meanwhile: what has the lock
# believes that map.
forgotten_objects_are_read() {
	local prefix rc=0
	rbd create --size 16M forgotten && prefix=$(rbd info --format json forgotten | jq -r .block_name_prefix)
	head -c 4M /dev/urandom >object && rados -p rbd put "$prefix.0000000000000001" object || return
	serve rbd/forgotten && qemu-io -f raw -c 'write 12M 512' "$URI" || return
	nbdcopy --no-extents --request-size=8388608 "$URI" large && nbdcopy --no-extents --request-size=4096 "$URI" small &&
		cmp large small && cmp -n $((4 << 20)) -i $((4 << 20)):0 large object || rc=1
	"$PROGRAM" unmap rbd/forgotten && return "$rc"
}
run_case forgotten-objects-are-read forgotten_objects_are_read

exit $((failures > 0))
