// SPDX-License-Identifier: GPL-2.0-or-later
// Copyright (C) 2026 the rbdcrypt-nbd authors

/* Claims about crypto/secret.c. */

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include "secret.h"

#if defined(__has_feature)
#define SANITIZED_BY_CLANG (__has_feature(address_sanitizer) || __has_feature(thread_sanitizer))
#else
#define SANITIZED_BY_CLANG 0
#endif

static void new_secret_is_zero_and_has_its_length(void **state)
{
	const size_t lens[] = { 1, 32, 64, 4095, 4096, 4097, SECRET_MAX };

	for (size_t i = 0; i < sizeof(lens) / sizeof(lens[0]); i++) {
		struct secret *s;

		assert_int_equal(secret_new(lens[i], &s), 0);
		assert_int_equal(secret_len(s), lens[i]);
		assert_int_equal((uintptr_t)secret_data(s) % 16, 0);
		for (size_t j = 0; j < lens[i]; j++)
			assert_int_equal(secret_bytes(s)[j], 0);
		memset(secret_data(s), 0xa5, lens[i]);
		assert_null(secret_free(s));
	}
	assert_null(secret_free(NULL));
}

static void impossible_lengths_are_refused(void **state)
{
	struct secret *s = NULL;

	assert_int_equal(secret_new(0, &s), -EINVAL);
	assert_int_equal(secret_new((size_t)SECRET_MAX + 1, &s), -EINVAL);
	assert_null(s);
}

static void truncate_wipes_the_tail(void **state)
{
	struct secret *s;

	assert_int_equal(secret_new(64, &s), 0);
	memset(secret_data(s), 'x', 64);
	secret_truncate(s, 10);
	assert_int_equal(secret_len(s), 10);
	assert_int_equal(secret_bytes(s)[9], 'x');
	for (int i = 10; i < 64; i++)
		assert_int_equal(secret_bytes(s)[i], 0);
	secret_free(s);
}

static void copy_is_equal_and_independent(void **state)
{
	struct secret *a, *b, *c;

	assert_int_equal(secret_new(33, &a), 0);
	memset(secret_data(a), 7, 33);
	assert_int_equal(secret_copy(a, &b), 0);
	assert_true(secret_equal(a, b));
	secret_data(b)[32] ^= 1;
	assert_false(secret_equal(a, b));
	assert_int_equal(secret_new(32, &c), 0);
	memset(secret_data(c), 7, 32);
	assert_false(secret_equal(a, c));
	secret_free(a);
	secret_free(b);
	secret_free(c);
}

/* A temporary file with these bytes, at its start. */
static int file_with(const void *bytes, size_t len)
{
	FILE *f = tmpfile();
	int fd;

	assert_non_null(f);
	fd = dup(fileno(f));
	fclose(f);
	assert_true(fd >= 0);
	assert_int_equal(write(fd, bytes, len), (ssize_t)len);
	assert_int_equal(lseek(fd, 0, SEEK_SET), 0);
	return fd;
}

static void file_is_read_byte_for_byte(void **state)
{
	static const char bytes[] = "pass\0word\nwith\r\n tail \n";
	struct secret *s;
	int fd = file_with(bytes, sizeof(bytes) - 1);

	assert_int_equal(secret_read_fd(fd, SECRET_MAX, NULL, NULL, &s), 0);
	assert_int_equal(secret_len(s), sizeof(bytes) - 1);
	assert_memory_equal(secret_bytes(s), bytes, sizeof(bytes) - 1);
	secret_free(s);
	close(fd);
}

static void empty_file_is_no_data(void **state)
{
	struct secret *s = NULL;
	int fd = file_with("", 0);

	assert_int_equal(secret_read_fd(fd, 100, NULL, NULL, &s), -ENODATA);
	assert_null(s);
	close(fd);
}

