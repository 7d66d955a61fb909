/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Copyright (C) 2026 the rbdcrypt-nbd authors */

/*
 * Random IO on a store, several at once, against a model in memory. Reservations keep
 * requests from overlapping, so that every answer is known. The calling thread submits and
 * judges; completions only put their slot on a list, which the lock guards. The first wrong
 * answer ends the program.
 */

#include "checker.h"

#include <errno.h>
#include <inttypes.h>
#include <pthread.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#define BLOCK CHECKER_BLOCK
#define MAX_DEPTH CHECKER_MAX_DEPTH
#define MAX_IO (2u << 20)

/* ---- random numbers that a seed repeats ---- */

static uint64_t next_random(uint64_t *state)
{
	*state ^= *state << 13;
	*state ^= *state >> 7;
	*state ^= *state << 17;
	return *state;
}

/* ---- the check ---- */

enum step {
	STEP_IDLE,
	STEP_READ,
	STEP_CHANGE,
	STEP_DISCARD,
	STEP_DISCARDED,
	STEP_STATUS,
	STEP_FLUSH,
};
enum count { WRITES, ZEROS, DISCARDS, FLUSHES, STATUSES, HOLES, READS, N_COUNTS };

struct checker;
struct slot {
	struct store_io io;
	struct checker *checker;
	struct slot *next_done;
	enum step step;
	uint64_t off, len; /* reserved: no other slot overlaps */
	unsigned char *buf;
};

struct checker {
	struct store *store;
	unsigned char *model;
	unsigned char *is_busy; /* per block */
	uint64_t size;
	uint64_t random;
	struct slot slots[MAX_DEPTH];
	unsigned int depth;
	pthread_mutex_t lock;
	pthread_cond_t some_done;
	struct slot *done; /* lock */
	unsigned int counts[N_COUNTS];
};

static void slot_done(struct store_io *io)
{
	struct slot *s = (struct slot *)((char *)io - offsetof(struct slot, io));
	struct checker *c = s->checker;

	pthread_mutex_lock(&c->lock);
	s->next_done = c->done;
	c->done = s;
	pthread_cond_signal(&c->some_done);
	pthread_mutex_unlock(&c->lock);
}

static void die(const char *what, const struct slot *s, int error)
{
	fprintf(stderr, "checker: %s: off %" PRIu64 " len %" PRIu64 ": %s\n", what, s->off, s->len,
		strerror(-error));
	exit(EXIT_FAILURE);
}

/* Mostly small; now and then large enough for whole objects. */
static bool reserve(struct checker *c, struct slot *s)
{
	uint64_t blocks = c->size / BLOCK, n, from;

	n = 1 + next_random(&c->random) % (next_random(&c->random) % 8 ? 8 : MAX_IO / BLOCK);
	if (n > blocks)
		n = blocks;
	from = next_random(&c->random) % (blocks - n + 1);
	for (uint64_t i = from; i < from + n; i++)
		if (c->is_busy[i])
			return false;
	memset(c->is_busy + from, 1, n);
	s->off = from * BLOCK;
	s->len = n * BLOCK;
	return true;
}

static void release(struct checker *c, struct slot *s)
{
	memset(c->is_busy + s->off / BLOCK, 0, s->len / BLOCK);
	s->off = s->len = 0;
	s->step = STEP_IDLE;
}

static void began(struct slot *s, int r)
{
	if (r == STORE_DONE)
		slot_done(&s->io);
}

static void start_read(struct checker *c, struct slot *s, enum step step)
{
	s->step = step;
	store_io_reset(&s->io);
	began(s, c->store->ops->read(c->store, &s->io, s->off, s->buf, s->len));
}

static void start_write(struct checker *c, struct slot *s)
{
	s->step = STEP_CHANGE;
	for (uint64_t i = 0; i < s->len; i += 8) {
		uint64_t v = next_random(&c->random);

		memcpy(s->buf + i, &v, 8);
	}
	memcpy(c->model + s->off, s->buf, s->len);
	c->counts[WRITES]++;
	began(s, c->store->ops->write(c->store, &s->io, s->off, s->buf, s->len));
}

