/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Copyright (C) 2026 the rbdcrypt-nbd authors */

#include "../../include/limit.h"

#include <errno.h>
#include <pthread.h>
#include <semaphore.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

struct subject {
	sem_t may_return, was_late;
	pthread_t thread;
	bool blocks_signals;
	int result;
};

static int call(void *arg)
{
	struct subject *s = arg;
	sigset_t set;

	s->thread = pthread_self();
	(void)pthread_sigmask(SIG_SETMASK, NULL, &set);
	s->blocks_signals = sigismember(&set, SIGTERM);
	while (sem_wait(&s->may_return) < 0)
		;
	return s->result;
}

static void late(void *arg)
{
	struct subject *s = arg;

	sem_post(&s->was_late);
}

static void init(struct subject *s, unsigned int may_return, int result)
{
	*s = (struct subject){ .result = result };
	sem_init(&s->may_return, 0, may_return);
	sem_init(&s->was_late, 0, 0);
}

static void results_come_through(void **state)
{
	struct subject s;
	bool is_late = true;

	(void)state;
	init(&s, 1, 7);
	assert_int_equal(limit_call(60, call, late, &s, &is_late), 7);
	assert_false(is_late);
	assert_true(s.blocks_signals);
	init(&s, 1, -ETIMEDOUT);
	assert_int_equal(limit_call(60, call, late, &s, &is_late), -ETIMEDOUT);
	assert_false(is_late);
	assert_int_equal(sem_trywait(&s.was_late), -1);
}

static void without_a_limit_it_runs_here(void **state)
{
	struct subject s;
	bool is_late = true;

	(void)state;
	init(&s, 1, -EIO);
	assert_int_equal(limit_call(0, call, late, &s, &is_late), -EIO);
	assert_false(is_late);
	assert_true(pthread_equal(s.thread, pthread_self()));
}

static void a_late_call_is_undone_when_it_returns(void **state)
{
	static struct subject s; /* outlives the call */
	bool is_late = false;

	(void)state;
	init(&s, 0, 0);
	assert_int_equal(limit_call(1, call, late, &s, &is_late), -ETIMEDOUT);
	assert_true(is_late);
	assert_int_equal(sem_trywait(&s.was_late), -1);
	sem_post(&s.may_return);
	while (sem_wait(&s.was_late) < 0)
		;
}

static bool is_raised(void *arg)
{
	unsigned int *looks = arg;

	return ++*looks > 3;
}

/* With a time limit and without. */
static void a_call_is_left_when_somebody_interrupts(void **state)
{
	static struct subject s;
	unsigned int looks;
	const struct interrupt i = { is_raised, &looks };
	bool is_late;

	(void)state;
	for (unsigned int timeout_s = 0; timeout_s <= 60; timeout_s += 60) {
		init(&s, 0, 0);
		looks = 0;
		is_late = false;
		assert_int_equal(limit_call_unless(&i, timeout_s, call, late, &s, &is_late),
				 -EINTR);
		assert_true(is_late);
		assert_int_equal(looks, 4);
		assert_int_equal(sem_trywait(&s.was_late), -1);
		sem_post(&s.may_return);
		while (sem_wait(&s.was_late) < 0)
			;
	}
}

static bool is_never_raised(void *arg)
{
	return false;
}

static void who_is_not_interrupted_gets_the_result(void **state)
{
	const struct interrupt i = { is_never_raised, NULL };
	static struct subject s;
	bool is_late = true;

	(void)state;
	init(&s, 1, -EINTR);
	assert_int_equal(limit_call_unless(&i, 0, call, late, &s, &is_late), -EINTR);
	assert_false(is_late);
	init(&s, 0, 0);
	assert_int_equal(limit_call_unless(&i, 1, call, late, &s, &is_late), -ETIMEDOUT);
	assert_true(is_late);
	sem_post(&s.may_return);
	while (sem_wait(&s.was_late) < 0)
		;
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(results_come_through),
		cmocka_unit_test(without_a_limit_it_runs_here),
		cmocka_unit_test(a_late_call_is_undone_when_it_returns),
		cmocka_unit_test(a_call_is_left_when_somebody_interrupts),
		cmocka_unit_test(who_is_not_interrupted_gets_the_result),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
