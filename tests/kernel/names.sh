#!/bin/bash
# SPDX-License-Identifier: GPL-2.0-or-later
# Copyright (C) 2026 the rbdcrypt-nbd authors
#
# names.sh: which device a name below /dev/rbdcrypt leads to, when two images were mapped by it.
# test: heavy time=500

# Paths and names of ours have no blanks.
# shellcheck disable=SC2086
# shellcheck source=tests/kernel/guest.sh
. "${BASH_SOURCE[0]%/*}/guest.sh"

in_guest || guest_boot 460 --mem 2G --nbds 4

NAME=/dev/rbdcrypt/rbd/vol
leads_to() { # DEVICE
	udevadm settle --timeout 20
	same "$NAME" "$1" "$(realpath $NAME)"
}
# As whoever closes a device has it happen, only surer.
event() { # DEVICE
	echo change >"/sys/block/${1#/dev/}/uevent"
}
events_change_nothing() { # DEVICE-WITH-THE-NAME DEVICE...
	local dev
	for dev; do
		event $dev
		leads_to $1
	done
}
rename_and_replace() { # IMAGE
	rbd mv vol "was-$1" && rbd mv $1 vol
}

the_last_that_was_mapped_by_a_name_has_it() {
	local a b c
	a=$(map vol)
	leads_to $a
	rename_and_replace second
	event $a
	leads_to $a
	b=$(map vol)
	events_change_nothing $b $a $b $a
	rename_and_replace third
	# One that cannot be written, too.
	c=$(map --read-only vol)
	leads_to $c
	events_change_nothing $c $b $a $c $b
	nbd unmap $c
	events_change_nothing $b $b $a
	nbd unmap $b
	leads_to $a
	nbd unmap $a
}

# Which of them a new daemon attaches first is chance.
start_daemon() {
	"$PROGRAM" daemon --log-file $T/log >/dev/null 2>&1 &
	daemon=$!
	wait_for 20 nbd_control
}
nbd_control() { [[ -S $RBDCRYPT_NBD_RUN_DIR/control ]]; }
are_mapped() { # HOW-MANY: by the daemon that runs
	[[ $(nbd list --json | jq "[.[] | select(.id == $daemon)] | length") == "$1" ]]
}
a_restart_changes_nothing() {
	local a b daemon
	start_daemon
	a=$(nbd map vol)
	rename_and_replace fourth
	b=$(nbd map vol)
	leads_to $b
	for _ in 1 2 3; do
		kill -KILL $daemon
		wait $daemon || :
		rm $RBDCRYPT_NBD_RUN_DIR/control
		start_daemon
		wait_for 30 are_mapped 2
		events_change_nothing $b $a $b
	done
	nbd unmap $b
	leads_to $a
	nbd unmap $a
	kill -TERM $daemon
	wait $daemon
}

of_one_image_the_writable_one_has_it() {
	local a b
	a=$(map vol)
	b=$(map --read-only --new vol)
	events_change_nothing $a $b $a $b
	nbd unmap $a
	leads_to $b
	nbd unmap $b
}

guest_cluster memstore || fail "no cluster"
export RBDCRYPT_NBD_RUN_DIR=${RBDCRYPT_NBD_RUN_DIR:-/run/rbdcrypt-nbd}
for image in vol second third fourth; do rbd create --size 16M $image || fail "no image"; done
mkdir -p /run/udev/rules.d
printf '#!/bin/sh\nRBDCRYPT_NBD_RUN_DIR=%s exec %s/rbdcrypt-udev "$1"\n' \
	"$RBDCRYPT_NBD_RUN_DIR" "$BUILD" >$T/names && chmod 755 $T/names
sed "s|\"rbdcrypt-udev |\"$T/names |" "$KERNEL_DIR/../../systemd/65-rbdcrypt.rules" \
	>/run/udev/rules.d/65-rbdcrypt.rules
udevadm control --reload
claim the-last-that-was-mapped-by-a-name-has-it
claim a-restart-changes-nothing
claim of-one-image-the-writable-one-has-it
guest_end
