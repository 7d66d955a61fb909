#!/bin/bash
# SPDX-License-Identifier: GPL-2.0-or-later
# Copyright (C) 2026 the rbdcrypt-nbd authors
#
# object-map.sh: the facts of an image and its object maps, as our engine reads and keeps them,
# judged by rbd: info, diff, object-map check. On this machine's Ceph and on Reef's OSD.
# ROUNDS, default 20, is how much is written.

# test: light time=600

set -u
# shellcheck source=tests/lib/cluster.sh
. "${BASH_SOURCE[0]%/*}/../lib/cluster.sh"
# shellcheck source=tests/lib/trixie.sh
. "${BASH_SOURCE[0]%/*}/../lib/trixie.sh"
requires rbd rados ceph-osd python3
ROOT=$(realpath "${BASH_SOURCE[0]%/*}/../..")
TOOL=${O:-$ROOT/build}/tests/ceph/object-map-tool
[[ -x $TOOL ]] || fail "no program at $TOOL: make check builds it"
FEATURES=layering,exclusive-lock,object-map,fast-diff
tmpdir T
failures=0 where=

verdict() { # NAME STATUS
	[[ $2 -eq 0 ]] && echo "ok $where-$1" && return
	echo "not ok $where-$1"
	((failures++))
}

image_id() { rbd info --format json "$1" | python3 -c 'import json,sys; print(json.load(sys.stdin)["id"])'; }

# The map is right and marked as such: check does not only say so, it marks a wrong one.
clean() { # SPEC...
	local spec
	for spec; do
		rbd object-map check --no-progress "$spec" 2>"$T/check" || return 1
		! grep -q 'marked as' "$T/check" || { cat "$T/check"; return 1; }
		! invalid "$spec" || return 1
	done
}
invalid() { rbd info "$1" | grep -q 'flags:.*object map invalid'; }

