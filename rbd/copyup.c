/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Copyright (C) 2026 the rbdcrypt-nbd authors */

/*
 * Copy-up: an object that still is the parent's becomes the child's before it is written. What the
 * child sees there is read through all layers, decrypted with their keys, encrypted with the
 * child's, all by the daemon, and put into the object by a class method that does nothing where
 * the object exists by now. It goes out with no snapshots: it changes nothing for any of them, as
 * it is what they showed all along. (spec: rados-engine 7.2, librbd-encryption 9.4)
 *
 * One flight per object: who comes later waits for the first. A flight is carried on by callbacks
 * of librados, the daemon's workers and the object map; how many there are at once bounds their
 * memory, the others wait in a queue. All of it happens inside the gate, as those who wait are.
 */

#include "rados.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

struct flight {
	struct flight *next; /* of all, guarded by the writer's lock */
	struct flight *next_waiting; /* the same */
	struct copyup_wait *waits, **waits_tail; /* the same */
	struct rados_store *rs;
	uint64_t object;
	unsigned char *buf; /* owned; the object from its start */
	size_t len, at; /* bytes of it in all, and done */
	struct store_io io;
	struct store_recrypt recrypt;
	struct map_wait map;
	struct copyup_wait *passenger; /* whose bytes are written along */
};

static void flight_begin(struct flight *f);

static void flight_end(struct flight *f, int result)
{
	struct rados_writer *w = f->rs->writer;
	struct copyup_wait *wait, *next_wait;
	struct flight *next;

	(void)pthread_mutex_lock(&w->lock);
	for (struct flight **at = &w->flights; *at; at = &(*at)->next)
		if (*at == f) {
			*at = f->next;
			break;
		}
	wait = f->waits;
	next = w->waiting;
	if (next) {
		w->waiting = next->next_waiting;
		if (!w->waiting)
			w->waiting_tail = &w->waiting;
	} else {
		w->n_running--;
	}
	(void)pthread_mutex_unlock(&w->lock);
	if (f->passenger && result == 0)
		f->passenger->is_written = true;
	free(f->buf);
	free(f);
	for (; wait; wait = next_wait) {
		next_wait = wait->next;
		wait->done(wait, result);
	}
	/* Those who wait for it are inside the gate, so it is all still there. */
	if (next)
		flight_begin(next);
}

static void on_copied(rados_completion_t completion, void *arg)
{
	int r = rados_aio_get_return_value(completion);

	rados_aio_release(completion);
	flight_end(arg, r < 0 ? r : 0);
}

/*
 * The object, and where no snapshot has to be kept from it, the write that asked for it in the
 * same operation, which then cannot be torn from it.
 */
static void flight_copy(struct flight *f)
{
	struct rados_store *rs = f->rs;
	struct rados_writer *w = rs->writer;
	rados_completion_t completion;
	char name[OBJECT_NAME_MAX];
	rados_ioctx_t io = w->copyup;
	rados_write_op_t op;
	int r = rados_aio_create_completion2(f, on_copied, &completion);

	if (r < 0) {
		flight_end(f, r);
		return;
	}
	object_name(&rs->layers[0].place, f->object, name);
	op = rados_create_write_op();
	cls_copyup(op, f->buf, f->len);
	if (w->plan.n_snaps == 0 && f->waits->buf) {
		f->passenger = f->waits;
		rados_write_op_write(op, f->passenger->buf, f->passenger->len,
				     f->passenger->object_off);
		io = w->plan.io;
	}
	r = rados_aio_write_op_operate(op, io, completion, name, NULL, 0);
	rados_release_write_op(op);
	if (r < 0) {
		rados_aio_release(completion);
		flight_end(f, r);
	}
}

static void on_mapped(struct map_wait *w)
{
	struct flight *f = (struct flight *)((char *)w - offsetof(struct flight, map));

	if (w->result < 0)
		flight_end(f, w->result);
	else
		flight_copy(f);
}

