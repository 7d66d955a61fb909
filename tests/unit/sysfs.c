/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Copyright (C) 2026 the rbdcrypt-nbd authors */

/*
 * What the kernel says of a device, read from a tree made up here.
 */

#include "tree.h"

static void a_connected_device_is_read_whole(void **state)
{
	struct tree *t = *state;
	struct nbd_sysfs s;

	assert_int_equal(sysfs_read_at(t->block_fd, 3, &s), 0);
	assert_true(s.is_connected);
	assert_int_equal(s.pid, 4711);
	assert_int_equal(s.size, 1ull << 30);
	assert_false(s.is_read_only);
	assert_int_equal(s.logical_block, 512);
	assert_int_equal(s.physical_block, 4096);
	assert_true(s.has_write_cache);
	assert_true(s.has_fua);
	assert_int_equal(s.discard_max, 2199023255040ull);
	assert_int_equal(s.write_zeroes_max, 0);
	assert_int_equal(s.max_hw_kib, 32768);
	assert_string_equal(s.cookie, "rbd/vol one");
}

static void an_idle_device_has_no_pid_and_no_cookie(void **state)
{
	struct tree *t = *state;
	struct nbd_sysfs s;

	drop(t, "block/nbd3/pid");
	drop(t, "block/nbd3/backend");
	put(t, "block/nbd3/queue/write_cache", "write through\n");
	put(t, "block/nbd3/ro", "1\n");
	assert_int_equal(sysfs_read_at(t->block_fd, 3, &s), 0);
	assert_false(s.is_connected);
	assert_int_equal(s.pid, 0);
	assert_string_equal(s.cookie, "");
	assert_false(s.has_write_cache);
	assert_true(s.is_read_only);
}

static void attributes_an_old_kernel_lacks_are_not_offered(void **state)
{
	struct tree *t = *state;
	struct nbd_sysfs s;

	drop(t, "block/nbd3/queue/fua");
	drop(t, "block/nbd3/queue/write_cache");
	drop(t, "block/nbd3/queue/write_zeroes_max_bytes");
	drop(t, "block/nbd3/queue/max_hw_sectors_kb");
	assert_int_equal(sysfs_read_at(t->block_fd, 3, &s), 0);
	assert_false(s.has_fua);
	assert_false(s.has_write_cache);
	assert_int_equal(s.max_hw_kib, 0);
}

static void a_missing_device_is_enodev(void **state)
{
	struct tree *t = *state;
	struct nbd_sysfs s = { .size = 77 };
	char who[64];

	assert_int_equal(sysfs_read_at(t->block_fd, 4, &s), -ENODEV);
	assert_int_equal(s.size, 77);
	assert_int_equal(nbd_sysfs_read(1 << 29, &s), -ENODEV);
	assert_int_equal(nbd_sync(1 << 29), -ENODEV);
	assert_int_equal(nbd_in_use(1 << 29, who, sizeof(who)), -ENODEV);
	assert_int_equal(nbd_udev_settle(1 << 29, 10, NULL), -ENODEV);
}

static void nonsense_in_an_attribute_is_an_error(void **state)
{
	static const struct {
		const char *path, *text;
		int error;
	} table[] = {
		{ "block/nbd3/size", "many\n", -EINVAL },
		{ "block/nbd3/size", "-1\n", -EINVAL },
		{ "block/nbd3/size", "1 2\n", -EINVAL },
		{ "block/nbd3/size", "\n", -EINVAL },
		{ "block/nbd3/size", "36028797018963968\n", -ERANGE }, /* 2^64 bytes */
		{ "block/nbd3/size", "18446744073709551616\n", -ERANGE },
		{ "block/nbd3/size", "000000000000000000000000000000000\n", -EOVERFLOW },
		{ "block/nbd3/ro", "x\n", -EINVAL },
		{ "block/nbd3/pid", "x\n", -EINVAL },
		{ "block/nbd3/pid", "2147483648\n", -ERANGE },
		{ "block/nbd3/pid", "000000000000000000000000000000000\n", -EOVERFLOW },
		{ "block/nbd3/queue/logical_block_size", "4294967296\n", -ERANGE },
		{ "block/nbd3/queue/write_cache", "a very long name for a kind of cache\n",
		  -EOVERFLOW },
	};
	struct tree *t = *state;
	unsigned int i;

	for (i = 0; i < sizeof(table) / sizeof(table[0]); i++) {
		char full[300], old[64] = "";
		struct nbd_sysfs s = { .size = 77 };
		FILE *f;

		(void)snprintf(full, sizeof(full), "%s/%s", t->path, table[i].path);
		f = fopen(full, "r");
		assert_non_null(f);
		assert_non_null(fgets(old, sizeof(old), f));
		(void)fclose(f);
		put(t, table[i].path, table[i].text);
		assert_int_equal(sysfs_read_at(t->block_fd, 3, &s), table[i].error);
		assert_int_equal(s.size, 77);
		put(t, table[i].path, old);
	}
}

