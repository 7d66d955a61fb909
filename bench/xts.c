// SPDX-License-Identifier: GPL-2.0-or-later
// Copyright (C) 2026 the rbdcrypt-nbd authors

/*
 * How fast a thread encrypts and decrypts: every engine that this processor runs, by
 * the calls that requests make, beside what there is to compare with:
 *
 *	memcpy		of the same bytes
 *	evp		a bare loop around OpenSSL's EVP, a new IV per sector and nothing else
 *	evp-rekey	the same with the key in every call, as simple programs have it
 *	aes-rounds	the rounds of as many blocks and nothing else, where there is VAES on 512
 *			bits: no engine can be faster on this processor
 *
 *	bench/xts [--json] [--key BITS]		BITS of each half: 128 or 256 (the default)
 *
 * 64 KiB at a time, in place; the median of 9 rounds, in each of which all take turns; by
 * the thread's own CPU time, so that other load on the machine disturbs little. Two threads
 * run at once on one struct xts; their rates, by their own times, are added.
 */

#include <openssl/evp.h>
#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "xts.h"

#if defined(__x86_64__)
#include <immintrin.h>
#endif

#define BUFFER ((size_t)64 << 10)
#define ROUNDS 9
#define PASSES 150 /* over the buffer, in a round: some milliseconds */
#define THREADS_MAX 2

enum method { BY_MEMCPY, BY_EVP, BY_EVP_REKEY, BY_ROUNDS, BY_ENGINE };

struct subject {
	const char *name;
	enum method method;
	enum xts_choice choice;
};

static const struct subject subjects[] = {
	{ "memcpy", BY_MEMCPY, XTS_AUTO },	 { "evp", BY_EVP, XTS_AUTO },
	{ "evp-rekey", BY_EVP_REKEY, XTS_AUTO }, { "aes-rounds", BY_ROUNDS, XTS_VAES512 },
	{ "openssl", BY_ENGINE, XTS_OPENSSL },	 { "aesni", BY_ENGINE, XTS_AESNI },
	{ "vaes256", BY_ENGINE, XTS_VAES256 },	 { "vaes512", BY_ENGINE, XTS_VAES512 },
};
#define SUBJECTS (sizeof(subjects) / sizeof(subjects[0]))
#define BARE 1 /* what the ratios are to */

struct measure {
	const char *name;
	bool is_encrypt;
	uint32_t sector_size;
	unsigned int n_threads;
};

static const struct measure measures[] = {
	{ "encrypt-512", true, 512, 1 },	  { "decrypt-512", false, 512, 1 },
	{ "encrypt-4096", true, 4096, 1 },	  { "decrypt-4096", false, 4096, 1 },
	{ "encrypt-512-2threads", true, 512, 2 },
};
#define MEASURES (sizeof(measures) / sizeof(measures[0]))

struct thread {
	const struct subject *subject;
	const struct measure *measure;
	struct xts *xts;
	EVP_CIPHER *cipher;
	const unsigned char *key;
	unsigned int n_rounds; /* of AES */
	unsigned char *buf, *other;
	pthread_barrier_t *start;
	double rate; /* bytes per second */
};

static void die(const char *what)
{
	(void)fprintf(stderr, "bench/xts: %s\n", what);
	exit(1);
}

static double cpu_seconds(void)
{
	struct timespec t;

	(void)clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
	return (double)t.tv_sec + (double)t.tv_nsec * 1e-9;
}

static void evp_pass(const struct thread *t, EVP_CIPHER_CTX *c)
{
	const size_t size = t->measure->sector_size;
	const bool rekey = t->subject->method == BY_EVP_REKEY;

	for (size_t at = 0; at < BUFFER; at += size) {
		const uint64_t tweak[2] = { at / 512, 0 };
		int n;

		if (EVP_CipherInit_ex2(c, rekey ? t->cipher : NULL, rekey ? t->key : NULL,
				       (const unsigned char *)tweak, -1, NULL) != 1 ||
		    EVP_CipherUpdate(c, t->buf + at, &n, t->buf + at, (int)size) != 1)
			die("EVP");
	}
}

