// SPDX-License-Identifier: GPL-2.0-or-later
// Copyright (C) 2026 the rbdcrypt-nbd authors

/*
 * calibration: the size from which sharing is worth it is found by trying, with an encryption that
 * takes its time asleep, so that threads help as much as this test wants them to.
 */

#include <errno.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <sys/sysinfo.h>
#include <time.h>

#include <cmocka.h>

#include "../../daemon/pool.h"
#include "xts.h"

#define KIB ((size_t)1 << 10)

/* How the encryption of a test behaves. */
static struct {
	int64_t ns_per_kib;
	int64_t ns_alone; /* what a piece takes that is none of it: a worker's wake-up, say */
	int error;
	atomic_uint calls;
	pthread_mutex_t *one_at_a_time;
} fake;

static void sleep_ns(int64_t ns)
{
	struct timespec t = { .tv_nsec = ns };

	while (nanosleep(&t, &t) < 0)
		;
}

static int fake_encrypt(struct xts *x, void *buf, size_t len, uint64_t dev_off)
{
	(void)x;
	(void)buf;
	atomic_fetch_add(&fake.calls, 1);
	if (dev_off > 0)
		sleep_ns(fake.ns_alone);
	if (fake.one_at_a_time)
		(void)pthread_mutex_lock(fake.one_at_a_time);
	sleep_ns((int64_t)(len / KIB) * fake.ns_per_kib);
	if (fake.one_at_a_time)
		(void)pthread_mutex_unlock(fake.one_at_a_time);
	return fake.error;
}

#define xts_encrypt fake_encrypt
#include "../../daemon/calibration.c"
#undef xts_encrypt

/* Twice, as by two volumes. */
static size_t threshold(void)
{
	struct secret *key;
	struct calibration *c = NULL;
	struct pool *p;
	struct xts *x;
	unsigned int calls;
	size_t ret;

	assert_int_equal(secret_new(32, &key), 0);
	memset(secret_data(key), 1, 16);
	assert_int_equal(xts_new_take(XTS_OPENSSL, &key, 512, &x), 0);
	assert_int_equal(pool_new(2, &p), 0);
	assert_int_equal(calibration_new(p, &c), 0);
	ret = calibration_threshold(c, x);
	calls = atomic_load(&fake.calls);
	assert_int_equal(calibration_threshold(c, x), ret);
	assert_int_equal(atomic_load(&fake.calls), calls);
	(void)calibration_free(c);
	(void)pool_free(p);
	(void)xts_free(x);
	return ret;
}

/* 128 KiB take 20 ms, and half of that where two help. */
static void the_smallest_is_shared_where_that_pays(void **state)
{
	(void)state;
	fake.ns_per_kib = 156250;
	assert_int_equal(threshold(), get_nprocs() < 2 ? SIZE_MAX : 124 * KIB);
}

/* A worker comes 40 ms late: 128 KiB are over by then, and of 512 KiB (80 ms) 67 are left. */
static void late_workers_are_for_large_requests(void **state)
{
	size_t bytes;

	(void)state;
	fake.ns_per_kib = 156250;
	fake.ns_alone = 40000000;
	bytes = threshold();
	if (get_nprocs() < 2)
		assert_int_equal(bytes, SIZE_MAX);
	else
		assert_in_range(bytes, 252 * KIB, 1020 * KIB);
}

/* As on a processor that both share. */
static void nothing_is_shared_with_workers_that_are_no_help(void **state)
{
	pthread_mutex_t one = PTHREAD_MUTEX_INITIALIZER;

	(void)state;
	fake.ns_per_kib = 1000;
	fake.one_at_a_time = &one;
	assert_int_equal(threshold(), get_nprocs() < 2 ? SIZE_MAX : 16384 * KIB);
}

static void an_engine_that_fails_ends_the_trial(void **state)
{
	(void)state;
	fake.ns_per_kib = 156250;
	fake.error = -EIO;
	assert_int_equal(threshold(), get_nprocs() < 2 ? SIZE_MAX : 16384 * KIB);
}

static int reset(void **state)
{
	(void)state;
	fake.ns_per_kib = 0;
	fake.ns_alone = 0;
	fake.error = 0;
	fake.one_at_a_time = NULL;
	return 0;
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup(the_smallest_is_shared_where_that_pays, reset),
		cmocka_unit_test_setup(late_workers_are_for_large_requests, reset),
		cmocka_unit_test_setup(nothing_is_shared_with_workers_that_are_no_help, reset),
		cmocka_unit_test_setup(an_engine_that_fails_ends_the_trial, reset),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
