#!/bin/bash
# SPDX-License-Identifier: GPL-2.0-or-later
# Copyright (C) 2026 the rbdcrypt-nbd authors
#
# selftest.sh: the test bed, tested. Takes names or parts of names of its tests; with none,
# all of them. About three minutes on two processors.

# The tests are called by name; the guest expands what is in single quotes.
# shellcheck disable=SC2317,SC2016,SC2015
set -u
# shellcheck source=tests/lib/trixie.sh
. "$(dirname "${BASH_SOURCE[0]}")/trixie.sh"
# shellcheck source=tests/lib/cluster.sh
. "$(dirname "${BASH_SOURCE[0]}")/cluster.sh"
# shellcheck source=tests/lib/uml.sh
. "$(dirname "${BASH_SOURCE[0]}")/uml.sh"

# A script that sources the library, as somebody else's process.
script() { bash -c "set -u; . $LIB_DIR/cluster.sh; . $LIB_DIR/uml.sh; $1"; }
status() { "$@" >/dev/null 2>&1; echo $?; }
equal() { [[ $1 == "$2" ]] || fail "${3:-}: $1, not $2"; }

# ---- functions.sh ----

functions_missing_command_is_a_skip() {
	equal "$(status script 'requires sh no-such-command')" 77
	equal "$(status script 'requires sh')" 0
}

functions_hooks_run_on_exit_and_signals() {
	local how want
	tmpdir dir
	for how in 'exit 3':3 'kill -TERM $$':143 'kill -HUP $$':129 'kill -INT $$':130 'false':1; do
		want=${how##*:}
		equal "$(status script "cleanup_fn touch $dir/hook; ${how%:*}")" "$want" "$how"
		rm "$dir/hook" || fail "no hook after $how"
	done
}

functions_hooks_of_a_subshell_run_at_its_end() {
	equal "$(script 'cleanup_fn echo outer; (cleanup_fn echo inner; cleanup_fn echo in); echo after' |
		tr '\n' ' ')" "in inner after outer "
}

functions_tmpdir_is_removed() {
	local kept
	kept=$(script 'tmpdir d; mkdir $d/a; echo $d')
	[[ $kept && ! -e $kept ]] || fail "$kept is left"
}

functions_free_ports_differ() {
	local i ports
	ports=$(for ((i = 0; i < 20; i++)); do free_port; done | sort -u | wc -l)
	equal "$ports" 20
}

functions_leftovers_are_seen() {
	equal "$(status script 'detached sleep 60; sleep 0.1; nothing_left; rc=$?
		kill $DETACHED_PID; exit $rc')" 1
	equal "$(status script 'nothing_left /proc')" 1
	equal "$(status script 'nothing_left /no/such/folder')" 0
}

functions_serve_a_careful_script() {
	tmpdir dir
	script "set -eo pipefail
		cluster_start $dir/c memstore
		cluster_osd_kill $dir/c
		cluster_osd_start $dir/c
		cluster_stop $dir/c
		detached true
		free_port >/dev/null
		touch $dir/end" || fail "it ended early"
	[[ -e $dir/end ]] || fail "no end"
}

functions_process_lives_until_its_last_thread_ends() {
	/usr/bin/python3 -c 'import ctypes, threading, time
threading.Thread(target=time.sleep, args=(60,)).start()
ctypes.CDLL(None).pthread_exit(None)' &
	wait_for 10 grep -q '^State:.*zombie' "/proc/$!/status" || fail "its first thread lives"
	alive $! || fail "it is taken for dead"
	kill -KILL $!
	wait_for 10 gone $! || fail "it is taken for alive"
	wait $! 2>/dev/null
}

functions_wait_for_gives_up() {
	equal "$(status wait_for 1 false)" 1
	equal "$(status wait_for 1 true)" 0
}

# ---- cluster.sh ----

use_cluster() {
	head -c 8M /dev/urandom >"$dir/data"
	rbd import --no-progress "$dir/data" image || fail "no import"
	rbd resize --no-progress --size 12M image
	truncate -s 12M "$dir/data"
	[[ $(rbd du image 2>/dev/null) == *' 8 MiB'* ]] || fail "no accounting"
	has_data rbd || fail "other data"
}

has_data() { # CMD...
	timeout 30 "$@" export --no-progress image - | cmp - "$dir/data"
}

cluster_of() { # STORE AUTH
	tmpdir dir
	cluster_start "$dir/c" "$1" "$2" || fail "no cluster"
	use_cluster
	equal "$(rbd --id vm ls)" image
	cluster_stop "$dir/c" || fail "no stop"
}
cluster_memstore_none() { cluster_of memstore none; }
cluster_memstore_cephx() { cluster_of memstore cephx; }
cluster_bluestore_none() { cluster_of bluestore none; }
cluster_bluestore_cephx() { cluster_of bluestore cephx; }

