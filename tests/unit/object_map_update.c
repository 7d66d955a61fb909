/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Copyright (C) 2026 the rbdcrypt-nbd authors */

/* Changes of an object map: their order, what goes along with what, and what failure means. */

#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "../../include/store.h"
#include "fake_map.h"

#define FLIGHT_MAX 8u

static struct object_map *m;

static int setup(void **state)
{
	struct image_facts f = map_facts();

	map_reset(MAP_OBJECTS);
	osd.answer = map_answer;
	n_changes_done = 0;
	map.states[1] = OBJECT_EXISTS;
	map.states[2] = OBJECT_PENDING;
	map.states[3] = OBJECT_CLEAN;
	return object_map_new(NULL, "10", "rbd/image", &map_layout, &m) < 0 || map_take(m, &f) < 0;
}

static int teardown(void **state)
{
	assert_int_equal(map_give(m), 0);
	object_map_free(m);
	assert_null(osd.sent);
	assert_int_equal(osd.n_ops, 0);
	assert_int_equal(osd.n_completions, 0);
	return 0;
}

static int set(struct change *c, uint64_t object, enum object_state state, int current)
{
	memset(c, 0, sizeof(*c));
	c->wait.done = change_done;
	c->wait.result = 1;
	return object_map_set(m, &c->wait, object, state, current);
}

static void answer_all(void)
{
	while (fake_answer_planned(0))
		;
}

static void expect_done(const struct change *c, int result)
{
	assert_int_equal(c->n_done, 1);
	assert_int_equal(c->wait.result, result);
}

/* The steps of the i-th operation that waits for its answer. */
static void expect_steps(unsigned int i, unsigned int n, const char *const *hex)
{
	const struct fake_call *c = fake_nth(i);

	assert_non_null(c);
	assert_string_equal(c->object, "rbd_object_map.10");
	assert_int_equal(c->op.n, n + 1);
	assert_string_equal(c->op.steps[0].method, "assert_locked");
	for (unsigned int j = 0; j < n; j++) {
		unsigned char golden[32];
		size_t len = from_hex(hex[j], golden, sizeof(golden));

		assert_string_equal(c->op.steps[j + 1].method, "object_map_update");
		assert_int_equal(c->op.steps[j + 1].in_len, len);
		assert_memory_equal(c->op.steps[j + 1].in, golden, len);
	}
}

static void expect_step(unsigned int i, const char *hex)
{
	expect_steps(i, 1, &hex);
}

static void what_is_so_already_is_done_at_once(void **state)
{
	struct change c;
	unsigned int n_before = osd.n_sent;

	assert_int_equal(set(&c, 1, OBJECT_EXISTS, CLS_ANY_STATE), STORE_DONE);
	assert_int_equal(c.wait.result, 0);
	/* Only what is about to be removed is removed. */
	assert_int_equal(set(&c, 1, OBJECT_NONE, OBJECT_PENDING), STORE_DONE);
	assert_int_equal(c.wait.result, 0);
	assert_int_equal(set(&c, 0, OBJECT_PENDING, OBJECT_EXISTS), STORE_DONE);
	assert_int_equal(c.wait.result, 0);
	assert_int_equal(set(&c, MAP_OBJECTS, OBJECT_EXISTS, CLS_ANY_STATE), STORE_DONE);
	assert_int_equal(c.wait.result, -ERANGE);
	assert_int_equal(c.n_done, 0);
	assert_int_equal(osd.n_sent, n_before);
}

static void nothing_is_believed_before_the_cluster_has_it(void **state)
{
	struct change c;

	assert_int_equal(set(&c, 5, OBJECT_EXISTS, CLS_ANY_STATE), 0);
	expect_step(0, "0500000000000000 0600000000000000 01 00");
	assert_int_equal(c.n_done, 0);
	assert_true(object_map_is_none(m, 5));
	assert_true(fake_answer_planned(0));
	expect_done(&c, 0);
	assert_false(c.was_none);
	assert_int_equal(map.states[5], OBJECT_EXISTS);
	/* The neighbours in its byte stay. */
	assert_true(object_map_is_none(m, 4));
	assert_true(object_map_is_none(m, 6));
	assert_int_equal(set(&c, 5, OBJECT_EXISTS, CLS_ANY_STATE), STORE_DONE);
}

