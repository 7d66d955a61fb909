/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Copyright (C) 2026 the rbdcrypt-nbd authors */

/*
 * The operations of librados, for one test program: these definitions come before the
 * library's. What is sent is kept, and answered when the test says so, in any order; or at
 * once, by a function of the test. What is open is counted.
 */

#ifndef FAKE_OSD_H
#define FAKE_OSD_H

#include <pthread.h>
#include <rados/librados.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define FAKE_STEPS 80u
#define FAKE_HOLD 12345 /* of an answering function: the test answers later */

struct fake_step {
	char cls[8], method[32];
	unsigned char in[256];
	size_t in_len;
	/* Of reads. */
	char *out;
	size_t cap, *ret_len;
	int *ret_error;
};

struct fake_op {
	unsigned int n;
	struct fake_step steps[FAKE_STEPS];
};

struct fake_call {
	rados_callback_t done;
	void *arg;
	rados_ioctx_t io; /* of reads */
	int result;
	int planned; /* what fake_answer_planned() says; for answering functions */
	struct fake_op op;
	char object[160];
	struct fake_call *next;
};

static struct {
	pthread_mutex_t lock; /* guards what is sent; held while an answering function runs */
	struct fake_call *sent; /* and not answered; the oldest first */
	unsigned int n_sent; /* ever */
	atomic_int n_ops, n_completions, n_ioctx; /* open */
	int send_error, create_error;
	int (*answer)(struct fake_call *call);
} osd = { .lock = PTHREAD_MUTEX_INITIALIZER };

static inline void fake_reset(void)
{
	memset(&osd, 0, sizeof(osd));
	(void)pthread_mutex_init(&osd.lock, NULL);
}

/* ---- contexts ---- */

rados_t rados_ioctx_get_cluster(rados_ioctx_t io)
{
	(void)io;
	return NULL;
}

int64_t rados_ioctx_get_id(rados_ioctx_t io)
{
	(void)io;
	return 3;
}

int rados_ioctx_get_namespace(rados_ioctx_t io, char *buf, unsigned int len)
{
	(void)io;
	return snprintf(buf, len, "ns");
}

int rados_ioctx_create2(rados_t cluster, int64_t pool, rados_ioctx_t *ret)
{
	(void)cluster;
	if (pool != 3)
		abort();
	*ret = malloc(1);
	osd.n_ioctx++;
	return 0;
}

void rados_ioctx_set_namespace(rados_ioctx_t io, const char *nspace)
{
	(void)io;
	if (strcmp(nspace, "ns") != 0)
		abort();
}

void rados_ioctx_destroy(rados_ioctx_t io)
{
	osd.n_ioctx--;
	free(io);
}

/* ---- operations ---- */

static inline void *fake_op_new(void)
{
	struct fake_op *op = calloc(1, sizeof(*op));

	osd.n_ops++;
	return op;
}

rados_write_op_t rados_create_write_op(void)
{
	return fake_op_new();
}

rados_read_op_t rados_create_read_op(void)
{
	return fake_op_new();
}

void rados_release_write_op(rados_write_op_t op)
{
	osd.n_ops--;
	free(op);
}

void rados_release_read_op(rados_read_op_t op)
{
	rados_release_write_op(op);
}

static struct fake_step *fake_add(struct fake_op *op, const char *cls, const char *method,
				  const char *in, size_t len)
{
	struct fake_step *s = &op->steps[op->n];

	if (op->n == FAKE_STEPS || len > sizeof(s->in))
		abort();
	op->n++;
	(void)snprintf(s->cls, sizeof(s->cls), "%s", cls);
	(void)snprintf(s->method, sizeof(s->method), "%s", method);
	if (len)
		memcpy(s->in, in, len);
	s->in_len = len;
	return s;
}

void rados_write_op_exec(rados_write_op_t op, const char *cls, const char *method, const char *in,
			 size_t len, int *error)
{
	(void)error;
	(void)fake_add(op, cls, method, in, len);
}

void rados_read_op_exec_user_buf(rados_read_op_t op, const char *cls, const char *method,
				 const char *in, size_t len, char *out, size_t cap, size_t *ret_len,
				 int *ret_error)
{
	struct fake_step *s = fake_add(op, cls, method, in, len);

	s->out = out;
	s->cap = cap;
	s->ret_len = ret_len;
	s->ret_error = ret_error;
}

