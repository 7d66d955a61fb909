// SPDX-License-Identifier: GPL-2.0-or-later
// Copyright (C) 2026 the rbdcrypt-nbd authors

/*
 * What the worker threads are worth to one large request: it is cut as requests are and handed to
 * the pool, beside the same bytes encrypted by the thread that brings them, OpenSSL in a bare loop,
 * and memcpy.
 *
 *	bench/workers [--json]
 *
 * AES-256-XTS, sectors of 512 bytes, in place. A request's time ends where its last piece does, on
 * whichever thread: where its answer would be sent. "GB/s" is by that time, "CPU" by the
 * processors' time of the whole process. Medians of rounds in which all take turns. The threshold
 * is what the daemon finds at its start: smaller requests are not handed over.
 */

#include <openssl/evp.h>
#include <semaphore.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "../daemon/calibration.h"
#include "../daemon/pool.h"
#include "xts.h"

#define SECTOR 512u
#define LARGEST ((size_t)4 << 20)
#define ROUNDS 15
#define ROUND_BYTES ((size_t)8 << 20)

static const struct {
	const char *name;
	size_t len;
} sizes[] = {
	{ "64k", (size_t)64 << 10 },
	{ "128k", (size_t)128 << 10 },
	{ "512k", (size_t)512 << 10 },
	{ "1M", (size_t)1 << 20 },
	{ "4M", LARGEST },
};
#define SIZES (sizeof(sizes) / sizeof(sizes[0]))

enum subject { COPY, EVP, DIRECT, WORKERS, OPENSSL_DIRECT, OPENSSL_WORKERS, SUBJECTS };

static const char *const names[SUBJECTS] = { "memcpy",	       "evp",
					     "direct",	       "workers",
					     "openssl-direct", "openssl-workers" };

struct rate {
	double by_clock, by_cpu; /* GB/s */
};

struct bench {
	struct pool *pool;
	struct calibration *calibration;
	struct xts *xts, *openssl;
	EVP_CIPHER_CTX *evp;
	unsigned char *buf, *other;
};

/* A request on its way through the pool. */
struct request {
	struct job job;
	struct xts *xts;
	unsigned char *buf;
	size_t len, piece;
	atomic_bool is_failed;
	double end;
	sem_t done;
};

static void die(const char *what)
{
	(void)fprintf(stderr, "bench/workers: %s\n", what);
	exit(1);
}

static double seconds(clockid_t clock)
{
	struct timespec t;

	(void)clock_gettime(clock, &t);
	return (double)t.tv_sec + (double)t.tv_nsec * 1e-9;
}

static void on_piece(struct job *job, unsigned int i)
{
	struct request *r = (struct request *)job;
	size_t at = i * r->piece, end = at + r->piece < r->len ? at + r->piece : r->len;

	if (xts_encrypt(r->xts, r->buf + at, end - at, at) < 0)
		atomic_store(&r->is_failed, true);
}

static void on_done(struct job *job)
{
	struct request *r = (struct request *)job;

	r->end = seconds(CLOCK_MONOTONIC);
	(void)sem_post(&r->done);
}

/* When it was finished. */
static double through_pool(const struct bench *b, struct xts *x, size_t len)
{
	struct request r = { .job = { .piece = on_piece, .done = on_done },
			     .xts = x,
			     .buf = b->buf,
			     .len = len,
			     .piece = pool_piece(b->pool, len, SECTOR) };

	r.job.n_pieces = (unsigned int)((len + r.piece - 1) / r.piece);
	(void)sem_init(&r.done, 0, 0);
	if (pool_run(b->pool, &r.job))
		r.end = seconds(CLOCK_MONOTONIC);
	else
		while (sem_wait(&r.done) < 0)
			;
	(void)sem_destroy(&r.done);
	if (atomic_load(&r.is_failed))
		die("xts");
	return r.end;
}

static void bare_loop(const struct bench *b, size_t len)
{
	for (size_t at = 0; at < len; at += SECTOR) {
		const uint64_t tweak[2] = { at / 512, 0 };
		int n;

		if (EVP_CipherInit_ex2(b->evp, NULL, NULL, (const unsigned char *)tweak, -1,
				       NULL) != 1 ||
		    EVP_CipherUpdate(b->evp, b->buf + at, &n, b->buf + at, (int)SECTOR) != 1)
			die("EVP");
	}
}

/* Seconds from the request's arrival to its end. */
static double serve(const struct bench *b, enum subject s, size_t len)
{
	double start = seconds(CLOCK_MONOTONIC);

	switch (s) {
	case COPY:
		memcpy(b->other, b->buf, len);
		/* The compiler shall not see that nobody reads it. */
		__asm__ volatile("" ::"r"(b->other) : "memory");
		break;
	case EVP:
		bare_loop(b, len);
		break;
	case DIRECT:
	case OPENSSL_DIRECT:
		if (xts_encrypt(s == DIRECT ? b->xts : b->openssl, b->buf, len, 0) < 0)
			die("xts");
		break;
	case WORKERS:
	case OPENSSL_WORKERS:
		return through_pool(b, s == WORKERS ? b->xts : b->openssl, len) - start;
	case SUBJECTS:
		break;
	}
	return seconds(CLOCK_MONOTONIC) - start;
}

static struct rate run(const struct bench *b, enum subject s, size_t len)
{
	const size_t n = ROUND_BYTES / len;
	const double bytes = (double)(n * len) * 1e-9, cpu = seconds(CLOCK_PROCESS_CPUTIME_ID);
	double time = 0;

