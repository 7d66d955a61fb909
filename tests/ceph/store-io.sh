#!/bin/bash
# SPDX-License-Identifier: GPL-2.0-or-later
# Copyright (C) 2026 the rbdcrypt-nbd authors
#
# store-io.sh: the librbd store against a model, on every layout of image; and that what is
# trimmed is given back.

# shellcheck source=tests/ceph/claims.sh
. "${BASH_SOURCE[0]%/*}/claims.sh"
requires rbd ceph

# IMAGE: random IO as a plain and as an encrypted volume, read by librbd and straight from its objects
agrees() {
	local image=$1 seed=${SRANDOM:-7}
	echo "seed $seed"
	store --seed "$seed" check "$image"
	store --seed "$seed" --direct check "$image"
	# The data area starts on an object, and (as an old LUKS1 header may have it) not.
	store --seed "$seed" --encrypted --data-offset 4194304 check "$image"
	store --seed "$seed" --encrypted --direct --data-offset $((4194304 + 12288)) check "$image"
}

default_layout_agrees_with_the_model_() {
	rbd create --size 48M plain
	agrees rbd/plain
}

small_objects_agree_with_the_model_() {
	rbd create --size 24M --object-size 128K small
	agrees rbd/small
}

striped_image_agrees_with_the_model_() {
	rbd create --size 36M --object-size 1M --stripe-unit 64K --stripe-count 4 striped
	agrees rbd/striped
	rbd create --size 36M --object-size 512K --stripe-unit 16K --stripe-count 3 striped3
	agrees rbd/striped3
}

bare_image_agrees_with_the_model_() {
	rbd create --size 24M --image-feature layering bare
	agrees rbd/bare
}

image_in_a_namespace_agrees_with_the_model_() {
	rbd namespace create rbd/ns
	rbd create --size 24M rbd/ns/img
	agrees rbd/ns/img
}

odd_size_agrees_with_the_model_() {
	rbd create --size 24M odd
	rbd resize --allow-shrink --no-progress --size $((23 * 1048576 + 4608))B odd
	agrees rbd/odd
}

inheriting_clone_agrees_with_the_model_() {
	rbd create --size 24M --object-size 256K golden
	rbd bench --io-type write --io-size 64K --io-total 12M --io-pattern rand golden >/dev/null
	rbd snap create --no-progress golden@v1
	rbd clone --rbd-default-clone-format 2 golden@v1 clone
	agrees rbd/clone
	# Its parent, from a snapshot that only the clone still knows.
	rbd snap rm --no-progress golden@v1
	rbd trash mv golden
	store info rbd/clone | grep -q "^rbd/golden@.* overlap 0"
	agrees rbd/clone
	# What the parent does not reach.
	rbd resize --no-progress --size 40M clone
	agrees rbd/clone
}

cache_of_an_image_is_noticed_and_harmless_() {
	rbd create --size 24M cached
	rbd config image set rbd/cached rbd_cache true
	store hold rbd/cached </dev/null | grep "writethrough=0 atomic=0"
	store check rbd/cached
	rbd config image rm rbd/cached rbd_cache
	store hold rbd/cached </dev/null | grep "writethrough=1 atomic=1"
}

cache_of_a_pool_is_noticed_() {
	rbd create --size 24M pooled
	rbd config pool set rbd rbd_cache true
	store hold rbd/pooled </dev/null | grep "writethrough=0"
	rbd config pool rm rbd rbd_cache
}

used() { rados -p rbd ls | grep -c "^rbd_data.$(rbd info --format json "$1" | jq -r .id)" || true; }

trimmed_objects_are_gone_() {
	local option
	for option in "" --encrypted; do
		rbd create --size 64M thin
		rbd bench --io-type write --io-size 4M --io-total 64M thin >/dev/null
		same before 16 "$(used thin)"
		# shellcheck disable=SC2086
		store $option --data-offset 4194304 trim rbd/thin
		# The object with the header stays.
		same "after $option" 1 "$(used thin)"
		rbd rm --no-progress thin
	done
}

zeros_of_four_gibibytes_are_one_request_() {
	rbd create --size 6G large
	rbd bench --io-type write --io-size 1M --io-total 8M large >/dev/null
	store zero rbd/large
	same objects 0 "$(used large)"
}

store=${STORE:-memstore}
requires jq
tmpdir dir
cluster_start "$dir" "$store" || fail "no cluster"
make_claims "$@"
