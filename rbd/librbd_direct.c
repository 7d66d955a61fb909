/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Copyright (C) 2026 the rbdcrypt-nbd authors */

/*
 * Reads of the librbd store that go straight to their objects. librbd would send the same operation
 * by the same connection, after a way through queues and threads that costs a third of the CPU time
 * of a small read. Everything else stays with librbd, and so do reads that it has more to do for:
 * those of snapshots, of many pieces, and of objects that do not exist, which may be a parent's.
 * Whoever has a cache, limits (rbd_qos_...) or a choice of replicas configured for the image has
 * all reads done by librbd; that is looked at again whenever the image changed.
 *
 * A read that crosses objects is cut into one for each, so that it says what reads of the parts do:
 * librbd believes its object map, which can be wrong (rbd object-map rebuild beside writes).
 *
 * A read sent after the answer to a write comes to the OSD after that write, because librbd, with
 * no cache, answers when the OSDs have. (spec: rados-engine 7.5)
 *
 * Opened and closed by the volume's thread; reads from readers and workers; answers come on
 * librados' threads.
 */

#include "layer.h"
#include "librbd.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "log.h"

/* More is librbd's: of a striped image it reads all of an object that it wants in one operation. */
#define PIECES_MAX 16

static int fill_place(struct handle *h, void *data)
{
	return object_place_read(h, data);
}

static int fill_settings(struct handle *h, void *data)
{
	return layer_settings_read(h, data);
}

void librbd_direct_look(struct librbd_store *ls)
{
	struct layer_settings s = { 0 };

	/* A cache stays until the image is closed, whatever is configured since. */
	if (!ls->direct.io || !ls->base.is_writethrough)
		return;
	/* In doubt librbd knows. */
	atomic_store(&ls->direct.is_on, librbd_call(ls, fill_settings, &s, sizeof(s)) == 0 &&
						!s.has_cache && !s.has_read_policy);
}

void librbd_direct_open(struct librbd_store *ls, struct cluster *c, const struct layer_info *info)
{
	struct librbd_direct *d = &ls->direct;
	int r = librbd_call(ls, fill_place, &d->place, sizeof(d->place));

	if (r == 0)
		r = cluster_ioctx(c, d->place.pool_id, info->nspace, &d->io);
	if (r < 0) {
		d->io = NULL;
		log_info(info->spec, "all reads are librbd's: %s", strerror(-r));
		return;
	}
	d->has_parent = info->has_parent;
	librbd_direct_look(ls);
}

void librbd_direct_close(struct librbd_store *ls)
{
	if (ls->direct.io)
		rados_ioctx_destroy(ls->direct.io);
	ls->direct.io = NULL;
}

/* ---- one read ---- */

/* No such object: librbd knows whether a parent has something there. */
static void ask_librbd(struct store_io *io)
{
	if (librbd_read_image(io->store, io, io->dev_off, io->buf, io->len) == STORE_DONE)
		io->done(io);
}

static void completed(rados_completion_t c, void *arg)
{
	struct store_io *io = arg;
	int n = rados_aio_get_return_value(c);

	rados_aio_release(c);
	if (n == -ENOENT && librbd_of(io->store)->direct.has_parent) {
		ask_librbd(io);
		return;
	}
	if (n == -ENOENT)
		n = 0;
	if (n < 0 || (uint64_t)n > io->len) {
		io->result = n < 0 ? n : -EIO;
	} else {
		/* An object is as long as what was written of it. */
		memset((unsigned char *)io->buf + n, 0, io->len - (uint64_t)n);
		io->result = store_io_add(io, io->dev_off, io->len, 0, false);
	}
	io->done(io);
}

/* ---- one read of several objects ---- */

struct piece {
	struct store_io io;
	struct cut *cut;
};

struct cut {
	struct store_io *io;
	atomic_uint pending; /* pieces that have not ended */
	atomic_int error; /* the first */
	struct piece pieces[];
};

static void piece_end(struct piece *p)
{
	struct cut *cut = p->cut;
	struct store_io *io = cut->io;
	int expected = 0;

	if (p->io.result < 0)
		(void)atomic_compare_exchange_strong(&cut->error, &expected, p->io.result);
	if (atomic_fetch_sub(&cut->pending, 1) > 1)
		return;
	io->result = atomic_load(&cut->error);
	free(cut);
	if (io->result == 0)
		io->result = store_io_add(io, io->dev_off, io->len, 0, false);
	io->done(io);
}

static void on_piece(struct store_io *io)
{
	piece_end((struct piece *)io);
}

/* How many pieces a range of the image has, and where in it each ends; 0: too many. */
static unsigned int cut_up(const struct layout *l, uint64_t off, size_t len,
			   size_t ends[PIECES_MAX])
{
	unsigned int n = 0;
	size_t at = 0;

	while (at < len && n < PIECES_MAX) {
		uint64_t object, object_off;
		uint64_t run = layout_object(l, off + at, &object, &object_off);

		at = run < len - at ? at + (size_t)run : len;
		ends[n++] = at;
	}
	return at == len ? n : 0;
}

/* As librbd_direct_read(). */
static bool read_pieces(struct librbd_store *ls, struct store_io *io, uint64_t dev_off,
			uint64_t off, void *buf, size_t len)
{
	size_t ends[PIECES_MAX], at = 0;
	unsigned int n = cut_up(&ls->layout, off, len, ends);
	struct cut *cut = n ? calloc(1, sizeof(*cut) + n * sizeof(cut->pieces[0])) : NULL;

	if (!cut)
		return false;
	io->dev_off = dev_off;
	io->len = len;
	cut->io = io;
	atomic_init(&cut->pending, n);
	atomic_init(&cut->error, 0);
	/* With the last of them cut may be gone, and io. */
	for (unsigned int i = 0; i < n; at = ends[i++]) {
		struct piece *p = &cut->pieces[i];

		*p = (struct piece){ .io.done = on_piece, .cut = cut };
		if (librbd_read(&ls->base, &p->io, dev_off + at, (unsigned char *)buf + at,
				ends[i] - at) == STORE_DONE)
			piece_end(p);
	}
	return true;
}

bool librbd_direct_read(struct librbd_store *ls, struct store_io *io, uint64_t dev_off, void *buf,
			size_t len)
{
	struct librbd_direct *d = &ls->direct;
	uint64_t off, object, object_off;
	rados_completion_t c;
	char name[OBJECT_NAME_MAX];

	if (!atomic_load_explicit(&d->is_on, memory_order_relaxed) ||
	    librbd_img_off(ls, dev_off, len, &off) < 0)
		return false;
	if (layout_object(&ls->layout, off, &object, &object_off) < len)
		return read_pieces(ls, io, dev_off, off, buf, len);
	io->store = &ls->base;
	io->buf = buf;
	io->dev_off = dev_off;
	io->len = len;
	if (rados_aio_create_completion2(io, completed, &c) < 0)
		return false;
	object_name(&d->place, object, name);
	if (rados_aio_read(d->io, name, c, buf, len, object_off) == 0)
		return true;
	rados_aio_release(c);
	return false;
}
