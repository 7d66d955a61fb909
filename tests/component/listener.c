/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Copyright (C) 2026 the rbdcrypt-nbd authors */

/* More clients than a volume has places for: who gets one, and how much is said of the others. */

#include "../../daemon/listener.h"

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <cmocka.h>

#include "log.h"
#include "rig.h"

#define PLACES 64
#define CROWD 20
/* Of the log. */
#define WINDOW_US 5200000

struct house {
	struct rig rig;
	struct loop *loop;
	struct listener *listener;
	struct sockaddr_un at;
	char dir[64];
	int log, stderr_before;
};

static int setup(void **state)
{
	static const struct rig_options options = {
		.sim = { .raw_size = 1 << 20, .object_size = 1 << 20, .seed = 1 },
	};
	struct house *h = calloc(1, sizeof(*h));
	struct listener_options o = { .export_name = "", .fd = -1, .in_fd = -1, .out_fd = -1 };
	struct fault f = { 0 };

	assert_non_null(h);
	*state = h;
	strcpy(h->dir, "/tmp/rbdcrypt-listener-XXXXXX");
	assert_non_null(mkdtemp(h->dir));
	h->at.sun_family = AF_UNIX;
	(void)snprintf(h->at.sun_path, sizeof(h->at.sun_path), "%s/s", h->dir);
	rig_start(&options, &h->rig);
	assert_int_equal(loop_new(&h->loop), 0);
	o.volume = h->rig.volume;
	o.loop = h->loop;
	o.path = h->at.sun_path;
	o.access =
		(struct unix_socket_access){ .mode = 0600, .owner = (uid_t)-1, .group = (gid_t)-1 };
	assert_int_equal(listener_start(&o, &h->listener, &f), 0);
	h->log = memfd_create("log", MFD_CLOEXEC);
	h->stderr_before = dup(STDERR_FILENO);
	assert_true(h->log >= 0 && h->stderr_before >= 0);
	assert_true(dup2(h->log, STDERR_FILENO) >= 0);
	return 0;
}

static int teardown(void **state)
{
	struct house *h = *state;

	(void)dup2(h->stderr_before, STDERR_FILENO);
	(void)close(h->stderr_before);
	(void)close(h->log);
	h->listener = listener_stop(h->listener);
	h->loop = loop_free(h->loop);
	rig_stop(&h->rig);
	/* The socket is gone from it. */
	assert_int_equal(rmdir(h->dir), 0);
	free(h);
	return 0;
}

static void expect_log(struct house *h, const char *text)
{
	char is[4096] = "";

	assert_true(pread(h->log, is, sizeof(is) - 1, 0) >= 0);
	assert_string_equal(is, text);
}

/* n clients at once, and the listener does what it does with them. */
static void come(struct house *h, int *clients, unsigned int n)
{
	for (unsigned int i = 0; i < n; i++) {
		clients[i] = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
		assert_true(clients[i] >= 0);
		assert_int_equal(connect(clients[i], (struct sockaddr *)&h->at, sizeof(h->at)), 0);
	}
	assert_int_equal(loop_run_until_quiet(h->loop, 100), LOOP_QUIET);
}

static void leave(struct house *h, int client)
{
	(void)close(client);
	assert_int_equal(loop_run_until_quiet(h->loop, 300), LOOP_QUIET);
}

/* Whether it was sent the beginning of a handshake; else it was hung up on, without a byte. */
static bool has_place(int client)
{
	struct timeval limit = { .tv_sec = 10 };
	char magic[8];
	ssize_t n;

	(void)setsockopt(client, SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof(limit));
	n = recv(client, magic, sizeof(magic), MSG_WAITALL);
	if (n > 0)
		assert_memory_equal(magic, "NBDMAGIC", 8);
	else
		assert_int_equal(n, 0);
	return n > 0;
}

static void of_a_crowd_that_finds_no_place_the_log_is_told_seldom(void **state)
{
	static const char first[] = "rbdcrypt-nbd: test: turned a client away: Too many open files "
				    "(0 more since the last message)\n";
	struct house *h = *state;
	int in[PLACES], crowd[CROWD];
	char both[512];

	come(h, in, PLACES);
	for (unsigned int i = 0; i < PLACES; i++)
		assert_true(has_place(in[i]));
	expect_log(h, "");
	for (unsigned int round = 0; round < 2; round++) {
		come(h, crowd, CROWD);
		for (unsigned int i = 0; i < CROWD; i++) {
			assert_false(has_place(crowd[i]));
			(void)close(crowd[i]);
		}
		expect_log(h, first);
	}
	/* How many there were is not lost. */
	(void)usleep(WINDOW_US);
	come(h, crowd, 1);
	assert_false(has_place(crowd[0]));
	(void)close(crowd[0]);
	(void)snprintf(both, sizeof(both),
		       "%srbdcrypt-nbd: test: turned a client away: Too many open files "
		       "(%d more since the last message)\n",
		       first, 2 * CROWD - 1);
	expect_log(h, both);
	/* Where one leaves, one can come. */
	leave(h, in[0]);
	come(h, in, 1);
	assert_true(has_place(in[0]));
	expect_log(h, both);
	for (unsigned int i = 0; i < PLACES; i++)
		(void)close(in[i]);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(
			of_a_crowd_that_finds_no_place_the_log_is_told_seldom, setup, teardown),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
