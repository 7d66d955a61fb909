/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Copyright (C) 2026 the rbdcrypt-nbd authors */

/*
 * sysfs, who uses a device, udev and modprobe against file trees made up here: no
 * kernel driver, no root. The real ones are met in tests/component/nbdctl_check.c.
 */

#include <errno.h>
#include <fcntl.h>
#include <ftw.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#include <cmocka.h>

#include "../../nbd/internal.h"

/* ---- a tree in a temporary folder ---- */

struct tree {
	char path[64];
	int block_fd; /* PATH/block */
};

static int remove_one(const char *path, const struct stat *st, int type, struct FTW *ftw)
{
	return remove(path);
}

static void make_dirs(const struct tree *t, const char *path)
{
	char full[300], *p;

	(void)snprintf(full, sizeof(full), "%s/%s", t->path, path);
	for (p = full + strlen(t->path) + 1; (p = strchr(p, '/')); p++) {
		*p = 0;
		(void)mkdir(full, 0755);
		*p = '/';
	}
}

static void put_bytes(const struct tree *t, const char *path, const char *text, size_t len)
{
	char full[300];
	FILE *f;

	make_dirs(t, path);
	(void)snprintf(full, sizeof(full), "%s/%s", t->path, path);
	f = fopen(full, "w");
	assert_non_null(f);
	assert_int_equal(fwrite(text, 1, len, f), len);
	assert_int_equal(fclose(f), 0);
}

static void put(const struct tree *t, const char *path, const char *text)
{
	put_bytes(t, path, text, strlen(text));
}

static void put_dir(const struct tree *t, const char *path)
{
	char full[300];

	make_dirs(t, path);
	(void)snprintf(full, sizeof(full), "%s/%s", t->path, path);
	assert_int_equal(mkdir(full, 0755), 0);
}

static void drop(const struct tree *t, const char *path)
{
	char full[300];

	(void)snprintf(full, sizeof(full), "%s/%s", t->path, path);
	assert_int_equal(unlink(full), 0);
}

/* nbd3 as Linux 6.1 shows it: connected, 1 GiB, with one partition, used by nobody. */
static int setup(void **state)
{
	struct tree *t = calloc(1, sizeof(*t));
	char block[80];

	assert_non_null(t);
	strcpy(t->path, "/tmp/sysfs-test-XXXXXX");
	assert_non_null(mkdtemp(t->path));
	put(t, "block/nbd3/dev", "43:48\n");
	put(t, "block/nbd3/pid", "4711\n");
	put(t, "block/nbd3/backend", "rbd/vol one\n");
	put(t, "block/nbd3/size", "2097152\n");
	put(t, "block/nbd3/ro", "0\n");
	put(t, "block/nbd3/uevent", "");
	put(t, "block/nbd3/queue/logical_block_size", "512\n");
	put(t, "block/nbd3/queue/physical_block_size", "4096\n");
	put(t, "block/nbd3/queue/write_cache", "write back\n");
	put(t, "block/nbd3/queue/fua", "1\n");
	put(t, "block/nbd3/queue/discard_max_bytes", "2199023255040\n");
	put(t, "block/nbd3/queue/write_zeroes_max_bytes", "0\n");
	put(t, "block/nbd3/queue/max_hw_sectors_kb", "32768\n");
	put_dir(t, "block/nbd3/holders");
	put(t, "block/nbd3/nbd3p1/dev", "43:49\n");
	put_dir(t, "block/nbd3/nbd3p1/holders");
	put(t, "proc/self/mountinfo", "21 1 8:1 / / rw - ext4 /dev/sda1 rw\n");
	put(t, "proc/swaps", "Filename\t\t\t\tType\t\tSize\t\tUsed\t\tPriority\n");
	put_dir(t, "dev");
	(void)snprintf(block, sizeof(block), "%s/block", t->path);
	t->block_fd = open(block, O_PATH | O_DIRECTORY);
	assert_true(t->block_fd >= 0);
	*state = t;
	return 0;
}

static int teardown(void **state)
{
	struct tree *t = *state;

	close(t->block_fd);
	assert_int_equal(nftw(t->path, remove_one, 16, FTW_DEPTH | FTW_PHYS), 0);
	free(t);
	return 0;
}

