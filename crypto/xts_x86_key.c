// SPDX-License-Identifier: GPL-2.0-or-later
// Copyright (C) 2026 the rbdcrypt-nbd authors

/*
 * The AES key schedule (FIPS 197, 5.2), by AES-NI. Called by crypto/xts_x86.c when a
 * volume is opened; the volume's thread, once per layer.
 *
 * The usual way is a table of the S-box, whose use shows in the cache which entries
 * were taken. The processor's last round does the same without: on a block of four
 * equal columns its permutation changes nothing, and what remains is the S-box and
 * an XOR with a value of our choice, the round constant.
 */

#include "xts_x86.h"

#if defined(__x86_64__)
#include <immintrin.h>

#define TARGET __attribute__((target("aes")))

/* SubWord(w) ^ rcon in every column, w being the last column of v. */
TARGET static __m128i substitute(__m128i v, int rcon)
{
	return _mm_aesenclast_si128(_mm_shuffle_epi32(v, 0xff), _mm_set1_epi32(rcon));
}

/* SubWord(RotWord(w)) ^ rcon likewise. The S-box works on bytes: it may come first. */
TARGET static __m128i substitute_rotated(__m128i v, int rcon)
{
	const __m128i s = substitute(v, 0);

	return _mm_xor_si128(_mm_or_si128(_mm_srli_epi32(s, 8), _mm_slli_epi32(s, 24)),
			     _mm_set1_epi32(rcon));
}

/* Each column is the sum of its old self, all old ones before it, and s. */
TARGET static __m128i mix(__m128i old, __m128i s)
{
	old = _mm_xor_si128(old, _mm_slli_si128(old, 4));
	old = _mm_xor_si128(old, _mm_slli_si128(old, 8));
	return _mm_xor_si128(old, s);
}

TARGET static void store(unsigned char *p, __m128i v)
{
	_mm_storeu_si128((__m128i *)(void *)p, v);
}

TARGET static __m128i load(const unsigned char *p)
{
	return _mm_loadu_si128((const __m128i *)(const void *)p);
}

TARGET static void expand_128(unsigned char (*ret)[16], const unsigned char *key)
{
	__m128i v = load(key);
	int rcon = 1;

	store(ret[0], v);
	for (unsigned int i = 1; i <= 10; i++) {
		v = mix(v, substitute_rotated(v, rcon));
		store(ret[i], v);
		rcon = i == 8 ? 0x1b : rcon << 1;
	}
}

TARGET static void expand_256(unsigned char (*ret)[16], const unsigned char *key)
{
	__m128i a = load(key), b = load(key + 16);
	int rcon = 1;

	store(ret[0], a);
	store(ret[1], b);
	for (unsigned int i = 2; i <= 14; i++) {
		/* By turns: what was b is a next. */
		const __m128i s = i % 2 ? substitute(b, 0) : substitute_rotated(b, rcon);
		const __m128i next = mix(a, s);

		store(ret[i], next);
		a = b;
		b = next;
		if (i % 2 == 0)
			rcon <<= 1;
	}
}

TARGET static void wipe_registers(void)
{
	/* The compiler chooses which ones hold keys. */
	__asm__ volatile("pxor %%xmm0, %%xmm0; pxor %%xmm1, %%xmm1; pxor %%xmm2, %%xmm2;"
			 "pxor %%xmm3, %%xmm3; pxor %%xmm4, %%xmm4; pxor %%xmm5, %%xmm5;"
			 "pxor %%xmm6, %%xmm6; pxor %%xmm7, %%xmm7" ::
				 : "xmm0", "xmm1", "xmm2", "xmm3", "xmm4", "xmm5", "xmm6", "xmm7");
	__asm__ volatile("pxor %%xmm8, %%xmm8; pxor %%xmm9, %%xmm9; pxor %%xmm10, %%xmm10;"
			 "pxor %%xmm11, %%xmm11; pxor %%xmm12, %%xmm12; pxor %%xmm13, %%xmm13;"
			 "pxor %%xmm14, %%xmm14; pxor %%xmm15, %%xmm15" ::
				 : "xmm8", "xmm9", "xmm10", "xmm11", "xmm12", "xmm13", "xmm14",
				   "xmm15");
}

TARGET void xts_x86_expand(struct xts_x86_keys *k, const unsigned char *key, size_t key_bytes)
{
	const size_t half = key_bytes / 2;

	if (half == 16) {
		k->rounds = 10;
		expand_128(k->encrypt, key);
		expand_128(k->tweak, key + half);
	} else {
		k->rounds = 14;
		expand_256(k->encrypt, key);
		expand_256(k->tweak, key + half);
	}
	/* The inverse cipher takes them from the end, the inner ones transformed. */
	for (uint64_t i = 0; i <= k->rounds; i++) {
		const __m128i v = load(k->encrypt[k->rounds - i]);
		const bool is_outer = i == 0 || i == k->rounds;

		store(k->decrypt[i], is_outer ? v : _mm_aesimc_si128(v));
	}
	wipe_registers();
}
#endif
