#!/usr/bin/env bash
# SPDX-License-Identifier: GPL-2.0-or-later
# Copyright (C) 2026 the rbdcrypt-nbd authors
#
# Bad input: each is refused in one line that names what and where, with a hint where there is
# something to do, with its own exit status, and leaves nothing behind.
# test: heavy time=600

set -u
. "${BASH_SOURCE[0]%/*}/../lib/functions.sh"
. "${BASH_SOURCE[0]%/*}/../lib/cluster.sh"
requires rbd ceph ceph-osd cryptsetup nbdcopy python3
# It cannot see how Ceph's threads agree with one another, and takes it for races.
[[ ${SANITIZE:-} != *thread* ]] || skip "Ceph is not built for ThreadSanitizer"
program_on_cluster memstore cephx
failures=0

# refuse NAME STATUS PATTERN ARGUMENT...: PATTERN (extended) must be in the first line.
refuse() {
	local name=$1 status=$2 pattern=$3 rc why=
	shift 3
	timeout 60 "$PROGRAM" "$@" >"$T/out" 2>"$T/err" </dev/null
	rc=$?
	[[ $rc -eq $status ]] || why="exit status $rc, not $status"
	head -n 1 "$T/err" | grep -qE "^rbdcrypt-nbd: .*$pattern" || why+=" message"
	[[ $(wc -l <"$T/err") -le 2 ]] || why+=" too many lines"
	[[ $(wc -l <"$T/err") -lt 2 ]] || sed -n 2p "$T/err" | grep -q '^hint: ' || why+=" second line is no hint"
	[[ ! -s $T/out ]] || why+=" standard output"
	[[ -z $(find "$T/run" -name '*.json*' 2>/dev/null) ]] || why+=" state file left"
	[[ ! -e $T/s ]] || why+=" socket left"
	if [[ $why ]]; then
		echo "not ok $name"
		echo "	$why: $*"
		sed 's/^/	/' "$T/out" "$T/err"
		failures=$((failures + 1))
		rm -f "$T/s"
	else
		echo "ok $name"
	fi
}
# hints NAME TEXT: what was refused last says what to do about that.
hints() {
	if sed -n 2p "$T/err" | grep -qF -- "$2"; then
		echo "ok $1"
	else
		echo "not ok $1"
		sed 's/^/	/' "$T/err"
		failures=$((failures + 1))
	fi
}
# serve ARGUMENT...: the words before the options under test
S=(serve --socket "$T/s")
P=--encryption-passphrase-file

# ---- images: LUKS headers made quickly, and put there raw ----
printf 'correct horse' >"$T/key"
printf 'wrong' >"$T/wrong"
: >"$T/empty"
truncate -s 8388609 "$T/huge"
KDF=(--pbkdf pbkdf2 --pbkdf-force-iterations 1000)
truncate -s 32M "$T/luks2" "$T/cbc" "$T/plain"
cryptsetup luksFormat -q --type luks2 "${KDF[@]}" "$T/luks2" "$T/key" &&
	cryptsetup luksFormat -q --type luks1 --cipher aes-cbc-essiv:sha256 --key-size 256 \
		"${KDF[@]}" "$T/cbc" "$T/key" || fail "no headers"
cp "$T/luks2" "$T/damaged"
# Both copies of the JSON text, inside their checksums.
for at in 4200 20584; do
	printf 'XXXX' | dd of="$T/damaged" bs=1 seek=$at conv=notrunc status=none
done
for image in luks2 cbc plain damaged; do
	rbd --no-progress import --image-feature layering,exclusive-lock "$T/$image" "rbd/$image" || fail "no $image"
done
rbd --no-progress snap create rbd/luks2@s && rbd snap protect rbd/luks2@s && rbd clone rbd/luks2@s rbd/clone
rbd --no-progress snap create rbd/plain@s && rbd snap protect rbd/plain@s && rbd clone rbd/plain@s rbd/formatted
rbd create --size 32M --image-feature exclusive-lock,journaling rbd/journal
rbd create --size 32M rbd/old && rbd migration prepare rbd/old rbd/migrating
rbd create --size 4M rbd/tiny

# ---- words ----
refuse "no command" 1 'command'
refuse "unknown command" 1 'mapp' mapp rbd/plain
refuse "unknown option" 1 'sokcet' serve --sokcet "$T/s" rbd/plain
refuse "no image" 1 'SPEC|image' serve --socket "$T/s"
refuse "bad spec" 1 'rbd/plain@' "${S[@]}" rbd/plain@
refuse "bad number" 1 'connections' map --connections many rbd/plain
refuse "unknown format" 1 'encryption-format' "${S[@]}" $P "$T/key" --encryption-format luks3 rbd/luks2
refuse "formats without passphrases" 1 'encryption-format' "${S[@]}" --encryption-format luks2 rbd/luks2
refuse "nowhere to serve" 1 'socket' serve rbd/plain
refuse "no nbd device" 1 'sda' map --device /dev/sda rbd/plain
refuse "a path for a cluster" 1 "'\.\./x' is no name of a cluster" "${S[@]}" --cluster ../x rbd/plain
CEPH_ARGS='--cluster ../y' refuse "a path for a cluster in CEPH_ARGS" 1 "'\.\./y' is no name of a cluster" "${S[@]}" rbd/plain
refuse "socket path too long" 1 'socket' serve --socket "$T/$(printf '%0120d' 0)" rbd/plain


