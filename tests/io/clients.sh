#!/bin/bash
# SPDX-License-Identifier: GPL-2.0-or-later
# Copyright (C) 2026 the rbdcrypt-nbd authors
#
# What clients that others wrote see of the server: libnbd's and QEMU's tools; and what is left
# after SIGTERM and SIGKILL in the middle of their IO.
# test: heavy time=600

set -u
# shellcheck source=tests/lib/functions.sh
. "${BASH_SOURCE[0]%/*}/../lib/functions.sh"
requires nbdinfo nbdcopy nbdsh qemu-io cryptsetup python3
need_program

# nbdsh takes the first python3, which has to be the one that it was made for.
PATH=/usr/bin:$PATH
tmpdir T
cd "$T" || fail "no folder"
export RBDCRYPT_NBD_RUN_DIR=$T/run
URI="nbd+unix:///?socket=$T/s"
MIB=1048576
SIZE=$((64 * MIB))
CASE_LOGS=("$T/server.log")
printf 'correct horse' >key
KEY=(--encryption-passphrase-file key)

fresh_disk() {
	rm -f disk
	truncate -s $((SIZE + 16 * MIB)) disk
	cryptsetup luksFormat -q --type luks2 --sector-size 4096 --pbkdf pbkdf2 \
		--pbkdf-force-iterations 1000 disk key || fail "no LUKS2 header"
}

# start [OPTION]...: serves the disk on $T/s.
start() {
	"$PROGRAM" serve --foreground --socket "$T/s" "${KEY[@]}" "$@" file:disk >/dev/null 2>server.log &
	server=$!
	cleanup_fn end "$server"
	wait_for 30 test -S s || { cat server.log; return 1; }
}

# start_over: beside a socket that was left, which "test -S" would take for the new one.
start_over() {
	start && wait_for 30 nbdinfo --size "$URI" >/dev/null 2>&1
}

# stop: as "systemctl stop" does; nothing stays.
stop() {
	local rc
	kill -TERM "$server"
	wait "$server"
	rc=$?
	[[ $rc == 0 && ! -e s && -z $(find run -name '*.json*' 2>/dev/null) ]] ||
		{ echo "exit status $rc"; ls -l . run; return 1; }
}

sh_() { timeout 60 nbdsh -u "$URI" -c "$1"; }

# ---- what is announced ----

information() {
	local info
	info=$(timeout 30 nbdinfo --json "$URI") || return 1
	echo "$info"
	python3 - "$info" "$SIZE" <<-'PY'
		import json, sys
		e = json.loads(sys.argv[1])["exports"][0]
		assert e["export-size"] == int(sys.argv[2]), e
		for what in ("can_multi_conn", "can_flush", "can_fua", "can_trim", "can_zero",
		             "can_fast_zero", "can_df"):
		    assert e[what], what
		assert not e["is_read_only"]
		assert "base:allocation" in e["contexts"]
		assert e["block_size_maximum"] == 32 << 20, e
	PY
}

listing() {
	timeout 30 nbdinfo --list --json "$URI" >list || return 1
	cat list
	python3 -c '
import json
exports = json.load(open("list"))["exports"]
assert [e["export-name"] for e in exports] == ["file:disk"], exports'
}

by_name() {
	timeout 30 nbdinfo --size "nbd+unix:///file:disk?socket=$T/s" &&
		! timeout 30 nbdinfo --size "nbd+unix:///other?socket=$T/s"
}

# Two whose paths are the same for longer than any text that names them in passing.
by_long_names() {
	local deep=$T name rc=0
	for name in 1 2 3; do deep+=/$(printf '%0200d' "$name"); done
	mkdir -p "$deep" && truncate -s 1M "$deep"/{a,b} || return
	for name in a b; do
		"$PROGRAM" serve --socket "$T/$name" "file:$deep/$name" || rc=1
	done
	for name in a b; do
		timeout 30 nbdinfo --list --json "nbd+unix:///?socket=$T/$name" >list &&
			python3 -c '
import json, sys
exports = json.load(open("list"))["exports"]
assert [e["export-name"] for e in exports] == ["file:" + sys.argv[1]], exports' "$deep/$name" ||
			rc=1
		"$PROGRAM" unmap "$T/$name" || rc=1
	done
	return $rc
}

