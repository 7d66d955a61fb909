// SPDX-License-Identifier: GPL-2.0-or-later
// Copyright (C) 2026 the rbdcrypt-nbd authors

/*
 * Claims about crypto/xts_x86*.c: our own engines, each that this processor runs,
 * against OpenSSL, which takes a sector at a time here.
 */

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <openssl/evp.h>
#include <pthread.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "../../crypto/xts_engine.h"
#include "../../crypto/xts_x86.h"
#include "../vectors/ieee1619.h"
#include "../vectors/xts_short.h"
#include "sanitized.h"
#include "xts.h"
#include "xts_samples.h"

static const enum xts_choice choices[] = { XTS_AESNI, XTS_VAES256, XTS_VAES512 };

/* Sector by sector, with a context that is made for it. */
static void evp_xts(const struct secret *key, enum xts_direction direction, unsigned char *buf,
		    size_t n_sectors, uint32_t sector_size, uint64_t sector512)
{
	const EVP_CIPHER *cipher = secret_len(key) == 32 ? EVP_aes_128_xts() : EVP_aes_256_xts();

	for (size_t s = 0; s < n_sectors; s++, sector512 += sector_size / 512) {
		EVP_CIPHER_CTX *c = EVP_CIPHER_CTX_new();
		unsigned char *p = buf + s * sector_size, tweak[16] = { 0 };
		int n = 0;

		for (unsigned int i = 0; i < 8; i++)
			tweak[i] = (unsigned char)(sector512 >> (8 * i));
		assert_int_equal(EVP_CipherInit_ex(c, cipher, NULL, secret_bytes(key), tweak,
						   direction == XTS_ENCRYPT),
				 1);
		assert_int_equal(EVP_CipherUpdate(c, p, &n, p, (int)sector_size), 1);
		assert_int_equal(n, sector_size);
		EVP_CIPHER_CTX_free(c);
	}
}

/* The engines that this processor runs, one after the other; NULL after the last. */
static const struct xts_engine *next_engine(size_t *i)
{
	while (*i < COUNT(choices)) {
		const struct xts_engine *e = xts_engine_of(choices[(*i)++]);

		if (e)
			return e;
	}
	return NULL;
}