static void start_zero(struct checker *c, struct slot *s)
{
	const struct store_ops *ops = c->store->ops;
	bool is_thick = !c->store->is_encrypted && next_random(&c->random) % 2;
	uint64_t off, len;

	ops->freeable(c->store, s->off, s->len, &off, &len);
	if (len > 0 && (off < s->off || off + len > s->off + s->len))
		die("freeable gave more than was asked for", s, -ERANGE);
	if (len == 0) {
		start_read(c, s, STEP_READ);
		return;
	}
	s->step = STEP_CHANGE;
	memset(c->model + off, 0, len);
	c->counts[ZEROS]++;
	began(s, ops->zero(c->store, &s->io, off, len, is_thick ? STORE_ZERO_NO_HOLE : 0));
}

static void start_slot(struct checker *c, struct slot *s)
{
	const struct store_ops *ops = c->store->ops;
	unsigned int what = (unsigned int)(next_random(&c->random) % 100);

	store_io_reset(&s->io);
	if (what < 2) {
		s->step = STEP_FLUSH;
		c->counts[FLUSHES]++;
		began(s, ops->flush(c->store, &s->io));
		return;
	}
	while (!reserve(c, s))
		;
	if (what < 40) {
		start_read(c, s, STEP_READ);
	} else if (what < 75) {
		start_write(c, s);
	} else if (what < 85) {
		start_zero(c, s);
	} else if (what < 95) {
		s->step = STEP_DISCARD;
		c->counts[DISCARDS]++;
		began(s, ops->discard(c->store, &s->io, s->off, s->len));
	} else {
		s->step = STEP_STATUS;
		c->counts[STATUSES]++;
		began(s, ops->status(c->store, &s->io, s->off, s->len));
	}
}

/* A read's or status' pieces: in order, without gaps; how far they go. */
static uint64_t check_pieces(const struct slot *s)
{
	uint64_t pos = s->off;

	for (unsigned int i = 0; i < s->io.n_extents; i++) {
		const struct store_extent *e = &s->io.extents[i];

		if (e->dev_off != pos || e->len == 0 || e->dev_off + e->len > s->off + s->len)
			die("the pieces have a gap", s, -ERANGE);
		pos += e->len;
	}
	return pos;
}

static void check_read(struct checker *c, struct slot *s)
{
	if (check_pieces(s) != s->off + s->len)
		die("a read's pieces end early", s, -ERANGE);
	if (memcmp(s->buf, c->model + s->off, s->len) != 0)
		die("read other bytes than were written", s, -EIO);
	c->counts[READS]++;
}

/* Old bytes or zeros, whichever; from now on those. */
static void check_discarded(struct checker *c, struct slot *s)
{
	for (uint64_t i = 0; i < s->len; i++)
		if (s->buf[i] && s->buf[i] != c->model[s->off + i])
			die("discard left other bytes", s, -EIO);
	memcpy(c->model + s->off, s->buf, s->len);
}

static void check_status(struct checker *c, struct slot *s)
{
	if (check_pieces(s) == s->off)
		die("status is empty", s, -ERANGE);
	for (unsigned int i = 0; i < s->io.n_extents; i++) {
		const struct store_extent *e = &s->io.extents[i];

		for (uint64_t b = 0; e->is_hole && b < e->len; b++)
			if (c->model[e->dev_off + b])
				die("status calls data a hole", s, -EIO);
		c->counts[HOLES] += e->is_hole;
	}
}

static void finish_slot(struct checker *c, struct slot *s)
{
	if (s->io.result < 0)
		die("failed", s, s->io.result);
	switch (s->step) {
	case STEP_READ:
		check_read(c, s);
		break;
	case STEP_CHANGE:
		if (next_random(&c->random) % 2) {
			start_read(c, s, STEP_READ);
			return;
		}
		break;
	case STEP_DISCARD:
		start_read(c, s, STEP_DISCARDED);
		return;
	case STEP_DISCARDED:
		check_discarded(c, s);
		break;
	case STEP_STATUS:
		check_status(c, s);
		break;
	case STEP_FLUSH:
	case STEP_IDLE:
		break;
	}
	release(c, s);
}

static struct slot *next_done(struct checker *c)
{
	struct slot *s;

	pthread_mutex_lock(&c->lock);
	while (!c->done)
		pthread_cond_wait(&c->some_done, &c->lock);
	s = c->done;
	c->done = s->next_done;
	pthread_mutex_unlock(&c->lock);
	return s;
}

