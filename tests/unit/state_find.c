/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Copyright (C) 2026 the rbdcrypt-nbd authors */

/* From what a user types to one volume. */

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "../../daemon/state.h"

static struct fault f;

static int setup(void **state)
{
	fault_clear(&f);
	return 0;
}

static void a_name_finds_its_volume(void **state)
{
	struct volume_state v[4];
	struct state_list l = { .volumes = v, .n = 4 };
	const struct volume_state *found;
	static const struct {
		const char *name;
		int index;
	} names[] = {
		{ "/dev/nbd3", 0 }, { "nbd3", 0 },	{ "a cookie", 0 },    { "rbd/ns/a", 0 },
		{ "rbd/b@s", 1 },   { "rbd/b@5", 1 },	{ "b@s", 1 },	      { "rbd/b@9", 2 },
		{ "file:/x/y", 3 }, { "/dev/nbd7", 2 }, { "/dev/nbd10", -1 }, { "b", -1 },
		{ "a", -1 },	    { "ns/a", -1 },	{ "y", -1 },	      { "", -1 },
	};

	for (int i = 0; i < 4; i++) {
		volume_state_init(&v[i]);
		strcpy(v[i].pool, "rbd");
		strcpy(v[i].image, i ? "b" : "a");
	}
	strcpy(v[0].nspace, "ns");
	v[0].device = 3;
	strcpy(v[0].cookie, "a cookie");
	strcpy(v[1].snap, "s");
	v[1].snap_id = 5;
	v[2].snap_id = 9;
	v[2].device = 7;
	strcpy(v[3].file, "/x/y");
	for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++) {
		found = NULL;
		fault_clear(&f);
		if (names[i].index < 0) {
			assert_int_equal(state_find(&l, names[i].name, &found, &f), -ENOENT);
			assert_int_equal(f.status, EXIT_NOT_FOUND);
			assert_non_null(strstr(f.message, "is not mapped"));
		} else {
			assert_int_equal(state_find(&l, names[i].name, &found, &f), 0);
			assert_ptr_equal(found, &v[names[i].index]);
		}
	}
}

static void a_name_that_fits_several_is_refused(void **state)
{
	struct volume_state v[3];
	struct state_list l = { .volumes = v, .n = 3 };
	const struct volume_state *found = NULL;

	for (int i = 0; i < 3; i++) {
		volume_state_init(&v[i]);
		strcpy(v[i].pool, i == 2 ? "other" : "rbd");
		strcpy(v[i].image, "a");
		v[i].device = i;
	}
	v[1].device = -1;
	strcpy(v[1].socket, "/s");
	assert_int_equal(state_find(&l, "rbd/a", &found, &f), -ENOTUNIQ);
	assert_string_equal(f.message, "rbd/a: could be rbd/a on /dev/nbd0, rbd/a on /s");
	assert_string_equal(f.hint, "name the device, or the socket");
	fault_clear(&f);
	assert_int_equal(state_find(&l, "a", &found, &f), -ENOTUNIQ);
	assert_int_equal(f.status, EXIT_USAGE);
	assert_null(found);
	assert_int_equal(state_find(&l, "other/a", &found, &f), 0);
	assert_ptr_equal(found, &v[2]);
}

static void a_name_of_one_kind_is_not_surer_than_another(void **state)
{
	struct volume_state v[2];
	struct state_list l = { .volumes = v, .n = 2 };
	const struct volume_state *found = NULL;
	static const char *const names[] = { "nbd1", "1", "rbd/1" };

	for (int i = 0; i < 2; i++) {
		volume_state_init(&v[i]);
		strcpy(v[i].pool, "rbd");
		strcpy(v[i].image, "a");
		v[i].device = i + 1;
	}
	strcpy(v[0].cookie, "rbd/1");
	for (int i = 0; i < 3; i++) {
		strcpy(v[1].image, i == 0 ? "nbd1" : "1");
		fault_clear(&f);
		assert_int_equal(state_find(&l, names[i], &found, &f), -ENOTUNIQ);
		assert_null(found);
	}
	assert_string_equal(f.message, "rbd/1: could be rbd/a on /dev/nbd1, rbd/1 on /dev/nbd2");
	assert_int_equal(state_find(&l, "/dev/nbd1", &found, &f), 0);
	assert_ptr_equal(found, &v[0]);
	/* Both kinds, and one volume. */
	v[1].device = 1;
	v[0].device = -1;
	assert_int_equal(state_find(&l, "1", &found, &f), 0);
	assert_ptr_equal(found, &v[1]);
}

static void a_long_path_is_a_name_too(void **state)
{
	struct volume_state v[2];
	struct state_list l = { .volumes = v, .n = 2 };
	char name[sizeof("file:") + sizeof(v[0].file)];

	/* They differ in the last letter only. */
	for (int i = 0; i < 2; i++) {
		const struct volume_state *found = NULL;

		volume_state_init(&v[i]);
		memset(v[i].file, 'x', 3000);
		v[i].file[0] = '/';
		v[i].file[3000] = (char)('a' + i);
		(void)snprintf(name, sizeof(name), "file:%s", v[i].file);
		l.n = (unsigned int)i + 1;
		assert_int_equal(state_find(&l, name, &found, &f), 0);
		assert_ptr_equal(found, &v[i]);
	}
}

#define TEST(name) cmocka_unit_test_setup(name, setup)

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(a_name_finds_its_volume),
		TEST(a_name_that_fits_several_is_refused),
		TEST(a_name_of_one_kind_is_not_surer_than_another),
		TEST(a_long_path_is_a_name_too),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