# ---- who may connect ----
refuse "an unknown user" 1 "allow-user: there is no user 'no-such'" "${S[@]}" --allow-user no-such rbd/plain
refuse "an unknown group" 1 "allow-group: there is no group 'no-such'" "${S[@]}" --allow-user root --allow-group no-such rbd/plain
refuse "an unknown owner" 1 "socket-owner: there is no user 'no-such'" "${S[@]}" --socket-owner no-such rbd/plain
refuse "an unknown group of the file" 1 "socket-group: there is no group 'no-such'" "${S[@]}" --socket-group no-such rbd/plain
refuse "a number that is nobody's" 1 'allow-user: 4294967295 is no number' "${S[@]}" --allow-user 4294967295 rbd/plain
refuse "everybody unknown" 1 "allow-user: user 'nobody' stands for everybody" "${S[@]}" --allow-user nobody rbd/plain
refuse "no user" 1 'allow-user: the value is empty' "${S[@]}" --allow-user '' rbd/plain
refuse "no file mode" 1 'socket-mode: "888" is no file mode' "${S[@]}" --socket-mode 888 rbd/plain
refuse "a list for standard input" 1 'single.*--allow-user exclude' serve --single --allow-user root rbd/plain
refuse "a list for a device" 1 'allow-user: of no use to map' map --allow-user root rbd/plain

# ---- passphrases ----
refuse "wrong passphrase" 2 "layer 1: rbd/luks2.*$T/wrong" "${S[@]}" $P "$T/wrong" rbd/luks2
refuse "missing passphrase file" 2 "$T/none: No such file" "${S[@]}" $P "$T/none" rbd/luks2
refuse "a directory for a passphrase file" 2 "$T: Is a directory" "${S[@]}" $P "$T" rbd/luks2
refuse "empty passphrase file" 2 "$T/empty is empty" "${S[@]}" $P "$T/empty" rbd/luks2
refuse "passphrase file over 8 MiB" 2 "$T/huge is larger" "${S[@]}" $P "$T/huge" rbd/luks2
refuse "too many passphrases" 1 '2 passphrase files.*rbd/luks2 has 1 layer' "${S[@]}" $P "$T/key" $P "$T/key" rbd/luks2
refuse "too many passphrases for a clone" 1 '3 passphrase files.*rbd/clone has 2 layers' \
	"${S[@]}" $P "$T/key" $P "$T/key" $P "$T/key" rbd/clone
refuse "wrong passphrase for the parent" 2 "layer 2: rbd/luks2@s.*$T/wrong" "${S[@]}" $P "$T/key" $P "$T/wrong" rbd/clone
refuse "a passphrase for a plain image" 10 "layer 1: rbd/plain has no LUKS header.*$T/key" "${S[@]}" $P "$T/key" rbd/plain
if [[ $EUID -ne 0 ]]; then
	chmod 0 "$T/wrong"
	refuse "unreadable passphrase file" 2 "$T/wrong: Permission denied" "${S[@]}" $P "$T/wrong" rbd/luks2
fi

# ---- headers ----
refuse "another format than asked for" 10 'layer 1: rbd/luks2 is luks2.*luks1' "${S[@]}" $P "$T/key" --encryption-format luks1 rbd/luks2
refuse "damaged header" 10 'rbd/damaged' "${S[@]}" $P "$T/key" rbd/damaged
refuse "a cipher that is not allowed" 10 'rbd/cbc.*cipher' "${S[@]}" $P "$T/key" rbd/cbc
refuse "a header that is larger than the image" 10 'rbd/tiny' "${S[@]}" $P "$T/key" rbd/tiny

# A formatted clone as Reef makes it: a header of its own, with the clone's magic, over a parent
# without one. Written raw, through us.
python3 - "$T/luks2" "$T/header" <<'END' || fail "no header"
import sys
head = bytearray(open(sys.argv[1], "rb").read(16 << 20))
head[0:4] = b"RBDL"
head[16384:16388] = b"LDBR"
open(sys.argv[2], "wb").write(head)
END
"$PROGRAM" serve --socket "$T/raw" rbd/formatted >/dev/null &&
	nbdcopy "$T/header" "nbd+unix:///?socket=$T/raw" && "$PROGRAM" unmap rbd/formatted ||
	fail "no formatted clone"
