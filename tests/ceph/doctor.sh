#!/bin/bash
# SPDX-License-Identifier: GPL-2.0-or-later
# Copyright (C) 2026 the rbdcrypt-nbd authors
#
# doctor.sh: what is wrong is found, with what to do about it, and what is right is not complained of.
# test: heavy time=300

set -u
# shellcheck source=tests/lib/functions.sh
. "${BASH_SOURCE[0]%/*}/../lib/functions.sh"
# shellcheck source=tests/lib/cluster.sh
. "${BASH_SOURCE[0]%/*}/../lib/cluster.sh"
requires rbd ceph ceph-osd cryptsetup python3
# It cannot see how Ceph's threads agree with one another, and takes it for races.
[[ ${SANITIZE:-} != *thread* ]] || skip "Ceph is not built for ThreadSanitizer"
PROGRAM=${RBDCRYPT_NBD:-${LIB_DIR%/tests/lib}/build/rbdcrypt-nbd}
[[ -x $PROGRAM ]] || fail "no program at $PROGRAM: make first"

tmpdir T
cd "$T" || exit 1
export RBDCRYPT_NBD_RUN_DIR=$T/run

doctor() { # STATUS ARGUMENT...
	local want=$1 rc
	shift
	timeout 60 "$PROGRAM" doctor "$@" >out 2>err </dev/null
	rc=$?
	cat out err
	[[ $rc == "$want" ]]
}
says() { # LEVEL ABOUT PATTERN: and below it, unless all is well, what to do
	grep -E -A 1 "^$1 +$2 .*$3" out >found && { [[ $1 == ok ]] || grep -q '^ *-> .' found; }
}
silent_on() { ! grep -E "^(warn|fail) +$1 " out; }
claim() { run_case "${1//_/-}" "$1"; } # FUNCTION

# ---- an image in a file: no cluster is asked ----

printf 'correct horse' >key
truncate -s 32M luks2
cryptsetup luksFormat -q --type luks2 --pbkdf pbkdf2 --pbkdf-force-iterations 1000 luks2 key || fail "no header"
P=--encryption-passphrase-file

a_file_needs_no_cluster() {
	doctor 0 $P key file:luks2 && says ok image 'file:luks2 has 1 layer' && says ok key-1 "$T/key" &&
		says warn header 'one keyslot' && says ok run-dir "$T/run" && ! grep -q cluster out && [[ ! -s err ]]
}
who_may_not_map_is_told() {
	local as=()
	[[ $EUID -ne 0 ]] || as=(setpriv --bounding-set -sys_admin --inh-caps -sys_admin)
	"${as[@]}" "$PROGRAM" doctor file:luks2 >out 2>err && says warn nbd 'CAP_SYS_ADMIN is needed'
}
json_says_the_same() {
	doctor 0 --json $P key file:luks2 && python3 -c "
import json
all = json.load(open('out'))
assert {'about': 'key-1', 'level': 'ok', 'text': '$T/key', 'advice': ''} in all, all"
}
a_key_for_everybody_fails() {
	local dir rc=0
	dir=$(mktemp -d /tmp/rbdcrypt-key-XXXXXX) && cp key "$dir/key" && chmod 755 "$dir" && chmod 644 "$dir/key"
	doctor 1 $P "$dir/key" file:luks2 && says fail key-1 'mode 0644: others can read it' &&
		grep -q '1 thing will not work' err || rc=1
	doctor 0 $P "$dir/key" --allow-insecure-permissions file:luks2 || rc=1
	rm -r "$dir"
	return $rc
}
a_key_in_memory_is_warned_of() {
	[[ $(stat -f -c %T /dev/shm) == tmpfs ]] || return 0
	local dir rc=0
	dir=$(mktemp -d /dev/shm/rbdcrypt-key-XXXXXX) && cp key "$dir/key"
	doctor 0 $P "$dir/key" file:luks2 && says warn key-1 'lies in memory' || rc=1
	rm -r "$dir"
	return $rc
}
a_key_that_is_typed_is_warned_of() { doctor 0 $P ask: file:luks2 && says warn key-1 'ask: can be had only once, or from a person'; }
a_missing_key_fails() { doctor 1 $P none.key file:luks2 && grep -E "^fail +key-1 .*No such file" out; }
a_missing_program_or_socket_fails() {
	doctor 1 $P exec:/none/such file:luks2 && grep -E "^fail +key-1 .*cannot run /none/such: No such file" out &&
		doctor 1 $P unix:/none/such file:luks2 && grep -E "^fail +key-1 .*No such file" out
}
a_missing_file_fails() { doctor 1 file:nowhere && grep -E '^fail +image .*nowhere' out; }
a_run_directory_is_made_but_not_what_is_above_it() {
	doctor 0 --run-dir "$T/new" file:luks2 && says ok run-dir "$T/new is made by the first volume" &&
		doctor 1 --run-dir "$T/new/er" file:luks2 && says fail run-dir "$T/new/er cannot be made: No such file"
}
a_run_directory_for_everybody_is_none() {
	local rc=0
	mkdir -m 1777 everybodys && doctor 1 --run-dir "$T/everybodys" file:luks2 && says fail run-dir 'others can write to it' || rc=1
	doctor 1 --run-dir "$T/key" file:luks2 && says fail run-dir 'key: .*Not a directory' || rc=1
	rmdir everybodys
	return $rc
}
no_monitors_fail() { doctor 1 --conf /dev/null rbd/luks2 && says fail cluster 'no monitors'; }
for c in a_file_needs_no_cluster who_may_not_map_is_told json_says_the_same a_key_for_everybody_fails a_key_in_memory_is_warned_of \
	a_key_that_is_typed_is_warned_of a_missing_key_fails a_missing_program_or_socket_fails a_missing_file_fails \
	a_run_directory_is_made_but_not_what_is_above_it a_run_directory_for_everybody_is_none no_monitors_fail; do
	claim $c
