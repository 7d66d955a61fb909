#!/bin/bash
# SPDX-License-Identifier: GPL-2.0-or-later
# Copyright (C) 2026 the rbdcrypt-nbd authors
#
# manual.sh: the examples of the manual pages, each as a user would paste it.

# test: heavy time=900

# shellcheck source=tests/kernel/guest.sh
. "${BASH_SOURCE[0]%/*}/guest.sh"

in_guest || guest_boot 860 --mem 2G --nbds 4

example() { # NAME: stops at the first command that fails
	local commands
	commands=$(sh "$KERNEL_DIR/../man/examples.sh" "$1")
	printf '%s\n' "$commands"
	eval "$commands"
	settled
}

example_filesystem() { example filesystem; }
example_serve() { example serve; }
example_file() { cd $T && example file; }
example_check_keys() { cd $T && example check-keys; }
example_keys() { cd $T && example keys; }
example_list() { example list; }
# The old passphrase is of no use afterwards, the new one is.
example_passphrase() {
	cp /etc/vol.key $T/old.key
	example passphrase
	fails cmp -s /etc/vol.key $T/old.key
	nbd map --dry-run --test-keys --encryption-passphrase-file /etc/vol.key rbd/vol
	refused 2 "No key available" nbd map --encryption-passphrase-file $T/old.key rbd/vol
}
# The one in Python, of rbdcrypt-nbd-control(7); only the daemon is not in it.
example_program() {
	local daemon rc=0
	RBDCRYPT_NBD_RUN_DIR=/run/rbdcrypt-nbd rbdcrypt-nbd daemon 2>$T/daemon.log &
	daemon=$!
	wait_for 60 test -S /run/rbdcrypt-nbd/control || { cat $T/daemon.log; return 1; }
	sh "$KERNEL_DIR/../man/examples.sh" program >$T/program && cat $T/program || return
	python3 $T/program | tee $T/answer || rc=1
	grep -q "'device': '/dev/nbd[0-9]*'" $T/answer &&
		RBDCRYPT_NBD_RUN_DIR=/run/rbdcrypt-nbd rbdcrypt-nbd unmap rbd/vol || rc=1
	kill -TERM $daemon && wait $daemon || rc=1
	settled && return $rc
}

every_example_is_tried() {
	same examples "program check-keys passphrase filesystem serve file keys list" "$(sh "$KERNEL_DIR/../man/examples.sh" | xargs)"
}

guest_cluster memstore || fail "no cluster"
export PATH=${PROGRAM%/*}:$PATH
cp $T/pass /etc/vol.key
cp $T/pass $T/vol.key
quick_image vol.file 32M && mv $T/image $T/vol.img || fail "no image in a file"
claim every-example-is-tried
claim example-filesystem
claim example-serve
claim example-file
claim example-check-keys
claim example-keys
claim example-list
claim example-passphrase
claim example-program
guest_end
