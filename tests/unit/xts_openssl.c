// SPDX-License-Identifier: GPL-2.0-or-later
// Copyright (C) 2026 the rbdcrypt-nbd authors

/*
 * What crypto/xts_openssl.c does when OpenSSL or the allocator fails. The file is
 * included so that its calls can be replaced: each step fails once at its turn.
 */

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <errno.h>
#include <openssl/err.h>
#include <openssl/evp.h>
#include <pthread.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

/* The call that fails, counted down over all replaced calls; below zero: none. */
static int fails_at = -1;
static int contexts_alive;

static bool fails_now(void)
{
	return fails_at >= 0 && fails_at-- == 0;
}

static void *faulty_calloc(size_t n, size_t size)
{
	return fails_now() ? NULL : calloc(n, size);
}

static void *faulty_aligned_alloc(size_t alignment, size_t size)
{
	return fails_now() ? NULL : aligned_alloc(alignment, size);
}

static int faulty_mutex_init(pthread_mutex_t *m, const pthread_mutexattr_t *a)
{
	return fails_now() ? ENOMEM : pthread_mutex_init(m, a);
}

static EVP_CIPHER *faulty_fetch(OSSL_LIB_CTX *lib, const char *name, const char *properties)
{
	return EVP_CIPHER_fetch(lib, fails_now() ? "AES-512-XTS" : name, properties);
}

static EVP_CIPHER_CTX *faulty_ctx_new(void)
{
	EVP_CIPHER_CTX *c;

	if (fails_now()) {
		ERR_raise(ERR_LIB_EVP, ERR_R_MALLOC_FAILURE);
		return NULL;
	}
	c = EVP_CIPHER_CTX_new();
	contexts_alive += c != NULL;
	return c;
}

static void counting_ctx_free(EVP_CIPHER_CTX *c)
{
	contexts_alive -= c != NULL;
	EVP_CIPHER_CTX_free(c);
}

static int faulty_encrypt_init(EVP_CIPHER_CTX *c, const EVP_CIPHER *cipher,
			       const unsigned char *key, const unsigned char *iv,
			       const OSSL_PARAM params[])
{
	return fails_now() ? 0 : EVP_EncryptInit_ex2(c, cipher, key, iv, params);
}

static int faulty_decrypt_init(EVP_CIPHER_CTX *c, const EVP_CIPHER *cipher,
			       const unsigned char *key, const unsigned char *iv,
			       const OSSL_PARAM params[])
{
	return fails_now() ? 0 : EVP_DecryptInit_ex2(c, cipher, key, iv, params);
}

static int faulty_cipher_init(EVP_CIPHER_CTX *c, const EVP_CIPHER *cipher, const unsigned char *key,
			      const unsigned char *iv, int direction, const OSSL_PARAM params[])
{
	assert_non_null(iv);
	return fails_now() ? 0 : EVP_CipherInit_ex2(c, cipher, key, iv, direction, params);
}

static int faulty_update(EVP_CIPHER_CTX *c, unsigned char *out, int *n, const unsigned char *in,
			 int len)
{
	return fails_now() ? 0 : EVP_CipherUpdate(c, out, n, in, len);
}

#define calloc faulty_calloc
#define aligned_alloc faulty_aligned_alloc
#define pthread_mutex_init faulty_mutex_init
#define EVP_CIPHER_fetch faulty_fetch
#define EVP_CIPHER_CTX_new faulty_ctx_new
#define EVP_CIPHER_CTX_free counting_ctx_free
#define EVP_EncryptInit_ex2 faulty_encrypt_init
#define EVP_DecryptInit_ex2 faulty_decrypt_init
#define EVP_CipherInit_ex2 faulty_cipher_init
#define EVP_CipherUpdate faulty_update
#include "../../crypto/xts_openssl.c"

static struct secret *some_key(void)
{
	struct secret *key;

	assert_int_equal(secret_new(64, &key), 0);
	for (unsigned int i = 0; i < 64; i++)
		secret_data(key)[i] = (unsigned char)(i * 7);
	return key;
}

static void opening_fails_cleanly_at_every_step(void **state)
{
	struct secret *key = some_key();
	int steps = 0;

	for (;;) {
		void *engine_state = NULL;
		int r;

		fails_at = steps;
		r = openssl_open(key, &engine_state);
		if (r == 0) {
			openssl_close(engine_state);
			break;
		}
		assert_true(r == -ENOMEM || r == -EIO);
		assert_null(engine_state);
		assert_int_equal(contexts_alive, 0);
		assert_int_equal(ERR_peek_error(), 0);
		steps++;
	}
	fails_at = -1;
	/* state, mutex, slots, fetch, pair, two contexts, two key set-ups */
	assert_int_equal(steps, 9);
	assert_int_equal(contexts_alive, 0);
	secret_free(key);
}