rbd feature disable rbd/formatted exclusive-lock || fail "the lock cannot be taken away"
refuse "a formatted clone without exclusive lock" 7 'rbd/formatted has no exclusive-lock feature' "${S[@]}" $P "$T/key" rbd/formatted
refuse "a formatted clone, raw" 7 'rbd/formatted is a formatted clone.*parent' "${S[@]}" rbd/formatted
"$PROGRAM" serve --socket "$T/raw" --read-only rbd/formatted >/dev/null && "$PROGRAM" unmap "$T/raw" ||
	fail "a formatted clone cannot be read raw"
refuse "a plain image, strictly" 10 'layer 1: rbd/plain is plaintext' "${S[@]}" --encryption-strict rbd/plain
refuse "a plaintext ancestor, strictly" 10 'layer 2: rbd/plain@s is plaintext' "${S[@]}" $P "$T/key" --encryption-strict rbd/formatted

# ---- images ----
refuse "no such image" 4 'nosuch' "${S[@]}" rbd/nosuch
refuse "no such pool" 4 'pool.*nopool|nopool.*pool' "${S[@]}" nopool/plain
refuse "no such namespace" 4 'nonamespace' "${S[@]}" rbd/nonamespace/plain
refuse "no such snapshot" 4 'nosnap' "${S[@]}" rbd/plain@nosnap
refuse "no such snapshot number" 4 '4711' "${S[@]}" --snap-id 4711 rbd/plain
refuse "journaling" 7 'rbd/journal.*journaling' "${S[@]}" rbd/journal
refuse "migration under way" 7 'migrati' "${S[@]}" rbd/migrating
refuse "no such file" 4 "$T/nofile" "${S[@]}" "file:$T/nofile"

# ---- clusters ----
refuse "configuration file missing" 9 "$T/none.conf" "${S[@]}" -c "$T/none.conf" rbd/plain
printf 'this is no [configuration\n\0' >"$T/bad.conf"
refuse "configuration file bad" 9 "$T/bad.conf" "${S[@]}" -c "$T/bad.conf" rbd/plain
sed 's/^\( *mon.host *=\).*/\1 v2:127.0.0.1:1/' "$T/cluster/ceph.conf" >"$T/away.conf"
refuse "cluster away" 9 'cluster|mon' "${S[@]}" -c "$T/away.conf" --open-timeout 3 rbd/plain
refuse "no keyring" 2 'no key for client.admin' "${S[@]}" --keyring "$T/none" rbd/plain
refuse "no keyfile" 2 "no key for client.vm in $T/nokey" "${S[@]}" --id vm --keyring "$T/none" --keyfile "$T/nokey" rbd/plain
refuse "a damaged keyfile" 9 'client.vm' "${S[@]}" --id vm --keyfile "$T/key" rbd/plain
hints "which keyfile is damaged" "damaged key in $T/key "
ceph auth get-key client.admin >"$T/admin.key"
refuse "another user's keyfile" 2 'client.vm refused: wrong key' "${S[@]}" --id vm "--keyfile=$T/admin.key" rbd/plain
hints "which keyfile is another user's" "key is from $T/admin.key"
refuse "unknown user" 2 'nobody' "${S[@]}" --id nobody rbd/plain
ceph auth get-or-create client.blind mon 'profile rbd' osd 'allow r pool=other' -o "$T/blind.keyring"
refuse "no permission on the pool" 2 'rbd/plain' "${S[@]}" --id blind --keyring "$T/blind.keyring" rbd/plain
cluster_osd_pause "$T/cluster"
# What librbd holds for the call that was given up is no leak of ours.
ASAN_OPTIONS=${ASAN_OPTIONS:-}:detect_leaks=0 refuse "OSDs do not answer" 6 'rbd/plain' "${S[@]}" --open-timeout 6 rbd/plain
cluster_osd_resume "$T/cluster"

# ---- taken ----
# With a header and no passphrase: that it is served raw is said of the first, and not of the second.
"$PROGRAM" serve --socket "$T/first" rbd/luks2 >/dev/null 2>"$T/err" || fail "cannot serve"
grep -q 'rbd/luks2: .*the raw image is served' "$T/err" || fail "it is not said that the image is served raw"
timeout 60 "$PROGRAM" serve --socket "$T/s" rbd/luks2 >"$T/out" 2>"$T/err"
if [[ $? -eq 5 ]] && grep -q "rbd/luks2.*$T/first" "$T/err" && [[ $(wc -l <"$T/err") -le 2 ]] && [[ ! -e $T/s ]]; then
	echo "ok second service of one image"
else
	echo "not ok second service of one image"
	sed 's/^/	/' "$T/err"
	failures=$((failures + 1))
