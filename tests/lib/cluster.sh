# shellcheck shell=bash
# SPDX-License-Identifier: GPL-2.0-or-later
# Copyright (C) 2026 the rbdcrypt-nbd authors
#
# cluster.sh: a private Ceph cluster, one mon and one OSD on loopback, in seconds.
#
# Each cluster has its own address out of 127.0.0.0/8, so that clusters started at the same
# moment cannot want the same port. There is no mgr: commands that ask it (ceph df, ceph osd
# df, ceph pg dump) wait for ever; health stays in warning.
#
# A watcher process per cluster stops the daemons when the script that started it is gone
# (SIGKILL included) or when the folder is.
#
# memstore is quick and keeps data in memory only; bluestore accounts for space, but opens
# its block file with O_DIRECT, which tmpfs (before Linux 6.6) and hostfs refuse.
#
# With REEF_ROOT set (see trixie.sh) the daemons are the ones of that tree.

# shellcheck source=tests/lib/functions.sh
. "$(dirname "${BASH_SOURCE[0]}")/functions.sh"
# shellcheck source=tests/lib/tree.sh
. "$(dirname "${BASH_SOURCE[0]}")/tree.sh"

_cluster_classes() {
	local dir
	for dir in "${REEF_ROOT:-}"/usr/lib/*/rados-classes "${REEF_ROOT:-}"/usr/lib*/rados-classes; do
		[[ -d $dir ]] && echo "${dir#"${REEF_ROOT:-}"}" && return
	done
}

_cluster_conf() { # DIR STORE AUTH
	local dir=$1 ip port classes
	ip=127.$((1 + SRANDOM % 254)).$((SRANDOM % 256)).$((1 + SRANDOM % 254))
	port=$(free_port) || return 1
	classes=$(_cluster_classes)
	cat <<-CONF
		[global]
		fsid = $(</proc/sys/kernel/random/uuid)
		mon host = [v2:$ip:$port,v1:$ip:$((port + 12000))]
		public addr = $ip
		cluster addr = $ip
		ms bind ipv4 = true
		ms bind ipv6 = false
		auth cluster required = $3
		auth service required = $3
		auth client required = $3
		auth allow insecure global id reclaim = false
		osd pool default size = 1
		osd pool default min size = 1
		osd pool default pg num = 16
		osd pool default pgp num = 16
		osd pool default pg autoscale mode = off
		osd crush chooseleaf type = 0
		# Given, so that nobody asks for the machine's name, which may be "(none)".
		crush location = root=default host=testbed
		run dir = $dir
		mon allow pool size one = true
		mon allow pool delete = true

		[mon]
		mon data = $dir/mon.a
		mon data avail crit = 0
		mon data avail warn = 0
		mon cluster log file = $dir/cluster.log
		# A map change per tick of a second is most of the starting time otherwise.
		paxos propose interval = 0.02
		paxos min wait = 0.01

		[osd]
		osd data = $dir/osd.0
		osd objectstore = $2
		memstore device bytes = 16G
		osd class update on start = false
		# Of a lone OSD that was paused past its leases, requests that come before it has
		# renewed them are never looked at again (tracker.ceph.com/issues/80404).
		osd pool default read lease ratio = 10
		# The slow way out is the one on which memstore saves what it has.
		osd fast shutdown = $([[ $2 == memstore ]] && echo false || echo true)
		bluestore block size = 20G
		bluestore cache autotune = false
		bluestore cache size = 64M
		osd memory target = 939524096
		${classes:+osd class dir = $classes}

		[mon.a]
		keyring = $dir/mon.keyring
		log file = $dir/mon.a.log
		admin socket = $dir/mon.a.asok

		[osd.0]
		keyring = $dir/osd.0.keyring
		log file = $dir/osd.0.log
		admin socket = $dir/osd.0.asok

		[client]
		keyring = $dir/ceph.\$name.keyring
		admin socket =
		log file =
		rbd cache = false
	CONF
	printf '\n[global]\n'
	printf 'debug %s = 0/0\n' asok auth bdev bluefs bluestore memstore mon monc ms objecter osd \
		paxos rados rbd rocksdb tp
}

