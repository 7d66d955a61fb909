#!/bin/bash
# SPDX-License-Identifier: GPL-2.0-or-later
# Copyright (C) 2026 the rbdcrypt-nbd authors
#
# fio writes checksummed blocks of 512 bytes to 1 MiB over four connections and reads them back:
# on a LUKS2 file and on an encrypted image of a real cluster, at least 2 GiB in all. With
# RBDCRYPT_TEST_SECONDS it repeats until the time is over. Sanitizers make do with less.
# test: heavy time=900

set -u
# shellcheck source=tests/lib/cluster.sh
. "${BASH_SOURCE[0]%/*}/../lib/cluster.sh"
requires fio cryptsetup
need_program
fio --enghelp 2>/dev/null | grep -qw nbd || skip "fio has no nbd engine"

MIB=1048576
if [[ ${SANITIZE:-} ]]; then
	PART_MIB=16 LEAST_MIB=200
else
	PART_MIB=72 LEAST_MIB=2048
fi
END=$((SECONDS + ${RBDCRYPT_TEST_SECONDS:-0}))
total=0 failures=0

tmpdir T
export RBDCRYPT_NBD_RUN_DIR=$T/run
printf 'correct horse' >"$T/key"
KDF=(--pbkdf pbkdf2 --pbkdf-force-iterations 1000)

# end PID: whatever became of it.
end() { ! alive "$1" || kill -KILL "$1"; }

# start SPEC [OPTION]...: serves it on $T/s.
start() {
	"$PROGRAM" serve --foreground --socket "$T/s" --encryption-passphrase-file "$T/key" "$@" \
		>/dev/null 2>"$T/server.log" &
	server=$!
	cleanup_fn end "$server"
	wait_for 60 test -S "$T/s" || { cat "$T/server.log"; fail "no server for $1"; }
}

stop() {
	local rc
	kill -TERM "$server" 2>/dev/null
	wait "$server"
	rc=$?
	((rc == 0)) || { cat "$T/server.log"; echo "not ok the server ends well (exit status $rc)"; failures=$((failures + 1)); }
}

# round NAME OPTION...: one pass of four jobs, each on a part of its own.
round() {
	local name=$1 bytes
	shift
	if timeout 600 fio --name="$name" --ioengine=nbd --uri="nbd+unix:///?socket=$T/s" \
		--rw=randwrite --bssplit=512/20:4k/30:4608/5:16k/20:65k/10:256k/10:1m/5 \
		--numjobs=4 --iodepth=16 --size=${PART_MIB}m --offset_increment=${PART_MIB}m \
		--verify=crc32c --verify_fatal=1 --verify_state_save=0 --randseed=$((SRANDOM)) --output-format=json \
		--output="$T/fio.json" "$@" >"$T/fio.log" 2>&1; then
		bytes=$(awk -F '[:,]' '/"io_bytes"/ { n += $2 } END { printf "%d", n }' "$T/fio.json")
		total=$((total + bytes))
		echo "ok $name: $((bytes / MIB)) MiB"
	else
		cat "$T/fio.log" "$T/server.log"
		grep -m 5 -i verify "$T/fio.json"
		echo "not ok $name"
		failures=$((failures + 1))
	fi
}

# rounds WHAT
rounds() {
	while :; do
		round "$1: written, then read"
		# Read while others are written.
		round "$1: read between writes" --verify_backlog=32 --randrepeat=0
		((SECONDS < END && failures == 0)) || break
	done
}

truncate -s $((4 * PART_MIB + 32))M "$T/disk"
cryptsetup luksFormat -q --type luks2 --sector-size 4096 "${KDF[@]}" "$T/disk" "$T/key" ||
	fail "no LUKS2 header"
start "file:$T/disk"
rounds "a file"
stop
END=$((SECONDS + ${RBDCRYPT_TEST_SECONDS:-0}))

if [[ ${SANITIZE:-} == *thread* ]]; then
	# It cannot see how Ceph's threads agree with one another, and takes it for races.
	echo "ok an image # SKIP Ceph is not built for ThreadSanitizer"
	LEAST_MIB=$((LEAST_MIB / 2))
elif type -P ceph-osd >/dev/null && type -P rbd >/dev/null; then
	cluster_start "$T/cluster" memstore none || fail "no cluster"
	# A header made quickly, put there raw: what Ceph makes itself takes seconds to open.
	truncate -s 16M "$T/header"
	cryptsetup luksFormat -q --type luks2 --sector-size 4096 --offset 32768 "${KDF[@]}" \
		"$T/header" "$T/key" >/dev/null 2>&1 || fail "no LUKS2 header"
	{ rbd import --no-progress "$T/header" image &&
		rbd resize --no-progress --size $((4 * PART_MIB + 32))M image; } || fail "no image"
	start image
	rounds "an image"
	stop
	cluster_stop "$T/cluster"
else
	echo "ok an image # SKIP no Ceph here"
	LEAST_MIB=$((LEAST_MIB / 2))
fi

if ((total < LEAST_MIB * MIB)); then
	echo "not ok at least $LEAST_MIB MiB were moved: $((total / MIB)) MiB"
	failures=$((failures + 1))
else
	echo "ok at least $LEAST_MIB MiB were moved: $((total / MIB)) MiB"
fi
((failures == 0))