#if defined(__x86_64__)
/* Sixteen registers: enough for the next instruction never to wait for one before. */
__attribute__((target("avx512f,vaes"))) static void rounds_pass(const struct thread *t)
{
	__m512i x[16];

	for (unsigned int i = 0; i < 16; i++)
		x[i] = _mm512_loadu_si512(t->buf + i * sizeof(x[0]));
	for (size_t at = 0; at < BUFFER; at += sizeof(x))
		for (unsigned int round = 0; round < t->n_rounds; round++)
#pragma GCC unroll 16
			for (unsigned int i = 0; i < 16; i++)
				x[i] = _mm512_aesenc_epi128(x[i], x[i]);
	for (unsigned int i = 0; i < 16; i++)
		_mm512_storeu_si512(t->other + i * sizeof(x[0]), x[i]);
}
#else
static void rounds_pass(const struct thread *t)
{
	(void)t;
}
#endif

static void pass(const struct thread *t, EVP_CIPHER_CTX *c)
{
	int r = 0;

	switch (t->subject->method) {
	case BY_MEMCPY:
		memcpy(t->other, t->buf, BUFFER);
		/* The compiler shall not see that nobody reads it. */
		__asm__ volatile("" ::"r"(t->other) : "memory");
		break;
	case BY_EVP:
	case BY_EVP_REKEY:
		evp_pass(t, c);
		break;
	case BY_ROUNDS:
		rounds_pass(t);
		break;
	case BY_ENGINE:
		r = t->measure->is_encrypt ? xts_encrypt(t->xts, t->buf, BUFFER, 0)
					   : xts_decrypt(t->xts, t->buf, BUFFER, 0);
		break;
	}
	if (r < 0)
		die("xts");
}

static void *work(void *arg)
{
	struct thread *t = arg;
	EVP_CIPHER_CTX *c = EVP_CIPHER_CTX_new();
	double from;

	if (!c || EVP_CipherInit_ex2(c, t->cipher, t->key, NULL, t->measure->is_encrypt, NULL) != 1)
		die("EVP");
	/* Data that stays data: sectors of zeros would not be decrypted. */
	memset(t->buf, 0xa5, BUFFER);
	pass(t, c);
	(void)pthread_barrier_wait(t->start);
	from = cpu_seconds();
	for (int i = 0; i < PASSES; i++)
		pass(t, c);
	t->rate = (double)BUFFER * PASSES / (cpu_seconds() - from);
	EVP_CIPHER_CTX_free(c);
	return NULL;
}

/* Sum of the threads' rates, GB/s. */
static double run(const struct thread *like)
{
	const unsigned int n = like->measure->n_threads;
	struct thread threads[THREADS_MAX];
	pthread_t ids[THREADS_MAX];
	pthread_barrier_t start;
	double sum = 0;

	if (pthread_barrier_init(&start, NULL, n) != 0)
		die("no barrier");
	for (unsigned int i = 0; i < n; i++) {
		threads[i] = *like;
		threads[i].start = &start;
		threads[i].buf = aligned_alloc(4096, BUFFER);
		threads[i].other = aligned_alloc(4096, BUFFER);
		if (!threads[i].buf || !threads[i].other ||
		    pthread_create(&ids[i], NULL, work, &threads[i]) != 0)
			die("no memory");
	}
	for (unsigned int i = 0; i < n; i++) {
		(void)pthread_join(ids[i], NULL);
		sum += threads[i].rate;
		free(threads[i].buf);
		free(threads[i].other);
	}
	(void)pthread_barrier_destroy(&start);
	return sum * 1e-9;
}

static int by_size(const void *a, const void *b)
{
	const double x = *(const double *)a, y = *(const double *)b;

	return (x > y) - (x < y);
}

/* NULL where this processor cannot run it. */
static struct xts *new_xts(const struct subject *s, const struct measure *m,
			   const unsigned char *key, size_t key_bytes)
{
	struct secret *secret;
	struct xts *x;

	if (secret_new(key_bytes, &secret) < 0)
		die("no memory");
	memcpy(secret_data(secret), key, key_bytes);
	if (xts_new_take(s->choice, &secret, m->sector_size, &x) < 0)
		die("no engine");
	return xts_note(x) ? xts_free(x) : x;
}

