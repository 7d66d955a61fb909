// SPDX-License-Identifier: GPL-2.0-or-later
// Copyright (C) 2026 the rbdcrypt-nbd authors

/*
 * Our own XTS engines for x86-64: which of them the processor runs, and what they
 * share as engines. It hides CPUID. The arithmetic is in xts_x86_kernel.h.
 *
 * An engine's state is the secret that holds its round keys, and nothing else: it is
 * written once, then read by any number of threads, and needs no context per thread.
 *
 * On other processors all of this is absent, and OpenSSL is the only engine.
 */

#include "xts_x86.h"

#if defined(__x86_64__)

#include <cpuid.h>

/* Bits of CPUID. */
#define LEAF1_ECX_AES (1u << 25)
#define LEAF1_ECX_OSXSAVE (1u << 27)
#define LEAF1_ECX_AVX (1u << 28)
#define LEAF7_EBX_AVX2 (1u << 5)
#define LEAF7_EBX_AVX512F (1u << 16)
#define LEAF7_EBX_AVX512BW (1u << 30)
#define LEAF7_EBX_AVX512VL (1u << 31)
#define LEAF7_ECX_VAES (1u << 9)
#define LEAF7_ECX_VPCLMULQDQ (1u << 10)

/* XCR0: the halves of the 256-bit registers; then masks, and the other quarters of 512. */
#define XCR0_AVX 0x06u
#define XCR0_AVX512 0xe6u

static uint64_t xcr0_read(void)
{
	uint32_t low, high;

	/* As _xgetbv(0), which one would have to ask the compiler's leave for. */
	__asm__("xgetbv" : "=a"(low), "=d"(high) : "c"(0));
	return (uint64_t)high << 32 | low;
}

void xts_x86_cpu_read(struct xts_x86_cpu *ret)
{
	struct xts_x86_cpu cpu = { 0 };
	unsigned int eax = 0, ebx = 0, ecx = 0, edx = 0;

	if (__get_cpuid(0, &eax, &ebx, &ecx, &edx))
		cpu.is_intel = ebx == signature_INTEL_ebx && ecx == signature_INTEL_ecx &&
			       edx == signature_INTEL_edx;
	if (__get_cpuid(1, &eax, &ebx, &ecx, &edx)) {
		cpu.leaf1_eax = eax;
		cpu.leaf1_ecx = ecx;
	}
	if (__get_cpuid_count(7, 0, &eax, &ebx, &ecx, &edx)) {
		cpu.leaf7_ebx = ebx;
		cpu.leaf7_ecx = ecx;
	}
	if (cpu.leaf1_ecx & LEAF1_ECX_OSXSAVE)
		cpu.xcr0 = xcr0_read();
	*ret = cpu;
}

static bool has_all(uint64_t have, uint64_t wanted)
{
	return (have & wanted) == wanted;
}

bool xts_x86_cpu_runs(const struct xts_x86_cpu *cpu, enum xts_choice choice)
{
	const uint32_t vaes = LEAF7_ECX_VAES | LEAF7_ECX_VPCLMULQDQ;
	const uint32_t avx512 = LEAF7_EBX_AVX512F | LEAF7_EBX_AVX512BW | LEAF7_EBX_AVX512VL;

	switch (choice) {
	case XTS_AESNI:
		return has_all(cpu->leaf1_ecx, LEAF1_ECX_AES);
	case XTS_VAES256:
		return has_all(cpu->leaf1_ecx, LEAF1_ECX_AES | LEAF1_ECX_AVX) &&
		       has_all(cpu->leaf7_ebx, LEAF7_EBX_AVX2) && has_all(cpu->leaf7_ecx, vaes) &&
		       has_all(cpu->xcr0, XCR0_AVX);
	case XTS_VAES512:
		return xts_x86_cpu_runs(cpu, XTS_VAES256) && has_all(cpu->leaf7_ebx, avx512) &&
		       has_all(cpu->xcr0, XCR0_AVX512);
	case XTS_AUTO:
	case XTS_OPENSSL:
		break;
	}
	return false;
}

