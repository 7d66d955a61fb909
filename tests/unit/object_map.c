/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Copyright (C) 2026 the rbdcrypt-nbd authors */

/* An object map is taken, given and asked, and the maps of snapshots are told of copies. */

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "../../include/store.h"
#include "fake_map.h"

static struct object_map *m;

static int setup(void **state)
{
	map_reset(MAP_OBJECTS);
	osd.answer = map_answer;
	return object_map_new(NULL, "10", "rbd/image", &map_layout, &m);
}

static int teardown(void **state)
{
	m = object_map_free(m);
	assert_null(m);
	assert_int_equal(osd.n_ops, 0);
	assert_int_equal(osd.n_completions, 0);
	return 0;
}

static void a_map_that_is_right_is_believed(void **state)
{
	struct image_facts f = map_facts();

	map.states[1] = OBJECT_EXISTS;
	map.states[2] = OBJECT_PENDING;
	map.states[3] = OBJECT_CLEAN;
	map.states[MAP_OBJECTS - 1] = OBJECT_EXISTS;
	assert_false(object_map_is_none(m, 0));
	assert_int_equal(map_take(m, &f), 0);
	assert_true(map.is_locked);
	assert_true(object_map_is_none(m, 0));
	assert_false(object_map_is_none(m, 1));
	assert_false(object_map_is_none(m, 2));
	assert_false(object_map_is_none(m, 3));
	assert_true(object_map_is_none(m, MAP_OBJECTS - 2));
	assert_false(object_map_is_none(m, MAP_OBJECTS - 1));
	assert_false(object_map_is_none(m, MAP_OBJECTS));
	assert_int_equal(map.n_flagged, 0);
	assert_int_equal(map_give(m), 0);
	assert_false(map.is_locked);
	assert_false(object_map_is_none(m, 0));
	/* And is read again the next time. */
	map.states[0] = OBJECT_EXISTS;
	assert_int_equal(map_take(m, &f), 0);
	assert_false(object_map_is_none(m, 0));
	assert_true(object_map_is_none(m, 4));
}

static void an_image_without_a_map_needs_nothing(void **state)
{
	struct image_facts f = map_facts();
	uint64_t snaps[] = { 4 };
	struct change c = { .wait.done = change_done };

	f.features = 4;
	f.snaps = snaps;
	f.n_snaps = 1;
	assert_int_equal(map_take(m, &f), 0);
	assert_false(object_map_is_none(m, 0));
	c.wait.result = -1;
	assert_int_equal(object_map_set(m, &c.wait, 0, OBJECT_EXISTS, CLS_ANY_STATE), STORE_DONE);
	assert_int_equal(c.wait.result, 0);
	c.wait.result = -1;
	assert_int_equal(object_map_copyup(m, &c.wait, 0), STORE_DONE);
	assert_int_equal(c.wait.result, 0);
	assert_int_equal(map_give(m), 0);
	assert_int_equal(osd.n_sent, 0);
	assert_int_equal(c.n_done, 0);
}

static void the_lock_of_a_dead_owner_is_broken(void **state)
{
	struct image_facts f = map_facts();

	map.is_stolen = true;
	assert_int_equal(map_take(m, &f), 0);
	assert_true(map.is_locked);
	assert_false(map.is_stolen);
	assert_true(object_map_is_none(m, 0));
}

