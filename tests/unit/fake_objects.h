/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Copyright (C) 2026 the rbdcrypt-nbd authors */

/*
 * The objects of an image and of its parent, for one test program: a librados that does to them
 * what it is asked for, in any order that RADOS allows, keeps what snapshots need, fails now and
 * then, and may be full.
 */

#ifndef FAKE_OBJECTS_H
#define FAKE_OBJECTS_H

#include <errno.h>
#include <inttypes.h>
#include <rados/librados.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#define OBJECT 8192u
#define N_OBJECTS 36u
#define N_SNAPS 3u
#define STEPS_MAX 4u

/* ---- objects, as an OSD has them ---- */

struct bytes {
	bool exists;
	unsigned int len;
	unsigned char at[OBJECT];
};

struct object {
	struct bytes head;
	/* What each snapshot has kept; until it has, the head is it. */
	bool is_kept[N_SNAPS];
	struct bytes kept[N_SNAPS];
};

enum step_kind { ASSERT_EXISTS, WRITE, TRUNCATE, ZERO, CREATE, REMOVE, COPYUP };

struct step {
	enum step_kind kind;
	const void *buf;
	void *owned;
	uint64_t off, len;
};

struct op {
	struct step steps[STEPS_MAX];
	unsigned int n;
};

struct call {
	rados_callback_t done;
	void *arg;
	int result;
	/* As sent. */
	uint64_t object;
	bool is_read, is_parent, is_with_snaps, is_tried_when_full;
	char *buf;
	uint64_t off, len;
	struct op op;
	struct call *next;
};

static struct {
	struct object child[N_OBJECTS];
	struct bytes parent[N_OBJECTS];
	struct call *sent; /* the oldest first */
	unsigned int n_snaps, n_completions, n_ops;
	unsigned int error_in; /* one of so many calls fails; 0: none */
	bool is_full; /* the pool: then only what is tried all the same happens, if it takes no
			 space */
	uint32_t random;
} osd;

/* Contexts: which one is asked is all that counts. */
static char io_child, io_parent, io_plan, io_copyup;

static unsigned int any(unsigned int n)
{
	osd.random ^= osd.random << 13;
	osd.random ^= osd.random >> 17;
	osd.random ^= osd.random << 5;
	return osd.random % n;
}

static bool is_failing(void)
{
	return osd.error_in > 0 && any(osd.error_in) == 0;
}

/* ---- librados ---- */

int rados_aio_create_completion2(void *arg, rados_callback_t done, rados_completion_t *ret)
{
	struct call *c;

	if (is_failing())
		return -ENOMEM;
	c = calloc(1, sizeof(*c));
	assert_non_null(c);
	c->done = done;
	c->arg = arg;
	osd.n_completions++;
	*ret = c;
	return 0;
}

int rados_aio_get_return_value(rados_completion_t completion)
{
	return ((struct call *)completion)->result;
}

static void op_clear(struct op *op)
{
	for (unsigned int i = 0; i < op->n; i++)
		free(op->steps[i].owned);
	op->n = 0;
}

void rados_aio_release(rados_completion_t completion)
{
	struct call *c = completion;

	osd.n_completions--;
	op_clear(&c->op);
	free(c);
}

static int send_to(struct call *c, const char *name)
{
	struct call **end = &osd.sent;

	if (is_failing())
		return -EIO;
	assert_int_equal(sscanf(name, "prefix.%16" SCNx64, &c->object), 1);
	assert_in_range(c->object, 0, N_OBJECTS - 1);
	while (*end)
		end = &(*end)->next;
	*end = c;
	return 0;
}

int rados_aio_read(rados_ioctx_t io, const char *name, rados_completion_t completion, char *buf,
		   size_t len, uint64_t off)
{
	struct call *c = completion;

	assert_true(off + len <= OBJECT);
	c->is_read = true;
	c->is_parent = io == &io_parent;
	c->buf = buf;
	c->off = off;
	c->len = len;
	return send_to(c, name);
}

rados_write_op_t rados_create_write_op(void)
{
	struct op *op = calloc(1, sizeof(*op));

	assert_non_null(op);
	osd.n_ops++;
	return op;
}

void rados_release_write_op(rados_write_op_t op)
{
	osd.n_ops--;
	op_clear(op);
	free(op);
}

static struct step *add(struct op *op, enum step_kind kind, uint64_t off, uint64_t len)
{
	struct step *s = &op->steps[op->n];

	assert_true(op->n < STEPS_MAX);
	op->n++;
	*s = (struct step){ .kind = kind, .off = off, .len = len };
	return s;
}

void rados_write_op_assert_exists(rados_write_op_t op)
{
	(void)add(op, ASSERT_EXISTS, 0, 0);
}

/* The bytes are looked at when it happens: they have to stay until then. */
void rados_write_op_write(rados_write_op_t op, const char *buf, size_t len, uint64_t off)
{
	assert_true(off + len <= OBJECT);
	add(op, WRITE, off, len)->buf = buf;
}

void rados_write_op_truncate(rados_write_op_t op, uint64_t off)
{
	(void)add(op, TRUNCATE, off, 0);
}

void rados_write_op_zero(rados_write_op_t op, uint64_t off, uint64_t len)
{
	assert_true(off + len <= OBJECT);
	(void)add(op, ZERO, off, len);
}

