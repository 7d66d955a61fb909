/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Copyright (C) 2026 the rbdcrypt-nbd authors */

/*
 * Who uses a device, and the wait for udev, in trees made up here.
 */

#include <dirent.h>

#include "tree.h"

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

/*
 * Makes nbd3 have the number of some block device that is really in /dev, because paths are judged
 * by what they lead to. "" when there is none.
 */
static void be_a_real_device(struct tree *t, char *ret_path, size_t len)
{
	DIR *dir = opendir("/dev");
	struct dirent *entry;
	char devno[32];

	ret_path[0] = 0;
	assert_non_null(dir);
	while (!ret_path[0] && (entry = readdir(dir))) {
		struct stat st;

		(void)snprintf(ret_path, len, "/dev/%.60s", entry->d_name);
		if (stat(ret_path, &st) < 0 || !S_ISBLK(st.st_mode)) {
			ret_path[0] = 0;
			continue;
		}
		(void)snprintf(devno, sizeof(devno), "%u:%u\n", major(st.st_rdev),
			       minor(st.st_rdev));
		put(t, "block/nbd3/dev", devno);
	}
	closedir(dir);
	if (!ret_path[0])
		skip();
}

static void put_opener(struct tree *t, const char *pid, const char *comm, const char *path)
{
	char name[64], full[200];

	(void)snprintf(name, sizeof(name), "proc/%s/comm", pid);
	put(t, name, comm);
	(void)snprintf(name, sizeof(name), "proc/%s/fd", pid);
	put_dir(t, name);
	(void)snprintf(full, sizeof(full), "%s/%s/0", t->path, name);
	assert_int_equal(symlink("/nowhere", full), 0);
	(void)snprintf(full, sizeof(full), "%s/%s/1", t->path, name);
	assert_int_equal(symlink(path, full), 0);
}

static void swap_is_named(void **state)
{
	struct tree *t = *state;
	char who[128], path[80], swaps[200];

	be_a_real_device(t, path, sizeof(path));
	(void)snprintf(swaps, sizeof(swaps),
		       "Filename\t\t\t\tType\t\tSize\t\tUsed\t\tPriority\n"
		       "/swapfile file 1024 0 -1\n%s partition 65532 0 -2\n",
		       path);
	put(t, "proc/swaps", swaps);
	assert_int_equal(in_use(t, who, sizeof(who)), -EBUSY);
	assert_string_equal(who, "used as swap");
}

static void who_has_it_open_is_named_unless_udev_or_ourselves(void **state)
{
	struct tree *t = *state;
	char who[128], path[80], self[16];

	be_a_real_device(t, path, sizeof(path));
	(void)snprintf(self, sizeof(self), "%d", getpid());
	put_opener(t, self, "inuse\n", path);
	put_opener(t, "8", "(udev-worker)\n", path);
	put_opener(t, "9", "systemd-udevd\n", path);
	put_opener(t, "10", "innocent\n", "/dev/null");
	put(t, "proc/11/comm", "no fd folder to look into\n");
	assert_int_equal(in_use(t, who, sizeof(who)), 0);
	put_opener(t, "12", "fio\n", path);
	assert_int_equal(in_use(t, who, sizeof(who)), -EBUSY);
	assert_string_equal(who, "opened by fio (pid 12)");
	drop(t, "proc/12/comm");
	assert_int_equal(in_use(t, who, sizeof(who)), -EBUSY);
	assert_string_equal(who, "opened by a process (pid 12)");
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
	return udev_settle_at(&roots, 3, timeout_ms, NULL);
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
	r = settle(t, false, 30000);
	pthread_join(thread, &made);
	if (!made)
		skip(); /* only root makes nodes, and not everywhere */
	assert_int_equal(r, 0);
	assert_int_equal(settle(t, false, 0), 0);
}

struct caller {
	int pipe[2], calls;
};

static void on_ready(void *arg)
{
	struct caller *c = arg;
	char byte;

	assert_int_equal(read(c->pipe[0], &byte, 1), 1);
	c->calls++;
}

static void something_else_is_looked_after_meanwhile(void **state)
{
	struct tree *t = *state;
	struct caller c = { .calls = 0 };
	struct nbd_meanwhile m = { .ready = on_ready, .arg = &c };
	char control[80], dev[80];
	const struct udev_roots roots = { t->block_fd, control, dev };

	(void)snprintf(control, sizeof(control), "%s/control", t->path);
	(void)snprintf(dev, sizeof(dev), "%s/dev", t->path);
	assert_int_equal(pipe(c.pipe), 0);
	m.fd = c.pipe[0];
	/* It neither ends the waiting nor makes it longer. */
	assert_int_equal(write(c.pipe[1], "12", 2), 2);
	assert_int_equal(udev_settle_at(&roots, 3, 30, &m), -ETIMEDOUT);
	assert_int_equal(c.calls, 2);
	put(t, "control", "");
	assert_int_equal(write(c.pipe[1], "1", 1), 1);
	assert_int_equal(udev_settle_at(&roots, 3, 30, &m), -ETIMEDOUT);
	assert_int_equal(c.calls, 3);
	(void)close(c.pipe[0]);
	(void)close(c.pipe[1]);
}

static bool is_third_look(void *looks)
{
	return ++*(int *)looks >= 3;
}

static void whoever_waits_can_be_told_to_stop(void **state)
{
	struct tree *t = *state;
	int looks = 0;
	const struct interrupt i = { is_third_look, &looks };
	const struct nbd_meanwhile m = { .fd = -1, .interrupt = &i };
	char control[80], dev[80];
	const struct udev_roots roots = { t->block_fd, control, dev };

	(void)snprintf(control, sizeof(control), "%s/control", t->path);
	(void)snprintf(dev, sizeof(dev), "%s/dev", t->path);
	/* For the node, and for udev. */
	assert_int_equal(udev_settle_at(&roots, 3, 60000, &m), -EINTR);
	put(t, "control", "");
	assert_int_equal(udev_settle_at(&roots, 3, 60000, &m), -EINTR);
	looks = -1000;
	assert_int_equal(udev_settle_at(&roots, 3, 120, &m), -ETIMEDOUT);
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

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(a_device_nobody_uses_is_free, setup, teardown),
		cmocka_unit_test_setup_teardown(a_mount_is_named, setup, teardown),
		cmocka_unit_test_setup_teardown(a_mount_of_a_partition_is_named, setup, teardown),
		cmocka_unit_test_setup_teardown(another_devices_mount_does_not_count, setup,
						teardown),
		cmocka_unit_test_setup_teardown(a_holder_is_named_with_its_own_name, setup,
						teardown),
		cmocka_unit_test_setup_teardown(a_holder_of_a_partition_is_named, setup, teardown),
		cmocka_unit_test_setup_teardown(swap_is_named, setup, teardown),
		cmocka_unit_test_setup_teardown(who_has_it_open_is_named_unless_udev_or_ourselves,
						setup, teardown),
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
		cmocka_unit_test_setup_teardown(whoever_waits_can_be_told_to_stop, setup, teardown),
		cmocka_unit_test_setup_teardown(something_else_is_looked_after_meanwhile, setup,
						teardown),
		cmocka_unit_test_setup_teardown(an_event_with_an_uuid_is_asked_for, setup,
						teardown),
		cmocka_unit_test_setup_teardown(an_event_that_cannot_be_asked_for_is_an_error,
						setup, teardown),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
