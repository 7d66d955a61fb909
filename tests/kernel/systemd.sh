#!/bin/bash
# SPDX-License-Identifier: GPL-2.0-or-later
# Copyright (C) 2026 the rbdcrypt-nbd authors
#
# systemd.sh: a Debian 13 machine with our files installed, booted twice with systemd. A line of
# fstab on an encrypted clone is mounted, the service restarts under verified IO, the machine goes
# down, and comes up with the file system clean.
#
# With LONG=1 only, as it takes four minutes; then a Debian 12 machine, too, if that is what this
# one is: two minutes more. RELEASES="debian-12 debian-13" chooses machines, KERNEL_CLAIMS claims;
# each is reason enough, too.
#
# The script is all of it: without an argument it boots the machines, "prepare" runs before
# systemd there, "cluster-start" and "cluster-stop" are a service of theirs, and "first" and "second"
# make the claims of a boot.

# test: heavy time=900

# Paths and names of ours have no blanks.
# shellcheck disable=SC2086
# shellcheck source=tests/kernel/guest.sh
. "${BASH_SOURCE[0]%/*}/guest.sh"
# shellcheck source=tests/lib/trixie.sh
. "${BASH_SOURCE[0]%/*}/../lib/trixie.sh"

SELF=$KERNEL_DIR/${0##*/}
VOL=/dev/rbdcrypt/rbd/vol

# ---- on the machine ----

boot() { # RESULT BOOT [UML_OPTION]...
	local result=$1 which=$2
	shift 2
	printf '%s\n' "BOOT=$which O=${BUILD@Q} RBDCRYPT_NBD=/usr/bin/rbdcrypt-nbd bash ${SELF@Q} prepare" \
		>"$result/prepare"
	uml_run --time 280 --mem 2G --nbds 8 --result "$result" --systemd "$@" env KERNEL_GUEST=1 \
		O="$BUILD" RBDCRYPT_NBD=/usr/bin/rbdcrypt-nbd KERNEL_CLAIMS="${KERNEL_CLAIMS:-}" \
		bash "$SELF" "$which" || { tail -n 20 "$result/console" >&2; return 1; }
	[[ $(<"$result/down") == clean ]] || { cat "$result/down" >&2; return 1; }
	echo "ok $which-goes-down-in-order"
}

machine() { # NAME [UML_OPTION]...
	local result name=$1
	shift
	tmpdir result
	tar -C "$files" -c . >"$result/files.tar"
	boot "$result" first "$@" && boot "$result" second "$@" && return
	echo "not ok $name"
	return 1
}

on_the_machine() {
	local files release releases bad=0
	requires_root
	[[ ! ${SANITIZE:-} ]] || skip "a program with sanitizers is not the one that is installed"
	[[ ${LONG:-}${KERNEL_CLAIMS:-}${RELEASES:-} ]] || skip "two boots of a whole machine: LONG=1"
	releases=${RELEASES:-debian-13}
	[[ ! ${LONG:-} ]] || releases=${RELEASES:-debian-13 debian-12}
	tmpdir files
	make -s -C "${KERNEL_DIR%/tests/kernel}" O="$BUILD" DESTDIR="$files" install >/dev/null ||
		fail "no install"
	for release in $releases; do
		case $release in
		debian-12) machine debian-12 || bad=1 ;;
		debian-13) trixie_root && machine debian-13 --root "$REEF_ROOT" || bad=1 ;;
		*) fail "RELEASES: no $release" ;;
		esac
	done
	exit $bad
}

# ---- before systemd ----

