/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Copyright (C) 2026 the rbdcrypt-nbd authors */

/*
 * Reads that go straight to their object: which do, and that each is answered with what librbd
 * would have said. The objects of this fake are those of fake_librbd.h, 8 KiB each.
 */

#include "image_fixture.h"

#define N_OBJECTS (FAKE_SIZE / FAKE_OBJECT)

static struct {
	unsigned int asked; /* reads of objects */
	int result; /* of each, when not 0 */
	unsigned int missing, bad; /* a bit for each object */
	size_t object_len; /* of each */
} objects;

int rbd_get_block_name_prefix(rbd_image_t image, char *buf, size_t len)
{
	STRIKE();
	(void)snprintf(buf, len, "rbd_data.1f");
	return 0;
}

int64_t rbd_get_data_pool_id(rbd_image_t image)
{
	STRIKE();
	return 7;
}

int rados_aio_create_completion2(void *arg, rados_callback_t cb, rados_completion_t *ret)
{
	return rbd_aio_create_completion(arg, (rbd_callback_t)cb, ret);
}

void rados_aio_release(rados_completion_t c)
{
	rbd_aio_release(c);
}

int rados_aio_get_return_value(rados_completion_t c)
{
	return (int)rbd_aio_get_return_value(c);
}

int rados_aio_read(rados_ioctx_t io, const char *name, rados_completion_t c, char *buf, size_t len,
		   uint64_t off)
{
	unsigned int n;

	STRIKE();
	objects.asked++;
	assert_int_equal(sscanf(name, "rbd_data.1f.%16x", &n), 1);
	assert_true(n < N_OBJECTS && off + len <= FAKE_OBJECT);
	if (objects.missing & (1u << n))
		return fake_finish(__func__, c, -ENOENT);
	if (objects.bad & (1u << n))
		return fake_finish(__func__, c, -ETIMEDOUT);
	if (objects.result)
		return fake_finish(__func__, c, objects.result);
	len = off >= objects.object_len	       ? 0
	      : off + len > objects.object_len ? objects.object_len - off
					       : len;
	memcpy(buf, fake.bytes + n * FAKE_OBJECT + off, len);
	return fake_finish(__func__, c, (ssize_t)len);
}

static void must_open_direct(void)
{
	const struct store_options o = { .timeout_s = 60, .has_direct_reads = true };

	memset(&objects, 0, sizeof(objects));
	objects.object_len = FAKE_OBJECT;
	for (unsigned int i = 0; i < FAKE_SIZE; i++)
		fake.bytes[i] = (unsigned char)(i * 7 + i / 256 + 1);
	must_open(&o);
}

/* The whole range as the image has it, by so many reads of objects, and so many by librbd. */
static void expect_reads(uint64_t off, size_t len, unsigned int asked, unsigned int by_librbd)
{
	unsigned char back[FAKE_SIZE];
	unsigned int aios = fake.aios;

	memset(back, 0xee, sizeof(back));
	objects.asked = 0;
	assert_int_equal(do_read(off, back, len), 0);
	assert_memory_equal(back, fake.bytes + off, len);
	assert_int_equal(objects.asked, asked);
	assert_int_equal(fake.aios - aios, asked + by_librbd);
	assert_int_equal(fx.io.n_extents, 1);
	assert_int_equal(fx.io.extents[0].dev_off, off);
	assert_int_equal(fx.io.extents[0].len, len);
	assert_int_equal(fx.io.extents[0].layer, 0);
}

static void expect_read(uint64_t off, size_t len, unsigned int asked)
{
	expect_reads(off, len, asked, asked ? 0 : 1);
}

static void a_read_within_an_object_goes_there(void **state)
{
	(void)state;
	must_open_direct();
	expect_read(0, 512, 1);
	expect_read(FAKE_OBJECT, FAKE_OBJECT, 1);
	expect_read(FAKE_SIZE - 512, 512, 1);
}

static void a_read_across_objects_goes_to_each(void **state)
{
	(void)state;
	must_open_direct();
	expect_read(FAKE_OBJECT - 512, 1024, 2);
	expect_read(512, FAKE_OBJECT, 2);
	expect_read(0, FAKE_SIZE, N_OBJECTS);
}

static void of_many_pieces_librbd_makes_few(void **state)
{
	(void)state;
	fake.object_size = 2048;
	must_open_direct();
	expect_read(0, FAKE_SIZE, 0);
}

static void each_object_lacks_what_it_lacks(void **state)
{
	(void)state;
	must_open_direct();
	objects.object_len = 1024;
	for (unsigned int n = 0; n < N_OBJECTS; n++)
		memset(fake.bytes + n * FAKE_OBJECT + 1024, 0, FAKE_OBJECT - 1024);
	expect_read(512, FAKE_SIZE - 512, N_OBJECTS);
	objects.missing = 2;
	memset(fake.bytes + FAKE_OBJECT, 0, FAKE_OBJECT);
	expect_read(512, FAKE_SIZE - 512, N_OBJECTS);
}

static void an_error_of_one_object_is_the_readers(void **state)
{
	unsigned char back[FAKE_SIZE];

	(void)state;
	must_open_direct();
	objects.bad = 4;
	assert_int_equal(do_read(0, back, sizeof(back)), -ETIMEDOUT);
	assert_int_equal(do_read(2 * FAKE_OBJECT - 1, back, 2), -ETIMEDOUT);
	expect_read(0, 2 * FAKE_OBJECT, 2);
}