/* ---- reading a device ---- */

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
	assert_int_equal(nbd_udev_settle(1 << 29, 10), -ENODEV);
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

/* ---- who uses it ---- */

static int in_use(struct tree *t, char *who, size_t len)
{
	char proc[80], dev[80];
	const struct inuse_roots roots = { t->block_fd, proc, dev };

	(void)snprintf(proc, sizeof(proc), "%s/proc", t->path);
	(void)snprintf(dev, sizeof(dev), "%s/dev", t->path);
	memset(who, 0, len);
	return inuse_at(&roots, 3, who, len);
}

static void a_device_nobody_uses_is_free(void **state)
{
	char who[128];

	assert_int_equal(in_use(*state, who, sizeof(who)), 0);
}

static void a_mount_is_named(void **state)
{
	struct tree *t = *state;
	char who[128];

	put(t, "proc/self/mountinfo",
	    "21 1 8:1 / / rw - ext4 /dev/sda1 rw\n"
	    "22 21 43:48 / /mnt/my\\040data rw - xfs /dev/nbd3 rw\n");
	assert_int_equal(in_use(t, who, sizeof(who)), -EBUSY);
	assert_string_equal(who, "mounted on /mnt/my data");
}

static void a_mount_of_a_partition_is_named(void **state)
{
	struct tree *t = *state;
	char who[128];

	put(t, "proc/self/mountinfo",
	    "21 1 8:1 / / rw - ext4 /dev/sda1 rw\n"
	    "22 21 43:49 / /mnt rw - ext4 /dev/nbd3p1 rw\n");
	assert_int_equal(in_use(t, who, sizeof(who)), -EBUSY);
	assert_string_equal(who, "partition nbd3p1 is mounted on /mnt");
}

static void another_devices_mount_does_not_count(void **state)
{
	struct tree *t = *state;
	char who[128];

	put(t, "proc/self/mountinfo", "22 21 43:64 / /mnt rw - ext4 /dev/nbd4 rw\n");
	assert_int_equal(in_use(t, who, sizeof(who)), 0);
}

static void a_holder_is_named_with_its_own_name(void **state)
{
	struct tree *t = *state;
	char who[128];

	put_dir(t, "block/nbd3/holders/dm-7");
	assert_int_equal(in_use(t, who, sizeof(who)), -EBUSY);
	assert_string_equal(who, "held by dm-7");
	put(t, "block/dm-7/dm/name", "vg-root\n");
	assert_int_equal(in_use(t, who, sizeof(who)), -EBUSY);
	assert_string_equal(who, "held by dm-7 (vg-root)");
}

static void a_holder_of_a_partition_is_named(void **state)
{
	struct tree *t = *state;
	char who[128];

	put_dir(t, "block/nbd3/nbd3p1/holders/md0");
	assert_int_equal(in_use(t, who, sizeof(who)), -EBUSY);
	assert_string_equal(who, "partition nbd3p1 is held by md0");
}

static void no_answer_is_not_an_all_clear(void **state)
{
	struct tree *t = *state;
	char who[128];

	drop(t, "proc/self/mountinfo");
	assert_int_equal(in_use(t, who, sizeof(who)), -ENOENT);
}

static void a_kernel_without_swap_is_fine(void **state)
{
	struct tree *t = *state;
	char who[128];

	drop(t, "proc/swaps");
	assert_int_equal(in_use(t, who, sizeof(who)), 0);
}

static void a_device_without_a_number_is_an_error(void **state)
{
	struct tree *t = *state;
	char who[128];

	put(t, "block/nbd3/dev", "odd\n");
	assert_int_equal(in_use(t, who, sizeof(who)), -EINVAL);
}

static void a_node_of_something_else_is_not_opened(void **state)
{
	struct tree *t = *state;
	char dev[80], who[128];

	put(t, "dev/nbd3", "a file");
	(void)snprintf(dev, sizeof(dev), "%s/dev", t->path);
	assert_int_equal(node_open(dev, 3, makedev(43, 48), O_RDONLY), -ENXIO);
	assert_int_equal(node_open(dev, 4, makedev(43, 48), O_RDONLY), -ENOENT);
	/* A file by that name harms nobody. */
	assert_int_equal(in_use(t, who, sizeof(who)), 0);
}

/* ---- udev ---- */