fi
"$PROGRAM" unmap rbd/luks2 || fail "cannot stop"
: >"$T/s.file"
cat >"$T/passed" <<END
#!/bin/bash
export LISTEN_PID=\$\$ LISTEN_FDS=1
exec "$PROGRAM" "\$@" 3</dev/null
END
chmod +x "$T/passed"
PROGRAM=$T/passed refuse "a passed descriptor that does not listen" 1 'descriptor 3.*no listening' serve rbd/plain
PROGRAM=$T/passed refuse "a socket besides a passed one" 1 'socket: a socket was passed already' serve --socket "$T/s" rbd/plain
PROGRAM=$T/passed refuse "a mode for a passed socket" 1 'socket-mode.*was passed' serve --socket-mode 0660 rbd/plain
# Over TCP there are no users.
cat >"$T/passed" <<END
#!/usr/bin/python3
import os, socket, sys
s = socket.create_server(("127.0.0.1", 0))
os.dup2(s.fileno(), 3)
os.set_inheritable(3, True)
os.environ.update(LISTEN_PID=str(os.getpid()), LISTEN_FDS="1")
os.execv("$PROGRAM", ["$PROGRAM"] + sys.argv[1:])
END
PROGRAM=$T/passed refuse "a list for a TCP socket" 1 'descriptor 3.*no unix socket' serve --allow-user root rbd/plain
refuse "a file in the socket's place" 5 "$T/s.file" serve --socket "$T/s.file" rbd/plain
refuse "no folder for the socket" 4 "$T/nodir/s" serve --socket "$T/nodir/s" rbd/plain
printf '#!/bin/bash\nexec "%s" "$@" >/dev/full\n' "$PROGRAM" >"$T/full"
printf '#!/bin/bash\nexec "%s" "$@" >&-\n' "$PROGRAM" >"$T/closed"
chmod +x "$T/full" "$T/closed"
for c in --version "list --json" "serve --socket $T/s rbd/plain"; do
	# shellcheck disable=SC2086
	PROGRAM=$T/full refuse "no space for what ${c%% *} says" 1 'output cannot be written: No space left' $c
	# shellcheck disable=SC2086
	PROGRAM=$T/closed refuse "nowhere to say it, ${c%% *}" 1 'output cannot be written: Bad file' $c
done
PROGRAM=$T/closed refuse "one client on a closed output" 1 'single: standard input and output are not open' serve --single rbd/plain
refuse "no folder for the log" 1 "log file $T/nodir/log: No such file" "${S[@]}" --log-file "$T/nodir/log" rbd/plain

# ---- what the system does not give ----
# That no file may be so large says nothing of the header.
printf '#!/bin/bash\nulimit -f 1000 && exec "%s" "$@"\n' "$PROGRAM" >"$T/short"
chmod +x "$T/short"
PROGRAM=$T/short refuse "a limit for files" 3 'unlock process: File too large' "${S[@]}" $P "$T/key" rbd/luks2

# with_few N: a program that may open no more than N files
with_few() {
	printf '#!/bin/bash\nulimit -n %d && exec "%s" "$@"\n' "$1" "$PROGRAM" >"$T/few"
	chmod +x "$T/few"
}
# It fails in three places.
for n in 8 10 14; do
	with_few $n
	PROGRAM=$T/few refuse "$n open files are not enough" 3 'Too many open files' "${S[@]}" $P "$T/key" "file:$T/luks2"
done
# Root's own folder, and no root who may write to it all the same.
mkdir -m 0555 "$T/ours"
printf '#!/bin/bash\n%s "%s" "$@"\n' "$([[ $EUID -ne 0 ]] || echo setpriv --bounding-set -dac_override,-dac_read_search)" \
	"$PROGRAM" >"$T/meek"
chmod +x "$T/meek"
PROGRAM=$T/meek refuse "no permission for the socket's folder" 2 "$T/ours/s: Permission denied" \
	serve --socket "$T/ours/s" rbd/plain
PROGRAM=$T/meek refuse "no permission for the log's folder" 2 "$T/ours/log: Permission denied" \
	"${S[@]}" --log-file "$T/ours/log" rbd/plain
PROGRAM=$T/meek refuse "no permission for the run directory" 2 "$T/ours/run: .*Permission denied" \
	"${S[@]}" --run-dir "$T/ours/run" rbd/plain
refuse "unmap of what is not mapped" 4 'rbd/plain is not mapped' unmap rbd/plain
refuse "detach of what is not mapped" 4 'is not mapped' detach rbd/plain
if [[ ! -e /sys/module/nbd ]]; then
	refuse "kernel without nbd" 8 'nbd' map rbd/plain
fi
cluster_stop "$T/cluster"
rm -rf "$T/cluster"
nothing_left "$T/cluster" || failures=$((failures + 1))
[[ $failures -eq 0 ]] || fail "$failures claims do not hold"
