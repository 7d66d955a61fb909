// SPDX-License-Identifier: GPL-2.0-or-later
// Copyright (C) 2026 the rbdcrypt-nbd authors

/*
 * AES-XTS with AES-NI on 128-bit registers: one block to a vector, a turn of the
 * kernel is 128 bytes. Called through crypto/xts_x86.c only, by any IO thread, on a
 * processor that has been asked for AES.
 */

#include "xts_x86.h"

#if defined(__x86_64__)
#include <immintrin.h>

#define TARGET __attribute__((target("aes")))
#define INLINE static inline __attribute__((always_inline)) TARGET
#define XTS_CRYPT xts_x86_crypt_aesni

typedef __m128i vec;

#define vec_load(p) _mm_loadu_si128((const __m128i *)(const void *)(p))
#define vec_store(p, v) _mm_storeu_si128((__m128i *)(void *)(p), v)
#define vec_xor(a, b) _mm_xor_si128(a, b)
#define vec_xor3(a, b, c) _mm_xor_si128(a, _mm_xor_si128(b, c))
#define vec_each(p) vec_load(p)
#define vec_enc(x, key) _mm_aesenc_si128(x, key)
#define vec_enc_last(x, key) _mm_aesenclast_si128(x, key)
#define vec_dec(x, key) _mm_aesdec_si128(x, key)
#define vec_dec_last(x, key) _mm_aesdeclast_si128(x, key)
#define vec_numbers(n, step) _mm_set_epi64x(0, (long long)(n))

/*
 * t times x. What leaves the lower half enters the upper one, and what leaves that
 * comes back as x^7 + x^2 + x + 1: the top bits of both halves are spread to masks,
 * each in the place where it is needed.
 */
INLINE vec vec_double(vec t)
{
	const vec tops = _mm_srai_epi32(_mm_shuffle_epi32(t, _MM_SHUFFLE(0, 1, 0, 3)), 31);

	return _mm_xor_si128(_mm_add_epi64(t, t),
			     _mm_and_si128(tops, _mm_set_epi32(0, 1, 0, 0x87)));
}

#define tweak_first(lanes, first, i) ((i) == 0 ? (first) : vec_double((lanes)[((i) + 7) % 8]))
#define tweak_next(lanes, t, i) vec_double((i) == 0 ? (t)[7] : (lanes)[((i) + 7) % 8])

#define CLEAR(n) __asm__ volatile("pxor %%xmm" #n ", %%xmm" #n ::: "xmm" #n)

INLINE void registers_wipe(void)
{
	CLEAR(0);
	CLEAR(1);
	CLEAR(2);
	CLEAR(3);
	CLEAR(4);
	CLEAR(5);
	CLEAR(6);
	CLEAR(7);
	CLEAR(8);
	CLEAR(9);
	CLEAR(10);
	CLEAR(11);
	CLEAR(12);
	CLEAR(13);
	CLEAR(14);
	CLEAR(15);
}

#include "xts_x86_kernel.h"
#endif