structured() {
	sh_ '
assert h.get_structured_replies_negotiated()
seen = []
def chunk(data, offset, status, error):
    seen.append((offset, len(data)))
h.pwrite(b"x" * 5000, 777)
assert h.pread_structured(5000, 777, chunk) == b"x" * 5000
assert seen == [(777, 5000)], seen
assert h.pread_structured(5000, 777, chunk, nbd.CMD_FLAG_DF) == b"x" * 5000'
}

simple() {
	timeout 60 nbdsh -c '
h.set_request_structured_replies(False)
h.connect_unix("'"$T"'/s")
assert not h.get_structured_replies_negotiated()
h.pwrite(b"y" * 100, 4090)
assert h.pread(102, 4089)[1:101] == b"y" * 100'
}

allocation() {
	timeout 60 nbdsh -c '
h.add_meta_context("base:allocation")
h.connect_unix("'"$T"'/s")
h.pwrite(b"z" * 65536, 8 << 20)
total = 0
def extents(context, offset, entries, error):
    global total
    assert context == "base:allocation"
    at = offset
    for length, flags in zip(entries[::2], entries[1::2]):
        if at <= 8 << 20 < at + length:
            assert flags == 0, (at, length, flags)
        at += length
    total = at
h.block_status(16 << 20, 0, extents)
assert total > 8 << 20, total
h.block_status(16 << 20, 5 << 20, extents, nbd.CMD_FLAG_REQ_ONE)'
}

errors() {
	sh_ '
import errno
h.set_strict_mode(0)
def fails(number, f, *args):
    try:
        f(*args)
    except nbd.Error as e:
        assert e.errnum == number, e
    else:
        assert False, (number, args)
size = h.get_size()
fails(errno.EINVAL, h.pread, 512, size)
fails(errno.ENOSPC, h.pwrite, b"1" * 512, size - 511)
fails(errno.ENOSPC, h.zero, 512, size)
fails(errno.EINVAL, h.pread, 0, 0)
fails(errno.EINVAL, h.cache, 512, 0)
assert len(h.pread(512, size - 512)) == 512'
}

# Reads through one connection what another has written and flushed.
multi_conn() {
	timeout 60 nbdsh -c '
other = nbd.NBD()
h.connect_unix("'"$T"'/s")
other.connect_unix("'"$T"'/s")
for i in range(200):
    data = bytes([i]) * 3000
    h.pwrite(data, i * 1000)
    h.flush()
    assert other.pread(3000, i * 1000) == data
    other.pwrite(data[:10], 500000, nbd.CMD_FLAG_FUA)
    assert h.pread(10, 500000) == data[:10]'
}

read_only() {
	stop && start --read-only || return 1
	sh_ '
import errno
assert h.is_read_only()
h.set_strict_mode(0)
for f in (lambda: h.pwrite(b"1" * 512, 0), lambda: h.trim(512, 0), lambda: h.zero(512, 0)):
    try:
        f()
    except nbd.Error as e:
        assert e.errnum == errno.EPERM, e
    else:
        assert False
assert len(h.pread(512, 0)) == 512' && stop && start
}

# ---- copies ----

copies() {
	head -c $((40 * MIB + 1536)) /dev/urandom >data
	timeout 120 nbdcopy --connections=4 --requests=32 data "$URI" &&
		timeout 120 nbdcopy --connections=4 "$URI" back && cmp -n "$(stat -c %s data)" data back
}

