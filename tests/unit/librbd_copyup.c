/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Copyright (C) 2026 the rbdcrypt-nbd authors */

/* How many objects of a clone are written for the first time at once: with objects of 16 MiB, four.
 */

#include "image_fixture.h"

#define OBJECT (16u << 20)
#define AT_ONCE 4
#define N 16

static struct store_io ios[N];
static bool is_done[N];

static void note(struct store_io *io)
{
	is_done[io - ios] = true;
}

static void must_open_as(const struct store_options *o, uint64_t size, uint64_t overlap)
{
	memset(ios, 0, sizeof(ios));
	memset(is_done, 0, sizeof(is_done));
	fake.object_size = OBJECT;
	fake.size = size;
	fake.overlap = overlap;
	must_open(o);
	fake.is_holding = true;
}

static void must_open_clone(void)
{
	const struct store_options o = { .timeout_s = 60 };

	must_open_as(&o, (uint64_t)2 * N * OBJECT, (uint64_t)N * OBJECT);
}

static int discard_at(unsigned int i, uint64_t off, uint64_t len)
{
	ios[i].done = note;
	is_done[i] = false;
	return fx.store->ops->discard(fx.store, &ios[i], off, len);
}

static int write_at(unsigned int i, uint64_t off, size_t len)
{
	static const unsigned char bytes[8192];

	is_done[i] = false;
	ios[i].done = note;
	return fx.store->ops->write(fx.store, &ios[i], off, bytes, len);
}

/* Of objects a..b-1, by the requests of these numbers. */
static void write_objects(unsigned int a, unsigned int b)
{
	for (unsigned int i = a; i < b; i++)
		assert_int_equal(write_at(i, (uint64_t)i * OBJECT + 4096, 4096), 0);
}

static void end_all(void)
{
	while (fake.n_held)
		fake_go_on();
}

static void the_others_wait_in_line(void **state)
{
	(void)state;
	fake.has_parent = true;
	must_open_clone();
	write_objects(0, N);
	for (unsigned int i = 0; i < N; i++) {
		assert_int_equal(fake.n_held, N - i < AT_ONCE ? N - i : AT_ONCE);
		assert_false(is_done[i]);
		fake_go_on();
		assert_true(is_done[i]);
		assert_int_equal(ios[i].result, 0);
	}
	assert_int_equal(fake.n_held, 0);
	/* All of them exist now. */
	write_objects(0, N);
	assert_int_equal(fake.n_held, N);
	end_all();
}

static void what_exists_is_written_past_them(void **state)
{
	(void)state;
	fake.has_parent = true;
	must_open_clone();
	write_objects(0, 2);
	end_all();
	write_objects(2, 8);
	assert_int_equal(fake.n_held, AT_ONCE);
	assert_int_equal(write_at(0, 0, 512), 0);
	assert_int_equal(write_at(1, OBJECT - 512, 1024), 0);
	/* Nor does the parent have anything there. */
	assert_int_equal(write_at(8, (uint64_t)N * OBJECT, 512), 0);
	assert_int_equal(fake.n_held, AT_ONCE + 3);
	/* But the second of these is new. */
	assert_int_equal(write_at(9, (uint64_t)2 * OBJECT - 512, 1024), 0);
	assert_int_equal(fake.n_held, AT_ONCE + 3);
	end_all();
	for (unsigned int i = 0; i < 10; i++)
		assert_true(is_done[i] && ios[i].result == 0);
}

static void who_waits_for_what_exists_now_waits_no_longer(void **state)
{
	(void)state;
	fake.has_parent = true;
	must_open_clone();
	for (unsigned int i = 0; i < N; i++)
		assert_int_equal(write_at(i, i * 4096u, 4096), 0);
	assert_int_equal(fake.n_held, AT_ONCE);
	fake_go_on();
	assert_int_equal(fake.n_held, N - 1);
	end_all();
}

/* And their place is the next one's, whether they fail at once or later. */
static void who_fails_has_made_nothing(void **state)
{
	(void)state;
	fake.has_parent = true;
	must_open_clone();
	write_objects(0, 8);
	make_fail("rbd_aio_write", -ESHUTDOWN, 0);
	fake_go_on(); /* four are in line */
	for (unsigned int i = 4; i < 8; i++)
		assert_true(is_done[i] && ios[i].result == -ESHUTDOWN);
	assert_int_equal(write_at(8, (uint64_t)8 * OBJECT, 512), STORE_DONE);
	assert_int_equal(ios[8].result, -ESHUTDOWN);
	assert_int_equal(fake.n_held, 3);
	make_fail("rbd_aio_write done", -EIO, 0);
	write_objects(4, 5);
	assert_int_equal(fake.n_held, 4);
	make_fail("", 0, 0);
	end_all();
	assert_int_equal(ios[4].result, -EIO);
	write_objects(4, 10);
	assert_int_equal(fake.n_held, AT_ONCE);
	end_all();
}

static void what_is_removed_may_not_be_there(void **state)
{
	(void)state;
	fake.has_parent = true;
	must_open_clone();
	for (unsigned int i = 0; i < 8; i++)
		assert_int_equal(discard_at(i, (uint64_t)i * OBJECT, 4096), 0);
	assert_int_equal(fake.n_held, AT_ONCE);
	end_all();
	write_objects(0, 8);
	assert_int_equal(fake.n_held, AT_ONCE);
	end_all();
}

/* In line it might wait until the image has grown, and then be a hole in an object. */
static void a_tail_of_an_encrypted_image_does_not_wait(void **state)
{
	const struct store_options o = { .timeout_s = 60, .is_encrypted = true };
	const uint64_t size = (uint64_t)(N - 1) * OBJECT + 8192;

	(void)state;
	fake.has_parent = true;
	must_open_as(&o, size, size);
	write_objects(0, 8);
	assert_int_equal(discard_at(8, (uint64_t)8 * OBJECT + 4096, OBJECT - 4096), 0);
	assert_int_equal(write_at(9, size - 8192, 4096), 0);
	assert_int_equal(fake.n_held, AT_ONCE);
	assert_int_equal(discard_at(10, size - 4096, 4096), 0);
	assert_int_equal(fake.n_held, AT_ONCE + 1);
	end_all();
	for (unsigned int i = 0; i <= 10; i++)
		assert_true(is_done[i] && ios[i].result == 0);
}

static void an_image_without_parent_has_no_line(void **state)
{
	(void)state;
	must_open_clone();
	write_objects(0, N);
	assert_int_equal(fake.n_held, N);
	end_all();
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(the_others_wait_in_line),
		TEST(what_exists_is_written_past_them),
		TEST(who_waits_for_what_exists_now_waits_no_longer),
		TEST(who_fails_has_made_nothing),
		TEST(what_is_removed_may_not_be_there),
		TEST(a_tail_of_an_encrypted_image_does_not_wait),
		TEST(an_image_without_parent_has_no_line),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