static void an_object_is_removed_in_two_changes(void **state)
{
	struct change c;

	/* What was not changed since the last snapshot exists too. */
	assert_int_equal(set(&c, 3, OBJECT_PENDING, OBJECT_EXISTS), 0);
	expect_step(0, "0300000000000000 0400000000000000 02 01 01");
	answer_all();
	expect_done(&c, 0);
	assert_int_equal(map.states[3], OBJECT_PENDING);
	assert_false(object_map_is_none(m, 3));
	assert_int_equal(set(&c, 3, OBJECT_NONE, OBJECT_PENDING), 0);
	expect_step(0, "0300000000000000 0400000000000000 00 01 02");
	assert_false(object_map_is_none(m, 3));
	answer_all();
	expect_done(&c, 0);
	assert_true(c.was_none);
	assert_int_equal(map.states[3], OBJECT_NONE);
}

static void like_changes_of_an_object_are_one(void **state)
{
	struct change c[4];

	for (unsigned int i = 0; i < 4; i++)
		assert_int_equal(set(&c[i], 5, OBJECT_EXISTS, CLS_ANY_STATE), 0);
	assert_int_equal(fake_waiting(), 1);
	answer_all();
	assert_int_equal(map.n_updates, 1);
	for (unsigned int i = 0; i < 4; i++)
		expect_done(&c[i], 0);
}

static void unlike_changes_of_an_object_come_one_after_another(void **state)
{
	struct change exists, pending, again, too, none;

	assert_int_equal(set(&exists, 5, OBJECT_EXISTS, CLS_ANY_STATE), 0);
	assert_int_equal(set(&pending, 5, OBJECT_PENDING, OBJECT_EXISTS), 0);
	assert_int_equal(set(&again, 5, OBJECT_EXISTS, CLS_ANY_STATE), 0);
	assert_int_equal(set(&too, 5, OBJECT_EXISTS, CLS_ANY_STATE), 0);
	/* Finds nothing to be removed when it is its turn. */
	assert_int_equal(set(&none, 5, OBJECT_NONE, OBJECT_PENDING), 0);
	assert_int_equal(fake_waiting(), 1);
	assert_true(fake_answer_planned(0));
	expect_done(&exists, 0);
	assert_int_equal(pending.n_done, 0);
	assert_int_equal(map.states[5], OBJECT_PENDING);
	expect_step(0, "0500000000000000 0600000000000000 02 01 01");
	assert_true(fake_answer_planned(0));
	expect_done(&pending, 0);
	assert_int_equal(again.n_done, 0);
	assert_int_equal(fake_waiting(), 1);
	assert_true(fake_answer_planned(0));
	expect_done(&again, 0);
	expect_done(&too, 0);
	expect_done(&none, 0);
	assert_true(none.order > again.order && none.order > too.order);
	assert_int_equal(map.states[5], OBJECT_EXISTS);
	assert_false(object_map_is_none(m, 5));
	assert_int_equal(map.n_updates, 3);
}

/* Takes all operations that may be under way, of objects far from one another. */
static void keep_busy(struct change c[FLIGHT_MAX])
{
	for (unsigned int i = 0; i < FLIGHT_MAX; i++)
		assert_int_equal(set(&c[i], 60000 + 1000 * i, OBJECT_EXISTS, CLS_ANY_STATE), 0);
	assert_int_equal(fake_waiting(), FLIGHT_MAX);
}