static void file_of_exactly_max_is_read_and_one_more_is_refused(void **state)
{
	const size_t maxes[] = { 1, 100, 4095, 4096, 4097, SECRET_MAX };
	unsigned char *bytes = malloc((size_t)SECRET_MAX + 1);

	assert_non_null(bytes);
	memset(bytes, 'k', (size_t)SECRET_MAX + 1);
	for (size_t i = 0; i < sizeof(maxes) / sizeof(maxes[0]); i++) {
		struct secret *s = NULL;
		int fd = file_with(bytes, maxes[i]);

		assert_int_equal(secret_read_fd(fd, maxes[i], NULL, NULL, &s), 0);
		assert_int_equal(secret_len(s), maxes[i]);
		secret_free(s);
		close(fd);

		s = NULL;
		fd = file_with(bytes, maxes[i] + 1);
		assert_int_equal(secret_read_fd(fd, maxes[i], NULL, NULL, &s), -EFBIG);
		assert_null(s);
		close(fd);
	}
	free(bytes);
}

static void impossible_maximum_is_refused(void **state)
{
	struct secret *s = NULL;
	int fd = file_with("x", 1);

	assert_int_equal(secret_read_fd(fd, 0, NULL, NULL, &s), -EINVAL);
	assert_int_equal(secret_read_fd(fd, (size_t)SECRET_MAX + 1, NULL, NULL, &s), -EINVAL);
	close(fd);
}

static void *feed_slowly(void *arg)
{
	int fd = *(int *)arg;
	char chunk[1000];

	memset(chunk, 'p', sizeof(chunk));
	for (int i = 0; i < 100; i++)
		assert_int_equal(write(fd, chunk, sizeof(chunk)), sizeof(chunk));
	close(fd);
	return NULL;
}

static void pipe_is_read_to_its_end_whatever_the_pieces(void **state)
{
	struct secret *s;
	pthread_t t;
	int fds[2];

	assert_int_equal(pipe(fds), 0);
	assert_int_equal(pthread_create(&t, NULL, feed_slowly, &fds[1]), 0);
	assert_int_equal(secret_read_fd(fds[0], SECRET_MAX, NULL, NULL, &s), 0);
	assert_int_equal(pthread_join(t, NULL), 0);
	assert_int_equal(secret_len(s), 100000);
	assert_int_equal(secret_bytes(s)[99999], 'p');
	secret_free(s);
	close(fds[0]);
}

static void unreadable_fd_reports_its_errno(void **state)
{
	struct secret *s = NULL;
	int fd = open("/", O_RDONLY | O_DIRECTORY);

	assert_int_equal(secret_read_fd(fd, 100, NULL, NULL, &s), -EISDIR);
	close(fd);
	assert_int_equal(secret_read_fd(-1, 100, NULL, NULL, &s), -EBADF);
	assert_null(s);
}

/* Runs fn in a child without the sanitizers' own handler; returns the wait status. */
static int in_child(void (*fn)(struct secret *s), struct secret *s)
{
	int status;
	pid_t pid = fork();

	assert_true(pid >= 0);
	if (pid == 0) {
		const struct rlimit none = { 0 };

		setrlimit(RLIMIT_CORE, &none);
		signal(SIGSEGV, SIG_DFL);
		fn(s);
		_exit(0);
	}
	assert_int_equal(waitpid(pid, &status, 0), pid);
	return status;
}

__attribute__((no_sanitize("address"))) static void read_it(struct secret *s)
{
	volatile unsigned char c = secret_bytes(s)[0];

	(void)c;
}

static void free_it(struct secret *s)
{
	secret_free(s);
}

__attribute__((no_sanitize("address"))) static void overrun(struct secret *unused)
{
	struct secret *s;

	if (secret_new(64, &s) == 0)
		*(volatile unsigned char *)(secret_data(s) + 64) = 1;
}

static void forked_child_has_no_secret(void **state)
{
	struct secret *s;
	int status;

	assert_int_equal(secret_new(64, &s), 0);
	memset(secret_data(s), 1, 64);
	status = in_child(read_it, s);
	assert_true(WIFSIGNALED(status) && WTERMSIG(status) == SIGSEGV);
	status = in_child(free_it, s);
	assert_true(WIFEXITED(status) && WEXITSTATUS(status) == 0);
	assert_int_equal(secret_bytes(s)[63], 1);
	secret_free(s);
}

static void overrun_faults(void **state)
{
	int status = in_child(overrun, NULL);

	assert_true(WIFSIGNALED(status) && WTERMSIG(status) == SIGSEGV);
}