/* Medians of one measure for all subjects, 0 where there is none. */
static void measure_all(const struct measure *m, const unsigned char *key, size_t key_bytes,
			double ret[SUBJECTS])
{
	EVP_CIPHER *cipher = EVP_CIPHER_fetch(NULL, key_bytes == 32 ? "AES-128-XTS" : "AES-256-XTS",
					      NULL);
	double rates[SUBJECTS][ROUNDS] = { 0 };
	struct xts *xts[SUBJECTS];

	if (!cipher)
		die("OpenSSL has no XTS");
	for (size_t s = 0; s < SUBJECTS; s++)
		xts[s] = new_xts(&subjects[s], m, key, key_bytes);
	for (size_t round = 0; round < ROUNDS; round++)
		for (size_t i = 0; i < SUBJECTS; i++) {
			const size_t s = (i + round) % SUBJECTS;
			const struct thread like = { .subject = &subjects[s],
						     .measure = m,
						     .xts = xts[s],
						     .cipher = cipher,
						     .key = key,
						     .n_rounds = key_bytes == 32 ? 10 : 14 };

			if (xts[s])
				rates[s][round] = run(&like);
		}
	for (size_t s = 0; s < SUBJECTS; s++) {
		qsort(rates[s], ROUNDS, sizeof(rates[s][0]), by_size);
		ret[s] = rates[s][ROUNDS / 2];
		(void)xts_free(xts[s]);
	}
	EVP_CIPHER_free(cipher);
}

static void print_json(double gbps[MEASURES][SUBJECTS], size_t key_bytes)
{
	(void)printf("{\"cipher\": \"aes-%zu-xts\", \"unit\": \"GB/s\", \"openssl\": \"%s\"",
		     key_bytes * 4, OpenSSL_version(OPENSSL_VERSION_STRING));
	for (size_t m = 0; m < MEASURES; m++) {
		const char *comma = "";

		(void)printf(",\n \"%s\": {", measures[m].name);
		for (size_t s = 0; s < SUBJECTS; s++) {
			if (gbps[m][s] <= 0)
				continue;
			(void)printf("%s\"%s\": %.3f", comma, subjects[s].name, gbps[m][s]);
			comma = ", ";
		}
		(void)printf("}");
	}
	(void)printf("}\n");
}

static void print_table(double gbps[MEASURES][SUBJECTS], size_t key_bytes)
{
	(void)printf("AES-%zu-XTS, GB/s and times the bare EVP loop (OpenSSL %s)\n%-22s",
		     key_bytes * 4, OpenSSL_version(OPENSSL_VERSION_STRING), "");
	for (size_t s = 0; s < SUBJECTS; s++)
		(void)printf("%16s", subjects[s].name);
	for (size_t m = 0; m < MEASURES; m++) {
		(void)printf("\n%-22s", measures[m].name);
		for (size_t s = 0; s < SUBJECTS; s++)
			if (gbps[m][s] > 0)
				(void)printf("%9.2f %5.2fx", gbps[m][s],
					     gbps[m][s] / gbps[m][BARE]);
			else
				(void)printf("%16s", "-");
	}
	(void)printf("\n");
}

int main(int argc, char **argv)
{
	double gbps[MEASURES][SUBJECTS];
	unsigned char key[64];
	size_t key_bytes = 64;
	bool is_json = false;

	for (int i = 1; i < argc; i++) {
		if (strcmp(argv[i], "--json") == 0)
			is_json = true;
		else if (strcmp(argv[i], "--key") == 0 && i + 1 < argc)
			key_bytes = strcmp(argv[++i], "128") == 0 ? 32 : 64;
		else
			die("usage: xts [--json] [--key 128|256]");
	}
	for (size_t i = 0; i < sizeof(key); i++)
		key[i] = (unsigned char)(i * 7);
	for (size_t m = 0; m < MEASURES; m++)
		measure_all(&measures[m], key, key_bytes, gbps[m]);
	if (is_json)
		print_json(gbps, key_bytes);
	else
		print_table(gbps, key_bytes);
	return 0;
}
