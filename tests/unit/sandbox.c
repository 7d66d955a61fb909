// SPDX-License-Identifier: GPL-2.0-or-later
// Copyright (C) 2026 the rbdcrypt-nbd authors

/* What a process behind crypto/sandbox.c can and cannot do; each try in a child of its own. */

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
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/ptrace.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "../../crypto/sandbox.h"
#include "sanitized.h"

#define MIB ((uint64_t)1 << 20)

/* Runs fn behind the walls. Its return value is the exit status. */
static int try(int (*fn)(void))
{
	const struct sandbox_limits limits = { .memory_bytes = 256 * MIB, .cpu_s = 30 };
	int status;
	pid_t pid = fork();

	assert_true(pid >= 0);
	if (pid == 0) {
		signal(SIGSYS, SIG_DFL);
		if (sandbox_enter(&limits) < 0)
			_exit(99);
		_exit(fn());
	}
	assert_int_equal(waitpid(pid, &status, 0), pid);
	return status;
}

static void assert_passes(int (*fn)(void))
{
	int status = try(fn);

	assert_true(WIFEXITED(status));
	assert_int_equal(WEXITSTATUS(status), 0);
}

static void assert_kills(int (*fn)(void))
{
	int status = try(fn);

	assert_true(WIFSIGNALED(status));
	assert_int_equal(WTERMSIG(status), SIGSYS);
}

static int start_program(void)
{
	return execl("/bin/true", "true", (char *)NULL);
}

static int start_process(void)
{
	return (int)syscall(SYS_clone, SIGCHLD, NULL, NULL, NULL, NULL);
}

static int send_signal(void)
{
	return kill(getppid(), 0);
}

static int trace(void)
{
	return (int)ptrace(PTRACE_ATTACH, getppid(), NULL, NULL);
}

static int mount_something(void)
{
	return mount("none", "/mnt", "tmpfs", 0, NULL);
}

static int remove_file(void)
{
	return unlink("/tmp/rbdcrypt-no-such-file");
}

static int write_and_execute(void)
{
	return mmap(NULL, 4096, PROT_WRITE | PROT_EXEC, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0) ==
	       MAP_FAILED;
}

static int make_executable_later(void)
{
	void *p = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	return mprotect(p, 4096, PROT_READ | PROT_WRITE | PROT_EXEC);
}

static int filter_again(void)
{
	return (int)syscall(SYS_seccomp, 1, 0, NULL);
}

static int connect_somewhere(void)
{
	struct sockaddr a = { .sa_family = AF_UNIX };

	return connect(0, &a, sizeof(a));
}

static void forbidden_calls_kill(void **state)
{
	assert_kills(start_program);
	assert_kills(start_process);
	assert_kills(send_signal);
	assert_kills(trace);
	assert_kills(mount_something);
	assert_kills(remove_file);
	assert_kills(write_and_execute);
	assert_kills(make_executable_later);
	assert_kills(filter_again);
	assert_kills(connect_somewhere);
}

static int open_for_writing(void)
{
	const int flags[] = { O_WRONLY, O_RDWR, O_WRONLY | O_APPEND };

	for (size_t i = 0; i < sizeof(flags) / sizeof(flags[0]); i++)
		if (open("/dev/null", flags[i]) >= 0 || errno != EACCES)
			return 1;
	return 0;
}

static int create_file(void)
{
	return open("/tmp/rbdcrypt-sandbox-file", O_RDONLY | O_CREAT, 0600) >= 0;
}

static int make_socket(void)
{
	return socket(AF_UNIX, SOCK_STREAM, 0) >= 0 || errno != EPERM;
}

static void nothing_can_be_written_or_reached(void **state)
{
	assert_passes(open_for_writing);
	assert_passes(make_socket);
	assert_kills(create_file);
	assert_int_equal(access("/tmp/rbdcrypt-sandbox-file", F_OK), -1);
}

static void *nothing(void *arg)
{
	return arg;
}

static int start_threads(void)
{
	for (int i = 0; i < 20; i++) {
		pthread_t t;

		if (pthread_create(&t, NULL, nothing, NULL) != 0 || pthread_join(t, NULL) != 0)
			return 1;
	}
	return 0;
}