static int settle(struct tree *t, bool has_udev, int timeout_ms)
{
	char control[80], dev[80];
	const struct udev_roots roots = { t->block_fd, control, dev };

	(void)snprintf(control, sizeof(control), "%s/control", t->path);
	(void)snprintf(dev, sizeof(dev), "%s/dev", t->path);
	if (has_udev)
		put(t, "control", "");
	return udev_settle_at(&roots, 3, timeout_ms);
}

static void without_udev_only_the_node_is_waited_for(void **state)
{
	struct tree *t = *state;

	assert_int_equal(settle(t, false, 30), -ETIMEDOUT);
}

static void a_node_of_something_else_is_not_enough(void **state)
{
	struct tree *t = *state;

	put(t, "dev/nbd3", "a file");
	assert_int_equal(settle(t, false, 30), -ETIMEDOUT);
}

static void *make_node_later(void *arg)
{
	struct tree *t = arg;
	char path[80];

	/* So that the other is likely to wait; either order must do. */
	usleep(20000);
	(void)snprintf(path, sizeof(path), "%s/dev/nbd3", t->path);
	return mknod(path, S_IFBLK | 0600, makedev(43, 48)) == 0 ? t : NULL;
}

static void a_node_that_appears_ends_the_wait(void **state)
{
	struct tree *t = *state;
	pthread_t thread;
	void *made;
	int r;

	assert_int_equal(pthread_create(&thread, NULL, make_node_later, t), 0);
	r = settle(t, false, 2000);
	pthread_join(thread, &made);
	if (!made)
		skip(); /* only root makes nodes, and not everywhere */
	assert_int_equal(r, 0);
	assert_int_equal(settle(t, false, 0), 0);
}

static void an_event_with_an_uuid_is_asked_for(void **state)
{
	struct tree *t = *state;
	char full[300], text[80] = "";
	unsigned int i;
	FILE *f;

	/* Nobody answers: the file is no kernel. */
	assert_int_equal(settle(t, true, 30), -ETIMEDOUT);
	(void)snprintf(full, sizeof(full), "%s/block/nbd3/uevent", t->path);
	f = fopen(full, "r");
	assert_non_null(f);
	assert_non_null(fgets(text, sizeof(text), f));
	(void)fclose(f);
	assert_int_equal(strlen(text), 7 + 36);
	assert_memory_equal(text, "change ", 7);
	for (i = 0; i < 36; i++)
		if (i == 8 || i == 13 || i == 18 || i == 23)
			assert_int_equal(text[7 + i], '-');
		else
			assert_non_null(strchr("0123456789abcdef", text[7 + i]));
}

static void an_event_that_cannot_be_asked_for_is_an_error(void **state)
{
	struct tree *t = *state;

	drop(t, "block/nbd3/uevent");
	assert_int_equal(settle(t, true, 1000), -ENOENT);
	put(t, "block/nbd3/dev", "odd\n");
	assert_int_equal(settle(t, true, 1000), -EINVAL);
}

/* ---- modprobe ---- */

/* A modprobe that runs this shell text. Returns what module_load_at() does. */
static int load(struct tree *t, const char *text, unsigned int nbds_max, unsigned int max_part,
		struct fault *f)
{
	char module[80], path[80], full[120], dummy[80];
	const char *const modprobe[] = { dummy, path, NULL };
	const struct module_roots roots = { module, modprobe };

	(void)snprintf(module, sizeof(module), "%s/module", t->path);
	(void)snprintf(dummy, sizeof(dummy), "%s/no/modprobe", t->path);
	(void)snprintf(path, sizeof(path), "%s/modprobe", t->path);
	if (text) {
		put(t, "modprobe", text);
		(void)snprintf(full, sizeof(full), "%s/modprobe", t->path);
		assert_int_equal(chmod(full, 0755), 0);
	}
	memset(f, 0, sizeof(*f));
	return module_load_at(&roots, nbds_max, max_part, f);
}

static void a_driver_that_is_there_is_left_alone(void **state)
{
	struct tree *t = *state;
	struct fault f;

	put(t, "module", "");
	assert_int_equal(load(t, NULL, 8, 8, &f), 0);
}

