/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Copyright (C) 2026 the rbdcrypt-nbd authors */

/*
 * Reads of a layered chain. A read begins as one piece in the child and is cut at the borders of
 * its objects; a piece whose object does not exist becomes the parent's, is cut at the borders of
 * the parent's objects, and so on up. (spec: librbd-encryption 9.3)
 *
 * Called from any thread, and carried on by librados' callback threads, which only note the answer
 * and send what comes next. A piece is held by one thread at a time: by who cuts and sends it, then
 * by its callback. New pieces go into the list right behind the one they are cut from, which only
 * its holder does, so the list needs no lock; it is read when all pieces have ended.
 *
 * An object that exists answers for its whole range, also where it is short or empty: the parent
 * does not show through. Its missing bytes are zeros; in a sector of which a part is there, they
 * are zero bytes of ciphertext.
 */

#include "librbd.h"
#include "rados.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

struct piece {
	struct read *read;
	struct piece *next; /* behind it in the device */
	uint64_t dev_off, len;
	uint64_t limit; /* dev_off: from here on the layers below see zeros */
	uint16_t layer;
};

struct read {
	struct rados_store *store;
	struct store_io *io;
	uint64_t overlap; /* of the child, from before its objects were asked for; see go_up() */
	atomic_uint pending; /* pieces that have not ended */
	atomic_int error; /* the first */
	struct piece first;
};

bool rados_is_parent(const struct rados_store *rs, const struct rados_parent *p)
{
	return rs->n > 1 && p->pool == rs->parent.pool && p->snap == rs->parent.snap &&
	       strcmp(p->id, rs->parent.id) == 0;
}

static unsigned char *bytes_of(const struct piece *p)
{
	const struct store_io *io = p->read->io;

	return (unsigned char *)io->buf + (p->dev_off - io->dev_off);
}

static void make_zero(struct piece *p)
{
	memset(bytes_of(p), 0, p->len);
	p->layer = STORE_LAYER_ZERO;
}

/* ---- the end ---- */

/* The piece as the request is told of it: not beyond what the layers below see of its layer. */
static int add_piece(struct store_io *io, const struct piece *p)
{
	uint64_t len = p->len, held = p->len;
	int r;

	if (p->layer != STORE_LAYER_ZERO && p->limit - p->dev_off < len) {
		uint32_t sector = p->read->store->layers[p->layer].sector;

		len = p->limit - p->dev_off;
		held = (len + sector - 1) / sector * sector;
		memset(bytes_of(p) + held, 0, p->len - held);
	}
	r = store_io_add(io, p->dev_off, len, p->layer, false);
	return r < 0 ? r
		     : store_io_add(io, p->dev_off + len, p->len - len, STORE_LAYER_ZERO, false);
}

static void read_end(struct read *read)
{
	struct store *image = read->store->image;
	struct store_io *io = read->io;
	struct piece *next;

	io->result = atomic_load(&read->error);
	/* OSDs may call a snapshot zeros that was removed. */
	if (io->result == 0 && image && librbd_is_gone(librbd_of(image)))
		io->result = -EIO;
	for (struct piece *p = &read->first; p; p = next) {
		next = p->next;
		if (io->result == 0)
			io->result = add_piece(io, p);
		if (p != &read->first)
			free(p);
	}
	free(read);
	io->done(io);
}

static void piece_end(struct piece *p, int error)
{
	struct read *read = p->read;
	int expected = 0;

	if (error < 0)
		(void)atomic_compare_exchange_strong(&read->error, &expected, error);
	if (atomic_fetch_sub(&read->pending, 1) == 1)
		read_end(read);
}

/* ---- cutting and sending ---- */

static void on_read(rados_completion_t completion, void *arg);

static int piece_send(struct piece *p, uint64_t object, uint64_t object_off)
{
	struct rados_objects *l = &p->read->store->layers[p->layer];
	rados_completion_t completion;
	char name[OBJECT_NAME_MAX];
	int r = rados_aio_create_completion2(p, on_read, &completion);

	if (r < 0)
		return r;
	object_name(&l->place, object, name);
	r = rados_aio_read(l->io, name, completion, (char *)bytes_of(p), p->len, object_off);
	/* When it was sent, its callback may have run already, and p be gone. */
	if (r < 0)
		rados_aio_release(completion);
	return r;
}

/*
 * Leaves in p what lies in one object of its layer. The rest is *ret, counted, or NULL. At the end
 * of what is seen of a layer, whole objects are read, which is little, and rare.
 */
