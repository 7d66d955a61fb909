/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Copyright (C) 2026 the rbdcrypt-nbd authors */

/*
 * What the kernel says of an nbd device in /sys/block/nbdX: the only place where
 * one can see what it really took. Plain reads, any thread, nothing kept. The
 * device can come and go at any moment, so that a missing file is an answer too.
 */

#include "internal.h"

#include <ctype.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#include "scope.h"

int sysfs_text_at(int dir_fd, const char *path, char *buf, size_t len)
{
	scope_fd int fd = openat(dir_fd, path, O_RDONLY | O_CLOEXEC | O_NOFOLLOW);
	char text[4097]; /* an attribute is at most a page */
	size_t got = 0;
	ssize_t n;

	if (fd < 0)
		return -errno;
	do {
		n = read(fd, text + got, sizeof(text) - 1 - got);
		if (n < 0 && errno != EINTR)
			return -errno;
		if (n > 0)
			got += (size_t)n;
	} while (n != 0 && got < sizeof(text) - 1);
	if (got > 0 && text[got - 1] == '\n')
		got--;
	if (got >= len)
		return -EOVERFLOW;
	memcpy(buf, text, got);
	buf[got] = 0;
	return 0;
}

static int parse_u64(const char *text, uint64_t *ret)
{
	unsigned long long v;
	char *end;

	/* strtoull takes blanks and signs, which no attribute has. */
	if (!isdigit((unsigned char)text[0]))
		return -EINVAL;
	errno = 0;
	v = strtoull(text, &end, 10);
	if (errno)
		return -errno;
	if (*end)
		return -EINVAL;
	*ret = v;
	return 0;
}

/* A number that older kernels, or other states of the device, may lack: 0 then. */
static int optional_u64_at(int dir_fd, const char *path, uint64_t *ret)
{
	char text[32];
	uint64_t v = 0;
	int r = sysfs_text_at(dir_fd, path, text, sizeof(text));

	if (r == 0)
		r = parse_u64(text, &v);
	else if (r == -ENOENT)
		r = 0;
	if (r == 0)
		*ret = v;
	return r;
}

static int optional_u32_at(int dir_fd, const char *path, uint32_t *ret)
{
	uint64_t v = 0;
	int r = optional_u64_at(dir_fd, path, &v);

	if (r < 0)
		return r;
	if (v > UINT32_MAX)
		return -ERANGE;
	*ret = (uint32_t)v;
	return 0;
}

int sysfs_devno_at(int dir_fd, const char *path, dev_t *ret)
{
	unsigned int major_no, minor_no;
	char text[32], end;
	int r = sysfs_text_at(dir_fd, path, text, sizeof(text));

	if (r < 0)
		return r;
	if (sscanf(text, "%u:%u%c", &major_no, &minor_no, &end) != 2)
		return -EINVAL;
	*ret = makedev(major_no, minor_no);
	return 0;
}

int sysfs_open_device(int block_fd, int index)
{
	char name[32];
	int fd;

	(void)snprintf(name, sizeof(name), "nbd%d", index);
	fd = openat(block_fd, name, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (fd < 0)
		return errno == ENOENT ? -ENODEV : -errno;
	return fd;
}

/*
 * The pid file is there from CONNECT until the last opener after DISCONNECT is gone. The process it
 * names may be long dead, or in another namespace (0).
 */
static int read_pid(int dir_fd, struct nbd_sysfs *s)
{
	char text[32];
	uint64_t pid;
	int r = sysfs_text_at(dir_fd, "pid", text, sizeof(text));

	/* ENODEV: removed between our open and our read. */
	if (r == -ENOENT || r == -ENODEV)
		return 0;
	if (r < 0)
		return r;
	r = parse_u64(text, &pid);
	if (r < 0)
		return r;
	if (pid > INT_MAX)
		return -ERANGE;
	s->is_connected = true;
	s->pid = (int)pid;
	return 0;
}

/* The identifier given to CONNECT. Kernels before 5.14 keep none. */
static int read_cookie(int dir_fd, struct nbd_sysfs *s)
{
	int r = sysfs_text_at(dir_fd, "backend", s->cookie, sizeof(s->cookie));

	return r == -ENOENT || r == -ENODEV ? 0 : r;
}

static int read_write_cache(int dir_fd, struct nbd_sysfs *s)
{
	char text[32];
	int r = sysfs_text_at(dir_fd, "queue/write_cache", text, sizeof(text));

	if (r == 0)
		s->has_write_cache = strcmp(text, "write back") == 0;
	return r == -ENOENT ? 0 : r;
}

int sysfs_read_at(int block_fd, int index, struct nbd_sysfs *ret)
{
	scope_fd int dir = sysfs_open_device(block_fd, index);
	struct nbd_sysfs s = { 0 };
	uint64_t nsectors512 = 0, ro = 0, fua = 0;
	int r;

	if (dir < 0)
		return dir;
	if ((r = read_pid(dir, &s)) < 0 || (r = read_cookie(dir, &s)) < 0 ||
	    (r = read_write_cache(dir, &s)) < 0 ||
	    (r = optional_u64_at(dir, "size", &nsectors512)) < 0 ||
	    (r = optional_u64_at(dir, "ro", &ro)) < 0 ||
	    (r = optional_u64_at(dir, "queue/fua", &fua)) < 0 ||
	    (r = optional_u32_at(dir, "queue/logical_block_size", &s.logical_block)) < 0 ||
	    (r = optional_u32_at(dir, "queue/physical_block_size", &s.physical_block)) < 0 ||
	    (r = optional_u32_at(dir, "queue/max_hw_sectors_kb", &s.max_hw_kib)) < 0 ||
	    (r = optional_u64_at(dir, "queue/discard_max_bytes", &s.discard_max)) < 0 ||
	    (r = optional_u64_at(dir, "queue/write_zeroes_max_bytes", &s.write_zeroes_max)) < 0)
		return r;
	if (__builtin_mul_overflow(nsectors512, UINT64_C(512), &s.size))
		return -ERANGE;
	s.is_read_only = ro != 0;
	s.has_fua = fua != 0;
	*ret = s;
	return 0;
}

int nbd_sysfs_read(int index, struct nbd_sysfs *ret)
{
	scope_fd int block = open(SYSFS_BLOCK, O_PATH | O_DIRECTORY | O_CLOEXEC);

	if (block < 0)
		return errno == ENOENT ? -ENODEV : -errno;
	return sysfs_read_at(block, index, ret);
}

int nbd_index_parse(const char *text, int *ret)
{
	uint64_t v;
	int r;

	if (strncmp(text, "/dev/", 5) == 0) {
		text += 5;
		/* "/dev/3" is something else. */
		if (strncmp(text, "nbd", 3) != 0)
			return -EINVAL;
	}
	if (strncmp(text, "nbd", 3) == 0)
		text += 3;
	/* The kernel has no nbd03. */
	if (text[0] == '0' && text[1])
		return -EINVAL;
	r = parse_u64(text, &v);
	if (r < 0 || v > INT_MAX)
		return -EINVAL;
	*ret = (int)v;
	return 0;
}
