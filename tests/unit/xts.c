// SPDX-License-Identifier: GPL-2.0-or-later
// Copyright (C) 2026 the rbdcrypt-nbd authors

/*
 * Claims about crypto/xts.c. The oracle is an XTS made here from single AES-ECB
 * blocks, which shares nothing with the code under test but the block cipher, and
 * the published vectors.
 */

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <errno.h>
#include <openssl/evp.h>
#include <pthread.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#include "../../crypto/xts_engine.h"
#include "../vectors/ieee1619.h"
#include "xts.h"
#include "xts_samples.h"

static struct xts *new_xts(struct secret *key, uint32_t sector_size)
{
	struct xts *x = NULL;

	assert_int_equal(xts_new_take(XTS_AUTO, &key, sector_size, &x), 0);
	assert_null(key);
	return x;
}

/* ---- the oracle ---- */

static void ecb(const unsigned char *key, size_t key_len, bool is_encrypt,
		const unsigned char in[16], unsigned char out[16])
{
	EVP_CIPHER_CTX *c = EVP_CIPHER_CTX_new();
	int n = 0;

	assert_int_equal(EVP_CipherInit_ex(c, key_len == 16 ? EVP_aes_128_ecb() : EVP_aes_256_ecb(),
					   NULL, key, NULL, is_encrypt),
			 1);
	EVP_CIPHER_CTX_set_padding(c, 0);
	assert_int_equal(EVP_CipherUpdate(c, out, &n, in, 16), 1);
	assert_int_equal(n, 16);
	EVP_CIPHER_CTX_free(c);
}

/* Multiplies by x in GF(2^128), little-endian. */
static void double_tweak(unsigned char t[16])
{
	unsigned int carry = 0;

	for (int i = 0; i < 16; i++) {
		unsigned int v = ((unsigned int)t[i] << 1) | carry;

		carry = v >> 8;
		t[i] = (unsigned char)v;
	}
	if (carry)
		t[0] ^= 0x87;
}

static void slow_xts(const struct secret *key, bool is_encrypt, unsigned char *buf, size_t len,
		     uint32_t sector_size, uint64_t dev_off)
{
	const size_t half = secret_len(key) / 2;
	const unsigned char *k1 = secret_bytes(key), *k2 = k1 + half;

	for (size_t s = 0; s < len; s += sector_size) {
		unsigned char tweak[16] = { 0 };
		uint64_t unit = (dev_off + s) / 512;

		for (int i = 0; i < 8; i++)
			tweak[i] = (unsigned char)(unit >> (8 * i));
		ecb(k2, half, true, tweak, tweak);
		for (size_t b = 0; b < sector_size; b += 16) {
			unsigned char *p = buf + s + b;

			for (int i = 0; i < 16; i++)
				p[i] ^= tweak[i];
			ecb(k1, half, is_encrypt, p, p);
			for (int i = 0; i < 16; i++)
				p[i] ^= tweak[i];
			double_tweak(tweak);
		}
	}
}

/* ---- correctness ---- */

static void published_vectors_hold(void **state)
{
	unsigned char plain[IEEE1619_UNIT], expected[IEEE1619_UNIT], buf[IEEE1619_UNIT];

	for (size_t v = 0; v < COUNT(ieee1619_vectors); v++) {
		const struct ieee1619_vector *vector = &ieee1619_vectors[v];
		const uint64_t dev_off = vector->unit * IEEE1619_UNIT;
		unsigned char key[64];
		struct xts *x;

		from_hex(vector->key, key, vector->key_bytes);
		if (vector->number == 5 || vector->number == 6)
			memcpy(plain, expected, sizeof(plain));
		else
			for (size_t i = 0; i < sizeof(plain); i++)
				plain[i] = (unsigned char)i;
		from_hex(vector->ciphertext, expected, sizeof(expected));

		x = new_xts(key_of(key, vector->key_bytes), 512);
		memcpy(buf, plain, sizeof(buf));
		assert_int_equal(xts_encrypt(x, buf, sizeof(buf), dev_off), 0);
		assert_memory_equal(buf, expected, sizeof(buf));
		assert_int_equal(xts_decrypt(x, buf, sizeof(buf), dev_off), 0);
		assert_memory_equal(buf, plain, sizeof(buf));
		xts_free(x);
	}
}

