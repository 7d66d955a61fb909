/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Copyright (C) 2026 the rbdcrypt-nbd authors */

#ifndef RBD_FILE_H
#define RBD_FILE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "fault.h"

/* An open file or block device, and the blocking calls on it. Offsets are raw: from its start. */
struct file {
	int fd;
	bool is_block;
	bool is_memory; /* a file system without a disk: no call waits for one */
	uint32_t logical_block; /* bytes; 1 for a file */
	dev_t dev;
	ino_t ino;
};

/*
 * For writing it is held: no second writer of ours, nothing that is mounted or used by
 * another. EXIT_NOT_FOUND, EXIT_PASSPHRASE (permission), EXIT_BUSY, EXIT_SAFEGUARD (cannot be
 * locked).
 */
int file_open(const char *path, bool is_writer, struct file *ret, struct fault *f);
void file_done(struct file *file);

/* All: 0 or -errno, complete or an error; safe on any thread. */
int file_size(const struct file *file, uint64_t *ret);
int file_read(const struct file *file, uint64_t off, void *buf, size_t len);
/* Only what needs no waiting: -EAGAIN, or -EOPNOTSUPP where the kernel cannot tell. */
int file_read_nowait(const struct file *file, uint64_t off, void *buf, size_t len);
int file_write(const struct file *file, uint64_t off, const void *buf, size_t len);
int file_zero(const struct file *file, uint64_t off, uint64_t len, bool keeps_space);
/* Does what it can: not being able to is success. */
int file_discard(const struct file *file, uint64_t off, uint64_t len);
int file_sync(const struct file *file);
/*
 * The first hole at or after off: ret_from to ret_to. -ENXIO: none (before the end of the
 * file), or the file system cannot tell.
 */
int file_next_hole(const struct file *file, uint64_t off, uint64_t *ret_from, uint64_t *ret_to);

#endif
