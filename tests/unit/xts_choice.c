// SPDX-License-Identifier: GPL-2.0-or-later
// Copyright (C) 2026 the rbdcrypt-nbd authors

/*
 * Claims about crypto/xts_choice.c, and about what crypto/xts_x86.c makes of a processor:
 * which engine a volume gets, and that a wrong one is never used.
 */

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <errno.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>

#include "../../crypto/xts_engine.h"
#include "../../crypto/xts_x86.h"
#include "xts.h"

#define COUNT(a) (sizeof(a) / sizeof((a)[0]))

/* The halves differ; that is all it must. */
static struct secret *some_key(void)
{
	struct secret *key;

	assert_int_equal(secret_new(64, &key), 0);
	for (unsigned int i = 0; i < 64; i++)
		secret_data(key)[i] = (unsigned char)(i * 7);
	return key;
}

static void names_choose_engines(void **state)
{
	static const char *const names[] = { "auto", "openssl", "aesni", "vaes256", "vaes512" };
	char all[64] = "";

	for (size_t i = 0; i < COUNT(names); i++) {
		const struct xts_engine *e = xts_engine_of((enum xts_choice)i);
		struct secret *key = some_key();
		struct xts *x = NULL;

		assert_int_equal(xts_new_take((enum xts_choice)i, &key, 512, &x), 0);
		assert_null(key);
		assert_true((xts_note(x) == NULL) == (e != NULL));
		assert_string_equal(xts_engine(x), e ? e->name : "openssl");
		if (e && i != XTS_AUTO)
			assert_string_equal(e->name, names[i]);
		xts_free(x);
		(void)snprintf(all + strlen(all), sizeof(all) - strlen(all), "%s%s", i ? "|" : "",
			       names[i]);
	}
	assert_string_equal(all, XTS_CHOICES);
}

/* Right in all that the known answers see, wrong from the eighth sector of a run on. */
static int late_fault(void *state, enum xts_direction direction, unsigned char *buf,
		      size_t n_sectors, uint32_t sector_size, uint64_t sector512)
{
	int r = xts_engine_openssl.crypt(state, direction, buf, n_sectors, sector_size, sector512);

	if (n_sectors > 7)
		buf[7 * sector_size + 100] ^= 1;
	return r;
}

/* The same, but only on the way back. */
static int late_fault_back(void *state, enum xts_direction direction, unsigned char *buf,
			   size_t n_sectors, uint32_t sector_size, uint64_t sector512)
{
	if (direction == XTS_DECRYPT)
		return late_fault(state, direction, buf, n_sectors, sector_size, sector512);
	return xts_engine_openssl.crypt(state, direction, buf, n_sectors, sector_size, sector512);
}

static int wrong_at_once(void *state, enum xts_direction direction, unsigned char *buf,
			 size_t n_sectors, uint32_t sector_size, uint64_t sector512)
{
	return 0;
}

static void engine_that_differs_is_replaced(void **state)
{
	int (*const faults[])(void *, enum xts_direction, unsigned char *, size_t, uint32_t,
			      uint64_t) = { late_fault, late_fault_back, wrong_at_once };

	for (size_t i = 0; i < COUNT(faults); i++) {
		struct xts_engine engine = xts_engine_openssl;
		struct secret *key = some_key(), *same;
		struct xts *x = NULL;

		assert_int_equal(secret_copy(key, &same), 0);
		engine.name = "faulty";
		engine.crypt = faults[i];
		assert_int_equal(xts_new_compared_take(&engine, &key, 2048, &x), 0);
		assert_null(key);
		assert_string_equal(xts_engine(x), "openssl");
		assert_non_null(strstr(xts_note(x), "differ"));
		assert_true(secret_equal(xts_key(x), same));
		secret_free(same);
		xts_free(x);
	}
}

static int open_without_memory(const struct secret *key, void **ret_state)
{
	return -ENOMEM;
}

/* Twice for the known answers; what comes then is the comparison. */
static unsigned int calls;

static int no_memory_later(void *state, enum xts_direction direction, unsigned char *buf,
			   size_t n_sectors, uint32_t sector_size, uint64_t sector512)
{
	if (++calls > 2)
		return -ENOMEM;
	return xts_engine_openssl.crypt(state, direction, buf, n_sectors, sector_size, sector512);
}

static void lack_of_memory_is_no_difference(void **state)
{
	struct xts_engine engine = xts_engine_openssl;
	struct secret *key = some_key();
	struct xts *x = NULL;

	engine.open = open_without_memory;
	assert_int_equal(xts_new_compared_take(&engine, &key, 512, &x), -ENOMEM);
	engine.open = xts_engine_openssl.open;
	engine.crypt = no_memory_later;
	calls = 0;
	assert_int_equal(xts_new_compared_take(&engine, &key, 512, &x), -ENOMEM);
	assert_int_equal(calls, 3);
	assert_null(x);
	assert_non_null(key);
	secret_free(key);
}

#if defined(__x86_64__)

/* ---- the processor ---- */

