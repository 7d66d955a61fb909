/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Copyright (C) 2026 the rbdcrypt-nbd authors */

/*
 * Changes of a layered image, object by object. One call of the store is a change. A write goes as
 * one piece, what removes as several, one after the other (PIECE_OBJECTS). A piece passes the gate,
 * is cut into parts that each lie in one object, and each part goes
 *
 *   object map says "exists" -> [copy-up] -> one operation on the object -> [object map: "none"]
 *
 * where the operation is guarded: on an object that may still be the parent's it only works when
 * the object exists, and else the part comes back by way of a copy-up. (spec: rados-engine 7)
 *
 * Called from any thread, carried on by callbacks of librados, the object map and copy-ups; a
 * part is held by one of them at a time. Two changes that are under way never overlap: the
 * requests' range lock sees to it, so removing an object meets nobody who writes to it.
 */

#include "rados.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

/* An object that is copied up and gone again, over and over: somebody else works on it. */
#define ROUNDS_MAX 5
/* Of zeros that are written: each of them takes memory, and librados copies it. */
#define PIECE_OBJECTS_DENSE 1

enum action { WRITE, TRUNCATE, ZERO, EMPTY, REMOVE };

struct change;

struct part {
	struct change *change;
	struct part *next;
	uint64_t object, object_off, len;
	const void *buf; /* WRITE */
	void *zeros; /* owned; buf of a WRITE that has none */
	enum action action;
	bool is_backed; /* the parent shows through where the object does not exist */
	bool is_missing_fine; /* then there is nothing to do */
	bool takes_space; /* and waits for it in a full pool */
	unsigned int rounds;
	struct map_wait map;
	struct copyup_wait copyup;
};

struct change {
	struct gate_pass pass;
	struct rados_store *rs;
	struct store_io *io;
	const void *buf;
	uint64_t dev_off, len; /* what no piece has been made of */
	uint64_t piece_off, piece_len;
	bool is_write, is_hint, is_dense; /* dense: zeros are to be written, not holes */
	atomic_uint pending; /* parts that have not ended, and one while parts are made */
	atomic_int error; /* the first */
	struct part first;
	bool has_first;
};

/* ---- the end ---- */

/* Notes what an operation said that changed the image; returns what the request is told. */
static int write_result(struct rados_store *rs, int error)
{
	if (error == -ESHUTDOWN) {
		owner_is_fenced(rs->writer->owner);
		return -EIO;
	}
	return error;
}

static void note_error(struct change *c, int error)
{
	int expected = 0;

	(void)atomic_compare_exchange_strong(&c->error, &expected, error);
}

static void change_end(struct change *c)
{
	struct store_io *io = c->io;

	io->result = atomic_load(&c->error);
	free(c);
	io->done(io);
}

/*
 * Outside the gate whoever closes it comes between the pieces: it has to wait for a few objects,
 * not for all of a large change. True: there is another piece, and it is inside.
 */
static bool piece_end(struct change *c)
{
	struct gate *gate = &c->rs->writer->gate;
	bool is_last = c->len == 0 || atomic_load(&c->error) < 0;

	/* Whoever drains the gate may rely on it: nothing of this piece is still to come. */
	gate_leave(gate);
	if (!is_last)
		return gate_enter(gate, &c->pass);
	change_end(c);
	return false;
}

static int piece_start(struct change *c);

/* Inside the gate. */
static void change_go_on(struct change *c)
{
	do {
		int r;

		atomic_store(&c->pending, 1);
		r = piece_start(c);
		if (r < 0)
			note_error(c, r);
	} while (atomic_fetch_sub(&c->pending, 1) == 1 && piece_end(c));
}

static void part_end(struct part *p, int result)
{
	struct change *c = p->change;

	if (result < 0)
		note_error(c, write_result(c->rs, result));
	free(p->zeros);
	if (p != &c->first)
		free(p);
	if (atomic_fetch_sub(&c->pending, 1) == 1 && piece_end(c))
		change_go_on(c);
}

/* ---- one operation ---- */

static void part_operate(struct part *p);
static void part_removed(struct part *p);

static void part_copyup_done(struct copyup_wait *w, int result)
{
	struct part *p = (struct part *)((char *)w - offsetof(struct part, copyup));

	if (result < 0 || w->is_written)
		part_end(p, result);
	else
		part_operate(p);
}