static void every_size_equals_the_slow_implementation(void **state)
{
	/* Sector numbers from the first to 2^55 - 1, the last one whose byte offset fits. */
	const uint64_t units[] = { 0,
				   8,
				   0x1fff8,
				   (uint64_t)1 << 31,
				   ((uint64_t)1 << 32) - 8,
				   (uint64_t)1 << 48,
				   ((uint64_t)1 << 55) - 32 };
	const size_t n_sectors = 3;
	unsigned char *fast = malloc(n_sectors * MAX_SECTOR);
	unsigned char *slow = malloc(n_sectors * MAX_SECTOR);
	unsigned char *plain = malloc(n_sectors * MAX_SECTOR);

	for (size_t k = 0; k < COUNT(key_sizes); k++)
		for (size_t s = 0; s < COUNT(sector_sizes); s++) {
			const uint32_t size = sector_sizes[s];
			const size_t len = n_sectors * size;
			struct xts *x = new_xts(random_key(key_sizes[k], 77 + s), size);

			for (size_t u = 0; u < COUNT(units); u++) {
				const uint64_t dev_off = units[u] * 512;

				fill_random(plain, len, 1 + u);
				memcpy(fast, plain, len);
				memcpy(slow, plain, len);
				slow_xts(xts_key(x), true, slow, len, size, dev_off);
				assert_int_equal(xts_encrypt(x, fast, len, dev_off), 0);
				assert_memory_equal(fast, slow, len);
				assert_int_equal(xts_decrypt(x, fast, len, dev_off), 0);
				assert_memory_equal(fast, plain, len);
				memcpy(slow, plain, len);
				memcpy(fast, plain, len);
				slow_xts(xts_key(x), false, slow, len, size, dev_off);
				assert_int_equal(xts_decrypt(x, fast, len, dev_off), 0);
				assert_memory_equal(fast, slow, len);
			}
			xts_free(x);
		}
	free(fast);
	free(slow);
	free(plain);
}

static void pieces_equal_the_whole(void **state)
{
	const size_t len = 64 * 4096;
	unsigned char *whole = malloc(len), *pieces = malloc(len);
	struct xts *x = new_xts(random_key(64, 5), 4096);
	uint64_t seed = 99;

	fill_random(whole, len, 3);
	memcpy(pieces, whole, len);
	assert_int_equal(xts_encrypt(x, whole, len, 1 << 20), 0);
	for (size_t at = 0; at < len;) {
		size_t n = (next_random(&seed) % 7 + 1) * 4096;

		if (n > len - at)
			n = len - at;
		assert_int_equal(xts_encrypt(x, pieces + at, n, (1 << 20) + at), 0);
		at += n;
	}
	assert_memory_equal(whole, pieces, len);
	xts_free(x);
	free(whole);
	free(pieces);
}

static void unaligned_buffers_work(void **state)
{
	unsigned char room[4096 + 64], plain[4096];
	struct xts *x = new_xts(random_key(64, 6), 512);

	fill_random(plain, sizeof(plain), 8);
	for (size_t shift = 0; shift < 64; shift += 7) {
		memcpy(room + shift, plain, sizeof(plain));
		assert_int_equal(xts_encrypt(x, room + shift, sizeof(plain), 512), 0);
		slow_xts(xts_key(x), false, room + shift, sizeof(plain), 512, 512);
		assert_memory_equal(room + shift, plain, sizeof(plain));
	}
	xts_free(x);
}

/* ---- the zero rule ---- */

