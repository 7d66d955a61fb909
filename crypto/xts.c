// SPDX-License-Identifier: GPL-2.0-or-later
// Copyright (C) 2026 the rbdcrypt-nbd authors

/*
 * Sectors in place: what the bytes of an encrypted data area mean.
 *
 * A sector of 512, 1024, 2048 or 4096 bytes is one XTS data unit. Its tweak is
 * 16 bytes: the number of 512-byte units between the start of the data area and
 * the sector as little-endian 64 bit, then eight zero bytes. With 4096-byte
 * sectors the number therefore goes up by 8. An XTS unit has no relation to its
 * neighbours, so any run of sectors can be worked on alone and by any thread.
 *
 * Decryption has the zero rule: XTS turns a sector into all zero bytes with
 * probability 2^-4096 or less, so such a sector was never written (or was
 * discarded) and reads as zeros. The first 16 bytes settle nearly every case.
 *
 * Called from IO threads, any number at once: after construction nothing here
 * changes. The arithmetic, and what it needs per thread, is an engine's
 * (xts_engine.h); which one that is, is xts_choice.c's.
 */

#include "xts.h"

#include <errno.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#include "log.h"
#include "xts_engine.h"

struct xts {
	const struct xts_engine *engine;
	void *engine_state;
	struct secret *key;
	const char *note;
	uint32_t sector_size;
};

#define UNIT_BYTES 512u /* the tweak counts these */
#define BLOCK_BYTES 16u

static bool is_zero(const unsigned char *p, size_t len)
{
	uint64_t head[BLOCK_BYTES / sizeof(uint64_t)];

	memcpy(head, p, sizeof(head));
	if (head[0] | head[1])
		return false;
	/* Each block equals the one before it, and the first is zero. */
	return memcmp(p, p + BLOCK_BYTES, len - BLOCK_BYTES) == 0;
}

static int check_range(const struct xts *x, size_t len, uint64_t dev_off)
{
	if ((len | dev_off) & (x->sector_size - 1))
		return -EINVAL;
	if (dev_off + len < dev_off)
		return -EINVAL;
	return 0;
}

int xts_encrypt(struct xts *x, void *buf, size_t len, uint64_t dev_off)
{
	int r;

	r = check_range(x, len, dev_off);
	if (r < 0 || len == 0)
		return r;
	return x->engine->crypt(x->engine_state, XTS_ENCRYPT, buf, len / x->sector_size,
				x->sector_size, dev_off / UNIT_BYTES);
}

int xts_decrypt(struct xts *x, void *buf, size_t len, uint64_t dev_off)
{
	const uint32_t size = x->sector_size;
	unsigned char *p = buf;
	size_t n_sectors, i = 0;
	int r;

	r = check_range(x, len, dev_off);
	if (r < 0)
		return r;
	n_sectors = len / size;
	while (i < n_sectors) {
		size_t first = i;

		/* A run is handed over whole: engines like many sectors at once. */
		while (i < n_sectors && !is_zero(p + i * size, size))
			i++;
		if (i > first) {
			r = x->engine->crypt(x->engine_state, XTS_DECRYPT, p + first * size,
					     i - first, size,
					     (dev_off + first * size) / UNIT_BYTES);
			if (r < 0)
				return r;
		}
		while (i < n_sectors && is_zero(p + i * size, size))
			i++;
	}
	return 0;
}

uint32_t xts_sector_size(const struct xts *x)
{
	return x->sector_size;
}

const struct secret *xts_key(const struct xts *x)
{
	return x->key;
}

const char *xts_engine(const struct xts *x)
{
	return x->engine->name;
}

const char *xts_note(const struct xts *x)
{
	return x->note;
}

void xts_set_note(struct xts *x, const char *note)
{
	x->note = note;
}

struct xts *xts_free(struct xts *x)
{
	if (!x)
		return NULL;
	if (x->engine_state)
		x->engine->close(x->engine_state);
	secret_free(x->key);
	free(x);
	return NULL;
}

static void xts_freep(struct xts **x)
{
	xts_free(*x);
}

static bool halves_are_equal(const struct secret *key)
{
	const unsigned char *k = secret_bytes(key);
	const size_t half = secret_len(key) / 2;
	volatile unsigned char difference = 0;

	for (size_t i = 0; i < half; i++)
		difference |= k[i] ^ k[half + i];
	return difference == 0;
}