/* The answer to a step of a read, as librados gives it. */
static inline void fake_output(struct fake_step *s, const void *data, size_t len)
{
	*s->ret_error = len > s->cap ? -ERANGE : 0;
	if (len > s->cap)
		return;
	memcpy(s->out, data, len);
	*s->ret_len = len;
}

/* ---- calls ---- */

int rados_aio_create_completion2(void *arg, rados_callback_t done, rados_completion_t *ret)
{
	struct fake_call *c;

	if (osd.create_error)
		return osd.create_error;
	c = calloc(1, sizeof(*c));
	c->done = done;
	c->arg = arg;
	osd.n_completions++;
	*ret = c;
	return 0;
}

void rados_aio_release(rados_completion_t completion)
{
	osd.n_completions--;
	free(completion);
}

int rados_aio_get_return_value(rados_completion_t completion)
{
	return ((struct fake_call *)completion)->result;
}

static int fake_send(struct fake_op *op, rados_completion_t completion, const char *object)
{
	struct fake_call *c = completion, **end = &osd.sent;
	bool is_kept;

	if (osd.send_error)
		return osd.send_error;
	c->op = *op;
	(void)snprintf(c->object, sizeof(c->object), "%s", object);
	(void)pthread_mutex_lock(&osd.lock);
	osd.n_sent++;
	c->result = osd.answer ? osd.answer(c) : FAKE_HOLD;
	is_kept = c->result == FAKE_HOLD;
	if (is_kept) {
		while (*end)
			end = &(*end)->next;
		*end = c;
	}
	(void)pthread_mutex_unlock(&osd.lock);
	if (!is_kept)
		c->done(c, c->arg);
	return 0;
}

int rados_aio_write_op_operate(rados_write_op_t op, rados_ioctx_t io, rados_completion_t completion,
			       const char *object, time_t *mtime, int flags)
{
	(void)io;
	(void)mtime;
	/* Metadata, which takes no space, and on which those wait who free some in a full pool. */
	if (!(flags & LIBRADOS_OPERATION_FULL_TRY))
		abort();
	return fake_send(op, completion, object);
}

int rados_aio_read_op_operate(rados_read_op_t op, rados_ioctx_t io, rados_completion_t completion,
			      const char *object, int flags)
{
	(void)flags;
	/* Looked at again when the answer comes, as librados does. */
	((struct fake_call *)completion)->io = io;
	return fake_send(op, completion, object);
}

/* The i-th that waits for an answer, or NULL. */
static inline struct fake_call *fake_nth(unsigned int i)
{
	struct fake_call *c = osd.sent;

	while (c && i-- > 0)
		c = c->next;
	return c;
}

static inline struct fake_call *fake_take(unsigned int i)
{
	struct fake_call **at = &osd.sent, *c;

	(void)pthread_mutex_lock(&osd.lock);
	while (*at && i-- > 0)
		at = &(*at)->next;
	c = *at;
	if (c)
		*at = c->next;
	(void)pthread_mutex_unlock(&osd.lock);
	return c;
}

static inline void fake_touch(rados_ioctx_t io)
{
	if (io)
		*(volatile char *)io = 1;
}

/* It gets an answer. */
static inline void fake_answer(unsigned int i, int result)
{
	struct fake_call *c = fake_take(i);

	if (!c)
		abort();
	c->result = result;
	fake_touch(c->io);
	c->done(c, c->arg);
}

/* As its answering function would have it. False: nobody waits. */
static inline bool fake_answer_planned(unsigned int i)
{
	struct fake_call *c = fake_take(i);

	if (!c)
		return false;
	c->result = c->planned;
	c->done(c, c->arg);
	return true;
}

static inline unsigned int fake_waiting(void)
{
	unsigned int n = 0;

	(void)pthread_mutex_lock(&osd.lock);
	for (struct fake_call *c = osd.sent; c; c = c->next)
		n++;
	(void)pthread_mutex_unlock(&osd.lock);
	return n;
}

/* ---- bytes ---- */

/* "0701 15000000", blanks being nothing. Returns how many bytes. */
static inline size_t from_hex(const char *hex, unsigned char *buf, size_t cap)
{
	size_t n = 0;
	unsigned int byte;
	int used;

	while (sscanf(hex, " %2x%n", &byte, &used) == 1) {
		if (n == cap)
			abort();
		buf[n++] = (unsigned char)byte;
		hex += used;
	}
	return n;
}

#endif