/* A processor and a system with everything. */
static struct xts_x86_cpu full_cpu(void)
{
	return (struct xts_x86_cpu){ .leaf1_ecx = 1u << 25 | 1u << 27 | 1u << 28,
				     .leaf7_ebx = 1u << 5 | 1u << 16 | 1u << 30 | 1u << 31,
				     .leaf7_ecx = 1u << 9 | 1u << 10,
				     .xcr0 = 0xe7 };
}

static void a_missing_bit_rules_out_who_needs_it(void **state)
{
	struct xts_x86_cpu cpu = full_cpu();

	assert_int_equal(xts_x86_cpu_best(&cpu), XTS_VAES512);
	assert_true(xts_x86_cpu_runs(&cpu, XTS_VAES256) && xts_x86_cpu_runs(&cpu, XTS_AESNI));
	assert_false(xts_x86_cpu_runs(&cpu, XTS_AUTO) || xts_x86_cpu_runs(&cpu, XTS_OPENSSL));

	static const unsigned int only_512[] = { 16, 30, 31 };
	for (size_t i = 0; i < COUNT(only_512); i++) {
		cpu = full_cpu();
		cpu.leaf7_ebx &= ~(1u << only_512[i]);
		assert_int_equal(xts_x86_cpu_best(&cpu), XTS_VAES256);
	}
	for (unsigned int bit = 5; bit <= 7; bit++) {
		cpu = full_cpu();
		cpu.xcr0 &= ~((uint64_t)1 << bit);
		assert_int_equal(xts_x86_cpu_best(&cpu), XTS_VAES256);
	}
	for (unsigned int bit = 9; bit <= 10; bit++) {
		cpu = full_cpu();
		cpu.leaf7_ecx &= ~(1u << bit);
		assert_int_equal(xts_x86_cpu_best(&cpu), XTS_AESNI);
	}
	for (unsigned int bit = 1; bit <= 2; bit++) {
		cpu = full_cpu();
		cpu.xcr0 &= ~((uint64_t)1 << bit);
		assert_int_equal(xts_x86_cpu_best(&cpu), XTS_AESNI);
	}
	cpu = full_cpu();
	cpu.leaf7_ebx &= ~(1u << 5);
	assert_int_equal(xts_x86_cpu_best(&cpu), XTS_AESNI);
	cpu = full_cpu();
	cpu.leaf1_ecx &= ~(1u << 28);
	assert_int_equal(xts_x86_cpu_best(&cpu), XTS_AESNI);
	cpu = full_cpu();
	cpu.leaf1_ecx &= ~(1u << 25);
	assert_int_equal(xts_x86_cpu_best(&cpu), XTS_OPENSSL);
}

static void slowed_models_get_256_bits_by_themselves(void **state)
{
	struct xts_x86_cpu cpu = full_cpu();

	cpu.is_intel = true;
	cpu.leaf1_eax = 0x606a6; /* Ice Lake, servers */
	assert_int_equal(xts_x86_cpu_best(&cpu), XTS_VAES256);
	assert_true(xts_x86_cpu_runs(&cpu, XTS_VAES512));
	cpu.leaf1_eax = 0x806f8; /* Sapphire Rapids */
	assert_int_equal(xts_x86_cpu_best(&cpu), XTS_VAES512);
	cpu.leaf1_eax = 0x606a6;
	cpu.is_intel = false;
	assert_int_equal(xts_x86_cpu_best(&cpu), XTS_VAES512);
	cpu.is_intel = true;
	cpu.leaf1_eax = 0x60fa6; /* another family */
	assert_int_equal(xts_x86_cpu_best(&cpu), XTS_VAES512);
}

/* The flags that Linux found, which are those of use to programs. */
static bool linux_has(const char *flag)
{
	FILE *f = fopen("/proc/cpuinfo", "re");
	char line[8192];
	bool found = false;

	assert_non_null(f);
	while (!found && fgets(line, sizeof(line), f)) {
		if (strncmp(line, "flags", 5) != 0)
			continue;
		for (char *word = strtok(line, " \t\n"); word; word = strtok(NULL, " \t\n"))
			found = found || strcmp(word, flag) == 0;
		break;
	}
	fclose(f);
	return found;
}

static void this_processor_is_read_as_linux_reads_it(void **state)
{
	struct xts_x86_cpu cpu;
	const bool vaes = linux_has("vaes") && linux_has("vpclmulqdq") && linux_has("avx2");

	xts_x86_cpu_read(&cpu);
	assert_int_equal(xts_x86_cpu_runs(&cpu, XTS_AESNI), linux_has("aes"));
	assert_int_equal(xts_x86_cpu_runs(&cpu, XTS_VAES256), vaes);
	assert_int_equal(xts_x86_cpu_runs(&cpu, XTS_VAES512), vaes && linux_has("avx512f") &&
								      linux_has("avx512bw") &&
								      linux_has("avx512vl"));
}

#endif

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(names_choose_engines),
		cmocka_unit_test(engine_that_differs_is_replaced),
		cmocka_unit_test(lack_of_memory_is_no_difference),
#if defined(__x86_64__)
		cmocka_unit_test(a_missing_bit_rules_out_who_needs_it),
		cmocka_unit_test(slowed_models_get_256_bits_by_themselves),
		cmocka_unit_test(this_processor_is_read_as_linux_reads_it),
#endif
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