static void what_comes_meanwhile_goes_along(void **state)
{
	static const char *const golden[] = {
		"0500000000000000 0900000000000000 01 00",
		"0040000000000000 0140000000000000 01 00",
		"0080000000000000 0280000000000000 01 00",
	};
	struct change busy[FLIGHT_MAX], c[9];

	keep_busy(busy);
	/* In any order, in four blocks. */
	set(&c[0], 7, OBJECT_EXISTS, CLS_ANY_STATE);
	set(&c[1], 5, OBJECT_EXISTS, CLS_ANY_STATE);
	set(&c[2], 0x4000, OBJECT_EXISTS, CLS_ANY_STATE);
	set(&c[3], 6, OBJECT_EXISTS, CLS_ANY_STATE);
	set(&c[4], 8, OBJECT_EXISTS, CLS_ANY_STATE);
	set(&c[5], 0x8001, OBJECT_EXISTS, CLS_ANY_STATE);
	set(&c[6], 0x8000, OBJECT_EXISTS, CLS_ANY_STATE);
	/* Of blocks that are in the operation already, but not near; and another change. */
	set(&c[7], 2000, OBJECT_EXISTS, CLS_ANY_STATE);
	set(&c[8], 2, OBJECT_NONE, OBJECT_PENDING);
	assert_int_equal(fake_waiting(), FLIGHT_MAX);
	assert_true(fake_answer_planned(0));
	assert_int_equal(fake_waiting(), FLIGHT_MAX);
	expect_steps(FLIGHT_MAX - 1, 3, golden);
	assert_true(fake_answer_planned(0));
	expect_step(FLIGHT_MAX - 1, "d007000000000000 d107000000000000 01 00");
	assert_true(fake_answer_planned(0));
	expect_step(FLIGHT_MAX - 1, "0200000000000000 0300000000000000 00 01 02");
	answer_all();
	for (unsigned int i = 0; i < 9; i++)
		expect_done(&c[i], 0);
	for (unsigned int o = 5; o < 9; o++)
		assert_int_equal(map.states[o], OBJECT_EXISTS);
	assert_int_equal(map.states[2000], OBJECT_EXISTS);
	assert_int_equal(map.states[2], OBJECT_NONE);
}

static void ranges_reach_over_what_would_not_change(void **state)
{
	struct change busy[FLIGHT_MAX], c[4];

	/* 1 exists; 3 would change, but is another's to change; 4 and 5 do not exist. */
	keep_busy(busy);
	set(&c[0], 0, OBJECT_EXISTS, CLS_ANY_STATE);
	set(&c[1], 2, OBJECT_EXISTS, CLS_ANY_STATE);
	set(&c[2], 4, OBJECT_EXISTS, CLS_ANY_STATE);
	assert_true(fake_answer_planned(0));
	expect_step(FLIGHT_MAX - 1, "0000000000000000 0300000000000000 01 00");
	assert_true(fake_answer_planned(0));
	expect_step(FLIGHT_MAX - 1, "0400000000000000 0500000000000000 01 00");
	answer_all();
	assert_int_equal(map.states[3], OBJECT_CLEAN);
	assert_int_equal(map.states[5], OBJECT_NONE);
}

static void ranges_do_not_reach_over_what_is_changing(void **state)
{
	struct change busy[FLIGHT_MAX], c[3];

	keep_busy(busy);
	/* 1 exists, and is about to be removed. */
	set(&c[0], 1, OBJECT_PENDING, OBJECT_EXISTS);
	set(&c[1], 0, OBJECT_EXISTS, CLS_ANY_STATE);
	set(&c[2], 2, OBJECT_EXISTS, CLS_ANY_STATE);
	answer_all();
	assert_int_equal(map.n_updates, FLIGHT_MAX + 3);
	assert_int_equal(map.states[0], OBJECT_EXISTS);
	assert_int_equal(map.states[1], OBJECT_PENDING);
	assert_int_equal(map.states[2], OBJECT_EXISTS);
}

