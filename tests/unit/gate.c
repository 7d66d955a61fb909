/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Copyright (C) 2026 the rbdcrypt-nbd authors */

/* The gate: who is let in, in which order, and who is told that it will not open again. */

#include "../../rbd/gate.h"

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <time.h>
#include <unistd.h>

#include <cmocka.h>

#define N 4

struct fixture {
	struct gate gate;
	int went[N]; /* in which order, from 1; 0: not yet */
	int errors[N];
	int n_gone;
	bool closes_at_first;
};

struct numbered {
	struct gate_pass pass;
	struct fixture *fx;
	int i;
};

static void go(struct gate_pass *p, int error)
{
	struct numbered *n = (struct numbered *)p;
	struct fixture *fx = n->fx;

	fx->went[n->i] = ++fx->n_gone;
	fx->errors[n->i] = error;
	if (fx->closes_at_first)
		gate_close(&fx->gate);
}

static void passes_init(struct fixture *fx, struct numbered n[N])
{
	*fx = (struct fixture){ 0 };
	gate_init(&fx->gate);
	for (int i = 0; i < N; i++)
		n[i] = (struct numbered){ .pass.go = go, .fx = fx, .i = i };
}

static void open_gate(struct fixture *fx)
{
	gate_open_since(&fx->gate, gate_closings(&fx->gate));
}

static void a_new_gate_is_closed_and_keeps_the_order(void **state)
{
	struct fixture fx;
	struct numbered n[N];

	(void)state;
	passes_init(&fx, n);
	for (int i = 0; i < N; i++)
		assert_false(gate_enter(&fx.gate, &n[i].pass));
	assert_int_equal(fx.n_gone, 0);
	open_gate(&fx);
	for (int i = 0; i < N; i++) {
		assert_int_equal(fx.went[i], i + 1);
		assert_int_equal(fx.errors[i], 0);
	}
	for (int i = 0; i < N; i++)
		gate_leave(&fx.gate);
	gate_done(&fx.gate);
}

static void an_open_gate_lets_in_at_once(void **state)
{
	struct fixture fx;
	struct numbered n[N];

	(void)state;
	passes_init(&fx, n);
	open_gate(&fx);
	assert_true(gate_enter(&fx.gate, &n[0].pass));
	assert_int_equal(fx.n_gone, 0);
	gate_leave(&fx.gate);
	gate_done(&fx.gate);
}

static void a_gate_that_closes_while_they_go_keeps_the_rest(void **state)
{
	struct fixture fx;
	struct numbered n[N];

	(void)state;
	passes_init(&fx, n);
	for (int i = 0; i < N; i++)
		(void)gate_enter(&fx.gate, &n[i].pass);
	fx.closes_at_first = true;
	open_gate(&fx);
	assert_int_equal(fx.n_gone, 1);
	gate_leave(&fx.gate);
	fx.closes_at_first = false;
	open_gate(&fx);
	assert_int_equal(fx.n_gone, N);
	for (int i = 1; i < N; i++)
		gate_leave(&fx.gate);
	gate_done(&fx.gate);
}

static void a_closing_meanwhile_keeps_it_closed(void **state)
{
	struct fixture fx;
	struct numbered n[N];
	unsigned int closings;

	(void)state;
	passes_init(&fx, n);
	(void)gate_enter(&fx.gate, &n[0].pass);
	closings = gate_closings(&fx.gate);
	gate_close(&fx.gate);
	gate_open_since(&fx.gate, closings);
	assert_int_equal(fx.n_gone, 0);
	open_gate(&fx);
	assert_int_equal(fx.n_gone, 1);
	gate_leave(&fx.gate);
	gate_done(&fx.gate);
}

/* A volume that stops: its gate may never open again, and an open one still lets in. */
static void waiting_can_be_ended(void **state)
{
	struct fixture fx;
	struct numbered n[N];

	(void)state;
	passes_init(&fx, n);
	assert_false(gate_enter(&fx.gate, &n[0].pass));
	gate_end_waiting(&fx.gate, -ESHUTDOWN);
	assert_int_equal(fx.errors[0], -ESHUTDOWN);
	assert_false(gate_enter(&fx.gate, &n[1].pass));
	assert_int_equal(fx.errors[1], -ESHUTDOWN);
	open_gate(&fx);
	assert_int_equal(fx.n_gone, 2);
	assert_true(gate_enter(&fx.gate, &n[2].pass));
	gate_leave(&fx.gate);
	gate_close(&fx.gate);
	assert_false(gate_enter(&fx.gate, &n[3].pass));
	assert_int_equal(fx.errors[3], -ESHUTDOWN);
	gate_done(&fx.gate);
}