prepare() {
	tar -C / --keep-directory-symlink --no-overwrite-dir -xf "$RESULT/files.tar"
	mkdir -p /etc/rbdcrypt /etc/keys /srv/vol
	printf 'first secret' >/etc/keys/vol.key
	printf 'a wrong one' >/etc/keys/wrong.key
	chmod 600 /etc/keys/*
	echo 'vol rbd/vol /etc/keys/vol.key' >/etc/rbdcrypt/rbdcrypttab
	mkdir -p /etc/rbdcrypt/rbdcrypttab.d
	[[ $BOOT == second ]] || cat >/etc/rbdcrypt/rbdcrypttab.d/more <<-'END'
		# The second line is wrong.
		broken
		wrong  rbd/wrong  /etc/keys/wrong.key  nofail
		later  rbd/later  /run/keys/later.key  key-wait,nofail
		part   rbd/part   /etc/keys/vol.key    noauto
	END
	echo "$VOL /srv/vol ext4 _netdev,x-systemd.makefs 0 2" >/etc/fstab
	cat >/etc/systemd/system/testcluster.service <<-END
		[Unit]
		DefaultDependencies=no
		After=local-fs.target systemd-tmpfiles-setup.service
		Before=ceph-osd.target shutdown.target
		Conflicts=shutdown.target
		[Service]
		Type=oneshot
		RemainAfterExit=yes
		Environment=HOME=/root RESULT=$RESULT BOOT=$BOOT O=$BUILD RBDCRYPT_NBD=$RBDCRYPT_NBD
		ExecStart=/bin/bash $SELF cluster-start
		ExecStop=/bin/bash $SELF cluster-stop
	END
	mkdir -p /etc/systemd/system/ceph-osd.target.wants
	ln -s ../testcluster.service /etc/systemd/system/ceph-osd.target.wants/
	# A root that is also a container's would be one again, with mounts that are not shared.
	rm -f /.dockerenv /run/.containerenv
	# It would empty /tmp, where the repository may be.
	mkdir -p /etc/tmpfiles.d
	ln -sf /dev/null /etc/tmpfiles.d/tmp.conf
	# What takes time and has nothing to do here.
	local unused
	for unused in ceph-mon.target ceph-crash.service rbdmap.service smartmontools.service \
		apt-daily.timer apt-daily-upgrade.timer e2scrub_all.timer fstrim.timer logrotate.timer \
		systemd-pcrphase.service systemd-random-seed.service systemd-logind.service \
		modprobe@drm.service modprobe@configfs.service modprobe@efi_pstore.service \
		modprobe@fuse.service systemd-hwdb-update.service ldconfig.service cron.service; do
		ln -sf /dev/null "/etc/systemd/system/$unused"
	done
}

# ---- the cluster, a service of the booted machine ----

# The image and its clone, which has the parent's encryption.
make_images() {
	local name
	if [[ $BOOT == first ]]; then
		quick_image parent 80M || return 1
	else
		rbd import --no-progress "$RESULT/parent" parent || return 1
	fi
	rbd snap create --no-progress parent@s && rbd snap protect parent@s &&
		rbd clone parent@s vol || return 1
	[[ $BOOT == first ]] || rbd import-diff --no-progress "$RESULT/vol" vol || return 1
	[[ $BOOT == first ]] || return 0
	for name in wrong later part; do
		quick_image $name 24M || return 1
	done
}

start_cluster() {
	set -e
	# It stays when this command ends.
	CLUSTER_OWNER=0 guest_cluster memstore
	mkdir -p /etc/ceph
	cp "$T/cluster/ceph.conf" /etc/ceph/ceph.conf
	make_images
}

# Whoever comes after us at shutdown finds a machine without volumes.
stop_cluster() {
	local left
	export CEPH_CONF=/etc/ceph/ceph.conf
	left=$(left_behind; rbd status vol | grep watcher=)
	echo "${left:-clean}" >"$RESULT/down"
	[[ $BOOT == second ]] || {
		rbd export --no-progress parent "$RESULT/parent"
		rbd export-diff --no-progress vol "$RESULT/vol"
	}
	cluster_stop "$T/cluster"
}

# ---- claims ----

# wait_for, and why not.
wait_long() {
	wait_for "$@" || { journalctl -b -o short-monotonic -u 'rbdcrypt*' | tail -n 60; return 1; }
}

unit() { systemctl show --value -p "$1" "$2"; } # PROPERTY UNIT
is() { [[ $(unit "$1" "$2") == "$3" ]]; } # PROPERTY UNIT VALUE

file_system_of_fstab_is_mounted() {
	wait_long 90 mountpoint -q /srv/vol
	same source "$(realpath $VOL)" "$(findmnt -no SOURCE /srv/vol | xargs realpath)"
	same service active "$(unit ActiveState rbdcrypt-nbd@vol.service)"
	same target active "$(unit ActiveState rbdcrypt.target)"
}

data_can_be_written() {
	head -c 8M /dev/urandom >/srv/vol/file
	sha256sum </srv/vol/file >"$RESULT/sum"
}

names_lead_to_the_device() {
	local dev
	dev=$(realpath $VOL)
	same list "$dev" "$(listed '.[] | select(.image == "vol") | .device')"
	same cookie "$dev" "$(realpath "$(ls -d /dev/rbdcrypt/by-cookie/*vol* 2>/dev/null ||
		udevadm info -q symlink "$dev" | tr ' ' '\n' | sed -n 's|^|/dev/|; /by-cookie/p')")"
	same lsblk 'rbdcrypt luks2|rbd/vol' "$(lsblk -dnPo MODEL,SERIAL "$dev" |
		sed 's/MODEL="\(.*\)" SERIAL="\(.*\)"/\1|\2/')"
}

partitions_have_names_and_nothing_is_left() {
	local dev name=/dev/rbdcrypt/rbd/part
	systemctl start rbdcrypt-nbd@part.service
	dev=$(realpath $name)
	echo ',,L' | sfdisk -q "$dev"
	udevadm settle
	same partition "${dev}p1" "$(realpath $name-part1)"
	systemctl stop rbdcrypt-nbd@part.service
	udevadm settle
	fails ls -d $name* /sys/block/${dev##*/}/pid
	systemctl start rbdcrypt-nbd@part.service
	dev=$(realpath $name)
	same again "${dev}p1" "$(realpath $name-part1)"
	systemctl stop rbdcrypt-nbd@part.service
	udevadm settle
	fails ls -d $name*
	same state '' "$(listed '.[] | select(.image == "part")')"
}