cluster_cephx_refuses_a_wrong_key() {
	tmpdir dir
	cluster_start "$dir/c" memstore cephx || fail "no cluster"
	sed -i 's/key = .*/key = AQBXqmRm8CYTIBAAkNLBOwRxPfnBnG5xTGxGOQ==/' \
		"$dir/c/ceph.client.vm.keyring"
	equal "$(status timeout 20 rbd --id vm ls)" 13
}

osd_killed_and_started() { # STORE
	tmpdir dir
	cluster_start "$dir/c" "$1" || fail "no cluster"
	use_cluster
	cluster_osd_kill "$dir/c" || fail "no kill"
	equal "$(status timeout 1 rbd export image -)" 124 "export without an OSD"
	cluster_osd_start "$dir/c" || fail "no start"
	has_data rbd || fail "other data"
}
cluster_memstore_osd_is_killed_and_started() { osd_killed_and_started memstore; }
cluster_bluestore_osd_is_killed_and_started() { osd_killed_and_started bluestore; }

cluster_osd_is_paused_and_resumed() {
	tmpdir dir
	cluster_start "$dir/c" || fail "no cluster"
	cluster_osd_pause "$dir/c"
	rbd create --size 1M image &
	equal "$(status wait_for 2 gone $!)" 1 "create in the pause"
	cluster_osd_resume "$dir/c"
	wait $! || fail "no create after the pause"
}

cluster_three_start_at_once() {
	local i pids=()
	for i in 1 2 3; do
		script 'tmpdir d; cluster_start $d/c && rbd create --size 1M a' &
		pids+=($!)
	done
	for i in "${pids[@]}"; do
		wait "$i" || fail "one did not start"
	done
}

cluster_of_a_killed_script_ends() {
	tmpdir dir
	script "cluster_start $dir/c; kill -KILL \$\$" 2>/dev/null
	wait_for 5 _cluster_none "$dir/c" || fail "daemons left"
}

cluster_of_a_removed_folder_ends() {
	tmpdir dir
	"$LIB_DIR/cluster" start --keep "$dir/c" >/dev/null || fail "no cluster"
	rm -rf "$dir/c" 2>/dev/null	# the mon is still writing in it
	wait_for 5 _cluster_none "$dir/c" || fail "daemons left"
}

cluster_by_hand_ends_with_its_owner() {
	tmpdir dir
	sleep 60 &
	"$LIB_DIR/cluster" start --owner $! "$dir/c" >"$dir/env" || fail "no cluster"
	# shellcheck source=/dev/null
	(. "$dir/env" && use_cluster)
	kill $!
	wait_for 5 _cluster_none "$dir/c" || fail "daemons left"
}

cluster_needs_no_host_name() {
	requires_root
	tmpdir dir
	LIB_DIR=$LIB_DIR unshare --uts bash -c 'echo "(none)" >/proc/sys/kernel/hostname
		. "$LIB_DIR/cluster.sh"; cluster_start "$1" && rbd create --size 1M a' bash "$dir/c" ||
		fail "no cluster"
}

# ---- uml.sh ----

# uml_run, or a skip.
guest() {
	uml_run "$@"
	local rc=$?
	[[ $rc -ne 77 ]] || exit 77
	return "$rc"
}

uml_output_and_status_come_back() {
	tmpdir dir
	equal "$(guest sh -c 'echo out; echo "an error" >&2; exit 7' 2>"$dir/err"; echo $?)" $'out\n7'
	grep -qx 'an error' "$dir/err" || fail "no stderr"
}

uml_guest_has_what_tests_need() {
	guest --nbds 5 bash -c '
		set -eux
		[[ -b /dev/nbd4 && ! -e /dev/nbd5 ]]
		genl ctrl list | grep -q "Name: nbd"
		grep -qw aes /proc/cpuinfo
		modprobe dm-crypt
		dmsetup create probe --table "0 8 zero"
		[[ -L /dev/mapper/probe ]]	# made by udev
		udevadm settle
		udevadm info /dev/nbd0 | grep -q USEC_INITIALIZED
		[[ $(hostname) == testbed && $(id -u) == 0 ]]
		ip addr show lo | grep -q UP
	' >/dev/null 2>&1 || fail "something is missing"
}

uml_machine_keeps_the_result_folder_only() {
	tmpdir dir
	guest --result "$dir/r" sh -c 'touch /usr/uml-was-here /tmp/uml-was-here &&
		rm /etc/debian_version && echo kept >$RESULT/kept' || fail "no write in the guest"
	[[ ! -e /usr/uml-was-here && ! -e /tmp/uml-was-here && -e /etc/debian_version ]] ||
		fail "the machine was hurt"
	equal "$(<"$dir/r/kept")" kept
}

uml_time_limit_ends_it() {
	equal "$(guest --time 5 sleep 100 2>/dev/null; echo $?)" 124
}

guest_of() { [[ $(pgrep -f "uml_dir=$1") ]]; }
no_guest_of() { ! guest_of "$1"; }

