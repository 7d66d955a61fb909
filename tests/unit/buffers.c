/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Copyright (C) 2026 the rbdcrypt-nbd authors */

/* Memory for IO: bounded, reused, and handed out in the order of the line. */

#include <errno.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include <cmocka.h>

#include "../../daemon/buffers.h"
#include "no_pages.h"
#include "rig.h"

#define MIB (1u << 20)

struct waiter {
	struct buffers_waiter w;
	unsigned int woken;
};

static void count_wake(struct buffers_waiter *w)
{
	((struct waiter *)w)->woken++;
}

static struct waiter fresh(void)
{
	return (struct waiter){ .w.wake = count_wake };
}

static struct buffers *make(size_t limit)
{
	struct buffers *b;

	assert_int_equal(buffers_new(limit, &b), 0);
	return b;
}

static void a_buffer_is_in_memory_before_it_is_used(void **state)
{
	struct waiter w = fresh();
	struct buffers *b = make(BUFFERS_LARGEST);
	unsigned char in_core[MIB / 4096] = { 0 }, *m;
	size_t present = 0;

	/* As the daemon has it, where it may. */
	(void)mlockall(MCL_FUTURE | MCL_ONFAULT);
	m = buffers_get(b, MIB, &w.w);
	assert_non_null(m);
	assert_int_equal(mincore(m, MIB, in_core), 0);
	for (size_t i = 0; i < sizeof(in_core); i++)
		present += in_core[i] & 1;
	assert_int_equal(present, sizeof(in_core));
	buffers_put(b, m, MIB);
	(void)munlockall();
	buffers_free(b);
}

static bool is_mapped(void *page)
{
	unsigned char in_core;

	return mincore(page, 4096, &in_core) == 0;
}

static void what_an_idle_volume_keeps_goes_back_but_for_the_first_part(void **state)
{
	struct waiter w = fresh();
	struct buffers *b = make(BUFFERS_LARGEST);
	unsigned char *small[20], *large, *used;
	unsigned int kept = 0;

	for (size_t i = 0; i < 20; i++)
		assert_non_null(small[i] = buffers_get(b, 4096, &w.w));
	assert_non_null(large = buffers_get(b, MIB, &w.w));
	assert_non_null(used = buffers_get(b, MIB, &w.w));
	for (size_t i = 0; i < 20; i++)
		buffers_put(b, small[i], 4096);
	buffers_put(b, large, MIB);
	buffers_give_back(b);
	for (size_t i = 0; i < 20; i++)
		kept += is_mapped(small[i]);
	assert_int_equal(kept, 16);
	assert_false(is_mapped(large));
	/* In use, and the account is right: all of the limit can be had again. */
	used[0] = 1;
	buffers_put(b, used, MIB);
	buffers_give_back(b);
	assert_non_null(large = buffers_get(b, BUFFERS_LARGEST - MIB, &w.w));
	buffers_put(b, large, BUFFERS_LARGEST - MIB);
	buffers_free(b);
}

static void a_limit_below_the_largest_request_is_refused(void **state)
{
	struct buffers *b;

	assert_int_equal(buffers_new(BUFFERS_LARGEST - 1, &b), -EINVAL);
	assert_int_equal(buffers_new(0, &b), -EINVAL);
	assert_null(buffers_free(NULL));
}

static void any_length_up_to_the_largest_fits_and_is_aligned(void **state)
{
	static const size_t lengths[] = { 1,
					  4096,
					  4097,
					  65536,
					  MIB - 1,
					  MIB,
					  MIB + 1,
					  5 * MIB + 12345,
					  32 * MIB,
					  32 * MIB + 16384,
					  BUFFERS_LARGEST };
	struct buffers *b = make(BUFFERS_LARGEST);
	struct waiter w = fresh();

	for (unsigned int i = 0; i < sizeof(lengths) / sizeof(lengths[0]); i++) {
		unsigned char *m = buffers_get(b, lengths[i], &w.w);

		assert_non_null(m);
		assert_int_equal((uintptr_t)m % 4096, 0);
		memset(m, 0xff, lengths[i]);
		buffers_put(b, m, lengths[i]);
	}
	assert_int_equal(w.woken, 0);
	buffers_free(b);
}

