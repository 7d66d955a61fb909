#!/bin/bash
# SPDX-License-Identifier: GPL-2.0-or-later
# Copyright (C) 2026 the rbdcrypt-nbd authors
#
# layered-read.sh: chains whose layers have different keys, served read-only by the rados store,
# against Reef's own client: what is accepted and what refused, every size, every byte. The
# program runs on this machine's Ceph, whose librbd need not know such chains. Parts (load,
# overlap, random) can be chosen on the command line; SEED and CHAINS say which random chains, and
# with LONG=1 they are others each time.
# test: heavy time=1200

set -u
# shellcheck source=tests/lib/cluster.sh
. "${BASH_SOURCE[0]%/*}/../lib/cluster.sh"
# shellcheck source=tests/lib/trixie.sh
. "${BASH_SOURCE[0]%/*}/../lib/trixie.sh"
requires rbd ceph-osd nbdcopy nbdinfo cmp
ROOT=$(realpath "${BASH_SOURCE[0]%/*}/../..")
PROGRAM=${RBDCRYPT_NBD:-${O:-$ROOT/build}/rbdcrypt-nbd}
[[ -x $PROGRAM ]] || fail "no program at $PROGRAM: make first"
trixie_root || exit
reef_root=$REEF_ROOT
unset REEF_ROOT # the daemons are this machine's
in_reef() { REEF_ROOT=$reef_root reef "$@"; }

tmpdir T
export RBDCRYPT_NBD_RUN_DIR=$T/run
cleanup_fn cluster_stop "$T/cluster"
# memstore has no holes.
cluster_start "$T/cluster" bluestore || fail "no cluster"
URI="nbd+unix:///?socket=$T/nbd.sock"
dir=$T/cluster cases=0

# SPEC FORMATS PASSPHRASES [OPTION]...: served, until ours_stop
ours() {
	local spec=$1 options=() words word
	IFS=, read -ra words <<<"$2"
	for word in "${words[@]}"; do options+=(--encryption-format "$word"); done
	IFS=, read -ra words <<<"$3"
	for word in "${words[@]}"; do options+=(--encryption-passphrase-file "$dir/pass-$word"); done
	shift 3
	"$PROGRAM" serve --socket "$T/nbd.sock" "${options[@]}" "$@" "$spec" >"$T/out" 2>&1
}
ours_stop() { "$PROGRAM" unmap "$1"; }

# What Reef reads is what we read; our device ends with the last whole block.
agrees() { # NAME SPEC SIZE
	local size rc=0
	size=$(nbdinfo --size "$URI") || return 1
	((size <= $3 && $3 - size < 4096)) || { echo "size $size, Reef has $3"; return 1; }
	nbdcopy --no-extents "$URI" "$T/ours" || return 1
	truncate -s "$size" "$dir/$1"
	cmp "$T/ours" "$dir/$1" || rc=1
	return $rc
}

judge() { # NAME SPEC FORMATS PASSPHRASES VERDICT SIZE
	local rc=0
	ours "$2" "$3" "$4" --read-only || rc=$?
	if [[ $5 == refused ]]; then
		[[ $rc -eq 0 ]] && { ours_stop "$2"; echo "served, but Reef refuses it"; return 1; }
		# By its rules, and not because something broke.
		[[ $rc -eq 1 || $rc -eq 2 || $rc -eq 10 ]] || { echo "status $rc"; cat "$T/out"; return 1; }
		return 0
	fi
	[[ $rc -eq 0 ]] || { echo "not served: $rc"; cat "$T/out"; return 1; }
	agrees "$1" "$2" "$6" || rc=1
	ours_stop "$2" || rc=1
	rm -f "$dir/$1"
	return $rc
}

cases_of() { # ARG...: as reef-layers has them
	local name rest
	in_reef "$ROOT/tests/ceph/reef-layers" "$dir/ceph.conf" "$dir" "$@" \
		>"$T/cases" 2>"$T/reef.log" || { cat "$T/reef.log"; fail "reef-layers $*"; }
	while read -r name rest; do
		cases=$((cases + 1))
		# shellcheck disable=SC2086
		if judge "$name" $rest >"$T/log" 2>&1 </dev/null; then
			echo "ok $name: ${rest#* }"
		else
			echo "not ok $name: $rest"
			sed 's/^/# /' "$T/log"
			failures=$((failures + 1))
		fi
	done <"$T/cases"
}

# A peer's resize of a mapped head reaches the device, and the parent's bytes beyond do not.
resize_is_followed() {
	local rc=0
	ours rbd/x luks x --read-only || return 1
	rbd --no-progress resize --allow-shrink --size 7M x &&
		wait_for 60 has_size $((5 << 20)) &&
		rbd --no-progress resize --size 12M x && wait_for 60 has_size $((10 << 20)) &&
		nbdcopy --no-extents "$URI" "$T/ours" &&
		cmp -n $((5 << 20)) "$T/ours" /dev/zero "$((5 << 20))" || rc=1
	ours_stop rbd/x && return $rc
}
# A flatten by Reef, with its keys, changes no byte of a head that is being read.
flatten_changes_nothing() {
	local rc=0
	ours rbd/z2 luks z --read-only || return 1
	nbdcopy --no-extents "$URI" "$T/before" &&
		in_reef rbd -c "$dir/ceph.conf" --no-progress flatten \
			--encryption-passphrase-file "$dir/pass-z" z2 &&
		! rbd info z2 | grep parent: &&
		nbdcopy --no-extents "$URI" "$T/ours" && cmp "$T/before" "$T/ours" || rc=1
	ours_stop rbd/z2 && return $rc
}
# A parent that is being moved away keeps nothing for us, and what is gone would look like zeros.
parent_that_moves_is_not_read() {
	local rc=0
	ours rbd/x luks x --read-only || return 1
	rbd migration prepare plain moved || rc=1
	wait_for 60 says_so || rc=1
	nbdcopy --no-extents "$URI" "$T/ours" && rc=1
	rbd --no-progress migration abort moved || rc=1
	wait_for 60 nbdcopy --no-extents "$URI" "$T/ours" || rc=1
	ours_stop rbd/x && return $rc
}
says_so() { "$PROGRAM" status rbd/x | grep 'health .*another parent'; }
has_size() { [[ $(nbdinfo --size "$URI") -eq $1 ]]; }

[[ $# -gt 0 ]] || set -- load overlap random
for part; do
	case $part in
	load)
		cases_of load
		run_case "a resize of the head is followed" resize_is_followed
		run_case "a flatten by Reef changes nothing" flatten_changes_nothing
		run_case "a parent that moves is not read" parent_that_moves_is_not_read
		;;
	random)
		seed=${SEED:-${LONG:+$((SRANDOM % 1000000))}}
		seed=${seed:-1}
		echo "seed $seed"
		cases_of random "$seed" "${CHAINS:-6}"
		;;
	*) cases_of "$part" ;;
	esac
done
[[ $failures -eq 0 ]] || fail "$failures of $cases cases"
echo "$cases cases agree with Reef"
