#!/bin/bash
# SPDX-License-Identifier: GPL-2.0-or-later
# Copyright (C) 2026 the rbdcrypt-nbd authors
#
# store-changes.sh: an open store while the world changes: resizes, locks, other clients,
# storage that stops answering.

# shellcheck source=tests/ceph/claims.sh
. "${BASH_SOURCE[0]%/*}/claims.sh"
requires rbd ceph

# hold NAME [STORE_OPTION]... IMAGE: keeps it open; what it says is in $dir/NAME. release NAME
# ends it.
hold() {
	local name=$1 fd
	shift
	rm -f "$dir/$name.in"
	mkfifo "$dir/$name.in"
	(
		# Nobody else may keep the other end of a pipe open.
		for fd in "${fd_of[@]}"; do
			exec {fd}>&-
		done
		exec timeout 300 "$STORE_CHECK" "${@:1:$#-1}" hold "${@: -1}"
	) <"$dir/$name.in" >"$dir/$name" 2>&1 &
	pid_of[$name]=$!
	exec {fd}>"$dir/$name.in"
	fd_of[$name]=$fd
	wait_for 30 grep -q ^open "$dir/$name" || { cat "$dir/$name"; return 1; }
}
release() {
	local fd=${fd_of[$1]}
	exec {fd}>&-
	unset "fd_of[$1]"
	wait "${pid_of[$1]}"
}
declare -A pid_of fd_of

osd() { pgrep -f -- "^ceph-osd .*$dir/ceph.conf"; }

resize_is_told_() {
	rbd create --size 16M grows
	hold one rbd/grows
	hold two --read-only rbd/grows
	rbd resize --no-progress --size 32M grows
	wait_for 60 grep "size=$((32 << 20))" "$dir/one"
	wait_for 60 grep "size=$((32 << 20))" "$dir/two"
	rbd resize --no-progress --allow-shrink --size 8M grows
	wait_for 60 grep "size=$((8 << 20))" "$dir/one"
	release one
	release two
}

exclusive_keeps_others_out_() {
	rbd create --size 16M lockme
	hold one --exclusive rbd/lockme
	grep lock=owner "$dir/one"
	refused 11 "locked by another client at 127" store --exclusive hold rbd/lockme
	hold two rbd/lockme
	grep lock=other "$dir/two"
	release two
	store --ops 20 check rbd/lockme && return 1
	release one
	store --ops 20 check rbd/lockme
}

free_lock_is_none_and_where_there_cannot_be_one_a_dash_() {
	rbd create --size 16M free
	store hold rbd/free </dev/null | grep 'lock=none'
	rbd snap create --no-progress free@snap
	store hold rbd/free@snap </dev/null | grep 'lock=-'
	rbd create --size 16M --image-feature layering nolock
	store hold rbd/nolock </dev/null | grep 'lock=-'
}

automatic_lock_changes_hands_() {
	rbd create --size 16M shared
	store --ops 500 check rbd/shared
	hold one rbd/shared
	store --ops 500 check rbd/shared
	release one
}

open_ends_in_time_when_the_osd_is_silent_() {
	local start
	rbd create --size 16M silent
	start=$SECONDS
	pause "$(osd)"
	refused 6 'no answer in time' store --timeout 5 hold rbd/silent || { kill -CONT "$(osd)"; return 1; }
	kill -CONT "$(osd)"
	((SECONDS - start < 30))
}

close_ends_in_time_when_the_osd_is_silent_() {
	local start
	rbd create --size 16M silent2
	hold one --timeout 5 rbd/silent2
	start=$SECONDS
	pause "$(osd)"
	release one || { kill -CONT "$(osd)"; return 1; }
	kill -CONT "$(osd)"
	((SECONDS - start < 30))
}

silent_osd_is_only_a_pause_() {
	local pid
	rbd create --size 48M pause
	# A limit of librados would be an error whose write lands all the same.
	CEPH_ARGS=--rados-osd-op-timeout=2 store --ops 30000 --timeout 60 check rbd/pause &
	pid=$!
	sleep 0.5
	pause "$(osd)"
	sleep 6
	kill -CONT "$(osd)"
	wait "$pid"
}

is_watched() { rbd status "$1" | grep -q watcher=; }

blocklisted_client_gets_errors_() {
	local pid
	rbd create --size 48M fenced
	store --ops 4000000 check rbd/fenced >"$dir/fenced" 2>&1 &
	pid=$!
	wait_for 60 is_watched fenced
	ceph osd blocklist add "$(rbd status --format json fenced | jq -r '.watchers[0].address')"
	wait "$pid" && return 1
	grep 'failed: .*endpoint shutdown' "$dir/fenced"
}

requires jq
tmpdir dir
cluster_start "$dir" memstore || fail "no cluster"
make_claims "$@"
