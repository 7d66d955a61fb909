# shellcheck shell=bash
# SPDX-License-Identifier: GPL-2.0-or-later
# Copyright (C) 2026 the rbdcrypt-nbd authors
#
# uml.sh: a command run as root on a real kernel with the nbd driver, which is an ordinary
# process of this machine (User Mode Linux). For correctness and for figures taken side by
# side: one processor, and slow system calls.
#
# What the command writes stays in the guest's memory, except in its $RESULT folder.

# shellcheck source=tests/lib/functions.sh
. "$(dirname "${BASH_SOURCE[0]}")/functions.sh"

_uml_usage() {
	say "usage: uml_run [--root DIR] [--mem 2G] [--time SECONDS] [--result DIR] [--nbds 8]" \
		"[--no-udev | --systemd] CMD [ARG]..."
	return 2
}

# uml_run [OPTION]... CMD [ARG]...: its output is ours, and so is its exit status; else
# 77 there is no such kernel here, 124 time was over, 125 the guest died.
#   --root DIR     another root than the machine's own; the repository is shown in it
#   --mem SIZE     2G
#   --time S       300
#   --result DIR   the folder that the command finds as $RESULT and that outlives the guest
#   --nbds N       devices that the driver makes, 0: it is not loaded
#   --no-udev      start no udev
#   --systemd      boot systemd, with CMD as a service; RESULT/prepare, a script, runs before
uml_run() {
	local root=/ mem=2G limit=300 result='' nbds=8 udev=yes systemd=no work rc=0
	while [[ ${1:-} == --* ]]; do
		case $1 in
		--root) root=$(realpath "$2"); shift ;;
		--mem) mem=$2; shift ;;
		--time) limit=$2; shift ;;
		--result) result=$2; shift ;;
		--nbds) nbds=$2; shift ;;
		--no-udev) udev=no ;;
		--systemd) systemd=yes ;;
		*) _uml_usage; return ;;
		esac
		shift
	done
	[[ $# -gt 0 ]] || { _uml_usage; return; }
	_uml_kernel || return 77
	tmpdir work
	[[ $result ]] || result=$work/result
	mkdir -p "$result" || return 1
	result=$(realpath "$result")
	_uml_work "$@"
	_uml_boot || rc=$?
	cp "$work/console" "$result/console"
	[[ ${TESTBED_KEEP:-} ]] || rm -rf -- "$work"
	return $rc
}

# Finds the kernel and its modules, or says what is missing.
_uml_kernel() {
	local cmd
	for cmd in setpriv insmod modprobe ip; do
		type -P $cmd >/dev/null || { say "SKIPPED: no $cmd"; return 1; }
	done
	UML_KERNEL=$(type -P linux.uml) || { say "SKIPPED: no user-mode-linux"; return 1; }
	for UML_MODULES in /usr/lib/uml/modules/*; do
		[[ -e $UML_MODULES/kernel/drivers/block/nbd.ko ]] && return
	done
	say "SKIPPED: user-mode-linux without nbd.ko"
	return 1
}

# The folder that the guest reads its orders from, and answers in.
_uml_work() {
	cp "$LIB_DIR/guest-init" "$work/init"
	touch "$work/out" "$work/err"
	printf '%s=%q\n' modules "$UML_MODULES" result "$result" top "${LIB_DIR%/tests/lib}" \
		nbds "$nbds" udev "$udev" systemd "$systemd" >"$work/setup"
	printf '%s\n' "cd ${PWD@Q} 2>/dev/null || cd /" "export HOME=/root RESULT=${result@Q}" \
		"${*@Q}" >"$work/run"
}

# The processor with the fewest guests. Each system call in a guest is a hand-over between two of
# its processes: on one processor that takes some microseconds, from one to another ten times that.
_uml_processor() {
	local list range cpu n least=''
	list=$(taskset -cp $BASHPID)
	for range in $(tr , ' ' <<<"${list##*: }"); do
		for cpu in $(seq "${range%-*}" "${range#*-}"); do
			n=$(pgrep -x linux.uml | sed 's|.*|/proc/&/status|' |
				xargs -r grep -lsx "Cpus_allowed_list:[[:space:]]*$cpu" | wc -l)
			[[ $least && $n -ge $least ]] || { least=$n; UML_PROCESSOR=$cpu; }
		done
	done
}

_uml_boot() {
	local preload='' init tails=() rc=0
	_uml_processor
	if grep -qwE 'amx_tile|apx' /proc/cpuinfo; then
		preload=$work/xstate.so
		"${CC:-gcc}" -O2 -shared -fPIC -o "$preload" "$LIB_DIR/uml-xstate.c" ||
			{ say "SKIPPED: this processor's guests need a compiler"; return 77; }
	fi
	init="mount -t tmpfs tmpfs /run; mkdir /run/host; mount -t hostfs -o hostfs=$work none"
	init+=" /run/host 2>/dev/null || mount -t hostfs -o $work none /run/host;"
	init+=" exec bash /run/host/init"
	setsid setpriv --pdeathsig TERM bash "$LIB_DIR/uml" --keep "$work" "$limit" \
		taskset -c "$UML_PROCESSOR" \
		env -u TMPDIR LD_PRELOAD="$preload" "$UML_KERNEL" "mem=$mem" "uml_dir=$work" \
		rootfstype=hostfs "rootflags=$root" rw con=null con0=null,fd:1 quiet \
		init=/bin/sh -- -c "\"$init\"" </dev/null >"$work/console" 2>&1 &
	_uml_pid=$!
	cleanup_fn _uml_kill "$_uml_pid"
	tail --pid="$_uml_pid" -s 0.2 -n +1 -f "$work/out" 2>/dev/null &
	tails+=($!)
	tail --pid="$_uml_pid" -s 0.2 -n +1 -f "$work/err" >&2 2>/dev/null &
	tails+=($!)
	wait "$_uml_pid" 2>/dev/null || rc=$?
	_uml_pid=
	wait "${tails[@]}"
	if [[ -s $work/status ]]; then
		return "$(<"$work/status")"
	elif [[ $rc == 124 ]]; then
		say "the guest was still busy after $limit s"
		return 124
	fi
	say "the guest died ($rc):"
	head -n 15 "$work/console" >&2
	return 125
}

_uml_kill() { # PID
	[[ ${_uml_pid:-} == "$1" ]] || return 0
	kill "$1" 2>/dev/null
	wait_for 30 gone "$1"
}

# The keeper's part: a process of its own, which ends the guest when the time is over or when
# the script that wanted it is gone. The guest's processes are many, and some outlive the
# first one; all have its arguments.
_uml_keep() { # WORK LIMIT CMD...
	local work=$1 limit=$2 timer rc
	shift 2
	ulimit -c 0
	cleanup_fn _uml_end "$work"
	sleep "$limit" &
	timer=$!
	cleanup_fn eval "kill $timer 2>/dev/null"
	"$@" &
	wait -n
	rc=$?
	alive "$timer" || return 124
	return $rc
}

_uml_end() { # WORK
	local pids
	while pids=$(_uml_pids "$1") && [[ $pids ]]; do
		# shellcheck disable=SC2086
		kill -KILL $pids 2>/dev/null
		sleep 0.05
	done
}

_uml_pids() { # WORK
	local file comm
	grep -lzsxF -- "uml_dir=$1" /proc/[0-9]*/cmdline | while read -r file; do
		read -r comm 2>/dev/null <"${file%/*}/comm"
		[[ $comm != linux.uml ]] || ! alive "${file//[!0-9]/}" || echo "${file//[!0-9]/}"
	done
}
