#!/bin/bash
# SPDX-License-Identifier: GPL-2.0-or-later
# Copyright (C) 2026 the rbdcrypt-nbd authors
#
# stats.sh: what a volume has done, as the command shows it, also when the daemon answers nobody.
# test: light time=300

set -u
# shellcheck source=tests/lib/functions.sh
. "${BASH_SOURCE[0]%/*}/../lib/functions.sh"
requires cryptsetup nbdsh python3

PROGRAM=${RBDCRYPT_NBD:-${LIB_DIR%/tests/lib}/build/rbdcrypt-nbd}
[[ -x $PROGRAM ]] || fail "no program at $PROGRAM: make first"
tmpdir T
cd "$T" || exit 1
# nbdsh takes the first python3, which has to be the one that it was made for.
PATH=/usr/bin:$PATH
export RBDCRYPT_NBD_RUN_DIR=$T/run
printf 'correct horse' >key
truncate -s 20M image
cryptsetup luksFormat -q --type luks2 --sector-size 4096 --pbkdf pbkdf2 --pbkdf-force-iterations 1000 image key || fail "no image"

stats() { "$PROGRAM" stats --interval 0 --json "$T/s"; }
is() { # EXPRESSION: of v, the volume's statistics, with c its commands
	stats | python3 -c "
import json, sys
v = json.load(sys.stdin)[0]
c = v['commands']
sys.exit(not ($1) and str(v))"
}
claim() { run_case "${1//_/-}" "$1" </dev/null; } # FUNCTION

requests_are_shown_by_size_and_alignment() {
	nbdsh -u "nbd+unix:///?socket=$T/s" -c '
for i in range(32):
    h.pwrite(bytes(4096), i * 4096)
h.pwrite(bytes(512), 512)
h.pread(65536, 0)
h.flush()
try:
    h.set_strict_mode(0)
    h.pread(512, 1 << 40)
except nbd.Error:
    pass' || return
	is "c['write']['requests'] == 33 and c['write']['bytes'] == 32 * 4096 + 512" &&
		is "{'up_to': 4096, 'whole': 32, 'others': 0} in c['write']['sizes']" &&
		is "{'up_to': 512, 'whole': 0, 'others': 1} in c['write']['sizes']" &&
		is "{'up_to': 65536, 'whole': 1, 'others': 0} in c['read']['sizes']" &&
		is "c['read']['errors'] == 1 and c['flush']['requests'] == 1" &&
		is "c['write']['latency_ns']['samples'] >= 2 and c['write']['latency_ns']['p99'] > 0" &&
		is "v['in_flight'] == 0 and v['spec'] == 'file:$T/image'" &&
		"$PROGRAM" stats --interval 0 | grep -E '^  write +33 +0'
}
rates_are_those_of_the_interval() {
	nbdsh -u "nbd+unix:///?socket=$T/s" -c '
import os, time
h.pwrite(bytes(4096), 0)
open("writes", "w").close()
while not os.path.exists("enough"):
    h.pwrite(bytes(4096), 0)
    time.sleep(0.01)' &
	local pid=$! rc=0
	wait_for 60 test -e writes || rc=1
	"$PROGRAM" stats --interval 2 --json "$T/s" | python3 -c "
import json, sys
c = json.load(sys.stdin)[0]['commands']
w = c['write']
sys.exit(not (0 < w['requests_per_second'] < 150 and w['bytes_per_second'] == 4096 * w['requests_per_second']
	and c['read']['requests_per_second'] == 0) and str(c))" || rc=1
	touch enough
	wait $pid || rc=1
	return $rc
}
a_daemon_that_does_nothing_is_seen() {
	local pid rc=0
	pid=$("$PROGRAM" status --json "$T/s" | python3 -c 'import json, sys; print(json.load(sys.stdin)[0]["id"])')
	pause "$pid"
	is "c['write']['requests'] >= 33" || rc=1
	kill -CONT "$pid"
	return $rc
}
what_is_not_there_is_refused() {
	local rc
	"$PROGRAM" stats /nowhere 2>err
	rc=$?
	[[ $rc == 4 ]] && grep -q '/nowhere is not mapped' err && [[ $("$PROGRAM" stats --json --run-dir "$T/empty") == '[]' ]]
}
nothing_is_left_behind() { "$PROGRAM" unmap "$T/s" && [[ -z $(find run -name '*.stats') ]]; }

"$PROGRAM" serve --socket "$T/s" --encryption-passphrase-file key file:image >out || fail "cannot serve"
for c in requests_are_shown_by_size_and_alignment rates_are_those_of_the_interval \
	a_daemon_that_does_nothing_is_seen what_is_not_there_is_refused nothing_is_left_behind; do
	claim $c
done
[[ $failures -eq 0 ]]
