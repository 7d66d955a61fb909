/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Copyright (C) 2026 the rbdcrypt-nbd authors */

/* The lock's own operations, where an answer does not come in time. */

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

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(a_lock_that_was_asked_for_is_given_back, setup,
						teardown),
		cmocka_unit_test_setup_teardown(a_lock_that_was_being_moved_is_given_back, setup,
						teardown),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
