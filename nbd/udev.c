/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Copyright (C) 2026 the rbdcrypt-nbd authors */

/*
 * "Connected" is not "usable": udev still has to probe the device, make its
 * links, and let go of it. We ask the kernel for one more "change" event that
 * carries a number only we know, and wait until udev announces to have finished
 * exactly that one; then the same of each partition. Where no udev runs (containers, small systems)
 * the node is all there is to wait for. Blocking until the deadline; a volume's thread or command
 * line, never a thread that serves IO, because probing is IO.
 */

#include "internal.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <libudev.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <sys/inotify.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <unistd.h>

#include "clock.h"
#include "scope.h"

static void scope_unref_udev(struct udev **u)
{
	udev_unref(*u);
}
#define scope_udev __attribute__((cleanup(scope_unref_udev)))

static void scope_unref_monitor(struct udev_monitor **m)
{
	udev_monitor_unref(*m);
}
#define scope_monitor __attribute__((cleanup(scope_unref_monitor)))

/* How long to wait, and what is looked after meanwhile. */
struct patience {
	int64_t deadline_ms;
	const struct nbd_meanwhile *m; /* NULL: nothing */
};

/* 0 when fd is readable, -ETIMEDOUT, -EINTR, or -errno. */
static int wait_readable(int fd, const struct patience *w)
{
	struct pollfd p[] = { { .fd = fd, .events = POLLIN },
			      { .fd = w->m ? w->m->fd : -1, .events = POLLIN } };
	const struct interrupt *i = w->m ? w->m->interrupt : NULL;

	for (;;) {
		int64_t left = w->deadline_ms - clock_ms();
		int r = poll(p, 2, interrupt_slice(i, left));

		if (r < 0 && errno != EINTR)
			return -errno;
		if (interrupt_is_raised(i))
			return -EINTR;
		if (r == 0 && clock_ms() >= w->deadline_ms)
			return -ETIMEDOUT;
		if (r > 0 && p[1].revents)
			w->m->ready(w->m->arg);
		if (r > 0 && p[0].revents)
			return 0;
	}
}

/* A random (version 4) UUID: the form that the kernel demands for a marked event. */
static int make_uuid(char ret[37])
{
	unsigned char b[16];

	if (getrandom(b, sizeof(b), 0) != (ssize_t)sizeof(b))
		return -EIO;
	b[6] = (unsigned char)((b[6] & 0x0f) | 0x40);
	b[8] = (unsigned char)((b[8] & 0x3f) | 0x80);
	(void)snprintf(ret, 37,
		       "%02x%02x%02x%02x-%02x%02x-%02x%02x-%02x%02x-%02x%02x%02x%02x%02x%02x", b[0],
		       b[1], b[2], b[3], b[4], b[5], b[6], b[7], b[8], b[9], b[10], b[11], b[12],
		       b[13], b[14], b[15]);
	return 0;
}

static int trigger(int dir_fd, const char *uuid)
{
	scope_fd int fd = openat(dir_fd, "uevent", O_WRONLY | O_CLOEXEC | O_NOFOLLOW);
	char text[64];
	int n = snprintf(text, sizeof(text), "change %s", uuid);

	if (fd < 0)
		return -errno;
	return write(fd, text, (size_t)n) < 0 ? -errno : 0;
}

/* name is "nbd3" or, for a partition of it, "nbd3p1". */
static bool is_ours(struct udev_device *d, const char *name, const char *uuid)
{
	const char *got_name = udev_device_get_sysname(d);
	const char *got = udev_device_get_property_value(d, "SYNTH_UUID");

	return got_name && got && strcmp(got_name, name) == 0 && strcmp(got, uuid) == 0;
}

static int wait_for_event(struct udev_monitor *m, const char *name, const char *uuid,
			  const struct patience *w)
{
	for (;;) {
		struct udev_device *d;
		bool found;
		int r = wait_readable(udev_monitor_get_fd(m), w);

		if (r < 0)
			return r;
		/* NULL: a message that the filter let through only as far as here. */
		d = udev_monitor_receive_device(m);
		found = d && is_ours(d, name, uuid);
		udev_device_unref(d);
		if (found)
			return 0;
	}
}

static int trigger_and_wait(struct udev_monitor *m, int dir_fd, const char *name,
			    const struct patience *w)
{
	char uuid[37];
	int r = make_uuid(uuid);

	if (r == 0)
		r = trigger(dir_fd, uuid);
	return r < 0 ? r : wait_for_event(m, name, uuid, w);
}