static void zero_sectors_stay_zero_in_any_pattern(void **state)
{
	enum { N = 10 };
	unsigned char buf[N * 1024], expected[N * 1024];
	static const unsigned char zeros[1024];

	for (size_t s = 0; s < 2; s++) {
		const uint32_t size = sector_sizes[s];
		struct xts *x = new_xts(random_key(64, 21), size);

		/* Bit i: sector i holds data. */
		for (unsigned int pattern = 0; pattern < 1u << N; pattern++) {
			fill_random(expected, N * size, pattern + 1);
			for (unsigned int i = 0; i < N; i++)
				if (!(pattern & (1u << i)))
					memset(expected + i * size, 0, size);
			memcpy(buf, expected, N * size);
			for (unsigned int i = 0; i < N; i++)
				if (pattern & (1u << i))
					assert_int_equal(xts_encrypt(x, buf + i * size, size,
								     (7 + i) * size),
							 0);
			assert_int_equal(xts_decrypt(x, buf, N * size, 7 * size), 0);
			assert_memory_equal(buf, expected, N * size);
		}
		assert_int_equal(xts_encrypt(x, memset(buf, 0, size), size, 0), 0);
		assert_memory_not_equal(buf, zeros, size);
		xts_free(x);
	}
}

static void one_set_bit_anywhere_makes_it_data(void **state)
{
	unsigned char buf[512], expected[512];
	struct xts *x = new_xts(random_key(32, 22), 512);

	for (size_t bit = 0; bit < 512 * 8; bit += 5) {
		memset(buf, 0, sizeof(buf));
		buf[bit / 8] |= (unsigned char)(1u << (bit % 8));
		memcpy(expected, buf, sizeof(buf));
		slow_xts(xts_key(x), false, expected, sizeof(expected), 512, 512 * 9);
		assert_int_equal(xts_decrypt(x, buf, sizeof(buf), 512 * 9), 0);
		assert_memory_equal(buf, expected, sizeof(buf));
	}
	xts_free(x);
}

/* ---- refusals ---- */

static void equal_key_halves_are_refused(void **state)
{
	for (size_t k = 0; k < COUNT(key_sizes); k++) {
		struct secret *key = random_key(key_sizes[k], 31);
		struct xts *x = NULL;

		memcpy(secret_data(key) + key_sizes[k] / 2, secret_bytes(key), key_sizes[k] / 2);
		assert_int_equal(xts_new_take(XTS_AUTO, &key, 512, &x), -EINVAL);
		assert_null(x);
		assert_non_null(key);
		secret_data(key)[key_sizes[k] - 1] ^= 0x80;
		assert_int_equal(xts_new_take(XTS_AUTO, &key, 512, &x), 0);
		assert_null(key);
		xts_free(x);
	}
}

static void other_key_and_sector_sizes_are_refused(void **state)
{
	const size_t keys[] = { 1, 16, 24, 31, 33, 48, 63, 65, 128 };
	const uint32_t sizes[] = { 0, 1, 16, 256, 511, 513, 768, 4095, 8192, 65536, UINT32_MAX };
	struct xts *x = NULL;

	for (size_t i = 0; i < COUNT(keys); i++) {
		struct secret *key;

		assert_int_equal(secret_new(keys[i], &key), 0);
		assert_int_equal(xts_new_take(XTS_AUTO, &key, 512, &x), -EINVAL);
		assert_non_null(key);
		secret_free(key);
	}
	for (size_t i = 0; i < COUNT(sizes); i++) {
		struct secret *key = random_key(64, 1);

		assert_int_equal(xts_new_take(XTS_AUTO, &key, sizes[i], &x), -EINVAL);
		assert_non_null(key);
		secret_free(key);
	}
	assert_null(x);
	assert_null(xts_free(NULL));
}