#define FOR_EACH_ENGINE(e)                                                                         \
	const struct xts_engine *e;                                                                \
	for (size_t e##_i = 0; (e = next_engine(&e##_i)) != NULL;)

static void crypt_once(const struct xts_engine *e, const struct secret *key,
		       enum xts_direction direction, unsigned char *buf, size_t n_sectors,
		       uint32_t sector_size, uint64_t sector512)
{
	void *state;

	assert_int_equal(e->open(key, &state), 0);
	assert_int_equal(e->crypt(state, direction, buf, n_sectors, sector_size, sector512), 0);
	e->close(state);
}

/* ---- arithmetic ---- */

static void published_vectors_hold_in_every_variant(void **state)
{
	unsigned char plain[IEEE1619_UNIT], expected[IEEE1619_UNIT], buf[IEEE1619_UNIT];

	FOR_EACH_ENGINE(e)
	{
		for (size_t v = 0; v < COUNT(ieee1619_vectors); v++) {
			const struct ieee1619_vector *vector = &ieee1619_vectors[v];
			unsigned char bytes[64];
			struct secret *key;

			from_hex(vector->key, bytes, vector->key_bytes);
			key = key_of(bytes, vector->key_bytes);
			if (vector->number == 5 || vector->number == 6)
				memcpy(plain, expected, sizeof(plain));
			else
				for (size_t i = 0; i < sizeof(plain); i++)
					plain[i] = (unsigned char)i;
			from_hex(vector->ciphertext, expected, sizeof(expected));

			memcpy(buf, plain, sizeof(buf));
			crypt_once(e, key, XTS_ENCRYPT, buf, 1, 512, vector->unit);
			assert_memory_equal(buf, expected, sizeof(buf));
			crypt_once(e, key, XTS_DECRYPT, buf, 1, 512, vector->unit);
			assert_memory_equal(buf, plain, sizeof(buf));
			secret_free(key);
		}
	}
}

static void short_published_vectors_are_starts_of_sectors(void **state)
{
	FOR_EACH_ENGINE(e)
	{
		for (size_t v = 0; v < COUNT(xts_short_vectors); v++) {
			const struct xts_short_vector *vector = &xts_short_vectors[v];
			unsigned char bytes[64], plain[XTS_SHORT_MAX], cipher[XTS_SHORT_MAX];
			unsigned char buf[512];
			struct secret *key;

			from_hex(vector->key, bytes, vector->key_bytes);
			from_hex(vector->plaintext, plain, vector->bytes);
			from_hex(vector->ciphertext, cipher, vector->bytes);
			key = key_of(bytes, vector->key_bytes);

			fill_random(buf, sizeof(buf), 3);
			memcpy(buf, plain, vector->bytes);
			crypt_once(e, key, XTS_ENCRYPT, buf, 1, 512, vector->unit);
			assert_memory_equal(buf, cipher, vector->bytes);

			fill_random(buf, sizeof(buf), 4);
			memcpy(buf, cipher, vector->bytes);
			crypt_once(e, key, XTS_DECRYPT, buf, 1, 512, vector->unit);
			assert_memory_equal(buf, plain, vector->bytes);
			secret_free(key);
		}
	}
}

/* Around batches of 8; sector numbers up to the last whose byte offset fits 64 bits. */
static void every_variant_equals_openssl(void **state)
{
	static const size_t counts[] = { 1, 2, 3, 5, 7, 8, 9, 15, 16, 17, 31 };
	static const uint64_t units[] = { 0, 8, 0xfffffff8, ((uint64_t)1 << 48) - 16,
					  ((uint64_t)1 << 55) - 31 * 8 };
	const size_t room = 31 * MAX_SECTOR, guard = 64;
	unsigned char *ours = malloc(room + 3 * guard), *theirs = malloc(room + 3 * guard);
	uint64_t seed = 1;

	FOR_EACH_ENGINE(e)
	for (size_t k = 0; k < COUNT(key_sizes); k++)
		for (size_t s = 0; s < COUNT(sector_sizes); s++)
			for (size_t c = 0; c < COUNT(counts); c++)
				for (int direction = XTS_ENCRYPT; direction <= XTS_DECRYPT;
				     direction++) {
					struct secret *key = random_key(key_sizes[k], ++seed);
					const uint64_t unit = units[seed % COUNT(units)];
					/* Any alignment; the bytes on both sides are not ours. */
					const size_t at = guard + seed % guard;

					fill_random(ours, room + 3 * guard, seed);
					memcpy(theirs, ours, room + 3 * guard);
					crypt_once(e, key, (enum xts_direction)direction, ours + at,
						   counts[c], sector_sizes[s], unit);
					evp_xts(key, (enum xts_direction)direction, theirs + at,
						counts[c], sector_sizes[s], unit);
					assert_memory_equal(ours, theirs, room + 3 * guard);
					secret_free(key);
				}
	free(ours);
	free(theirs);
}

static void pieces_equal_the_whole(void **state)
{
	enum { N = 40 };
	unsigned char *whole = malloc(N * 512), *pieces = malloc(N * 512);
	struct secret *key = random_key(64, 9);

	evp_xts(key, XTS_ENCRYPT, memset(whole, 7, N * 512), N, 512, 1000);
	FOR_EACH_ENGINE(e)
	for (size_t split = 1; split < N; split++) {
		memset(pieces, 7, N * 512);
		crypt_once(e, key, XTS_ENCRYPT, pieces + split * 512, N - split, 512, 1000 + split);
		crypt_once(e, key, XTS_ENCRYPT, pieces, split, 512, 1000);
		assert_memory_equal(pieces, whole, N * 512);
	}
	secret_free(key);
	free(whole);
	free(pieces);
}

/* ---- threads ---- */

#define THREADS 8
#define SHARED_SECTORS 64

struct job {
	const struct xts_engine *engine;
	void *state;
	const unsigned char *plain, *cipher;
	uint64_t seed;
	bool failed;
};

static void *work(void *arg)
{
	struct job *job = arg;
	unsigned char *buf = malloc(SHARED_SECTORS * 512);

	for (int i = 0; i < 200 && buf; i++) {
		const size_t first = next_random(&job->seed) % SHARED_SECTORS;
		const size_t n = next_random(&job->seed) % (SHARED_SECTORS - first) + 1;
		const unsigned char *plain = job->plain + first * 512;

		memcpy(buf, plain, n * 512);
		job->engine->crypt(job->state, XTS_ENCRYPT, buf, n, 512, first);
		job->failed |= memcmp(buf, job->cipher + first * 512, n * 512) != 0;
		job->engine->crypt(job->state, XTS_DECRYPT, buf, n, 512, first);
		job->failed |= memcmp(buf, plain, n * 512) != 0;
	}
	job->failed |= !buf;
	free(buf);
	return NULL;
}

static void eight_threads_share_one_schedule(void **state)
{
	unsigned char *plain = malloc(SHARED_SECTORS * 512), *cipher = malloc(SHARED_SECTORS * 512);
	struct secret *key = random_key(64, 41);

	fill_random(plain, SHARED_SECTORS * 512, 42);
	memcpy(cipher, plain, SHARED_SECTORS * 512);
	evp_xts(key, XTS_ENCRYPT, cipher, SHARED_SECTORS, 512, 0);
	FOR_EACH_ENGINE(e)
	{
		pthread_t threads[THREADS];
		struct job jobs[THREADS];
		void *schedule;

		assert_int_equal(e->open(key, &schedule), 0);
		for (unsigned int i = 0; i < THREADS; i++) {
			jobs[i] = (struct job){ e, schedule, plain, cipher, 100 + i, false };
			assert_int_equal(pthread_create(&threads[i], NULL, work, &jobs[i]), 0);
		}
		for (unsigned int i = 0; i < THREADS; i++) {
			assert_int_equal(pthread_join(threads[i], NULL), 0);
			assert_false(jobs[i].failed);
		}
		e->close(schedule);
	}
	secret_free(key);
	free(plain);
	free(cipher);
}

#if defined(__x86_64__)

/* ---- what remains ---- */

#define STACK_BYTES ((size_t)256 << 10)

struct visit {
	const struct xts_engine *engine;
	const struct secret *key;
	void *state;
	unsigned char *buf;
	unsigned char registers[32][16];
};

static void save_low(unsigned char (*ret)[16])
{
#define SAVE(n) __asm__ volatile("movdqu %%xmm" #n ", %0" : "=m"(*(unsigned char(*)[16])ret[n]))
	SAVE(0);
	SAVE(1);
	SAVE(2);
	SAVE(3);
	SAVE(4);
	SAVE(5);
	SAVE(6);
	SAVE(7);
	SAVE(8);
	SAVE(9);
	SAVE(10);
	SAVE(11);
	SAVE(12);
	SAVE(13);
	SAVE(14);
	SAVE(15);
#undef SAVE
}

static void save_high(unsigned char (*ret)[16])
{
#define SAVE(n)                                                                                    \
	__asm__ volatile("vextracti32x4 $0, %%zmm" #n ", %0" : "=m"(*(unsigned char(*)[16])ret[n]))
	SAVE(16);
	SAVE(17);
	SAVE(18);
	SAVE(19);
	SAVE(20);
	SAVE(21);
	SAVE(22);
	SAVE(23);
	SAVE(24);
	SAVE(25);
	SAVE(26);
	SAVE(27);
	SAVE(28);
	SAVE(29);
	SAVE(30);
	SAVE(31);
#undef SAVE
}

static void *visit(void *arg)
{
	struct visit *v = arg;

	if (v->engine->open(v->key, &v->state) < 0)
		return NULL;
	v->engine->crypt(v->state, XTS_ENCRYPT, v->buf, 17, 512, 3);
	v->engine->crypt(v->state, XTS_DECRYPT, v->buf, 5, 1024, 99);
	save_low(v->registers);
	if (xts_engine_of(XTS_VAES512))
		save_high(v->registers);
	return NULL;
}

static void assert_holds_no_key(const void *where, size_t len, const struct xts_x86_keys *k)
{
	for (unsigned int i = 0; i <= k->rounds; i++) {
		assert_null(memmem(where, len, k->encrypt[i], 16));
		assert_null(memmem(where, len, k->decrypt[i], 16));
		assert_null(memmem(where, len, k->tweak[i], 16));
	}
}

/* A thread whose whole stack can be read afterwards, down to what was there for a moment. */
static void no_round_key_is_left_behind(void **state)
{
#if !defined(__OPTIMIZE__)
	skip(); /* then every variable lies on the stack */
#endif
	if (IS_SANITIZED)
		skip();
	FOR_EACH_ENGINE(e)
	for (size_t i = 0; i < COUNT(key_sizes); i++) {
		unsigned char *stack = mmap(NULL, STACK_BYTES, PROT_READ | PROT_WRITE,
					    MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
		struct visit v = { .engine = e,
				   .key = random_key(key_sizes[i], 77),
				   .buf = calloc(17, 512) };
		const struct xts_x86_keys *k;
		pthread_attr_t attr;
		pthread_t thread;

		assert_ptr_not_equal(stack, MAP_FAILED);
		assert_int_equal(pthread_attr_init(&attr), 0);
		assert_int_equal(pthread_attr_setstack(&attr, stack, STACK_BYTES), 0);
		assert_int_equal(pthread_create(&thread, &attr, visit, &v), 0);
		assert_int_equal(pthread_join(thread, NULL), 0);
		assert_non_null(v.state);

		k = (const struct xts_x86_keys *)(const void *)secret_bytes(v.state);
		assert_holds_no_key(stack, STACK_BYTES, k);
		assert_holds_no_key(v.registers, sizeof(v.registers), k);

		e->close(v.state);
		secret_free((struct secret *)(uintptr_t)v.key);
		free(v.buf);
		pthread_attr_destroy(&attr);
		munmap(stack, STACK_BYTES);
	}
}

#endif

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(published_vectors_hold_in_every_variant),
		cmocka_unit_test(short_published_vectors_are_starts_of_sectors),
		cmocka_unit_test(every_variant_equals_openssl),
		cmocka_unit_test(pieces_equal_the_whole),
		cmocka_unit_test(eight_threads_share_one_schedule),
#if defined(__x86_64__)
		cmocka_unit_test(no_round_key_is_left_behind),
#endif
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
