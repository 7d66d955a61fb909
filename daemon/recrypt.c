/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Copyright (C) 2026 the rbdcrypt-nbd authors */

/*
 * The crypto of a copy-up: it is where the keys are, the store is where the objects are. Begun by
 * librados' callback threads when a parent has been read, carried out by them and the workers, as
 * whole objects would keep a callback thread for milliseconds.
 */

#include "recrypt.h"

#include <errno.h>
#include <stdatomic.h>
#include <stdlib.h>

#include "volume.h"

#define PIECE (256u << 10)

struct recrypt {
	struct job job;
	struct volume *volume;
	struct store_recrypt *of;
	atomic_int error; /* the first */
};

/* Plaintext exists in this buffer between the two halves, and nowhere else. */
static void piece(struct job *job, unsigned int i)
{
	struct recrypt *c = (struct recrypt *)job;
	struct store_recrypt *of = c->of;
	struct volume *v = c->volume;
	size_t at = (size_t)i * PIECE, end = at + PIECE < of->len ? at + PIECE : of->len;
	unsigned char *buf = of->buf;
	int expected = 0;
	int r = volume_decrypt(v, of->io, buf + at, of->dev_off + at, of->dev_off + end);

	if (r == 0 && v->xts[0])
		r = xts_encrypt(v->xts[0], buf + at, end - at, of->dev_off + at);
	if (r < 0)
		(void)atomic_compare_exchange_strong(&c->error, &expected, r);
}

static void done(struct job *job)
{
	struct recrypt *c = (struct recrypt *)job;
	struct store_recrypt *of = c->of;

	of->result = atomic_load(&c->error);
	free(c);
	of->done(of);
}

void volume_recrypt(void *arg, struct store_recrypt *r)
{
	struct volume *v = arg;
	struct recrypt *c = calloc(1, sizeof(*c));

	if (!c) {
		r->result = -ENOMEM;
		r->done(r);
		return;
	}
	c->volume = v;
	c->of = r;
	atomic_init(&c->error, 0);
	c->job.piece = piece;
	c->job.done = done;
	c->job.n_pieces = (unsigned int)((r->len + PIECE - 1) / PIECE);
	if (pool_run(v->pool, &c->job))
		done(&c->job);
}
