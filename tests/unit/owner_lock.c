/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Copyright (C) 2026 the rbdcrypt-nbd authors */

/* An owner's operations on lock and watch, where an answer does not come in time, or no call can.
 */

#include "../../rbd/owner_private.h"

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>

#include "fake_osd.h"

#include <cmocka.h>

static struct owner owner;
static atomic_bool is_over;
static const struct patience none_left = { .is_over = &is_over };

static int say_nothing(struct fake_call *call)
{
	(void)call;
	return FAKE_HOLD;
}

/* ---- the watch ---- */

static unsigned int n_unwatches, n_flushes;
static int flush_error;

int rados_aio_unwatch(rados_ioctx_t io, uint64_t cookie, rados_completion_t completion)
{
	struct fake_call *c = completion;

	(void)io;
	assert_int_equal(cookie, 7);
	n_unwatches++;
	/* From now on there is no memory for another. */
	osd.create_error = flush_error;
	c->done(c, c->arg);
	return 0;
}

int rados_aio_watch_flush(rados_t cluster, rados_completion_t completion)
{
	struct fake_call *c = completion;

	(void)cluster;
	n_flushes++;
	c->done(c, c->arg);
	return 0;
}

static int setup(void **state)
{
	(void)state;
	fake_reset();
	owner = (struct owner){ .object = "rbd_header.10", .watch = 7 };
	atomic_store(&is_over, true);
	osd.answer = say_nothing;
	return 0;
}

static int teardown(void **state)
{
	(void)state;
	while (osd.sent)
		fake_answer(0, 0);
	assert_int_equal(osd.n_ops, 0);
	assert_int_equal(osd.n_completions, 0);
	return 0;
}

/* The cookie is the only string of digits that the methods are given. */
static bool has_cookie(const struct fake_call *c, const char *cookie)
{
	const struct fake_step *s = &c->op.steps[0];

	return memmem(s->in, s->in_len, cookie, strlen(cookie)) != NULL;
}

/* Else it would stay locked by a watch that is gone, and whoever wanted it would shoot us. */
static void a_lock_that_was_asked_for_is_given_back(void **state)
{
	(void)state;
	assert_int_equal(owner_try_lock(&owner, &none_left), -ETIMEDOUT);
	assert_true(owner.has_lock);
	assert_int_equal(owner_unlock(&owner, &none_left), -ETIMEDOUT);
	assert_int_equal(fake_waiting(), 2);
	assert_string_equal(fake_nth(0)->op.steps[0].method, "lock");
	assert_string_equal(fake_nth(1)->op.steps[0].method, "unlock");
	assert_true(has_cookie(fake_nth(1), "auto 7"));
}

static void a_lock_that_was_being_moved_is_given_back(void **state)
{
	(void)state;
	owner.has_lock = true;
	(void)snprintf(owner.cookie, sizeof(owner.cookie), "auto 5");
	assert_int_equal(owner_move_lock(&owner, &none_left), -ETIMEDOUT);
	assert_int_equal(owner_unlock(&owner, &none_left), -ETIMEDOUT);
	assert_int_equal(fake_waiting(), 2);
	assert_string_equal(fake_nth(0)->op.steps[0].method, "set_cookie");
	assert_string_equal(fake_nth(1)->op.steps[0].method, "unlock");
	assert_true(has_cookie(fake_nth(1), "auto 7"));
}

/* A callback may still run, and use it. */
static void an_owner_whose_callbacks_were_not_waited_for_is_left_behind(void **state)
{
	/* Only asked for a handle, which nobody here looks at. */
	static uint64_t cluster[64];
	const struct patience patience = { .is_over = NULL };

	(void)state;
	n_unwatches = n_flushes = 0;
	owner.o.cluster = (struct cluster *)cluster;
	owner.has_watch = true;
	owner_unwatch(&owner, &patience);
	assert_int_equal(n_unwatches, 1);
	assert_int_equal(n_flushes, 1);
	assert_false(owner.is_abandoned);
	owner.has_watch = true;
	flush_error = -ENOMEM;
	owner_unwatch(&owner, &patience);
	flush_error = 0;
	assert_int_equal(n_unwatches, 2);
	assert_int_equal(n_flushes, 1);
	assert_true(owner.is_abandoned);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(a_lock_that_was_asked_for_is_given_back, setup,
						teardown),
		cmocka_unit_test_setup_teardown(a_lock_that_was_being_moved_is_given_back, setup,
						teardown),
		cmocka_unit_test_setup_teardown(
			an_owner_whose_callbacks_were_not_waited_for_is_left_behind, setup,
			teardown),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
