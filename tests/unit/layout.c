/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Copyright (C) 2026 the rbdcrypt-nbd authors */

#include "../../rbd/layout.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>

#include <cmocka.h>

#define MIB (1ull << 20)

static const struct layout plain = { .object_size = 4 * MIB,
				     .stripe_unit = 4 * MIB,
				     .stripe_count = 1 };
static const struct layout striped = { .object_size = 4 * MIB,
				       .stripe_unit = MIB,
				       .stripe_count = 3 };

static void expect(const struct layout *l, uint64_t size, uint64_t off, uint64_t len,
		   uint64_t want_off, uint64_t want_len)
{
	uint64_t ret_off, ret_len;

	layout_freeable(l, size, off, len, &ret_off, &ret_len);
	assert_int_equal(ret_len, want_len);
	if (want_len)
		assert_int_equal(ret_off, want_off);
}

static void object_tails_can_go(void **state)
{
	(void)state;
	expect(&plain, 64 * MIB, 4 * MIB, 4 * MIB, 4 * MIB, 4 * MIB);
	expect(&plain, 64 * MIB, 5 * MIB, 3 * MIB, 5 * MIB, 3 * MIB);
	expect(&plain, 64 * MIB, 5 * MIB, 8 * MIB, 5 * MIB, 7 * MIB);
	expect(&plain, 64 * MIB, 8 * MIB - 512, 512, 8 * MIB - 512, 512);
}

static void middles_and_heads_cannot(void **state)
{
	(void)state;
	expect(&plain, 64 * MIB, 4 * MIB, 4 * MIB - 512, 0, 0);
	expect(&plain, 64 * MIB, 5 * MIB, MIB, 0, 0);
}

static void the_images_end_is_an_end(void **state)
{
	(void)state;
	expect(&plain, 63 * MIB, 61 * MIB, 2 * MIB, 61 * MIB, 2 * MIB);
	expect(&plain, 63 * MIB, 61 * MIB, 2 * MIB - 512, 0, 0);
	expect(&striped, 63 * MIB, 60 * MIB, 3 * MIB, 60 * MIB, 3 * MIB);
}

static void striped_images_free_whole_periods(void **state)
{
	(void)state;
	expect(&striped, 48 * MIB, 12 * MIB, 12 * MIB, 12 * MIB, 12 * MIB);
	expect(&striped, 48 * MIB, 11 * MIB, 26 * MIB, 12 * MIB, 24 * MIB);
	expect(&striped, 48 * MIB, 13 * MIB, 12 * MIB, 0, 0);
	expect(&striped, 48 * MIB, 13 * MIB, 3 * MIB, 0, 0);
}

/* Against the definition: what goes must be, in each object, all or a tail of it. */
static void every_part_is_a_tail(void **state)
{
	const struct layout layouts[] = {
		{ .object_size = 8, .stripe_unit = 8, .stripe_count = 1 },
		{ .object_size = 8, .stripe_unit = 2, .stripe_count = 3 },
	};
	const uint64_t size = 61;

	(void)state;
	for (unsigned int n = 0; n < 2; n++)
		for (uint64_t off = 0; off < size; off++)
			for (uint64_t end = off; end <= size; end++) {
				const struct layout *l = &layouts[n];
				uint64_t from, len, set = l->object_size * l->stripe_count;
				bool is_kept[64] = { false };

				layout_freeable(l, size, off, end - off, &from, &len);
				if (len == 0)
					continue;
				assert_true(from >= off && from + len <= end);
				/* From the end backwards: once a byte of an object stays, all
				 * before it do. */
				for (uint64_t raw = size; raw-- > 0;) {
					uint64_t su = raw / l->stripe_unit;
					uint64_t object = raw / set * l->stripe_count +
							  su % l->stripe_count;
					bool goes = raw >= from && raw < from + len;

					assert_false(goes && is_kept[object]);
					is_kept[object] |= !goes;
				}
			}
}

/* By going through all of its bytes' units. */
static uint64_t highest_object(const struct layout *l, uint64_t size)
{
	uint64_t highest = 0, object, at;

	for (uint64_t off = 0; off < size; off += l->stripe_unit) {
		(void)layout_object(l, off, &object, &at);
		if (object >= highest)
			highest = object + 1;
	}
	return highest;
}

static void every_object_of_an_image_is_counted(void **state)
{
	const struct layout layouts[] = {
		{ .object_size = 8, .stripe_unit = 8, .stripe_count = 1 },
		{ .object_size = 8, .stripe_unit = 2, .stripe_count = 3 },
		{ .object_size = 8, .stripe_unit = 8, .stripe_count = 3 },
		{ .object_size = 8, .stripe_unit = 4, .stripe_count = 5 },
	};

	(void)state;
	for (unsigned int i = 0; i < sizeof(layouts) / sizeof(layouts[0]); i++)
		for (uint64_t size = 0; size < 200; size++)
			assert_int_equal(layout_objects(&layouts[i], size),
					 highest_object(&layouts[i], size));
	/* As librbd counts: 20 MiB in stripes of 4 x 64 KiB are objects 0 to 7, not 0 to 4. */
	assert_int_equal(layout_objects(&(struct layout){ .object_size = 4 * MIB,
							  .stripe_unit = 64 << 10,
							  .stripe_count = 4 },
					20 * MIB),
			 8);
}

