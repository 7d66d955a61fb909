/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Copyright (C) 2026 the rbdcrypt-nbd authors */

/*
 * NBD has one block size for a device, logical and physical in one. With 4096 every
 * write is whole sectors; but a partition table counts in blocks, and a filesystem made with
 * 512-byte sectors refuses a device of larger ones. So the plaintext is shown to libblkid, in a
 * sparse copy of the device's ends in memory, as a device of small blocks and as one of large ones.
 * Nothing is written but that copy.
 */

#include "blocksize.h"

#include <blkid.h>
#include <errno.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#ifndef BLKID_SUBLKS_FSINFO
/* Before util-linux 2.39 BLOCK_SIZE comes without being asked for. */
#define BLKID_SUBLKS_FSINFO 0
#endif

/* What libblkid looks at, but for the ends that md and GPT use: the last part. */
#define HEAD_BYTES (2u << 20)
#define TAIL_BYTES (512u << 10)
#define XFS_SECTSIZE_OFFSET 102 /* sb_sectsize, big-endian 16 bits */

static int copy_part(blocksize_read_fn read, void *arg, int fd, uint64_t off, size_t len,
		     unsigned char *buf, bool *is_blank)
{
	int r = read(arg, off, buf, len);

	if (r < 0)
		return r;
	for (size_t i = 0; i < len; i++)
		if (buf[i])
			*is_blank = false;
	return pwrite(fd, buf, len, (off_t)off) == (ssize_t)len ? 0 : -EIO;
}

/* The ends of the device in a sparse file in memory. The fd, or -errno. */
static int make_copy(blocksize_read_fn read, void *arg, uint64_t size, bool *is_blank)
{
	int fd = memfd_create("plain", MFD_CLOEXEC), r;
	size_t head = size < HEAD_BYTES ? (size_t)size : HEAD_BYTES;
	unsigned char *buf = malloc(HEAD_BYTES);

	*is_blank = true;
	if (fd < 0 || !buf || ftruncate(fd, (off_t)size) < 0) {
		r = -ENOMEM;
		goto out;
	}
	r = copy_part(read, arg, fd, 0, head, buf, is_blank);
	if (r == 0 && size > HEAD_BYTES + TAIL_BYTES) {
		uint64_t off = (size - TAIL_BYTES) / 4096 * 4096;

		r = copy_part(read, arg, fd, off, (size_t)(size - off), buf, is_blank);
	}
out:
	if (buf)
		explicit_bzero(buf, HEAD_BYTES);
	free(buf);
	if (r < 0 && fd >= 0)
		(void)close(fd);
	return r < 0 ? r : fd;
}

struct found {
	char table[16]; /* "gpt", "dos", or empty */
	char type[32]; /* "ext4", or empty */
	unsigned long block; /* of the filesystem, bytes; 0 unknown */
};

static void probe_value(blkid_probe p, const char *name, char *buf, size_t len)
{
	const char *data = NULL;

	buf[0] = '\0';
	if (blkid_probe_lookup_value(p, name, &data, NULL) == 0 && data) {
		strncpy(buf, data, len - 1);
		buf[len - 1] = '\0';
	}
}

/* What is there, seen as a device of this block size. False when libblkid cannot tell. */
static bool probe(int fd, uint32_t block_size, struct found *ret)
{
	blkid_probe p = blkid_new_probe();
	char block[32];
	int r;

	memset(ret, 0, sizeof(*ret));
	if (!p)
		return false;
	(void)blkid_probe_enable_superblocks(p, 1);
	(void)blkid_probe_set_superblocks_flags(p, BLKID_SUBLKS_TYPE | BLKID_SUBLKS_BADCSUM |
							   BLKID_SUBLKS_FSINFO);
	(void)blkid_probe_enable_partitions(p, 1);
	r = blkid_probe_set_device(p, fd, 0, 0);
	if (r == 0)
		r = blkid_probe_set_sectorsize(p, block_size);
	/* 1: nothing found. Ambivalent (-2) is something we do not know. */
	if (r == 0)
		r = blkid_do_safeprobe(p);
	if (r == 0) {
		probe_value(p, "PTTYPE", ret->table, sizeof(ret->table));
		probe_value(p, "TYPE", ret->type, sizeof(ret->type));
		probe_value(p, "BLOCK_SIZE", block, sizeof(block));
		ret->block = strtoul(block, NULL, 10);
	}
	blkid_free_probe(p);
	return r == 0 || r == 1;
}

/* A filesystem whose smallest unit of IO is given by its block size. */
static bool is_fine_with(int fd, const struct found *f, uint32_t sector)
{
	unsigned char be[2];

	if (strcmp(f->type, "xfs") == 0)
		return pread(fd, be, sizeof(be), XFS_SECTSIZE_OFFSET) == sizeof(be) &&
		       ((uint32_t)be[0] << 8 | be[1]) >= sector;
	if (strncmp(f->type, "ext", 3) == 0 || strcmp(f->type, "btrfs") == 0)
		return f->block >= sector;
	/* Counts in pages. */
	return strcmp(f->type, "swap") == 0;
}

int blocksize_choose(blocksize_read_fn read, void *arg, uint64_t size, uint32_t sector,
		     uint32_t *ret_block_size, const char **ret_why)
{
	struct found small, large;
	bool is_blank;
	int fd;

	*ret_block_size = 512;
	if (sector <= 512) {
		*ret_why = "sectors of 512 bytes";
		return 0;
	}
	fd = make_copy(read, arg, size, &is_blank);
	if (fd < 0)
		return fd;
	if (is_blank) {
		*ret_block_size = sector;
		*ret_why = "nothing is on it";
	} else if (!probe(fd, 512, &small) || !probe(fd, sector, &large)) {
		*ret_why = "what is on it is not clear";
	} else if (strcmp(small.table, "gpt") == 0) {
		*ret_why = "a GPT made for 512-byte blocks";
	} else if (strcmp(large.table, "gpt") == 0) {
		/* Small blocks show the protective table in front of it. */
		*ret_block_size = sector;
		*ret_why = "a GPT made for blocks of the crypto sector size";
	} else if (small.table[0]) {
		*ret_why = "a partition table counts in 512-byte blocks";
	} else if (is_fine_with(fd, &small, sector)) {
		*ret_block_size = sector;
		*ret_why = "the filesystem on it allows the crypto sector size";
	} else {
		*ret_why = "what is on it may have been made for 512-byte blocks";
	}
	(void)close(fd);
	return 0;
}
