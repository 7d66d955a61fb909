/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Copyright (C) 2026 the rbdcrypt-nbd authors */

/*
 * From which size on a request is finished so much sooner with the workers' help that it is worth
 * what it costs: tried with this engine, these workers and this machine as it is now. How long a
 * worker takes to wake up does not tell it: one that wakes up on the bringer's own processor begins
 * at once, and helps nobody.
 *
 * Medians, because the machine does other things too.
 */

#include "calibration.h"

#include <errno.h>
#include <pthread.h>
#include <semaphore.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/sysinfo.h>
#include <time.h>

#define ROUNDS 5
#define SMALLEST ((size_t)128 << 10)
#define LARGEST ((size_t)4 << 20)
/* When no size that is tried was worth it: larger ones are rare, and take long. */
#define NONE_TRIED ((size_t)16 << 20)
#define UNIT 4096u

struct trial {
	struct job job;
	struct xts *xts;
	unsigned char *buf;
	size_t len, piece;
	int64_t ended_ns;
	sem_t over;
	atomic_bool has_failed;
};

static int64_t now_ns(void)
{
	struct timespec t;

	(void)clock_gettime(CLOCK_MONOTONIC, &t);
	return (int64_t)t.tv_sec * 1000000000 + t.tv_nsec;
}

static int compare(const void *a, const void *b)
{
	const int64_t *x = a, *y = b;

	return (*x > *y) - (*x < *y);
}

static int64_t median(int64_t *v)
{
	qsort(v, ROUNDS, sizeof(*v), compare);
	return v[ROUNDS / 2];
}

static void on_piece(struct job *job, unsigned int i)
{
	struct trial *t = (struct trial *)job;
	size_t from = i * t->piece;
	size_t len = from + t->piece < t->len ? t->piece : t->len - from;

	if (xts_encrypt(t->xts, t->buf + from, len, from) < 0)
		atomic_store(&t->has_failed, true);
}

static void on_done(struct job *job)
{
	struct trial *t = (struct trial *)job;

	t->ended_ns = now_ns();
	(void)sem_post(&t->over);
}

/* Nanoseconds. */
static int64_t run_direct(struct trial *t)
{
	int64_t start = now_ns();

	if (xts_encrypt(t->xts, t->buf, t->len, 0) < 0)
		atomic_store(&t->has_failed, true);
	return now_ns() - start;
}

/* The workers have gone to sleep, as they do between requests. */
static int64_t run_shared(struct pool *p, struct trial *t)
{
	struct timespec asleep = { .tv_nsec = 200000 };
	int64_t start;

	t->piece = pool_piece(p, t->len, UNIT);
	t->job = (struct job){ .piece = on_piece,
			       .done = on_done,
			       .n_pieces = (unsigned int)((t->len + t->piece - 1) / t->piece) };
	(void)nanosleep(&asleep, NULL);
	start = now_ns();
	if (pool_run(p, &t->job))
		return now_ns() - start;
	while (sem_wait(&t->over) < 0)
		;
	return t->ended_ns - start;
}

/* A third sooner, at least: sharing takes more of the processors than it saves time. */
static bool is_worth_it(struct pool *p, struct trial *t)
{
	int64_t direct[ROUNDS], shared[ROUNDS];

	for (unsigned int i = 0; i < ROUNDS; i++) {
		direct[i] = run_direct(t);
		shared[i] = run_shared(p, t);
	}
	return median(shared) * 4 <= median(direct) * 3;
}

static size_t try_sizes(struct pool *p, struct xts *x)
{
	struct trial t = { .xts = x, .len = SMALLEST };
	size_t ret = NONE_TRIED;

	if (get_nprocs() < 2)
		return SIZE_MAX;
	t.buf = mmap(NULL, LARGEST, PROT_READ | PROT_WRITE,
		     MAP_PRIVATE | MAP_ANONYMOUS | MAP_POPULATE, -1, 0);
	if (t.buf == MAP_FAILED)
		return NONE_TRIED;
	(void)sem_init(&t.over, 0, 0);
	for (; t.len <= LARGEST && ret == NONE_TRIED && !t.has_failed; t.len *= 2)
		if (is_worth_it(p, &t) && !t.has_failed)
			ret = t.len - UNIT;
	(void)sem_destroy(&t.over);
	(void)munmap(t.buf, LARGEST);
	return ret;
}

/* ---- what was found ---- */

struct finding {
	const char *engine; /* a constant */
	size_t key_len, threshold;
	uint32_t sector_size;
	struct finding *next;
};

struct calibration {
	struct pool *pool;
	pthread_mutex_t mutex;
	struct finding *findings; /* guarded by mutex */
};

int calibration_new(struct pool *pool, struct calibration **ret)
{
	struct calibration *c = calloc(1, sizeof(*c));

	if (!c)
		return -ENOMEM;
	c->pool = pool;
	(void)pthread_mutex_init(&c->mutex, NULL);
	*ret = c;
	return 0;
}

struct calibration *calibration_free(struct calibration *c)
{
	if (!c)
		return NULL;
	while (c->findings) {
		struct finding *f = c->findings;

		c->findings = f->next;
		free(f);
	}
	(void)pthread_mutex_destroy(&c->mutex);
	free(c);
	return NULL;
}

size_t calibration_threshold(struct calibration *c, struct xts *x)
{
	const struct finding wanted = { .engine = xts_engine(x),
					.key_len = secret_len(xts_key(x)),
					.sector_size = xts_sector_size(x) };
	struct finding *f;
	size_t ret;

	(void)pthread_mutex_lock(&c->mutex);
	for (f = c->findings; f; f = f->next)
		if (strcmp(f->engine, wanted.engine) == 0 && f->key_len == wanted.key_len &&
		    f->sector_size == wanted.sector_size)
			break;
	ret = f ? f->threshold : try_sizes(c->pool, x);
	if (!f) {
		f = malloc(sizeof(*f));
		/* Without memory the next one tries again. */
		if (f) {
			*f = wanted;
			f->threshold = ret;
			f->next = c->findings;
			c->findings = f;
		}
	}
	(void)pthread_mutex_unlock(&c->mutex);
	return ret;
}