static void expect_object(const struct layout *l, uint64_t off, uint64_t want, uint64_t want_off,
			  uint64_t want_run)
{
	uint64_t object, object_off;

	assert_int_equal(layout_object(l, off, &object, &object_off), want_run);
	assert_int_equal(object, want);
	assert_int_equal(object_off, want_off);
}

static void bytes_lie_in_one_object_after_the_other(void **state)
{
	(void)state;
	expect_object(&plain, 0, 0, 0, 4 * MIB);
	expect_object(&plain, 4 * MIB - 1, 0, 4 * MIB - 1, 1);
	expect_object(&plain, 9 * MIB, 2, MIB, 3 * MIB);
}

static void pieces_end_where_objects_end(void **state)
{
	const struct layout by_three = { .object_size = 4 * MIB,
					 .stripe_unit = 64 << 10,
					 .stripe_count = 3 };

	(void)state;
	assert_int_equal(layout_last_piece(&plain, 0, 64 * MIB, 16), 64 * MIB);
	assert_int_equal(layout_last_piece(&plain, 0, 65 * MIB, 16), MIB);
	assert_int_equal(layout_last_piece(&plain, 5 * MIB, 123 * MIB, 16), 64 * MIB);
	assert_int_equal(layout_last_piece(&plain, 5 * MIB, 7, 16), 7);
	assert_int_equal(layout_last_piece(&plain, 5 * MIB, 8 * MIB + 1, 1), MIB + 1);
	/* Five periods of three objects; one where a single period has more than is asked for. */
	assert_int_equal(layout_last_piece(&by_three, MIB, 119 * MIB, 16), 60 * MIB);
	assert_int_equal(layout_last_piece(&by_three, MIB, 20 * MIB, 2), 9 * MIB);
}

static void bytes_take_turns_among_the_objects_of_a_stripe(void **state)
{
	(void)state;
	expect_object(&striped, 0, 0, 0, MIB);
	expect_object(&striped, MIB + 5, 1, 5, MIB - 5);
	expect_object(&striped, 3 * MIB, 0, MIB, MIB);
	expect_object(&striped, 12 * MIB - 1, 2, 4 * MIB - 1, 1);
	expect_object(&striped, 12 * MIB, 3, 0, MIB);
	expect_object(&striped, 16 * MIB, 4, MIB, MIB);
}

/* Every byte has a place of its own, and a run is one. */
static void no_two_bytes_share_a_place(void **state)
{
	const struct layout l = { .object_size = 8, .stripe_unit = 2, .stripe_count = 3 };
	bool is_taken[12][8] = { { false } };

	(void)state;
	for (uint64_t off = 0; off < 4 * 24; off++) {
		uint64_t object, at, next, next_at;

		if (layout_object(&l, off, &object, &at) > 1) {
			assert_int_equal(layout_object(&l, off + 1, &next, &next_at), 1);
			assert_true(next == object && next_at == at + 1);
		}
		assert_false(is_taken[object][at]);
		is_taken[object][at] = true;
	}
}

/* The table of librbd-encryption 4.2: 64 MiB of parent, headers of 0, 4 and 16 MiB. */
static void clones_see_the_smaller_of_both_data_areas(void **state)
{
	(void)state;
	assert_int_equal(layout_overlap(64 * MIB, 4 * MIB, 64 * MIB, 0), 60 * MIB);
	assert_int_equal(layout_overlap(64 * MIB, 16 * MIB, 64 * MIB, 0), 48 * MIB);
	assert_int_equal(layout_overlap(64 * MIB, 4 * MIB, 64 * MIB, 4 * MIB), 60 * MIB);
	assert_int_equal(layout_overlap(64 * MIB, 16 * MIB, 64 * MIB, 4 * MIB), 48 * MIB);
	assert_int_equal(layout_overlap(64 * MIB, 16 * MIB, 64 * MIB, 16 * MIB), 48 * MIB);
	assert_int_equal(layout_overlap(64 * MIB, 4 * MIB, 64 * MIB, 16 * MIB), 48 * MIB);
	/* Not a byte is rounded, and no header is larger than what it is in. */
	assert_int_equal(layout_overlap(30 * MIB + 7, 4 * MIB, 64 * MIB, 0), 26 * MIB + 7);
	assert_int_equal(layout_overlap(3 * MIB, 4 * MIB, 64 * MIB, 0), 0);
	assert_int_equal(layout_overlap(64 * MIB, 0, 3 * MIB, 4 * MIB), 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(object_tails_can_go),
		cmocka_unit_test(middles_and_heads_cannot),
		cmocka_unit_test(the_images_end_is_an_end),
		cmocka_unit_test(striped_images_free_whole_periods),
		cmocka_unit_test(every_part_is_a_tail),
		cmocka_unit_test(bytes_lie_in_one_object_after_the_other),
		cmocka_unit_test(pieces_end_where_objects_end),
		cmocka_unit_test(bytes_take_turns_among_the_objects_of_a_stripe),
		cmocka_unit_test(no_two_bytes_share_a_place),
		cmocka_unit_test(every_object_of_an_image_is_counted),
		cmocka_unit_test(clones_see_the_smaller_of_both_data_areas),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