/* Those who were being let in when it was closed again must not be forgotten. */
static void who_waits_behind_a_gate_that_closes_is_turned_away(void **state)
{
	struct fixture fx;
	struct numbered n[N];

	(void)state;
	passes_init(&fx, n);
	for (int i = 0; i < N; i++)
		(void)gate_enter(&fx.gate, &n[i].pass);
	/* Open, but they have not been let in yet: seen between two passes. */
	fx.gate.is_open = true;
	gate_end_waiting(&fx.gate, -ESHUTDOWN);
	assert_int_equal(fx.n_gone, 0);
	gate_close(&fx.gate);
	assert_int_equal(fx.n_gone, N);
	for (int i = 0; i < N; i++)
		assert_int_equal(fx.errors[i], -ESHUTDOWN);
	gate_done(&fx.gate);
}

static void nobody_overtakes_those_who_wait(void **state)
{
	struct fixture fx;
	struct numbered n[N];

	(void)state;
	passes_init(&fx, n);
	(void)gate_enter(&fx.gate, &n[0].pass);
	/* Open, but the one who waits has not been let in yet: seen between two passes. */
	fx.gate.is_open = true;
	assert_false(gate_enter(&fx.gate, &n[1].pass));
	open_gate(&fx);
	assert_int_equal(fx.went[0], 1);
	assert_int_equal(fx.went[1], 2);
	gate_leave(&fx.gate);
	gate_leave(&fx.gate);
	gate_done(&fx.gate);
}

static void draining_waits_for_who_is_inside_and_gives_up(void **state)
{
	struct fixture fx;
	struct numbered n[N];
	atomic_bool is_over = true;
	struct patience none = { .is_over = &is_over };
	struct patience past = { .deadline_ms = 1 };
	struct patience all = { 0 };

	(void)state;
	passes_init(&fx, n);
	open_gate(&fx);
	assert_true(gate_enter(&fx.gate, &n[0].pass));
	gate_close(&fx.gate);
	assert_int_equal(gate_drain(&fx.gate, &none), -ETIMEDOUT);
	assert_int_equal(gate_drain(&fx.gate, &past), -ETIMEDOUT);
	gate_leave(&fx.gate);
	assert_int_equal(gate_drain(&fx.gate, &all), 0);
	gate_done(&fx.gate);
}

static void *leave_later(void *arg)
{
	struct timespec t = { .tv_nsec = 50000000L };

	(void)nanosleep(&t, NULL);
	gate_leave(arg);
	return NULL;
}

static void draining_ends_when_the_last_one_leaves(void **state)
{
	struct fixture fx;
	struct numbered n[N];
	struct patience all = { 0 };
	pthread_t thread;

	(void)state;
	passes_init(&fx, n);
	open_gate(&fx);
	assert_true(gate_enter(&fx.gate, &n[0].pass));
	gate_close(&fx.gate);
	assert_int_equal(pthread_create(&thread, NULL, leave_later, &fx.gate), 0);
	assert_int_equal(gate_drain(&fx.gate, &all), 0);
	assert_int_equal(fx.gate.inside, 0);
	(void)pthread_join(thread, NULL);
	gate_done(&fx.gate);
}

static void a_gate_that_failed_tells_everybody_and_never_opens(void **state)
{
	struct fixture fx;
	struct numbered n[N];

	(void)state;
	passes_init(&fx, n);
	(void)gate_enter(&fx.gate, &n[0].pass);
	gate_fail(&fx.gate, -EIO);
	assert_int_equal(fx.errors[0], -EIO);
	open_gate(&fx);
	assert_false(gate_enter(&fx.gate, &n[1].pass));
	assert_int_equal(fx.errors[1], -EIO);
	gate_fail(&fx.gate, -ENOENT);
	assert_false(gate_enter(&fx.gate, &n[2].pass));
	assert_int_equal(fx.errors[2], -EIO);
	gate_done(&fx.gate);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_new_gate_is_closed_and_keeps_the_order),
		cmocka_unit_test(an_open_gate_lets_in_at_once),
		cmocka_unit_test(a_gate_that_closes_while_they_go_keeps_the_rest),
		cmocka_unit_test(a_closing_meanwhile_keeps_it_closed),
		cmocka_unit_test(waiting_can_be_ended),
		cmocka_unit_test(who_waits_behind_a_gate_that_closes_is_turned_away),
		cmocka_unit_test(nobody_overtakes_those_who_wait),
		cmocka_unit_test(draining_waits_for_who_is_inside_and_gives_up),
		cmocka_unit_test(draining_ends_when_the_last_one_leaves),
		cmocka_unit_test(a_gate_that_failed_tells_everybody_and_never_opens),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