# What exists, by its objects and by rbd, which asks the map.
objects() { rados -p rbd ls | sed -n "s/^rbd_data\.$1\.//p" | while read -r n; do echo $((16#$n)); done | sort -n; }
diffs() { # SPEC OBJECT-SIZE
	rbd diff --whole-object --format json "$1" |
		python3 -c 'import json,sys
size = int(sys.argv[1])
for e in json.load(sys.stdin):
    if e["exists"] == "true":
        for o in range(int(e["offset"]) // size, (int(e["offset"]) + int(e["length"]) + size - 1) // size):
            print(o)' "$2" | sort -nu
}

facts_are_rbds() {
	local id snaps
	rbd create --size 1G --image-feature "$FEATURES" golden
	rbd snap create --no-progress golden@one && rbd snap create --no-progress golden@two
	rbd snap protect golden@two
	rbd clone --image-feature "$FEATURES" golden@two clone
	rbd resize --no-progress --size 1500M clone
	id=$(image_id golden)
	snaps=$(rbd snap ls --format json golden | python3 -c 'import json,sys
print(*sorted((s["id"] for s in json.load(sys.stdin)), reverse=True))')
	"$TOOL" facts "$id" >"$T/golden" && "$TOOL" facts "$(image_id clone)" >"$T/clone" || return 1
	printf '%s\n' "size $((1 << 30))" 'order 22' 'features 29' 'flags 0' "snaps $snaps" |
		diff - "$T/golden" || return 1
	printf '%s\n' "size $((1500 << 20))" 'order 22' 'features 29' 'flags 0' snaps \
		"parent $(ceph osd pool ls detail | sed -n "s/^pool \([0-9]*\) 'rbd'.*/\1/p") '' $id ${snaps%% *} overlap $((1 << 30))" |
		diff - "$T/clone"
}

a_flattened_clone_has_no_parent() {
	rbd create --size 8M --image-feature "$FEATURES" flat-golden
	rbd snap create --no-progress flat-golden@one && rbd snap protect flat-golden@one
	rbd clone --image-feature "$FEATURES" flat-golden@one flat
	# Without deep-flatten, the snapshot keeps it.
	rbd snap create --no-progress flat@kept
	"$TOOL" facts "$(image_id flat)" | grep -q '^parent' || return 1
	rbd flatten --no-progress flat
	rbd info flat@kept | grep -q 'parent:' || return 1
	! "$TOOL" facts "$(image_id flat)" | grep '^parent'
}

an_image_without_features_has_facts() {
	rbd create --size 8M --image-feature exclusive-lock bare
	"$TOOL" facts "$(image_id bare)" | grep -qx 'features 4'
}

# Three blocks of the map, and one.
what_is_written_and_removed_is_in_the_map() {
	local id size
	rbd create --size 160M --object-size 4K --image-feature "$FEATURES" many
	rbd create --size 64M --object-size 64K --image-feature "$FEATURES" few
	for name in many few; do
		id=$(image_id $name)
		size=4096
		[[ $name = many ]] || size=65536
		"$TOOL" work "$id" 1 "${ROUNDS:-20}" >"$T/known" || return 1
		[[ $(wc -l <"$T/known") -ge 20 ]] || return 1
		objects "$id" | diff - "$T/known" || return 1
		clean $name || return 1
		diffs $name $size | diff - "$T/known" || return 1
	done
}

what_snapshots_left_clean_is_marked_when_written() {
	local id
	id=$(image_id few)
	rbd snap create --no-progress few@one || return 1
	"$TOOL" work "$id" 2 "${ROUNDS:-20}" >"$T/known" || return 1
	clean few few@one || return 1
	diffs few 65536 | diff - "$T/known"
}

copies_are_in_the_maps_of_all_snapshots() {
	local id
	id=$(image_id clone)
	for snap in one two three; do rbd snap create --no-progress clone@$snap || return 1; done
	"$TOOL" copyup "$id" 3 && "$TOOL" copyup "$id" 7 || return 1
	clean clone clone@one clone@two clone@three || return 1
	[[ $(objects "$id" | tr '\n' ' ') = '3 7 ' ]]
}

# Else the above proves nothing.
an_object_that_no_map_knows_is_found() {
	local id
	rbd create --size 64M --image-feature "$FEATURES" wrong
	id=$(image_id wrong)
	"$TOOL" forget "$id" 5
	! clean wrong && invalid wrong
}

a_damaged_map_is_marked_and_can_be_rebuilt() {
	local id
	rbd create --size 64M --object-size 64K --image-feature "$FEATURES" damaged
	id=$(image_id damaged)
	[[ $("$TOOL" take "$id") = none ]] || return 1
	head -c 100 /dev/urandom >"$T/noise"
	rados -p rbd put "rbd_object_map.$id" "$T/noise"
	[[ $("$TOOL" take "$id" 2>"$T/err") = unknown ]] || return 1
	grep -q 'object map cannot be used' "$T/err" && invalid damaged || return 1
	# And when it is marked already.
	[[ $("$TOOL" take "$id" 2>&1) = unknown ]] || return 1
	# Ceph's rebuild is careful: what it had to make anew says of all objects that they exist.
	rbd object-map rebuild --no-progress damaged && ! invalid damaged || return 1
	"$TOOL" work "$id" 3 2 >"$T/known" && clean damaged || return 1
	rados -p rbd rm "rbd_object_map.$id"
	[[ $("$TOOL" take "$id" 2>/dev/null) = unknown ]] && invalid damaged
}

who_is_shut_out_is_told_and_his_locks_are_broken() {
	local id said locker
	rbd create --size 64M --image-feature "$FEATURES" shut
	id=$(image_id shut)
	said=$("$TOOL" shut-out "$id")
	[[ $said = 'Cannot send after transport endpoint shutdown' ]] || { echo "$said"; return 1; }
	! invalid shut || return 1
	locker=$(rbd lock ls --format json shut | python3 -c 'import json,sys
print(json.load(sys.stdin)[0]["locker"])')
	rbd lock rm shut 'auto 4242' "$locker" || return 1
	# The map still has its lock.
	rados -p rbd lock info "rbd_object_map.$id" rbd_lock | grep -q "$locker" || return 1
	[[ $("$TOOL" take "$id") = none ]] && clean shut
}

all() {
	facts_are_rbds; verdict facts-are-rbds $?
	a_flattened_clone_has_no_parent; verdict a-flattened-clone-has-no-parent $?
	an_image_without_features_has_facts; verdict an-image-without-features-has-facts $?
	what_is_written_and_removed_is_in_the_map; verdict what-is-written-and-removed-is-in-the-map $?
	what_snapshots_left_clean_is_marked_when_written
	verdict what-snapshots-left-clean-is-marked-when-written $?
	copies_are_in_the_maps_of_all_snapshots; verdict copies-are-in-the-maps-of-all-snapshots $?
	an_object_that_no_map_knows_is_found; verdict an-object-that-no-map-knows-is-found $?
	a_damaged_map_is_marked_and_can_be_rebuilt
	verdict a-damaged-map-is-marked-and-can-be-rebuilt $?
	who_is_shut_out_is_told_and_his_locks_are_broken
	verdict who-is-shut-out-is-told-and-his-locks-are-broken $?
}

cleanup_fn cluster_stop "$T/here"
# memstore says of every object that it exists when it is asked for its snapshots.
cluster_start "$T/here" bluestore || fail "no cluster"
where=here
all
cluster_stop "$T/here"
(trixie_root) || skip "no Debian 13 tree for Reef"
trixie_root
cleanup_fn cluster_stop "$T/reef"
cluster_start "$T/reef" bluestore || fail "no Reef cluster"
where=reef
all
exit $((failures > 0))