static void part_copyup(struct part *p)
{
	p->copyup = (struct copyup_wait){ .done = part_copyup_done };
	if (p->action == WRITE) {
		p->copyup.buf = p->buf;
		p->copyup.len = p->len;
		p->copyup.object_off = p->object_off;
	}
	copyup_object(p->change->rs, p->object, &p->copyup);
}

static void on_operated(rados_completion_t completion, void *arg)
{
	struct part *p = arg;
	int r = rados_aio_get_return_value(completion);

	rados_aio_release(completion);
	if (r == -ENOENT && p->action == REMOVE)
		r = 0;
	if (r == -ENOENT && p->is_backed && p->is_missing_fine)
		r = 0;
	/* An empty object, or what a snapshot keeps, takes some after all. */
	if ((r == -ENOSPC || r == -EDQUOT) && !p->takes_space) {
		p->takes_space = true;
		part_operate(p);
		return;
	}
	if (r == -ENOENT && p->is_backed && p->rounds++ < ROUNDS_MAX)
		part_copyup(p);
	else if (r < 0)
		part_end(p, r == -ENOENT ? -EIO : r);
	else if (p->action == REMOVE)
		part_removed(p);
	else
		part_end(p, 0);
}

static void add_steps(const struct part *p, rados_write_op_t op)
{
	/* First, before anything that would create the object. */
	if (p->is_backed && p->action != EMPTY)
		rados_write_op_assert_exists(op);
	switch (p->action) {
	case WRITE:
		rados_write_op_write(op, p->buf, p->len, p->object_off);
		break;
	case TRUNCATE:
		rados_write_op_truncate(op, p->object_off);
		break;
	case ZERO:
		rados_write_op_zero(op, p->object_off, p->len);
		break;
	case EMPTY:
		rados_write_op_create(op, LIBRADOS_CREATE_IDEMPOTENT, NULL);
		rados_write_op_truncate(op, 0);
		break;
	case REMOVE:
		rados_write_op_remove(op);
		break;
	}
}

static void part_operate(struct part *p)
{
	struct rados_store *rs = p->change->rs;
	/* In a full pool what frees space is to work, or to fail; all else waits inside librados.
	 */
	int flags = p->takes_space ? 0 : LIBRADOS_OPERATION_FULL_TRY;
	rados_completion_t completion;
	char name[OBJECT_NAME_MAX];
	rados_write_op_t op;
	int r = rados_aio_create_completion2(p, on_operated, &completion);

	if (r < 0) {
		part_end(p, r);
		return;
	}
	object_name(&rs->layers[0].place, p->object, name);
	op = rados_create_write_op();
	add_steps(p, op);
	r = rados_aio_write_op_operate(op, rs->writer->plan.io, completion, name, NULL, flags);
	/* When it was sent, its callback may have run already, and p be gone. */
	rados_release_write_op(op);
	if (r < 0) {
		rados_aio_release(completion);
		part_end(p, r);
	}
}

/* ---- the object map ---- */

static void on_map_none(struct map_wait *w)
{
	part_end((struct part *)((char *)w - offsetof(struct part, map)), w->result);
}

/* The object is gone, which the map may say now. */
static void part_removed(struct part *p)
{
	struct rados_writer *w = p->change->rs->writer;

	p->map = (struct map_wait){ .done = on_map_none };
	if (object_map_set(w->map, &p->map, p->object, OBJECT_NONE, OBJECT_PENDING) == STORE_DONE)
		part_end(p, p->map.result);
}

static void part_mapped(struct part *p, bool was_none)
{
	if (p->map.result < 0)
		part_end(p, p->map.result);
	else if (was_none && p->is_backed && p->action != EMPTY)
		part_copyup(p);
	else
		part_operate(p);
}

static void on_map_known(struct map_wait *w)
{
	part_mapped((struct part *)((char *)w - offsetof(struct part, map)), false);
}

static void on_map_was_none(struct map_wait *w)
{
	part_mapped((struct part *)((char *)w - offsetof(struct part, map)), true);
}

/* All may be over when this returns. */
static void part_start(struct part *p)
{
	struct rados_writer *w = p->change->rs->writer;
	bool is_none = object_map_is_none(w->map, p->object);
	enum object_state state = p->action == REMOVE ? OBJECT_PENDING : OBJECT_EXISTS;
	int current = p->action == REMOVE ? (int)OBJECT_EXISTS : CLS_ANY_STATE;

	/* Nothing there, and nothing is to be there. */
	if (is_none && p->is_missing_fine) {
		part_end(p, 0);
		return;
	}
	p->takes_space = p->action == WRITE;
	p->map = (struct map_wait){ .done = is_none ? on_map_was_none : on_map_known };
	if (object_map_set(w->map, &p->map, p->object, state, current) == STORE_DONE)
		part_mapped(p, is_none);
}

