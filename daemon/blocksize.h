/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Copyright (C) 2026 the rbdcrypt-nbd authors */

#ifndef DAEMON_BLOCKSIZE_H
#define DAEMON_BLOCKSIZE_H

#include <stddef.h>
#include <stdint.h>

/*
 * Reads the plain device: 0 or -errno. Offsets and lengths are multiples of 4096 or end with the
 * device.
 */
typedef int (*blocksize_read_fn)(void *arg, uint64_t dev_off, void *buf, size_t len);

/*
 * The logical block size for a device with crypto sectors of `sector` bytes (1 when nothing is
 * encrypted) and `size` bytes: the sector size, unless something is on it that was made for smaller
 * blocks, or that we do not know; then 512. Filesystems and partition tables made through rbd-nbd
 * or QEMU are of the second kind. why: one of our words, for the log. Blocking. 0 or -errno of the
 * read.
 */
int blocksize_choose(blocksize_read_fn read, void *arg, uint64_t size, uint32_t sector,
		     uint32_t *ret_block_size, const char **ret_why);

#endif
