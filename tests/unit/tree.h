/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Copyright (C) 2026 the rbdcrypt-nbd authors */

#ifndef RBDCRYPT_TESTS_TREE_H
#define RBDCRYPT_TESTS_TREE_H

/*
 * File trees that look like /sys/block, /proc and /dev, in a temporary folder: no kernel
 * driver and no root. The real ones are met in tests/component/nbdctl_check.c.
 */

#include <errno.h>
#include <fcntl.h>
#include <ftw.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#include <cmocka.h>

#include "../../nbd/internal.h"

struct tree {
	char path[64];
	int block_fd; /* PATH/block */
};

static inline int remove_one(const char *path, const struct stat *st, int type, struct FTW *ftw)
{
	return remove(path);
}

static inline void make_dirs(const struct tree *t, const char *path)
{
	char full[300], *p;

	(void)snprintf(full, sizeof(full), "%s/%s", t->path, path);
	for (p = full + strlen(t->path) + 1; (p = strchr(p, '/')); p++) {
		*p = 0;
		(void)mkdir(full, 0755);
		*p = '/';
	}
}

static inline void put_bytes(const struct tree *t, const char *path, const char *text, size_t len)
{
	char full[300];
	FILE *f;

	make_dirs(t, path);
	(void)snprintf(full, sizeof(full), "%s/%s", t->path, path);
	f = fopen(full, "w");
	assert_non_null(f);
	assert_int_equal(fwrite(text, 1, len, f), len);
	assert_int_equal(fclose(f), 0);
}

static inline void put(const struct tree *t, const char *path, const char *text)
{
	put_bytes(t, path, text, strlen(text));
}

static inline void put_dir(const struct tree *t, const char *path)
{
	char full[300];

	make_dirs(t, path);
	(void)snprintf(full, sizeof(full), "%s/%s", t->path, path);
	assert_int_equal(mkdir(full, 0755), 0);
}

static inline void drop(const struct tree *t, const char *path)
{
	char full[300];

	(void)snprintf(full, sizeof(full), "%s/%s", t->path, path);
	assert_int_equal(unlink(full), 0);
}

/* nbd3 as Linux 6.1 shows it: connected, 1 GiB, with one partition, used by nobody. */
static inline int setup(void **state)
{
	struct tree *t = calloc(1, sizeof(*t));
	char block[80];

	assert_non_null(t);
	strcpy(t->path, "/tmp/sysfs-test-XXXXXX");
	assert_non_null(mkdtemp(t->path));
	put(t, "block/nbd3/dev", "43:48\n");
	put(t, "block/nbd3/pid", "4711\n");
	put(t, "block/nbd3/backend", "rbd/vol one\n");
	put(t, "block/nbd3/size", "2097152\n");
	put(t, "block/nbd3/ro", "0\n");
	put(t, "block/nbd3/uevent", "");
	put(t, "block/nbd3/queue/logical_block_size", "512\n");
	put(t, "block/nbd3/queue/physical_block_size", "4096\n");
	put(t, "block/nbd3/queue/write_cache", "write back\n");
	put(t, "block/nbd3/queue/fua", "1\n");
	put(t, "block/nbd3/queue/discard_max_bytes", "2199023255040\n");
	put(t, "block/nbd3/queue/write_zeroes_max_bytes", "0\n");
	put(t, "block/nbd3/queue/max_hw_sectors_kb", "32768\n");
	put_dir(t, "block/nbd3/holders");
	put(t, "block/nbd3/nbd3p1/dev", "43:49\n");
	put_dir(t, "block/nbd3/nbd3p1/holders");
	put(t, "proc/self/mountinfo", "21 1 8:1 / / rw - ext4 /dev/sda1 rw\n");
	put(t, "proc/swaps", "Filename\t\t\t\tType\t\tSize\t\tUsed\t\tPriority\n");
	put_dir(t, "dev");
	(void)snprintf(block, sizeof(block), "%s/block", t->path);
	t->block_fd = open(block, O_PATH | O_DIRECTORY);
	assert_true(t->block_fd >= 0);
	*state = t;
	return 0;
}

static inline int teardown(void **state)
{
	struct tree *t = *state;

	close(t->block_fd);
	assert_int_equal(nftw(t->path, remove_one, 16, FTW_DEPTH | FTW_PHYS), 0);
	free(t);
	return 0;
}

#endif
