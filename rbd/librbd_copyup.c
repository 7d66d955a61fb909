/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Copyright (C) 2026 the rbdcrypt-nbd authors */

/*
 * How many objects of a clone are written for the first time at once. librbd reads such an object
 * whole from the parent and writes it whole into the clone, so that a write of 4 KiB takes 4 MiB of
 * memory and more, which nobody has counted. So only some of those writes go out, and the others
 * wait here in a line; what is known to exist is written past them.
 *
 * A change is judged by the objects in which it begins and ends, as those between are written
 * whole. In doubt an object does not exist. Where one was thought to exist and does not, nothing
 * but the bound is harmed.
 *
 * Called by readers, workers and librbd's callbacks; nothing is sent with the lock held.
 */

#include "layer.h"
#include "librbd.h"

#include <errno.h>
#include <stdlib.h>

#define COPYUP_MEMORY (64u << 20) /* of one volume */
#define HAS_TURN 1u /* io->flags */

int librbd_copyup_open(struct librbd_store *ls, uint64_t raw_overlap)
{
	struct librbd_copyup *cu = &ls->copyup;
	uint64_t n = layout_objects(&ls->layout, raw_overlap);

	if (n == 0)
		return 0;
	/* Pages that are not looked at take no memory. */
	cu->is_written = calloc(n, sizeof(*cu->is_written));
	if (!cu->is_written)
		return -ENOMEM;
	cu->n = n;
	cu->max_running = (unsigned int)(COPYUP_MEMORY / ls->layout.object_size);
	if (cu->max_running == 0)
		cu->max_running = 1;
	cu->tail = &cu->head;
	(void)pthread_mutex_init(&cu->lock, NULL);
	return 0;
}

void librbd_copyup_close(struct librbd_store *ls)
{
	struct librbd_copyup *cu = &ls->copyup;

	if (cu->n == 0)
		return;
	(void)pthread_mutex_destroy(&cu->lock);
	free(cu->is_written);
	cu->n = 0;
}

/* What is known of the object at off; NULL: it needs nothing of a parent. */
static atomic_uchar *object_at(struct librbd_store *ls, uint64_t off)
{
	uint64_t object, object_off;

	(void)layout_object(&ls->layout, off, &object, &object_off);
	return object < ls->copyup.n ? &ls->copyup.is_written[object] : NULL;
}

static bool exists(struct librbd_store *ls, uint64_t off)
{
	atomic_uchar *is_written = object_at(ls, off);

	return !is_written || atomic_load_explicit(is_written, memory_order_relaxed);
}

/*
 * What is removed of an encrypted image ends with an object, or with the image: a tail, which may
 * go only as long as it is one. The image may grow while it waits.
 */
static bool is_tail(const struct librbd_store *ls, const struct store_io *io)
{
	uint64_t period = ls->layout.object_size * ls->layout.stripe_count;
	uint64_t end = ls->base.data_offset + io->dev_off + io->len;

	return ls->base.is_encrypted && io->op != LIBRBD_WRITE && end % period != 0;
}

/* As requests that meet go one after the other, a tail is one more at most. */
static bool needs_turn(struct librbd_store *ls, const struct store_io *io)
{
	uint64_t off = ls->base.data_offset + io->dev_off;

	return io->len > 0 && !is_tail(ls, io) &&
	       (!exists(ls, off) || !exists(ls, off + io->len - 1));
}

/* Of what is removed nobody says whether an object stays. */
static void note_written(struct librbd_store *ls, const struct store_io *io)
{
	uint64_t off = ls->base.data_offset + io->dev_off;
	atomic_uchar *first = object_at(ls, off), *last = object_at(ls, off + io->len - 1);

	if (first)
		atomic_store_explicit(first, 1, memory_order_relaxed);
	if (last)
		atomic_store_explicit(last, 1, memory_order_relaxed);
}

/* With the lock. */
static void take_turn(struct librbd_copyup *cu, struct store_io *io)
{
	cu->n_running++;
	io->flags |= HAS_TURN;
}

bool librbd_copyup_enter(struct librbd_store *ls, struct store_io *io)
{
	struct librbd_copyup *cu = &ls->copyup;
	bool goes;

	io->flags = 0;
	if (cu->n == 0 || !needs_turn(ls, io))
		return true;
	(void)pthread_mutex_lock(&cu->lock);
	goes = !cu->head && cu->n_running < cu->max_running;
	if (goes) {
		take_turn(cu, io);
	} else {
		io->next = NULL;
		*cu->tail = io;
		cu->tail = &io->next;
	}
	(void)pthread_mutex_unlock(&cu->lock);
	return goes;
}

/* With the lock. The first in line, if it may go. */
static struct store_io *next_in_line(struct librbd_store *ls)
{
	struct librbd_copyup *cu = &ls->copyup;
	struct store_io *io = cu->head;

	if (!io)
		return NULL;
	if (needs_turn(ls, io)) {
		if (cu->n_running == cu->max_running)
			return NULL;
		take_turn(cu, io);
	}
	cu->head = io->next;
	if (!cu->head)
		cu->tail = &cu->head;
	return io;
}

/* The change that ends here has not been answered yet, or the store could be closed meanwhile. */
static void give_turn(struct librbd_store *ls)
{
	struct librbd_copyup *cu = &ls->copyup;
	struct store_io *io;

	(void)pthread_mutex_lock(&cu->lock);
	cu->n_running--;
	while ((io = next_in_line(ls))) {
		bool has_turn = io->flags & HAS_TURN;
		int r;

		(void)pthread_mutex_unlock(&cu->lock);
		r = librbd_send(io);
		if (r != 0) {
			io->result = r < 0 ? r : 0;
			io->done(io);
		}
		(void)pthread_mutex_lock(&cu->lock);
		if (r != 0 && has_turn)
			cu->n_running--;
	}
	(void)pthread_mutex_unlock(&cu->lock);
}

void librbd_copyup_leave(struct librbd_store *ls, struct store_io *io)
{
	if (ls->copyup.n == 0)
		return;
	if (io->op == LIBRBD_WRITE && io->result == 0 && io->len > 0)
		note_written(ls, io);
	if (io->flags & HAS_TURN)
		give_turn(ls);
}
