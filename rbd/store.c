/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Copyright (C) 2026 the rbdcrypt-nbd authors */

/*
 * The pieces of a read or status, shared by all stores. Called by whoever holds the
 * store_io at that moment, hence no lock. The usual read has one piece, which lives in
 * the store_io itself; a longer list is on the heap and belongs to the store_io.
 */

#include "image.h"
#include "store.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define FIRST_LIST 16

void store_io_reset(struct store_io *io)
{
	if (io->extents != &io->one)
		free(io->extents);
	io->extents = NULL;
	io->n_extents = 0;
}

/* Lists grow to powers of two, so the capacity need not be kept. */
static int grow(struct store_io *io)
{
	struct store_extent *list;

	if (io->n_extents == 0) {
		io->extents = &io->one;
		return 0;
	}
	if (io->n_extents == 1) {
		list = calloc(FIRST_LIST, sizeof(*list));
		if (!list)
			return -ENOMEM;
		list[0] = io->one;
		io->extents = list;
		return 0;
	}
	if (io->n_extents < FIRST_LIST || (io->n_extents & (io->n_extents - 1)))
		return 0;
	list = reallocarray(io->extents, (size_t)io->n_extents * 2, sizeof(*list));
	if (!list)
		return -ENOMEM;
	io->extents = list;
	return 0;
}

int store_io_add(struct store_io *io, uint64_t dev_off, uint64_t len, uint16_t layer, bool is_hole)
{
	int r;

	if (len == 0)
		return 0;
	if (io->n_extents > 0) {
		struct store_extent *last = &io->extents[io->n_extents - 1];

		if (last->layer == layer && last->is_hole == is_hole &&
		    last->dev_off + last->len == dev_off) {
			last->len += len;
			return 0;
		}
	}
	r = grow(io);
	if (r < 0)
		return r;
	io->extents[io->n_extents++] = (struct store_extent){
		.dev_off = dev_off, .len = len, .layer = layer, .is_hole = is_hole
	};
	return 0;
}

void store_lock(struct store *s, struct store_lock *ret)
{
	*ret = (struct store_lock){ .state = "-" };
	if (s->ops->lock)
		s->ops->lock(s, ret);
}

void store_lock_unknown(struct store_lock *ret, int error)
{
	ret->state = "unknown";
	(void)snprintf(ret->why, sizeof(ret->why), "%s",
		       error == -ETIMEDOUT ? "the cluster does not answer" : strerror(-error));
}
