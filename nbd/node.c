/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Copyright (C) 2026 the rbdcrypt-nbd authors */

/*
 * The device node /dev/nbdX: opened only after a look that it is the device we
 * mean, and written back. Blocking; a volume's thread or command line. Never a
 * thread that serves IO: what is written back here comes in as requests.
 */

#include "internal.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/fs.h>
#include <stdio.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <unistd.h>

#include "scope.h"

int node_open(const char *dev_dir, int index, dev_t devno, int flags)
{
	char path[4096];
	struct stat st;
	int fd;

	(void)snprintf(path, sizeof(path), "%s/nbd%d", dev_dir, index);
	/* Before it is opened: opening some other device can have effects. */
	if (stat(path, &st) < 0)
		return -errno;
	if (!S_ISBLK(st.st_mode) || st.st_rdev != devno)
		return -ENXIO;
	fd = open(path, flags | O_CLOEXEC);
	return fd < 0 ? -errno : fd;
}

int nbd_sync(int index)
{
	scope_fd int block = open(SYSFS_BLOCK, O_PATH | O_DIRECTORY | O_CLOEXEC);
	scope_fd int dir = -1, fd = -1;
	dev_t devno;
	int r;

	if (block < 0)
		return -errno;
	dir = sysfs_open_device(block, index);
	if (dir < 0)
		return dir;
	r = sysfs_devno_at(dir, "dev", &devno);
	if (r < 0)
		return r;
	/*
	 * Read-only is enough to write back what others wrote, works on read-only devices too, and
	 * does not make udev probe a device that is about to go, as the close of a writer would.
	 */
	fd = node_open("/dev", index, devno, O_RDONLY);
	if (fd < 0)
		return fd;
	if (fsync(fd) < 0)
		return -errno;
	/* What is mounted here is synced as well, and no stale page stays for the next user. */
	if (ioctl(fd, BLKFLSBUF, 0) < 0)
		return -errno;
	return 0;
}