_cluster_keys() { # in DIR
	umask 077
	ceph-authtool -C mon.keyring -g -n mon. --cap mon 'allow *' &&
	ceph-authtool -C osd.0.keyring -g -n osd.0 \
		--cap mon 'allow profile osd' --cap osd 'allow *' &&
	ceph-authtool -C ceph.client.admin.keyring -g -n client.admin \
		--cap mon 'allow *' --cap osd 'allow *' --cap mgr 'allow *' &&
	ceph-authtool -C ceph.client.vm.keyring -g -n client.vm \
		--cap mon 'profile rbd' --cap osd 'profile rbd' --cap mgr 'profile rbd' &&
	cat mon.keyring osd.0.keyring ceph.client.*.keyring >initial.keyring
}

# Makes the daemons' data and starts them. Runs inside REEF_ROOT, hence one script.
_cluster_make() { # DIR AUTH
	local dir=$1 uuid addr
	cd "$dir" || return 1
	uuid=$(</proc/sys/kernel/random/uuid)
	addr=$(sed -n 's/^mon host = //p' ceph.conf)
	export CEPH_CONF=$dir/ceph.conf CEPH_ARGS=
	_cluster_keys || return 1
	monmaptool --create --fsid "$(sed -n 's/^fsid = //p' ceph.conf)" --addv a "$addr" monmap &&
	mkdir -p mon.a osd.0 &&
	ceph-mon --mkfs -i a --monmap monmap --keyring initial.keyring &&
	_cluster_daemon "$dir" mon a &&
	timeout 60 ceph osd new "$uuid" &&
	ceph-osd --mkfs -i 0 --osd-uuid "$uuid" &&
	_cluster_osd "$dir" &&
	timeout 60 ceph osd pool create rbd 16 &&
	timeout 60 rbd pool init rbd
}

_cluster_daemon() { # DIR mon|osd ID
	# Its output goes to a file, never to ours: who reads ours to the end would wait for it.
	detached "ceph-$2" -f -i "$3" -c "$1/ceph.conf" >>"$1/$2.$3.out" 2>&1
}

# The daemons' pids, asked of /proc instead of pid files: never wrong about a pid used
# again, and known even when the folder is gone.
_cluster_pids() { # DIR [mon|osd]
	local file comm
	grep -lzsxF -- "$1/ceph.conf" /proc/[0-9]*/cmdline | while read -r file; do
		read -r comm 2>/dev/null <"${file%/*}/comm" || continue
		case $comm in
		ceph-"${2:-mon}" | ceph-"${2:-osd}") ;;
		*) continue ;;
		esac
		! alive "${file//[!0-9]/}" || echo "${file//[!0-9]/}"
	done
}
_cluster_none() { [[ -z $(_cluster_pids "$@") ]]; }

_cluster_signal() { # SIGNAL DIR [mon|osd]
	local pid signal=$1
	shift
	for pid in $(_cluster_pids "$@"); do
		kill "-$signal" "$pid" 2>/dev/null || :
	done
}

# Until none of their threads writes in the folder. One whose first thread is dead has no command
# line any more, so they are looked up before.
_cluster_end() { # SIGNAL DIR [mon|osd]
	local pid pids signal=$1
	shift
	pids=$(_cluster_pids "$@") || :
	_cluster_signal "$signal" "$@"
	for pid in $pids; do
		wait_for 30 gone "$pid" || return
	done
	wait_for 30 _cluster_none "$@"
}

# BODY, a function of this file, runs in the tree whose daemons the cluster uses, if any.
_cluster_inside() { # DIR BODY [ARG]...
	local dir=$1 root=
	shift
	[[ ! -e $dir/tree ]] || root=$(<"$dir/tree")
	if [[ $root ]]; then
		(tree_exec "$root" "$dir" bash -c "$(declare -f)"$'\n"$@"' bash "$@")
	else
		("$@")
	fi
}

_cluster_osd() { # DIR
	_cluster_daemon "$1" osd 0
	wait_for 60 _cluster_osd_active "$1"
}

_cluster_osd_active() { # DIR
	[[ -S $1/osd.0.asok ]] &&
		ceph --admin-daemon "$1/osd.0.asok" status 2>/dev/null | grep -q '"state": "active"'
}

# The watcher: no fork, one look per second. Owner 0 lives for ever.
_cluster_watch() { # DIR OWNER
	local dir=$1 owner=$2 tick
	echo $$ >"$dir/watch.pid"
	exec {tick}<> <(:)
	while [[ -e $dir/ceph.conf ]] && { [[ $owner == 0 ]] || alive "$owner"; }; do
		read -rt 1 -u "$tick"
	done
	cluster_stop "$dir"
}