/* What a map says that is not believed is no reason to change it. */
static void ranges_reach_over_nothing_in_an_invalid_map(void **state)
{
	struct change busy[FLIGHT_MAX], c[2];

	set(&c[0], 5, OBJECT_EXISTS, CLS_ANY_STATE);
	fake_answer(0, -EIO);
	answer_all();
	keep_busy(busy);
	set(&c[0], 0, OBJECT_EXISTS, CLS_ANY_STATE);
	set(&c[1], 2, OBJECT_EXISTS, CLS_ANY_STATE);
	assert_true(fake_answer_planned(0));
	expect_step(FLIGHT_MAX - 1, "0000000000000000 0100000000000000 01 00");
	answer_all();
	expect_done(&c[1], 0);
}

/* ---- failure ---- */

static void expect_flags(unsigned int i)
{
	static const char *const hex[] = {
		"0101 23000000 08000000 7262645f6c6f636b 01 06000000 6175746f2037 "
		"08000000 696e7465726e616c",
		"0300000000000000 0300000000000000 feffffffffffffff",
	};
	const struct fake_call *c = fake_nth(i);
	unsigned char golden[64];

	assert_non_null(c);
	assert_string_equal(c->object, "rbd_header.10");
	assert_int_equal(c->op.n, 2);
	assert_string_equal(c->op.steps[0].method, "assert_locked");
	assert_string_equal(c->op.steps[1].method, "set_flags");
	for (unsigned int j = 0; j < 2; j++) {
		assert_int_equal(c->op.steps[j].in_len, from_hex(hex[j], golden, sizeof(golden)));
		assert_memory_equal(c->op.steps[j].in, golden, c->op.steps[j].in_len);
	}
}

static void a_map_that_cannot_be_changed_is_marked_invalid(void **state)
{
	struct change c;

	set(&c, 5, OBJECT_EXISTS, CLS_ANY_STATE);
	fake_answer(0, -EIO);
	assert_int_equal(c.n_done, 0);
	expect_flags(0);
	/* Nobody here believes it either, from now on. */
	assert_false(object_map_is_none(m, 4));
	assert_true(fake_answer_planned(0));
	expect_done(&c, 0);
	assert_int_equal(map.n_flagged, 1);
	assert_false(object_map_is_none(m, 4));
	/* It is kept on, and need not be marked twice. */
	assert_int_equal(set(&c, 6, OBJECT_EXISTS, CLS_ANY_STATE), 0);
	fake_answer(0, -EIO);
	expect_done(&c, 0);
	assert_int_equal(set(&c, 7, OBJECT_EXISTS, CLS_ANY_STATE), 0);
	answer_all();
	expect_done(&c, 0);
	assert_int_equal(map.states[7], OBJECT_EXISTS);
	assert_int_equal(map.n_flagged, 1);
}

static void the_header_has_its_new_cookie(void **state)
{
	struct image_facts f = map_facts();
	struct change c;

	assert_int_equal(map_take_with(m, &f, "auto 1234567890"), 0);
	set(&c, 5, OBJECT_EXISTS, CLS_ANY_STATE);
	fake_answer(0, -EIO);
	assert_non_null(memmem(fake_nth(0)->op.steps[0].in, fake_nth(0)->op.steps[0].in_len,
			       "\x0f\0\0\0auto 1234567890", 19));
	answer_all();
	expect_done(&c, 0);
}

static void a_map_that_cannot_be_marked_is_an_error(void **state)
{
	struct change c, joined, later;

	map.is_header_lost = true;
	set(&c, 5, OBJECT_EXISTS, CLS_ANY_STATE);
	set(&joined, 5, OBJECT_EXISTS, CLS_ANY_STATE);
	set(&later, 5, OBJECT_NONE, CLS_ANY_STATE);
	fake_answer(0, -EIO);
	assert_true(fake_answer_planned(0));
	expect_done(&c, -EBUSY);
	expect_done(&joined, -EBUSY);
	/* As far as we know, there is none. */
	expect_done(&later, 0);
	assert_false(object_map_is_none(m, 5));
	/* The next one tries all of it again. */
	map.is_header_lost = false;
	set(&c, 5, OBJECT_EXISTS, CLS_ANY_STATE);
	fake_answer(0, -EIO);
	expect_flags(0);
	answer_all();
	expect_done(&c, 0);
}

