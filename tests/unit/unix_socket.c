/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Copyright (C) 2026 the rbdcrypt-nbd authors */

/* A socket's name: who may take it over, and from whom. */

#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include <cmocka.h>

#include "../../daemon/unix_socket.h"

/* Anybody but root, for whom permissions count. */
#define OTHER 65534

static const struct unix_socket_access ours = { 0600, (uid_t)-1, (gid_t)-1 };

struct place {
	char dir[64], path[80];
};

static int make_place(void **state)
{
	struct place *p = calloc(1, sizeof(*p));

	assert_non_null(p);
	(void)strcpy(p->dir, "/tmp/rbdcrypt-socket.XXXXXX");
	assert_non_null(mkdtemp(p->dir));
	(void)snprintf(p->path, sizeof(p->path), "%s/s", p->dir);
	*state = p;
	return 0;
}

static int remove_place(void **state)
{
	struct place *p = *state;

	(void)unlink(p->path);
	(void)rmdir(p->dir);
	free(p);
	return 0;
}

static int listen_at(const struct place *p, int backlog)
{
	struct unix_socket_name name;

	return unix_socket_listen(p->path, &ours, backlog, &name);
}

/* Clients still find the server that had the name first. */
static void assert_served_by(const struct place *p, int server)
{
	struct sockaddr_un a = { .sun_family = AF_UNIX };
	int client = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0), fd;

	(void)strcpy(a.sun_path, p->path);
	assert_true(client >= 0);
	assert_int_equal(connect(client, (struct sockaddr *)&a, sizeof(a)), 0);
	/* Whoever looked whether it lives has been a client, too. */
	do {
		fd = accept4(server, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);
		assert_true(fd >= 0);
		(void)send(fd, "x", 1, MSG_NOSIGNAL);
		(void)close(fd);
	} while (recv(client, &fd, 1, MSG_DONTWAIT) != 1);
	(void)close(client);
}

static void name_of_a_dead_server_is_taken_over(void **state)
{
	const struct place *p = *state;
	int fd = listen_at(p, 5);

	assert_true(fd >= 0);
	(void)close(fd);
	fd = listen_at(p, 5);
	assert_true(fd >= 0);
	assert_served_by(p, fd);
	(void)close(fd);
}

static void name_of_a_living_server_is_not(void **state)
{
	const struct place *p = *state;
	int fd = listen_at(p, 1);

	assert_true(fd >= 0);
	/* The queue of those who wait is full after a few. */
	for (unsigned int i = 0; i < 5; i++)
		assert_int_equal(listen_at(p, 1), -EADDRINUSE);
	(void)close(fd);
	fd = listen_at(p, 5);
	assert_int_equal(listen_at(p, 5), -EADDRINUSE);
	assert_served_by(p, fd);
	(void)close(fd);
}

static void name_of_a_server_of_another_kind_is_not(void **state)
{
	const struct place *p = *state;
	struct sockaddr_un a = { .sun_family = AF_UNIX };
	int fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0);
	struct stat before, after;

	(void)strcpy(a.sun_path, p->path);
	assert_int_equal(bind(fd, (struct sockaddr *)&a, sizeof(a)), 0);
	assert_int_equal(listen(fd, 5), 0);
	assert_int_equal(stat(p->path, &before), 0);
	assert_int_equal(listen_at(p, 5), -EADDRINUSE);
	assert_int_equal(stat(p->path, &after), 0);
	assert_int_equal(after.st_ino, before.st_ino);
	(void)close(fd);
}

/* One descriptor for the new socket, and none to ask with. */
static void name_is_not_taken_from_whom_nobody_could_ask(void **state)
{
	const struct place *p = *state;
	int fd = listen_at(p, 5), r;
	struct rlimit old, tight;

	assert_true(fd >= 0);
	assert_int_equal(getrlimit(RLIMIT_NOFILE, &old), 0);
	for (rlim_t n = (rlim_t)fd; n < (rlim_t)fd + 4; n++) {
		tight = old;
		tight.rlim_cur = n;
		assert_int_equal(setrlimit(RLIMIT_NOFILE, &tight), 0);
		r = listen_at(p, 5);
		assert_int_equal(setrlimit(RLIMIT_NOFILE, &old), 0);
		assert_true(r == -EMFILE || r == -EADDRINUSE);
		assert_served_by(p, fd);
	}
	(void)close(fd);
}

static void name_is_not_taken_by_who_may_not_ask(void **state)
{
	const struct place *p = *state;
	int fd = listen_at(p, 5), r;
	const uid_t us = geteuid();

	assert_true(fd >= 0);
	assert_int_equal(chmod(p->path, 0), 0);
	if (us == 0) {
		assert_int_equal(chown(p->dir, OTHER, (gid_t)-1), 0);
		assert_int_equal(seteuid(OTHER), 0);
	}
	r = listen_at(p, 5);
	assert_int_equal(seteuid(us), 0);
	assert_int_equal(r, -EACCES);
	assert_int_equal(chmod(p->path, 0600), 0);
	assert_served_by(p, fd);
	(void)close(fd);
}

static void what_is_no_socket_stays(void **state)
{
	const struct place *p = *state;
	int fd = open(p->path, O_CREAT | O_WRONLY | O_CLOEXEC, 0600);
	struct stat st;

	assert_true(fd >= 0);
	(void)close(fd);
	assert_int_equal(listen_at(p, 5), -EEXIST);
	assert_int_equal(lstat(p->path, &st), 0);
	assert_true(S_ISREG(st.st_mode));
}

static void name_goes_with_its_server(void **state)
{
	const struct place *p = *state;
	struct unix_socket_name none = { .path = "" };
	struct unix_socket_name name;
	int fd = unix_socket_listen(p->path, &ours, 5, &name);

	assert_true(fd >= 0);
	unix_socket_remove(&none);
	assert_served_by(p, fd);
	unix_socket_remove(&name);
	assert_int_equal(access(p->path, F_OK), -1);
	/* Once more is once too often, and harmless. */
	unix_socket_remove(&name);
	(void)close(fd);
}

/* Somebody has taken the first one's file away, and listens there now. */
static void name_that_another_server_has_by_now_stays(void **state)
{
	const struct place *p = *state;
	struct unix_socket_name name, other;
	int fd = unix_socket_listen(p->path, &ours, 5, &name), second;

	assert_true(fd >= 0);
	assert_int_equal(unlink(p->path), 0);
	second = unix_socket_listen(p->path, &ours, 5, &other);
	assert_true(second >= 0);
	unix_socket_remove(&name);
	assert_served_by(p, second);
	(void)close(fd);
	unix_socket_remove(&other);
	assert_int_equal(access(p->path, F_OK), -1);
	(void)close(second);
}

int main(void)
{
#define TEST(f) cmocka_unit_test_setup_teardown(f, make_place, remove_place)
	const struct CMUnitTest tests[] = {
		TEST(name_of_a_dead_server_is_taken_over),
		TEST(name_of_a_living_server_is_not),
		TEST(name_of_a_server_of_another_kind_is_not),
		TEST(name_is_not_taken_from_whom_nobody_could_ask),
		TEST(name_is_not_taken_by_who_may_not_ask),
		TEST(what_is_no_socket_stays),
		TEST(name_goes_with_its_server),
		TEST(name_that_another_server_has_by_now_stays),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