static void what_an_object_lacks_is_zeros(void **state)
{
	unsigned char back[4096];

	(void)state;
	must_open_direct();
	objects.object_len = 1024;
	memset(fake.bytes + 1024, 0, FAKE_OBJECT - 1024);
	expect_read(512, 2048, 1);
	expect_read(4096, 4096, 1);
	objects.missing = 1;
	memset(back, 0xee, sizeof(back));
	assert_int_equal(do_read(0, back, sizeof(back)), 0);
	for (unsigned int i = 0; i < sizeof(back); i++)
		assert_int_equal(back[i], 0);
}

/* The fake's librbd has the parent's bytes where the clone has no object. */
static void of_a_missing_object_a_clone_asks_librbd(void **state)
{
	(void)state;
	fake.has_parent = true;
	must_open_direct();
	objects.missing = 1;
	expect_reads(512, 2048, 1, 1);
	expect_read(FAKE_OBJECT, 2048, 1);
	assert_int_equal(fake.completions, 0);
	make_fail("rbd_aio_read", -ESHUTDOWN, 0);
	assert_int_equal(do_read(512, fake.bytes, 512), -ESHUTDOWN);
	make_fail("rbd_aio_read done", -EIO, 0);
	assert_int_equal(do_read(512, fake.bytes, 512), -EIO);
	assert_int_equal(do_read(FAKE_OBJECT - 512, fake.bytes, 1024), -EIO);
}

static void of_one_that_is_missing_among_others_too(void **state)
{
	(void)state;
	fake.has_parent = true;
	must_open_direct();
	objects.missing = 2;
	expect_reads(512, 3 * FAKE_OBJECT, 4, 1);
}

static void errors_of_objects_are_the_readers(void **state)
{
	unsigned char back[512];

	(void)state;
	must_open_direct();
	objects.result = -ESHUTDOWN;
	assert_int_equal(do_read(0, back, sizeof(back)), -ESHUTDOWN);
	objects.result = 513;
	assert_int_equal(do_read(0, back, sizeof(back)), -EIO);
	objects.result = 0;
	/* What cannot be sent, librbd gets. */
	make_fail("rados_aio_read", -ENOMEM, 0);
	expect_reads(0, 512, 0, 1);
	expect_reads(0, FAKE_SIZE, 0, N_OBJECTS);
	assert_int_equal(fake.completions, 0);
}

static void what_the_image_lost_is_not_read(void **state)
{
	unsigned char back[8192];
	uint64_t size;

	(void)state;
	must_open_direct();
	fake.size = 4096;
	assert_int_equal(fx.store->ops->raw_size(fx.store, &size), 0);
	assert_int_equal(do_read(0, back, sizeof(back)), -EIO);
	expect_read(0, 4096, 1);
}

static void set_and_look(const char **setting, const char *value)
{
	uint64_t size;

	*setting = value;
	assert_int_equal(fx.store->ops->raw_size(fx.store, &size), 0);
}

/* Also when it is configured, or no longer, while the store is open. */
static void what_librbd_has_to_see_to_it_reads(void **state)
{
	(void)state;
	must_open_direct();
	set_and_look(&fake.limit, "100");
	expect_read(0, 512, 0);
	set_and_look(&fake.limit, "0");
	expect_read(0, 512, 1);
	set_and_look(&fake.replica, "balance");
	expect_read(0, 512, 0);
	set_and_look(&fake.replica, "default");
	set_and_look(&fake.cache, "true");
	expect_read(0, 512, 0);
	set_and_look(&fake.cache, "false");
	expect_read(0, 512, 1);
	make_fail("rbd_config_image_list", -EIO, 0);
	set_and_look(&fake.cache, "false");
	expect_read(0, 512, 0);
}

/* librbd makes its cache when it opens the image, and has it until it closes that. */
static void a_cache_that_was_there_first_is_not_read_past(void **state)
{
	(void)state;
	fake.cache = "true";
	must_open_direct();
	expect_read(0, 512, 0);
	set_and_look(&fake.cache, "false");
	expect_read(0, 512, 0);
}

static void nobody_reads_there_who_was_not_told_to(void **state)
{
	const struct store_options o = { .timeout_s = 60 };
	uint64_t size;

	(void)state;
	memset(&objects, 0, sizeof(objects));
	must_open(&o);
	assert_int_equal(fx.store->ops->raw_size(fx.store, &size), 0);
	expect_read(0, 512, 0);
}

static void where_the_objects_are_unknown_librbd_reads(void **state)
{
	(void)state;
	make_fail("rbd_get_block_name_prefix", -EIO, 0);
	must_open_direct();
	expect_read(0, 512, 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(a_read_within_an_object_goes_there),
		TEST(a_read_across_objects_goes_to_each),
		TEST(of_many_pieces_librbd_makes_few),
		TEST(each_object_lacks_what_it_lacks),
		TEST(an_error_of_one_object_is_the_readers),
		TEST(what_an_object_lacks_is_zeros),
		TEST(of_a_missing_object_a_clone_asks_librbd),
		TEST(of_one_that_is_missing_among_others_too),
		TEST(errors_of_objects_are_the_readers),
		TEST(what_the_image_lost_is_not_read),
		TEST(what_librbd_has_to_see_to_it_reads),
		TEST(a_cache_that_was_there_first_is_not_read_past),
		TEST(nobody_reads_there_who_was_not_told_to),
		TEST(where_the_objects_are_unknown_librbd_reads),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
