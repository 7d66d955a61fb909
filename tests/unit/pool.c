/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Copyright (C) 2026 the rbdcrypt-nbd authors */

/* Jobs cut into pieces: each piece once, each job finished once, whoever brings them. */

#include <pthread.h>
#include <semaphore.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdlib.h>
#include <unistd.h>

#include <cmocka.h>

#include "../../daemon/pool.h"
#include "rig.h"

#define PIECES_MAX 40

struct work {
	struct job job;
	atomic_uint times[PIECES_MAX];
	atomic_uint done;
	sem_t *finished;
	pthread_t bringer;
	atomic_bool was_shared;
};

static void do_piece(struct job *job, unsigned int i)
{
	struct work *w = (struct work *)job;

	(void)atomic_fetch_add(&w->times[i], 1);
	if (!pthread_equal(pthread_self(), w->bringer))
		atomic_store(&w->was_shared, true);
}

static void slow_piece(struct job *job, unsigned int i)
{
	(void)usleep(20000);
	do_piece(job, i);
}

static void on_done(struct job *job)
{
	struct work *w = (struct work *)job;

	(void)atomic_fetch_add(&w->done, 1);
	(void)sem_post(w->finished);
}

static void bring(struct pool *p, struct work *w, unsigned int pieces, sem_t *finished)
{
	w->job = (struct job){ .piece = do_piece, .done = on_done, .n_pieces = pieces };
	w->finished = finished;
	w->bringer = pthread_self();
	if (pool_run(p, &w->job))
		on_done(&w->job);
}

static void a_pool_without_a_number_has_a_thread_per_processor(void **state)
{
	struct pool *p;

	assert_int_equal(pool_new(0, &p), 0);
	assert_int_equal(pool_threads(p), sysconf(_SC_NPROCESSORS_ONLN));
	assert_null(pool_free(p));
	assert_null(pool_free(NULL));
}

static void one_piece_is_done_by_the_bringer(void **state)
{
	struct work w = { 0 };
	struct pool *p;
	sem_t finished;

	(void)sem_init(&finished, 0, 0);
	assert_int_equal(pool_new(2, &p), 0);
	bring(p, &w, 1, &finished);
	assert_int_equal(w.done, 1);
	assert_int_equal(w.times[0], 1);
	assert_false(w.was_shared);
	pool_free(p);
}

static void pieces_are_shared(void **state)
{
	struct work w = { 0 };
	struct pool *p;
	sem_t finished;

	(void)sem_init(&finished, 0, 0);
	assert_int_equal(pool_new(2, &p), 0);
	w.finished = &finished;
	w.bringer = pthread_self();
	w.job = (struct job){ .piece = slow_piece, .done = on_done, .n_pieces = 30 };
	if (pool_run(p, &w.job))
		on_done(&w.job);
	assert_int_equal(sem_wait(&finished), 0);
	for (unsigned int i = 0; i < 30; i++)
		assert_int_equal(w.times[i], 1);
	assert_true(w.was_shared);
	pool_free(p);
}

/* done may free the job, and bring the next one from the worker. */
struct chained {
	struct job job;
	struct pool *pool;
	unsigned int left;
	sem_t *finished;
};

static void no_work(struct job *job, unsigned int i)
{
	(void)job;
	(void)i;
}

static void bring_next(struct job *job)
{
	struct chained *c = (struct chained *)job;

	for (;;) {
		struct chained *next;

		if (c->left == 0) {
			(void)sem_post(c->finished);
			free(c);
			return;
		}
		next = malloc(sizeof(*next));
		*next = *c;
		next->left--;
		free(c);
		c = next;
		if (!pool_run(c->pool, &c->job))
			return;
	}
}

static void a_job_may_end_anywhere_and_be_gone(void **state)
{
	struct pool *p;
	sem_t finished;

	(void)sem_init(&finished, 0, 0);
	assert_int_equal(pool_new(3, &p), 0);
	for (unsigned int i = 0; i < 8; i++) {
		struct chained *c = malloc(sizeof(*c));

		*c = (struct chained){
			.pool = p,
			.left = 2000,
			.finished = &finished,
			.job = { .piece = no_work, .done = bring_next, .n_pieces = 2 + i }
		};
		if (pool_run(p, &c->job))
			bring_next(&c->job);
	}
	for (unsigned int i = 0; i < 8; i++)
		assert_int_equal(sem_wait(&finished), 0);
	pool_free(p);
}

struct bringer {
	struct pool *pool;
	pthread_t thread;
	uint64_t random;
	unsigned int wrong;
};

static void *bring_many(void *arg)
{
	struct bringer *b = arg;
	sem_t finished;

	(void)sem_init(&finished, 0, 0);
	for (unsigned int round = 0; round < 300; round++) {
		struct work w[8] = { 0 };

		for (unsigned int i = 0; i < 8; i++)
			bring(b->pool, &w[i],
			      1 + (unsigned int)(rig_random(&b->random) % PIECES_MAX), &finished);
		for (unsigned int i = 0; i < 8; i++)
			while (sem_wait(&finished) < 0)
				;
		for (unsigned int i = 0; i < 8; i++) {
			b->wrong += w[i].done != 1;
			for (unsigned int j = 0; j < PIECES_MAX; j++)
				b->wrong += w[i].times[j] != (j < w[i].job.n_pieces);
		}
	}
	return NULL;
}

static void many_bring_at_once(void **state)
{
	struct bringer b[4];
	struct pool *p;

	assert_int_equal(pool_new(3, &p), 0);
	for (unsigned int i = 0; i < 4; i++) {
		b[i] = (struct bringer){ .pool = p, .random = i };
		assert_int_equal(pthread_create(&b[i].thread, NULL, bring_many, &b[i]), 0);
	}
	for (unsigned int i = 0; i < 4; i++) {
		(void)pthread_join(b[i].thread, NULL);
		assert_int_equal(b[i].wrong, 0);
	}
	pool_free(p);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_pool_without_a_number_has_a_thread_per_processor),
		cmocka_unit_test(one_piece_is_done_by_the_bringer),
		cmocka_unit_test(pieces_are_shared),
		cmocka_unit_test(a_job_may_end_anywhere_and_be_gone),
		cmocka_unit_test(many_bring_at_once),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