static void *must_alloc(size_t n)
{
	void *p = calloc(1, n);

	if (!p)
		abort();
	return p;
}

struct checker *checker_new(struct store *store, uint64_t size, unsigned int depth, uint64_t seed)
{
	struct checker *c = must_alloc(sizeof(*c));

	c->store = store;
	c->size = size / BLOCK * BLOCK;
	c->depth = depth < MAX_DEPTH ? depth : MAX_DEPTH;
	c->random = seed * 2654435761u + 1;
	c->model = must_alloc(c->size + 1);
	c->is_busy = must_alloc(c->size / BLOCK + 1);
	pthread_mutex_init(&c->lock, NULL);
	pthread_cond_init(&c->some_done, NULL);
	for (unsigned int i = 0; i < c->depth; i++) {
		struct slot *s = &c->slots[i];

		s->checker = c;
		s->io.done = slot_done;
		s->buf = must_alloc(MAX_IO);
	}
	return c;
}

void checker_free(struct checker *c)
{
	for (unsigned int i = 0; i < c->depth; i++) {
		store_io_reset(&c->slots[i].io);
		free(c->slots[i].buf);
	}
	pthread_cond_destroy(&c->some_done);
	pthread_mutex_destroy(&c->lock);
	free(c->is_busy);
	free(c->model);
	free(c);
}

/* Reads everything: into the model, or to compare. */
static void read_all(struct checker *c, bool is_compare)
{
	struct slot *s = &c->slots[0];

	for (uint64_t off = 0; off < c->size; off += s->len) {
		s->off = off;
		s->len = c->size - off < MAX_IO ? c->size - off : MAX_IO;
		start_read(c, s, STEP_READ);
		s = next_done(c);
		if (s->io.result < 0)
			die("failed", s, s->io.result);
		if (is_compare)
			check_read(c, s);
		else
			memcpy(c->model + off, s->buf, s->len);
	}
	s->off = s->len = 0;
}

void checker_load(struct checker *c)
{
	read_all(c, false);
}

void checker_compare(struct checker *c, struct store *store)
{
	c->store = store;
	read_all(c, true);
}

void checker_run(struct checker *c, unsigned int ops)
{
	unsigned int started, finished = 0;

	for (started = 0; started < c->depth; started++)
		start_slot(c, &c->slots[started]);
	while (finished < started) {
		struct slot *s = next_done(c);

		finish_slot(c, s);
		if (s->step != STEP_IDLE)
			continue;
		finished++;
		if (started < ops) {
			started++;
			start_slot(c, s);
		}
	}
}

void checker_print(const struct checker *c, const char *subject)
{
	printf("%s: %u writes, %u reads, %u zeros, %u discards, %u flushes, %u status (%u holes)\n",
	       subject, c->counts[WRITES], c->counts[READS], c->counts[ZEROS], c->counts[DISCARDS],
	       c->counts[FLUSHES], c->counts[STATUSES], c->counts[HOLES]);
}

void checker_clear(struct checker *c, uint64_t len, bool is_zero)
{
	const struct store_ops *ops = c->store->ops;
	struct slot *s = &c->slots[0];

	store_io_reset(&s->io);
	s->len = len;
	began(s, is_zero ? ops->zero(c->store, &s->io, 0, len, 0)
			 : ops->discard(c->store, &s->io, 0, len));
	s = next_done(c);
	if (s->io.result < 0)
		die("failed", s, s->io.result);
	s->len = 0;
}

static double now_s(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (double)ts.tv_sec + (double)ts.tv_nsec / 1e9;
}

double checker_bench(struct checker *c, unsigned int seconds)
{
	unsigned int started, finished = 0;
	double start = now_s(), end = start + seconds;

	for (started = 0; started < c->depth; started++) {
		c->slots[started].len = BLOCK;
		start_read(c, &c->slots[started], STEP_READ);
	}
	while (finished < started) {
		struct slot *s = next_done(c);

		if (s->io.result < 0)
			die("failed", s, s->io.result);
		finished++;
		if (now_s() >= end)
			continue;
		s->off = next_random(&c->random) % (c->size / BLOCK) * BLOCK;
		started++;
		start_read(c, s, STEP_READ);
	}
	return finished / (now_s() - start);
}
