/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Copyright (C) 2026 the rbdcrypt-nbd authors */

/*
 * Who would be hurt if the device went away: mounts, swap, device-mapper or md
 * on top, whoever has it open; of the device or of its partitions. Asked by
 * unmap, and for a device that cannot be had; keeps nothing. What happens
 * in other mount namespaces is not visible by name, but the kernel's exclusive claim is.
 */

#include "internal.h"

#include <ctype.h>
#include <errno.h>
#include <fcntl.h>
#include <libmount.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "scope.h"

/* The driver has at most 255 partitions per device. */
#define PARTS_MAX 256u

/* The device and its partitions. The first one is the whole device. */
struct parts {
	unsigned int n;
	struct part {
		dev_t devno;
		char name[32]; /* nbd0p1 */
	} part[PARTS_MAX];
};

struct answer {
	char *who;
	size_t len;
};

static void scope_free_table(struct libmnt_table **tb)
{
	mnt_unref_table(*tb);
}
#define scope_table __attribute__((cleanup(scope_free_table)))

static void scope_free_iter(struct libmnt_iter **iter)
{
	mnt_free_iter(*iter);
}
#define scope_iter __attribute__((cleanup(scope_free_iter)))

/* -EBUSY, with who filled in. The partition is named when it is not the whole device. */
static int busy(const struct answer *a, const struct parts *parts, const struct part *part,
		const char *how, const char *by)
{
	if (part == parts->part)
		(void)snprintf(a->who, a->len, "%s%s", how, by);
	else
		(void)snprintf(a->who, a->len, "partition %s is %s%s", part->name, how, by);
	return -EBUSY;
}

static const struct part *find_part(const struct parts *parts, dev_t devno)
{
	unsigned int i;

	for (i = 0; i < parts->n; i++)
		if (parts->part[i].devno == devno)
			return &parts->part[i];
	return NULL;
}

/* The part that this path is a node of, or NULL. Only looks below /dev: others may hang. */
static const struct part *find_part_by_path(const struct parts *parts, const char *path)
{
	struct stat st;

	if (!path || strncmp(path, "/dev/", 5) != 0 || stat(path, &st) < 0 || !S_ISBLK(st.st_mode))
		return NULL;
	return find_part(parts, st.st_rdev);
}