static void who_is_shut_out_changes_nothing(void **state)
{
	static const int errors[] = { -ESHUTDOWN, -ENOTCONN };

	for (unsigned int i = 0; i < 2; i++) {
		struct change c;

		assert_int_equal(set(&c, 5, OBJECT_EXISTS, CLS_ANY_STATE), 0);
		fake_answer(0, errors[i]);
		expect_done(&c, errors[i]);
		assert_int_equal(fake_waiting(), 0);
		/* Not even when the mark is what fails. */
		assert_int_equal(set(&c, 6, OBJECT_EXISTS, CLS_ANY_STATE), 0);
		fake_answer(0, -EIO);
		fake_answer(0, errors[i]);
		expect_done(&c, errors[i]);
	}
	assert_int_equal(map.n_flagged, 2);
}

static void a_marked_map_is_no_excuse_when_we_are_shut_out(void **state)
{
	struct change c;

	set(&c, 5, OBJECT_EXISTS, CLS_ANY_STATE);
	fake_answer(0, -EIO);
	answer_all();
	set(&c, 6, OBJECT_EXISTS, CLS_ANY_STATE);
	fake_answer(0, -ESHUTDOWN);
	expect_done(&c, -ESHUTDOWN);
}

static void a_lost_lock_of_the_map_marks_it(void **state)
{
	struct change c;

	map.is_locked = false;
	set(&c, 5, OBJECT_EXISTS, CLS_ANY_STATE);
	assert_true(fake_answer_planned(0));
	expect_flags(0);
	answer_all();
	expect_done(&c, 0);
	assert_int_equal(map.states[5], OBJECT_NONE);
}

static void what_is_not_sent_is_an_error_and_harms_nothing(void **state)
{
	struct change c;

	osd.send_error = -EROFS;
	assert_int_equal(set(&c, 5, OBJECT_EXISTS, CLS_ANY_STATE), 0);
	expect_done(&c, -EROFS);
	osd.send_error = 0;
	osd.create_error = -ENOMEM;
	assert_int_equal(set(&c, 5, OBJECT_EXISTS, CLS_ANY_STATE), 0);
	expect_done(&c, -ENOMEM);
	osd.create_error = 0;
	assert_true(object_map_is_none(m, 5));
	assert_int_equal(map.n_flagged, 0);
	/* Also when the mark cannot be sent: then it is an error. */
	set(&c, 5, OBJECT_EXISTS, CLS_ANY_STATE);
	osd.send_error = -EROFS;
	fake_answer(0, -EIO);
	expect_done(&c, -EROFS);
	assert_false(object_map_is_none(m, 4));
	osd.send_error = 0;
}

/* ---- many ---- */

#define N_MANY 3000u

static unsigned int next_random(unsigned int *seed)
{
	*seed = *seed * 1103515245 + 12345;
	return *seed >> 8;
}

/*
 * Any changes, answered in any order. The last change of each object is unconditional, and is what
 * the cluster has in the end: none was lost, whatever went along with it.
 */