service_is_what_its_unit_says() {
	local pid task flags field
	pid=$(unit MainPID rbdcrypt-nbd@vol.service)
	for field in CapEff CapPrm CapInh; do
		flags=$(sed -n "s/^$field:\t//p" /proc/$pid/status)
		# CAP_SYS_ADMIN is number 21.
		[[ $((16#$flags & ~(1 << 21))) == 0 ]] || { echo "$field $flags"; return 1; }
	done
	same no-new-privileges 1 "$(sed -n 's/^NoNewPrivs:\t//p' /proc/$pid/status)"
	same seccomp 2 "$(sed -n 's/^Seccomp:\t//p' /proc/$pid/status)"
	same oom -900 "$(</proc/$pid/oom_score_adj)"
	[[ $(sed -n 's/^VmLck:[^0-9]*\([0-9]*\) kB/\1/p' /proc/$pid/status) -gt 10000 ]]
	# PF_MEMALLOC_NOIO and PF_LOCAL_THROTTLE, what PR_SET_IO_FLUSHER sets.
	for task in /proc/"$pid"/task/*; do
		read -r _ _ _ _ _ _ flags _ < <(sed 's/.*) //' $task/stat)
		[[ $((flags & 0x180000)) == $((0x180000)) ]] ||
			{ echo "$(<$task/comm): flags $flags"; return 1; }
	done
}

restart_and_kill_are_not_seen() {
	local fio pid dev
	dev=$(realpath $VOL)
	fio --name=verify --filename=/srv/vol/fio --size=16M --rw=randwrite --bs=4k --iodepth=8 \
		--ioengine=libaio --direct=1 --verify=crc32c --verify_backlog=64 --time_based \
		--runtime=15 --output=$T/fio &
	# shellcheck disable=SC2031
	fio=$!
	sleep 2
	pid=$(unit MainPID rbdcrypt-nbd@vol.service)
	systemctl restart rbdcrypt-nbd@vol.service
	fails same pid $pid "$(unit MainPID rbdcrypt-nbd@vol.service)"
	pid=$(unit MainPID rbdcrypt-nbd@vol.service)
	kill -KILL $pid
	wait_long 20 is NRestarts rbdcrypt-nbd@vol.service 1
	wait_long 20 is ActiveState rbdcrypt-nbd@vol.service active
	wait $fio || { cat $T/fio; return 1; }
	same device "$dev" "$(realpath $VOL)"
	mountpoint -q /srv/vol
	same file "$(<"$RESULT/sum")" "$(sha256sum </srv/vol/file)"
	fails grep -E 'I/O error|Buffer I/O' <(dmesg)
}

volume_starts_when_its_key_appears() {
	same before inactive "$(unit ActiveState rbdcrypt-nbd@later.service)"
	mkdir -p /run/keys
	cp /etc/keys/vol.key /run/keys/later.key
	wait_long 30 is ActiveState rbdcrypt-nbd@later.service active
	[[ -b /dev/rbdcrypt/rbd/later ]]
	systemctl stop rbdcrypt-nbd@later.service
	fails ls -d /dev/rbdcrypt/rbd/later
}

daemon_of_the_host_serves() {
	local dev
	systemctl start rbdcrypt-nbd.service
	same socket '660 rbdcrypt' "$(stat -c '%a %G' /run/rbdcrypt-nbd/control)"
	dev=$(nbd map --encryption-passphrase-file /etc/keys/vol.key rbd/part)
	same daemon "$(unit MainPID rbdcrypt-nbd.service)" "$(daemon_of "$dev")"
	same name "$dev" "$(realpath /dev/rbdcrypt/rbd/part)"
	nbd unmap rbd/part
	systemctl stop rbdcrypt-nbd.service rbdcrypt-nbd.socket
	same result success "$(unit Result rbdcrypt-nbd.service)"
}

wrong_passphrase_is_tried_once() {
	wait_long 30 is ActiveState rbdcrypt-nbd@wrong.service failed
	same status 2 "$(unit ExecMainStatus rbdcrypt-nbd@wrong.service)"
	same restarts 0 "$(unit NRestarts rbdcrypt-nbd@wrong.service)"
}

bad_line_is_named() {
	grep 'rbdcrypt-generator.*/etc/rbdcrypt/rbdcrypttab.d/more:2: too few fields; expected' \
		$T/dmesg
}

file_system_is_clean() {
	wait_long 90 mountpoint -q /srv/vol
	same file "$(<"$RESULT/sum")" "$(sha256sum </srv/vol/file)"
	journalctl -b -o cat -t systemd-fsck | grep ': clean'
	fails grep -E 'EXT4-fs.*(recover|error|warning)' $T/dmesg
}

first() {
	claim bad-line-is-named
	claim file-system-of-fstab-is-mounted
	claim data-can-be-written
	claim names-lead-to-the-device
	claim service-is-what-its-unit-says
	claim wrong-passphrase-is-tried-once
	claim volume-starts-when-its-key-appears
	claim partitions-have-names-and-nothing-is-left
	claim daemon-of-the-host-serves
	claim restart-and-kill-are-not-seen
	guest_end
}

second() {
	claim file-system-is-clean
	guest_end
}

case ${1:-} in
'') on_the_machine ;;
prepare) prepare ;;
cluster-start) start_cluster ;;
cluster-stop) stop_cluster ;;
first | second)
	mkdir -p $T
	# Claims empty the kernel's buffer, and show this file when they fail.
	dmesg >$T/dmesg
	"$1"
	;;
esac