uml_of_a_killed_script_ends() {
	tmpdir dir
	_uml_kernel || exit 77
	TMPDIR=$dir bash -c '. "$0/uml.sh"; uml_run sleep 100' "$LIB_DIR" >/dev/null 2>&1 &
	wait_for 10 guest_of "$dir" || fail "no guest"
	sleep 1
	kill -KILL $!
	wait $! 2>/dev/null
	wait_for 10 no_guest_of "$dir" || fail "guest left"
}

# The whole chain, with the peer.
uml_cluster_and_rbd_nbd_work_in_the_guest() {
	guest bash -c '
		set -eu
		. "$1/cluster.sh"
		requires rbd-nbd
		tmpdir dir
		cluster_start "$dir/c" memstore cephx
		say "cluster in the guest: $SECONDS s"
		((SECONDS < 60))
		rbd create --size 64M image
		echo secret >"$dir/pass"
		rbd encryption format image luks1 "$dir/pass"
		rbd-nbd map image --encryption-format luks1 --encryption-passphrase-file "$dir/pass"
		mkfs.ext4 -q /dev/nbd0
		mkdir "$dir/mnt"
		mount /dev/nbd0 "$dir/mnt"
		dd if=/dev/zero of="$dir/mnt/file" bs=1M count=4 oflag=direct 2>/dev/null
		umount "$dir/mnt"
		rbd-nbd unmap /dev/nbd0
	' bash "$LIB_DIR" || fail "see above: $?"
}

# ---- trixie.sh ----

tree() {
	trixie_root || exit 77
}

reef_formats_a_clone_in_an_older_cluster() {
	tree
	tmpdir dir
	local other=$REEF_ROOT
	REEF_ROOT='' cluster_start "$dir/c" memstore cephx || fail "no cluster"
	REEF_ROOT=$other
	echo first >"$dir/1"
	echo second >"$dir/2"
	rbd create --size 64M parent &&
		reef rbd encryption format parent luks2 "$dir/1" &&
		rbd snap create --no-progress parent@s && rbd snap protect parent@s &&
		rbd clone parent@s child || fail "no clone"
	reef rbd encryption format child luks2 "$dir/2" || fail "no format"
	# Growing it needs both passphrases.
	reef rbd resize --no-progress --size 80M child --encryption-passphrase-file "$dir/2" \
		--encryption-passphrase-file "$dir/1" || fail "no load"
}

reef_daemons_serve_both_releases() {
	tree
	tmpdir dir
	cluster_start "$dir/c" bluestore cephx || fail "no cluster"
	[[ $(ceph versions) == *18.2* ]] || fail "not Reef"
	use_cluster
	equal "$(reef rbd --id vm ls)" image
	cluster_osd_kill "$dir/c"
	cluster_osd_start "$dir/c" || fail "no OSD"
	has_data "$LIB_DIR/reef" rbd || fail "other data"
}

reef_leaves_no_mount() {
	tree
	equal "$(reef sh -c 'cat /etc/debian_version' | cut -d. -f1)" 13
	equal "$(status reef sh -c 'exit 5')" 5
	grep -q " $REEF_ROOT" /proc/self/mountinfo && fail "mounts"
	[[ -z $(ls -A "$REEF_ROOT/proc") ]] || fail "a mount in the tree"
}

reef_tree_boots_as_guest() {
	tree
	[[ $(guest --root "$REEF_ROOT" sh -c 'rbd-nbd --version; ls -d "$1"' sh "$LIB_DIR") == \
		*18.2*"$LIB_DIR" ]] || fail "no Reef in the guest"
}

reef_tree_boots_systemd_and_shuts_down_in_order() {
	tree
	tmpdir dir
	cat >"$dir/prepare" <<-'END'
		cat >/etc/systemd/system/probe.service <<-UNIT
			[Service]
			Type=oneshot
			RemainAfterExit=yes
			ExecStart=/bin/true
			ExecStop=/bin/sh -c "echo stopped >$RESULT/probe"
		UNIT
	END
	equal "$(guest --root "$REEF_ROOT" --systemd --result "$dir" sh -c 'systemctl start probe
		systemctl is-system-running --wait')" running
	equal "$(<"$dir/probe")" stopped
}

# ---- run ----

# Of what is defined here, that which starts like a file's name and is not a helper.
tests=$(declare -F | sed -n 's/^declare -f //p' | grep -E '^(functions|cluster|uml|reef)_' |
	grep -vxE 'cluster_(of|start|stop|env|osd_(kill|start|pause|resume))|uml_run')
bad=0
for name in $tests; do
	[[ $# -eq 0 || $name =~ ($(IFS='|'; echo "$*")) ]] || continue
	start=${EPOCHREALTIME/[.,]/}
	(
		"$name"
		exit 0
	)
	rc=$?
	[[ $rc != 0 ]] || nothing_left || rc=1
	case $rc in
	0) word=ok ;;
	77) word=skip ;;
	*) word=FAIL bad=1 ;;
	esac
	printf '%-4s %6.1f s  %s\n' $word \
		"$(((${EPOCHREALTIME/[.,]/} - start) / 100000))e-1" "${name//_/-}"
done
exit $bad