static int read_file(void)
{
	char c;
	int fd = open("/proc/self/stat", O_RDONLY | O_CLOEXEC);

	return fd < 0 || read(fd, &c, 1) != 1 || close(fd) < 0;
}

static void threads_and_reading_are_possible(void **state)
{
	assert_passes(start_threads);
	assert_passes(read_file);
}

static int too_much_memory(void)
{
	void *p = mmap(NULL, 512 * MIB, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	return p != MAP_FAILED;
}

static int enough_memory(void)
{
	void *p = mmap(NULL, 200 * MIB, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	return p == MAP_FAILED;
}

static void memory_is_what_was_granted(void **state)
{
	if (IS_SANITIZED)
		skip();
	assert_passes(enough_memory);
	assert_passes(too_much_memory);
}

/* The highest descriptor it can have is the limit, less one. */
static int fewer_than_16_files(void)
{
	int fd = -1, last = -1;

	while ((fd = open("/", O_RDONLY | O_DIRECTORY)) >= 0)
		last = fd;
	return last != 15;
}

static void lower_limits_of_the_parent_stay(void **state)
{
	struct rlimit old, low;

	assert_int_equal(getrlimit(RLIMIT_NOFILE, &old), 0);
	low = old;
	low.rlim_cur = 16;
	assert_int_equal(setrlimit(RLIMIT_NOFILE, &low), 0);
	assert_passes(fewer_than_16_files);
	assert_int_equal(setrlimit(RLIMIT_NOFILE, &old), 0);
}

/* Seen from outside, because the process itself may not ask. */
static void process_is_closed_and_limited(void **state)
{
	const struct sandbox_limits limits = { .memory_bytes = 256 * MIB, .cpu_s = 30 };
	struct rlimit core, files, cpu, size;
	int ready[2], leave[2];
	char line[4096], path[64], c;
	ssize_t n;
	int fd;
	pid_t pid;

	assert_int_equal(pipe(ready), 0);
	assert_int_equal(pipe(leave), 0);
	pid = fork();
	assert_true(pid >= 0);
	if (pid == 0) {
		close(leave[1]);
		c = sandbox_enter(&limits) < 0 ? 'x' : 'r';
		(void)!write(ready[1], &c, 1);
		(void)!read(leave[0], &c, 1);
		_exit(0);
	}
	assert_int_equal(read(ready[0], &c, 1), 1);
	assert_int_equal(c, 'r');
	assert_int_equal(prlimit(pid, RLIMIT_CORE, NULL, &core), 0);
	assert_int_equal(prlimit(pid, RLIMIT_NOFILE, NULL, &files), 0);
	assert_int_equal(prlimit(pid, RLIMIT_CPU, NULL, &cpu), 0);
	assert_int_equal(prlimit(pid, RLIMIT_FSIZE, NULL, &size), 0);
	snprintf(path, sizeof(path), "/proc/%d/status", pid);
	fd = open(path, O_RDONLY | O_CLOEXEC);
	n = read(fd, line, sizeof(line) - 1);
	close(fd);
	close(leave[1]);
	assert_int_equal(waitpid(pid, NULL, 0), pid);
	close(leave[0]);
	close(ready[0]);
	close(ready[1]);

	assert_int_equal(core.rlim_max, 0);
	assert_int_equal(size.rlim_max, 0);
	assert_true(files.rlim_max <= 32);
	assert_int_equal(cpu.rlim_cur, 30);
	assert_true(n > 0);
	line[n] = 0;
	assert_non_null(strstr(line, "NoNewPrivs:\t1"));
	assert_non_null(strstr(line, "Seccomp:\t2"));
	assert_non_null(strstr(line, "CapEff:\t0000000000000000"));
	assert_non_null(strstr(line, "CapPrm:\t0000000000000000"));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(forbidden_calls_kill),
		cmocka_unit_test(nothing_can_be_written_or_reached),
		cmocka_unit_test(threads_and_reading_are_possible),
		cmocka_unit_test(memory_is_what_was_granted),
		cmocka_unit_test(lower_limits_of_the_parent_stay),
		cmocka_unit_test(process_is_closed_and_limited),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