static int cut_to_object(struct piece *p, uint64_t *ret_object, uint64_t *ret_object_off,
			 struct piece **ret)
{
	struct rados_objects *l = &p->read->store->layers[p->layer];
	uint64_t run = layout_object(&l->layout, l->data_offset + p->dev_off, ret_object,
				     ret_object_off);
	struct piece *rest;

	*ret = NULL;
	if (run >= p->len)
		return 0;
	rest = malloc(sizeof(*rest));
	if (!rest)
		return -ENOMEM;
	*rest = *p;
	rest->dev_off += run;
	rest->len -= run;
	p->len = run;
	p->next = rest;
	(void)atomic_fetch_add(&p->read->pending, 1);
	*ret = rest;
	return 0;
}

/* Sends p's whole range to p's layer. All may be over when this returns. */
static void piece_start(struct piece *p)
{
	while (p) {
		uint64_t object, object_off;
		struct piece *rest = NULL;
		int r;

		if (p->dev_off >= p->limit) {
			make_zero(p);
			piece_end(p, 0);
			return;
		}
		r = cut_to_object(p, &object, &object_off, &rest);
		if (r == 0)
			r = piece_send(p, object, object_off);
		if (r < 0)
			piece_end(p, r);
		p = rest;
	}
}

/* ---- answers ---- */

/*
 * The layer has no such object: its parent answers, for what is seen of it. Of the child that is
 * what was seen when it was asked: its answer may be so late that somebody has flattened it
 * meanwhile.
 */
static void go_up(struct piece *p)
{
	struct rados_store *rs = p->read->store;
	uint64_t overlap = p->layer == 0 ? p->read->overlap
					 : atomic_load(&rs->layers[p->layer].overlap);

	if (overlap < p->limit)
		p->limit = overlap;
	if (p->layer == 0 && p->dev_off < p->limit && atomic_load(&rs->is_parent_lost)) {
		piece_end(p, -EIO);
		return;
	}
	if (p->layer + 1u == rs->n)
		p->limit = p->dev_off;
	else
		p->layer++;
	piece_start(p);
}

static void on_read(rados_completion_t completion, void *arg)
{
	struct piece *p = arg;
	int r = rados_aio_get_return_value(completion);

	rados_aio_release(completion);
	if (r == -ENOENT) {
		go_up(p);
	} else if (r < 0) {
		piece_end(p, r);
	} else if ((uint64_t)r > p->len) {
		piece_end(p, -EIO);
	} else {
		memset(bytes_of(p) + r, 0, p->len - (uint64_t)r);
		piece_end(p, 0);
	}
}

int rados_check_range(struct rados_store *rs, uint64_t dev_off, uint64_t len)
{
	uint64_t raw_size = atomic_load(&rs->raw_size), header = rs->base.data_offset;
	uint64_t size = raw_size > header ? raw_size - header : 0;

	return dev_off > size || len > size - dev_off ? -EIO : 0;
}

/* Fills in all but the first piece's layer and limit. NULL: no memory. */
static struct read *read_new(struct rados_store *rs, struct store_io *io, uint64_t dev_off,
			     void *buf, size_t len)
{
	struct read *read = calloc(1, sizeof(*read));

	if (!read)
		return NULL;
	io->buf = buf;
	io->dev_off = dev_off;
	io->len = len;
	read->store = rs;
	read->io = io;
	read->overlap = atomic_load(&rs->layers[0].overlap);
	atomic_init(&read->pending, 1);
	atomic_init(&read->error, 0);
	read->first =
		(struct piece){ .read = read, .dev_off = dev_off, .len = len, .limit = UINT64_MAX };
	return read;
}

int rados_store_read(struct store *s, struct store_io *io, uint64_t dev_off, void *buf, size_t len)
{
	struct rados_store *rs = rados_of(s);
	struct read *read;
	int r = rados_check_range(rs, dev_off, len);

	read = r == 0 ? read_new(rs, io, dev_off, buf, len) : NULL;
	if (!read) {
		io->result = r < 0 ? r : -ENOMEM;
		return STORE_DONE;
	}
	piece_start(&read->first);
	return 0;
}

void rados_read_parent(struct rados_store *rs, struct store_io *io, uint64_t dev_off, void *buf,
		       size_t len)
{
	struct read *read = read_new(rs, io, dev_off, buf, len);

	if (read) {
		go_up(&read->first);
		return;
	}
	io->result = -ENOMEM;
	io->done(io);
}