static void the_limit_holds_and_what_comes_back_goes_on(void **state)
{
	struct buffers *b = make(40 * MIB);
	struct waiter w = fresh();
	void *m[41];
	unsigned int n = 0;

	while (n < 41 && (m[n] = buffers_get(b, MIB, &w.w)))
		n++;
	assert_int_equal(n, 40);
	assert_true(w.w.is_queued);
	/* In line already: asking again changes nothing. */
	assert_null(buffers_get(b, MIB, &w.w));
	buffers_put(b, m[0], MIB);
	assert_int_equal(w.woken, 1);
	m[0] = buffers_get(b, MIB, &w.w);
	assert_non_null(m[0]);
	assert_false(w.w.is_queued);
	while (n > 0)
		buffers_put(b, m[--n], MIB);
	buffers_free(b);
}

/* Kept small buffers make room for a large one. */
static void what_is_kept_is_given_back_for_another_size(void **state)
{
	struct buffers *b = make(BUFFERS_LARGEST);
	struct waiter w = fresh();
	void *m[64], *all;

	for (unsigned int round = 0; round < 3; round++) {
		for (unsigned int i = 0; i < 64; i++) {
			m[i] = buffers_get(b, (i + 1) * 8192, &w.w);
			assert_non_null(m[i]);
		}
		for (unsigned int i = 0; i < 64; i++)
			buffers_put(b, m[i], (i + 1) * 8192);
		all = buffers_get(b, BUFFERS_LARGEST, &w.w);
		assert_non_null(all);
		buffers_put(b, all, BUFFERS_LARGEST);
	}
	buffers_free(b);
}

static void first_come_first_served(void **state)
{
	struct buffers *b = make(BUFFERS_LARGEST);
	struct waiter w = fresh(), large = fresh(), small = fresh(), late = fresh();
	void *one = buffers_get(b, MIB, &w.w), *two = buffers_get(b, MIB, &w.w), *m;

	assert_null(buffers_get(b, 32 * MIB, &large.w));
	/* There is room for this one, but somebody was here before it. */
	assert_null(buffers_get(b, 4096, &small.w));
	assert_null(buffers_get(b, 4096, &late.w));
	buffers_put(b, one, MIB);
	assert_int_equal(large.woken, 1);
	assert_int_equal(small.woken, 0);
	m = buffers_get(b, 32 * MIB, &large.w);
	assert_non_null(m);
	/* The next in line is told, and finds nothing. */
	assert_int_equal(small.woken, 1);
	assert_null(buffers_get(b, 4096, &small.w));
	buffers_put(b, two, MIB);
	assert_int_equal(small.woken, 2);
	one = buffers_get(b, 4096, &small.w);
	assert_non_null(one);
	assert_int_equal(late.woken, 1);
	two = buffers_get(b, 4096, &late.w);
	assert_non_null(two);
	buffers_put(b, m, 32 * MIB);
	buffers_put(b, one, 4096);
	buffers_put(b, two, 4096);
	buffers_free(b);
}

static void who_leaves_the_line_lets_the_next_one_try(void **state)
{
	struct buffers *b = make(BUFFERS_LARGEST);
	struct waiter w = fresh(), a = fresh(), c = fresh(), d = fresh();
	void *m = buffers_get(b, MIB, &w.w), *n;

	buffers_leave(b, &w.w);
	assert_null(buffers_get(b, BUFFERS_LARGEST, &a.w));
	assert_null(buffers_get(b, 4096, &c.w));
	assert_null(buffers_get(b, 4096, &d.w));
	buffers_leave(b, &c.w);
	buffers_leave(b, &a.w);
	assert_true(d.woken > 0);
	n = buffers_get(b, 4096, &d.w);
	assert_non_null(n);
	/* The line is empty again, its end too. */
	assert_null(buffers_get(b, BUFFERS_LARGEST, &a.w));
	buffers_leave(b, &a.w);
	buffers_put(b, m, MIB);
	buffers_put(b, n, 4096);
	n = buffers_get(b, BUFFERS_LARGEST, &a.w);
	assert_non_null(n);
	buffers_put(b, n, BUFFERS_LARGEST);
	buffers_free(b);
}

/* ---- threads that wait for their turn ---- */

