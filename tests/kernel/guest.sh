# shellcheck shell=bash
# SPDX-License-Identifier: GPL-2.0-or-later
# Copyright (C) 2026 the rbdcrypt-nbd authors
#
# guest.sh: what the tests on a real nbd driver share. A script that sources it runs twice: on
# the machine it boots a guest with itself as the command (guest_boot), and in there, as root of
# a kernel of its own, it starts a cluster, makes its claims, and says "ok" or "not ok" to each.
#
# A claim is a function without arguments that ends at the first command that fails. It runs in a
# subshell, so claims tell each other nothing but by what is mapped and written. What it printed
# is shown when it failed, with the line, the daemons' log and the kernel's.
#
# KERNEL_CLAIMS is a pattern of the claims to make, for those who look for a fault.

# Paths and names of ours have no blanks.
# shellcheck disable=SC2086
# shellcheck source=tests/lib/uml.sh
. "${BASH_SOURCE[0]%/*}/../lib/uml.sh"
# shellcheck source=tests/lib/cluster.sh
. "${BASH_SOURCE[0]%/*}/../lib/cluster.sh"

KERNEL_DIR=$(cd "${BASH_SOURCE[0]%/*}" && pwd -P)
BUILD=$(realpath "${O:-${KERNEL_DIR%/tests/kernel}/build}")
PROGRAM=$(realpath "${RBDCRYPT_NBD:-$BUILD/rbdcrypt-nbd}")
# shellcheck disable=SC2034 # for those who source this
TOOLS=$BUILD/tests/kernel # the C programs of this folder

in_guest() { [[ ${KERNEL_GUEST:-} ]]; }

# guest_boot SECONDS [UML_OPTION]...: runs this script in a guest, and ends with its status.
guest_boot() {
	local limit=$1 result rc
	shift
	requires_root
	[[ -x $PROGRAM ]] || fail "no program $PROGRAM"
	tmpdir result
	uml_run --time "$limit" --result "$result" "$@" env KERNEL_GUEST=1 O="$BUILD" \
		RBDCRYPT_NBD="$PROGRAM" KERNEL_CLAIMS="${KERNEL_CLAIMS:-}" LONG="${LONG:-}" \
		TIMES="${TIMES:-}" bash "$KERNEL_DIR/${0##*/}"
	rc=$?
	case $rc in
	0 | 1 | 77) ;;
	*)
		[[ ! -s $result/claim ]] || echo "not ok $(<"$result/claim") # it did not end"
		tail -n 5 "$result/console" >&2
		;;
	esac
	exit $rc
}

# ---- in the guest ----

T=/run/t # everything of the test is in here, in memory

# guest_cluster memstore|bluestore [none|cephx]
guest_cluster() {
	mkdir -p $T/mnt $T/run
	local start=$SECONDS
	if [[ $1 == bluestore ]]; then
		# Bluestore wants direct IO, which a file system in memory does not have.
		modprobe loop && truncate -s 24G $T/disk && mkdir -p $T/cluster || return 1
		mkfs.ext4 -q -E nodiscard,lazy_itable_init=1 $T/disk || return 1
		mount -o loop $T/disk $T/cluster || return 1
	fi
	cluster_start $T/cluster "$1" "${2:-none}" || return 1
	# In files that others could read they would be refused.
	(umask 077 && printf 'first secret' >$T/pass && printf 'another secret\n' >$T/other)
	say "a cluster on $1 after $((SECONDS - start)) s"
}

nbd() { "$PROGRAM" "$@"; }
map() { nbd map --log-file $T/log "$@"; }
# With the passphrase of all our images.
map_luks() { map -o encryption-passphrase-file=$T/pass "$@"; }
attach_luks() {
	nbd attach --log-file $T/log -o encryption-passphrase-file=$T/pass "$@"
}

# encrypted_image NAME SIZE [luks1|luks2 [OPTION]...]: as rbd makes them. Opening one takes the two
# seconds that its header was told to cost.
encrypted_image() {
	rbd create --size "$2" "$1" && rbd encryption format "$1" "${3:-luks2}" $T/pass "${@:4}"
}

# quick_image NAME SIZE: the same with a header that opens at once.
quick_image() {
	rm -f $T/image
	truncate -s "$2" $T/image &&
		cryptsetup luksFormat -q --type luks2 --cipher aes-xts-plain64 --key-size 512 \
			--sector-size 4096 --pbkdf pbkdf2 --pbkdf-force-iterations 1000 \
			$T/image $T/pass &&
		rbd import --no-progress $T/image "$1"
}