static void exhausted_address_space_is_enomem(void **state)
{
	struct rlimit old, tight;
	struct secret *s = NULL;
	int r;

	assert_int_equal(getrlimit(RLIMIT_AS, &old), 0);
	tight = old;
	tight.rlim_cur = 1 << 20;
	assert_int_equal(setrlimit(RLIMIT_AS, &tight), 0);
	r = secret_new(SECRET_MAX, &s);
	assert_int_equal(setrlimit(RLIMIT_AS, &old), 0);
	assert_int_equal(r, -ENOMEM);
	assert_null(s);
}

/* What /proc/self/smaps says of the mapping that holds address: its VmFlags line. */
static void vm_flags(const void *address, char *flags, size_t len)
{
	FILE *f = fopen("/proc/self/smaps", "re");
	bool is_ours = false;
	char line[512];

	assert_non_null(f);
	flags[0] = 0;
	while (fgets(line, sizeof(line), f)) {
		unsigned long from, to;

		if (sscanf(line, "%lx-%lx ", &from, &to) == 2)
			is_ours = from <= (uintptr_t)address && (uintptr_t)address < to;
		if (is_ours && strncmp(line, "VmFlags:", 8) == 0)
			snprintf(flags, len, "%s ", line + 8);
	}
	fclose(f);
}

static void pages_are_locked_and_kept_out_of_dumps_and_forks(void **state)
{
	struct secret *s;
	char flags[512];

	assert_int_equal(secret_new(64, &s), 0);
	vm_flags(secret_data(s), flags, sizeof(flags));
	assert_non_null(strstr(flags, " dd "));
	assert_non_null(strstr(flags, " dc "));
#if !defined(__SANITIZE_ADDRESS__) && !defined(__SANITIZE_THREAD__) && !SANITIZED_BY_CLANG
	/* The sanitizers make mlock() do nothing. */
	assert_non_null(strstr(flags, " lo "));
#endif
	secret_free(s);
}

/* The process-wide switch is irreversible, so it is tried in children. */
static void protected_process_checks(struct secret *unused)
{
	struct rlimit core;
	void *p;

	if (secret_protect_process() != 0)
		_exit(10);
	if (prctl(PR_GET_DUMPABLE, 0, 0, 0, 0) != 0)
		_exit(11);
	if (getrlimit(RLIMIT_CORE, &core) < 0 || core.rlim_max != 0)
		_exit(12);
	/* Larger than the usual limit of locked memory. */
	p = mmap(NULL, 256 << 20, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	if (p == MAP_FAILED)
		_exit(13);
}

static void small_lock_limit_leaves_memory_usable(struct secret *unused)
{
	const struct rlimit small = { .rlim_cur = 64 << 10, .rlim_max = 64 << 10 };

	if (setrlimit(RLIMIT_MEMLOCK, &small) < 0 || (getuid() == 0 && setuid(65534) < 0))
		_exit(20);
	protected_process_checks(NULL);
}

static void process_protection_does_not_break_later_memory(void **state)
{
	int status = in_child(protected_process_checks, NULL);

	assert_true(WIFEXITED(status));
	assert_int_equal(WEXITSTATUS(status), 0);
	status = in_child(small_lock_limit_leaves_memory_usable, NULL);
	assert_true(WIFEXITED(status));
	assert_int_equal(WEXITSTATUS(status), 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(new_secret_is_zero_and_has_its_length),
		cmocka_unit_test(impossible_lengths_are_refused),
		cmocka_unit_test(truncate_wipes_the_tail),
		cmocka_unit_test(copy_is_equal_and_independent),
		cmocka_unit_test(file_is_read_byte_for_byte),
		cmocka_unit_test(empty_file_is_no_data),
		cmocka_unit_test(file_of_exactly_max_is_read_and_one_more_is_refused),
		cmocka_unit_test(impossible_maximum_is_refused),
		cmocka_unit_test(pipe_is_read_to_its_end_whatever_the_pieces),
		cmocka_unit_test(unreadable_fd_reports_its_errno),
		cmocka_unit_test(forked_child_has_no_secret),
		cmocka_unit_test(overrun_faults),
		cmocka_unit_test(exhausted_address_space_is_enomem),
		cmocka_unit_test(pages_are_locked_and_kept_out_of_dumps_and_forks),
		cmocka_unit_test(process_protection_does_not_break_later_memory),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