static void partial_sectors_are_refused(void **state)
{
	unsigned char buf[8192] = { 1 }, before[8192];

	memcpy(before, buf, sizeof(buf));
	for (size_t s = 0; s < COUNT(sector_sizes); s++) {
		const uint32_t size = sector_sizes[s];
		struct xts *x = new_xts(random_key(64, 2), size);
		const struct {
			size_t len;
			uint64_t dev_off;
		} bad[] = {
			{ size - 1, 0 },
			{ size + 16, 0 },
			{ 1, 0 },
			{ size, 1 },
			{ size, size / 2 },
			{ size * 2, UINT64_MAX - size + 1 },
			{ size, UINT64_MAX },
		};

		for (size_t i = 0; i < COUNT(bad); i++) {
			assert_int_equal(xts_encrypt(x, buf, bad[i].len, bad[i].dev_off), -EINVAL);
			assert_int_equal(xts_decrypt(x, buf, bad[i].len, bad[i].dev_off), -EINVAL);
		}
		assert_memory_equal(buf, before, sizeof(buf));
		assert_int_equal(xts_encrypt(x, buf, 0, size), 0);
		assert_int_equal(xts_decrypt(x, buf, 0, size), 0);
		assert_memory_equal(buf, before, sizeof(buf));
		xts_free(x);
	}
}

static void properties_are_as_constructed(void **state)
{
	struct secret *key = random_key(64, 4), *same;
	struct xts *x;

	assert_int_equal(secret_copy(key, &same), 0);
	x = new_xts(key, 2048);
	assert_int_equal(xts_sector_size(x), 2048);
	assert_true(secret_equal(xts_key(x), same));
	assert_string_equal(xts_engine(x), xts_engine_of(XTS_AUTO)->name);
	assert_null(xts_note(x));
	secret_free(same);
	xts_free(x);
}

/* ---- engines that fail ---- */

static int broken_open(const struct secret *key, void **ret_state)
{
	return -ENOMEM;
}

static const struct xts_engine engine_without_memory = { .name = "no memory", .open = broken_open };

/* Encrypts with the tweak of a 512-byte sector whatever the sector is: dm-crypt's
 * "iv_large_sectors", the mistake this format invites. */
static int large_sector_crypt(void *state, enum xts_direction direction, unsigned char *buf,
			      size_t n_sectors, uint32_t sector_size, uint64_t sector512)
{
	int r = 0;

	for (size_t i = 0; i < n_sectors && r == 0; i++)
		r = xts_engine_openssl.crypt(state, direction, buf + i * sector_size, 1,
					     sector_size, sector512 + i);
	return r;
}

static int failing_crypt(void *state, enum xts_direction direction, unsigned char *buf,
			 size_t n_sectors, uint32_t sector_size, uint64_t sector512)
{
	return -EIO;
}

/* Right one way, a copy of the ciphertext the other way. */
static int one_way_crypt(void *state, enum xts_direction direction, unsigned char *buf,
			 size_t n_sectors, uint32_t sector_size, uint64_t sector512)
{
	if (direction == XTS_DECRYPT)
		return 0;
	return xts_engine_openssl.crypt(state, direction, buf, n_sectors, sector_size, sector512);
}

static int encrypt_only_crypt(void *state, enum xts_direction direction, unsigned char *buf,
			      size_t n_sectors, uint32_t sector_size, uint64_t sector512)
{
	if (direction == XTS_DECRYPT)
		return -ENOMEM;
	return xts_engine_openssl.crypt(state, direction, buf, n_sectors, sector_size, sector512);
}

static int new_with_crypt(int (*crypt)(void *, enum xts_direction, unsigned char *, size_t,
				       uint32_t, uint64_t))
{
	struct xts_engine engine = xts_engine_openssl;
	struct secret *key = random_key(64, 12);
	struct xts *x = NULL;
	int r;

	engine.crypt = crypt;
	r = xts_new_with_take(&engine, &key, 4096, &x);
	if (r == 0)
		xts_free(x);
	secret_free(key);
	return r;
}

static void wrong_engine_is_found_before_use(void **state)
{
	struct secret *key = random_key(64, 12);
	struct xts *x = NULL;

	assert_int_equal(new_with_crypt(large_sector_crypt), -EIO);
	assert_int_equal(new_with_crypt(failing_crypt), -EIO);
	assert_int_equal(new_with_crypt(one_way_crypt), -EIO);
	assert_int_equal(new_with_crypt(encrypt_only_crypt), -ENOMEM);
	assert_int_equal(xts_new_with_take(&engine_without_memory, &key, 512, &x), -ENOMEM);
	assert_non_null(key);
	assert_null(x);
	secret_free(key);
}

