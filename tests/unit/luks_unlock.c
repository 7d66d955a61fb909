// SPDX-License-Identifier: GPL-2.0-or-later
// Copyright (C) 2026 the rbdcrypt-nbd authors

/*
 * The machinery around an unlock, with real children: turns, deadlines, memory,
 * threads, and nothing left behind.
 */

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdio.h>
#include <string.h>
#include <sys/file.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "clock.h"
#include "leftovers.h"
#include "luks_file.h"
#include "sanitized.h"

#define MIB ((uint64_t)1 << 20)

static void small_luks2(void)
{
	luks_file_make(20 * MIB);
	luks_file_run("cryptsetup luksFormat -q --type luks2 " LUKS_FILE_ARGON2
		      "--key-file " LUKS_FILE_FIRST " " LUKS_FILE);
}

static void nothing_is_left_behind(void **state)
{
	struct luks_limits limits;
	struct luks_header *h;
	int fds;

	small_luks2();
	luks_limits_default(&limits);
	limits.turnstile = LUKS_FILE_LOCK;
	h = luks_file_loaded();
	fds = count_fds();
	for (int i = 0; i < 6; i++) {
		struct fault f = { 0 };
		struct secret *key;

		(void)luks_file_unlock(h, i % 2 ? luks_file_pass() : luks_file_odd_pass(), &limits,
				       &key, NULL, &f);
		secret_free(key);
	}
	assert_int_equal(count_fds(), fds);
	assert_int_equal(waitpid(-1, NULL, WNOHANG), -1);
	luks_header_free(h);
}

struct job {
	const struct luks_header *header;
	const char *turnstile;
	int result;
	struct secret *key;
};

static void *unlock_in_thread(void *arg)
{
	struct job *job = arg;
	struct secret *passphrase = NULL;
	struct luks_limits limits;

	luks_limits_default(&limits);
	limits.turnstile = job->turnstile;
	job->result = secret_new(sizeof(LUKS_FILE_PASS) - 1, &passphrase);
	if (job->result == 0) {
		memcpy(secret_data(passphrase), LUKS_FILE_PASS, sizeof(LUKS_FILE_PASS) - 1);
		job->result = luks_unlock(job->header, passphrase, &limits, &job->key, NULL, NULL);
	}
	secret_free(passphrase);
	return NULL;
}

static void several_threads_unlock_at_once(void **state)
{
	enum { N = 4 };
	struct job jobs[N] = { 0 };
	struct luks_header *h;
	pthread_t threads[N];

	small_luks2();
	h = luks_file_loaded();
	for (int i = 0; i < N; i++) {
		jobs[i].header = h;
		jobs[i].turnstile = i % 2 ? LUKS_FILE_LOCK : NULL;
		assert_int_equal(pthread_create(&threads[i], NULL, unlock_in_thread, &jobs[i]), 0);
	}
	for (int i = 0; i < N; i++)
		assert_int_equal(pthread_join(threads[i], NULL), 0);
	for (int i = 0; i < N; i++) {
		assert_int_equal(jobs[i].result, 0);
		assert_true(secret_equal(jobs[i].key, jobs[0].key));
	}
	for (int i = 0; i < N; i++)
		secret_free(jobs[i].key);
	luks_header_free(h);
}

