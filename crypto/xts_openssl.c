// SPDX-License-Identifier: GPL-2.0-or-later
// Copyright (C) 2026 the rbdcrypt-nbd authors

/*
 * The XTS engine on OpenSSL's EVP; the only file of the data path that knows
 * OpenSSL.
 *
 * A key schedule costs more than a small sector, so keyed contexts are kept and
 * only the tweak is set per sector. Setting it mutates the context: a context
 * belongs to one thread at a time. A call takes one and puts it back:
 *
 *	1. the slot of the processor it runs on, by one atomic exchange
 *	2. if that was empty, the list of spare ones, under the mutex
 *	3. if that was empty too, a new one
 *
 * It goes back to the slot it looked at first, or, where another call has filled
 * that meanwhile, to the list. Nothing is lost, and there are never more contexts
 * than there were calls at once.
 */

#include "xts_engine.h"

#include <endian.h>
#include <errno.h>
#include <openssl/err.h>
#include <openssl/evp.h>
#include <pthread.h>
#include <sched.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "log.h"

#define MAX_SLOTS 256u
#define CACHE_LINE 64

struct context {
	EVP_CIPHER_CTX *encrypt, *decrypt;
	struct context *next; /* in the list of spare ones */
};

struct slot {
	struct context *context; /* atomic; NULL: taken, or never filled */
} __attribute__((aligned(CACHE_LINE)));

struct openssl_state {
	EVP_CIPHER *cipher;
	const struct secret *key; /* the caller's */
	pthread_mutex_t lock; /* guards spare */
	struct context *spare;
	unsigned int slot_mask;
	struct slot *slots;
};

#define TWEAK_BYTES 16

/* OpenSSL's own account goes to the debug log, and its queue is left empty. */
static int translate(const char *what)
{
	unsigned long code;
	int r = -EIO;

	while ((code = ERR_get_error()) != 0) {
		char text[256];

		if (ERR_GET_REASON(code) == ERR_R_MALLOC_FAILURE)
			r = -ENOMEM;
		ERR_error_string_n(code, text, sizeof(text));
		log_debug(NULL, "xts: %s: %s", what, text);
	}
	return r;
}

static struct context *context_free(struct context *c)
{
	if (c) {
		/* These wipe the key schedules. */
		EVP_CIPHER_CTX_free(c->encrypt);
		EVP_CIPHER_CTX_free(c->decrypt);
		free(c);
	}
	return NULL;
}

static int context_new(const struct openssl_state *s, struct context **ret)
{
	const unsigned char *key = secret_bytes(s->key);
	struct context *c = calloc(1, sizeof(*c));
	int r;

	if (!c)
		return -ENOMEM;
	c->encrypt = EVP_CIPHER_CTX_new();
	c->decrypt = EVP_CIPHER_CTX_new();
	if (!c->encrypt || !c->decrypt ||
	    EVP_EncryptInit_ex2(c->encrypt, s->cipher, key, NULL, NULL) != 1 ||
	    EVP_DecryptInit_ex2(c->decrypt, s->cipher, key, NULL, NULL) != 1) {
		r = translate("key setup");
		context_free(c);
		return r;
	}
	*ret = c;
	return 0;
}

static struct slot *my_slot(struct openssl_state *s)
{
	int cpu = sched_getcpu();

	return &s->slots[(cpu < 0 ? 0 : (unsigned int)cpu) & s->slot_mask];
}

static int context_take(struct openssl_state *s, struct slot *slot, struct context **ret)
{
	struct context *c = __atomic_exchange_n(&slot->context, NULL, __ATOMIC_ACQUIRE);

	if (!c) {
		pthread_mutex_lock(&s->lock);
		c = s->spare;
		if (c)
			s->spare = c->next;
		pthread_mutex_unlock(&s->lock);
	}
	if (!c)
		return context_new(s, ret);
	*ret = c;
	return 0;
}

static void context_put(struct openssl_state *s, struct slot *slot, struct context *c)
{
	struct context *empty = NULL;

	if (__atomic_compare_exchange_n(&slot->context, &empty, c, false, __ATOMIC_RELEASE,
					__ATOMIC_RELAXED))
		return;
	pthread_mutex_lock(&s->lock);
	c->next = s->spare;
	s->spare = c;
	pthread_mutex_unlock(&s->lock);
}