static void a_lock_that_cannot_be_had_is_an_error(void **state)
{
	struct image_facts f = map_facts();

	/* Ours already. */
	map.failing = "lock";
	map.error = -EEXIST;
	assert_int_equal(map_take(m, &f), 0);
	/* Each time somebody else is faster, or it is told so. */
	map.error = -EBUSY;
	assert_int_equal(map_take(m, &f), -EBUSY);
	assert_false(object_map_is_none(m, 0));
	assert_true(osd.n_sent < 50);
	map.error = -ESHUTDOWN;
	assert_int_equal(map_take(m, &f), -ESHUTDOWN);
	map.is_stolen = true;
	map.failing = "get_info";
	map.error = -EIO;
	assert_int_equal(map_take(m, &f), -EIO);
	map.failing = "break_lock";
	map.error = -EPERM;
	assert_int_equal(map_take(m, &f), -EPERM);
	/* Broken by another meanwhile. */
	map.error = -ENOENT;
	assert_int_equal(map_take(m, &f), -EBUSY);
	map.failing = NULL;
	assert_int_equal(map_take(m, &f), 0);
	assert_int_equal(map.n_flagged, 0);
}

static void a_map_that_is_marked_invalid_is_not_believed(void **state)
{
	struct image_facts f = map_facts();

	f.flags = CLS_FLAG_OBJECT_MAP_INVALID | CLS_FLAG_FAST_DIFF_INVALID;
	assert_int_equal(map_take(m, &f), 0);
	assert_false(object_map_is_none(m, 0));
	assert_int_equal(map.n_flagged, 0);
	/* What is only about differences says nothing of existence. */
	f.flags = CLS_FLAG_FAST_DIFF_INVALID;
	assert_int_equal(map_take(m, &f), 0);
	assert_true(object_map_is_none(m, 0));
}

static void a_map_that_is_too_short_is_marked_invalid_and_kept(void **state)
{
	struct image_facts f = map_facts();
	struct change c = { .wait.done = change_done };

	map.n = 100;
	assert_int_equal(map_take(m, &f), 0);
	assert_int_equal(map.n_flagged, 1);
	assert_false(object_map_is_none(m, 0));
	assert_int_equal(object_map_set(m, &c.wait, 99, OBJECT_EXISTS, CLS_ANY_STATE), 0);
	assert_true(fake_answer_planned(0));
	assert_int_equal(c.wait.result, 0);
	assert_int_equal(map.states[99], OBJECT_EXISTS);
	/* There is no place for it. */
	assert_int_equal(object_map_set(m, &c.wait, 100, OBJECT_EXISTS, CLS_ANY_STATE), STORE_DONE);
	assert_int_equal(c.wait.result, 0);
	assert_int_equal(object_map_set(m, &c.wait, MAP_OBJECTS, OBJECT_EXISTS, CLS_ANY_STATE),
			 STORE_DONE);
	assert_int_equal(c.wait.result, -ERANGE);
	assert_int_equal(map.n_updates, 1);
}

static void what_is_left_of_a_larger_image_does_not_matter(void **state)
{
	struct image_facts f = map_facts();

	f.size = 5 * OBJECT_SIZE + 1;
	map.states[7] = OBJECT_EXISTS;
	assert_int_equal(map_take(m, &f), 0);
	assert_true(object_map_is_none(m, 5));
	assert_false(object_map_is_none(m, 6));
	/* It grows back, and what is read meanwhile by others stays readable. */
	f = map_facts();
	assert_int_equal(map_take(m, &f), 0);
	assert_true(object_map_is_none(m, 6));
	assert_false(object_map_is_none(m, 7));
	assert_int_equal(map.n_flagged, 0);
	/* No image is empty for ever. */
	f.size = 0;
	assert_int_equal(map_take(m, &f), 0);
	assert_false(object_map_is_none(m, 0));
}

static void a_map_that_cannot_be_read_is_marked_invalid(void **state)
{
	struct image_facts f = map_facts();
	struct change c = { .wait.done = change_done };

	/* What it said before does not count. */
	assert_int_equal(map_take(m, &f), 0);
	map.failing = "object_map_load";
	map.error = -ENOENT;
	assert_int_equal(map_take(m, &f), 0);
	assert_int_equal(map.n_flagged, 1);
	assert_false(object_map_is_none(m, 0));
	assert_int_equal(object_map_set(m, &c.wait, 0, OBJECT_EXISTS, CLS_ANY_STATE), STORE_DONE);
	assert_int_equal(c.wait.result, 0);
	/* Nobody has to be told twice. */
	f.flags = CLS_FLAG_OBJECT_MAP_INVALID;
	map.error = -EIO;
	assert_int_equal(map_take(m, &f), 0);
	assert_int_equal(map.n_flagged, 1);
	/* More objects than any map may have. */
	map.failing = NULL;
	f = map_facts();
	f.size = UINT64_C(1) << 50;
	assert_int_equal(map_take(m, &f), 0);
	assert_int_equal(map.n_flagged, 2);
}

