/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Copyright (C) 2026 the rbdcrypt-nbd authors */

/* Passphrase files: byte for byte, or a fault that names the file. */

#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#include "../../daemon/passphrase.h"

static char path[4096];

static int make_path(void **state)
{
	const char *dir = getenv("TMPDIR");
	int fd;

	(void)snprintf(path, sizeof(path), "%s/passphrase.XXXXXX", dir ? dir : "/tmp");
	fd = mkstemp(path);
	return fd < 0 ? -1 : close(fd);
}

static int remove_path(void **state)
{
	return unlink(path);
}

static void write_file(const void *bytes, size_t len)
{
	int fd = open(path, O_WRONLY | O_TRUNC | O_CLOEXEC);

	assert_true(fd >= 0);
	assert_int_equal(write(fd, bytes, len), (ssize_t)len);
	(void)close(fd);
}

static void every_byte_counts(void **state)
{
	static const char bytes[] = "with\0nul and\nnewlines\n\n";
	struct secret *s = NULL;
	struct fault f = { 0 };

	write_file(bytes, sizeof(bytes) - 1);
	assert_int_equal(passphrase_read(path, &s, &f), 0);
	assert_int_equal(secret_len(s), sizeof(bytes) - 1);
	assert_memory_equal(secret_bytes(s), bytes, sizeof(bytes) - 1);
	assert_true(passphrase_has_newline(s));
	secret_free(s);
}

static void only_a_newline_behind_something_can_be_left_out(void **state)
{
	struct secret *s = NULL;
	struct fault f = { 0 };

	write_file("pw", 2);
	assert_int_equal(passphrase_read(path, &s, &f), 0);
	assert_false(passphrase_has_newline(s));
	s = secret_free(s);
	write_file("\n", 1);
	assert_int_equal(passphrase_read(path, &s, &f), 0);
	assert_false(passphrase_has_newline(s));
	secret_free(s);
}

static void expect_fault(const char *file, int error, enum exit_status status, const char *words)
{
	struct secret *s = NULL;
	struct fault f = { 0 };

	assert_int_equal(passphrase_read(file, &s, &f), error);
	assert_null(s);
	assert_int_equal(f.error, error);
	assert_int_equal(f.status, status);
	assert_non_null(strstr(f.message, file));
	assert_non_null(strstr(f.message, words));
}

static void what_cannot_be_read_is_named(void **state)
{
	char missing[4200];

	(void)snprintf(missing, sizeof(missing), "%s.missing", path);
	expect_fault(missing, -ENOENT, EXIT_PASSPHRASE, "No such file");
	expect_fault("/", -EISDIR, EXIT_PASSPHRASE, "directory");
	write_file("", 0);
	expect_fault(path, -ENODATA, EXIT_PASSPHRASE, "empty");
	assert_int_equal(truncate(path, SECRET_MAX + 1), 0);
	expect_fault(path, -EFBIG, EXIT_PASSPHRASE, "larger than 8 MiB");
}

static void the_largest_file_is_still_read(void **state)
{
	struct secret *s = NULL;
	struct fault f = { 0 };

	assert_int_equal(truncate(path, SECRET_MAX), 0);
	assert_int_equal(passphrase_read(path, &s, &f), 0);
	assert_int_equal(secret_len(s), SECRET_MAX);
	secret_free(s);
}

static void a_dash_is_standard_input_and_leaves_it_open(void **state)
{
	struct secret *s = NULL;
	struct fault f = { 0 };
	int old = dup(STDIN_FILENO), p[2];

	assert_int_equal(pipe(p), 0);
	assert_int_equal(write(p[1], "from a pipe\n", 12), 12);
	(void)close(p[1]);
	assert_int_equal(dup2(p[0], STDIN_FILENO), STDIN_FILENO);
	(void)close(p[0]);
	assert_int_equal(passphrase_read("-", &s, &f), 0);
	assert_int_equal(secret_len(s), 12);
	assert_true(fcntl(STDIN_FILENO, F_GETFD) >= 0);
	secret_free(s);
	if (old >= 0) {
		(void)dup2(old, STDIN_FILENO);
		(void)close(old);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(every_byte_counts),
		cmocka_unit_test(only_a_newline_behind_something_can_be_left_out),
		cmocka_unit_test(what_cannot_be_read_is_named),
		cmocka_unit_test(the_largest_file_is_still_read),
		cmocka_unit_test(a_dash_is_standard_input_and_leaves_it_open),
	};

	return cmocka_run_group_tests(tests, make_path, remove_path);
}
