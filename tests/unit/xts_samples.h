/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Copyright (C) 2026 the rbdcrypt-nbd authors */

#ifndef TESTS_XTS_SAMPLES_H
#define TESTS_XTS_SAMPLES_H

/*
 * Keys and data for the tests of XTS, random ones and those that are published. Included once, by a
 * test program, after cmocka.h.
 */

#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include "secret.h"

#define COUNT(a) (sizeof(a) / sizeof((a)[0]))
#define MAX_SECTOR 4096u

static const uint32_t sector_sizes[] = { 512, 1024, 2048, 4096 };
static const size_t key_sizes[] = { 32, 64 };

/* A small generator with a seed, so that a failure can be repeated. */
static inline uint64_t next_random(uint64_t *seed)
{
	*seed ^= *seed << 13;
	*seed ^= *seed >> 7;
	*seed ^= *seed << 17;
	return *seed;
}

static inline void fill_random(void *buf, size_t len, uint64_t seed)
{
	unsigned char *p = buf;

	for (size_t i = 0; i < len; i++)
		p[i] = (unsigned char)(next_random(&seed) >> 32);
}

static inline void from_hex(const char *hex, unsigned char *ret, size_t len)
{
	assert_int_equal(strlen(hex), 2 * len);
	for (size_t i = 0; i < len; i++) {
		unsigned int byte;

		assert_int_equal(sscanf(hex + 2 * i, "%2x", &byte), 1);
		ret[i] = (unsigned char)byte;
	}
}

static inline struct secret *key_of(const void *bytes, size_t len)
{
	struct secret *key;

	assert_int_equal(secret_new(len, &key), 0);
	memcpy(secret_data(key), bytes, len);
	return key;
}

static inline struct secret *random_key(size_t len, uint64_t seed)
{
	struct secret *key;

	/* Byte by byte: copying would leave it in the C library's registers. */
	assert_int_equal(secret_new(len, &key), 0);
	fill_random(secret_data(key), len, seed);
	return key;
}

#endif
