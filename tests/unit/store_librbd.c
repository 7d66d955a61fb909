/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Copyright (C) 2026 the rbdcrypt-nbd authors */

/* IO, lock and watch of the librbd store, on a librbd that fails on demand. */

#include "image_fixture.h"

static void the_data_offset_is_added_once(void **state)
{
	const struct store_options o = { .timeout_s = 60,
					 .data_offset = 8192,
					 .is_encrypted = true };
	unsigned char buf[512] = "data", back[512];

	(void)state;
	must_open(&o);
	assert_int_equal(do_write(1024, buf, sizeof(buf)), 0);
	assert_memory_equal(fake.bytes + 8192 + 1024, buf, sizeof(buf));
	assert_int_equal(do_read(1024, back, sizeof(back)), 0);
	assert_memory_equal(back, buf, sizeof(buf));
	assert_int_equal(fx.io.n_extents, 1);
	assert_int_equal(fx.io.extents[0].dev_off, 1024);
	assert_int_equal(do_zero(8192, 8192, 0), 0);
	assert_int_equal(fake.last_off, 16384);
}

static void failures_arrive_however_they_come(void **state)
{
	const struct store_options o = { .timeout_s = 60 };
	const char *const names[] = { "rbd_aio_read", "rbd_aio_write", "rbd_aio_write_zeroes",
				      "rbd_aio_discard", "rbd_aio_flush" };
	unsigned char buf[512] = { 0 };
	char later[64];

	(void)state;
	must_open(&o);
	for (unsigned int i = 0; i < 5; i++)
		for (int way = 0; way < 3; way++) {
			int r = 0;

			(void)snprintf(later, sizeof(later), "%s%s",
				       way == 2 ? "rbd_aio_create_completion" : names[i],
				       way == 1 ? " done" : "");
			make_fail(later, -ESHUTDOWN, 0);
			if (i == 0)
				r = do_read(0, buf, sizeof(buf));
			else if (i == 1)
				r = do_write(0, buf, sizeof(buf));
			else if (i == 2)
				r = do_zero(0, 512, 0);
			else if (i == 3)
				r = do_discard(0, 512);
			else
				r = do_flush();
			assert_int_equal(r, -ESHUTDOWN);
			assert_int_equal(fake.completions, 0);
		}
}

static void a_short_read_is_an_error(void **state)
{
	const struct store_options o = { .timeout_s = 60 };
	unsigned char buf[512];

	(void)state;
	must_open(&o);
	fake.short_by = 1;
	assert_int_equal(do_read(0, buf, sizeof(buf)), -EIO);
	assert_int_equal(do_read(FAKE_SIZE - 512, buf, sizeof(buf)), -EIO);
}

static void what_the_image_lost_is_not_asked_for(void **state)
{
	const struct store_options o = { .timeout_s = 60, .data_offset = 8192 };
	unsigned char buf[8192] = { 0 };
	uint64_t size;

	(void)state;
	must_open(&o);
	fake.size = 32768;
	assert_int_equal(fx.store->ops->raw_size(fx.store, &size), 0);
	assert_int_equal(size, 32768);
	assert_int_equal(do_read(24576, buf, sizeof(buf)), -EIO);
	assert_int_equal(do_write(20480, buf, sizeof(buf)), -EIO);
	assert_int_equal(do_zero(UINT64_MAX - 8192, 4096, 0), -EIO);
	assert_int_equal(do_discard(24576, 4096), -EIO);
	assert_int_equal(do_status(24576, 4096), -EIO);
	assert_int_equal(fake.aios, 0);
	assert_int_equal(do_write(16384, buf, sizeof(buf)), 0);
	make_fail("rbd_get_size", -ESHUTDOWN, 0);
	assert_int_equal(fx.store->ops->raw_size(fx.store, &size), -ESHUTDOWN);
}

static void read_only_refuses_changes(void **state)
{
	const struct store_options o = { .timeout_s = 60, .is_read_only = true };
	unsigned char buf[512] = { 0 };

	(void)state;
	must_open(&o);
	assert_int_equal(do_write(0, buf, 512), -EROFS);
	assert_int_equal(do_zero(0, 512, 0), -EROFS);
	assert_int_equal(do_discard(0, 512), -EROFS);
	assert_int_equal(do_flush(), 0);
	assert_int_equal(fake.aios, 0);
	assert_int_equal(do_read(0, buf, 512), 0);
}