static void turnstile_in_use_is_waited_for_and_then_times_out(void **state)
{
	struct luks_limits limits;
	struct luks_header *h;
	struct fault f = { 0 };
	struct secret *key;
	int lock;

	small_luks2();
	h = luks_file_loaded();
	luks_limits_default(&limits);
	limits.unlock_timeout_s = 1;
	limits.turnstile = LUKS_FILE_LOCK;
	lock = open(LUKS_FILE_LOCK, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
	assert_int_equal(flock(lock, LOCK_EX), 0);
	assert_int_equal(luks_file_unlock(h, luks_file_pass(), &limits, &key, NULL, &f),
			 -ETIMEDOUT);
	assert_int_equal(f.status, EXIT_TIMED_OUT);
	assert_non_null(strstr(f.message, "other unlocks"));
	close(lock);
	limits.unlock_timeout_s = 60;
	fault_clear(&f);
	assert_int_equal(luks_file_unlock(h, luks_file_pass(), &limits, &key, NULL, &f), 0);
	secret_free(key);
	luks_header_free(h);
}

static void turnstile_that_cannot_be_had_is_no_obstacle(void **state)
{
	static const char *const paths[] = { "missing/lock", "/dev/null/lock", "." };
	struct luks_limits limits;
	struct luks_header *h;

	small_luks2();
	h = luks_file_loaded();
	luks_limits_default(&limits);
	for (size_t i = 0; i < sizeof(paths) / sizeof(paths[0]); i++) {
		struct fault f = { 0 };
		struct secret *key;

		limits.turnstile = paths[i];
		assert_int_equal(luks_file_unlock(h, luks_file_pass(), &limits, &key, NULL, &f), 0);
		secret_free(key);
	}
	luks_header_free(h);
}

/* One that takes some ten seconds of one processor. */
static struct luks_header *slow_luks1(void)
{
	uint32_t iterations = 0x02000000;
	unsigned char be[4] = { iterations >> 24, 0, 0, 0 };

	luks_file_make(8 * MIB);
	luks_file_run("cryptsetup luksFormat -q --type luks1 " LUKS_FILE_FAST1
		      "--key-file " LUKS_FILE_FIRST " " LUKS_FILE);
	luks_file_patch(208 + 4, be, 4);
	return luks_file_loaded();
}

static void slow_unlock_is_ended_at_its_deadline(void **state)
{
	struct luks_limits limits;
	struct luks_header *h = slow_luks1();
	struct fault f = { 0 };
	struct secret *key;

	luks_limits_default(&limits);
	limits.unlock_timeout_s = 1;
	assert_int_equal(luks_file_unlock(h, luks_file_pass(), &limits, &key, NULL, &f),
			 -ETIMEDOUT);
	assert_int_equal(f.status, EXIT_TIMED_OUT);
	assert_int_equal(waitpid(-1, NULL, WNOHANG), -1);
	luks_header_free(h);
}

static bool is_half_a_second_later(void *arg)
{
	const long long *end = arg;

	return clock_ms() >= *end;
}

/* While it derives, and while it stands in line: the child is gone, nothing is told of a key. */
static void interrupted_unlock_ends_at_once(void **state)
{
	struct luks_limits limits;
	struct luks_header *h = slow_luks1();
	struct secret *key;
	long long end;
	const struct interrupt later = { is_half_a_second_later, &end };
	int lock = open(LUKS_FILE_LOCK, O_RDWR | O_CREAT | O_CLOEXEC, 0600);

	luks_limits_default(&limits);
	limits.interrupt = &later;
	for (int i = 0; i < 2; i++) {
		struct fault f = { 0 };

		limits.turnstile = i ? LUKS_FILE_LOCK : NULL;
		assert_int_equal(flock(lock, LOCK_EX), 0);
		end = clock_ms() + 500;
		assert_int_equal(luks_file_unlock(h, luks_file_pass(), &limits, &key, NULL, &f),
				 -EINTR);
		assert_int_equal(f.status, EXIT_TIMED_OUT);
		assert_true(clock_ms() < end + 3000);
		assert_int_equal(waitpid(-1, NULL, WNOHANG), -1);
	}
	close(lock);
	luks_header_free(h);
}

#define NOBODY 65534

struct look {
	long long end;
	uid_t owner; /* of what /proc has of our child, when last seen; root's when it is closed to
			us */
};

static bool is_looked_at_for_long(void *arg)
{
	FILE *f = fopen("/proc/thread-self/children", "re");
	struct look *l = arg;
	char path[64];
	struct stat st;
	int pid;

	if (f && fscanf(f, "%d", &pid) == 1) {
		(void)snprintf(path, sizeof(path), "/proc/%d/environ", pid);
		if (stat(path, &st) == 0)
			l->owner = st.st_uid;
	}
	if (f)
		(void)fclose(f);
	/* It may come late to closing itself, but then stays closed. */
	return clock_ms() >= l->end + (l->owner == 0 ? 0 : 20000);
}

/* For _exit() of a process that is not root. */
static int stand_in_line(const struct luks_header *h)
{
	struct look look = { .end = clock_ms() + 1000, .owner = (uid_t)-1 };
	const struct interrupt i = { is_looked_at_for_long, &look };
	struct luks_limits limits;
	struct fault f = { 0 };
	struct secret *key;

	if (getuid() == 0 && (setgid(NOBODY) < 0 || setuid(NOBODY) < 0))
		return 2;
	luks_limits_default(&limits);
	limits.turnstile = LUKS_FILE_LOCK;
	limits.interrupt = &i;
	if (luks_file_unlock(h, luks_file_pass(), &limits, &key, NULL, &f) != -EINTR)
		return 3;
	return look.owner == 0 ? 0 : look.owner == getuid() ? 4 : 5;
}

/* It may stand in line for minutes with the passphrase: other programs of the user have no look. */
static void what_stands_in_line_is_closed_to_its_own_user(void **state)
{
	int lock, status = -1;
	struct luks_header *h;
	pid_t pid;

	if (access("/proc/thread-self/children", R_OK) < 0)
		skip();
	small_luks2();
	h = luks_file_loaded();
	lock = open(LUKS_FILE_LOCK, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
	assert_int_equal(fchmod(lock, 0666), 0);
	assert_int_equal(chmod(".", 0755), 0);
	assert_int_equal(flock(lock, LOCK_EX), 0);
	pid = fork();
	assert_true(pid >= 0);
	if (pid == 0)
		_exit(stand_in_line(h));
	assert_int_equal(waitpid(pid, &status, 0), pid);
	assert_int_equal(status, 0);
	close(lock);
	luks_header_free(h);
}

static void too_little_memory_is_said_clearly(void **state)
{
	struct rlimit old, tight;
	struct luks_limits limits;
	struct luks_header *h;
	struct fault f = { 0 };
	struct secret *key;
	int r;

	if (IS_SANITIZED)
		skip();
	luks_file_make(20 * MIB);
	luks_file_run(
		"cryptsetup luksFormat -q --type luks2 --pbkdf-memory 262144 --pbkdf-parallel 2"
		" --pbkdf-force-iterations 4 --key-file " LUKS_FILE_FIRST " " LUKS_FILE);
	h = luks_file_loaded();
	luks_limits_default(&limits);
	assert_int_equal(getrlimit(RLIMIT_AS, &old), 0);
	tight = old;
	tight.rlim_cur = 200 * MIB;
	assert_int_equal(setrlimit(RLIMIT_AS, &tight), 0);
	r = luks_file_unlock(h, luks_file_pass(), &limits, &key, NULL, &f);
	assert_int_equal(setrlimit(RLIMIT_AS, &old), 0);
	assert_int_equal(r, -ENOMEM);
	assert_int_equal(f.status, EXIT_MEMORY);
	assert_non_null(strstr(f.message, "256 MiB"));
	fault_clear(&f);
	assert_int_equal(luks_file_unlock(h, luks_file_pass(), &limits, &key, NULL, &f), 0);
	secret_free(key);
	luks_header_free(h);
}

static void header_that_the_library_refuses_is_a_header_error(void **state)
{
	struct luks_limits limits;
	struct luks_header *h = NULL;
	struct fault f = { 0 };
	struct secret *key;

	/* A free keyslot without room: no matter to us, but libcryptsetup insists. */
	luks_file_make(8 * MIB);
	luks_file_run("cryptsetup luksFormat -q --type luks1 " LUKS_FILE_FAST1
		      "--key-file " LUKS_FILE_FIRST " " LUKS_FILE);
	luks_file_patch(208 + 3 * 48 + 40, "\0\0\0\0", 4);
	h = luks_file_loaded();
	luks_limits_default(&limits);
	assert_int_equal(luks_file_unlock(h, luks_file_pass(), &limits, &key, NULL, &f), -EBADMSG);
	assert_int_equal(f.status, EXIT_HEADER);
	assert_non_null(strstr(f.message, "libcryptsetup refuses the header"));
	luks_header_free(h);
}

int main(int argc, char **argv)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, luks_file_enter, luks_file_leave)
	const struct CMUnitTest tests[] = {
		/* Before threads and their heaps have taken address space. */
		TEST(too_little_memory_is_said_clearly),
		TEST(nothing_is_left_behind),
		TEST(several_threads_unlock_at_once),
		TEST(turnstile_in_use_is_waited_for_and_then_times_out),
		TEST(turnstile_that_cannot_be_had_is_no_obstacle),
		TEST(slow_unlock_is_ended_at_its_deadline),
		TEST(interrupted_unlock_ends_at_once),
		TEST(what_stands_in_line_is_closed_to_its_own_user),
		TEST(header_that_the_library_refuses_is_a_header_error),
	};

	luks_unlock_child_main(argc, argv);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
