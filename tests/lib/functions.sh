# shellcheck shell=bash
# SPDX-License-Identifier: GPL-2.0-or-later
# Copyright (C) 2026 the rbdcrypt-nbd authors
#
# functions.sh: what every test script sources first. Exit 0 passed, 1 failed, 77 skipped.
#
# The traps for EXIT, HUP, INT and TERM belong to cleanup_fn. Functions that must leave
# something registered (tmpdir) assign to a variable instead of printing, because in $(...)
# the subshell's end would clean it up at once.

[[ -z ${_functions_sh:-} ]] || return 0
_functions_sh=1

PATH=$PATH:/usr/sbin:/sbin
# shellcheck disable=SC2034 # for those who source this
LIB_DIR=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd -P) || exit 1

# Inherited by all we start, daemons included: this is how processes_left knows its own.
export TESTBED_TAGS="${TESTBED_TAGS:-}<$$.$RANDOM$RANDOM>"
_own_tag="<${TESTBED_TAGS##*<}"

say() { printf '%s: %s\n' "${0##*/}" "$*" >&2; }
fail() { say "FAILED: $*"; exit 1; }
skip() { say "SKIPPED: $*"; exit 77; }

# requires CMD...: skips the test, naming what is missing.
requires() {
	local cmd missing=()
	for cmd; do
		type -P "$cmd" >/dev/null || missing+=("$cmd")
	done
	[[ ${#missing[@]} -eq 0 ]] || skip "missing: ${missing[*]}"
}

requires_root() { [[ $EUID -eq 0 ]] || skip "needs root"; }

# cleanup_fn CMD [ARG]...: runs CMD when this shell ends, however it ends; last added, first
# run. Each subshell has its own list.
cleanup_fn() {
	if [[ ${_cleanup_owner:-} != "$BASHPID" ]]; then
		_cleanup_owner=$BASHPID _cleanup_hooks=()
		trap _cleanup_run EXIT
		trap 'exit 129' HUP
		trap 'exit 130' INT
		trap 'exit 143' TERM
	fi
	_cleanup_hooks+=("${*@Q}")
}

_cleanup_run() {
	local rc=$? i
	trap '' HUP INT TERM
	trap - EXIT
	set +e
	for ((i = ${#_cleanup_hooks[@]} - 1; i >= 0; i--)); do
		eval "${_cleanup_hooks[i]}"
	done
	exit "$rc"
}

# tmpdir VAR: makes a private folder, removed at exit. TESTBED_KEEP=1 keeps it.
tmpdir() {
	local _dir
	_dir=$(mktemp -d "${TMPDIR:-/tmp}/rbdcrypt-test.XXXXXX") || fail "no temporary folder"
	if [[ ${TESTBED_KEEP:-} ]]; then
		say "keeping $_dir"
	else
		cleanup_fn rm -rf --one-file-system -- "$_dir"
	fi
	printf -v "$1" %s "$_dir"
}

# wait_for SECONDS CMD...: until CMD succeeds, asking often; false when the time is over.
wait_for() {
	local end_us=$((${EPOCHREALTIME/[.,]/} + $1 * 1000000)) pause=0.02
	shift
	until "$@"; do
		((${EPOCHREALTIME/[.,]/} < end_us)) || return 1
		sleep $pause
		[[ $pause == 0.02 ]] && pause=0.05 || pause=0.1
	done
}

# detached CMD...: in a session of its own, holding no file of ours. Sets DETACHED_PID.
detached() {
	(
		local fd
		for fd in /proc/self/fd/*; do
			fd=${fd##*/}
			((fd > 2)) && eval "exec $fd>&-"
		done
		trap - HUP INT TERM
		exec setsid "$@" </dev/null
	) &
	DETACHED_PID=$!
	disown "$DETACHED_PID" 2>/dev/null || :
}

# free_port: prints a TCP port nobody listens on and no other free_port gave to a living
# script. Below the range the kernel takes ports from by itself.
free_port() {
	local port file dir=${TMPDIR:-/tmp}/rbdcrypt-ports.$EUID owner try
	mkdir -p "$dir" || return 1
	for file in "$dir"/*; do
		if read -r owner 2>/dev/null <"$file" && [[ ! -d /proc/$owner ]]; then
			rm -f "$file"
		fi
	done
	for ((try = 0; try < 200; try++)); do
		port=$((20000 + SRANDOM % 12000)) file=$dir/$port
		grep -qi "^ *[0-9]*: [0-9A-F]*:$(printf %04X $port) [0-9A-F]*:0000 0A" \
			/proc/net/tcp /proc/net/tcp6 2>/dev/null && continue
		if (set -C && echo $$ >"$file") 2>/dev/null; then
			echo $port
			return
		fi
	done
	return 1
}

# alive PID: still running (a zombie is not). The first thread of one that is killed may be dead
# before the others, which still hold its locks and sockets.
alive() {
	local file stat
	for file in /proc/"$1"/task/*/stat; do
		read -r stat 2>/dev/null <"$file" && [[ ${stat##*) } != [ZX]* ]] && return
	done
	return 1
}
gone() { ! alive "$1"; }

# pause PID...: SIGSTOP, until each thread has stopped. On a busy machine one may go on, and answer,
# after the call that stops it.
pause() { kill -STOP "$@" && wait_for 60 _paused "$@"; }
_paused() { # PID...
	local pid stat
	for pid; do
		for stat in /proc/"$pid"/task/*/stat; do
			[[ $(sed 's/.*) //; s/ .*//' "$stat" 2>/dev/null) == T ]] || return
		done
	done
}

# end PID: at once, if it is still there.
end() { ! alive "$1" || kill -KILL "$1"; }

# need_program: sets PROGRAM, the one that is tested.
need_program() {
	PROGRAM=$(realpath "${RBDCRYPT_NBD:-${O:-$LIB_DIR/../../build}/rbdcrypt-nbd}")
	[[ -x $PROGRAM ]] || fail "no program at $PROGRAM: make first"
}

# run_case NAME CMD [ARG]...: says whether CMD succeeds, as tests/run counts it. What CMD says is shown
# when it fails, with the ends of the files in CASE_LOGS. Needs $T, a folder; counts in $failures.
failures=0
CASE_LOGS=()
run_case() {
	local name=$1 log
	shift
	if "$@" >"$T/said" 2>&1; then
		echo "ok $name"
		return
	fi
	for log in "$T/said" "${CASE_LOGS[@]}"; do
		[[ ! -s $log ]] || tail -n 40 "$log" | sed "s|^|	${log##*/}: |"
	done
	echo "not ok $name"
	failures=$((failures + 1))
}

# processes_left: prints "pid command" of every process that descends from this script, has
# left it or not, and still runs.
processes_left() {
	local file pid cmd
	grep -lzsF -- "$_own_tag" /proc/[0-9]*/environ | while read -r file; do
		pid=${file//[!0-9]/}
		cmd=$(tr '\0' ' ' 2>/dev/null <"/proc/$pid/cmdline") 2>/dev/null
		[[ -z $cmd ]] || ! alive "$pid" || echo "$pid ${cmd::100}"
	done
}

_no_processes_left() { [[ -z $(processes_left) ]]; }

# nothing_left DIR...: true when no process of ours runs, after ten seconds to end in, and
# nothing is mounted on, or is left of, the folders. Says what it found.
nothing_left() {
	local dir left rc=0
	wait_for 10 _no_processes_left || left=$(processes_left)
	[[ -z ${left:-} ]] || { say "still running: $left"; rc=1; }
	for dir; do
		if left=$(grep -F " ${dir%/}" /proc/self/mountinfo); then
			say "still mounted: $left"; rc=1
		fi
		[[ ! -e $dir && ! -L $dir ]] || { say "still there: $dir"; rc=1; }
	done
	return $rc
}