/* What is kept goes on going round, and who waits for more is asked again in his turn. */
static void an_empty_system_stops_only_who_needs_more(void **state)
{
	struct waiter large = fresh(), small = fresh(), next = fresh();
	struct buffers *b = make(BUFFERS_LARGEST);
	void *a, *c;

	atomic_store(&is_empty, true);
	assert_null(buffers_get(b, MIB, &large.w));
	assert_null(buffers_get(b, 4096, &small.w));
	assert_int_equal(large.woken, 0);
	assert_null(buffers_get(b, MIB, &large.w));
	assert_true(small.woken > 0);
	assert_non_null(a = buffers_get(b, 4096, &small.w));
	assert_null(buffers_get(b, 4096, &next.w));
	large.woken = 0;
	buffers_put(b, a, 4096);
	assert_int_equal(large.woken, 1);
	atomic_store(&is_empty, false);
	assert_non_null(a = buffers_get(b, MIB, &large.w));
	assert_true(next.woken > 0);
	assert_non_null(c = buffers_get(b, 4096, &next.w));
	buffers_put(b, a, MIB);
	buffers_put(b, c, 4096);
	/* Nothing is missing from the account. */
	assert_non_null(a = buffers_get(b, BUFFERS_LARGEST, &large.w));
	buffers_put(b, a, BUFFERS_LARGEST);
	buffers_free(b);
}

static void what_there_was_no_memory_for_leaves_nothing(void **state)
{
	struct buffers *b = NULL;

	atomic_store(&is_empty, true);
	assert_int_equal(buffers_new(BUFFERS_LARGEST, &b), -ENOMEM);
	assert_null(b);
	atomic_store(&is_empty, false);
}

struct sleeper {
	struct buffers_waiter w;
	struct buffers *b;
	pthread_mutex_t mutex;
	pthread_cond_t cond;
	bool is_woken;
	pthread_t thread;
	uint64_t random;
	atomic_size_t *in_use, *most;
};

static void wake_sleeper(struct buffers_waiter *w)
{
	struct sleeper *s = (struct sleeper *)w;

	(void)pthread_mutex_lock(&s->mutex);
	s->is_woken = true;
	(void)pthread_cond_signal(&s->cond);
	(void)pthread_mutex_unlock(&s->mutex);
}

static void *get_and_put(void *arg)
{
	struct sleeper *s = arg;

	for (unsigned int i = 0; i < 3000; i++) {
		bool is_large = rig_random(&s->random) % 50 == 0;
		size_t len = 1 + rig_random(&s->random) % (is_large ? 32 * MIB : 200000), used;
		unsigned char *m;

		while (!(m = buffers_get(s->b, len, &s->w))) {
			(void)pthread_mutex_lock(&s->mutex);
			/* For ever, if a wake-up is lost. */
			while (!s->is_woken)
				(void)pthread_cond_wait(&s->cond, &s->mutex);
			s->is_woken = false;
			(void)pthread_mutex_unlock(&s->mutex);
		}
		used = atomic_fetch_add(s->in_use, len) + len;
		if (used > atomic_load(s->most))
			atomic_store(s->most, used);
		m[0] = m[len - 1] = 1;
		(void)atomic_fetch_sub(s->in_use, len);
		buffers_put(s->b, m, len);
	}
	return NULL;
}

static void no_wake_up_is_lost(void **state)
{
	struct buffers *b = make(BUFFERS_LARGEST);
	struct sleeper s[6];
	atomic_size_t in_use = 0, most = 0;

	for (unsigned int i = 0; i < 6; i++) {
		s[i] = (struct sleeper){ .w.wake = wake_sleeper,
					 .b = b,
					 .mutex = PTHREAD_MUTEX_INITIALIZER,
					 .cond = PTHREAD_COND_INITIALIZER,
					 .random = i,
					 .in_use = &in_use,
					 .most = &most };
		assert_int_equal(pthread_create(&s[i].thread, NULL, get_and_put, &s[i]), 0);
	}
	for (unsigned int i = 0; i < 6; i++)
		(void)pthread_join(s[i].thread, NULL);
	assert_true(atomic_load(&most) <= BUFFERS_LARGEST);
	buffers_free(b);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_buffer_is_in_memory_before_it_is_used),
		cmocka_unit_test(what_an_idle_volume_keeps_goes_back_but_for_the_first_part),
		cmocka_unit_test(a_limit_below_the_largest_request_is_refused),
		cmocka_unit_test(any_length_up_to_the_largest_fits_and_is_aligned),
		cmocka_unit_test(the_limit_holds_and_what_comes_back_goes_on),
		cmocka_unit_test(what_is_kept_is_given_back_for_another_size),
		cmocka_unit_test(first_come_first_served),
		cmocka_unit_test(who_leaves_the_line_lets_the_next_one_try),
		cmocka_unit_test(an_empty_system_stops_only_who_needs_more),
		cmocka_unit_test(what_there_was_no_memory_for_leaves_nothing),
		cmocka_unit_test(no_wake_up_is_lost),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