static void snapshots_are_read_only(void **state)
{
	const struct store_options o = { .timeout_s = 60, .is_exclusive = true };
	struct fault f = { 0 };
	unsigned char buf[512] = { 0 };

	(void)state;
	assert_int_equal(open_layer("img@snap", 60, &f), 0);
	assert_int_equal(open_store(&o, &f), 0);
	assert_int_equal(do_write(0, buf, 512), -EROFS);
	assert_int_equal(fake.is_owner, 0);
	/* It may be removed. */
	assert_int_equal(fake.watches, 1);
}

static void thick_zeros_are_asked_for_as_such(void **state)
{
	const struct store_options o = { .timeout_s = 60 };

	(void)state;
	must_open(&o);
	assert_int_equal(do_zero(0, 4096, STORE_ZERO_NO_HOLE), 0);
	assert_int_equal(fake.last_zero_flags, RBD_WRITE_ZEROES_FLAG_THICK_PROVISION);
	assert_int_equal(do_zero(0, 4096, 0), 0);
	assert_int_equal(fake.last_zero_flags, 0);
}

static void only_objects_ends_are_freed_when_encrypted(void **state)
{
	const struct store_options o = { .timeout_s = 60,
					 .data_offset = 4096,
					 .is_encrypted = true };
	uint64_t off, len;

	(void)state;
	must_open(&o);
	/* Raw 4096+4096=8192 begins an object. */
	fx.store->ops->freeable(fx.store, 0, 4096, &off, &len);
	assert_int_equal(off, 0);
	assert_int_equal(len, 4096);
	fx.store->ops->freeable(fx.store, 4096, 4096, &off, &len);
	assert_int_equal(len, 0);
	fx.store->ops->freeable(fx.store, 4096, 16384, &off, &len);
	assert_int_equal(off, 4096);
	assert_int_equal(len, 16384);
	fx.store->ops->freeable(fx.store, FAKE_SIZE, 4096, &off, &len);
	assert_int_equal(len, 0);
	assert_int_equal(do_discard(4096, 4096), 0);
	assert_int_equal(fake.aios, 0);
	assert_int_equal(do_discard(512, 8192), 0);
	assert_int_equal(fake.last_off, 4608);
	assert_int_equal(fake.last_len, 3584);
}

static void everything_is_freed_when_plain(void **state)
{
	const struct store_options o = { .timeout_s = 60 };
	uint64_t off, len;

	(void)state;
	must_open(&o);
	fx.store->ops->freeable(fx.store, 512, 1024, &off, &len);
	assert_int_equal(off, 512);
	assert_int_equal(len, 1024);
	assert_int_equal(do_discard(512, 1024), 0);
	assert_int_equal(fake.last_off, 512);
}

/* 16 objects of 8 KiB at a time, from the end. */
static void expect_pieces(int (*remove)(struct store *s, struct store_io *io, uint64_t dev_off,
					uint64_t len))
{
	static const uint64_t starts[] = { 393216, 262144, 131072, 4096 };
	uint64_t end = 400000;

	assert_int_equal(remove(fx.store, fresh(), 4096, end - 4096), 0);
	for (unsigned int i = 0; i < 4; i++) {
		assert_int_equal(fx.n_done, 0);
		assert_int_equal(fake.n_held, 1);
		assert_int_equal(fake.last_off, starts[i]);
		assert_int_equal(fake.last_off + fake.last_len, end);
		end = starts[i];
		fake_go_on();
	}
	assert_int_equal(fx.n_done, 1);
	assert_int_equal(fx.io.result, 0);
	assert_int_equal(fake.n_held, 0);
}

static int zero(struct store *s, struct store_io *io, uint64_t dev_off, uint64_t len)
{
	return s->ops->zero(s, io, dev_off, len, 0);
}

static void much_is_removed_piece_by_piece(void **state)
{
	const struct store_options o = { .timeout_s = 60 };

	(void)state;
	fake.size = 1 << 20;
	must_open(&o);
	fake.is_holding = true;
	expect_pieces(fx.store->ops->discard);
	expect_pieces(zero);
}