static int list_parts(int dir_fd, int index, struct parts *ret)
{
	scope_dir DIR *dir = NULL;
	struct dirent *entry;
	char prefix[32];
	int fd, r;

	r = sysfs_devno_at(dir_fd, "dev", &ret->part[0].devno);
	if (r < 0)
		return r;
	(void)snprintf(ret->part[0].name, sizeof(ret->part[0].name), "nbd%d", index);
	ret->n = 1;
	fd = openat(dir_fd, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (fd < 0)
		return -errno;
	dir = fdopendir(fd);
	if (!dir) {
		r = -errno;
		close(fd);
		return r;
	}
	(void)snprintf(prefix, sizeof(prefix), "nbd%dp", index);
	while ((entry = readdir(dir)) && ret->n < PARTS_MAX) {
		struct part *part = &ret->part[ret->n];
		char path[sizeof(part->name) + 8];

		if (strncmp(entry->d_name, prefix, strlen(prefix)) != 0 ||
		    strlen(entry->d_name) >= sizeof(part->name))
			continue;
		memcpy(part->name, entry->d_name, strlen(entry->d_name) + 1);
		(void)snprintf(path, sizeof(path), "%s/dev", part->name);
		/* A partition may vanish between the two looks. */
		if (sysfs_devno_at(dir_fd, path, &part->devno) == 0)
			ret->n++;
	}
	return 0;
}

/* By device number; by source too, because btrfs mounts have a number of their own. */
static int check_mounts(const char *proc, const struct parts *parts, const struct answer *a)
{
	scope_table struct libmnt_table *tb = NULL;
	scope_iter struct libmnt_iter *iter = NULL;
	struct libmnt_fs *fs;
	char path[4096];

	(void)snprintf(path, sizeof(path), "%s/self/mountinfo", proc);
	errno = 0;
	tb = mnt_new_table_from_file(path);
	if (!tb)
		return errno ? -errno : -EIO;
	iter = mnt_new_iter(MNT_ITER_FORWARD);
	if (!iter)
		return -ENOMEM;
	while (mnt_table_next_fs(tb, iter, &fs) == 0) {
		const struct part *part = find_part(parts, mnt_fs_get_devno(fs));

		if (!part)
			part = find_part_by_path(parts, mnt_fs_get_srcpath(fs));
		if (part)
			return busy(a, parts, part, "mounted on ", mnt_fs_get_target(fs));
	}
	return 0;
}

static int check_swaps(const char *proc, const struct parts *parts, const struct answer *a)
{
	scope_table struct libmnt_table *tb = mnt_new_table();
	scope_iter struct libmnt_iter *iter = mnt_new_iter(MNT_ITER_FORWARD);
	struct libmnt_fs *fs;
	char path[4096];

	if (!tb || !iter)
		return -ENOMEM;
	(void)snprintf(path, sizeof(path), "%s/swaps", proc);
	/* A kernel without swap has no such file. */
	if (access(path, F_OK) < 0)
		return 0;
	if (mnt_table_parse_swaps(tb, path) != 0)
		return -EIO;
	while (mnt_table_next_fs(tb, iter, &fs) == 0) {
		const struct part *part = find_part_by_path(parts, mnt_fs_get_source(fs));

		if (part)
			return busy(a, parts, part, "used as ", "swap");
	}
	return 0;
}

/* dm-3 means little to anyone; its name does. */
static int report_holder(const struct inuse_roots *roots, const struct parts *parts,
			 const struct part *part, const char *holder, const struct answer *a)
{
	char path[300], name[256], by[600];

	(void)snprintf(path, sizeof(path), "%s/dm/name", holder);
	if (sysfs_text_at(roots->block_fd, path, name, sizeof(name)) == 0)
		(void)snprintf(by, sizeof(by), "%s (%s)", holder, name);
	else
		(void)snprintf(by, sizeof(by), "%s", holder);
	return busy(a, parts, part, "held by ", by);
}

static int check_holders(const struct inuse_roots *roots, int dir_fd, const struct parts *parts,
			 const struct answer *a)
{
	unsigned int i;

	for (i = 0; i < parts->n; i++) {
		const struct part *part = &parts->part[i];
		scope_dir DIR *dir = NULL;
		struct dirent *entry;
		char path[64];
		int fd;

		(void)snprintf(path, sizeof(path), "%s%sholders", i > 0 ? part->name : "",
			       i > 0 ? "/" : "");
		fd = openat(dir_fd, path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
		if (fd < 0)
			continue;
		dir = fdopendir(fd);
		if (!dir) {
			close(fd);
			return -ENOMEM;
		}
		while ((entry = readdir(dir)))
			if (entry->d_name[0] != '.')
				return report_holder(roots, parts, part, entry->d_name, a);
	}
	return 0;
}

/* udev looks into every device that changes, and is done in a moment. */
static bool is_passer_by(const char *comm)
{
	return strcmp(comm, "systemd-udevd") == 0 || strcmp(comm, "(udev-worker)") == 0 ||
	       strcmp(comm, "udevd") == 0;
}

static const struct part *find_open_part(int proc_fd, const char *pid, const struct parts *parts)
{
	scope_dir DIR *dir = NULL;
	struct dirent *entry;
	char path[64];
	int fd;

	(void)snprintf(path, sizeof(path), "%.20s/fd", pid);
	fd = openat(proc_fd, path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (fd < 0)
		return NULL;
	dir = fdopendir(fd);
	if (!dir) {
		close(fd);
		return NULL;
	}
	while ((entry = readdir(dir))) {
		const struct part *part;
		char target[256];
		ssize_t n = readlinkat(fd, entry->d_name, target, sizeof(target) - 1);

		if (n < 0)
			continue;
		target[n] = 0;
		part = find_part_by_path(parts, target);
		if (part)
			return part;
	}
	return NULL;
}

/*
 * The first process that has it open, as "fio (pid 12)"; what we may not look into is not seen.
 * Ourselves and udev do not count.
 */
static const struct part *find_opener(const char *proc, const struct parts *parts, char *by,
				      size_t len)
{
	scope_dir DIR *dir = opendir(proc);
	struct dirent *entry;

	if (!dir)
		return NULL;
	while ((entry = readdir(dir))) {
		const struct part *part;
		char path[64], comm[32];

		if (!isdigit((unsigned char)entry->d_name[0]) ||
		    strtol(entry->d_name, NULL, 10) == getpid())
			continue;
		part = find_open_part(dirfd(dir), entry->d_name, parts);
		if (!part)
			continue;
		(void)snprintf(path, sizeof(path), "%.20s/comm", entry->d_name);
		if (sysfs_text_at(dirfd(dir), path, comm, sizeof(comm)) < 0)
			(void)snprintf(comm, sizeof(comm), "a process");
		if (is_passer_by(comm))
			continue;
		(void)snprintf(by, len, "%s (pid %.20s)", comm, entry->d_name);
		return part;
	}
	return NULL;
}

static int check_openers(const struct inuse_roots *roots, int index, const struct parts *parts,
			 const struct answer *a)
{
	char by[128];
	const struct part *part = find_opener(roots->proc, parts, by, sizeof(by));
	/* Fails when the device or a partition is claimed in any namespace. */
	scope_fd int fd = node_open(roots->dev, index, parts->part[0].devno,
				    O_RDONLY | O_EXCL | O_NONBLOCK);

	if (part)
		return busy(a, parts, part, fd == -EBUSY ? "opened exclusively, by " : "opened by ",
			    by);
	if (fd == -EBUSY)
		return busy(a, parts, parts->part, "opened exclusively by ", "another process");
	/* Without a node, nobody opens it by that name. */
	return fd >= 0 || fd == -ENOENT || fd == -ENXIO ? 0 : fd;
}

int inuse_at(const struct inuse_roots *roots, int index, char *who, size_t len)
{
	scope_fd int dir = sysfs_open_device(roots->block_fd, index);
	const struct answer a = { who, len };
	struct parts parts = { 0 };
	int r;

	if (dir < 0)
		return dir;
	if ((r = list_parts(dir, index, &parts)) < 0 ||
	    (r = check_mounts(roots->proc, &parts, &a)) < 0 ||
	    (r = check_swaps(roots->proc, &parts, &a)) < 0 ||
	    (r = check_holders(roots, dir, &parts, &a)) < 0)
		return r;
	return check_openers(roots, index, &parts, &a);
}

int nbd_in_use(int index, char *who, size_t len)
{
	scope_fd int block = open(SYSFS_BLOCK, O_PATH | O_DIRECTORY | O_CLOEXEC);
	const struct inuse_roots roots = { block, "/proc", "/dev" };

	if (block < 0)
		return -errno;
	return inuse_at(&roots, index, who, len);
}
