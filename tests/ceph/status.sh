#!/bin/bash
# SPDX-License-Identifier: GPL-2.0-or-later
# Copyright (C) 2026 the rbdcrypt-nbd authors
#
# status.sh: what "status" says of a cluster's volume, who has its lock, and that it answers at once
# when the cluster or the daemon does not.

set -u
# shellcheck source=tests/lib/cluster.sh
. "${BASH_SOURCE[0]%/*}/../lib/cluster.sh"
requires rbd ceph-osd nbdsh
program_on_cluster memstore
claim() { run_case "${1//_/-}" "$1"; } # FUNCTION
serve() { # NAME OPTION... SPEC
	"$PROGRAM" serve --socket "$T/$1" "${@:2}" >"$T/out" 2>&1 || { cat "$T/out"; return 1; }
}
# is EXPRESSION [SOCKET]: of v, the one volume
is() {
	wait_for 60 knows "$1" "${2:-s}" && python3 - "$T/json" "$1" <<-'PYTHON'
		import json, re, sys, time
		v, = json.load(open(sys.argv[1]))
		sys.exit(0 if eval(sys.argv[2]) else f"{sys.argv[2]}: {v}")
	PYTHON
}
# A cluster that is busy may take longer to say who has the lock than a status waits.
knows() { # EXPRESSION SOCKET
	"$PROGRAM" status --json "$T/$2" >"$T/json" &&
		{ [[ $1 == *unknown* ]] || ! grep -qE '"lock": *"unknown"' "$T/json"; }
}
shows() { "$PROGRAM" status "$T/$1" | grep "$2"; } # SOCKET PATTERN
# At most so many seconds, for a status that is printed.
within() { # SECONDS
	local begun end
	begun=$(date +%s%N)
	"$PROGRAM" status >"$T/tree" || return 1
	end=$(date +%s%N)
	cat "$T/tree"
	((end - begun < $1 * 1000000000))
}

the_cluster_is_told() {
	serve s --exclusive rbd/image || return 1
	is "v['fsid'] == '$(ceph fsid)' and v['user'] == 'client.admin' and v['mon_host']" &&
		is "v['conf'] == '$CEPH_CONF' and v['store'] == 'librbd' and v['links'] == []" &&
		within 15 && grep -q '^  user        client.admin at 127.0.0.1:' "$T/tree" &&
		grep -q "^  conf        $CEPH_CONF\$" "$T/tree"
}
the_owner_of_the_lock_is_we() {
	is "v['lock'] == 'owner' and v['lock_owner'] == v['client'] != '' and v['lock_reason'] == ''"
}
# Another host: its run directory has nothing of the first.
who_wants_it_too_is_told_who_has_it() {
	local store rc
	for store in librbd rados; do
		rc=0
		"$PROGRAM" serve --run-dir "$T/elsewhere" --socket "$T/x" --store $store --exclusive rbd/image >"$T/out" 2>&1 || rc=$?
		cat "$T/out"
		[[ $rc == 11 ]] && grep -qE 'locked by another client at 127[^ ]*( \(client[^ ]*\))?$' "$T/out" || return 1
	done
}
to_a_reader_another_has_it() {
	serve r --read-only rbd/image || return 1
	is "v['lock'] == 'other' and v['lock_owner'].startswith('127.0.0.1:')" r &&
		is "abs(time.time() - v['lock_seen']) < 60" r &&
		wait_for 60 shows r '^  lock        other, held by 127\.0\.0\.1:'
}
# Nobody tells a reader that the lock has a new owner, so it has to be asked for.
when_it_changes_the_next_status_knows() {
	"$PROGRAM" unmap "$T/s" && is "v['lock'] == 'none' and v['lock_owner'] == ''" r
}
the_owner_of_a_layered_chain_too() {
	serve l --store rados rbd/image || return 1
	is "v['store'] == 'rados' and v['lock'] == 'owner' and v['lock_owner'] == v['client']" l &&
		is "v['lock'] == 'other'" r
}
an_image_without_locks_has_none() {
	serve p rbd/plain || return 1
	is "v['lock'] == '-' and v['lock_owner'] == ''" p &&
		! "$PROGRAM" status "$T/p" | grep '^  lock' && "$PROGRAM" unmap "$T/p"
}
# Nobody writes it, so there is nothing to say, whichever store has it.
a_snapshot_has_none() {
	local store rc=0
	for store in librbd rados; do
		serve snap --store $store --exclusive rbd/image@s || return 1
		is "v['lock'] == '-' and v['lock_reason'] == ''" snap || rc=1
		! "$PROGRAM" status "$T/snap" | grep '^  lock' || rc=1
		"$PROGRAM" unmap "$T/snap" || return 1
	done
	return $rc
}
a_reader_takes_none() {
	serve reader --read-only --exclusive rbd/image || return 1
	is "not v['exclusive'] and v['lock'] != 'owner'" reader &&
		"$PROGRAM" status "$T/reader" | grep '^  access      read-only$' || return 1
	"$PROGRAM" unmap "$T/reader"
}
# Two of the three have to ask, at the same time.
a_wedged_cluster_is_waited_for_once() {
	local rc=0
	serve o --exclusive rbd/other || return 1
	cluster_osd_pause "$T/cluster"
	within 15 || rc=1
	[[ $(grep -c '^  lock        unknown: no answer in 1 s; last seen 127' "$T/tree") == 2 ]] || rc=1
	# The question that nobody answers is not asked twice.
	within 15 || rc=1
	is "v['lock'] == 'unknown' and v['lock_reason'] == 'no answer in 1 s'" r || rc=1
	cluster_osd_resume "$T/cluster"
	is "v['lock'] == 'other' and v['lock_reason'] == ''" r || rc=1
	return $rc
}
a_daemon_that_is_stuck_is_seen() {
	local pid rc=0
	is "v['id']" r && pid=$(python3 -c 'import json, sys; print(json.load(open(sys.argv[1]))[0]["id"])' "$T/json") || return 1
	pause "$pid"
	within 15 && grep -q 'unknown: no answer' "$T/tree" || rc=1
	kill -CONT "$pid"
	return $rc
}
all_end() { for s in r l o; do "$PROGRAM" unmap "$T/$s" || return 1; done; [[ $("$PROGRAM" status --json) == '[]' ]]; }

rbd create --size 32M --image-feature layering,exclusive-lock,object-map rbd/image &&
	rbd snap create --no-progress rbd/image@s &&
	rbd create --size 32M --image-feature layering,exclusive-lock rbd/other &&
	rbd create --size 32M --image-feature layering rbd/plain || fail "no image"
for c in the_cluster_is_told the_owner_of_the_lock_is_we who_wants_it_too_is_told_who_has_it to_a_reader_another_has_it \
	when_it_changes_the_next_status_knows the_owner_of_a_layered_chain_too \
	an_image_without_locks_has_none a_snapshot_has_none a_reader_takes_none a_wedged_cluster_is_waited_for_once a_daemon_that_is_stuck_is_seen \
	all_end; do
	claim $c
done
exit $((failures > 0))