static void a_map_that_cannot_be_marked_is_an_error(void **state)
{
	struct image_facts f = map_facts();

	map.n = 100;
	map.is_header_lost = true;
	assert_int_equal(map_take(m, &f), -EBUSY);
	map.is_header_lost = false;
	map.failing = "set_flags";
	map.error = -EPERM;
	assert_int_equal(map_take(m, &f), -EPERM);
	/* Nor is it the map's fault when we are shut out. */
	map.failing = "object_map_load";
	map.error = -ESHUTDOWN;
	assert_int_equal(map_take(m, &f), -ESHUTDOWN);
	map.error = -ENOTCONN;
	assert_int_equal(map_take(m, &f), -ENOTCONN);
	map.error = -ETIMEDOUT;
	assert_int_equal(map_take(m, &f), -ETIMEDOUT);
	assert_int_equal(map.n_flagged, 0);
	assert_int_equal(map_give(m), 0);
}

static void a_lock_that_was_lost_is_given_back_all_the_same(void **state)
{
	struct image_facts f = map_facts();

	assert_int_equal(map_take(m, &f), 0);
	map.failing = "unlock";
	map.error = -ENOENT;
	assert_int_equal(map_give(m), 0);
	assert_int_equal(map_take(m, &f), 0);
	map.error = -ESHUTDOWN;
	assert_int_equal(map_give(m), -ESHUTDOWN);
}

static void what_is_late_is_not_waited_for(void **state)
{
	struct patience p = { .deadline_ms = 1 };
	struct image_facts f = map_facts();

	map.is_blocking = false;
	assert_int_equal(object_map_take(m, &f, "auto 7", &p), -ETIMEDOUT);
	assert_true(fake_answer_planned(0));
	assert_int_equal(object_map_give(m, &p), -ETIMEDOUT);
	assert_true(fake_answer_planned(0));
}

static void names_that_are_too_long_are_refused(void **state)
{
	struct object_map *other = NULL;
	char id[200];

	memset(id, '1', sizeof(id));
	id[sizeof(id) - 1] = '\0';
	assert_int_equal(object_map_new(NULL, id, "rbd/image", &map_layout, &other), -ENAMETOOLONG);
	assert_null(other);
	assert_null(object_map_free(NULL));
}

/* ---- striping ---- */

static void a_striped_image_has_more_objects_than_its_size_says(void **state)
{
	const struct layout striped = { .object_size = OBJECT_SIZE,
					.stripe_unit = 512,
					.stripe_count = 4 };
	struct change c = { .wait.done = change_done };
	struct image_facts f = map_facts();

	object_map_free(m);
	assert_int_equal(object_map_new(NULL, "10", "rbd/image", &striped, &m), 0);
	f.size = (uint64_t)5 * OBJECT_SIZE;
	assert_int_equal(map_take(m, &f), 0);
	assert_int_equal(object_map_set(m, &c.wait, 8, OBJECT_EXISTS, CLS_ANY_STATE), STORE_DONE);
	assert_int_equal(c.wait.result, -ERANGE);
	assert_int_equal(object_map_set(m, &c.wait, 7, OBJECT_EXISTS, CLS_ANY_STATE), 0);
	assert_true(fake_answer_planned(0));
	assert_int_equal(c.wait.result, 0);
	assert_int_equal(map.states[7], OBJECT_EXISTS);
	assert_int_equal(map_give(m), 0);
}