static void many_changes_end_as_they_were_asked_for(void **state)
{
	static struct change c[N_MANY];
	static unsigned char expected[MAP_OBJECTS];
	unsigned int seed = 42;

	memcpy(expected, map.states, sizeof(expected));
	for (unsigned int i = 0; i < N_MANY; i++) {
		uint64_t object = next_random(&seed) % 4 * MAP_BLOCK + next_random(&seed) % 64;
		enum object_state to = next_random(&seed) % 4;

		if (set(&c[i], object, to, CLS_ANY_STATE) == STORE_DONE)
			c[i].n_done = 1;
		expected[object] = (unsigned char)to;
		assert_in_range(fake_waiting(), 0, FLIGHT_MAX);
		while (fake_waiting() && next_random(&seed) % 3 == 0)
			assert_true(fake_answer_planned(next_random(&seed) % fake_waiting()));
	}
	answer_all();
	for (unsigned int i = 0; i < N_MANY; i++)
		assert_int_equal(c[i].n_done, 1);
	assert_memory_equal(map.states, expected, sizeof(expected));
	for (uint64_t o = 0; o < MAP_OBJECTS; o++)
		assert_int_equal(object_map_is_none(m, o), expected[o] == OBJECT_NONE);
	print_message("%u changes, %u operations, %u ranges\n", N_MANY, map.n_updates,
		      map.n_ranges);
	assert_true(map.n_updates < N_MANY);
}

#define N_WRITERS 3u
#define N_EACH 4000u

static atomic_uint n_pending;

static void count_done(struct map_wait *w)
{
	assert_int_equal(w->result, 0);
	assert_false(object_map_is_none(w->map, w->object));
	free(w);
	atomic_fetch_sub(&n_pending, 1);
}

static void *write_objects(void *arg)
{
	unsigned int seed = *(unsigned int *)arg;

	for (unsigned int i = 0; i < N_EACH; i++) {
		struct map_wait *w = calloc(1, sizeof(*w));
		uint64_t object = next_random(&seed) % 6000;

		w->done = count_done;
		atomic_fetch_add(&n_pending, 1);
		if (object_map_set(m, w, object, OBJECT_EXISTS, CLS_ANY_STATE) == STORE_DONE)
			count_done(w);
	}
	return NULL;
}

static void threads_do_not_lose_changes(void **state)
{
	unsigned int seeds[N_WRITERS] = { 1, 2, 3 }, n_running = 1;
	pthread_t threads[N_WRITERS];

	atomic_store(&n_pending, 0);
	for (unsigned int i = 0; i < N_WRITERS; i++)
		assert_int_equal(pthread_create(&threads[i], NULL, write_objects, &seeds[i]), 0);
	/* Nobody waits for his own changes, so they all end without this. */
	while (n_running) {
		n_running = 0;
		for (unsigned int i = 0; i < N_WRITERS; i++)
			if (seeds[i] && pthread_tryjoin_np(threads[i], NULL) == 0)
				seeds[i] = 0;
			else
				n_running += seeds[i] != 0;
		answer_all();
	}
	answer_all();
	assert_int_equal(atomic_load(&n_pending), 0);
	for (uint64_t o = 0; o < 6000; o++)
		assert_int_equal(object_map_is_none(m, o), map.states[o] == OBJECT_NONE);
	print_message("%u operations\n", map.n_updates);
}

#define test(f) cmocka_unit_test_setup_teardown(f, setup, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		test(what_is_so_already_is_done_at_once),
		test(nothing_is_believed_before_the_cluster_has_it),
		test(an_object_is_removed_in_two_changes),
		test(like_changes_of_an_object_are_one),
		test(unlike_changes_of_an_object_come_one_after_another),
		test(what_comes_meanwhile_goes_along),
		test(ranges_reach_over_what_would_not_change),
		test(ranges_do_not_reach_over_what_is_changing),
		test(ranges_reach_over_nothing_in_an_invalid_map),
		test(a_map_that_cannot_be_changed_is_marked_invalid),
		test(the_header_has_its_new_cookie),
		test(a_map_that_cannot_be_marked_is_an_error),
		test(who_is_shut_out_changes_nothing),
		test(a_marked_map_is_no_excuse_when_we_are_shut_out),
		test(a_lost_lock_of_the_map_marks_it),
		test(what_is_not_sent_is_an_error_and_harms_nothing),
		test(many_changes_end_as_they_were_asked_for),
		test(threads_do_not_lose_changes),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
