/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Copyright (C) 2026 the rbdcrypt-nbd authors */

/*
 * From holes to the pieces of a status answer; see status.h. Called by the stores on
 * whatever thread looks for the holes. Holds nothing of its own.
 */

#include "status.h"

/* The largest sector of any format: nobody decides on less than this. */
#define GRAIN 4096u
/* A reply's worth; the client asks again for the rest. */
#define MAX_PIECES 4096u

void status_begin(struct status *st, struct store_io *io, uint64_t dev_off, uint64_t len)
{
	*st = (struct status){ .io = io, .start = dev_off, .end = dev_off + len, .pos = dev_off };
}

int status_hole(struct status *st, uint64_t from, uint64_t to)
{
	int r;

	from = from <= st->pos ? st->pos : (from + GRAIN - 1) / GRAIN * GRAIN;
	to = to >= st->end ? st->end : to / GRAIN * GRAIN;
	if (from >= to)
		return 0;
	r = store_io_add(st->io, st->pos, from - st->pos, 0, false);
	if (r < 0)
		return r;
	st->pos = from;
	r = store_io_add(st->io, from, to - from, STORE_LAYER_ZERO, true);
	if (r < 0)
		return r;
	st->pos = to;
	return st->io->n_extents >= MAX_PIECES ? STATUS_FULL : 0;
}

int status_end(struct status *st)
{
	return store_io_add(st->io, st->pos, st->end - st->pos, 0, false);
}