/* ---- cutting a change into pieces, and these into parts ---- */

/* The bytes that object has for the image: it may end inside it. */
static uint64_t span_of(const struct rados_store *rs, uint64_t object)
{
	const struct layout *l = &rs->layers[0].layout;
	uint64_t raw_size = rs->writer->plan.raw_size, start = object * l->object_size;

	/* The last objects of a striped image end somewhere: taken as whole they lose nothing. */
	if (l->stripe_count > 1 || raw_size - start > l->object_size)
		return l->object_size;
	return raw_size - start;
}

static void choose_action(struct part *p)
{
	struct change *c = p->change;
	bool is_whole = p->object_off == 0,
	     is_tail = p->object_off + p->len >= span_of(c->rs, p->object);

	p->is_missing_fine = c->is_hint || !p->is_backed;
	if (c->is_write) {
		p->action = WRITE;
		p->is_missing_fine = false;
	} else if (!is_tail) {
		p->action = ZERO;
	} else if (!is_whole) {
		p->action = TRUNCATE;
	} else if (!p->is_backed) {
		p->action = REMOVE;
	} else {
		/*
		 * Made without a copy-up it would be missing in the snapshots when a deep-flatten
		 * takes their parent away: that copies only what does not exist.
		 */
		p->action = c->is_hint || c->rs->writer->plan.n_snaps > 0 ? TRUNCATE : EMPTY;
	}
}

/* Adds and starts a part. -ENOMEM. */
static int add_part(struct change *c, uint64_t object, uint64_t object_off, uint64_t len,
		    const void *buf)
{
	struct rados_store *rs = c->rs;
	struct part *p = c->has_first ? malloc(sizeof(*p)) : &c->first;
	uint64_t first_raw;

	if (!p)
		return -ENOMEM;
	c->has_first = true;
	*p = (struct part){
		.change = c, .object = object, .object_off = object_off, .len = len, .buf = buf
	};
	first_raw = layout_image_offset(&rs->layers[0].layout, object, 0);
	p->is_backed = first_raw < rs->layers[0].data_offset + rs->writer->plan.overlap &&
		       rs->writer->plan.overlap > 0;
	choose_action(p);
	if (c->is_dense && !c->is_write) {
		p->zeros = calloc(1, len);
		if (!p->zeros) {
			if (p != &c->first)
				free(p);
			return -ENOMEM;
		}
		p->action = WRITE;
		p->buf = p->zeros;
		p->is_missing_fine = false;
	}
	(void)atomic_fetch_add(&c->pending, 1);
	part_start(p);
	return 0;
}

static int cut_by_runs(struct change *c)
{
	const struct rados_objects *l = &c->rs->layers[0];
	uint64_t raw = l->data_offset + c->piece_off, end = raw + c->piece_len;
	int r = 0;

	while (raw < end && r == 0) {
		uint64_t object, object_off;
		uint64_t run = layout_object(&l->layout, raw, &object, &object_off);
		const char *buf = c->buf ? (const char *)c->buf +
						   (raw - l->data_offset - c->piece_off)
					 : NULL;

		if (run > end - raw)
			run = end - raw;
		r = add_part(c, object, object_off, run, buf);
		raw += run;
	}
	return r;
}

/* Whole stripe periods: each object of them as one. */
static int cut_by_objects(struct change *c)
{
	const struct rados_objects *l = &c->rs->layers[0];
	uint64_t period = l->layout.object_size * l->layout.stripe_count;
	uint64_t raw = l->data_offset + c->piece_off;
	uint64_t object = raw / period * l->layout.stripe_count;
	uint64_t end = (raw + c->piece_len + period - 1) / period * l->layout.stripe_count;
	uint64_t most = layout_objects(&l->layout, c->rs->writer->plan.raw_size);
	int r = 0;

	/* In the last period of the image some may be beyond its end. */
	if (end > most)
		end = most;

	for (; object < end && r == 0; object++)
		r = add_part(c, object, 0, l->layout.object_size, NULL);
	return r;
}