static void a_cookie_too_long_is_an_error_not_a_shorter_cookie(void **state)
{
	struct tree *t = *state;
	char cookie[8192];
	struct nbd_sysfs s;

	memset(cookie, 'c', sizeof(cookie));
	put_bytes(t, "block/nbd3/backend", cookie, 511);
	assert_int_equal(sysfs_read_at(t->block_fd, 3, &s), 0);
	assert_int_equal(strlen(s.cookie), 511);
	put_bytes(t, "block/nbd3/backend", cookie, 512);
	assert_int_equal(sysfs_read_at(t->block_fd, 3, &s), -EOVERFLOW);
	put_bytes(t, "block/nbd3/backend", cookie, sizeof(cookie));
	assert_int_equal(sysfs_read_at(t->block_fd, 3, &s), -EOVERFLOW);
}

static void an_index_is_a_number_or_a_device_name(void **state)
{
	static const char *const good[] = { "/dev/nbd12", "nbd12", "12" };
	static const char *const bad[] = { "",
					   "nbd",
					   "/dev/",
					   "/dev/nbd",
					   "/dev/12",
					   "nbd-1",
					   "+1",
					   " 1",
					   "1 ",
					   "nbd1p1",
					   "nbd01",
					   "nbdnbd1",
					   "/dev/nbdnbd1",
					   "2147483648",
					   "0x1",
					   "99999999999999999999",
					   "sda",
					   "/dev/rbd1",
					   "rbd/img" };
	unsigned int i;
	int index;

	for (i = 0; i < 3; i++) {
		index = -1;
		assert_int_equal(nbd_index_parse(good[i], &index), 0);
		assert_int_equal(index, 12);
	}
	assert_int_equal(nbd_index_parse("0", &index), 0);
	assert_int_equal(index, 0);
	index = -7;
	for (i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
		assert_int_equal(nbd_index_parse(bad[i], &index), -EINVAL);
		assert_int_equal(index, -7);
	}
}

static void a_device_number_is_two_numbers(void **state)
{
	static const char *const bad[] = { "43\n", "43:\n", "43:48:1\n", "x:y\n", "\n" };
	struct tree *t = *state;
	unsigned int i;
	dev_t devno = 0;

	assert_int_equal(sysfs_devno_at(t->block_fd, "nbd3/dev", &devno), 0);
	assert_true(devno == makedev(43, 48));
	for (i = 0; i < 5; i++) {
		put(t, "block/nbd3/dev", bad[i]);
		assert_int_equal(sysfs_devno_at(t->block_fd, "nbd3/dev", &devno), -EINVAL);
	}
	assert_int_equal(sysfs_devno_at(t->block_fd, "nbd3/nothing", &devno), -ENOENT);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(a_connected_device_is_read_whole, setup, teardown),
		cmocka_unit_test_setup_teardown(an_idle_device_has_no_pid_and_no_cookie, setup,
						teardown),
		cmocka_unit_test_setup_teardown(attributes_an_old_kernel_lacks_are_not_offered,
						setup, teardown),
		cmocka_unit_test_setup_teardown(a_missing_device_is_enodev, setup, teardown),
		cmocka_unit_test_setup_teardown(nonsense_in_an_attribute_is_an_error, setup,
						teardown),
		cmocka_unit_test_setup_teardown(a_cookie_too_long_is_an_error_not_a_shorter_cookie,
						setup, teardown),
		cmocka_unit_test_setup_teardown(an_index_is_a_number_or_a_device_name, setup,
						teardown),
		cmocka_unit_test_setup_teardown(a_device_number_is_two_numbers, setup, teardown),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