void rados_write_op_create(rados_write_op_t op, int exclusive, const char *category)
{
	(void)category;
	assert_int_equal(exclusive, LIBRADOS_CREATE_IDEMPOTENT);
	(void)add(op, CREATE, 0, 0);
}

void rados_write_op_remove(rados_write_op_t op)
{
	(void)add(op, REMOVE, 0, 0);
}

/* librados takes a copy of what a method is given. */
void rados_write_op_exec(rados_write_op_t op, const char *cls, const char *method, const char *in,
			 size_t len, int *error)
{
	struct step *s = add(op, COPYUP, 0, len);

	(void)error;
	assert_string_equal(cls, "rbd");
	assert_string_equal(method, "copyup");
	assert_true(len <= OBJECT);
	s->owned = malloc(len + 1);
	assert_non_null(s->owned);
	if (len > 0)
		memcpy(s->owned, in, len);
	s->buf = s->owned;
}

int rados_aio_write_op_operate(rados_write_op_t op, rados_ioctx_t io, rados_completion_t completion,
			       const char *name, time_t *mtime, int flags)
{
	struct call *c = completion;
	int r;

	(void)mtime;
	assert_true(io == &io_plan || io == &io_copyup);
	c->is_with_snaps = io == &io_plan;
	c->is_tried_when_full = flags & LIBRADOS_OPERATION_FULL_TRY;
	r = send_to(c, name);
	if (r < 0)
		return r;
	c->op = *(struct op *)op;
	((struct op *)op)->n = 0;
	return 0;
}

/* ---- what happens to objects ---- */

static void grow(struct bytes *b, uint64_t len)
{
	b->exists = true;
	if (len <= b->len)
		return;
	memset(b->at + b->len, 0, len - b->len);
	b->len = (unsigned int)len;
}

static int apply(const struct step *s, struct bytes *b)
{
	switch (s->kind) {
	case ASSERT_EXISTS:
		return b->exists ? 0 : -ENOENT;
	case WRITE:
		grow(b, s->off + s->len);
		memcpy(b->at + s->off, s->buf, s->len);
		return 0;
	case TRUNCATE:
		grow(b, s->off);
		b->len = (unsigned int)s->off;
		return 0;
	case ZERO:
		/* Creates nothing, and makes nothing longer. */
		for (uint64_t i = s->off; i < s->off + s->len && i < b->len; i++)
			b->at[i] = 0;
		return 0;
	case CREATE:
		b->exists = true;
		return 0;
	case REMOVE:
		if (!b->exists)
			return -ENOENT;
		*b = (struct bytes){ 0 };
		return 0;
	case COPYUP:
		if (b->exists)
			return 0;
		grow(b, s->len);
		memcpy(b->at, s->buf, s->len);
		return 0;
	}
	return -EINVAL;
}

/* Also where a snapshot keeps something from now on. */
static bool takes_space(const struct call *c, const struct bytes *now)
{
	const struct object *o = &osd.child[c->object];
	bool is_kept = false;

	for (unsigned int i = 0; c->is_with_snaps && i < osd.n_snaps; i++)
		is_kept |= o->head.exists && !o->is_kept[i];
	return is_kept || (now->exists && !o->head.exists) || now->len > o->head.len;
}

/* All steps or none, and what snapshots need is kept first. */
static int happen(struct call *c)
{
	struct object *o = &osd.child[c->object];
	struct bytes b = o->head;
	int r = 0;

	for (unsigned int i = 0; i < c->op.n && r == 0; i++)
		r = apply(&c->op.steps[i], &b);
	if (r < 0)
		return r;
	if (osd.is_full && takes_space(c, &b))
		return -ENOSPC;
	for (unsigned int i = 0; c->is_with_snaps && i < osd.n_snaps; i++)
		if (!o->is_kept[i]) {
			o->is_kept[i] = true;
			o->kept[i] = o->head;
		}
	o->head = b;
	return 0;
}

static int answer_read(const struct call *c)
{
	const struct bytes *b = c->is_parent ? &osd.parent[c->object] : &osd.child[c->object].head;
	uint64_t n;

	if (!b->exists)
		return -ENOENT;
	n = b->len > c->off ? b->len - c->off : 0;
	if (n > c->len)
		n = c->len;
	memcpy(c->buf, b->at + c->off, n);
	return (int)n;
}

static bool is_first_of_its_object(const struct call *c)
{
	for (const struct call *o = osd.sent; o != c; o = o->next)
		if (o->object == c->object && o->is_parent == c->is_parent)
			return false;
	return true;
}

/* One call, of those that may be next. False: none is under way. */
static bool answer_one(void)
{
	struct call *choice = NULL, **at = &osd.sent;
	unsigned int n = 0;

	for (struct call *c = osd.sent; c; c = c->next)
		if (is_first_of_its_object(c) &&
		    (!osd.is_full || c->is_read || c->is_tried_when_full) && any(++n) == 0)
			choice = c;
	if (!choice)
		return false;
	while (*at != choice)
		at = &(*at)->next;
	*at = choice->next;
	if (is_failing()) {
		choice->result = -EIO;
		if (!choice->is_read && any(2))
			(void)happen(choice);
	} else {
		choice->result = choice->is_read ? answer_read(choice) : happen(choice);
	}
	choice->done(choice, choice->arg);
	return true;
}

#endif