_cluster_unwatch() { # DIR
	local pid
	read -r pid 2>/dev/null <"$1/watch.pid" || return 0
	rm -f "$1/watch.pid"
	[[ $pid != "$$" ]] && grep -qzsxF -- "$1" "/proc/$pid/cmdline" || return 0
	kill "$pid" 2>/dev/null || :
	wait_for 30 gone "$pid"
}

# cluster_start DIR [memstore|bluestore] [none|cephx]: with CLUSTER_OWNER=PID it ends with
# that process, 0 for none, instead of with this script.
cluster_start() {
	local dir store=${2:-memstore} auth=${3:-none} owner=${CLUSTER_OWNER:-$$}
	[[ ${REEF_ROOT:-} ]] || requires ceph ceph-mon ceph-osd ceph-authtool monmaptool rbd
	mkdir -p "$1" && dir=$(realpath "$1") || return 1
	[[ ! -e $dir/ceph.conf ]] || { say "there is a cluster in $dir already"; return 1; }
	if [[ $store == bluestore ]] && ! _cluster_direct "$dir"; then
		say "bluestore opens with O_DIRECT, which the file system of $dir refuses"
		return 1
	fi
	_cluster_conf "$dir" "$store" "$auth" >"$dir/ceph.conf" || return 1
	[[ ! ${REEF_ROOT:-} ]] || echo "$REEF_ROOT" >"$dir/tree"
	[[ $owner != "$$" ]] || cleanup_fn cluster_stop "$dir"
	detached bash "$LIB_DIR/cluster" watch "$dir" "$owner" >"$dir/watch.out" 2>&1
	if ! _cluster_inside "$dir" _cluster_make "$dir" >"$dir/start.log" 2>&1; then
		say "no cluster in $dir:"
		tail -n 20 "$dir/start.log" "$dir"/*.out >&2
		cluster_stop "$dir"
		return 1
	fi
	cluster_env "$dir"
}

_cluster_direct() { # DIR
	dd if=/dev/zero of="$1/direct" bs=4096 count=1 oflag=direct 2>/dev/null
	local rc=$?
	rm -f "$1/direct"
	return $rc
}

# cluster_env DIR: from here on, this shell's commands talk to that cluster.
cluster_env() {
	export CEPH_CONF=$1/ceph.conf CEPH_ARGS=
}

# program_on_cluster STORE [none|cephx]: sets PROGRAM, the one that is tested, and T, a folder with its
# run directory and a cluster, which end with the script.
program_on_cluster() {
	need_program
	tmpdir T
	export RBDCRYPT_NBD_RUN_DIR=$T/run
	cleanup_fn cluster_stop "$T/cluster"
	cluster_start "$T/cluster" "$@" || fail "no cluster"
}

# cluster_stop DIR: the daemons are killed, so the data are of no use afterwards.
cluster_stop() {
	local dir
	dir=$(realpath -m "$1")
	_cluster_unwatch "$dir"
	rm -f "$dir/ceph.conf"
	_cluster_end KILL "$dir" || { say "daemons left in $dir"; return 1; }
}

# cluster_osd_kill DIR: storage is gone at once, as after a power cut. A memstore, which would
# forget everything, is stopped in the orderly way, which saves its data; it takes longer.
cluster_osd_kill() {
	local dir signal=KILL
	dir=$(realpath "$1")
	grep -q '^osd objectstore = memstore' "$dir/ceph.conf" && signal=TERM
	_cluster_end $signal "$dir" osd
}

# cluster_osd_start DIR: returns when the OSD serves again.
cluster_osd_start() {
	local dir
	dir=$(realpath "$1")
	_cluster_inside "$dir" _cluster_osd "$dir"
}

# Storage that answers nothing for a while, and then everything.
cluster_osd_pause() {
	local pids
	# No process substitution: the guest has no /dev/fd.
	pids=$(_cluster_pids "$(realpath "$1")" osd)
	# shellcheck disable=SC2086
	[[ $pids ]] && pause $pids
}
cluster_osd_resume() { _cluster_signal CONT "$(realpath "$1")" osd; }
