/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Copyright (C) 2026 the rbdcrypt-nbd authors */

/* Which of a volume's names are there; how they are written is in tab.c's test. */

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "../../daemon/link_name.h"

static char dev[64];
static struct volume_state v;
static char links[LINKS_MAX][LINK_LEN];

static void make_file(const char *name)
{
	char path[128];
	int fd;

	(void)snprintf(path, sizeof(path), "%s/%s", dev, name);
	fd = open(path, O_WRONLY | O_CREAT | O_CLOEXEC, 0600);
	assert_true(fd >= 0);
	close(fd);
}

static void make_link(const char *to, const char *name)
{
	char path[128];

	(void)snprintf(path, sizeof(path), "%s/rbdcrypt/%s", dev, name);
	(void)unlink(path);
	assert_int_equal(symlink(to, path), 0);
}

static int setup(void **state)
{
	char command[512];

	(void)snprintf(dev, sizeof(dev), "/tmp/rbdcrypt-dev-XXXXXX");
	if (!mkdtemp(dev))
		return -1;
	(void)snprintf(command, sizeof(command), "mkdir -p %s/rbdcrypt/by-cookie %s/rbdcrypt/rbd",
		       dev, dev);
	if (system(command) != 0)
		return -1;
	make_file("nbd3");
	make_file("nbd4");
	volume_state_init(&v);
	v.device = 3;
	strcpy(v.pool, "rbd");
	strcpy(v.image, "vol");
	strcpy(v.cookie, "c 1");
	return 0;
}

static int teardown(void **state)
{
	char command[128];

	(void)snprintf(command, sizeof(command), "rm -r %s", dev);
	return system(command);
}

static void links_are_told_when_they_are_there(void **state)
{
	char want[128];

	assert_int_equal(link_find(dev, &v, links), 0);
	make_link("../../nbd3", "by-cookie/c\\x201");
	assert_int_equal(link_find(dev, &v, links), 1);
	(void)snprintf(want, sizeof(want), "%s/rbdcrypt/by-cookie/c\\x201", dev);
	assert_string_equal(links[0], want);
	make_link("../../nbd3", "rbd/vol");
	assert_int_equal(link_find(dev, &v, links), 2);
	assert_string_equal(links[1], want);
	(void)snprintf(want, sizeof(want), "%s/rbdcrypt/rbd/vol", dev);
	assert_string_equal(links[0], want);
}

static void a_link_to_another_device_is_not_ours(void **state)
{
	make_link("../../nbd4", "rbd/vol");
	make_link("../../nbd5", "by-cookie/c\\x201");
	assert_int_equal(link_find(dev, &v, links), 0);
	make_link("../../nbd3", "by-cookie/c\\x201");
	assert_int_equal(link_find(dev, &v, links), 1);
}

static void without_a_device_there_is_none(void **state)
{
	make_link("../../nbd3", "rbd/vol");
	v.device = -1;
	assert_int_equal(link_find(dev, &v, links), 0);
	/* A file has no name but its cookie's. */
	v.device = 3;
	strcpy(v.file, "/x");
	assert_int_equal(link_find(dev, &v, links), 0);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(links_are_told_when_they_are_there),
		TEST(a_link_to_another_device_is_not_ours),
		TEST(without_a_device_there_is_none),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