done

# ---- images in a cluster ----

cleanup_fn cluster_stop "$T/cluster"
cluster_start "$T/cluster" memstore cephx || fail "no cluster"
rbd --no-progress import --image-feature layering,exclusive-lock,object-map luks2 rbd/luks2 &&
	rbd --no-progress import --image-feature layering luks2 rbd/bare && rbd --no-progress snap create rbd/bare@s &&
	rbd create --size 32M --image-feature exclusive-lock,journaling rbd/journal || fail "no images"
ceph auth get-or-create client.reader mon 'profile rbd' osd 'profile rbd-read-only pool=rbd' -o reader.keyring >/dev/null &&
	ceph auth get-or-create client.blind mon 'profile rbd' osd 'allow r pool=other' -o blind.keyring >/dev/null || fail "no users"

a_good_image_is_good() {
	doctor 0 $P key rbd/luks2 && says ok conf 'user client.admin' && says ok cluster 'answers' &&
		says ok image 'rbd/luks2 has 1 layer' && says ok features 'exclusive lock' &&
		says ok caps 'can be opened to write' && silent_on features && silent_on caps && [[ ! -s err ]]
}
without_an_image_the_cluster_is_tried() { doctor 0 && says ok cluster answers && ! grep -q image out; }
missing_features_are_named_with_the_command() {
	doctor 0 $P key rbd/bare && says warn features 'no exclusive lock' &&
		grep -q -- '-> rbd feature enable rbd/bare exclusive-lock' out && says warn features 'no object map' &&
		# rbd changes no snapshot.
		doctor 0 $P key rbd/bare@s && says warn features 'rbd/bare@s has no object map' &&
		grep -q -- '-> rbd feature enable rbd/bare exclusive-lock' out && ! grep -- '-> .*bare@s' out
}
a_user_who_may_only_read_cannot_write() {
	doctor 1 --id reader --keyring reader.keyring $P key rbd/luks2 && says fail caps . &&
		grep -q "ceph auth caps client.reader mon 'profile rbd' osd 'profile rbd pool=rbd'" out &&
		doctor 0 --id reader --keyring reader.keyring --read-only $P key rbd/luks2 && says ok caps 'opened to read'
}
a_user_without_rights_sees_nothing() { doctor 1 --id blind --keyring blind.keyring $P key rbd/luks2 && grep -E '^fail +image ' out; }
an_unknown_user_is_not_let_in() { doctor 1 --id nobody rbd/luks2 && grep -E '^fail +cluster .*nobody' out; }
journaling_fails() { doctor 1 rbd/journal && says fail image journaling; }
a_missing_image_fails() { doctor 1 rbd/nosuch && grep -E '^fail +image .*nosuch' out; }
a_header_without_a_key_is_told() { doctor 0 rbd/luks2 && says warn header 'would be served raw'; }
nothing_is_left_on_the_image() { [[ $(rbd status rbd/luks2) == *"Watchers: none"* ]]; }
for c in a_good_image_is_good without_an_image_the_cluster_is_tried missing_features_are_named_with_the_command \
	a_user_who_may_only_read_cannot_write a_user_without_rights_sees_nothing an_unknown_user_is_not_let_in \
	journaling_fails a_missing_image_fails a_header_without_a_key_is_told nothing_is_left_on_the_image; do
	claim $c
done
[[ $failures -eq 0 ]]
