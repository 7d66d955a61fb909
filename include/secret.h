/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Copyright (C) 2026 the rbdcrypt-nbd authors */

#ifndef RBDCRYPT_SECRET_H
#define RBDCRYPT_SECRET_H

#include <stdbool.h>
#include <stddef.h>

/*
 * Bytes that must not leave this process: volume keys and passphrases. The
 * memory is page-granular, locked where the limits allow, excluded from core
 * dumps and from fork (a forked child that touches it crashes: go to the background
 * before reading one), and wiped when freed. Moved by pointer, never copied;
 * a function that takes ownership has _take in its name and nulls the caller's
 * pointer. Not thread-safe; read-only sharing is fine.
 */
struct secret;

/* len zero bytes, 1..SECRET_MAX. 0, -EINVAL or -ENOMEM. */
#define SECRET_MAX (8u << 20)
int secret_new(size_t len, struct secret **ret);

/* Wipes and frees. NULL is fine. Returns NULL. */
struct secret *secret_free(struct secret *s);
static inline void secret_freep(struct secret **s)
{
	secret_free(*s);
}

unsigned char *secret_data(struct secret *s);
const unsigned char *secret_bytes(const struct secret *s);
size_t secret_len(const struct secret *s);

/* Makes it shorter, wiping the tail. len must be 1..secret_len(). */
void secret_truncate(struct secret *s, size_t len);

/*
 * Reads fd to its end, byte for byte. -ENODATA when empty, -EFBIG when longer
 * than max (at most SECRET_MAX), else what read() said. No stray copy remains.
 *
 * Before each read() it asks wait, unless that is NULL, which returns 0 when there may be something
 * to read, or the -errno to give up with. Then fd may be non-blocking.
 */
int secret_read_fd(int fd, size_t max, int (*wait)(void *arg, int fd), void *arg,
		   struct secret **ret);

/* A second, equal secret. 0 or -ENOMEM. For the rare place that must keep one and give one away. */
int secret_copy(const struct secret *s, struct secret **ret);

/* Constant time in the contents. */
bool secret_equal(const struct secret *a, const struct secret *b);

/*
 * Process-wide: no core dumps, not dumpable by other processes of the user, and
 * memory locked where RLIMIT_MEMLOCK or CAP_IPC_LOCK allow (failure to lock is
 * not an error). Call once, before any secret is read. 0 or -errno.
 */
int secret_protect_process(void);

#endif
