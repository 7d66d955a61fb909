#!/bin/bash
# SPDX-License-Identifier: GPL-2.0-or-later
# Copyright (C) 2026 the rbdcrypt-nbd authors
#
# fence.sh: a daemon that was killed is blocklisted by the next one on its host before that writes,
# which need not wait for the dead one's watch; one that ended in order is not. A daemon that had
# several volumes is blocklisted before any of them is written, and a start that fails does not forget
# whom it found. Nor does a daemon take with it what it had answered, whatever caches there are.

set -u
# shellcheck source=tests/lib/cluster.sh
. "${BASH_SOURCE[0]%/*}/../lib/cluster.sh"
requires rbd ceph-osd qemu-io pgrep cryptsetup nbdsh
ROOT=$(realpath "${BASH_SOURCE[0]%/*}/../..")
program_on_cluster memstore
failures=0
check() { # NAME COMMAND...
	if "${@:2}"; then echo "ok $1"; else
		echo "not ok $1"
		ceph osd blocklist ls
		cat "$T/out"
		failures=$((failures + 1))
	fi
}
io() { [[ $(qemu-io -f raw -c "$1" "nbd:unix:$T/s" 2>&1) == *"$2"* ]]; }
serve() { "$PROGRAM" serve --socket "$T/s" "$@" rbd/image >"$T/out" 2>&1 || { cat "$T/out"; return 1; }; }
blocked() { ceph osd blocklist ls 2>/dev/null | grep -c .; }
fenced() { grep -q 'is blocklisted' "$T/out" && [[ $(blocked) -eq $1 ]]; }
# The OSD would miss who is dead after ten minutes.
quick() { (($(date +%s) - $1 < 200)); }
# Dead, and nothing of it is held any more.
kill_server() {
	local pid
	pid=$(pgrep -f "serve --socket $T/s") && kill -9 "$pid" && wait_for 60 gone "$pid"
}

ceph --admin-daemon "$T/cluster/osd.0.asok" config set osd_client_watch_timeout 600 >/dev/null ||
	fail "no such setting"
rbd create --size 32M --image-feature layering,exclusive-lock,object-map rbd/image || fail "no image"
n=0
for store in librbd rados; do
	serve --store "$store" || fail "cannot serve with $store"
	check "$store: written before the kill" io 'write -P 0x11 0 64k' wrote
	kill_server || fail "no server"
	n=$((n + 1)) begun=$(date +%s)
	check "$store: served again after a kill" serve --store "$store"
	check "$store: the dead client is blocklisted" fenced $n
	check "$store: what was written is there" io 'read -P 0x11 0 64k' read
	check "$store: it is written at once" io 'write -P 0x22 0 64k' wrote
	check "$store: nobody waited for the dead one's watch" quick "$begun"
	check "$store: unmapped" "$PROGRAM" unmap rbd/image
	check "$store: served after an orderly end" serve --store "$store"
	check "$store: nobody else is blocklisted" test "$(blocked)" -eq $n
	check "$store: unmapped again" "$PROGRAM" unmap rbd/image
done

# ---- unmapped before it is mapped again, by who only knows that the daemon is gone ----

serve || fail "cannot serve"
check "written before another kill" io 'write -P 0x33 0 64k' wrote
kill_server || fail "no server"
n=$((n + 1))
check "what the dead one left is unmapped" "$PROGRAM" unmap rbd/image
check "and is listed no more" test "$("$PROGRAM" list --all --json)" = '[]'
check "served after that" serve
check "the dead client is blocklisted then" fenced $n
check "and forgotten" test -z "$(find "$T/run" -name '*.client')"
check "unmapped in order" "$PROGRAM" unmap rbd/image
check "served once more" serve
check "nobody else is blocklisted after that" test "$(blocked)" -eq $n
check "and unmapped" "$PROGRAM" unmap rbd/image

# ---- a start that fails in between; nothing but this list keeps the dead out of such an image ----

truncate -s 24M "$T/luks" && printf secret >"$T/key" && printf wrong >"$T/other" &&
	chmod 600 "$T/key" "$T/other" &&
	cryptsetup luksFormat -q --type luks2 --pbkdf pbkdf2 --pbkdf-force-iterations 1000 "$T/luks" "$T/key" &&
	rbd import --no-progress --image-feature layering "$T/luks" rbd/luks || fail "no encrypted image"
serve_luks() { # PASSPHRASE-FILE
	"$PROGRAM" serve --socket "$T/s" --encryption-passphrase-file "$1" rbd/luks >"$T/out" 2>&1
}
fails_with_the_wrong_key() { serve_luks "$T/other"; (($? == 2)); }
serve_luks "$T/key" || { cat "$T/out"; fail "cannot serve rbd/luks"; }
kill_server || fail "no server"
n=$((n + 1))
check "a start after a kill fails" fails_with_the_wrong_key
check "and the next one succeeds" serve_luks "$T/key"
check "the dead client is blocklisted all the same" fenced $n
check "unmapped after that" "$PROGRAM" unmap rbd/luks