/* ---- snapshots ---- */

static int take_with_snaps(uint64_t features)
{
	struct image_facts f = map_facts();
	uint64_t snaps[] = { 0x1f, 9, 4 };

	f.features = features;
	f.snaps = snaps;
	f.n_snaps = 3;
	return map_take(m, &f);
}

static void a_copy_is_in_all_snapshots_and_changed_in_none(void **state)
{
	struct change c = { .wait.done = change_done };

	assert_int_equal(take_with_snaps(4 | 8 | 16), 0);
	assert_int_equal(object_map_copyup(m, &c.wait, 77), 0);
	assert_int_equal(fake_waiting(), 3);
	assert_string_equal(map.snaps[0], "rbd_object_map.10.000000000000001f 77 3");
	assert_string_equal(map.snaps[1], "rbd_object_map.10.0000000000000009 77 3");
	assert_string_equal(map.snaps[2], "rbd_object_map.10.0000000000000004 77 1");
	/* A snapshot's map may be missing, or the snapshot be of a smaller image. */
	fake_answer(1, -ENOENT);
	fake_answer(1, -ERANGE);
	assert_int_equal(c.n_done, 0);
	fake_answer(0, 0);
	assert_int_equal(c.n_done, 1);
	assert_int_equal(c.wait.result, 0);
}

static void without_fast_diff_a_copy_just_exists(void **state)
{
	struct change c = { .wait.done = change_done };

	assert_int_equal(take_with_snaps(4 | 8), 0);
	assert_int_equal(object_map_copyup(m, &c.wait, 77), 0);
	assert_string_equal(map.snaps[0], "rbd_object_map.10.000000000000001f 77 1");
	assert_string_equal(map.snaps[2], "rbd_object_map.10.0000000000000004 77 1");
	while (fake_waiting())
		fake_answer(0, 0);
	assert_int_equal(c.n_done, 1);
}

static void a_snapshots_error_is_the_copys_error(void **state)
{
	struct change c = { .wait.done = change_done };

	assert_int_equal(take_with_snaps(4 | 8 | 16), 0);
	for (unsigned int failing = 0; failing < 3; failing++) {
		assert_int_equal(object_map_copyup(m, &c.wait, 77), 0);
		for (unsigned int i = 0; i < 3; i++)
			fake_answer(0, i == failing ? -ESHUTDOWN : i == 2 ? -EIO : 0);
		assert_int_equal(c.n_done, failing + 1);
		assert_int_equal(c.wait.result, -ESHUTDOWN);
	}
	osd.send_error = -EROFS;
	assert_int_equal(object_map_copyup(m, &c.wait, 77), STORE_DONE);
	assert_int_equal(c.wait.result, -EROFS);
	assert_int_equal(c.n_done, 3);
}

#define test(f) cmocka_unit_test_setup_teardown(f, setup, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		test(a_map_that_is_right_is_believed),
		test(an_image_without_a_map_needs_nothing),
		test(the_lock_of_a_dead_owner_is_broken),
		test(a_lock_that_cannot_be_had_is_an_error),
		test(a_map_that_is_marked_invalid_is_not_believed),
		test(a_map_that_is_too_short_is_marked_invalid_and_kept),
		test(what_is_left_of_a_larger_image_does_not_matter),
		test(a_map_that_cannot_be_read_is_marked_invalid),
		test(a_map_that_cannot_be_marked_is_an_error),
		test(a_lock_that_was_lost_is_given_back_all_the_same),
		test(what_is_late_is_not_waited_for),
		test(names_that_are_too_long_are_refused),
		test(a_striped_image_has_more_objects_than_its_size_says),
		test(a_copy_is_in_all_snapshots_and_changed_in_none),
		test(without_fast_diff_a_copy_just_exists),
		test(a_snapshots_error_is_the_copys_error),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
