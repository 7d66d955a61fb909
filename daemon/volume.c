/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Copyright (C) 2026 the rbdcrypt-nbd authors */

/*
 * What is common to all requests and connections of one image. Made by the
 * volume's thread before any connection exists and freed after the last one ended.
 */

#include "volume.h"

#include <errno.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#include "recrypt.h"
#include "state.h"

/*
 * Longer than a connection of the kernel's is kept without an answer (conn.c): a device that is
 * left for the next daemon gets no error for what can be sent again.
 */
#define ENDING_MS 15000

/* A full run directory is no reason not to serve. */
static int new_stats(const struct volume_options *o, struct stats_page **ret)
{
	char path[4400];
	int r;

	if (!o->run_dir)
		return stats_new(ret);
	r = state_beside(o->run_dir, o->key, STATE_STATS, path, sizeof(path));
	if (r == 0)
		r = stats_new_file(path, ret);
	if (r == 0)
		return 0;
	log_warning(o->spec, "no statistics in %s: %s", o->run_dir, strerror(-r));
	return stats_new(ret);
}

int volume_new_take(const struct volume_options *o, struct pool *pool, struct store **store,
		    struct xts ***xts, unsigned int n_layers, struct volume **ret)
{
	struct volume *v = calloc(1, sizeof(*v));
	int r;

	if (!v)
		return -ENOMEM;
	range_lock_init(&v->ranges);
	r = buffers_new(o->memory, &v->buffers);
	if (r < 0)
		goto fail;
	r = new_stats(o, &v->stats);
	if (r < 0)
		goto fail;
	v->spec = strdup(o->spec);
	if (!v->spec) {
		r = -ENOMEM;
		goto fail;
	}
	v->pool = pool;
	v->is_read_only = o->is_read_only;
	v->has_trim = o->has_trim && !o->is_read_only;
	v->block_size = o->block_size;
	v->inline_threshold = o->inline_threshold;
	v->share_limit = o->share_limit;
	v->sector = 1;
	for (unsigned int i = 0; xts && *xts && i < n_layers; i++) {
		if (!(*xts)[i])
			continue;
		v->is_encrypted = true;
		if (xts_sector_size((*xts)[i]) > v->sector)
			v->sector = xts_sector_size((*xts)[i]);
	}
	v->n_layers = n_layers;
	v->store = *store;
	*store = NULL;
	if (v->is_encrypted) {
		v->store->recrypt_arg = v;
		v->store->recrypt = volume_recrypt;
	}
	if (xts) {
		v->xts = *xts;
		*xts = NULL;
	}
	atomic_init(&v->size, volume_size_for(v, o->raw_size));
	*ret = v;
	return 0;
fail:
	(void)volume_free(v);
	return r;
}

void volume_is_ending(struct volume *v)
{
	if (v->store->ops->ending)
		v->store->ops->ending(v->store, ENDING_MS);
}

struct volume *volume_free(struct volume *v)
{
	if (!v)
		return NULL;
	store_close(v->store);
	for (unsigned int i = 0; v->xts && i < v->n_layers; i++)
		(void)xts_free(v->xts[i]);
	free(v->xts);
	(void)buffers_free(v->buffers);
	(void)stats_free(v->stats);
	range_lock_done(&v->ranges);
	free(v->spec);
	free(v);
	return NULL;
}

uint64_t volume_size_for(const struct volume *v, uint64_t raw_size)
{
	uint64_t unit = v->sector > v->block_size ? v->sector : v->block_size;
	uint64_t size = raw_size > v->store->data_offset ? raw_size - v->store->data_offset : 0;

	/* A part of a sector cannot be encrypted, and part of a block not be addressed. */
	return unit > 1 ? size - size % unit : size;
}

uint16_t volume_flags(const struct volume *v)
{
	uint16_t flags = WIRE_FLAG_HAS_FLAGS | WIRE_FLAG_SEND_FLUSH | WIRE_FLAG_CAN_MULTI_CONN;

	if (v->is_read_only)
		return flags | WIRE_FLAG_READ_ONLY;
	flags |= WIRE_FLAG_SEND_FUA | WIRE_FLAG_SEND_WRITE_ZEROES | WIRE_FLAG_SEND_FAST_ZERO;
	if (v->has_trim)
		flags |= WIRE_FLAG_SEND_TRIM;
	return flags;
}

bool volume_shares(const struct volume *v, size_t len)
{
	return len > v->inline_threshold &&
	       atomic_load_explicit(&v->stats->in_flight, memory_order_relaxed) <= v->share_limit;
}

int volume_decrypt(const struct volume *v, const struct store_io *io, void *buf, uint64_t from,
		   uint64_t to)
{
	unsigned char *bytes = buf;

	for (unsigned int i = 0; i < io->n_extents; i++) {
		const struct store_extent *e = &io->extents[i];
		uint64_t start = e->dev_off > from ? e->dev_off : from;
		uint64_t end = e->dev_off + e->len < to ? e->dev_off + e->len : to, whole;
		struct xts *x;
		int r;

		if (start >= end || e->layer == STORE_LAYER_ZERO || !v->xts[e->layer])
			continue;
		x = v->xts[e->layer];
		/* The clone may see less of its parent than the last sector holds. */
		whole = end + (xts_sector_size(x) - end % xts_sector_size(x)) % xts_sector_size(x);
		r = xts_decrypt(x, bytes + (start - from), whole - start, start);
		if (r < 0)
			return r;
		memset(bytes + (end - from), 0, whole - end);
	}
	return 0;
}

/* ---- one blocking call ---- */

struct sync_io {
	struct store_io io;
	pthread_mutex_t mutex;
	pthread_cond_t cond;
	bool is_done;
};

static void on_sync(struct store_io *io)
{
	struct sync_io *s = (struct sync_io *)io;

	(void)pthread_mutex_lock(&s->mutex);
	s->is_done = true;
	(void)pthread_cond_signal(&s->cond);
	(void)pthread_mutex_unlock(&s->mutex);
}

#define SYNC_IO                                                                                    \
	{                                                                                          \
		.io.done = on_sync, .mutex = PTHREAD_MUTEX_INITIALIZER,                            \
		.cond = PTHREAD_COND_INITIALIZER                                                   \
	}

/* r: what the store said when it was asked. */
static int wait_sync(struct sync_io *s, int r)
{
	if (r != STORE_DONE) {
		(void)pthread_mutex_lock(&s->mutex);
		while (!s->is_done)
			(void)pthread_cond_wait(&s->cond, &s->mutex);
		(void)pthread_mutex_unlock(&s->mutex);
	}
	return s->io.result;
}

int volume_flush(struct volume *v)
{
	struct sync_io s = SYNC_IO;
	int r = wait_sync(&s, v->store->ops->flush(v->store, &s.io));

	store_io_reset(&s.io);
	return r;
}

int volume_read(void *arg, uint64_t dev_off, void *buf, size_t len)
{
	struct volume *v = arg;
	struct sync_io s = SYNC_IO;
	int r = wait_sync(&s, v->store->ops->read(v->store, &s.io, dev_off, buf, len));

	if (r == 0 && v->is_encrypted)
		r = volume_decrypt(v, &s.io, buf, dev_off, dev_off + len);
	store_io_reset(&s.io);
	return r;
}
