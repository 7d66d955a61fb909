/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Copyright (C) 2026 the rbdcrypt-nbd authors */

/*
 * Two measurements: how fast this engine encrypts here, and how long a worker takes
 * to begin a piece that it is handed. Both are medians, because the machine does other things too.
 */

#include "calibrate.h"

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/sysinfo.h>
#include <time.h>

#define SAMPLE (128u << 10)
#define ROUNDS 9
/* A worker that does not come in this time will not help a request either. */
#define HANDOFF_MAX_NS 2000000
#define SMALLEST (64u << 10)
#define LARGEST (16u << 20)

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

struct handoff {
	struct job job;
	_Atomic int64_t begun_ns; /* when a worker began piece 1; 0 not yet */
	atomic_bool is_done;
};

static void on_piece(struct job *job, unsigned int i)
{
	struct handoff *h = (struct handoff *)job;

	if (i == 1) {
		atomic_store(&h->begun_ns, now_ns());
		return;
	}
	/* The bringer stays busy, as it would with its own share. */
	for (int64_t end = now_ns() + HANDOFF_MAX_NS; !atomic_load(&h->begun_ns);)
		if (now_ns() > end)
			break;
}

static void on_done(struct job *job)
{
	atomic_store(&((struct handoff *)job)->is_done, true);
}

static int64_t measure_handoff(struct pool *p)
{
	int64_t v[ROUNDS];

	for (unsigned int i = 0; i < ROUNDS; i++) {
		struct timespec asleep = { .tv_nsec = 200000 };
		struct handoff h = { .job = { .piece = on_piece, .done = on_done, .n_pieces = 2 } };
		int64_t start;

		/* The workers go to sleep first, as they do between requests. */
		(void)nanosleep(&asleep, NULL);
		start = now_ns();
		/* The job lives here: it must be over. */
		if (!pool_run(p, &h.job))
			while (!atomic_load(&h.is_done))
				;
		v[i] = atomic_load(&h.begun_ns) - start;
	}
	return median(v);
}

static int64_t measure_sample(struct xts *x, void *buf)
{
	int64_t v[ROUNDS];

	for (unsigned int i = 0; i < ROUNDS; i++) {
		int64_t start = now_ns();

		if (xts_encrypt(x, buf, SAMPLE, 0) < 0)
			return 0;
		v[i] = now_ns() - start;
	}
	return median(v);
}

size_t calibrate_threshold(struct pool *p, struct xts *x)
{
	void *buf;
	int64_t sample_ns;
	uint64_t bytes;

	if (get_nprocs() < 2)
		return SIZE_MAX;
	buf = mmap(NULL, SAMPLE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_POPULATE,
		   -1, 0);
	if (buf == MAP_FAILED)
		return LARGEST;
	sample_ns = measure_sample(x, buf);
	(void)munmap(buf, SAMPLE);
	if (sample_ns <= 0)
		return LARGEST;
	/* Twice the hand-off is where it begins to pay in time; a wake-up also costs processors. */
	bytes = 4 * (uint64_t)measure_handoff(p) * SAMPLE / (uint64_t)sample_ns;
	if (bytes < SMALLEST)
		bytes = SMALLEST;
	if (bytes > LARGEST)
		bytes = LARGEST;
	return (size_t)(bytes / 4096 * 4096);
}