/* Breaks in the middle of use: after the self test, which takes one call each way. */
static int crypt_calls_left = 2;

static int later_failing_crypt(void *state, enum xts_direction direction, unsigned char *buf,
			       size_t n_sectors, uint32_t sector_size, uint64_t sector512)
{
	if (crypt_calls_left-- <= 0)
		return -EIO;
	return xts_engine_openssl.crypt(state, direction, buf, n_sectors, sector_size, sector512);
}

static void engine_error_reaches_the_caller(void **state)
{
	struct xts_engine engine = xts_engine_openssl;
	struct secret *key = random_key(64, 12);
	unsigned char buf[1024];
	struct xts *x = NULL;

	engine.crypt = later_failing_crypt;
	assert_int_equal(xts_new_with_take(&engine, &key, 512, &x), 0);
	memset(buf, 1, sizeof(buf));
	assert_int_equal(xts_encrypt(x, buf, sizeof(buf), 0), -EIO);
	assert_int_equal(xts_decrypt(x, buf, sizeof(buf), 0), -EIO);
	xts_free(x);
}

/* ---- threads ---- */

#define THREADS 8
#define ROUNDS 200

struct job {
	struct xts *x;
	const unsigned char *plain, *cipher;
	size_t len;
	uint64_t seed;
	bool failed;
};

static void *work(void *arg)
{
	struct job *job = arg;
	unsigned char *buf = malloc(job->len);

	for (int i = 0; i < ROUNDS && buf; i++) {
		size_t first = next_random(&job->seed) % (job->len / 512);
		size_t n = next_random(&job->seed) % (job->len / 512 - first) + 1;
		const size_t at = first * 512, len = n * 512;

		memcpy(buf, job->plain + at, len);
		if (xts_encrypt(job->x, buf, len, at) < 0 ||
		    memcmp(buf, job->cipher + at, len) != 0 ||
		    xts_decrypt(job->x, buf, len, at) < 0 || memcmp(buf, job->plain + at, len) != 0)
			job->failed = true;
	}
	if (!buf)
		job->failed = true;
	free(buf);
	return NULL;
}

static void eight_threads_share_one(void **state)
{
	const size_t len = 64 * 512;
	unsigned char *plain = malloc(len), *cipher = malloc(len);
	struct xts *x = new_xts(random_key(64, 41), 512);
	pthread_t threads[THREADS];
	struct job jobs[THREADS];

	fill_random(plain, len, 42);
	memcpy(cipher, plain, len);
	slow_xts(xts_key(x), true, cipher, len, 512, 0);
	for (unsigned int i = 0; i < THREADS; i++) {
		jobs[i] = (struct job){ x, plain, cipher, len, 1000 + i, false };
		assert_int_equal(pthread_create(&threads[i], NULL, work, &jobs[i]), 0);
	}
	for (unsigned int i = 0; i < THREADS; i++) {
		assert_int_equal(pthread_join(threads[i], NULL), 0);
		assert_false(jobs[i].failed);
	}
	xts_free(x);
	free(plain);
	free(cipher);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(published_vectors_hold),
		cmocka_unit_test(every_size_equals_the_slow_implementation),
		cmocka_unit_test(pieces_equal_the_whole),
		cmocka_unit_test(unaligned_buffers_work),
		cmocka_unit_test(zero_sectors_stay_zero_in_any_pattern),
		cmocka_unit_test(one_set_bit_anywhere_makes_it_data),
		cmocka_unit_test(equal_key_halves_are_refused),
		cmocka_unit_test(other_key_and_sector_sizes_are_refused),
		cmocka_unit_test(partial_sectors_are_refused),
		cmocka_unit_test(properties_are_as_constructed),
		cmocka_unit_test(wrong_engine_is_found_before_use),
		cmocka_unit_test(engine_error_reaches_the_caller),
		cmocka_unit_test(eight_threads_share_one),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
