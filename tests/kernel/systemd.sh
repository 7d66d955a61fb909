#!/bin/bash
# SPDX-License-Identifier: GPL-2.0-or-later
# Copyright (C) 2026 the rbdcrypt-nbd authors
#
# systemd.sh: a Debian 13 machine with our files installed, booted twice with systemd. A line of
# fstab on an encrypted clone is mounted, the service restarts under verified IO, the machine goes
# down, and comes up with the file system clean.
#
# That much is for every check; LONG=1 makes all claims, twelve minutes, and then those on a Debian 12
# machine, too, if that is what this one is. RELEASES="debian-12 debian-13" chooses machines,
# KERNEL_CLAIMS claims.
#
# The script is all of it: without an argument it boots the machines, "prepare" runs before
# systemd there, "cluster-start" and "cluster-stop" are a service of theirs, and "first" and "second"
# make the claims of a boot.

# test: heavy time=3600

# Paths and names of ours have no blanks.
# shellcheck disable=SC2086
# shellcheck source=tests/kernel/guest.sh
. "${BASH_SOURCE[0]%/*}/guest.sh"
# shellcheck source=tests/lib/trixie.sh
. "${BASH_SOURCE[0]%/*}/../lib/trixie.sh"
# shellcheck source=tests/kernel/machine.sh
. "${BASH_SOURCE[0]%/*}/machine.sh"

# What is claimed in a check.
SHORT='^(bad-line-is-named|file-system-of-fstab-is-mounted|data-can-be-written|names-lead-to-the-device'
SHORT+='|services-are-what-their-units-say|wrong-passphrase-is-tried-once'
SHORT+='|volume-starts-when-its-key-appears|restart-and-kill-are-not-seen'
SHORT+='|device-of-a-service-waits-for-its-key|file-system-is-clean)$'

