#!/bin/bash
# SPDX-License-Identifier: GPL-2.0-or-later
# Copyright (C) 2026 the rbdcrypt-nbd authors
#
# store-errors.sh: what is said, and with which status, when a cluster, user, key, pool,
# namespace, image or snapshot is not what it should be. With cephx.

# shellcheck source=tests/ceph/claims.sh
. "${BASH_SOURCE[0]%/*}/claims.sh"
requires rbd ceph ceph-authtool

what_is_missing_is_named_() {
	refused 4 "no pool 'nopool'" store info nopool/img
	refused 4 "no namespace 'nons'" store info rbd/nons/img
	refused 4 "no image 'noimg'" store info rbd/noimg
	refused 4 "no image 'noimg'" store info noimg
	refused 4 "no image 'img'" store info rbd/ns/img
	refused 4 "no snapshot 'nosnap'" store info rbd/img@nosnap
	refused 1 "namespace's name is empty" store info rbd//img
}

default_pool_is_asked_of_the_configuration_() {
	refused 4 "no pool 'elsewhere'" store info img -- --rbd-default-pool elsewhere
	refused 4 "no pool 'there'" env CEPH_ARGS="--rbd-default-pool there" "$STORE_CHECK" info img
}

bad_configuration_is_named_() {
	refused 9 '/nonexistent: cannot read' store --conf /nonexistent connect
	refused 9 '/nonexistent: cannot read' env CEPH_CONF=/nonexistent "$STORE_CHECK" connect
	echo 'no section, no value [' >"$dir/bad.conf"
	refused 9 'bad.conf: not a valid' store --conf "$dir/bad.conf" connect
	refused 1 'CEPH_ARGS: a Ceph option' env CEPH_ARGS=--rbd-op-threads=x "$STORE_CHECK" connect
	refused 1 'command line: a Ceph option' store connect -- --rbd-op-threads=x
	refused 1 "'bob' is not a Ceph user name" store --name bob connect
}

no_monitors_are_known_() {
	refused 9 'no monitors are known' env -u CEPH_CONF HOME="$dir" "$STORE_CHECK" connect
}

words_for_ceph_come_from_everywhere_() {
	local conf=$CEPH_CONF mon
	mon=$(ceph-conf --show-config-value mon_host)
	unset CEPH_CONF
	CEPH_ARGS="--conf $conf" store connect
	CEPH_ARGS="-c $conf --id vm" store connect
	store --conf "$conf" connect
	same rest "fsid $(ceph-conf -c "$conf" --show-config-value fsid) left 4" \
		"$(store --conf "$conf" connect -- --rbd-op-threads 2 one --two three)"
	cd "$dir" || return
	HOME=$dir store connect -- --mon-host "$mon" --keyring "$dir/ceph.client.admin.keyring"
}

silent_when_all_is_well_() {
	same stderr "" "$(store hold rbd/img 2>&1 >/dev/null </dev/null)"
}

dead_monitors_end_in_time_() {
	local start=$SECONDS
	refused 9 'no monitor answered in 2 s: 127.9.9.9:1' store --timeout 2 connect -- \
		--mon-host 127.9.9.9:1
	((SECONDS - start < 30))
}

keys_and_users_() {
	refused 2 'no key for client.nobody' store --name client.nobody connect
	refused 2 'no key for client.vm in /nonexistent' store --name client.vm connect -- \
		--keyring /nonexistent
	ceph-authtool -C "$dir/wrong" -g -n client.vm
	refused 2 'client.vm refused' store --name client.vm connect -- --keyring "$dir/wrong"
	ceph-authtool -C "$dir/unknown" -g -n client.unknown
	refused 2 'client.unknown refused' store --name client.unknown connect -- \
		--keyring "$dir/unknown"
	echo AAAA >"$dir/damaged"
	refused 9 'cannot connect to .* as client.vm' store --name client.vm connect -- \
		--keyfile "$dir/damaged"
}

profile_rbd_is_enough_() {
	rbd create --size 16M vm
	store --name client.vm check rbd/vm
	store --name client.vm --exclusive hold rbd/vm </dev/null
}

read_only_user_can_only_read_() {
	ceph auth get-or-create client.ro mon 'profile rbd' osd 'profile rbd-read-only' \
		-o "$dir/ceph.client.ro.keyring"
	store --name client.ro info rbd/img
	store --name client.ro --read-only hold rbd/img </dev/null
	store --name client.ro hold rbd/img@snap </dev/null
	refused 2 'no permission' store --name client.ro hold rbd/img
}

user_without_the_pool_is_told_() {
	ceph auth get-or-create client.none mon 'allow r' -o "$dir/ceph.client.none.keyring"
	refused 2 'no permission' store --name client.none info rbd/img
}

what_cannot_be_served_is_refused_() {
	rbd create --size 16M --image-feature layering,exclusive-lock,journaling journal
	refused 7 'journaling feature is not supported' store info rbd/journal
	rbd create --size 16M moving
	rbd migration prepare moving moved
	refused 7 'a migration is in progress' store info rbd/moved
	rbd migration abort --no-progress moved
	store info rbd/moving
	RBD_FORCE_ALLOW_V1=1 rbd create --image-format 1 --size 8M old
	refused 7 'image format 1 is not supported' store info rbd/old
	refused 1 'has no exclusive lock' store --exclusive hold rbd/bare </dev/null
}

missing_plugin_is_told_() {
	rbd create --size 16M plugged
	rbd config image set rbd/plugged rbd_plugins nosuchplugin
	refused 9 'cannot open the image' store hold rbd/plugged
}

tmpdir dir
cluster_start "$dir" memstore cephx || fail "no cluster"
{
	rbd create --size 16M img && rbd snap create --no-progress img@snap &&
		rbd namespace create rbd/ns &&
		rbd create --size 16M --image-feature layering bare
} || fail "no images"
make_claims "$@"