static bool is_of_periods(const struct change *c)
{
	const struct rados_objects *l = &c->rs->layers[0];
	uint64_t period = l->layout.object_size * l->layout.stripe_count;
	uint64_t raw = l->data_offset + c->piece_off, end = raw + c->piece_len;

	return l->layout.stripe_count > 1 && !c->is_write && !c->is_dense && raw % period == 0 &&
	       (end % period == 0 || end == c->rs->writer->plan.raw_size);
}

/*
 * What reached to the end of the image, and was cut off there as a tail, may be in the middle of an
 * object by now: a hole there is garbage to other clients. 0, or -EIO where it was a promise.
 */
static int check_tail(struct change *c)
{
	uint64_t off, len;

	if (c->is_write || !c->rs->base.is_encrypted)
		return 0;
	rados_store_freeable(&c->rs->base, c->dev_off, c->len, &off, &len);
	if (off == c->dev_off && len == c->len)
		return 0;
	c->dev_off = off;
	c->len = len;
	return c->is_hint ? 0 : -EIO;
}

/* The last comes first: where it is the tail of the image, it may go only as long as that is. */
static void take_piece(struct change *c)
{
	const struct rados_objects *l = &c->rs->layers[0];

	c->piece_len =
		c->is_write ? c->len
			    : layout_last_piece(&l->layout, l->data_offset + c->dev_off, c->len,
						c->is_dense ? PIECE_OBJECTS_DENSE : PIECE_OBJECTS);
	c->len -= c->piece_len;
	c->piece_off = c->dev_off + c->len;
}

static int piece_start(struct change *c)
{
	/* The image may have become smaller or larger while we waited. */
	int r = rados_check_range(c->rs, c->dev_off, c->len);

	if (r == 0)
		r = check_tail(c);
	if (r < 0 || c->len == 0)
		return r;
	take_piece(c);
	c->has_first = false;
	return is_of_periods(c) ? cut_by_objects(c) : cut_by_runs(c);
}

static void on_admitted(struct gate_pass *pass, int error)
{
	struct change *c = (struct change *)((char *)pass - offsetof(struct change, pass));

	if (error == 0) {
		change_go_on(c);
		return;
	}
	note_error(c, error);
	change_end(c);
}

static int change_start(struct rados_store *rs, struct store_io *io, const struct change *as)
{
	struct change *c;
	int r = rs->writer ? rados_check_range(rs, as->dev_off, as->len) : -EROFS;

	c = r == 0 ? malloc(sizeof(*c)) : NULL;
	if (!c) {
		io->result = r < 0 ? r : -ENOMEM;
		return STORE_DONE;
	}
	*c = *as;
	c->rs = rs;
	c->io = io;
	c->pass.go = on_admitted;
	atomic_init(&c->pending, 0);
	atomic_init(&c->error, 0);
	if (gate_enter(&rs->writer->gate, &c->pass))
		change_go_on(c);
	return 0;
}

/* ---- the store's calls ---- */

int rados_store_write(struct store *s, struct store_io *io, uint64_t dev_off, const void *buf,
		      size_t len)
{
	const struct change as = { .buf = buf, .dev_off = dev_off, .len = len, .is_write = true };

	return change_start(rados_of(s), io, &as);
}

int rados_store_zero(struct store *s, struct store_io *io, uint64_t dev_off, uint64_t len,
		     unsigned int flags)
{
	const struct change as = { .dev_off = dev_off,
				   .len = len,
				   .is_dense = flags & STORE_ZERO_NO_HOLE };

	return change_start(rados_of(s), io, &as);
}

void rados_store_freeable(struct store *s, uint64_t dev_off, uint64_t len, uint64_t *ret_off,
			  uint64_t *ret_len)
{
	struct rados_store *rs = rados_of(s);
	uint64_t header = rs->layers[0].data_offset;

	if (!s->is_encrypted) {
		*ret_off = dev_off;
		*ret_len = len;
		return;
	}
	layout_freeable(&rs->layers[0].layout, atomic_load(&rs->raw_size), header + dev_off, len,
			ret_off, ret_len);
	*ret_off -= header;
}

int rados_store_discard(struct store *s, struct store_io *io, uint64_t dev_off, uint64_t len)
{
	struct change as = { .is_hint = true };

	rados_store_freeable(s, dev_off, len, &as.dev_off, &as.len);
	if (as.len > 0)
		return change_start(rados_of(s), io, &as);
	io->result = 0;
	return STORE_DONE;
}
