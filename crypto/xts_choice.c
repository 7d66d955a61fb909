// SPDX-License-Identifier: GPL-2.0-or-later
// Copyright (C) 2026 the rbdcrypt-nbd authors

/*
 * Which engine a volume gets.
 *
 * Our own engines are faster than OpenSSL, and OpenSSL is the measure of what is
 * right. Wrong arithmetic here would destroy data without a sound, by a mistake of
 * ours, of a compiler, or of a processor. So, whenever a volume is opened, the engine
 * works on random sectors with the volume's own key beside OpenSSL, through each of its
 * code paths, and is not used if a single byte differs.
 *
 * The volume's thread, once per layer of a volume; well below a millisecond. Owns nothing.
 */

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>

#include "log.h"
#include "xts.h"
#include "xts_engine.h"

/*
 * Engines take 8 sectors at once, and 512 bytes at most in a piece: one, less than a
 * batch, a batch, one more, and the same with a whole batch before.
 */
static const size_t run_lengths[] = { 1, 7, 8, 9, 17 };
#define RUN_MAX 17u

static void xts_freep(struct xts **x)
{
	xts_free(*x);
}

static void bytes_freep(unsigned char **p)
{
	free(*p);
}

static uint64_t next_random(uint64_t *seed)
{
	*seed ^= *seed << 13;
	*seed ^= *seed >> 7;
	*seed ^= *seed << 17;
	return *seed;
}

/* The same run of sectors through both. mine and theirs: equal contents. */
static int compare_run(struct xts *x, struct xts *reference, unsigned char *mine,
		       unsigned char *theirs, size_t len, uint64_t dev_off)
{
	int r;

	r = xts_encrypt(x, mine, len, dev_off);
	if (r == 0)
		r = xts_encrypt(reference, theirs, len, dev_off);
	if (r < 0)
		return r;
	if (memcmp(mine, theirs, len) != 0)
		return -EIO;
	/* Not the way back: a decryption of something else, which the encryption cannot hide. */
	r = xts_decrypt(x, mine, len, dev_off + len);
	if (r == 0)
		r = xts_decrypt(reference, theirs, len, dev_off + len);
	if (r < 0)
		return r;
	return memcmp(mine, theirs, len) != 0 ? -EIO : 0;
}

/* -EIO: they differ. -ENOMEM. */
static int compare(struct xts *x, struct xts *reference)
{
	const uint32_t size = xts_sector_size(x);
	const size_t room = (size_t)RUN_MAX * size;
	unsigned char *buf __attribute__((cleanup(bytes_freep))) = malloc(2 * room);
	uint64_t seed = 0;

	if (!buf)
		return -ENOMEM;
	if (getrandom(&seed, sizeof(seed), GRND_NONBLOCK) < 0)
		seed = 0; /* early at boot; then it is the same test each time */
	seed |= 1;
	for (size_t i = 0; i < room; i += sizeof(seed)) {
		const uint64_t word = next_random(&seed);

		memcpy(buf + i, &word, sizeof(word));
	}
	memcpy(buf + room, buf, room);
	for (size_t i = 0; i < sizeof(run_lengths) / sizeof(run_lengths[0]); i++) {
		/* Halved: far from the end of what 64 bits can say. */
		const uint64_t dev_off = next_random(&seed) / 2 / size * size;
		int r;

		r = compare_run(x, reference, buf, buf + room, run_lengths[i] * size, dev_off);
		if (r < 0) {
			log_debug(NULL, "xts: engine %s, %zu sectors of %u bytes at %llu: %s",
				  xts_engine(x), run_lengths[i], size, (unsigned long long)dev_off,
				  strerror(-r));
			return r;
		}
	}
	return 0;
}

static int new_with_copy(const struct xts_engine *engine, const struct secret *key,
			 uint32_t sector_size, struct xts **ret)
{
	struct secret *copy __attribute__((cleanup(secret_freep))) = NULL;
	int r;

	r = secret_copy(key, &copy);
	if (r < 0)
		return r;
	return xts_new_with_take(engine, &copy, sector_size, ret);
}

int xts_new_compared_take(const struct xts_engine *engine, struct secret **key,
			  uint32_t sector_size, struct xts **ret)
{
	struct xts *x __attribute__((cleanup(xts_freep))) = NULL;
	struct xts *reference __attribute__((cleanup(xts_freep))) = NULL;
	struct xts **chosen = &reference;
	int r;

	/* Each with its own copy: until all has succeeded the key is the caller's. */
	r = new_with_copy(&xts_engine_openssl, *key, sector_size, &reference);
	if (r < 0)
		return r;
	if (!engine) {
		xts_set_note(reference, "this processor cannot run the chosen engine");
	} else if (engine != &xts_engine_openssl) {
		r = new_with_copy(engine, *key, sector_size, &x);
		if (r == 0)
			r = compare(x, reference);
		if (r == 0)
			chosen = &x;
		else if (r == -EIO)
			xts_set_note(reference, "the other engine's results differ from OpenSSL's");
		else
			return r;
	}
	*key = secret_free(*key);
	*ret = *chosen;
	*chosen = NULL;
	return 0;
}

int xts_new_take(enum xts_choice choice, struct secret **key, uint32_t sector_size,
		 struct xts **ret)
{
	return xts_new_compared_take(xts_engine_of(choice), key, sector_size, ret);
}
