/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Copyright (C) 2026 the rbdcrypt-nbd authors */

/* Waiting for the cluster: answers that come at once, soon, late and never. */

#include "../../rbd/osd.h"

#include <errno.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <unistd.h>

#include "clock.h"
#include "fake_osd.h"

#include <cmocka.h>

static int setup(void **state)
{
	fake_reset();
	return 0;
}

/* Nothing is left open, whichever way it went; memory is the sanitizer's to judge. */
static int teardown(void **state)
{
	assert_null(osd.sent);
	assert_int_equal(osd.n_ops, 0);
	assert_int_equal(osd.n_completions, 0);
	assert_int_equal(osd.n_ioctx, 0);
	return 0;
}

static int say_busy(struct fake_call *call)
{
	return -EBUSY;
}

static int say_nothing(struct fake_call *call)
{
	return FAKE_HOLD;
}

static void an_answer_that_is_there_is_given(void **state)
{
	struct patience p = patience_for(0, NULL);
	bool is_late = true;

	osd.answer = say_busy;
	assert_int_equal(osd_write(NULL, "object", rados_create_write_op(), &p), -EBUSY);
	assert_int_equal(osd_read(NULL, "object", rados_create_read_op(), &p, NULL, &is_late),
			 -EBUSY);
	assert_false(is_late);
}

static void *answer_soon(void *arg)
{
	usleep(*(unsigned int *)arg);
	fake_answer(0, 7);
	return NULL;
}

static void an_answer_is_waited_for(void **state)
{
	static unsigned int delays_us[] = { 0, 1000, 300000 };

	for (unsigned int i = 0; i < 3; i++) {
		struct patience p = patience_for(i == 1 ? 0 : 60, NULL);
		rados_write_op_t op = rados_create_write_op();
		rados_completion_t completion;
		struct osd_call *call;
		bool is_late = true;
		char memory = 'x';
		pthread_t thread;

		assert_int_equal(osd_begin(&call, &completion), 0);
		assert_int_equal(rados_aio_write_op_operate(op, NULL, completion, "x", NULL,
							    LIBRADOS_OPERATION_FULL_TRY),
				 0);
		rados_release_write_op(op);
		assert_int_equal(pthread_create(&thread, NULL, answer_soon, &delays_us[i]), 0);
		/* Not malloc'ed, and not freed: it stays ours. */
		assert_int_equal(osd_wait(call, &p, &memory, &is_late), 7);
		assert_false(is_late);
		pthread_join(thread, NULL);
	}
}

/* The cluster writes to memory when it comes back. */
static void give_up(const struct patience *p)
{
	char *memory = malloc(64);
	bool is_late = false;

	osd.answer = say_nothing;
	assert_non_null(memory);
	assert_int_equal(osd_read(NULL, "object", rados_create_read_op(), p, memory, &is_late),
			 -ETIMEDOUT);
	assert_true(is_late);
	assert_int_equal(osd_write(NULL, "object", rados_create_write_op(), p), -ETIMEDOUT);
	assert_int_equal(osd.n_completions, 2);
	/* The read has a context of its own until its answer came: its giver's may be gone. */
	assert_int_equal(osd.n_ioctx, 1);
	memset(memory, 'x', 64);
	fake_answer(0, 0);
	fake_answer(0, 0);
	assert_int_equal(osd.n_completions, 0);
}

static void a_deadline_ends_the_waiting(void **state)
{
	struct patience p = { .deadline_ms = clock_ms() + 150 };

	give_up(&p);
	assert_true(clock_ms() >= p.deadline_ms);
	/* One that has passed is no reason to wait. */
	give_up(&p);
}

static void *end_patience(void *arg)
{
	usleep(100000);
	atomic_store((atomic_bool *)arg, true);
	return NULL;
}

static void others_can_end_the_waiting(void **state)
{
	atomic_bool is_over = false;
	struct patience p = patience_for(60, &is_over);
	int64_t start = clock_ms();
	pthread_t thread;

	assert_int_equal(pthread_create(&thread, NULL, end_patience, &is_over), 0);
	give_up(&p);
	pthread_join(thread, NULL);
	assert_true(clock_ms() - start >= 100);
	assert_true(clock_ms() - start < 30000);
}

/* Both let go of the call at about the same time; which of them frees it is chance. */
static void a_race_of_answer_and_patience_has_one_winner(void **state)
{
	unsigned int n_late = 0;

	osd.answer = say_nothing;
	for (unsigned int i = 0; i < 40; i++) {
		unsigned int delay_us = 4000 + 50 * i;
		struct patience p = { .deadline_ms = clock_ms() + 5 };
		rados_read_op_t op = rados_create_read_op();
		rados_completion_t completion;
		char *memory = malloc(16);
		struct osd_call *call;
		pthread_t thread;
		bool is_late;
		int r;

		assert_int_equal(osd_begin(&call, &completion), 0);
		assert_int_equal(rados_aio_read_op_operate(op, NULL, completion, "x", 0), 0);
		rados_release_read_op(op);
		assert_int_equal(pthread_create(&thread, NULL, answer_soon, &delay_us), 0);
		r = osd_wait(call, &p, memory, &is_late);
		assert_int_equal(r, is_late ? -ETIMEDOUT : 7);
		n_late += is_late;
		if (!is_late)
			free(memory);
		pthread_join(thread, NULL);
	}
	print_message("%u of 40 came late\n", n_late);
}

static void what_cannot_be_sent_is_an_error(void **state)
{
	struct patience p = patience_for(1, NULL);
	rados_completion_t completion;
	struct osd_call *call = NULL;
	bool is_late = true;

	osd.send_error = -EROFS;
	assert_int_equal(osd_write(NULL, "object", rados_create_write_op(), &p), -EROFS);
	assert_int_equal(osd_read(NULL, "object", rados_create_read_op(), &p, NULL, &is_late),
			 -EROFS);
	assert_false(is_late);
	osd.create_error = -ENOMEM;
	assert_int_equal(osd_write(NULL, "object", rados_create_write_op(), &p), -ENOMEM);
	is_late = true;
	assert_int_equal(osd_read(NULL, "object", rados_create_read_op(), &p, NULL, &is_late),
			 -ENOMEM);
	assert_false(is_late);
	assert_int_equal(osd_begin(&call, &completion), -ENOMEM);
	assert_null(call);
	osd.create_error = 0;
	assert_int_equal(osd_begin(&call, &completion), 0);
	osd_forget(call);
}

#define test(f) cmocka_unit_test_setup_teardown(f, setup, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		test(an_answer_that_is_there_is_given),
		test(an_answer_is_waited_for),
		test(a_deadline_ends_the_waiting),
		test(others_can_end_the_waiting),
		test(a_race_of_answer_and_patience_has_one_winner),
		test(what_cannot_be_sent_is_an_error),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
