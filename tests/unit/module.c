/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Copyright (C) 2026 the rbdcrypt-nbd authors */

/*
 * Loading the driver, with a modprobe of our own.
 */

#include "tree.h"

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
