#!/usr/bin/env bash
# SPDX-License-Identifier: GPL-2.0-or-later
# Copyright (C) 2026 the rbdcrypt-nbd authors
#
# A volume whose image is renamed, and whose name another image gets: what is looked at before it is
# taken away is the image that is served. A wrong finding would have people use --force.

set -u
. "${BASH_SOURCE[0]%/*}/../lib/functions.sh"
. "${BASH_SOURCE[0]%/*}/../lib/cluster.sh"
requires rbd rados ceph-osd cryptsetup jq
program_on_cluster memstore
cd "$T" || fail "no folder"
nbd() { timeout 60 "$PROGRAM" "$@"; }
make_image() { # NAME
	truncate -s 32M file && printf %s "key of $1" >"$1.key" && chmod 600 "$1.key" &&
		cryptsetup luksFormat -q --pbkdf pbkdf2 --pbkdf-force-iterations 1000 file "$1.key" &&
		rbd --no-progress import file "rbd/$1" && rm file
}
serve() { nbd serve --socket s --encryption-passphrase-file one.key "rbd/$1"; }
says() { # STATUS TEXT: check-keys
	local rc=0
	nbd check-keys >found 2>&1 || rc=$?
	cat found
	[[ $rc -eq $1 ]] && grep -q -- "$2" found
}

a_renamed_image_opens() {
	serve one && rbd mv rbd/one rbd/moved && says 0 ': ok,'
}
another_image_of_that_name_is_not_looked_at() {
	rbd mv rbd/two rbd/one && says 0 ': ok,'
}
it_is_unmapped() {
	nbd unmap s && rbd mv rbd/one rbd/two && rbd mv rbd/moved rbd/one
}
a_snapshot_that_is_renamed_opens() {
	rbd --no-progress snap create rbd/one@first && serve one@first &&
		rbd snap rename rbd/one@first rbd/one@other && says 0 ': ok,'
}
a_snapshot_that_is_gone_does_not() {
	rbd --no-progress snap rm rbd/one@other && rbd --no-progress snap create rbd/one@first &&
		says 7 'no snapshot with id' || return 1
	nbd unmap s
	[[ $? -eq 7 ]] && nbd unmap --force s
}
# A copy of the header is no header of that image.
a_copy_of_that_name_is_no_proof() {
	serve one && rbd mv rbd/one rbd/moved && rbd --no-progress cp rbd/moved rbd/one || return 1
	rados -p rbd rm "rbd_data.$(rbd info --format json rbd/moved | jq -r .id).0000000000000000" &&
		says 7 'rbd/moved has no LUKS header' || return 1
	nbd unmap s
	[[ $? -eq 7 ]] && nbd unmap --force s
}

make_image one && make_image two || fail "no images"
for c in a_renamed_image_opens another_image_of_that_name_is_not_looked_at it_is_unmapped \
	a_snapshot_that_is_renamed_opens a_snapshot_that_is_gone_does_not a_copy_of_that_name_is_no_proof; do
	run_case "${c//_/-}" $c
done
cd / && cluster_stop "$T/cluster" && rm -rf "$T/cluster"
nothing_left "$T/cluster" || failures=$((failures + 1))
exit $((failures > 0))