/* Everything of construction but the self test, which itself needs this. */
static int xts_open_take(const struct xts_engine *engine, struct secret **key, uint32_t sector_size,
			 struct xts **ret)
{
	struct xts *x __attribute__((cleanup(xts_freep))) = calloc(1, sizeof(*x));
	int r;

	if (!x)
		return -ENOMEM;
	x->engine = engine;
	x->sector_size = sector_size;
	r = engine->open(*key, &x->engine_state);
	if (r < 0)
		return r;
	x->key = *key;
	*key = NULL;
	*ret = x;
	x = NULL;
	return 0;
}

/*
 * Known answers. Key: the digits of e and pi, as in IEEE 1619-2007 annex B.
 * Plaintext: 00 01 .. ff repeated over two sectors, the first one 2^33 units into
 * the data area (beyond 32 bits). Given here: the first block of the first sector
 * and the last block of the second, which depends on the step of the tweak.
 */
#define TEST_UNIT ((uint64_t)1 << 33)
#define TEST_MAX_SECTOR 4096u

static const unsigned char test_key_128[32] = {
	0x27, 0x18, 0x28, 0x18, 0x28, 0x45, 0x90, 0x45, 0x23, 0x53, 0x60,
	0x28, 0x74, 0x71, 0x35, 0x26, 0x31, 0x41, 0x59, 0x26, 0x53, 0x58,
	0x97, 0x93, 0x23, 0x84, 0x62, 0x64, 0x33, 0x83, 0x27, 0x95,
};
static const unsigned char test_key_256[64] = {
	0x27, 0x18, 0x28, 0x18, 0x28, 0x45, 0x90, 0x45, 0x23, 0x53, 0x60, 0x28, 0x74,
	0x71, 0x35, 0x26, 0x62, 0x49, 0x77, 0x57, 0x24, 0x70, 0x93, 0x69, 0x99, 0x59,
	0x57, 0x49, 0x66, 0x96, 0x76, 0x27, 0x31, 0x41, 0x59, 0x26, 0x53, 0x58, 0x97,
	0x93, 0x23, 0x84, 0x62, 0x64, 0x33, 0x83, 0x27, 0x95, 0x02, 0x88, 0x41, 0x97,
	0x16, 0x93, 0x99, 0x37, 0x51, 0x05, 0x82, 0x09, 0x74, 0x94, 0x45, 0x92,
};

struct known_answer {
	size_t key_bytes;
	uint32_t sector_size;
	unsigned char first[BLOCK_BYTES], last[BLOCK_BYTES];
};