	for (size_t i = 0; i < n; i++)
		time += serve(b, s, len);
	return (struct rate){ bytes / time, bytes / (seconds(CLOCK_PROCESS_CPUTIME_ID) - cpu) };
}

static int by_size(const void *a, const void *b)
{
	const double x = *(const double *)a, y = *(const double *)b;

	return (x > y) - (x < y);
}

static double median(double *v)
{
	qsort(v, ROUNDS, sizeof(*v), by_size);
	return v[ROUNDS / 2];
}

static void measure(const struct bench *b, size_t len, struct rate ret[SUBJECTS])
{
	double by_clock[SUBJECTS][ROUNDS], by_cpu[SUBJECTS][ROUNDS];

	for (int s = 0; s < SUBJECTS; s++)
		(void)serve(b, (enum subject)s, len);
	for (int round = 0; round < ROUNDS; round++)
		for (int i = 0; i < SUBJECTS; i++) {
			const int s = (i + round) % SUBJECTS;
			const struct rate r = run(b, (enum subject)s, len);

			by_clock[s][round] = r.by_clock;
			by_cpu[s][round] = r.by_cpu;
		}
	for (int s = 0; s < SUBJECTS; s++)
		ret[s] = (struct rate){ median(by_clock[s]), median(by_cpu[s]) };
}

static struct xts *new_xts(enum xts_choice choice, const unsigned char *key, size_t len)
{
	struct secret *secret;
	struct xts *x;

	if (secret_new(len, &secret) < 0)
		die("no memory");
	memcpy(secret_data(secret), key, len);
	if (xts_new_take(choice, &secret, SECTOR, &x) < 0)
		die("no engine");
	return x;
}

static void start(struct bench *b)
{
	EVP_CIPHER *cipher = EVP_CIPHER_fetch(NULL, "AES-256-XTS", NULL);
	unsigned char key[64];

	for (size_t i = 0; i < sizeof(key); i++)
		key[i] = (unsigned char)(i * 7);
	b->evp = EVP_CIPHER_CTX_new();
	if (!cipher || !b->evp || EVP_CipherInit_ex2(b->evp, cipher, key, NULL, 1, NULL) != 1)
		die("OpenSSL has no XTS");
	EVP_CIPHER_free(cipher);
	b->xts = new_xts(XTS_AUTO, key, sizeof(key));
	b->openssl = new_xts(XTS_OPENSSL, key, sizeof(key));
	b->buf = aligned_alloc(4096, LARGEST);
	b->other = aligned_alloc(4096, LARGEST);
	if (!b->buf || !b->other || pool_new(0, &b->pool) < 0 ||
	    calibration_new(b->pool, &b->calibration) < 0)
		die("no memory");
	memset(b->buf, 0xa5, LARGEST);
	memset(b->other, 0, LARGEST);
}

static void stop(struct bench *b)
{
	(void)calibration_free(b->calibration);
	(void)pool_free(b->pool);
	free(b->buf);
	free(b->other);
	(void)xts_free(b->xts);
	(void)xts_free(b->openssl);
	EVP_CIPHER_CTX_free(b->evp);
}

/* What is never handed over is 0. */
static size_t threshold(const struct bench *b, struct xts *x)
{
	size_t bytes = calibration_threshold(b->calibration, x);

	return bytes == SIZE_MAX ? 0 : bytes;
}

static void print_json(const struct bench *b, struct rate rates[SIZES][SUBJECTS])
{
	(void)printf("{\"unit\": \"GB/s\", \"engine\": \"%s\", \"workers\": %u, "
		     "\"threshold\": %zu, \"openssl-threshold\": %zu",
		     xts_engine(b->xts), pool_threads(b->pool), threshold(b, b->xts),
		     threshold(b, b->openssl));
	for (size_t i = 0; i < SIZES; i++) {
		(void)printf(",\n \"%s\": {", sizes[i].name);
		for (int s = 0; s < SUBJECTS; s++)
			(void)printf("%s\"%s\": {\"clock\": %.3f, \"cpu\": %.3f}", s ? ", " : "",
				     names[s], rates[i][s].by_clock, rates[i][s].by_cpu);
		(void)printf("}");
	}
	(void)printf("}\n");
}

static void print_table(const struct bench *b, struct rate rates[SIZES][SUBJECTS])
{
	(void)printf("%s, %u workers; from %zu bytes on a request is shared (openssl: %zu)\n"
		     "GB/s by the clock, and by the processors' time\n%-6s",
		     xts_engine(b->xts), pool_threads(b->pool), threshold(b, b->xts),
		     threshold(b, b->openssl), "");
	for (int s = 0; s < SUBJECTS; s++)
		(void)printf("%17s", names[s]);
	for (size_t i = 0; i < SIZES; i++) {
		(void)printf("\n%-6s", sizes[i].name);
		for (int s = 0; s < SUBJECTS; s++)
			(void)printf("%9.2f %7.2f", rates[i][s].by_clock, rates[i][s].by_cpu);
	}
	(void)printf("\n");
}

int main(int argc, char **argv)
{
	struct rate rates[SIZES][SUBJECTS];
	bool is_json = argc == 2 && strcmp(argv[1], "--json") == 0;
	struct bench b = { 0 };

	if (argc > 1 && !is_json)
		die("usage: workers [--json]");
	start(&b);
	for (size_t i = 0; i < SIZES; i++)
		measure(&b, sizes[i].len, rates[i]);
	if (is_json)
		print_json(&b, rates);
	else
		print_table(&b, rates);
	stop(&b);
	return 0;
}