static void a_piece_that_fails_is_the_last(void **state)
{
	const struct store_options o = { .timeout_s = 60 };

	(void)state;
	fake.size = 1 << 20;
	must_open(&o);
	fake.is_holding = true;
	for (int way = 0; way < 3; way++) {
		uint64_t size;

		assert_int_equal(fx.store->ops->discard(fx.store, fresh(), 0, 1 << 20), 0);
		assert_int_equal(fake.n_held, 1);
		make_fail(way == 0 ? "rbd_aio_discard" : "rbd_aio_create_completion",
			  way < 2 ? -ESHUTDOWN : 0, 0);
		if (way == 2) { /* shrunk meanwhile */
			fake.size = 1 << 18;
			assert_int_equal(fx.store->ops->raw_size(fx.store, &size), 0);
		}
		fake_go_on();
		make_fail("", 0, 0);
		assert_int_equal(fake.n_held, 0);
		assert_int_equal(fx.n_done, 1);
		assert_int_equal(fx.io.result, way < 2 ? -ESHUTDOWN : -EIO);
		assert_int_equal(fake.completions, 0);
	}
}

/* Encrypted, the end of the image is a tail that may go only as long as it is the end: it is first.
 */
static void an_image_that_grows_meanwhile_loses_nothing(void **state)
{
	const struct store_options o = { .timeout_s = 60, .is_encrypted = true };

	(void)state;
	fake.size = 400000;
	must_open(&o);
	fake.is_holding = true;
	for (int is_promise = 0; is_promise < 2; is_promise++) {
		const struct store_ops *ops = fx.store->ops;
		uint64_t size;

		fake.size = 400000;
		assert_int_equal(ops->raw_size(fx.store, &size), 0);
		assert_int_equal(is_promise ? ops->zero(fx.store, fresh(), 262144, 137856, 0)
					    : ops->discard(fx.store, fresh(), 262144, 137856),
				 0);
		assert_int_equal(fake.last_off, 393216);
		assert_int_equal(fake.last_len, 400000 - 393216);
		fake.size = 500000;
		assert_int_equal(ops->raw_size(fx.store, &size), 0);
		fake_go_on();
		assert_int_equal(fake.last_off, 262144);
		assert_int_equal(fake.last_len, 131072);
		fake_go_on();
		assert_int_equal(fake.n_held, 0);
		assert_int_equal(fx.n_done, 1);
		assert_int_equal(fx.io.result, 0);
	}
}

static void striped_objects_are_freed_by_periods(void **state)
{
	const struct store_options o = { .timeout_s = 60, .is_encrypted = true };
	uint64_t off, len;

	(void)state;
	fake.stripe_count = 2;
	must_open(&o);
	assert_int_equal(fx.store->optimal_io, 4096);
	fx.store->ops->freeable(fx.store, 4096, 40960, &off, &len);
	assert_int_equal(off, 16384);
	assert_int_equal(len, 16384);
}

static void status_reports_what_nobody_found(void **state)
{
	const struct store_options o = { .timeout_s = 60, .data_offset = 4096 };

	(void)state;
	must_open(&o);
	/* In the order of objects, which is not that of the image; and too near to be a hole. */
	fake.extents[0] = (struct fake_extent){ .off = 40960, .len = 4096 };
	fake.extents[1] = (struct fake_extent){ .off = 4096, .len = 8192 };
	fake.extents[2] = (struct fake_extent){ .off = 13000, .len = 100 };
	fake.n_extents = 3;
	assert_int_equal(do_status(0, 49152), 0);
	assert_int_equal(fx.io.n_extents, 4);
	assert_false(fx.io.extents[0].is_hole);
	assert_int_equal(fx.io.extents[0].len, 12288);
	assert_true(fx.io.extents[1].is_hole);
	assert_int_equal(fx.io.extents[1].len, 36864 - 12288);
	assert_false(fx.io.extents[2].is_hole);
	assert_true(fx.io.extents[3].is_hole);
	fake.n_extents = 0;
	assert_int_equal(do_status(0, 4096), 0);
	assert_true(fx.io.extents[0].is_hole);
	make_fail("rbd_diff_iterate2", -ESHUTDOWN, 0);
	assert_int_equal(do_status(0, 4096), -ESHUTDOWN);
}

/* ---- lock, watch ---- */