qemu() {
	timeout 60 qemu-io -f raw \
		-c 'write -P 0xaa 513 100003' -c 'write -z 8k 64k' -c 'write -zu 1M 1M' \
		-c 'discard 2M 1M' -c 'write -f -P 0xbb 3M 512' -c flush \
		-c 'read -P 0xaa 513 7679' -c 'read -P 0 8k 64k' -c 'read -P 0xaa 73728 26788' \
		-c 'read -P 0 1M 1M' -c 'read -P 0xbb 3M 512' "$URI" | tee q
	[[ ${PIPESTATUS[0]} == 0 ]] && ! grep -i 'fail\|mismatch' q
}

# ---- standard input and output, a passed socket ----

on_standard_input() {
	timeout 60 nbdsh -c '
h.connect_command(["'"$PROGRAM"'", "serve", "-s", "--encryption-passphrase-file", "key",
                   "file:single"])
h.pwrite(b"pipe" * 50000, 12345)
h.flush()
assert h.pread(200000, 12345) == b"pipe" * 50000
assert len(h.pread(32 << 20, 1)) == 32 << 20
h.shutdown()'
}

# Pipes are no socketpair: they are written in smaller parts, and break with a signal.
on_pipes() {
	timeout 180 python3 - "$PROGRAM" <<-'PY'
		import struct, subprocess, sys, time
		PLACE = 20000007

		def start():
		    p = subprocess.Popen([sys.argv[1], "serve", "-s", "--encryption-passphrase-file", "key",
		                          "file:single"], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
		    assert p.stdout.read(18)[:16] == b"NBDMAGICIHAVEOPT"
		    p.stdin.write(struct.pack(">I", 3) + b"IHAVEOPT" + struct.pack(">II", 1, 0))
		    p.stdin.flush()
		    assert len(p.stdout.read(10)) == 10
		    return p

		def ask(p, kind, cookie, offset, length, data=b""):
		    p.stdin.write(struct.pack(">IHHQQI", 0x25609513, 0, kind, cookie, offset, length) + data)
		    p.stdin.flush()

		def answer(p, length=0):
		    magic, error, cookie = struct.unpack(">IIQ", p.stdout.read(16))
		    assert magic == 0x67446698 and error == 0, (magic, error)
		    return cookie, p.stdout.read(length)

		p = start()
		ask(p, 1, 1, PLACE, 300000, b"pipe" * 75000)
		assert answer(p)[0] == 1
		for i in range(20):
		    ask(p, 0, i, PLACE, 300000)
		time.sleep(0.2)
		for i in range(20):
		    assert answer(p, 300000)[1] == b"pipe" * 75000
		ask(p, 0, 5, 1, 32 << 20)
		assert len(answer(p, 32 << 20)[1]) == 32 << 20
		ask(p, 2, 0, 0, 0)
		assert p.wait(60) == 0

		# Nobody reads the answers any more.
		p = start()
		p.stdout.close()
		try:
		    for i in range(100):
		        ask(p, 0, i, 0, 300000)
		except BrokenPipeError:
		    pass
		code = p.wait(60)
		assert code == 0, code

		# It is told to stop while the client does not read.
		p = start()
		for i in range(100):
		    ask(p, 0, i, 0, 300000)
		time.sleep(0.2)
		p.terminate()
		code = p.wait(60)
		assert code == 0, code
	PY
}

passed_socket() {
	local pid rc=0
	type -P systemd-socket-activate >/dev/null || { echo "no systemd-socket-activate"; return 0; }
	systemd-socket-activate -l "$T/passed" -E RBDCRYPT_NBD_RUN_DIR="$RBDCRYPT_NBD_RUN_DIR" \
		-E TESTBED_TAGS="$TESTBED_TAGS" "$PROGRAM" serve --foreground "${KEY[@]}" file:single \
		2>server.log &
	pid=$!
	cleanup_fn end "$pid"
	wait_for 60 test -S passed || return 1
	timeout 60 nbdsh -u "nbd+unix:///?socket=$T/passed" -c '
assert h.pread(200000, 12345) == b"pipe" * 50000' || rc=1
	kill -TERM "$pid"
	wait "$pid" || { echo "exit status $?"; rc=1; }
	return $rc
}

# ---- ends in the middle ----

# writer: writes numbered blocks through 4 connections, flushes now and then, and notes what was
# flushed: "flushed UPTO" per line. Ends when the server does.
writer() {
	timeout 180 nbdsh -c '
import os, sys
hs = [h] + [nbd.NBD() for i in range(3)]
for x in hs:
    x.connect_unix("'"$T"'/s")
note = os.open("flushed", os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_APPEND)
n = 0
try:
    while True:
        for i in range(20):
            place = n % 12000
            hs[n % 4].pwrite(n.to_bytes(8, "little") * 625, place * 5000)
            n += 1
        hs[n % 3].flush()
        os.write(note, b"%d\n" % n)
except nbd.Error as e:
    print("ended at", n, e)
    sys.exit(0)'
}

has_flushed_enough() { (($(tail -qn 1 flushed 2>/dev/null || echo 0) > 100)); }

# Each place has a number that was flushed, or a later one.
check_flushed() {
	local upto
	upto=$(tail -n 1 flushed) || return 1
	echo "flushed up to $upto"
	((upto > 100)) || return 1
	sh_ "
upto = $upto
for place in range(min(12000, upto)):
    least = place + (upto - 1 - place) // 12000 * 12000
    data = h.pread(5000, place * 5000)
    n = int.from_bytes(data[:8], 'little')
    assert n >= least and n % 12000 == place, (place, n, least)
    # What was flushed is whole; what came later and was cut may be torn.
    assert n > least or data == n.to_bytes(8, 'little') * 625, place"
}

term_in_the_middle() {
	local pid begin
	writer >writer.log 2>&1 &
	pid=$!
	wait_for 60 has_flushed_enough && sleep 1
	begin=$SECONDS
	stop || return 1
	((SECONDS - begin < 25)) || { echo "it took $((SECONDS - begin)) s"; return 1; }
	wait "$pid" || { cat writer.log; return 1; }
	start && check_flushed
}

kill_in_the_middle() {
	local pid i
	for i in 1 2 3; do
		rm -f flushed
		writer >writer.log 2>&1 &
		pid=$!
		wait_for 60 has_flushed_enough && sleep 0.$((5 + i))
		kill -KILL "$server"
		wait "$server" 2>/dev/null
		wait "$pid" || { cat writer.log; return 1; }
		# The next one takes the place of the socket and the state that were left.
		start_over && check_flushed || return 1
	done
}

# What it prints is where its clients find it, whatever the name has in it.
names_of_all_kinds() {
	local name uri rc=0
	truncate -s "$MIB" bare
	for name in plain 'a b' 'a&b' 'a%20b' 'a#b' 'a?b=c' 'a+b' "a'b" 'a:b@c,d' $'\xc3\xbc'; do
		uri=$("$PROGRAM" serve --socket "$name" file:bare) || return 1
		echo "$uri"
		[[ $(timeout 30 nbdinfo --size "$uri") == "$MIB" ]] &&
			timeout 30 qemu-io -r -f raw -c 'read 0 512' "$uri" || rc=1
		"$PROGRAM" unmap file:bare || return 1
	done
	return $rc
}

fresh_disk
cp disk single
start || fail "no server"
run_case "size, flags and block sizes are announced" information
run_case "the export is listed" listing
run_case "the export has its name and the empty one" by_name
run_case "long names are told apart" by_long_names
run_case "structured replies" structured
run_case "simple replies" simple
run_case "base:allocation" allocation
run_case "errors" errors
run_case "several connections see each other's writes" multi_conn
run_case "nbdcopy there and back" copies
run_case "qemu-io" qemu
run_case "a read-only server" read_only
run_case "standard input and output" on_standard_input
run_case "pipes" on_pipes
run_case "a passed socket" passed_socket
run_case "a socket of any name" names_of_all_kinds
run_case "SIGTERM in the middle: what was flushed is there, nothing is left" term_in_the_middle
run_case "SIGKILL in the middle: what was flushed is there" kill_in_the_middle
run_case "it stops" stop
((failures == 0))
