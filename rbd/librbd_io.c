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

int librbd_img_off(const struct librbd_store *ls, uint64_t dev_off, uint64_t len, uint64_t *ret)
{
	uint64_t size = atomic_load_explicit(&ls->raw_size, memory_order_relaxed);
	uint64_t off = ls->base.data_offset + dev_off;

	if (off > size || len > size - off)
		return -EIO;
	*ret = off;
	return 0;
}

static int fail(struct store_io *io, int error)
{
	io->result = error;
	return STORE_DONE;
}

/* r is what the submission returned: when it failed, nobody will call back. */
static int submitted(rbd_completion_t c, int r)
{
	if (r >= 0)
		return 0;
	rbd_aio_release(c);
	return r;
}

/* ---- reads ---- */

/* A read that is not full has lost something; no request of ours reaches past the image's end. */
static int read_result(struct store_io *io, ssize_t n)
{
	if (n < 0)
		return (int)n;
	if ((uint64_t)n != io->len)
		return -EIO;
	return store_io_add(io, io->dev_off, io->len, 0, false);
}

static void on_read(rbd_completion_t c, void *arg)
{
	struct store_io *io = arg;
	ssize_t n = rbd_aio_get_return_value(c);

	rbd_aio_release(c);
	io->result = read_result(io, n);
	io->done(io);
}

int librbd_read_image(struct store *s, struct store_io *io, uint64_t dev_off, void *buf, size_t len)
{
	struct librbd_store *ls = librbd_of(s);
	rbd_completion_t c;
	uint64_t off;
	int r = librbd_img_off(ls, dev_off, len, &off);

	io->store = s;
	io->dev_off = dev_off;
	io->len = len;
	if (r == 0 && librbd_is_gone(ls))
		r = -EIO;
	if (r == 0)
		r = rbd_aio_create_completion(io, on_read, &c);
	if (r == 0)
		r = submitted(c, rbd_aio_read(ls->handle->image, off, len, buf, c));
	return r < 0 ? fail(io, r) : 0;
}

int librbd_read(struct store *s, struct store_io *io, uint64_t dev_off, void *buf, size_t len)
{
	if (librbd_direct_read(librbd_of(s), io, dev_off, buf, len))
		return 0;
	return librbd_read_image(s, io, dev_off, buf, len);
}

/* ---- changes ---- */

static void on_change(rbd_completion_t c, void *arg)
{
	struct store_io *io = arg;
	ssize_t n = rbd_aio_get_return_value(c);
	int r = n < 0 ? (int)n : 0;

	rbd_aio_release(c);
	if (r == 0 && io->op != LIBRBD_WRITE) {
		r = librbd_send(io);
		if (r == 0)
			return;
	}
	io->result = r < 0 ? r : 0;
	librbd_copyup_leave(librbd_of(io->store), io);
	io->done(io);
}

/*
 * Takes the next piece out of what io still has to remove: librbd would send the operations of all
 * its objects at once. The last comes first: where it is the tail of an encrypted image, it may go
 * only as long as that ends there.
 */
static uint64_t take_piece(const struct librbd_store *ls, struct store_io *io, uint64_t *off)
{
	uint64_t len = layout_last_piece(&ls->layout, *off, io->len, PIECE_OBJECTS);

	io->len -= len;
	*off += io->len;
	return len;
}

int librbd_send(struct store_io *io)
{
	struct librbd_store *ls = librbd_of(io->store);
	rbd_image_t image = ls->handle->image;
	rbd_completion_t c;
	uint64_t off, len;
	int r;

	if (io->len == 0 && io->op != LIBRBD_WRITE)
		return STORE_DONE;
	r = librbd_img_off(ls, io->dev_off, io->len, &off);
	if (r == 0)
		r = rbd_aio_create_completion(io, on_change, &c);
	if (r < 0)
		return r;
	len = io->op == LIBRBD_WRITE ? io->len : take_piece(ls, io, &off);
	/* Once it was sent, it may be over, and io gone. */
	switch ((enum librbd_op)io->op) {
	case LIBRBD_WRITE:
		r = rbd_aio_write(image, off, len, io->buf, c);
		break;
	case LIBRBD_ZERO:
	case LIBRBD_ZERO_DENSE:
		r = rbd_aio_write_zeroes(
			image, off, (size_t)len, c,
			io->op == LIBRBD_ZERO_DENSE ? RBD_WRITE_ZEROES_FLAG_THICK_PROVISION : 0,
			/* op_flags */ 0);
		break;
	case LIBRBD_DISCARD:
		r = rbd_aio_discard(image, off, len, c);
		break;
	}
	return submitted(c, r);
}

static int change(struct store *s, struct store_io *io, enum librbd_op op, uint64_t dev_off,
		  void *buf, uint64_t len)
{
	struct librbd_store *ls = librbd_of(s);
	uint64_t off;
	int r = librbd_img_off(ls, dev_off, len, &off);

	if (r == 0 && ls->is_read_only)
		r = -EROFS;
	if (r < 0)
		return fail(io, r);
	io->store = s;
	io->op = op;
	io->buf = buf;
	io->dev_off = dev_off;
	io->len = len;
	if (!librbd_copyup_enter(ls, io))
		return 0;
	r = librbd_send(io);
	if (r == 0)
		return 0;
	io->result = r < 0 ? r : 0;
	librbd_copyup_leave(ls, io);
	return STORE_DONE;
}

int librbd_write(struct store *s, struct store_io *io, uint64_t dev_off, const void *buf,
		 size_t len)
{
	return change(s, io, LIBRBD_WRITE, dev_off, (void *)(uintptr_t)buf, len);
}

int librbd_zero(struct store *s, struct store_io *io, uint64_t dev_off, uint64_t len,
		unsigned int flags)
{
	return change(s, io, flags & STORE_ZERO_NO_HOLE ? LIBRBD_ZERO_DENSE : LIBRBD_ZERO, dev_off,
		      NULL, len);
}

int librbd_discard(struct store *s, struct store_io *io, uint64_t dev_off, uint64_t len)
{
	uint64_t free_off, free_len;

	if (!s->is_encrypted)
		return change(s, io, LIBRBD_DISCARD, dev_off, NULL, len);
	librbd_freeable(s, dev_off, len, &free_off, &free_len);
	/*
	 * Not librbd's discard: it rounds to its granularity, so that what was clipped to an
	 * object's end might end before it, and leave a hole.
	 */
	return free_len > 0 ? change(s, io, LIBRBD_ZERO, free_off, NULL, free_len) : fail(io, 0);
}

static void on_flush(rbd_completion_t c, void *arg)
{
	struct store_io *io = arg;
	ssize_t n = rbd_aio_get_return_value(c);

	rbd_aio_release(c);
	io->result = n < 0 ? (int)n : 0;
	io->done(io);
}

int librbd_flush(struct store *s, struct store_io *io)
{
	struct librbd_store *ls = librbd_of(s);
	rbd_completion_t c;
	int r;

	if (ls->is_read_only)
		return fail(io, 0);
	r = rbd_aio_create_completion(io, on_flush, &c);
	if (r == 0)
		r = submitted(c, rbd_aio_flush(ls->handle->image, c));
	return r < 0 ? fail(io, r) : 0;
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