/*
 * Intel's Ice Lake and Tiger Lake clock the whole core down for a while after 512-bit
 * arithmetic, which everything else on it pays for; Linux keeps its own AES from
 * 512 bits on the same models.
 */
static bool is_slowed_by_512(const struct xts_x86_cpu *cpu)
{
	const uint32_t family = cpu->leaf1_eax >> 8 & 0xf;
	const uint32_t model = (cpu->leaf1_eax >> 4 & 0xf) | (cpu->leaf1_eax >> 12 & 0xf0);

	if (!cpu->is_intel || family != 6)
		return false;
	switch (model) {
	case 0x6a: /* Ice Lake, servers */
	case 0x6c:
	case 0x7d: /* Ice Lake */
	case 0x7e:
	case 0x9d:
	case 0x8c: /* Tiger Lake */
	case 0x8d:
		return true;
	default:
		return false;
	}
}

enum xts_choice xts_x86_cpu_best(const struct xts_x86_cpu *cpu)
{
	if (xts_x86_cpu_runs(cpu, XTS_VAES512) && !is_slowed_by_512(cpu))
		return XTS_VAES512;
	if (xts_x86_cpu_runs(cpu, XTS_VAES256))
		return XTS_VAES256;
	return xts_x86_cpu_runs(cpu, XTS_AESNI) ? XTS_AESNI : XTS_OPENSSL;
}

/* ---- engines ---- */

static int x86_open(const struct secret *key, void **ret_state)
{
	struct secret *keys;
	int r;

	r = secret_new(sizeof(struct xts_x86_keys), &keys);
	if (r < 0)
		return r;
	xts_x86_expand((struct xts_x86_keys *)(void *)secret_data(keys), secret_bytes(key),
		       secret_len(key));
	*ret_state = keys;
	return 0;
}

static void x86_close(void *state)
{
	secret_free(state);
}

static const struct xts_x86_keys *keys_of(const void *state)
{
	/* A secret lies on 16 bytes. */
	return (const struct xts_x86_keys *)(const void *)secret_bytes(state);
}

#define X86_ENGINE(variant)                                                                        \
	static int crypt_##variant(void *state, enum xts_direction direction, unsigned char *buf,  \
				   size_t n_sectors, uint32_t sector_size, uint64_t sector512)     \
	{                                                                                          \
		xts_x86_crypt_##variant(keys_of(state), direction, buf, n_sectors, sector_size,    \
					sector512);                                                \
		return 0;                                                                          \
	}                                                                                          \
	static const struct xts_engine engine_##variant = {                                        \
		.name = #variant,                                                                  \
		.open = x86_open,                                                                  \
		.close = x86_close,                                                                \
		.crypt = crypt_##variant,                                                          \
	}

X86_ENGINE(aesni);
X86_ENGINE(vaes256);
X86_ENGINE(vaes512);

const struct xts_engine *xts_engine_of(enum xts_choice choice)
{
	struct xts_x86_cpu cpu;

	xts_x86_cpu_read(&cpu);
	if (choice == XTS_AUTO)
		choice = xts_x86_cpu_best(&cpu);
	if (choice != XTS_OPENSSL && !xts_x86_cpu_runs(&cpu, choice))
		return NULL;
	switch (choice) {
	case XTS_AESNI:
		return &engine_aesni;
	case XTS_VAES256:
		return &engine_vaes256;
	case XTS_VAES512:
		return &engine_vaes512;
	case XTS_AUTO:
	case XTS_OPENSSL:
		break;
	}
	return &xts_engine_openssl;
}

#else

const struct xts_engine *xts_engine_of(enum xts_choice choice)
{
	return choice == XTS_AUTO || choice == XTS_OPENSSL ? &xts_engine_openssl : NULL;
}

#endif