static const char *lock_state(void)
{
	static struct store_lock lock;

	store_lock(fx.store, &lock);
	return lock.state;
}

static void the_lock_has_a_state(void **state)
{
	const struct store_options o = { .timeout_s = 60 },
				   exclusive = { .timeout_s = 60, .is_exclusive = true };
	struct store_lock lock;
	struct fault f = { 0 };

	(void)state;
	must_open(&o);
	assert_string_equal(lock_state(), "none");
	fake.owner = "10.0.0.9:0/1";
	assert_string_equal(lock_state(), "other");
	store_lock(fx.store, &lock);
	assert_string_equal(lock.owner, "10.0.0.9:0/1");
	make_fail("rbd_is_exclusive_lock_owner", -EIO, 0);
	assert_string_equal(lock_state(), "unknown");
	make_fail("rbd_lock_get_owners", -EACCES, 0);
	store_lock(fx.store, &lock);
	assert_string_equal(lock.state, "unknown");
	assert_string_equal(lock.owner, "");
	assert_string_equal(lock.why, "Permission denied");
	store_close(fx.store);

	make_fail("rbd_lock_acquire", -EROFS, 0);
	assert_int_equal(open_store(&exclusive, &f), -EBUSY);
	assert_int_equal(f.status, EXIT_LOCKED);
	assert_non_null(strstr(f.message, "10.0.0.9"));
	make_fail("", 0, 0);
	assert_int_equal(open_store(&exclusive, &f), 0);
	assert_string_equal(lock_state(), "owner");
	store_close(fx.store);
	fx.store = NULL;

	layer_close(fx.layer);
	fx.layer = NULL;
	fault_clear(&f);
	fake.features = RBD_FEATURE_LAYERING;
	assert_int_equal(open_layer("img", 60, &f), 0);
	assert_int_equal(open_store(&exclusive, &f), -EINVAL);
	assert_int_equal(f.status, EXIT_USAGE);
	assert_int_equal(open_store(&o, &f), 0);
	assert_string_equal(lock_state(), "-");
}

static void note(void *arg)
{
	++*(int *)arg;
}

static void changes_are_passed_on(void **state)
{
	const struct store_options o = { .timeout_s = 60 };
	int changes = 0;

	(void)state;
	must_open(&o);
	assert_int_equal(fake.watches, 1);
	fake.watch(fake.watch_arg); /* nobody listens yet */
	store_on_change(fx.store, note, &changes);
	fake.watch(fake.watch_arg);
	assert_int_equal(changes, 1);
	store_close(fx.store);
	fx.store = NULL;
	assert_int_equal(fake.watches, 0);
}

static void an_open_store_is_flushed_at_its_end(void **state)
{
	const struct store_options o = { .timeout_s = 60 },
				   read_only = { .timeout_s = 60, .is_read_only = true };
	struct fault f = { 0 };

	(void)state;
	must_open(&o);
	store_close(fx.store);
	fx.store = NULL;
	assert_int_equal(fake.flushes, 1);
	assert_int_equal(open_store(&read_only, &f), 0);
	store_close(fx.store);
	fx.store = NULL;
	assert_int_equal(fake.flushes, 1);
	/* One that is open by half has nothing, and its cluster may not answer. */
	make_fail("rbd_update_watch", -EIO, 0);
	assert_int_equal(open_store(&o, &f), -EIO);
	assert_int_equal(fake.flushes, 1);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(the_data_offset_is_added_once),
		TEST(failures_arrive_however_they_come),
		TEST(a_short_read_is_an_error),
		TEST(what_the_image_lost_is_not_asked_for),
		TEST(read_only_refuses_changes),
		TEST(snapshots_are_read_only),
		TEST(thick_zeros_are_asked_for_as_such),
		TEST(only_objects_ends_are_freed_when_encrypted),
		TEST(everything_is_freed_when_plain),
		TEST(much_is_removed_piece_by_piece),
		TEST(a_piece_that_fails_is_the_last),
		TEST(an_image_that_grows_meanwhile_loses_nothing),
		TEST(striped_objects_are_freed_by_periods),
		TEST(status_reports_what_nobody_found),
		TEST(the_lock_has_a_state),
		TEST(changes_are_passed_on),
		TEST(an_open_store_is_flushed_at_its_end),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
