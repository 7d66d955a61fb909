/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Copyright (C) 2026 the rbdcrypt-nbd authors */

/*
 * IO of the librbd store: from a store_io to one librbd request and back. Called from
 * readers and workers; completions run on librbd's threads, touch nothing but their
 * store_io, and pass it on. Nothing is kept here: the store_io is the context.
 *
 * librbd's C interface makes a completion object per request and cannot use one again;
 * that allocation is the only one on this way.
 */

#include "librbd.h"

#include <errno.h>
#include <stddef.h>

enum librbd_op { LIBRBD_READ, LIBRBD_CHANGE };

int librbd_img_off(const struct librbd_store *ls, uint64_t dev_off, uint64_t len, uint64_t *ret)
{
	uint64_t size = atomic_load_explicit(&ls->raw_size, memory_order_relaxed);
	uint64_t off = ls->base.data_offset + dev_off;

	if (off > size || len > size - off)
		return -EIO;
	*ret = off;
	return 0;
}

/* A read that is not full has lost something; no request of ours reaches past the image's end. */
static int read_result(struct store_io *io, ssize_t n)
{
	if (n < 0)
		return (int)n;
	if ((uint64_t)n != io->len)
		return -EIO;
	return store_io_add(io, io->dev_off, io->len, 0, false);
}

static void completed(rbd_completion_t c, void *arg)
{
	struct store_io *io = arg;
	ssize_t n = rbd_aio_get_return_value(c);

	rbd_aio_release(c);
	if (io->op == LIBRBD_READ)
		io->result = read_result(io, n);
	else
		io->result = n < 0 ? (int)n : 0;
	io->done(io);
}

static int fail(struct store_io *io, int error)
{
	io->result = error;
	return STORE_DONE;
}

/* Fills io and makes its completion. 0 or -errno. */
static int begin(struct librbd_store *ls, struct store_io *io, enum librbd_op op, uint64_t dev_off,
		 uint64_t len, uint64_t *ret_off, rbd_completion_t *ret_c)
{
	int r = librbd_img_off(ls, dev_off, len, ret_off);

	if (r < 0)
		return r;
	if (op == LIBRBD_CHANGE && ls->is_read_only)
		return -EROFS;
	io->store = &ls->base;
	io->op = op;
	io->dev_off = dev_off;
	io->len = len;
	return rbd_aio_create_completion(io, completed, ret_c);
}

/* r is what the submission returned: when it failed, nobody will call back. */
static int submitted(struct store_io *io, rbd_completion_t c, int r)
{
	if (r >= 0)
		return 0;
	rbd_aio_release(c);
	return fail(io, r);
}

int librbd_read_image(struct store *s, struct store_io *io, uint64_t dev_off, void *buf, size_t len)
{
	struct librbd_store *ls = librbd_of(s);
	rbd_completion_t c;
	uint64_t off;
	int r = begin(ls, io, LIBRBD_READ, dev_off, len, &off, &c);

	if (r < 0)
		return fail(io, r);
	return submitted(io, c, rbd_aio_read(ls->handle->image, off, len, buf, c));
}

int librbd_read(struct store *s, struct store_io *io, uint64_t dev_off, void *buf, size_t len)
{
	if (librbd_direct_read(librbd_of(s), io, dev_off, buf, len))
		return 0;
	return librbd_read_image(s, io, dev_off, buf, len);
}

int librbd_write(struct store *s, struct store_io *io, uint64_t dev_off, const void *buf,
		 size_t len)
{
	struct librbd_store *ls = librbd_of(s);
	rbd_completion_t c;
	uint64_t off;
	int r = begin(ls, io, LIBRBD_CHANGE, dev_off, len, &off, &c);

	if (r < 0)
		return fail(io, r);
	return submitted(io, c, rbd_aio_write(ls->handle->image, off, len, buf, c));
}

static int write_zeroes(struct librbd_store *ls, struct store_io *io, uint64_t dev_off,
			uint64_t len, int zero_flags)
{
	rbd_completion_t c;
	uint64_t off;
	int r = begin(ls, io, LIBRBD_CHANGE, dev_off, len, &off, &c);

	if (r < 0)
		return fail(io, r);
	return submitted(io, c,
			 rbd_aio_write_zeroes(ls->handle->image, off, (size_t)len, c, zero_flags,
					      /* op_flags */ 0));
}

int librbd_zero(struct store *s, struct store_io *io, uint64_t dev_off, uint64_t len,
		unsigned int flags)
{
	return write_zeroes(librbd_of(s), io, dev_off, len,
			    flags & STORE_ZERO_NO_HOLE ? RBD_WRITE_ZEROES_FLAG_THICK_PROVISION : 0);
}

int librbd_discard(struct store *s, struct store_io *io, uint64_t dev_off, uint64_t len)
{
	struct librbd_store *ls = librbd_of(s);
	uint64_t off, free_off, free_len;
	rbd_completion_t c;
	int r;

	if (s->is_encrypted) {
		librbd_freeable(s, dev_off, len, &free_off, &free_len);
		/*
		 * Not librbd's discard: it rounds to its granularity, so that what was
		 * clipped to an object's end might end before it, and leave a hole.
		 */
		return free_len > 0 ? write_zeroes(ls, io, free_off, free_len, 0) : fail(io, 0);
	}
	r = begin(ls, io, LIBRBD_CHANGE, dev_off, len, &off, &c);
	if (r < 0)
		return fail(io, r);
	return submitted(io, c, rbd_aio_discard(ls->handle->image, off, len, c));
}

int librbd_flush(struct store *s, struct store_io *io)
{
	struct librbd_store *ls = librbd_of(s);
	rbd_completion_t c;
	uint64_t off;
	int r;

	if (ls->is_read_only)
		return fail(io, 0);
	r = begin(ls, io, LIBRBD_CHANGE, 0, 0, &off, &c);
	if (r < 0)
		return fail(io, r);
	return submitted(io, c, rbd_aio_flush(ls->handle->image, c));
}

void librbd_freeable(struct store *s, uint64_t dev_off, uint64_t len, uint64_t *ret_off,
		     uint64_t *ret_len)
{
	struct librbd_store *ls = librbd_of(s);
	uint64_t off, free_off;

	*ret_off = dev_off;
	*ret_len = s->is_encrypted ? 0 : len;
	if (!s->is_encrypted || librbd_img_off(ls, dev_off, len, &off) < 0)
		return;
	layout_freeable(&ls->layout, atomic_load_explicit(&ls->raw_size, memory_order_relaxed), off,
			len, &free_off, ret_len);
	*ret_off = dev_off + (free_off - off);
}
