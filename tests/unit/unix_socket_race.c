/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Copyright (C) 2026 the rbdcrypt-nbd authors */

/* Sockets with a name in the filesystem, when several want the same one. */

#include "../../daemon/unix_socket.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#define N 4
#define ROUNDS 1500

static const struct unix_socket_access access_own = { 0600, (uid_t)-1, (gid_t)-1 };
static char dir[] = "/tmp/rbdcrypt-socket-XXXXXX";
static char path[64];

static int setup(void **state)
{
	strcpy(dir + strlen(dir) - 6, "XXXXXX");
	if (!mkdtemp(dir))
		return -1;
	(void)snprintf(path, sizeof(path), "%s/s", dir);
	return 0;
}

static int teardown(void **state)
{
	(void)unlink(path);
	return rmdir(dir);
}

static int make(void)
{
	struct unix_socket_name name;

	return unix_socket_listen(path, &access_own, 4, &name);
}

static bool is_served(void)
{
	struct sockaddr_un a = { .sun_family = AF_UNIX };
	int fd = socket(AF_UNIX, SOCK_STREAM, 0);
	bool yes;

	strcpy(a.sun_path, path);
	yes = connect(fd, (struct sockaddr *)&a, sizeof(a)) == 0;
	(void)close(fd);
	return yes;
}

/* ---- all at once ---- */

static struct {
	pthread_barrier_t start, end;
	int fds[N];
} t;

static void *want(void *arg)
{
	int *fd = arg;

	for (unsigned int i = 0; i < ROUNDS; i++) {
		(void)pthread_barrier_wait(&t.start);
		*fd = make();
		(void)pthread_barrier_wait(&t.end);
	}
	return NULL;
}

/* Whether there was nothing before, or what a dead one left. */
static void of_many_at_once_one_gets_the_name_and_keeps_it(void **state)
{
	pthread_t threads[N];
	unsigned int bad = 0;

	(void)pthread_barrier_init(&t.start, NULL, N + 1);
	(void)pthread_barrier_init(&t.end, NULL, N + 1);
	for (unsigned int i = 0; i < N; i++)
		assert_int_equal(pthread_create(&threads[i], NULL, want, &t.fds[i]), 0);
	for (unsigned int round = 0; round < ROUNDS; round++) {
		unsigned int got = 0;

		if (round % 2)
			(void)unlink(path);
		(void)pthread_barrier_wait(&t.start);
		(void)pthread_barrier_wait(&t.end);
		for (unsigned int i = 0; i < N; i++)
			got += t.fds[i] >= 0;
		bad += got != 1 || !is_served();
		for (unsigned int i = 0; i < N; i++)
			if (t.fds[i] >= 0)
				(void)close(t.fds[i]);
	}
	for (unsigned int i = 0; i < N; i++)
		(void)pthread_join(threads[i], NULL);
	(void)pthread_barrier_destroy(&t.start);
	(void)pthread_barrier_destroy(&t.end);
	assert_int_equal(bad, 0);
}

/* Somebody's lock on the folder is not for us. */
static void a_folder_that_is_held_keeps_nobody_for_long(void **state)
{
	int held = open(dir, O_RDONLY | O_DIRECTORY), fd;

	assert_int_equal(flock(held, LOCK_EX), 0);
	fd = make();
	assert_true(fd >= 0);
	assert_true(is_served());
	(void)close(fd);
	(void)close(held);
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
	const struct CMUnitTest tests[] = {
		TEST(of_many_at_once_one_gets_the_name_and_keeps_it),
		TEST(a_folder_that_is_held_keeps_nobody_for_long),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
