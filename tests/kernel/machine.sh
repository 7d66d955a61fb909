# shellcheck shell=bash
# SPDX-License-Identifier: GPL-2.0-or-later
# Copyright (C) 2026 the rbdcrypt-nbd authors
#
# machine.sh: what systemd.sh finds on the machine that it boots: our files, a table, lines of fstab,
# and a cluster with images, which is a service there. Sourced by it, after guest.sh; SELF is its path.

# Paths and names of ours have no blanks.
# shellcheck disable=SC2086

# ---- before systemd ----

prepare() {
	tar -C / --keep-directory-symlink --no-overwrite-dir -xf "$RESULT/files.tar"
	mkdir -p /etc/rbdcrypt /etc/keys /keys /mnt/host /srv/{vol,later,part,db}
	printf 'first secret' >/etc/keys/vol.key
	printf 'a wrong one' >/etc/keys/wrong.key
	chmod 600 /etc/keys/*
	printf '%s\n' 'vol rbd/vol /etc/keys/vol.key' 'db rbd/db /etc/keys/vol.key noauto' \
		>/etc/rbdcrypt/rbdcrypttab
	mkdir -p /etc/rbdcrypt/rbdcrypttab.d
	[[ $BOOT == second ]] || cat >/etc/rbdcrypt/rbdcrypttab.d/more <<-'END'
		# The second line is wrong.
		broken
		wrong  rbd/wrong  /etc/keys/wrong.key  nofail
		later  rbd/later  /run/keys/later.key  key-wait,nofail
		part   rbd/part   /etc/keys/vol.key    noauto
		moved  rbd/moved  /keys/vol.key        key-wait,key-mount=/keys
	END
	# The cluster is this machine's own and takes its time.
	echo "$VOL /srv/vol ext4 _netdev,x-systemd.makefs,x-systemd.device-timeout=5min 0 2" >/etc/fstab
	[[ $BOOT == second ]] || cat >>/etc/fstab <<-'END'
		/dev/rbdcrypt/rbd/later /srv/later ext4 _netdev,nofail,x-systemd.device-timeout=0,x-systemd.makefs 0 0
		/dev/rbdcrypt/rbd/part  /srv/part  ext4 _netdev,noauto,x-systemd.makefs 0 0
	END
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
	# The claims go on when a claim isolates a target.
	mkdir -p /etc/systemd/system/{testbed,testcluster}.service.d
	printf '[Unit]\nIgnoreOnIsolate=yes\n' |
		tee /etc/systemd/system/{testbed,testcluster}.service.d/stays.conf >/dev/null
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
	for name in wrong later part moved db a-b host other; do
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
