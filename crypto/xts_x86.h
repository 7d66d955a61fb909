/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Copyright (C) 2026 the rbdcrypt-nbd authors */

#ifndef RBDCRYPT_XTS_X86_H
#define RBDCRYPT_XTS_X86_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "xts.h"
#include "xts_engine.h"

/*
 * The engines on x86-64's own AES instructions, best one last. What they share
 * (processor, keys, the engine's three calls) is in xts_x86.c and xts_x86_key.c,
 * the arithmetic in xts_x86_kernel.h.
 */
#if defined(__x86_64__)

#define XTS_X86_KEYS_MAX 15

/*
 * Every round key of both keys: written once by xts_x86_expand(), then read by all
 * threads. Lives in a struct secret.
 */
struct xts_x86_keys {
	unsigned char encrypt[XTS_X86_KEYS_MAX][16];
	unsigned char decrypt[XTS_X86_KEYS_MAX][16]; /* for the equivalent inverse cipher */
	unsigned char tweak[XTS_X86_KEYS_MAX][16];
	uint64_t rounds; /* 10 or 14 */
} __attribute__((aligned(16)));

/* key: both halves, 32 or 64 bytes. Needs a processor with AES-NI. Constant time. */
void xts_x86_expand(struct xts_x86_keys *k, const unsigned char *key, size_t key_bytes);

/* struct xts_engine's crypt() with expanded keys; cannot fail. */
typedef void xts_x86_crypt(const struct xts_x86_keys *k, enum xts_direction direction,
			   unsigned char *buf, size_t n_sectors, uint32_t sector_size,
			   uint64_t sector512);
xts_x86_crypt xts_x86_crypt_aesni, xts_x86_crypt_vaes256, xts_x86_crypt_vaes512;

/* What CPUID and XGETBV say, as far as it matters here. */
struct xts_x86_cpu {
	bool is_intel;
	uint32_t leaf1_eax, leaf1_ecx, leaf7_ebx, leaf7_ecx;
	uint64_t xcr0; /* register sets that the operating system saves; 0: none beyond SSE */
};

/* Of the processor it runs on. */
void xts_x86_cpu_read(struct xts_x86_cpu *ret);

/* Whether the code of this choice runs there. false for AUTO and OPENSSL. */
bool xts_x86_cpu_runs(const struct xts_x86_cpu *cpu, enum xts_choice choice);

/* What AUTO is there: one that it runs, or OPENSSL. */
enum xts_choice xts_x86_cpu_best(const struct xts_x86_cpu *cpu);

#endif
#endif