static void failed_call_throws_its_context_away(void **state)
{
	struct secret *key = some_key();
	unsigned char buf[1024], again[1024];
	void *engine_state;

	assert_int_equal(openssl_open(key, &engine_state), 0);
	for (int step = 0; step < 4; step++) {
		memset(buf, 5, sizeof(buf));
		memset(again, 5, sizeof(again));
		fails_at = step;
		assert_int_equal(openssl_crypt(engine_state, XTS_ENCRYPT, buf, 2, 512, 0), -EIO);
		assert_int_equal(contexts_alive, 0);
		fails_at = -1;
		/* The next one makes its own and is right. */
		assert_int_equal(openssl_crypt(engine_state, XTS_ENCRYPT, again, 2, 512, 0), 0);
		assert_int_equal(contexts_alive, 2);
		assert_int_equal(openssl_crypt(engine_state, XTS_DECRYPT, again, 2, 512, 0), 0);
		assert_int_equal(again[0], 5);
		assert_int_equal(again[1023], 5);
	}
	openssl_close(engine_state);
	assert_int_equal(contexts_alive, 0);
	secret_free(key);
}

static void no_memory_for_another_context_is_enomem(void **state)
{
	struct secret *key = some_key();
	struct context *first, *second;
	unsigned char buf[512] = { 0 };
	void *engine_state;

	assert_int_equal(openssl_open(key, &engine_state), 0);
	assert_int_equal(context_take(engine_state, my_slot(engine_state), &first), 0);
	assert_int_equal(context_take(engine_state, my_slot(engine_state), &second), 0);
	fails_at = 0;
	assert_int_equal(openssl_crypt(engine_state, XTS_ENCRYPT, buf, 1, 512, 0), -ENOMEM);
	fails_at = 1;
	assert_int_equal(openssl_crypt(engine_state, XTS_ENCRYPT, buf, 1, 512, 0), -ENOMEM);
	fails_at = -1;
	context_put(engine_state, my_slot(engine_state), first);
	context_put(engine_state, my_slot(engine_state), second);
	assert_int_equal(openssl_crypt(engine_state, XTS_ENCRYPT, buf, 1, 512, 0), 0);
	openssl_close(engine_state);
	assert_int_equal(contexts_alive, 0);
	secret_free(key);
}

static void contexts_beyond_the_slots_are_kept_and_reused(void **state)
{
	enum { N = 1000 };
	static struct context *held[N];
	struct secret *key = some_key();
	void *engine_state;

	assert_int_equal(openssl_open(key, &engine_state), 0);
	for (int round = 0; round < 2; round++) {
		for (int i = 0; i < N; i++)
			assert_int_equal(
				context_take(engine_state, my_slot(engine_state), &held[i]), 0);
		assert_int_equal(contexts_alive, 2 * N);
		for (int i = 0; i < N; i++)
			context_put(engine_state, my_slot(engine_state), held[i]);
		assert_int_equal(contexts_alive, 2 * N);
	}
	openssl_close(engine_state);
	assert_int_equal(contexts_alive, 0);
	secret_free(key);
}

static void tweak_is_little_endian_64_bit_and_never_more(void **state)
{
	unsigned char tweak[TWEAK_BYTES] = { 0 };
	const unsigned char expected[TWEAK_BYTES] = { 0x08, 0x07, 0x06, 0x05, 0x04,
						      0x03, 0x02, 0x01, 0 };

	set_tweak(tweak, 0x0102030405060708);
	assert_memory_equal(tweak, expected, sizeof(tweak));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(opening_fails_cleanly_at_every_step),
		cmocka_unit_test(failed_call_throws_its_context_away),
		cmocka_unit_test(no_memory_for_another_context_is_enomem),
		cmocka_unit_test(contexts_beyond_the_slots_are_kept_and_reused),
		cmocka_unit_test(tweak_is_little_endian_64_bit_and_never_more),
	};

	/* One processor, one slot: the tests below count contexts. */
	cpu_set_t here;

	CPU_ZERO(&here);
	CPU_SET((size_t)sched_getcpu(), &here);
	if (sched_setaffinity(0, sizeof(here), &here) < 0)
		return 1;
	return cmocka_run_group_tests(tests, NULL, NULL);
}
