/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Copyright (C) 2026 the rbdcrypt-nbd authors */

/*
 * AES-XTS over many sectors, for any width of vector. Not a header: it is included
 * once by each of xts_x86_aesni.c, xts_x86_vaes256.c and xts_x86_vaes512.c, which
 * say what a vector is:
 *
 *	TARGET			the attribute of every function: the instructions it may use
 *	INLINE			the same for those that must vanish in their callers
 *	XTS_CRYPT		the name of the one function that comes out
 *	vec			1, 2 or 4 AES blocks
 *	vec_load, vec_store	any alignment
 *	vec_xor, vec_xor3
 *	vec_each(p)		the 16 bytes at p in every block
 *	vec_enc, vec_enc_last, vec_dec, vec_dec_last	one round
 *	vec_numbers(n, step)	blocks with n, n + step, ... as little-endian 128 bits
 *	tweak_first(lanes, first, i)	lane i's tweaks at the start of a sector whose first
 *				tweak is everywhere in first; lanes: those before are done
 *	tweak_next(lanes, t, i)	lane i's tweaks LANES vectors after t
 *	registers_wipe()
 *
 * An AES round takes several cycles, and a processor begins one or two in each. So
 * LANES vectors are on the way together, round by round: a "turn". That leaves the
 * encryption of the tweak, one block per sector, which would be waited for alone:
 * at 512 bytes as long as half the sector's own work. Therefore the tweaks of
 * BATCH sectors are encrypted together, too.
 *
 * Secrets. Nothing here branches on data or keys or takes an address from them.
 * The round keys are read from their locked page in every round anew, so that none
 * is ever spilled to the stack; registers are cleared at the end. Tweaks do lie on
 * the stack: the encrypted ones are wiped, what a compiler spills of a turn's is not.
 */

#include <string.h>

#define LANES 8
#define TURN_BYTES (LANES * sizeof(vec))
#define BATCH 8
#define BATCH_VECS (BATCH * 16 / sizeof(vec))

/* Loops of a fixed count over registers must vanish. */
#if defined(__clang__)
#define UNROLLED _Pragma("clang loop unroll(full)")
#else
#define UNROLLED _Pragma("GCC unroll 8")
#endif

/*
 * One round of every lane. A compiler that knew the key from the last turn, or fetched that of
 * the next round ahead, would keep it on the stack for lack of registers. The empty
 * statements make its address depend on the round before, and its use end with this one.
 */
INLINE void round_all(vec *x, unsigned int n, const unsigned char *key, bool is_encrypt)
{
	vec each;

	__asm__("" : "+r"(key), "+v"(x[0]));
	each = vec_each(key);
	UNROLLED
	for (unsigned int i = 0; i < n; i++) {
		x[i] = is_encrypt ? vec_enc(x[i], each) : vec_dec(x[i], each);
		__asm__("" : "+r"(key), "+v"(x[i]));
	}
}

/* E(K2, sector number) of BATCH sectors. */
INLINE void tweaks_encrypt(const struct xts_x86_keys *k, uint64_t sector512, uint64_t step,
			   unsigned char *ret)
{
	const vec first = vec_each(k->tweak[0]);
	vec x[BATCH_VECS], last;

	UNROLLED
	for (unsigned int i = 0; i < BATCH_VECS; i++)
		x[i] = vec_xor(vec_numbers(sector512 + i * (BATCH / BATCH_VECS) * step, step),
			       first);
	for (uint64_t r = 1; r < k->rounds; r++)
		round_all(x, BATCH_VECS, k->tweak[r], true);
	last = vec_each(k->tweak[k->rounds]);
	UNROLLED
	for (unsigned int i = 0; i < BATCH_VECS; i++)
		vec_store(ret + i * sizeof(vec), vec_enc_last(x[i], last));
}