SELF=$KERNEL_DIR/${0##*/}
VOL=/dev/rbdcrypt/rbd/vol

# ---- on the machine ----

boot() { # RESULT BOOT [UML_OPTION]...
	local result=$1 which=$2
	shift 2
	printf '%s\n' "BOOT=$which O=${BUILD@Q} RBDCRYPT_NBD=/usr/bin/rbdcrypt-nbd bash ${SELF@Q} prepare" \
		>"$result/prepare"
	uml_run --time 1800 --mem 2G --nbds 8 --result "$result" --systemd "$@" env KERNEL_GUEST=1 \
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
	[[ ${LONG:-}${KERNEL_CLAIMS:-}${RELEASES:-} ]] || KERNEL_CLAIMS=$SHORT
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

# ---- claims ----

# After a claim that failed, in place of guest.sh's: what others go on with stays as it is.
sweep() {
	local image
	[[ ! -e /etc/keys/away ]] || mv /etc/keys/away /etc/keys/vol.key
	systemctl stop rbdcrypt-nbd@part.service
	for image in host other part a-b; do
		timeout 20 rbdcrypt-nbd unmap --force rbd/$image 2>/dev/null
	done
}

# wait_for, and why not.
wait_long() {
	wait_for "$@" || { journalctl -b -o short-monotonic -u 'rbdcrypt*' | tail -n 60; return 1; }
}

# What a service says is in the journal a little later.
logged() { journalctl -b -o cat "${@:2}" | grep -- "$1"; } # PATTERN JOURNALCTL-OPTION...

unit() { systemctl show --value -p "$1" "$2"; } # PROPERTY UNIT
drop_in() { # UNIT LINE...
	mkdir -p "/run/systemd/system/$1.d"
	printf '%s\n' "${@:2}" >"/run/systemd/system/$1.d/test.conf"
	systemctl daemon-reload
}
gone_link() { [[ ! -e $1 ]]; }
# By the host's daemon, which is started if it has to be.
nbd_host_map() { # IMAGE
	systemctl start rbdcrypt-nbd.service
	nbd map --encryption-passphrase-file /etc/keys/vol.key "rbd/$1"
	same host "$(unit MainPID rbdcrypt-nbd.service)" \
		"$(daemon_of "$(realpath "/dev/rbdcrypt/rbd/$1")")"
}
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

# confined UNIT
confined() {
	local pid task flags field
	pid=$(unit MainPID "$1")
	for field in CapEff CapPrm CapInh; do
		flags=$(sed -n "s/^$field:\t//p" /proc/$pid/status)
		# CAP_SYS_ADMIN is number 21.
		[[ $((16#$flags & ~(1 << 21))) == 0 ]] || { echo "$field $flags"; return 1; }
	done
	same no-new-privileges 1 "$(sed -n 's/^NoNewPrivs:\t//p' /proc/$pid/status)"
	same seccomp 2 "$(sed -n 's/^Seccomp:\t//p' /proc/$pid/status)"
	same files 524288 "$(sed -n 's/^Max open files *\([0-9]*\).*/\1/p' /proc/$pid/limits)"
	same oom -900 "$(</proc/$pid/oom_score_adj)"
	[[ $(sed -n 's/^VmLck:[^0-9]*\([0-9]*\) kB/\1/p' /proc/$pid/status) -gt ${2:-10000} ]]
	# PF_MEMALLOC_NOIO and PF_LOCAL_THROTTLE, what PR_SET_IO_FLUSHER sets.
	for task in /proc/"$pid"/task/*; do
		# The thread of a volume that has nothing to do ends.
		flags=$(sed 's/.*) //' $task/stat | cut -d ' ' -f 7) && [[ $flags ]] || continue
		[[ $((flags & 0x180000)) == $((0x180000)) ]] ||
			{ echo "$(<$task/comm): flags $flags"; return 1; }
	done
}

services_are_what_their_units_say() {
	confined rbdcrypt-nbd@vol.service
	nbd_host_map host
	confined rbdcrypt-nbd.service
	nbd unmap rbd/host
}

# Where the kernel shares processors out, it gives no other group of processes real time.
at_the_root() { echo $BASHPID >/sys/fs/cgroup/cgroup.procs; }

# Its walls with somebody else inside, who tries them.
walls_hold() {
	local unit=rbdcrypt-nbd@walls.service
	modprobe loop
	# Where the unit's own /tmp does not hide it.
	cp "$TOOLS/walls" $T/walls
	same outside "$($T/walls names)" "$(at_the_root && $T/walls)"
	drop_in $unit '[Service]' Type=oneshot WatchdogSec=0 Restart=no ExecStop= ExecStart= \
		ExecStart=$T/walls StandardOutput=file:$T/walls.out
	systemctl start $unit
	same inside '' "$(<$T/walls.out)"
}

core_is_refused() {
	local pid
	echo "$T/core.%p" >/proc/sys/kernel/core_pattern
	systemctl start rbdcrypt-nbd@part.service
	pid=$(unit MainPID rbdcrypt-nbd@part.service)
	prlimit --pid $pid --core=unlimited:unlimited
	kill -ABRT $pid
	wait_long 60 is NRestarts rbdcrypt-nbd@part.service 1
	wait_long 60 is ActiveState rbdcrypt-nbd@part.service active
	fails ls $T/core.*
	(ulimit -c unlimited && sh -c 'kill -ABRT $$') || :
	ls $T/core.*
	rm $T/core.*
	systemctl stop rbdcrypt-nbd@part.service
}

# After a restart; they are in the store no more.
goes_on_with_its_sockets() { # UNIT
	wait_long 60 logged 'goes on with \([0-9]*\) of \1 sockets' -u "$1"
	wait_long 60 is NFileDescriptorStore "$1" 0
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
	goes_on_with_its_sockets rbdcrypt-nbd@vol.service
	wait_long 60 logged 'handed over: \([0-9]*\) of \1 sockets' \
		MESSAGE_ID=439a195e872e460197c84fad98dfc727 RBDCRYPT_DEVICE="$dev"
	pid=$(unit MainPID rbdcrypt-nbd@vol.service)
	kill -KILL $pid
	wait_long 60 is NRestarts rbdcrypt-nbd@vol.service 1
	wait_long 60 is ActiveState rbdcrypt-nbd@vol.service active
	wait $fio || { cat $T/fio; return 1; }
	same device "$dev" "$(realpath $VOL)"
	mountpoint -q /srv/vol
	same file "$(<"$RESULT/sum")" "$(sha256sum </srv/vol/file)"
	fails grep -E 'I/O error|Buffer I/O' <(dmesg)
}

watchdog_of() { # UNIT DEVICE: a stuck process is replaced, one whose cluster is away is not
	local osd write before
	drop_in "$1" '[Service]' WatchdogSec=5
	systemctl restart "$1"
	before=$(unit NRestarts "$1")
	pause "$(unit MainPID "$1")"
	wait_long 60 is NRestarts "$1" $((before + 1))
	wait_long 60 is ActiveState "$1" active
	dd if=/dev/zero of="$2" bs=4k count=1 oflag=direct status=none

	osd=$(pgrep -x ceph-osd)
	pause $osd
	dd if=/dev/zero of="$2" bs=4k count=16 oflag=direct status=none &
	# shellcheck disable=SC2031
	write=$!
	sleep 12
	kill -0 $write
	kill -CONT $osd
	wait $write
	same restarts $((before + 1)) "$(unit NRestarts "$1")"
}

# With a volume of either kind of service: its unit and device.
of_a_volume() { # FUNCTION
	systemctl start rbdcrypt-nbd@part.service
	"$1" rbdcrypt-nbd@part.service /dev/rbdcrypt/rbd/part
	systemctl stop rbdcrypt-nbd@part.service
}
of_the_host() { # FUNCTION
	nbd_host_map host
	"$1" rbdcrypt-nbd.service /dev/rbdcrypt/rbd/host
	nbd unmap rbd/host
}

stuck_volume_is_no_stuck_daemon() { of_a_volume watchdog_of; }
stuck_volume_is_no_stuck_daemon_of_the_host() { of_the_host watchdog_of; }

is_canceled() { # stop|restart UNIT
	local rc=0
	systemctl "$1" "$2" 2>$T/said || rc=$?
	cat $T/said
	same "status of $1" 1 $rc
	grep canceled $T/said
}

# A stop must not take the device from under a file system: it is refused, and the volume served.
stop_is_refused() { # UNIT DEVICE
	mkfs.ext4 -q "$2"
	mount "$2" /mnt/host
	is_canceled stop "$1"
	wait_long 60 is ActiveState "$1" active
	wait_long 60 logged "in use: mounted.*/mnt/host" -u "$1"
	dd if=/dev/zero of=/mnt/host/file bs=64k count=1 conv=fsync status=none
	umount /mnt/host
	systemctl stop "$1"
	wait_for 30 gone_link "$2"
	same result success "$(unit Result "$1")"
}

stop_of_a_mounted_volume_is_refused() {
	systemctl start rbdcrypt-nbd@part.service
	stop_is_refused rbdcrypt-nbd@part.service /dev/rbdcrypt/rbd/part
}

stop_of_the_daemon_of_the_host_unmaps() {
	nbd_host_map other
	nbd_host_map host
	stop_is_refused rbdcrypt-nbd.service /dev/rbdcrypt/rbd/host
	wait_for 30 gone_link /dev/rbdcrypt/rbd/other
	same list '' "$(listed '.[] | select(.image == "host" or .image == "other") | .image')"
}

# The only key that is left is in the daemon: neither a stop nor a restart ends it, for longer than
# systemd would wait by itself.
lost_key_keeps_the_daemon_of() { # UNIT DEVICE
	local pid verb
	drop_in "$1" '[Service]' TimeoutStopSec=10
	pid=$(unit MainPID "$1")
	for verb in stop restart; do
		mv /etc/keys/vol.key /etc/keys/away
		is_canceled $verb "$1"
		sleep 20
		same daemon $pid "$(unit MainPID "$1")"
		dd if="$2" of=/dev/null bs=4k count=1 iflag=direct status=none
		mv /etc/keys/away /etc/keys/vol.key
		wait_long 40 gone $pid
		wait_long 60 is ActiveState "$1" active
		pid=$(unit MainPID "$1")
		dd if="$2" of=/dev/null bs=4k count=1 iflag=direct status=none
	done
	wait_long 60 logged "might not open again" -u "$1"
}

lost_key_keeps_the_daemon() { of_a_volume lost_key_keeps_the_daemon_of; }
lost_key_keeps_the_daemon_of_the_host() { of_the_host lost_key_keeps_the_daemon_of; }

# One that died has nobody to ask. Its requests wait, and it is tried again until there is a key.
device_of_a_service_waits_for_its_key() {
	local unit=rbdcrypt-nbd@part.service before read
	systemctl start $unit
	before=$(unit NRestarts $unit)
	mv /etc/keys/vol.key /etc/keys/away
	kill -KILL "$(unit MainPID $unit)"
	dd if=/dev/rbdcrypt/rbd/part of=/dev/null bs=4k count=1 iflag=direct status=none &
	# shellcheck disable=SC2031
	read=$!
	wait_long 60 eval '(($(unit NRestarts $unit) > before + 1))'
	wait_long 60 eval 'nbd status rbd/part | grep "waits: .*vol.key"'
	kill -0 $read
	mv /etc/keys/away /etc/keys/vol.key
	wait_long 60 is ActiveState $unit active
	wait $read
	nbd status rbd/part >$T/said
	fails grep "waits:" $T/said
	systemctl stop $unit
}

# The copies of a mount in other namespaces keep the device, too; the daemon's own does not.
mount_elsewhere_keeps_the_device() {
	local elsewhere dev
	systemctl start rbdcrypt-nbd@part.service
	dev=$(realpath /dev/rbdcrypt/rbd/part)
	mkfs.ext4 -q $dev
	mount $dev /mnt/host
	unshare --mount --propagation private sleep 1000 &
	# shellcheck disable=SC2031
	elsewhere=$!
	sleep 1
	systemctl restart rbdcrypt-nbd@part.service
	umount /mnt/host
	refused 5 "$dev is in use" nbd unmap $dev
	kill $elsewhere
	wait $elsewhere || :
	nbd unmap --wait 5 $dev
	wait_long 60 is ActiveState rbdcrypt-nbd@part.service inactive
}

isolating_a_target_leaves_volumes() {
	local pid
	pid=$(unit MainPID rbdcrypt-nbd@vol.service)
	nbd_host_map host
	printf '[Unit]\nRequires=basic.target\nAllowIsolate=yes\n' >/run/systemd/system/quiet.target
	systemctl daemon-reload
	systemctl isolate quiet.target
	mountpoint -q /srv/vol
	same pid $pid "$(unit MainPID rbdcrypt-nbd@vol.service)"
	same host active "$(unit ActiveState rbdcrypt-nbd.service)"
	systemctl start --no-block multi-user.target
	nbd unmap rbd/host
}

new_line_is_started_with_the_target() {
	local more=/etc/rbdcrypt/rbdcrypttab.d/more
	cp $more $T/more
	sed -i '/^part/s/noauto/nofail/' $more
	systemctl daemon-reload
	systemctl start rbdcrypt.target
	wait_long 60 is ActiveState rbdcrypt-nbd@part.service active
	cp $T/more $more
	systemctl daemon-reload
	systemctl stop rbdcrypt-nbd@part.service
}

wrong_line_leaves_what_runs() {
	local pid unit=rbdcrypt-nbd@vol.service
	pid=$(unit MainPID $unit)
	cp /etc/rbdcrypt/rbdcrypttab $T/tab
	sed -i 's/^vol .*/vol rbd\/vol/' /etc/rbdcrypt/rbdcrypttab
	systemctl daemon-reload
	fails systemctl restart $unit
	same pid $pid "$(unit MainPID $unit)"
	systemctl status $unit | grep 'rbdcrypttab:1: too few fields'
	sync -f /srv/vol/file
	cp $T/tab /etc/rbdcrypt/rbdcrypttab
	systemctl daemon-reload
	systemctl restart $unit
	fails same pid $pid "$(unit MainPID $unit)"
	same file "$(<"$RESULT/sum")" "$(sha256sum </srv/vol/file)"
}

upgrade_leaves_volumes_alone() {
	local pid
	pid=$(unit MainPID rbdcrypt-nbd@vol.service)
	# As make install does it.
	cp /usr/bin/rbdcrypt-nbd $T/new
	install -m 755 $T/new /usr/bin/rbdcrypt-nbd
	systemctl daemon-reload
	udevadm control --reload
	same pid $pid "$(unit MainPID rbdcrypt-nbd@vol.service)"
	readlink /proc/$pid/exe | grep '(deleted)'
	same file "$(<"$RESULT/sum")" "$(sha256sum </srv/vol/file)"
	systemctl restart rbdcrypt-nbd@vol.service
	same program /usr/bin/rbdcrypt-nbd "$(readlink "/proc/$(unit MainPID rbdcrypt-nbd@vol.service)/exe")"
}

# As "systemctl edit" makes it.
options_of_a_drop_in_count() {
	local unit=rbdcrypt-nbd@part.service
	drop_in $unit '[Service]' 'Environment="RBDCRYPT_OPTIONS=--read-only --cookie of-the-drop-in"'
	systemctl start $unit
	same access 1 "$(sysfs "$(realpath /dev/rbdcrypt/rbd/part)" ro)"
	same cookie of-the-drop-in "$(listed '.[] | select(.image == "part") | .cookie')"
	systemctl stop $unit
	rm /run/systemd/system/$unit.d/test.conf
	systemctl daemon-reload
	fails journalctl -b -o cat -g 'unset environment variable.*RBDCRYPT_OPTIONS'
}

# An image without a line in the table, whose unit's name has a backslash.
credential_is_a_key_source() {
	local unit dev pid
	unit=rbdcrypt-nbd@$(systemd-escape rbd/a-b).service
	cp /etc/keys/vol.key /run/t/cred
	drop_in "$unit" '[Service]' LoadCredential=vol:/run/t/cred \
		'Environment=RBDCRYPT_OPTIONS="--encryption-passphrase-file=cred:vol"'
	systemctl start "$unit"
	dev=$(realpath /dev/rbdcrypt/rbd/a-b)
	pid=$(unit MainPID "$unit")
	mkfs.ext4 -q $dev
	mount $dev /mnt/host
	systemctl restart "$unit"
	mountpoint -q /mnt/host
	fails same pid $pid "$(unit MainPID "$unit")"
	umount /mnt/host
	systemctl stop "$unit"
	mkdir -p /var/lib/systemd
	systemd-creds encrypt --with-key=host --name=vol /run/t/cred /run/t/cred.sealed
	rm /run/t/cred
	drop_in "$unit" '[Service]' LoadCredentialEncrypted=vol:/run/t/cred.sealed \
		'Environment=RBDCRYPT_OPTIONS="--encryption-passphrase-file=cred:vol"'
	systemctl start "$unit"
	[[ -b /dev/rbdcrypt/rbd/a-b ]]
	systemctl stop "$unit"
}

question() { sed -n 's/^Socket=//p' /run/systemd/ask-password/ask.* 2>/dev/null; }
is_asked() { [[ $(question) && $(question) != "${1:-}" ]]; } # LAST_QUESTION

# As a password agent does it.
passphrase_is_asked_for() {
	local unit first
	unit=rbdcrypt-nbd@$(systemd-escape rbd/a-b).service
	[[ " $(unit After "$unit") " == *' systemd-tmpfiles-setup.service '* ]]
	drop_in "$unit" '[Service]' 'Environment=RBDCRYPT_OPTIONS=--encryption-passphrase-file=ask:'
	systemctl start --no-block "$unit"
	wait_long 60 is_asked
	same state activating "$(unit ActiveState "$unit")"
	systemctl status "$unit" | grep 'Status: .*waiting for the passphrase of layer 1, rbd/a-b'
	grep 'Message=Passphrase for layer 1, rbd/a-b' /run/systemd/ask-password/ask.*
	first=$(question)
	printf 'a wrong one' | /lib/systemd/systemd-reply-password 1 "$first"
	wait_long 60 is_asked "$first"
	printf 'first secret' | /lib/systemd/systemd-reply-password 1 "$(question)"
	wait_long 60 is ActiveState "$unit" active
	same restarts 0 "$(unit NRestarts "$unit")"
	[[ -b /dev/rbdcrypt/rbd/a-b ]]
	systemctl stop "$unit"
	same result success "$(unit Result "$unit")"
}

noauto_volume_starts_with_its_mount() {
	same before inactive "$(unit ActiveState rbdcrypt-nbd@part.service)"
	systemctl start srv-part.mount
	mountpoint -q /srv/part
	same service active "$(unit ActiveState rbdcrypt-nbd@part.service)"
	systemctl stop srv-part.mount
	systemctl stop rbdcrypt-nbd@part.service
}

# The device is there then, and the volume's own unit has nothing to do with it, nor fails.
noauto_volume_is_mapped_by_others() {
	local service=rbdcrypt-nbd@part.service
	nbd_host_map part
	udevadm settle
	wait_long 60 is ActiveState dev-rbdcrypt-rbd-part.device active
	systemctl start srv-part.mount
	mountpoint -q /srv/part
	sleep 2
	same service inactive "$(unit ActiveState $service)"
	same starts 0 "$(unit NRestarts $service)"
	systemctl stop srv-part.mount
	nbd unmap rbd/part
	wait_for 30 gone_link /dev/rbdcrypt/rbd/part
	systemctl start srv-part.mount
	same service active "$(unit ActiveState $service)"
	systemctl stop srv-part.mount
	systemctl stop $service
}

volume_starts_when_its_key_appears() {
	same before inactive "$(unit ActiveState rbdcrypt-nbd@later.service)"
	mkdir -p /run/keys
	cp /etc/keys/vol.key /run/keys/later.key
	wait_long 60 is ActiveState rbdcrypt-nbd@later.service active
	# The line of fstab has waited, too.
	wait_long 60 mountpoint -q /srv/later
	umount /srv/later
	systemctl stop rbdcrypt-nbd@later.service
	wait_for 30 gone_link /dev/rbdcrypt/rbd/later
}

volume_starts_when_its_keys_are_mounted() {
	fails systemctl start rbdcrypt-nbd@moved.service
	same assert no "$(unit AssertResult rbdcrypt-nbd@moved.service)"
	mount --bind /etc/keys /keys
	wait_long 60 is ActiveState rbdcrypt-nbd@moved.service active
	systemctl stop rbdcrypt-nbd@moved.service
	umount /keys
}

# The mount unit and the drop-ins that come with the documents.
examples_work() {
	local from=/usr/share/doc/rbdcrypt-nbd/examples
	cp $from/srv-db.mount /etc/systemd/system/
	mkdir -p /etc/systemd/system/{dbd.service.d,rbdcrypt-nbd@db.service.d}
	printf '[Service]\nExecStart=sleep 1000\n' >/etc/systemd/system/dbd.service
	cp $from/after-the-volume.conf /etc/systemd/system/dbd.service.d/
	cp $from/keys-on-their-own-mount.conf /etc/systemd/system/rbdcrypt-nbd@db.service.d/
	systemctl daemon-reload
	fails systemctl start rbdcrypt-nbd@db.service
	mount --bind /etc/keys /keys
	systemctl start rbdcrypt-nbd@db.service
	mkfs.ext4 -q /dev/rbdcrypt/rbd/db
	systemctl start dbd.service
	mountpoint -q /srv/db
	# What stands on the volume goes first.
	systemctl stop rbdcrypt-nbd@db.service
	same service inactive "$(unit ActiveState dbd.service)"
	fails mountpoint -q /srv/db
	same result success "$(unit Result rbdcrypt-nbd@db.service)"
	# For the shutdown, in which it must be unmounted first, too; and another volume's key is away.
	systemctl start dbd.service
	umount /keys
}

# For the shutdown: to systemd it is a local file system, whose turn comes after the network's.
mount_by_hand_is_left() {
	local dev=/dev/rbdcrypt/rbd/host
	nbd_host_map host
	mkfs.ext4 -q $dev
	mount $dev /mnt/host
	head -c 1M /dev/urandom >/mnt/host/file
}

serves_again() { # DEVICE
	[[ $(daemon_of "$1") == "$(unit MainPID rbdcrypt-nbd.service)" &&
		$(listed ".[] | select(.device == \"$1\") | .state") == mapped ]]
}

daemon_of_the_host_serves() {
	local dev
	systemctl start rbdcrypt-nbd.service
	same socket '660 rbdcrypt' "$(stat -c '%a %G' /run/rbdcrypt-nbd/control)"
	dev=$(nbd map --encryption-passphrase-file /etc/keys/vol.key rbd/host)
	same daemon "$(unit MainPID rbdcrypt-nbd.service)" "$(daemon_of "$dev")"
	same name "$dev" "$(realpath /dev/rbdcrypt/rbd/host)"
	systemctl reload rbdcrypt-nbd.service
	same reloaded "$(daemon_of "$dev")" "$(unit MainPID rbdcrypt-nbd.service)"
	systemctl restart rbdcrypt-nbd.service
	wait_long 60 serves_again "$dev"
	goes_on_with_its_sockets rbdcrypt-nbd.service
	nbd unmap rbd/host
	systemctl stop rbdcrypt-nbd.service rbdcrypt-nbd.socket
	same result success "$(unit Result rbdcrypt-nbd.service)"
}

wrong_passphrase_is_tried_once() {
	wait_long 60 is ActiveState rbdcrypt-nbd@wrong.service failed
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
	wait_long 60 logged ': clean' -t systemd-fsck
	fails grep -E 'EXT4-fs.*(recover|error|warning)' $T/dmesg
}

first() {
	claim bad-line-is-named
	claim file-system-of-fstab-is-mounted
	claim data-can-be-written
	claim names-lead-to-the-device
	claim services-are-what-their-units-say
	claim walls-hold
	claim core-is-refused
	claim wrong-passphrase-is-tried-once
	claim volume-starts-when-its-key-appears
	claim volume-starts-when-its-keys-are-mounted
	claim noauto-volume-starts-with-its-mount
	claim noauto-volume-is-mapped-by-others
	claim partitions-have-names-and-nothing-is-left
	claim daemon-of-the-host-serves
	claim options-of-a-drop-in-count
	claim credential-is-a-key-source
	claim passphrase-is-asked-for
	claim restart-and-kill-are-not-seen
	claim new-line-is-started-with-the-target
	claim wrong-line-leaves-what-runs
	claim upgrade-leaves-volumes-alone
	claim mount-elsewhere-keeps-the-device
	claim isolating-a-target-leaves-volumes
	claim stop-of-a-mounted-volume-is-refused
	claim stop-of-the-daemon-of-the-host-unmaps
	claim lost-key-keeps-the-daemon
	claim lost-key-keeps-the-daemon-of-the-host
	claim device-of-a-service-waits-for-its-key
	claim stuck-volume-is-no-stuck-daemon
	claim stuck-volume-is-no-stuck-daemon-of-the-host
	claim examples-work
	claim mount-by-hand-is-left
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
	wait_for 240 is ActiveState testcluster.service active
	# Claims empty the kernel's buffer, and show this file when they fail.
	dmesg >$T/dmesg
	"$1"
	;;
esac
