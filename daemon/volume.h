/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Copyright (C) 2026 the rbdcrypt-nbd authors */

#ifndef DAEMON_VOLUME_H
#define DAEMON_VOLUME_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "buffers.h"
#include "log.h"
#include "pool.h"
#include "range.h"
#include "stats.h"
#include "store.h"
#include "wire.h"
#include "xts.h"

/*
 * One image being served: its store, the keys of its layers, its memory, its
 * counters. Any thread reads it; only size and the counters change after
 * volume_new().
 */
struct volume {
	char *spec; /* for messages */
	struct store *store; /* owned */
	struct pool *pool; /* the daemon's */
	struct xts **xts; /* owned, one per layer, child first; NULL for a plaintext layer */
	unsigned int n_layers;
	bool is_encrypted;
	bool is_read_only;
	bool has_trim;
	uint32_t sector; /* bytes: what store IO is aligned to; 1 when nothing is encrypted */
	uint32_t block_size; /* bytes: what is announced to the kernel */
	size_t inline_threshold; /* bytes: larger requests are shared with the workers */
	unsigned int share_limit; /* but none while more requests than this are under way */
	atomic_ullong size; /* bytes of the plain device */
	struct range_lock ranges;
	struct buffers *buffers; /* owned */
	struct stats_page *stats; /* owned */
};

struct volume_options {
	const char *spec;
	bool is_read_only;
	bool has_trim;
	uint32_t block_size;
	size_t inline_threshold;
	unsigned int share_limit;
	size_t memory; /* bytes for IO */
	uint64_t raw_size; /* as the store has it now */
	const char *run_dir, *key; /* where statistics are published; NULL: nowhere */
};

/*
 * Takes the store and the array of keys (n_layers of them; NULL array: nothing
 * is encrypted); on failure they stay the caller's. 0 or -errno.
 */
int volume_new_take(const struct volume_options *o, struct pool *pool, struct store **store,
		    struct xts ***xts, unsigned int n_layers, struct volume **ret);
/*
 * Before its connections are waited for: what waits for other clients of the image ends in time.
 * May be called again. Any thread but those of requests; never blocks.
 */
void volume_is_ending(struct volume *v);
/* No request may be in flight. Closes the store and wipes the keys. NULL is fine. Returns NULL. */
struct volume *volume_free(struct volume *v);

/* The plain device's size for a raw image size: without header, down to whole blocks and sectors.
 */
uint64_t volume_size_for(const struct volume *v, uint64_t raw_size);

/*
 * Reads the plain device: whole sectors. Blocking: for the start, not for requests. v is a struct
 * volume. Fits blocksize_read_fn. 0 or -errno.
 */
int volume_read(void *v, uint64_t dev_off, void *buf, size_t len);

/* All that was written before is durable when it returns 0. Blocking, as volume_read(). */
int volume_flush(struct volume *v);

/*
 * Turns what the store read, from dev_off from to to (both multiples of the largest sector, within
 * io's range), into plain bytes; buf is where from is. Any thread. 0 or -errno.
 */
int volume_decrypt(const struct volume *v, const struct store_io *io, void *buf, uint64_t from,
		   uint64_t to);

/*
 * Whether AES over len bytes is shared with the workers: not what is small, and nothing while
 * there are requests enough to keep the processors busy uncut. Any thread.
 */
bool volume_shares(const struct volume *v, size_t len);

/* NBD transmission flags of this volume. */
uint16_t volume_flags(const struct volume *v);

#endif