static void openssl_close(void *state)
{
	struct openssl_state *s = state;

	if (s->slots)
		for (unsigned int i = 0; i <= s->slot_mask; i++)
			context_free(s->slots[i].context);
	while (s->spare) {
		struct context *c = s->spare;

		s->spare = c->next;
		context_free(c);
	}
	free(s->slots);
	EVP_CIPHER_free(s->cipher);
	pthread_mutex_destroy(&s->lock);
	free(s);
}

/* One slot per processor, rounded up to a power of two. */
static unsigned int slot_count(void)
{
	long processors = sysconf(_SC_NPROCESSORS_CONF);
	unsigned int n = 1;

	while (n < MAX_SLOTS && (long)n < processors)
		n *= 2;
	return n;
}

static int openssl_fill(struct openssl_state *s, const struct secret *key)
{
	const char *name = secret_len(key) == 32 ? "AES-128-XTS" : "AES-256-XTS";
	const unsigned int n = slot_count();
	struct context *c;
	int r;

	s->key = key;
	s->slot_mask = n - 1;
	s->slots = aligned_alloc(CACHE_LINE, n * sizeof(*s->slots));
	if (!s->slots)
		return -ENOMEM;
	memset(s->slots, 0, n * sizeof(*s->slots));
	s->cipher = EVP_CIPHER_fetch(NULL, name, NULL);
	if (!s->cipher)
		return translate(name);
	/* A key that OpenSSL does not take must be seen now, not at the first request. */
	r = context_new(s, &c);
	if (r < 0)
		return r;
	context_put(s, my_slot(s), c);
	return 0;
}

static int openssl_open(const struct secret *key, void **ret_state)
{
	struct openssl_state *s = calloc(1, sizeof(*s));
	int r;

	if (!s)
		return -ENOMEM;
	r = -pthread_mutex_init(&s->lock, NULL);
	if (r < 0) {
		free(s);
		return r;
	}
	r = openssl_fill(s, key);
	if (r < 0) {
		openssl_close(s);
		return r;
	}
	*ret_state = s;
	return 0;
}

static void set_tweak(unsigned char tweak[TWEAK_BYTES], uint64_t sector512)
{
	const uint64_t number = htole64(sector512);

	memcpy(tweak, &number, sizeof(number));
}

static int crypt_sectors(EVP_CIPHER_CTX *ctx, unsigned char *buf, size_t n_sectors,
			 uint32_t sector_size, uint64_t sector512)
{
	unsigned char tweak[TWEAK_BYTES] = { 0 };
	const int len = (int)sector_size;

	for (size_t i = 0; i < n_sectors; i++) {
		int done = 0;

		set_tweak(tweak, sector512);
		/* Direction and key stay: only the tweak is set. It must never be NULL, or the
		 * one of the sector before would serve again. */
		if (EVP_CipherInit_ex2(ctx, NULL, NULL, tweak, -1, NULL) != 1 ||
		    EVP_CipherUpdate(ctx, buf, &done, buf, len) != 1 || done != len)
			return translate("sector");
		buf += sector_size;
		sector512 += sector_size / 512;
	}
	return 0;
}

static int openssl_crypt(void *state, enum xts_direction direction, unsigned char *buf,
			 size_t n_sectors, uint32_t sector_size, uint64_t sector512)
{
	struct openssl_state *s = state;
	struct slot *slot = my_slot(s);
	struct context *c;
	int r;

	r = context_take(s, slot, &c);
	if (r < 0)
		return r;
	r = crypt_sectors(direction == XTS_ENCRYPT ? c->encrypt : c->decrypt, buf, n_sectors,
			  sector_size, sector512);
	if (r < 0)
		context_free(c); /* whatever state it is in, nobody else shall meet it */
	else
		context_put(s, slot, c);
	return r;
}

const struct xts_engine xts_engine_openssl = {
	.name = "openssl",
	.open = openssl_open,
	.close = openssl_close,
	.crypt = openssl_crypt,
};
