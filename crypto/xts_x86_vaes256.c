// SPDX-License-Identifier: GPL-2.0-or-later
// Copyright (C) 2026 the rbdcrypt-nbd authors

/*
 * AES-XTS with VAES on 256-bit registers: two blocks to a vector, a turn of the
 * kernel is 256 bytes. For processors without AVX-512, and for those that pay for
 * its use. Called through crypto/xts_x86.c only, by any IO thread, on a processor
 * that has been asked for AVX2, VAES and VPCLMULQDQ.
 */

#include "xts_x86.h"

#if defined(__x86_64__)
#include <immintrin.h>

#define TARGET __attribute__((target("avx2,vaes,vpclmulqdq,aes")))
#define INLINE static inline __attribute__((always_inline)) TARGET
#define XTS_CRYPT xts_x86_crypt_vaes256

typedef __m256i vec;

#define vec_load(p) _mm256_loadu_si256((const __m256i *)(const void *)(p))
#define vec_store(p, v) _mm256_storeu_si256((__m256i *)(void *)(p), v)
#define vec_xor(a, b) _mm256_xor_si256(a, b)
#define vec_xor3(a, b, c) _mm256_xor_si256(a, _mm256_xor_si256(b, c))
#define vec_each(p) _mm256_broadcastsi128_si256(_mm_loadu_si128((const __m128i *)(const void *)(p)))
#define vec_enc(x, key) _mm256_aesenc_epi128(x, key)
#define vec_enc_last(x, key) _mm256_aesenclast_epi128(x, key)
#define vec_dec(x, key) _mm256_aesdec_epi128(x, key)
#define vec_dec_last(x, key) _mm256_aesdeclast_epi128(x, key)
#define vec_numbers(n, step) _mm256_set_epi64x(0, (long long)((n) + (step)), 0, (long long)(n))

#define POLY _mm256_set1_epi64x(0x87)

/*
 * t times x^(8 n), x^32 at most: a shift by bytes; what falls off the top of a block
 * comes back times x^7 + x^2 + x + 1.
 */
#define vec_shift(t, n)                                                                            \
	vec_xor(_mm256_bslli_epi128(t, n),                                                         \
		_mm256_clmulepi64_epi128(_mm256_srli_epi64(t, 64 - 8 * (n)), POLY, 0x01))

/* t times x^count, one count of 0..63 for each block. */
INLINE vec vec_multiply(vec t, vec count)
{
	const vec rest = _mm256_sub_epi64(_mm256_set1_epi64x(64), count);
	const vec fallen = _mm256_srlv_epi64(t, rest);

	return vec_xor3(_mm256_sllv_epi64(t, count), _mm256_bslli_epi128(fallen, 8),
			_mm256_clmulepi64_epi128(fallen, POLY, 0x01));
}

/* Lanes 0 to 3 from the sector's tweak, the others from the lane four before. */
#define COUNTS(i) _mm256_set_epi64x(2 * (i) + 1, 2 * (i) + 1, 2 * (i), 2 * (i))
#define tweak_first(lanes, first, i)                                                               \
	((i) < 4 ? vec_multiply(first, COUNTS(i)) : vec_shift((lanes)[(i) % 4], (i) / 4))
#define tweak_next(lanes, t, i) vec_shift((t)[i], 2)

INLINE void registers_wipe(void)
{
	_mm256_zeroall();
}

#include "xts_x86_kernel.h"
#endif
