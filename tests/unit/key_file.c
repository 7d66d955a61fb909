/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Copyright (C) 2026 the rbdcrypt-nbd authors */

/* Passphrases in files and behind descriptors: byte for byte, or a fault that names the source. */

#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "../../daemon/key.h"

static char path[4096], folder[4096];

static int read_how(const char *source, bool is_insecure_allowed, struct secret **ret,
		    struct fault *f)
{
	const struct key_place place = { .pool = "rbd",
					 .nspace = "",
					 .image = "vol",
					 .snap = "",
					 .cookie = "",
					 .fsid = "",
					 .layer = 1 };
	const struct key_options o = { .is_insecure_allowed = is_insecure_allowed, .timeout_s = 4 };

	return key_read(source, &place, &o, ret, f);
}

static int read_key(const char *source, struct secret **ret, struct fault *f)
{
	return read_how(source, false, ret, f);
}

static int make_path(void **state)
{
	int fd;

	/* Not $TMPDIR, which may be closed to others. */
	(void)snprintf(folder, sizeof(folder), "/tmp/rbdcrypt-key-XXXXXX");
	if (!mkdtemp(folder))
		return -1;
	(void)snprintf(path, sizeof(path), "%.4000s/passphrase", folder);
	fd = open(path, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
	return fd < 0 ? -1 : close(fd);
}

static int remove_path(void **state)
{
	return unlink(path) < 0 || rmdir(folder) < 0 ? -1 : 0;
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
	assert_int_equal(read_key(path, &s, &f), 0);
	assert_int_equal(secret_len(s), sizeof(bytes) - 1);
	assert_memory_equal(secret_bytes(s), bytes, sizeof(bytes) - 1);
	assert_true(key_has_newline(s));
	secret_free(s);
}

static void only_a_newline_behind_something_can_be_left_out(void **state)
{
	struct secret *s = NULL;
	struct fault f = { 0 };

	write_file("pw", 2);
	assert_int_equal(read_key(path, &s, &f), 0);
	assert_false(key_has_newline(s));
	s = secret_free(s);
	write_file("\n", 1);
	assert_int_equal(read_key(path, &s, &f), 0);
	assert_false(key_has_newline(s));
	secret_free(s);
}

static void expect_fault(const char *file, int error, enum exit_status status, const char *words)
{
	struct secret *s = NULL;
	struct fault f = { 0 };

	assert_int_equal(read_key(file, &s, &f), error);
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
	assert_int_equal(read_key(path, &s, &f), 0);
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
	assert_int_equal(read_key("-", &s, &f), 0);
	assert_int_equal(secret_len(s), 12);
	assert_true(fcntl(STDIN_FILENO, F_GETFD) >= 0);
	secret_free(s);
	if (old >= 0) {
		(void)dup2(old, STDIN_FILENO);
		(void)close(old);
	}
}

/* All folders above are open to all, or there is nothing to see here. */
static bool is_reachable(void)
{
	char up[4096];
	struct stat st;

	(void)snprintf(up, sizeof(up), "%s", folder);
	for (char *slash; (slash = strrchr(up, '/')) && slash != up;) {
		*slash = '\0';
		if (stat(up, &st) < 0 || !(st.st_mode & S_IXOTH))
			return false;
	}
	return true;
}

static int read_part(uint64_t offset, size_t size, struct secret **ret, struct fault *f)
{
	const struct key_place place = { .pool = "", .nspace = "", .image = "", .snap = "" };
	const struct key_options o = { .timeout_s = 4, .offset_bytes = offset, .size_bytes = size };

	*ret = NULL;
	return key_read(path, &place, &o, ret, f);
}

static void expect_part(uint64_t offset, size_t size, const char *want)
{
	struct secret *s;
	struct fault f = { 0 };

	assert_int_equal(read_part(offset, size, &s, &f), 0);
	assert_int_equal(secret_len(s), strlen(want));
	assert_memory_equal(secret_bytes(s), want, strlen(want));
	s = secret_free(s);
}

static void a_part_of_a_file_can_be_the_passphrase(void **state)
{
	struct secret *s;
	struct fault f = { 0 };

	write_file("0123456789\n", 11);
	expect_part(0, 0, "0123456789\n");
	expect_part(0, 10, "0123456789");
	expect_part(3, 4, "3456");
	expect_part(9, 0, "9\n");
	expect_part(10, 1, "\n");
	assert_int_equal(read_part(9, 3, &s, &f), -ENOMSG);
	assert_int_equal(f.status, EXIT_PASSPHRASE);
	assert_non_null(strstr(f.message, path));
	fault_clear(&f);
	assert_int_equal(read_part(11, 0, &s, &f), -ENODATA);
	assert_non_null(strstr(f.message, "nothing behind byte 11"));
	fault_clear(&f);
	assert_int_equal(read_part(1u << 30, 1, &s, &f), -ENOMSG);
}

/* A pipe has no place to go to. */
static void a_part_of_a_stream_is_the_same(void **state)
{
	const struct key_place place = { .pool = "", .nspace = "", .image = "", .snap = "" };
	const struct key_options o = { .timeout_s = 4, .offset_bytes = 70000, .size_bytes = 4 };
	static char bytes[70010];
	struct fault f = { 0 };
	struct secret *s;
	char source[16];
	int fds[2];

	memset(bytes, 'x', sizeof(bytes));
	(void)snprintf(bytes + 70000, 10, "pass-more");
	assert_int_equal(pipe(fds), 0);
	assert_true(fcntl(fds[1], F_SETPIPE_SZ, 1 << 20) >= (int)sizeof(bytes));
	assert_int_equal(write(fds[1], bytes, sizeof(bytes)), sizeof(bytes));
	close(fds[1]);
	(void)snprintf(source, sizeof(source), "fd:%d", fds[0]);
	assert_int_equal(key_read(source, &place, &o, &s, &f), 0);
	assert_int_equal(secret_len(s), 4);
	assert_memory_equal(secret_bytes(s), "pass", 4);
	s = secret_free(s);
}

static void what_is_typed_has_no_parts(void **state)
{
	const struct key_place place = { .pool = "", .nspace = "", .image = "", .snap = "" };
	const struct key_options o = { .timeout_s = 4, .size_bytes = 4 };
	struct fault f = { 0 };
	struct secret *s;

	assert_int_equal(key_read("ask:", &place, &o, &s, &f), -EINVAL);
	assert_int_equal(f.status, EXIT_USAGE);
	fault_clear(&f);
	assert_int_equal(key_read("keyring:x", &place, &o, &s, &f), -EINVAL);
	assert_non_null(strstr(f.hint, "--keyfile-size"));
}

static void what_others_can_read_is_refused_unless_allowed(void **state)
{
	struct secret *s = NULL;
	struct fault f = { 0 };

	if (!is_reachable())
		skip();
	write_file("pw", 2);
	assert_int_equal(chmod(folder, 0755), 0);
	assert_int_equal(chmod(path, 0644), 0);
	expect_fault(path, -EPERM, EXIT_PASSPHRASE, "others can read it");
	assert_int_equal(read_how(path, true, &s, &f), 0);
	s = secret_free(s);
	assert_int_equal(chmod(path, 0640), 0);
	/* Our own group, or root's, is as good as the owner. */
	assert_int_equal(read_key(path, &s, &f), 0);
	s = secret_free(s);
	if (geteuid() == 0) {
		assert_int_equal(chown(path, (uid_t)-1, 12345), 0);
		expect_fault(path, -EPERM, EXIT_PASSPHRASE, "others can read it");
		assert_int_equal(chown(path, (uid_t)-1, 0), 0);
	}
	assert_int_equal(chmod(path, 0600), 0);
	assert_int_equal(chmod(folder, 0700), 0);
}

static void a_closed_folder_protects_what_is_in_it(void **state)
{
	struct secret *s = NULL;
	struct fault f = { 0 };

	write_file("pw", 2);
	assert_int_equal(chmod(path, 0644), 0);
	assert_int_equal(read_key(path, &s, &f), 0);
	s = secret_free(s);
	assert_int_equal(chmod(path, 0600), 0);
}

static void a_fifo_that_nobody_writes_does_not_keep_us(void **state)
{
	assert_int_equal(unlink(path), 0);
	assert_int_equal(mkfifo(path, 0600), 0);
	expect_fault(path, -ETIMEDOUT, EXIT_TIMED_OUT, "gave nothing in 4 seconds");
	assert_int_equal(unlink(path), 0);
	assert_int_equal(close(open(path, O_WRONLY | O_CREAT | O_CLOEXEC, 0600)), 0);
}

/* As a socket does; but this is none. */
static void a_device_that_is_not_there_is_said_to_be(void **state)
{
	pid_t pid = fork();
	int status;

	assert_true(pid >= 0);
	if (pid == 0) {
		struct secret *s = NULL;
		struct fault f = { 0 };

		/* Without a terminal of its own. */
		if (setsid() < 0)
			_exit(2);
		_exit(read_key("/dev/tty", &s, &f) == -ENXIO &&
				      strstr(f.message, "/dev/tty: No such device")
			      ? 0
			      : 1);
	}
	assert_int_equal(waitpid(pid, &status, 0), pid);
	assert_int_equal(status, 0);
}

static void a_descriptor_is_read_once_and_has_to_be_passed(void **state)
{
	struct secret *s = NULL;
	struct fault f = { 0 };
	char source[32];
	int p[2];

	assert_int_equal(pipe(p), 0);
	assert_int_equal(write(p[1], "through a pipe", 14), 14);
	(void)close(p[1]);
	(void)snprintf(source, sizeof(source), "fd:%d", p[0]);
	assert_int_equal(key_repeat(source), KEY_ONCE);
	assert_int_equal(read_key(source, &s, &f), 0);
	assert_int_equal(secret_len(s), 14);
	s = secret_free(s);
	expect_fault(source, -EBADF, EXIT_USAGE, "no such descriptor was passed");
	/* One of our own, which exec() would have closed. */
	assert_int_equal(pipe2(p, O_CLOEXEC), 0);
	(void)snprintf(source, sizeof(source), "fd:%d", p[0]);
	expect_fault(source, -EBADF, EXIT_USAGE, "no such descriptor was passed");
	(void)close(p[0]);
	(void)close(p[1]);
	expect_fault("fd:", -EINVAL, EXIT_USAGE, "is no descriptor");
	expect_fault("fd:-1", -EINVAL, EXIT_USAGE, "is no descriptor");
	expect_fault("fd:3x", -EINVAL, EXIT_USAGE, "is no descriptor");
	expect_fault("fd:99999999999999999999", -EINVAL, EXIT_USAGE, "is no descriptor");
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(every_byte_counts),
		cmocka_unit_test(only_a_newline_behind_something_can_be_left_out),
		cmocka_unit_test(what_cannot_be_read_is_named),
		cmocka_unit_test(the_largest_file_is_still_read),
		cmocka_unit_test(a_dash_is_standard_input_and_leaves_it_open),
		cmocka_unit_test(a_part_of_a_file_can_be_the_passphrase),
		cmocka_unit_test(a_part_of_a_stream_is_the_same),
		cmocka_unit_test(what_is_typed_has_no_parts),
		cmocka_unit_test(what_others_can_read_is_refused_unless_allowed),
		cmocka_unit_test(a_closed_folder_protects_what_is_in_it),
		cmocka_unit_test(a_fifo_that_nobody_writes_does_not_keep_us),
		cmocka_unit_test(a_device_that_is_not_there_is_said_to_be),
		cmocka_unit_test(a_descriptor_is_read_once_and_has_to_be_passed),
	};

	return cmocka_run_group_tests(tests, make_path, remove_path);
}
