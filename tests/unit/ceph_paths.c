/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Copyright (C) 2026 the rbdcrypt-nbd authors */

/* Files that Ceph is told of: from every folder the same, and nothing else is touched. */

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "../../daemon/ceph_paths.h"

static const char folder[] = "/usr";

static void parse(struct options *o, const char *const *argv)
{
	struct fault f = { 0 };
	int argc = 0;

	while (argv[argc])
		argc++;
	assert_int_equal(options_parse(argc, (char **)(uintptr_t)argv, o, &f), 0);
}

static void files_that_ceph_is_told_of_get_their_folder(void **state)
{
	static const struct {
		const char *typed, *settled;
	} words[] = {
		{ "--keyring", "--keyring" },
		{ "a,/b;c", "/usr/a,/b,/usr/c" },
		{ "-k", "-k" },
		{ "d", "/usr/d" },
		{ "--keyring=e", "--keyring=/usr/e" },
		{ "--keyfile", "--keyfile" },
		{ "f", "/usr/f" },
		{ "-K", "-K" },
		{ "/g", "/g" },
		{ "--keyfile=-", "--keyfile=-" },
		{ "-m", "-m" },
		{ "host", "host" },
		{ "--debug-rbd=h", "--debug-rbd=h" },
		{ "--keyring=$cluster.key", "--keyring=$cluster.key" },
	};
	enum { N = sizeof(words) / sizeof(words[0]) };
	const char *argv[N + 3] = { "rbdcrypt-nbd", "map" };
	struct options o = { 0 };
	struct fault f = { 0 };
	int at;

	(void)state;
	for (int i = 0; i < N; i++)
		argv[2 + i] = words[i].typed;
	assert_int_equal(unsetenv("CEPH_ARGS"), 0);
	parse(&o, argv);
	at = o.ceph_argc - N;
	assert_int_equal(ceph_paths_settle(&o, &f), 0);
	for (int i = 0; i < N; i++)
		assert_string_equal(o.ceph_argv[at + i], words[i].settled);
	assert_null(o.ceph_args);
	options_done(&o);
}

static void those_of_ceph_args_too(void **state)
{
	const char *const argv[] = { "rbdcrypt-nbd", "map", "--keyring", "-", NULL };
	struct options o = { 0 };
	struct fault f = { 0 };

	(void)state;
	assert_int_equal(setenv("CEPH_ARGS", " -c a  --id x --keyring=b -K c --conf /d", 1), 0);
	parse(&o, argv);
	assert_int_equal(ceph_paths_settle(&o, &f), 0);
	assert_string_equal(o.ceph_args, "-c /usr/a --id x --keyring=/usr/b -K /usr/c --conf /d");
	options_done(&o);
}

static void the_keyring_of_the_environment_comes_first(void **state)
{
	const char *const argv[] = { "rbdcrypt-nbd", "map", NULL };
	struct options o = { 0 };
	struct fault f = { 0 };

	(void)state;
	assert_int_equal(setenv("CEPH_KEYRING", "a,/b", 1), 0);
	assert_int_equal(setenv("CEPH_ARGS", "-k c", 1), 0);
	parse(&o, argv);
	assert_int_equal(ceph_paths_settle(&o, &f), 0);
	assert_string_equal(o.ceph_args, "--keyring=/usr/a,/b -k /usr/c");
	assert_int_equal(unsetenv("CEPH_ARGS"), 0);
	assert_int_equal(ceph_paths_settle(&o, &f), 0);
	assert_string_equal(o.ceph_args, "--keyring=/usr/a,/b");
	assert_int_equal(setenv("CEPH_KEYRING", "my keys", 1), 0);
	assert_int_equal(ceph_paths_settle(&o, &f), -EINVAL);
	assert_int_equal(f.status, EXIT_USAGE);
	assert_non_null(strstr(f.message, "CEPH_KEYRING"));
	options_done(&o);
	assert_int_equal(unsetenv("CEPH_KEYRING"), 0);
}

static void a_folder_that_ceph_args_cannot_name_is_refused(void **state)
{
	const char *const argv[] = { "rbdcrypt-nbd", "map", NULL };
	char dir[] = "/tmp/ceph paths XXXXXX";
	struct options o = { 0 };
	struct fault f = { 0 };

	(void)state;
	assert_non_null(mkdtemp(dir));
	assert_int_equal(chdir(dir), 0);
	assert_int_equal(setenv("CEPH_ARGS", "-K key", 1), 0);
	parse(&o, argv);
	assert_int_equal(ceph_paths_settle(&o, &f), -EINVAL);
	assert_int_equal(f.status, EXIT_USAGE);
	assert_non_null(strstr(f.message, "CEPH_ARGS: \"key\""));
	options_done(&o);
	assert_int_equal(chdir(folder), 0);
	assert_int_equal(rmdir(dir), 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(files_that_ceph_is_told_of_get_their_folder),
		cmocka_unit_test(those_of_ceph_args_too),
		cmocka_unit_test(the_keyring_of_the_environment_comes_first),
		cmocka_unit_test(a_folder_that_ceph_args_cannot_name_is_refused),
	};

	if (chdir(folder) < 0)
		return 1;
	return cmocka_run_group_tests(tests, NULL, NULL);
}