# refused STATUS TEXT CMD...: CMD fails with that status and says the text on stderr, in one line
# with our name, and at most one hint.
refused() {
	local status=$1 text=$2 rc=0 out
	shift 2
	out=$("$@" 2>&1 >$T/refused.out) || rc=$?
	printf '%s\n' "$out" | tee $T/refused.err
	[[ $rc == "$status" ]] || { echo "status $rc, not $status"; return 1; }
	[[ $out == *"$text"* ]] || { echo "it does not say: $text"; return 1; }
	[[ $(grep -c . <<<"$out") -le 2 && $out == r*bd*nbd:* ]] || { echo "not one line"; return 1; }
	[[ ! -s $T/refused.out ]] || { echo "on stdout:"; cat $T/refused.out; return 1; }
}

# same WHAT WANTED GOT
same() {
	[[ $2 == "$3" ]] || { echo "$1 is '$3', should be '$2'"; return 1; }
}

# fails CMD...: unlike "!", ends a claim when it does not.
fails() {
	! "$@" || { echo "it works: $*"; return 1; }
}

# sysfs DEVICE FILE
sysfs() { cat "/sys/block/${1##*/}/$2"; }
bytes_of() { echo $(($(sysfs "$1" size) * 512)); }
is_connected() { [[ -e /sys/block/${1##*/}/pid ]]; }

# The fields of list, as jq sees them.
listed() { nbd list --all --format json | jq -r "$1"; }
daemon_of() { listed ".[] | select(.device == \"$1\") | .id"; }

# Every trace of ours that a test could leave.
left_behind() {
	local file
	for file in /sys/block/nbd*/pid; do
		[[ ! -e $file ]] || echo "connected: $file"
	done
	pgrep -x -a rbdcrypt-nbd
	pgrep -x -a rbd-nbd
	find "${RBDCRYPT_NBD_RUN_DIR:-/run/rbdcrypt-nbd}" -name '*.json' 2>/dev/null
	grep ' /dev/nbd\| /run/t/mnt' /proc/self/mountinfo
	return 0
}
is_clean() { [[ -z $(left_behind) ]]; }
# Udev looks at each device that was unmapped, and the kernel gives nobody one that is open.
settled() {
	wait_for 30 is_clean || { left_behind; return 1; }
	udevadm settle --timeout 20
}

# After a claim that failed: the next one finds nothing of it.
sweep() {
	local dev pid
	umount -l $T/mnt 2>/dev/null
	for dev in /sys/block/nbd*/pid; do
		[[ ! -e $dev ]] || timeout 20 "$PROGRAM" unmap --force --reattach-timeout 5 \
			"/dev/$(basename "${dev%/pid}")" 2>/dev/null
	done
	for pid in $(pgrep -x rbdcrypt-nbd) $(pgrep -x rbd-nbd); do
		kill -KILL "$pid" 2>/dev/null
	done
	rm -f /run/rbdcrypt-nbd/*.json /run/rbdcrypt-nbd/control
	wait_for 30 is_clean
}

_claim_failed() { # LINE COMMAND
	local rc=$?
	echo "line $1: $2: $rc" >&2
}

# What a claim needs at most on a busy machine. One that hangs, hangs in the kernel, as a rule.
CLAIM_SECONDS=300

_claim_context() {
	sed 's/^/#   /' $T/claim
	left_behind | sed 's/^/# left:   /'
	tail -n 25 $T/log | sed 's/^/# daemon: /'
	dmesg | tail -n 15 | sed 's/^/# kernel: /'
}

# It may be stuck in a call that no signal ends, so the guest ends.
_claim_hangs() { # NAME
	echo "not ok $1 # it did not end in $CLAIM_SECONDS s"
	_claim_context
	ps --ppid 2 -p 2 --deselect -o pid,ppid,stat,wchan:24,args | sed 's/^/# process: /'
	exit 1
}

# claim NAME: the function of that name, with underscores.
claim() {
	local name=$1 start=${EPOCHREALTIME/[.,]/} rc timer took
	[[ ! ${KERNEL_CLAIMS:-} || $name =~ $KERNEL_CLAIMS ]] || return 0
	echo "$name" >"${RESULT:?}/claim"
	: >$T/log
	dmesg -C
	(
		set -eE
		trap '_claim_failed "$LINENO" "$BASH_COMMAND"' ERR
		"${name//-/_}"
	) >$T/claim 2>&1 &
	rc=$!
	trap '_claim_hangs "$name"' USR1
	(sleep $CLAIM_SECONDS && kill -USR1 $$) 2>/dev/null &
	timer=$!
	wait $rc
	rc=$?
	# A quick claim may end before the timer sleeps.
	until pkill -P $timer || ! kill -0 $timer 2>/dev/null; do
		sleep 0.01
	done
	wait $timer 2>/dev/null
	took=$(((${EPOCHREALTIME/[.,]/} - start) / 100000))
	if [[ $rc == 0 ]]; then
		echo "ok $name # $((took / 10)).$((took % 10)) s"
		return
	fi
	echo "not ok $name # $((took / 10)).$((took % 10)) s"
	_claim_context
	BAD=1
	sweep
}

# The end of a script in the guest.
guest_end() { exit "${BAD:-0}"; }
