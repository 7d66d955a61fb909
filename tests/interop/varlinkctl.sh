#!/bin/bash
# SPDX-License-Identifier: GPL-2.0-or-later
# Copyright (C) 2026 the rbdcrypt-nbd authors
#
# The control socket with a client that somebody else wrote: varlinkctl of the Debian 13 tree.

set -u
# shellcheck source=tests/lib/trixie.sh
. "${BASH_SOURCE[0]%/*}/../lib/trixie.sh"
requires cryptsetup qemu-io jq
need_program
trixie_root || exit

tmpdir T
cd "$T" || fail "no folder"
export RBDCRYPT_NBD_RUN_DIR=$T/run
CASE_LOGS=(daemon.log)
printf 'correct horse' >key
chmod 600 key
truncate -s 32M disk
cryptsetup luksFormat -q --type luks2 --pbkdf pbkdf2 --pbkdf-force-iterations 1000 disk key ||
	fail "no LUKS2 header"
ctl() { (tree_exec "$REEF_ROOT" "$T" timeout 60 varlinkctl "$@"); }
call() { ctl -j call "$T/run/control" "org.rbdcrypt.Host.$1" "$2"; }
# refused ERROR METHOD PARAMETERS
refused() {
	! call "$2" "$3" >refusal 2>&1
	local rc=$?
	cat refusal
	[[ $rc == 0 ]] && grep -qF -- "$1" refusal
}

"$PROGRAM" daemon >/dev/null 2>daemon.log &
daemon=$!
cleanup_fn end "$daemon"
wait_for 30 test -S run/control || fail "no daemon"

it_says_who_it_is() {
	ctl info "$T/run/control" | tee info
	grep -F org.rbdcrypt.Host info && grep -F rbdcrypt-nbd info &&
		ctl list-interfaces "$T/run/control" | grep -Fx org.rbdcrypt.Host
}
run_case it-says-who-it-is it_says_who_it_is

# varlinkctl reads the description, and prints what it has understood.
its_interfaces_are_understood() {
	local interface
	for interface in org.varlink.service org.rbdcrypt.Host; do
		ctl introspect "$T/run/control" "$interface" >idl && [[ -s idl ]] || return
		ctl validate-idl "$T/idl" || return
	done
	for what in 'method Map(' 'method Serve(' 'method Unmap(' 'error Failed' 'type Key'; do
		grep -F "$what" idl || return
	done
	[[ $(ctl list-methods "$T/run/control" org.rbdcrypt.Host | grep -c '^org.rbdcrypt.Host.') == 7 ]]
}
run_case its-interfaces-are-understood its_interfaces_are_understood

calls_are_answered() {
	local uri="nbd+unix:///?socket=$T/s"
	call Serve "{\"spec\": \"file:$T/disk\", \"options\": [\"socket=$T/s\", \"allow-user=games\"],
		\"keys\": [{\"source\": \"$T/key\"}]}" >reply && cat reply && [[ $(jq -r .socket reply) == "$T/s" ]] &&
		qemu-io -f raw -c 'write -P 9 0 64k' -c 'read -P 9 0 64k' "$uri" &&
		[[ $(call Status '{}' | jq -r '.volumes[0].socket, .volumes[0].layers[0].format' | xargs) == "$T/s luks2" ]] &&
		call Reload '{}' && call Unmap "{\"name\": \"$T/s\"}" && [[ ! -e s ]] &&
		[[ $(call Status '{}' | jq '.volumes | length') == 0 ]]
}
run_case calls-are-answered calls_are_answered

refusals_have_their_names() {
	refused org.rbdcrypt.Host.Failed Unmap '{"name": "nothing"}' &&
		refused org.rbdcrypt.Host.Failed Serve '{"spec": "file:/nowhere", "options": ["socket=/nowhere/s", "allow-user=no-such"]}' &&
		refused org.varlink.service.MethodNotFound Nothing '{}'
}
run_case refusals-have-their-names refusals_have_their_names

kill -TERM "$daemon" && wait "$daemon" || fail "it does not end"
exit $((failures > 0))
