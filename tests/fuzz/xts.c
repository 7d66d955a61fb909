/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Copyright (C) 2026 the rbdcrypt-nbd authors */

/*
 * libFuzzer target: our own XTS engines against OpenSSL. The input says what is done:
 *
 *	byte 0		engine (2 bits), direction, key length, sector size (2 bits)
 *	byte 1		alignment of the buffer, 0..63
 *	byte 2		number of sectors, 1..64
 *	bytes 3-10	sector number, brought below 2^55
 *	bytes 11-18	seed of key and contents
 *	the rest	lengths of the pieces in which the engine is given the run
 *
 * OpenSSL gets the whole run, sector by sector. What lies around the run must stay.
 *
 * Build: clang -fsanitize=fuzzer,address,undefined with crypto/.
 */

#include <openssl/evp.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "../../crypto/xts_engine.h"

#define HEAD 19
#define GUARD 64u
#define SECTORS_MAX 64u

struct plan {
	const struct xts_engine *engine;
	enum xts_direction direction;
	size_t key_bytes, shift, n_sectors;
	uint32_t sector_size;
	uint64_t sector512, seed;
};

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len);

static void fill(unsigned char *p, size_t len, uint64_t *seed)
{
	for (size_t i = 0; i < len; i++) {
		*seed ^= *seed << 13;
		*seed ^= *seed >> 7;
		*seed ^= *seed << 17;
		p[i] = (unsigned char)(*seed >> 32);
	}
}

static uint64_t number(const uint8_t *p)
{
	uint64_t n;

	memcpy(&n, p, sizeof(n));
	return n;
}

static void read_plan(const uint8_t *data, struct plan *p)
{
	static const enum xts_choice choices[] = { XTS_AESNI, XTS_VAES256, XTS_VAES512,
						   XTS_OPENSSL };
	const uint64_t end = (uint64_t)1 << 55;

	p->engine = xts_engine_of(choices[data[0] & 3]);
	p->direction = data[0] & 4 ? XTS_DECRYPT : XTS_ENCRYPT;
	p->key_bytes = data[0] & 8 ? 32 : 64;
	p->sector_size = 512u << (data[0] >> 4 & 3);
	p->shift = data[1] % GUARD;
	p->n_sectors = data[2] % SECTORS_MAX + 1;
	p->sector512 = number(data + 3) % (end - p->n_sectors * (p->sector_size / 512) + 1);
	p->seed = number(data + 11) | 1;
}

static void expect(const struct plan *p, const struct secret *key, unsigned char *buf)
{
	EVP_CIPHER_CTX *c = EVP_CIPHER_CTX_new();
	const EVP_CIPHER *cipher = p->key_bytes == 32 ? EVP_aes_128_xts() : EVP_aes_256_xts();

	for (size_t s = 0; s < p->n_sectors; s++) {
		const uint64_t sector512 = p->sector512 + s * (p->sector_size / 512);
		unsigned char *sector = buf + s * p->sector_size, tweak[16] = { 0 };
		int n;

		for (unsigned int i = 0; i < 8; i++)
			tweak[i] = (unsigned char)(sector512 >> (8 * i));
		if (EVP_CipherInit_ex(c, cipher, NULL, secret_bytes(key), tweak,
				      p->direction == XTS_ENCRYPT) != 1 ||
		    EVP_CipherUpdate(c, sector, &n, sector, (int)p->sector_size) != 1)
			abort();
	}
	EVP_CIPHER_CTX_free(c);
}

static void crypt_pieces(const struct plan *p, const struct secret *key, unsigned char *buf,
			 const uint8_t *pieces, size_t n_pieces)
{
	size_t done = 0;
	void *state;

	if (p->engine->open(key, &state) != 0)
		abort();
	while (done < p->n_sectors) {
		size_t n = p->n_sectors - done;

		if (n_pieces > 0 && *pieces % SECTORS_MAX + 1 < n)
			n = *pieces % SECTORS_MAX + 1;
		if (n_pieces > 0) {
			pieces++;
			n_pieces--;
		}
		if (p->engine->crypt(state, p->direction, buf + done * p->sector_size, n,
				     p->sector_size,
				     p->sector512 + done * (p->sector_size / 512)) != 0)
			abort();
		done += n;
	}
	p->engine->close(state);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len)
{
	unsigned char *ours, *theirs;
	struct secret *key;
	struct plan p;
	size_t room;

	if (len < HEAD)
		return 0;
	read_plan(data, &p);
	if (!p.engine)
		return 0;
	room = 2 * GUARD + p.shift + p.n_sectors * p.sector_size;
	ours = malloc(room);
	theirs = malloc(room);
	if (!ours || !theirs || secret_new(p.key_bytes, &key) < 0)
		abort();
	fill(secret_data(key), p.key_bytes, &p.seed);
	fill(ours, room, &p.seed);
	memcpy(theirs, ours, room);

	crypt_pieces(&p, key, ours + GUARD + p.shift, data + HEAD, len - HEAD);
	expect(&p, key, theirs + GUARD + p.shift);
	if (memcmp(ours, theirs, room) != 0)
		abort();

	secret_free(key);
	free(ours);
	free(theirs);
	return 0;
}