# ---- at the edges: who dies as soon as clients may come, and a cluster that does not blocklist ----

"${CC:-gcc}" -shared -fPIC -D_GNU_SOURCE -o "$T/fence.so" "$ROOT/tests/ceph/preload/fence.c" || fail "no library"
dies_at_once() { ! DIE_AT_LISTEN=1 LD_PRELOAD=$T/fence.so serve_luks "$T/key"; }
is_not_served() {
	NO_BLOCKLIST=1 LD_PRELOAD=$T/fence.so serve_luks "$T/key"
	(($? == 6)) && grep 'not blocklisted yet' "$T/out"
}
check "a daemon dies as soon as it has a socket" dies_at_once
n=$((n + 1))
check "without blocklisting its client nobody else serves" is_not_served
check "with it, one does" serve_luks "$T/key"
check "and has blocklisted the client" fenced $n
check "unmapped at the end" "$PROGRAM" unmap rbd/luks
check "a daemon dies once more" dies_at_once
n=$((n + 1))
check "and is unmapped" "$PROGRAM" unmap rbd/luks
check "nobody serves then either without blocklisting it" is_not_served
check "which leaves nothing in the list" test "$("$PROGRAM" list --all --json)" = '[]'
check "nor the client forgotten" serve_luks "$T/key"
check "which is blocklisted" fenced $n
check "and the image unmapped" "$PROGRAM" unmap rbd/luks

# ---- with Ceph's cache, which an image can insist on, an answered write is stored all the same ----

rbd create --size 8M rbd/cached && rbd config image set rbd/cached rbd_cache true || fail "no image"
serve_cached() {
	CEPH_ARGS="${CEPH_ARGS:-} --rbd_cache_policy=writeback" "$PROGRAM" serve --socket "$T/s" rbd/cached >"$T/out" 2>&1
}
is_stored_when_answered() { # the cache writes through until the first flush
	local client rc
	timeout 60 /usr/bin/python3 - "$T" <<-'EOF' &
		import nbd, os, sys, time
		dir = sys.argv[1]
		h = nbd.NBD()
		h.connect_unix(dir + "/s")
		h.pwrite(b"\x11" * 4096, 0)
		h.flush()
		open(dir + "/ready", "w").close()
		while not os.path.exists(dir + "/paused"):
		    time.sleep(0.05)
		answer = h.aio_pwrite(b"\x33" * 65536, 1 << 20)
		end = time.time() + 3
		while time.time() < end and not h.aio_command_completed(answer):
		    h.poll(100)
		early = time.time() < end
		os.unlink(dir + "/paused")
		while not early and not h.aio_command_completed(answer):
		    h.poll(-1)
		sys.exit(early)
	EOF
	client=$!
	wait_for 60 test -e "$T/ready" && cluster_osd_pause "$T/cluster" && touch "$T/paused"
	wait_for 60 test ! -e "$T/paused"
	cluster_osd_resume "$T/cluster"
	wait "$client"
}
refuses_writeback() {
	rbd config image set rbd/cached rbd_cache_policy writeback || return
	serve_cached
	(($? == 7)) && grep 'rbd config image rm rbd/cached rbd_cache_policy' "$T/out"
}
cleanup_fn "$PROGRAM" unmap rbd/cached
serve_cached || { cat "$T/out"; fail "cannot serve rbd/cached"; }
check "a write is answered when the cluster has it" is_stored_when_answered
check "and is there" io 'read -P 0x33 1M 64k' read
check "the cached one is unmapped" "$PROGRAM" unmap rbd/cached
check "a cache that answers before it has stored is refused" refuses_writeback

# ---- the daemon of a host: one client for all its volumes, which come back together ----

start_daemon() {
	"$PROGRAM" daemon >/dev/null 2>"$T/out" &
	daemon=$!
	cleanup_fn end "$daemon"
	wait_for 30 test -S "$T/run/control"
}
each_has_fenced() {
	[[ $(grep -c "rbd/one: .*blocklisted" "$T/out") == 1 && $(grep -c "rbd/two: .*blocklisted" "$T/out") == 1 ]]
}
both_are_back() { wait_for 30 test -S "$T/one" && wait_for 30 test -S "$T/two"; }

for image in one two; do rbd create --size 8M --image-feature layering "rbd/$image" || fail "no image"; done
start_daemon || { cat "$T/out"; fail "no daemon"; }
for image in one two; do "$PROGRAM" serve --socket "$T/$image" "rbd/$image" >/dev/null || fail "no volume"; done
kill -9 "$daemon"
wait "$daemon" 2>/dev/null
rm "$T/one" "$T/two" "$T/run/control"
start_daemon || { cat "$T/out"; fail "no daemon"; }
check "the host's volumes come back after a kill" both_are_back
check "each of them has the dead client blocklisted first" each_has_fenced
kill "$daemon"
wait "$daemon" 2>/dev/null
exit $((failures > 0))