/*
 * TURN_BYTES at p with the tweaks t, which become those of the turn after: of the same sector, or
 * of the one whose first tweak is at next_sector. That is woven into the first rounds:
 * processors look ahead, but not past a turn's hundred instructions that wait for each other.
 */
INLINE void turn(const unsigned char (*keys)[16], uint64_t n_rounds, vec *t, unsigned char *p,
		 const unsigned char *next_sector, bool is_encrypt)
{
	const vec first = next_sector ? vec_each(next_sector) : t[0];
	vec x[LANES], next[LANES], key;

	__asm__("" : "+r"(keys));
	key = vec_each(keys[0]);
	UNROLLED
	for (unsigned int i = 0; i < LANES; i++)
		x[i] = vec_xor3(vec_load(p + i * sizeof(vec)), t[i], key);

#define ROUND(i)                                                                                   \
	do {                                                                                       \
		round_all(x, LANES, keys[(i) + 1], is_encrypt);                                    \
		next[i] = next_sector ? tweak_first(next, first, i) : tweak_next(next, t, i);      \
	} while (0)
	ROUND(0);
	ROUND(1);
	ROUND(2);
	ROUND(3);
	ROUND(4);
	ROUND(5);
	ROUND(6);
	ROUND(7);
#undef ROUND
	for (uint64_t r = LANES + 1; r < n_rounds; r++)
		round_all(x, LANES, keys[r], is_encrypt);

	__asm__("" : "+r"(keys), "+v"(x[0]));
	key = vec_each(keys[n_rounds]);
	UNROLLED
	for (unsigned int i = 0; i < LANES; i++) {
		x[i] = is_encrypt ? vec_enc_last(x[i], key) : vec_dec_last(x[i], key);
		vec_store(p + i * sizeof(vec), vec_xor(x[i], t[i]));
		t[i] = next[i];
	}
}

INLINE void sectors(const struct xts_x86_keys *k, bool is_encrypt, unsigned char *p,
		    size_t n_sectors, uint32_t sector_size, uint64_t sector512)
{
	const unsigned char(*const keys)[16] = is_encrypt ? k->encrypt : k->decrypt;
	const uint64_t step = sector_size / 512;
	unsigned char tweaks[BATCH][16] __attribute__((aligned(64)));

	while (n_sectors > 0) {
		const size_t n = n_sectors < BATCH ? n_sectors : BATCH;
		vec t[LANES], first;

		tweaks_encrypt(k, sector512, step, tweaks[0]);
		first = vec_each(tweaks[0]);
		t[0] = tweak_first(t, first, 0);
		t[1] = tweak_first(t, first, 1);
		t[2] = tweak_first(t, first, 2);
		t[3] = tweak_first(t, first, 3);
		t[4] = tweak_first(t, first, 4);
		t[5] = tweak_first(t, first, 5);
		t[6] = tweak_first(t, first, 6);
		t[7] = tweak_first(t, first, 7);
		for (size_t s = 0; s < n; s++) {
			const unsigned char *last = p + sector_size - TURN_BYTES;

			for (; p < last; p += TURN_BYTES)
				turn(keys, k->rounds, t, p, NULL, is_encrypt);
			/* After the last of the batch that is for nothing. */
			turn(keys, k->rounds, t, p, tweaks[(s + 1) % BATCH], is_encrypt);
			p += TURN_BYTES;
		}
		n_sectors -= n;
		sector512 += n * step;
	}
	explicit_bzero(tweaks, sizeof(tweaks));
	registers_wipe();
}

TARGET void XTS_CRYPT(const struct xts_x86_keys *k, enum xts_direction direction,
		      unsigned char *buf, size_t n_sectors, uint32_t sector_size,
		      uint64_t sector512)
{
	/* Two copies of all of it, each without the question in its inner loop. */
	if (direction == XTS_ENCRYPT)
		sectors(k, true, buf, n_sectors, sector_size, sector512);
	else
		sectors(k, false, buf, n_sectors, sector_size, sector512);
}
