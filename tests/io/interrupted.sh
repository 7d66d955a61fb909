#!/bin/bash
# SPDX-License-Identifier: GPL-2.0-or-later
# Copyright (C) 2026 the rbdcrypt-nbd authors
#
# Whoever is told to stop while it still unlocks or connects, stops, and leaves nothing.

set -u
# shellcheck source=tests/lib/functions.sh
. "${BASH_SOURCE[0]%/*}/../lib/functions.sh"
requires cryptsetup ps python3
need_program
CONTROL=$(realpath "$LIB_DIR/control.py")

tmpdir T
cd "$T" || fail "no folder"
export RBDCRYPT_NBD_RUN_DIR=$T/run

# A header whose keyslot takes half a minute: the iterations are the big-endian number at 212.
printf 'correct horse' >key
chmod 600 key
truncate -s 8M slow
cryptsetup luksFormat -q --type luks1 --pbkdf-force-iterations 1000 slow key || fail "no LUKS1 header"
printf '\002' | dd of=slow bs=1 seek=212 conv=notrunc status=none

# The process below $1 that derives the key.
unlock_child() {
	local pid
	for pid in "$1" $(ps -o pid= --ppid "$1"); do
		ps -o pid=,args= --ppid "$pid" | awk '$2 == "rbdcrypt-nbd-unlock" { print $1 }'
	done
}
unlocks() { [[ $(unlock_child "$1") ]]; }
left() { # SOCKET...
	local file
	for file in "$@"; do [[ ! -e $file ]] || echo "$file is left"; done
	find run -name '*.json*' -o -name '.tmp-*' -o -name control
}

# SIGNAL STATUS DOING COMMAND...: starts, is interrupted while DOING its process id holds, and is gone
# within ten seconds.
stopped() {
	local signal=$1 status=$2 doing=$3 pid child start rc=0
	shift 3
	"$PROGRAM" "$@" </dev/null 2>err &
	pid=$!
	cleanup_fn end "$pid"
	wait_for 60 "$doing" "$pid" || { cat err; return 1; }
	child=$(unlock_child "$pid")
	start=$EPOCHREALTIME
	kill -"$signal" "$pid"
	wait "$pid" || rc=$?
	start=$(((${EPOCHREALTIME/./} - ${start/./}) / 1000))
	cat err
	echo "ended with $rc after $start ms"
	[[ $rc == "$status" ]] && ((start < 10000)) && { [[ ! $child ]] || ! alive "$child"; } && [[ -z $(left s) ]]
}

serve=(serve --socket "$T/s" --encryption-passphrase-file key file:slow)
run_case serve-in-the-background-stops stopped TERM 6 unlocks "${serve[@]}"
run_case serve-in-the-foreground-stops stopped INT 6 unlocks "${serve[@]}" --foreground

# A service: its volume is on its way while it is stopped, and its client is told.
daemon_stops() {
	local doing=$1 daemon client rc=0 start
	shift
	"$PROGRAM" daemon 2>err &
	daemon=$!
	cleanup_fn end "$daemon"
	wait_for 60 test -S run/control || return
	"$PROGRAM" "$@" 2>client.err &
	client=$!
	wait_for 60 "$doing" "$daemon" || return
	start=$SECONDS
	kill -TERM "$daemon"
	wait "$daemon" || return
	wait "$client" || rc=$?
	cat err client.err
	echo "the client ended with $rc after $((SECONDS - start)) s"
	((rc != 0 && SECONDS - start <= 10)) && [[ -z $(left s) ]]
}
run_case the-daemon-stops daemon_stops unlocks "${serve[@]}"

# ---- while it connects ----

if [[ ${SANITIZE:-} == *thread* ]]; then
	echo "# SKIP connecting: Ceph is not built for ThreadSanitizer"
	exit $((failures > 0))
fi

# A monitor that takes every connection and says nothing.
cat >monitor <<'END'
import os, socket
s = socket.create_server(("127.0.0.1", 0))
with open("port.new", "w") as f:
    f.write(str(s.getsockname()[1]))
os.rename("port.new", "port")
kept = []
while True:
    kept.append(s.accept())
    with open("came", "a") as f:
        f.write("x")
END
python3 monitor &
cleanup_fn end $!
wait_for 60 test -s port || fail "no monitor"
printf '[global]\nmon host = v1:127.0.0.1:%s\nauth client required = none\n' "$(<port)" >ceph.conf
connects() { [[ -s came ]]; }
connecting() { # CASE COMMAND...
	rm -f came
	"$@"
}
serve=(serve --socket "$T/s" --conf "$T/ceph.conf" --open-timeout 60 rbd/image)

run_case a-connect-in-the-background-stops connecting stopped TERM 6 connects "${serve[@]}"
run_case a-connect-in-the-foreground-stops connecting stopped INT 6 connects "${serve[@]}" --foreground
# Ceph would wait for ever then.
run_case a-connect-without-limit-stops connecting stopped TERM 6 connects "${serve[@]}" --open-timeout 0
run_case the-daemon-stops-while-it-connects connecting daemon_stops connects "${serve[@]}"

exit_of() { # STATUS PID
	local rc=0
	wait "$2" || rc=$?
	[[ $rc == "$1" ]] || { echo "status $rc, not $1"; return 1; }
}
# It has no state file yet, but its daemon knows it.
unmap() { timeout 10 python3 "$CONTROL" "$T/run/control" Unmap "{\"name\": \"$1\"}"; }
# Of two volumes that wait for the same connection, one goes and the other still waits; so does one
# that comes later. What they leave behind keeps nobody.
a_volume_stops_while_it_connects() {
	local daemon one two start=$SECONDS
	rm -f came
	"$PROGRAM" daemon 2>err &
	daemon=$!
	cleanup_fn end "$daemon"
	wait_for 60 test -S run/control || return
	"$PROGRAM" "${serve[@]}" 2>one.err &
	one=$!
	wait_for 60 connects || return
	"$PROGRAM" serve --socket "$T/other" --conf "$T/ceph.conf" --open-timeout 60 rbd/other 2>two.err &
	two=$!
	sleep 0.5
	rm came
	unmap rbd/image && exit_of 6 "$one" && alive "$two" && wait_for 60 connects || return
	"$PROGRAM" "${serve[@]}" 2>one.err &
	one=$!
	sleep 0.5
	unmap rbd/other && exit_of 6 "$two" && alive "$one" || return
	kill "$daemon"
	exit_of 0 "$daemon" && ((SECONDS - start < 50)) && [[ -z $(left s other) ]] || return
	! wait "$one"
}
run_case a-volume-stops-while-it-connects a_volume_stops_while_it_connects

exit $((failures > 0))