static void flight_map(struct flight *f)
{
	f->map = (struct map_wait){ .done = on_mapped };
	if (object_map_copyup(f->rs->writer->map, &f->map, f->object) == STORE_DONE)
		on_mapped(&f->map);
}

/* ---- the parent's bytes, run by run ---- */

/* The next run of the object: where it is in the device, and how much of it the child sees. */
static uint64_t next_run(const struct flight *f, size_t at, uint64_t *ret_dev_off)
{
	const struct rados_store *rs = f->rs;
	const struct layout *l = &rs->layers[0].layout;
	uint64_t run = l->stripe_count > 1 ? l->stripe_unit : l->object_size;
	uint64_t overlap = rs->writer->plan.overlap, seen;

	if (at >= l->object_size)
		return 0;
	*ret_dev_off = layout_image_offset(l, f->object, at) - rs->layers[0].data_offset;
	if (*ret_dev_off >= overlap)
		return 0;
	seen = overlap - *ret_dev_off;
	if (seen >= run)
		return run;
	return (seen + rs->sector_max - 1) / rs->sector_max * rs->sector_max;
}

static void flight_read(struct flight *f);

static void on_recrypted(struct store_recrypt *recrypt)
{
	struct flight *f = (struct flight *)((char *)recrypt - offsetof(struct flight, recrypt));

	store_io_reset(&f->io);
	if (recrypt->result < 0) {
		flight_end(f, recrypt->result);
		return;
	}
	f->at += recrypt->len;
	if (f->at < f->len)
		flight_read(f);
	else
		flight_map(f);
}

static void on_parent_read(struct store_io *io)
{
	struct flight *f = (struct flight *)((char *)io - offsetof(struct flight, io));
	struct store *s = &f->rs->base;

	f->recrypt.done = on_recrypted;
	f->recrypt.result = io->result;
	if (io->result < 0 || !s->recrypt)
		on_recrypted(&f->recrypt);
	else
		s->recrypt(s->recrypt_arg, &f->recrypt);
}

static void flight_read(struct flight *f)
{
	uint64_t dev_off = 0;
	size_t len = (size_t)next_run(f, f->at, &dev_off);

	f->io = (struct store_io){ .done = on_parent_read };
	f->recrypt = (struct store_recrypt){
		.io = &f->io, .buf = f->buf + f->at, .dev_off = dev_off, .len = len
	};
	rados_read_parent(f->rs, &f->io, dev_off, f->buf + f->at, len);
}

static void flight_begin(struct flight *f)
{
	uint64_t dev_off, run;

	while ((run = next_run(f, f->len, &dev_off)) > 0)
		f->len += (size_t)run;
	if (f->len == 0) {
		flight_map(f);
		return;
	}
	f->buf = malloc(f->len);
	if (f->buf)
		flight_read(f);
	else
		flight_end(f, -ENOMEM);
}

/* ---- the way in ---- */

static struct flight *flight_find(struct rados_writer *w, uint64_t object)
{
	struct flight *f = w->flights;

	while (f && f->object != object)
		f = f->next;
	return f;
}

void copyup_object(struct rados_store *rs, uint64_t object, struct copyup_wait *wait)
{
	struct rados_writer *w = rs->writer;
	struct flight *f;
	bool is_new = false, begins = false;

	wait->next = NULL;
	(void)pthread_mutex_lock(&w->lock);
	f = flight_find(w, object);
	if (!f) {
		f = calloc(1, sizeof(*f));
		is_new = true;
	}
	if (f && is_new) {
		f->rs = rs;
		f->object = object;
		f->waits_tail = &f->waits;
		f->next = w->flights;
		w->flights = f;
		begins = w->n_running < w->max_running;
		if (begins) {
			w->n_running++;
		} else {
			*w->waiting_tail = f;
			w->waiting_tail = &f->next_waiting;
		}
	}
	if (f) {
		*f->waits_tail = wait;
		f->waits_tail = &wait->next;
	}
	(void)pthread_mutex_unlock(&w->lock);
	if (!f)
		wait->done(wait, -ENOMEM);
	else if (begins)
		flight_begin(f);
}
