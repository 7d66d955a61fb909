/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Copyright (C) 2026 the rbdcrypt-nbd authors */

/*
 * A layered chain that another client has locked: what waits for it, when the volume is to stop,
 * and when the image is another one afterwards.
 */

#include "../../rbd/rados.h"

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <time.h>
#include <unistd.h>

#include <cmocka.h>

static struct rados_store *rs;

struct write {
	struct store_io io;
	atomic_uint n_done;
};

static void write_done(struct store_io *io)
{
	((struct write *)io)->n_done++;
}

/* Open, with nobody allowed to write yet. */
static int setup(void **state)
{
	struct rados_writer *w = calloc(1, sizeof(*w));
	pthread_condattr_t attr;

	(void)state;
	rs = calloc(1, sizeof(*rs) + sizeof(rs->layers[0]));
	if (!rs || !w)
		return -1;
	rs->n = 1;
	rs->writer = w;
	atomic_init(&rs->raw_size, 1 << 20);
	gate_init(&w->gate);
	(void)pthread_mutex_init(&w->lock, NULL);
	(void)pthread_condattr_init(&attr);
	(void)pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
	(void)pthread_cond_init(&w->ending.over, &attr);
	(void)pthread_condattr_destroy(&attr);
	return 0;
}

static int teardown(void **state)
{
	(void)state;
	rados_writer_close(rs);
	free(rs);
	return 0;
}

static int begin(struct write *w)
{
	static const char bytes[512];

	*w = (struct write){ .io.done = write_done };
	return rados_store_write(&rs->base, &w->io, 0, bytes, sizeof(bytes));
}

static void a_write_waits_for_the_lock_no_longer_than_the_grace(void **state)
{
	struct write first, second;

	(void)state;
	assert_int_equal(begin(&first), 0);
	rados_store_ending(&rs->base, 200);
	rados_store_ending(&rs->base, 200000);
	assert_int_equal(begin(&second), 0);
	usleep(20000);
	assert_int_equal(first.n_done + second.n_done, 0);
	for (unsigned int i = 0; i < 1000 && first.n_done + second.n_done < 2; i++)
		usleep(10000);
	assert_int_equal(first.n_done, 1);
	assert_int_equal(second.n_done, 1);
	assert_int_equal(first.io.result, -ESHUTDOWN);
	assert_int_equal(second.io.result, -ESHUTDOWN);
	assert_int_equal(begin(&first), 0);
	assert_int_equal(first.n_done, 1);
	assert_int_equal(first.io.result, -ESHUTDOWN);
}

static void closing_does_not_wait_for_the_grace(void **state)
{
	time_t start = time(NULL);

	rados_store_ending(&rs->base, 600000);
	assert_int_equal(teardown(state), 0);
	assert_true(time(NULL) - start < 60);
	assert_int_equal(setup(state), 0);
}

/* What was a tail when it was asked for is the middle of an object when it is let in. */
static void zeros_up_to_the_end_of_an_image_that_grew_are_refused(void **state)
{
	struct write zero = { .io.done = write_done }, trim = { .io.done = write_done };

	(void)state;
	rs->base.is_encrypted = true;
	rs->layers[0].layout = (struct layout){ .object_size = 1 << 16,
						.stripe_unit = 1 << 16,
						.stripe_count = 1 };
	atomic_store(&rs->raw_size, (1 << 20) - 4096);
	assert_int_equal(rados_store_zero(&rs->base, &zero.io, (1 << 20) - 8192, 4096, 0), 0);
	assert_int_equal(rados_store_discard(&rs->base, &trim.io, (1 << 20) - 8192, 4096), 0);
	atomic_store(&rs->raw_size, 2 << 20);
	rs->writer->plan.raw_size = 2 << 20;
	gate_open_since(&rs->writer->gate, gate_closings(&rs->writer->gate));
	assert_int_equal(zero.n_done, 1);
	assert_int_equal(zero.io.result, -EIO);
	assert_int_equal(trim.n_done, 1);
	assert_int_equal(trim.io.result, 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(a_write_waits_for_the_lock_no_longer_than_the_grace,
						setup, teardown),
		cmocka_unit_test_setup_teardown(
			zeros_up_to_the_end_of_an_image_that_grew_are_refused, setup, teardown),
		cmocka_unit_test_setup_teardown(closing_does_not_wait_for_the_grace, setup,
						teardown),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