static const struct known_answer known_answers[] = {
	{ 32,
	  512,
	  { 0x0f, 0x0e, 0x45, 0x1f, 0x4f, 0x9d, 0x82, 0x67, 0x52, 0xb7, 0x5c, 0xdd, 0xae, 0xd4,
	    0xb5, 0x91 },
	  { 0x07, 0xbe, 0x26, 0x3c, 0xc0, 0xa7, 0x19, 0xf3, 0xd0, 0xf0, 0x9f, 0x0d, 0xb0, 0xc1,
	    0x42, 0xd9 } },
	{ 32,
	  1024,
	  { 0x0f, 0x0e, 0x45, 0x1f, 0x4f, 0x9d, 0x82, 0x67, 0x52, 0xb7, 0x5c, 0xdd, 0xae, 0xd4,
	    0xb5, 0x91 },
	  { 0xef, 0x80, 0xe2, 0x5e, 0x92, 0x52, 0xc6, 0xcb, 0x49, 0x09, 0x87, 0xad, 0xdc, 0x12,
	    0x5e, 0x3e } },
	{ 32,
	  2048,
	  { 0x0f, 0x0e, 0x45, 0x1f, 0x4f, 0x9d, 0x82, 0x67, 0x52, 0xb7, 0x5c, 0xdd, 0xae, 0xd4,
	    0xb5, 0x91 },
	  { 0x08, 0xee, 0xf3, 0x39, 0x04, 0x09, 0xf7, 0xd3, 0xfe, 0x95, 0x7d, 0x5c, 0xa4, 0x5d,
	    0x35, 0x27 } },
	{ 32,
	  4096,
	  { 0x0f, 0x0e, 0x45, 0x1f, 0x4f, 0x9d, 0x82, 0x67, 0x52, 0xb7, 0x5c, 0xdd, 0xae, 0xd4,
	    0xb5, 0x91 },
	  { 0x08, 0xb6, 0x5f, 0x2d, 0x77, 0xf3, 0x08, 0x27, 0x15, 0x17, 0xc2, 0x61, 0x93, 0xc9,
	    0xb4, 0x9d } },
	{ 64,
	  512,
	  { 0xa6, 0x41, 0x96, 0xf3, 0x00, 0x5b, 0xaa, 0xb7, 0x52, 0xf0, 0xb5, 0x64, 0x95, 0x73,
	    0xac, 0x67 },
	  { 0xe1, 0x04, 0xdf, 0xb5, 0x61, 0x8e, 0x02, 0x72, 0xc0, 0x95, 0xf0, 0x36, 0x86, 0xb3,
	    0xa4, 0x95 } },
	{ 64,
	  1024,
	  { 0xa6, 0x41, 0x96, 0xf3, 0x00, 0x5b, 0xaa, 0xb7, 0x52, 0xf0, 0xb5, 0x64, 0x95, 0x73,
	    0xac, 0x67 },
	  { 0xf1, 0x66, 0x96, 0x91, 0x35, 0xd8, 0x0d, 0xaf, 0xde, 0x1c, 0x65, 0x07, 0x74, 0xef,
	    0x83, 0xa7 } },
	{ 64,
	  2048,
	  { 0xa6, 0x41, 0x96, 0xf3, 0x00, 0x5b, 0xaa, 0xb7, 0x52, 0xf0, 0xb5, 0x64, 0x95, 0x73,
	    0xac, 0x67 },
	  { 0x85, 0x2b, 0xc7, 0xce, 0x78, 0xa3, 0x03, 0xf8, 0xb3, 0x93, 0xd8, 0x56, 0xad, 0x4c,
	    0xee, 0xd9 } },
	{ 64,
	  4096,
	  { 0xa6, 0x41, 0x96, 0xf3, 0x00, 0x5b, 0xaa, 0xb7, 0x52, 0xf0, 0xb5, 0x64, 0x95, 0x73,
	    0xac, 0x67 },
	  { 0x00, 0xd4, 0xc1, 0xec, 0x40, 0xf2, 0xaa, 0xac, 0x97, 0xce, 0x37, 0xc8, 0x46, 0x86,
	    0xe2, 0xe1 } },
};

static int answer_test(const struct xts_engine *engine, const struct known_answer *a)
{
	struct xts *x __attribute__((cleanup(xts_freep))) = NULL;
	struct secret *key __attribute__((cleanup(secret_freep))) = NULL;
	const size_t len = 2 * (size_t)a->sector_size;
	unsigned char buf[2 * TEST_MAX_SECTOR];
	int r;

	r = secret_new(a->key_bytes, &key);
	if (r < 0)
		return r;
	memcpy(secret_data(key), a->key_bytes == 32 ? test_key_128 : test_key_256, a->key_bytes);
	r = xts_open_take(engine, &key, a->sector_size, &x);
	if (r < 0)
		return r;

	for (size_t i = 0; i < len; i++)
		buf[i] = (unsigned char)i;
	r = xts_encrypt(x, buf, len, TEST_UNIT * UNIT_BYTES);
	if (r < 0)
		return r;
	if (memcmp(buf, a->first, BLOCK_BYTES) != 0 ||
	    memcmp(buf + len - BLOCK_BYTES, a->last, BLOCK_BYTES) != 0)
		return -EIO;
	r = xts_decrypt(x, buf, len, TEST_UNIT * UNIT_BYTES);
	if (r < 0)
		return r;
	for (size_t i = 0; i < len; i++)
		if (buf[i] != (unsigned char)i)
			return -EIO;
	return 0;
}

static int self_test(const struct xts_engine *engine, size_t key_bytes, uint32_t sector_size)
{
	for (size_t i = 0; i < sizeof(known_answers) / sizeof(known_answers[0]); i++) {
		const struct known_answer *a = &known_answers[i];

		if (a->key_bytes == key_bytes && a->sector_size == sector_size)
			return answer_test(engine, a);
	}
	return -EINVAL;
}

int xts_new_with_take(const struct xts_engine *engine, struct secret **key, uint32_t sector_size,
		      struct xts **ret)
{
	int r;

	/* The table of answers is also the list of what is allowed. */
	r = self_test(engine, secret_len(*key), sector_size);
	if (r < 0) {
		log_debug(NULL, "xts: engine %s, %zu-byte key, %u-byte sectors: self test: %s",
			  engine->name, secret_len(*key), sector_size, strerror(-r));
		return r;
	}
	if (halves_are_equal(*key))
		return -EINVAL;
	return xts_open_take(engine, key, sector_size, ret);
}
