/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Copyright (C) 2026 the rbdcrypt-nbd authors */

/*
 * Worker threads for large requests. A job stays in the list while it has pieces
 * that nobody began; every claim and every finish is made under the one mutex,
 * which is cheap because a piece is tens of kilobytes of AES. The bringer claims
 * the first piece before the others can see the job, so the job cannot end under it.
 * Small requests never come here: a wake-up costs more than they do.
 */

#include "pool.h"

#include <errno.h>
#include <pthread.h>
#include <stdlib.h>
#include <sys/sysinfo.h>

/* Smaller pieces of one request are not worth a worker's wake-up. */
#define PIECE_MIN ((size_t)64 << 10)

struct pool {
	pthread_mutex_t mutex;
	pthread_cond_t work;
	/* Guarded by mutex: */
	struct job *first, *last; /* jobs with pieces left to begin */
	unsigned int idle;
	bool is_stopping;
	/* Constant after pool_new(): */
	unsigned int n_threads;
	pthread_t threads[];
};

/* Call with the mutex held. Takes the next piece of job, and the job off the list with its last
 * one. */
static unsigned int claim(struct pool *p, struct job *job)
{
	unsigned int i = job->next++;
	struct job **link = &p->first, *before = NULL;

	if (job->next < job->n_pieces)
		return i;
	while (*link && *link != job) {
		before = *link;
		link = &(*link)->link;
	}
	if (*link) {
		*link = job->link;
		if (p->last == job)
			p->last = before;
	}
	return i;
}

/* Runs piece i and what else of the job is left; true when that finished it. Without the mutex. */
static bool work_on(struct pool *p, struct job *job, unsigned int i)
{
	for (;;) {
		bool is_last, has_more;

		job->piece(job, i);
		(void)pthread_mutex_lock(&p->mutex);
		is_last = ++job->finished == job->n_pieces;
		has_more = job->next < job->n_pieces;
		if (has_more)
			i = claim(p, job);
		(void)pthread_mutex_unlock(&p->mutex);
		if (!has_more)
			return is_last;
	}
}

static void *worker_main(void *arg)
{
	struct pool *p = arg;

	(void)pthread_mutex_lock(&p->mutex);
	for (;;) {
		struct job *job = p->first;
		unsigned int i;

		if (!job) {
			if (p->is_stopping)
				break;
			p->idle++;
			(void)pthread_cond_wait(&p->work, &p->mutex);
			p->idle--;
			continue;
		}
		i = claim(p, job);
		(void)pthread_mutex_unlock(&p->mutex);
		if (work_on(p, job, i))
			job->done(job);
		(void)pthread_mutex_lock(&p->mutex);
	}
	(void)pthread_mutex_unlock(&p->mutex);
	return NULL;
}

int pool_new(unsigned int n_threads, struct pool **ret)
{
	struct pool *p;
	int r;

	if (n_threads == 0)
		n_threads = (unsigned int)get_nprocs();
	p = calloc(1, sizeof(*p) + n_threads * sizeof(p->threads[0]));
	if (!p)
		return -ENOMEM;
	(void)pthread_mutex_init(&p->mutex, NULL);
	(void)pthread_cond_init(&p->work, NULL);
	for (; p->n_threads < n_threads; p->n_threads++) {
		r = pthread_create(&p->threads[p->n_threads], NULL, worker_main, p);
		if (r) {
			(void)pool_free(p);
			return -r;
		}
		(void)pthread_setname_np(p->threads[p->n_threads], "worker");
	}
	*ret = p;
	return 0;
}

struct pool *pool_free(struct pool *p)
{
	if (!p)
		return NULL;
	(void)pthread_mutex_lock(&p->mutex);
	p->is_stopping = true;
	(void)pthread_cond_broadcast(&p->work);
	(void)pthread_mutex_unlock(&p->mutex);
	for (unsigned int i = 0; i < p->n_threads; i++)
		(void)pthread_join(p->threads[i], NULL);
	(void)pthread_cond_destroy(&p->work);
	(void)pthread_mutex_destroy(&p->mutex);
	free(p);
	return NULL;
}

unsigned int pool_threads(const struct pool *p)
{
	return p->n_threads;
}

size_t pool_piece(const struct pool *p, size_t len, uint32_t unit)
{
	size_t piece = len / (p->n_threads + 1);

	/* Whoever brings the job takes a share, too. */
	if (piece < PIECE_MIN)
		piece = PIECE_MIN;
	return (piece + unit - 1) / unit * unit;
}

bool pool_run(struct pool *p, struct job *job)
{
	job->next = 1;
	job->finished = 0;
	job->link = NULL;
	if (job->n_pieces > 1) {
		unsigned int wanted = job->n_pieces - 1;

		(void)pthread_mutex_lock(&p->mutex);
		if (p->first)
			p->last->link = job;
		else
			p->first = job;
		p->last = job;
		for (unsigned int i = 0; i < wanted && i < p->idle; i++)
			(void)pthread_cond_signal(&p->work);
		(void)pthread_mutex_unlock(&p->mutex);
	}
	return work_on(p, job, 0);
}
