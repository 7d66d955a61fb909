/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Copyright (C) 2026 the rbdcrypt-nbd authors */

/* The logger: where lines go, what they look like, how often the same one comes. */

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <errno.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "log.h"

static int saved_stderr;
static int capture;
static char captured[65536];
static char dir[] = "/tmp/rbdcrypt-log-XXXXXX";

static int start_capture(void **state)
{
	capture = memfd_create("stderr", MFD_CLOEXEC);
	saved_stderr = dup(STDERR_FILENO);
	if (capture < 0 || saved_stderr < 0 || dup2(capture, STDERR_FILENO) < 0)
		return -1;
	log_set_level(LOG_LEVEL_NOTICE);
	return 0;
}

static int stop_capture(void **state)
{
	(void)dup2(saved_stderr, STDERR_FILENO);
	close(saved_stderr);
	close(capture);
	return 0;
}

static const char *read_fd(int fd)
{
	ssize_t n = pread(fd, captured, sizeof(captured) - 1, 0);

	captured[n > 0 ? n : 0] = 0;
	return captured;
}

static const char *read_path(const char *path)
{
	FILE *f = fopen(path, "r");
	size_t n = f ? fread(captured, 1, sizeof(captured) - 1, f) : 0;

	captured[n] = 0;
	if (f)
		fclose(f);
	return captured;
}

static void lines_on_stderr_begin_with_our_name(void **state)
{
	log_error(NULL, "cannot %s", "start");
	log_warning("rbd/img", "slow");
	assert_string_equal(read_fd(capture),
			    "rbdcrypt-nbd: cannot start\nrbdcrypt-nbd: rbd/img: slow\n");
}

static void what_is_above_the_level_is_not_written(void **state)
{
	log_info(NULL, "no");
	log_debug(NULL, "no");
	assert_string_equal(read_fd(capture), "");
	log_set_level(LOG_LEVEL_DEBUG);
	log_debug(NULL, "yes");
	assert_string_equal(read_fd(capture), "rbdcrypt-nbd: yes\n");
}

static void a_message_is_one_line(void **state)
{
	char name[5000];

	log_error("a\nb", "c\nd\033e");
	assert_string_equal(read_fd(capture), "rbdcrypt-nbd: a?b: c?d?e\n");
	memset(name, 'x', sizeof(name) - 1);
	name[sizeof(name) - 1] = 0;
	assert_int_equal(ftruncate(capture, 0), 0);
	assert_int_equal(lseek(capture, 0, SEEK_SET), 0);
	log_error(name, "%s", name);
	assert_true(strlen(read_fd(capture)) > 2000);
	assert_ptr_equal(strchr(captured, '\n'), captured + strlen(captured) - 1);
}

static void errno_survives(void **state)
{
	errno = EXDEV;
	log_error(NULL, "x");
	assert_int_equal(errno, EXDEV);
}

static void a_path_that_cannot_be_opened_is_an_error(void **state)
{
	assert_int_equal(log_open_file("/nonexistent/dir/log"), -ENOENT);
}

static void a_fifo_that_nobody_reads_is_not_waited_for(void **state)
{
	char path[64];

	(void)snprintf(path, sizeof(path), "%s/fifo", dir);
	assert_int_equal(mkfifo(path, 0600), 0);
	(void)alarm(20);
	assert_int_equal(log_open_file(path), -ENXIO);
	(void)alarm(0);
	assert_int_equal(unlink(path), 0);
}

static void background_without_a_file_leaves_stderr_alone(void **state)
{
	pid_t child = fork();
	int status;

	if (child == 0) {
		log_to_background();
		log_notice(NULL, "a test of rbdcrypt-nbd's logger");
		log_notice("rbd/img", "a test of rbdcrypt-nbd's logger");
		_exit(0);
	}
	assert_int_equal(waitpid(child, &status, 0), child);
	assert_int_equal(status, 0);
	assert_string_equal(read_fd(capture), "");
}

static void *write_many(void *arg)
{
	for (int i = 0; i < 200; i++)
		log_error("rbd/img", "line of thread %s", (const char *)arg);
	return NULL;
}

static void reopened_file_takes_over_and_lines_stay_whole(void **state)
{
	char first[64], second[64];
	char name_a[] = "A", name_b[] = "B";
	pthread_t a, b;
	int n = 0;

	snprintf(first, sizeof(first), "%s/first", dir);
	snprintf(second, sizeof(second), "%s/second", dir);
	assert_int_equal(log_open_file(first), 0);
	log_error("rbd/img", "one");
	assert_non_null(strstr(read_path(first), " error: rbd/img: one\n"));
	assert_non_null(strstr(read_fd(capture), "rbdcrypt-nbd: rbd/img: one\n"));
	log_to_background();
	log_error(NULL, "two");
	assert_null(strstr(read_fd(capture), "two"));
	assert_int_equal(pthread_create(&a, NULL, write_many, name_a), 0);
	assert_int_equal(pthread_create(&b, NULL, write_many, name_b), 0);
	assert_int_equal(log_open_file(second), 0);
	pthread_join(a, NULL);
	pthread_join(b, NULL);
	log_error(NULL, "three");
	assert_non_null(strstr(read_path(first), "two\n"));
	assert_null(strstr(captured, "three"));
	for (char *p = captured; (p = strstr(p, "line of thread ")); p++, n++)
		assert_int_equal(p[16], '\n');
	assert_non_null(strstr(read_path(second), "three\n"));
	for (char *p = captured; (p = strstr(p, "line of thread ")); p++, n++)
		assert_int_equal(p[16], '\n');
	assert_int_equal(n, 400);
	unlink(first);
	unlink(second);
}

static void repeating_errors_are_counted_not_written(void **state)
{
	struct log_limit limit = { 0 };
	unsigned int suppressed = 99;

	assert_true(log_allowed(&limit, &suppressed));
	assert_int_equal(suppressed, 0);
	suppressed = 99;
	assert_false(log_allowed(&limit, &suppressed));
	assert_false(log_allowed(&limit, &suppressed));
	assert_int_equal(suppressed, 99);
	limit.next_ms = 0; /* the window has passed */
	assert_true(log_allowed(&limit, &suppressed));
	assert_int_equal(suppressed, 2);
}

#define CAPTURED(f) cmocka_unit_test_setup_teardown(f, start_capture, stop_capture)

int main(void)
{
	const struct CMUnitTest tests[] = {
		CAPTURED(lines_on_stderr_begin_with_our_name),
		CAPTURED(what_is_above_the_level_is_not_written),
		CAPTURED(a_message_is_one_line),
		CAPTURED(errno_survives),
		CAPTURED(a_path_that_cannot_be_opened_is_an_error),
		CAPTURED(a_fifo_that_nobody_reads_is_not_waited_for),
		CAPTURED(background_without_a_file_leaves_stderr_alone),
		/* the last one with a target: it sends the process to the background */
		CAPTURED(reopened_file_takes_over_and_lines_stay_whole),
		CAPTURED(repeating_errors_are_counted_not_written),
	};
	int r;

	if (!mkdtemp(dir))
		return 1;
	r = cmocka_run_group_tests(tests, NULL, NULL);
	rmdir(dir);
	return r;
}