static void modprobe_gets_the_parameters(void **state)
{
	struct tree *t = *state;
	struct fault f;

	assert_int_equal(load(t,
			      "#!/bin/sh\n[ \"$*\" = 'nbd nbds_max=64 max_part=7' ] && "
			      ">\"${0%/*}/module\"\n",
			      64, 7, &f),
			 0);
	drop(t, "module");
	assert_int_equal(load(t, "#!/bin/sh\n[ \"$*\" = nbd ] && >\"${0%/*}/module\"\n", 0, 0, &f),
			 0);
}

static void what_modprobe_says_is_told(void **state)
{
	struct tree *t = *state;
	struct fault f;

	assert_int_equal(
		load(t, "#!/bin/sh\necho 'FATAL: no nbd' >&2\necho more >&2\nexit 1\n", 0, 0, &f),
		-ECHILD);
	assert_int_equal(f.status, EXIT_KERNEL);
	assert_string_equal(f.message, "kernel module nbd cannot be loaded: FATAL: no nbd");
	assert_true(strlen(f.hint) > 0);
	/* More than we keep, and more than a pipe holds. */
	assert_int_equal(
		load(t, "#!/bin/sh\nhead -c 200000 /dev/zero | tr '\\0' x >&2\nexit 1\n", 0, 0, &f),
		-ECHILD);
	assert_true(strlen(f.message) < 300);
	assert_int_equal(load(t, "#!/bin/sh\nkill -9 $$\n", 0, 0, &f), -ECHILD);
	assert_string_equal(f.message, "kernel module nbd cannot be loaded: modprobe failed");
}

static void a_success_without_a_driver_is_a_failure(void **state)
{
	struct tree *t = *state;
	struct fault f;

	assert_int_equal(load(t, "#!/bin/sh\nexit 0\n", 0, 0, &f), -ENODEV);
	assert_int_equal(f.status, EXIT_KERNEL);
}

static void no_modprobe_is_said(void **state)
{
	struct tree *t = *state;
	struct fault f;

	assert_int_equal(load(t, NULL, 0, 0, &f), -ENOENT);
	assert_int_equal(f.status, EXIT_KERNEL);
	assert_non_null(strstr(f.message, "no modprobe"));
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
		cmocka_unit_test_setup_teardown(a_device_nobody_uses_is_free, setup, teardown),
		cmocka_unit_test_setup_teardown(a_mount_is_named, setup, teardown),
		cmocka_unit_test_setup_teardown(a_mount_of_a_partition_is_named, setup, teardown),
		cmocka_unit_test_setup_teardown(another_devices_mount_does_not_count, setup,
						teardown),
		cmocka_unit_test_setup_teardown(a_holder_is_named_with_its_own_name, setup,
						teardown),
		cmocka_unit_test_setup_teardown(a_holder_of_a_partition_is_named, setup, teardown),
		cmocka_unit_test_setup_teardown(no_answer_is_not_an_all_clear, setup, teardown),
		cmocka_unit_test_setup_teardown(a_kernel_without_swap_is_fine, setup, teardown),
		cmocka_unit_test_setup_teardown(a_device_without_a_number_is_an_error, setup,
						teardown),
		cmocka_unit_test_setup_teardown(a_node_of_something_else_is_not_opened, setup,
						teardown),
		cmocka_unit_test_setup_teardown(without_udev_only_the_node_is_waited_for, setup,
						teardown),
		cmocka_unit_test_setup_teardown(a_node_of_something_else_is_not_enough, setup,
						teardown),
		cmocka_unit_test_setup_teardown(a_node_that_appears_ends_the_wait, setup, teardown),
		cmocka_unit_test_setup_teardown(an_event_with_an_uuid_is_asked_for, setup,
						teardown),
		cmocka_unit_test_setup_teardown(an_event_that_cannot_be_asked_for_is_an_error,
						setup, teardown),
		cmocka_unit_test_setup_teardown(a_driver_that_is_there_is_left_alone, setup,
						teardown),
		cmocka_unit_test_setup_teardown(modprobe_gets_the_parameters, setup, teardown),
		cmocka_unit_test_setup_teardown(what_modprobe_says_is_told, setup, teardown),
		cmocka_unit_test_setup_teardown(a_success_without_a_driver_is_a_failure, setup,
						teardown),
		cmocka_unit_test_setup_teardown(no_modprobe_is_said, setup, teardown),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
