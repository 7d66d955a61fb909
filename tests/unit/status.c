/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Copyright (C) 2026 the rbdcrypt-nbd authors */

/* The pieces of reads and status answers. */

#include "../../rbd/status.h"

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>

#include <cmocka.h>

static void expect(const struct store_io *io, unsigned int i, uint64_t off, uint64_t len,
		   bool is_hole)
{
	assert_true(i < io->n_extents);
	assert_int_equal(io->extents[i].dev_off, off);
	assert_int_equal(io->extents[i].len, len);
	assert_int_equal(io->extents[i].is_hole, is_hole);
	assert_int_equal(io->extents[i].layer, is_hole ? STORE_LAYER_ZERO : 0);
}

static void one_piece_needs_no_heap(void **state)
{
	struct store_io io = { 0 };

	(void)state;
	assert_int_equal(store_io_add(&io, 0, 10, 0, false), 0);
	assert_int_equal(store_io_add(&io, 10, 0, 1, false), 0);
	assert_int_equal(store_io_add(&io, 10, 5, 0, false), 0);
	assert_ptr_equal(io.extents, &io.one);
	expect(&io, 0, 0, 15, false);
	assert_int_equal(io.n_extents, 1);
	store_io_reset(&io);
	assert_int_equal(io.n_extents, 0);
	store_io_reset(&io);
}

static void many_pieces_are_kept_in_order(void **state)
{
	struct store_io io = { 0 };

	(void)state;
	for (unsigned int i = 0; i < 5000; i++)
		assert_int_equal(store_io_add(&io, i, 1, (uint16_t)(i % 3), false), 0);
	assert_int_equal(io.n_extents, 5000);
	for (unsigned int i = 0; i < 5000; i++) {
		assert_int_equal(io.extents[i].dev_off, i);
		assert_int_equal(io.extents[i].layer, i % 3);
	}
	store_io_reset(&io);
}

static void what_no_hole_covers_is_data(void **state)
{
	struct store_io io = { 0 };
	struct status st;

	(void)state;
	status_begin(&st, &io, 4096, 40960);
	assert_int_equal(status_hole(&st, 8192, 16384), 0);
	assert_int_equal(status_end(&st), 0);
	assert_int_equal(io.n_extents, 3);
	expect(&io, 0, 4096, 4096, false);
	expect(&io, 1, 8192, 8192, true);
	expect(&io, 2, 16384, 28672, false);
	store_io_reset(&io);
}

static void holes_shrink_to_sectors(void **state)
{
	struct store_io io = { 0 };
	struct status st;

	(void)state;
	status_begin(&st, &io, 0, 65536);
	assert_int_equal(status_hole(&st, 5000, 9000), 0); /* too small to count */
	assert_int_equal(status_hole(&st, 9000, 20000), 0);
	assert_int_equal(status_end(&st), 0);
	assert_int_equal(io.n_extents, 3);
	expect(&io, 1, 12288, 4096, true);
	store_io_reset(&io);
}

static void holes_are_cut_at_the_range(void **state)
{
	struct store_io io = { 0 };
	struct status st;

	(void)state;
	status_begin(&st, &io, 512, 1024);
	assert_int_equal(status_hole(&st, 0, 65536), 0);
	assert_int_equal(status_end(&st), 0);
	assert_int_equal(io.n_extents, 1);
	expect(&io, 0, 512, 1024, true);
	store_io_reset(&io);
}

static void long_answers_stop_early(void **state)
{
	struct store_io io = { 0 };
	struct status st;
	int r = 0;

	(void)state;
	status_begin(&st, &io, 0, 1ull << 40);
	for (uint64_t i = 0; r == 0; i++)
		r = status_hole(&st, i * 16384, i * 16384 + 4096);
	assert_int_equal(r, STATUS_FULL);
	assert_in_range(io.n_extents, 1000, 5000);
	store_io_reset(&io);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(one_piece_needs_no_heap),
		cmocka_unit_test(many_pieces_are_kept_in_order),
		cmocka_unit_test(what_no_hole_covers_is_data),
		cmocka_unit_test(holes_shrink_to_sectors),
		cmocka_unit_test(holes_are_cut_at_the_range),
		cmocka_unit_test(long_answers_stop_early),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
