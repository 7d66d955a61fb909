/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Copyright (C) 2026 the rbdcrypt-nbd authors */

/* The order among requests that touch the same sectors. */

#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdlib.h>

#include <cmocka.h>

#include "../../daemon/range.h"
#include "rig.h"

static struct range reads(uint64_t start, uint64_t end)
{
	return (struct range){ .start = start, .end = end };
}

static struct range writes(uint64_t start, uint64_t end)
{
	return (struct range){ .start = start, .end = end, .is_write = true };
}

static void readers_share_and_a_writer_is_alone(void **state)
{
	struct range_lock l;
	struct range a = reads(0, 100), b = reads(50, 150), w = writes(99, 101);

	range_lock_init(&l);
	assert_true(range_acquire(&l, &a));
	assert_true(range_acquire(&l, &b));
	assert_false(range_acquire(&l, &w));
	assert_null(range_release(&l, &a));
	assert_ptr_equal(range_release(&l, &b), &w);
	assert_null(w.ready);
	assert_null(range_release(&l, &w));
	assert_null(l.first);
	range_lock_done(&l);
}

static void neighbours_do_not_wait(void **state)
{
	struct range_lock l;
	struct range a = writes(0, 512), b = writes(512, 1024), c = writes(1024, 2048);

	range_lock_init(&l);
	assert_true(range_acquire(&l, &b));
	assert_true(range_acquire(&l, &a));
	assert_true(range_acquire(&l, &c));
	assert_null(range_release(&l, &b));
	assert_null(range_release(&l, &a));
	assert_null(range_release(&l, &c));
	range_lock_done(&l);
}

static void who_came_first_goes_first(void **state)
{
	struct range_lock l;
	struct range a = writes(0, 10), r1 = reads(0, 10), w = writes(5, 20), r2 = reads(0, 10),
		     far = reads(15, 20);

	range_lock_init(&l);
	assert_true(range_acquire(&l, &a));
	assert_false(range_acquire(&l, &r1));
	assert_false(range_acquire(&l, &w));
	/* Behind a writer that only waits: or readers could keep it waiting for ever. */
	assert_false(range_acquire(&l, &r2));
	assert_false(range_acquire(&l, &far));
	assert_ptr_equal(range_release(&l, &a), &r1);
	assert_null(r1.ready);
	assert_ptr_equal(range_release(&l, &r1), &w);
	assert_null(w.ready);
	assert_ptr_equal(range_release(&l, &w), &r2);
	assert_ptr_equal(r2.ready, &far);
	assert_null(far.ready);
	assert_null(range_release(&l, &far));
	assert_null(range_release(&l, &r2));
	assert_int_equal(l.waiting, 0);
	range_lock_done(&l);
}

static void one_waits_for_several(void **state)
{
	struct range_lock l;
	struct range a = writes(0, 10), b = writes(10, 20), c = writes(20, 30), w = writes(0, 30);

	range_lock_init(&l);
	assert_true(range_acquire(&l, &a));
	assert_true(range_acquire(&l, &b));
	assert_true(range_acquire(&l, &c));
	assert_false(range_acquire(&l, &w));
	assert_null(range_release(&l, &b));
	assert_null(range_release(&l, &a));
	assert_ptr_equal(range_release(&l, &c), &w);
	assert_null(range_release(&l, &w));
	range_lock_done(&l);
}

/* ---- many threads: what a thread is handed, it carries on, as requests do ---- */

#define THREADS 4
#define CELLS 32
#define TURNS 4000

struct arena {
	struct range_lock lock;
	atomic_int readers[CELLS], writers[CELLS];
	atomic_uint done;
	atomic_uint wrong;
};

static void carry_out(struct arena *a, struct range *r)
{
	struct range *ready;

	for (uint64_t i = r->start; i < r->end; i++) {
		if (r->is_write) {
			if (atomic_fetch_add(&a->writers[i], 1) || atomic_load(&a->readers[i]))
				atomic_fetch_add(&a->wrong, 1);
		} else {
			atomic_fetch_add(&a->readers[i], 1);
			if (atomic_load(&a->writers[i]))
				atomic_fetch_add(&a->wrong, 1);
		}
	}
	for (uint64_t i = r->start; i < r->end; i++)
		atomic_fetch_sub(r->is_write ? &a->writers[i] : &a->readers[i], 1);
	ready = range_release(&a->lock, r);
	free(r);
	atomic_fetch_add(&a->done, 1);
	while (ready) {
		struct range *next = ready->ready;

		carry_out(a, ready);
		ready = next;
	}
}

static void *fight(void *arg)
{
	struct arena *a = arg;
	uint64_t random = (uint64_t)(uintptr_t)&random;

	for (unsigned int i = 0; i < TURNS; i++) {
		struct range *r = calloc(1, sizeof(*r));

		r->start = rig_random(&random) % CELLS;
		r->end = r->start + 1 + rig_random(&random) % (CELLS - r->start);
		r->is_write = rig_random(&random) % 3 == 0;
		if (range_acquire(&a->lock, r))
			carry_out(a, r);
	}
	return NULL;
}

static void nobody_is_lost_and_nobody_intrudes(void **state)
{
	struct arena *a = calloc(1, sizeof(*a));
	pthread_t t[THREADS];

	assert_non_null(a);
	range_lock_init(&a->lock);
	for (unsigned int i = 0; i < THREADS; i++)
		assert_int_equal(pthread_create(&t[i], NULL, fight, a), 0);
	for (unsigned int i = 0; i < THREADS; i++)
		(void)pthread_join(t[i], NULL);
	assert_int_equal(atomic_load(&a->done), THREADS * TURNS);
	assert_int_equal(atomic_load(&a->wrong), 0);
	assert_null(a->lock.first);
	assert_null(a->lock.last);
	assert_int_equal(a->lock.waiting, 0);
	range_lock_done(&a->lock);
	free(a);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(readers_share_and_a_writer_is_alone),
		cmocka_unit_test(neighbours_do_not_wait),
		cmocka_unit_test(who_came_first_goes_first),
		cmocka_unit_test(one_waits_for_several),
		cmocka_unit_test(nobody_is_lost_and_nobody_intrudes),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