/*
 * The kernel found the partitions while the disk was being probed for the first time, when its
 * names were not known yet; theirs are made from them.
 */
static int settle_partitions(struct udev_monitor *m, int dir_fd, int index,
			     const struct patience *w)
{
	int fd = openat(dir_fd, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC), r = 0;
	DIR *dir = fd < 0 ? NULL : fdopendir(fd);
	struct dirent *entry;
	char prefix[32];
	int len = snprintf(prefix, sizeof(prefix), "nbd%dp", index);

	if (!dir) {
		r = -errno;
		if (fd >= 0)
			(void)close(fd);
		return r;
	}
	while (r == 0 && (entry = readdir(dir))) {
		scope_fd int partition = -1;

		if (strncmp(entry->d_name, prefix, (size_t)len) != 0)
			continue;
		partition = openat(dir_fd, entry->d_name, O_PATH | O_DIRECTORY | O_CLOEXEC);
		/* One that is gone again needs no name. */
		if (partition >= 0)
			r = trigger_and_wait(m, partition, entry->d_name, w);
		if (r == -ENOENT || r == -ENODEV)
			r = 0;
	}
	(void)closedir(dir);
	return r;
}

static int settle(int dir_fd, int index, const struct patience *w)
{
	scope_udev struct udev *udev = udev_new();
	scope_monitor struct udev_monitor *m = NULL;
	char name[32];
	int r;

	if (!udev)
		return -ENOMEM;
	m = udev_monitor_new_from_netlink(udev, "udev");
	if (!m)
		return -ENOMEM;
	r = udev_monitor_filter_add_match_subsystem_devtype(m, "block", NULL);
	/* Listen before asking, or the answer may be missed. */
	if (r >= 0)
		r = udev_monitor_enable_receiving(m);
	(void)snprintf(name, sizeof(name), "nbd%d", index);
	if (r >= 0)
		r = trigger_and_wait(m, dir_fd, name, w);
	return r < 0 ? r : settle_partitions(m, dir_fd, index, w);
}

/* 1: the node is there and is our device; 0: not yet. */
static int is_node_there(const char *dev_dir, int index, dev_t devno)
{
	char path[4096];
	struct stat st;

	(void)snprintf(path, sizeof(path), "%s/nbd%d", dev_dir, index);
	if (stat(path, &st) < 0)
		return errno == ENOENT ? 0 : -errno;
	return S_ISBLK(st.st_mode) && st.st_rdev == devno;
}

static int wait_for_node(const char *dev_dir, int index, dev_t devno, const struct patience *w)
{
	scope_fd int fd = -1;
	char events[4096] __attribute__((aligned(__alignof__(struct inotify_event))));
	int r;

	r = is_node_there(dev_dir, index, devno);
	if (r != 0)
		return r < 0 ? r : 0;
	fd = inotify_init1(IN_CLOEXEC | IN_NONBLOCK);
	if (fd < 0 || inotify_add_watch(fd, dev_dir, IN_CREATE | IN_MOVED_TO) < 0)
		return -errno;
	for (;;) {
		/* Again after each event, and once after the watch began. */
		r = is_node_there(dev_dir, index, devno);
		if (r != 0)
			return r < 0 ? r : 0;
		r = wait_readable(fd, w);
		if (r < 0)
			return r;
		if (read(fd, events, sizeof(events)) < 0 && errno != EAGAIN && errno != EINTR)
			return -errno;
	}
}

int udev_settle_at(const struct udev_roots *roots, int index, int timeout_ms,
		   const struct nbd_meanwhile *m)
{
	const struct patience w = { clock_ms() + timeout_ms, m };
	scope_fd int dir = sysfs_open_device(roots->block_fd, index);
	dev_t devno;
	int r;

	if (dir < 0)
		return dir;
	r = sysfs_devno_at(dir, "dev", &devno);
	if (r < 0)
		return r;
	if (access(roots->control, F_OK) == 0) {
		r = settle(dir, index, &w);
		if (r < 0)
			return r;
	}
	return wait_for_node(roots->dev, index, devno, &w);
}

int nbd_udev_settle(int index, int timeout_ms, const struct nbd_meanwhile *m)
{
	scope_fd int block = open(SYSFS_BLOCK, O_PATH | O_DIRECTORY | O_CLOEXEC);
	const struct udev_roots roots = { block, "/run/udev/control", "/dev" };

	if (block < 0)
		return -errno;
	return udev_settle_at(&roots, index, timeout_ms, m);
}
