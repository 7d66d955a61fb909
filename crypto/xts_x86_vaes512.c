// SPDX-License-Identifier: GPL-2.0-or-later
// Copyright (C) 2026 the rbdcrypt-nbd authors

/*
 * AES-XTS with VAES on 512-bit registers: four blocks to a vector, a turn of the
 * kernel is 512 bytes. Called through crypto/xts_x86.c only, by any IO thread, on a
 * processor that has been asked for AVX-512 F, VL and BW, VAES and VPCLMULQDQ.
 */

#include "xts_x86.h"

#if defined(__x86_64__)
#include <immintrin.h>

/* gcc 12 takes the "undefined" operands in its own header for mistakes. */
#if !defined(__clang__)
#pragma GCC diagnostic ignored "-Wmaybe-uninitialized"
#endif

#define TARGET __attribute__((target("avx512f,avx512vl,avx512bw,vaes,vpclmulqdq,aes")))
#define INLINE static inline __attribute__((always_inline)) TARGET
#define XTS_CRYPT xts_x86_crypt_vaes512

typedef __m512i vec;

#define vec_load(p) _mm512_loadu_si512(p)
#define vec_store(p, v) _mm512_storeu_si512(p, v)
#define vec_xor(a, b) _mm512_xor_si512(a, b)
#define vec_xor3(a, b, c) _mm512_ternarylogic_epi64(a, b, c, 0x96)
#define vec_each(p) _mm512_broadcast_i32x4(_mm_loadu_si128((const __m128i *)(const void *)(p)))
#define vec_enc(x, key) _mm512_aesenc_epi128(x, key)
#define vec_enc_last(x, key) _mm512_aesenclast_epi128(x, key)
#define vec_dec(x, key) _mm512_aesdec_epi128(x, key)
#define vec_dec_last(x, key) _mm512_aesdeclast_epi128(x, key)
#define vec_numbers(n, step)                                                                       \
	_mm512_set_epi64(0, (long long)((n) + 3 * (step)), 0, (long long)((n) + 2 * (step)), 0,    \
			 (long long)((n) + (step)), 0, (long long)(n))

#define POLY _mm512_set1_epi64(0x87)

/*
 * t times x^(8 n), x^32 at most: a shift by bytes; what falls off the top of a block
 * comes back times x^7 + x^2 + x + 1.
 */
#define vec_shift(t, n)                                                                            \
	vec_xor(_mm512_bslli_epi128(t, n),                                                         \
		_mm512_clmulepi64_epi128(_mm512_srli_epi64(t, 64 - 8 * (n)), POLY, 0x01))

/* T times x^count, one count of 0..63 for each block. */
INLINE vec vec_multiply(vec t, vec count)
{
	const vec rest = _mm512_sub_epi64(_mm512_set1_epi64(64), count);
	const vec fallen = _mm512_srlv_epi64(t, rest);

	return vec_xor3(_mm512_sllv_epi64(t, count), _mm512_bslli_epi128(fallen, 8),
			_mm512_clmulepi64_epi128(fallen, POLY, 0x01));
}

/* Lanes 0 and 1 from the sector's tweak, the others from the lane two before. */
#define COUNTS(i)                                                                                  \
	_mm512_set_epi64(4 * (i) + 3, 4 * (i) + 3, 4 * (i) + 2, 4 * (i) + 2, 4 * (i) + 1,          \
			 4 * (i) + 1, 4 * (i), 4 * (i))
#define tweak_first(lanes, first, i)                                                               \
	((i) < 2 ? vec_multiply(first, COUNTS(i)) : vec_shift((lanes)[(i) % 2], (i) / 2))
#define tweak_next(lanes, t, i) vec_shift((t)[i], 4)

#define CLEAR(n) __asm__ volatile("vpxorq %%zmm" #n ", %%zmm" #n ", %%zmm" #n ::: "xmm" #n)

INLINE void registers_wipe(void)
{
	/* The first half, all of their 512 bits; the other half knows no such instruction. */
	_mm256_zeroall();
	CLEAR(16);
	CLEAR(17);
	CLEAR(18);
	CLEAR(19);
	CLEAR(20);
	CLEAR(21);
	CLEAR(22);
	CLEAR(23);
	CLEAR(24);
	CLEAR(25);
	CLEAR(26);
	CLEAR(27);
	CLEAR(28);
	CLEAR(29);
	CLEAR(30);
	CLEAR(31);
}

#include "xts_x86_kernel.h"
#endif
