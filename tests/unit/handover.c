/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Copyright (C) 2026 the rbdcrypt-nbd authors */

#include "../../daemon/handover.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include <cmocka.h>

#define MESSAGES 32

/* What systemd would be: a socket that is told, by a thread that takes its time. */
struct manager {
	int fd;
	pthread_t thread;
	atomic_uint n;
	char texts[MESSAGES][128];
	int fds[MESSAGES]; /* -1: none */
};

static void *manager_main(void *arg)
{
	struct manager *m = arg;

	for (;;) {
		union {
			struct cmsghdr align;
			char bytes[CMSG_SPACE(sizeof(int)) + CMSG_SPACE(64)];
		} control;
		char text[128] = "";
		struct iovec iov = { text, sizeof(text) - 1 };
		struct msghdr h = { .msg_iov = &iov,
				    .msg_iovlen = 1,
				    .msg_control = &control,
				    .msg_controllen = sizeof(control) };
		int fd = -1;

		if (recvmsg(m->fd, &h, MSG_CMSG_CLOEXEC) < 0 || strcmp(text, "END") == 0)
			return NULL;
		for (struct cmsghdr *c = CMSG_FIRSTHDR(&h); c; c = CMSG_NXTHDR(&h, c))
			if (c->cmsg_level == SOL_SOCKET && c->cmsg_type == SCM_RIGHTS)
				memcpy(&fd, CMSG_DATA(c), sizeof(fd));
		(void)usleep(20000);
		if (strcmp(text, "BARRIER=1") == 0) {
			(void)close(fd);
			continue;
		}
		memcpy(m->texts[m->n], text, sizeof(text));
		m->fds[m->n] = fd;
		atomic_fetch_add(&m->n, 1);
	}
}

static void address(struct sockaddr_un *a, socklen_t *len)
{
	memset(a, 0, sizeof(*a));
	a->sun_family = AF_UNIX;
	(void)snprintf(a->sun_path + 1, sizeof(a->sun_path) - 1, "handover-test-%d", (int)getpid());
	*len = (socklen_t)(offsetof(struct sockaddr_un, sun_path) + 1 + strlen(a->sun_path + 1));
}

static void manager_start(struct manager *m)
{
	struct sockaddr_un a;
	socklen_t len;
	int low;

	memset(m, 0, sizeof(*m));
	address(&a, &len);
	low = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);
	assert_true(low >= 0);
	/* Where nothing is passed. */
	m->fd = fcntl(low, F_DUPFD_CLOEXEC, 300);
	(void)close(low);
	assert_int_equal(bind(m->fd, (struct sockaddr *)&a, len), 0);
	a.sun_path[0] = '@';
	assert_int_equal(setenv("NOTIFY_SOCKET", a.sun_path, 1), 0);
	assert_int_equal(pthread_create(&m->thread, NULL, manager_main, m), 0);
}

static void manager_stop(struct manager *m)
{
	struct sockaddr_un a;
	socklen_t len;
	int fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);

	address(&a, &len);
	assert_int_equal(sendto(fd, "END", 3, 0, (struct sockaddr *)&a, len), 3);
	(void)close(fd);
	assert_int_equal(pthread_join(m->thread, NULL), 0);
	(void)close(m->fd);
	for (unsigned int i = 0; i < m->n; i++)
		if (m->fds[i] >= 0)
			(void)close(m->fds[i]);
	(void)unsetenv("NOTIFY_SOCKET");
}

/* ---- what a process is passed ---- */

#define PASSED_MAX 8

struct passed {
	int kernel[PASSED_MAX]; /* the other ends */
	int n;
	char names[256];
};

static uint64_t inode_of(int fd)
{
	struct stat st;

	assert_int_equal(fstat(fd, &st), 0);
	return st.st_ino;
}

/* From 3 on, as sd_listen_fds(3) has it; the test program has nothing else open there. */
static void pass(struct passed *p, const char *name, int fd)
{
	assert_int_equal(dup2(fd, 100 + p->n), 100 + p->n);
	(void)close(fd);
	(void)snprintf(p->names + strlen(p->names), sizeof(p->names) - strlen(p->names), "%s%s",
		       p->n > 0 ? ":" : "", name);
	p->n++;
}

/* Its inode. */
static uint64_t pass_socket(struct passed *p, const char *name)
{
	int pair[2];
	uint64_t inode;

	assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair), 0);
	inode = inode_of(pair[0]);
	p->kernel[p->n] = fcntl(pair[1], F_DUPFD_CLOEXEC, 200);
	(void)close(pair[1]);
	pass(p, name, pair[0]);
	return inode;
}

static struct handover *receive(struct passed *p, int *ret_listen_fd)
{
	struct handover *h;
	char number[16];

	for (int i = 0; i < p->n; i++) {
		/* Nothing of cmocka's or of ours is there. */
		assert_int_equal(fcntl(3 + i, F_GETFD), -1);
		assert_int_equal(dup2(100 + i, 3 + i), 3 + i);
		(void)close(100 + i);
	}
	(void)snprintf(number, sizeof(number), "%d", (int)getpid());
	(void)setenv("LISTEN_PID", number, 1);
	(void)snprintf(number, sizeof(number), "%d", p->n);
	(void)setenv("LISTEN_FDS", number, 1);
	(void)setenv("LISTEN_FDNAMES", p->names, 1);
	assert_int_equal(handover_new("control", ret_listen_fd, &h), 0);
	return h;
}

static bool is_broken(int fd)
{
	struct pollfd p = { .fd = fd, .events = POLLRDHUP };

	return poll(&p, 1, 0) == 1 && (p.revents & POLLHUP);
}

static void done(struct passed *p)
{
	for (int i = 0; i < p->n; i++)
		(void)close(p->kernel[i]);
}

/* ---- tests ---- */

static void sockets_come_to_the_store_before_give_returns(void **state)
{
	struct manager m;
	struct handover *h;
	char note[HANDOVER_NOTE_BYTES] = "", want[128];
	int a[2], b[2], fds[3], listen_fd;
	uint64_t inode;

	(void)unsetenv("LISTEN_FDS");
	assert_int_equal(handover_new("control", &listen_fd, &h), 0);
	assert_int_equal(listen_fd, -1);
	assert_false(handover_is_waiting(h));
	assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM, 0, a), 0);
	assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM, 0, b), 0);
	fds[0] = a[0];
	fds[1] = -1;
	fds[2] = b[0];
	manager_start(&m);
	assert_int_equal(handover_give(h, 7, fds, 3, note), 2);
	assert_int_equal(m.n, 2);
	assert_string_equal(m.texts[0], "FDSTORE=1\nFDNAME=nbd7-0");
	assert_string_equal(m.texts[1], "FDSTORE=1\nFDNAME=nbd7-2");
	inode = inode_of(a[0]);
	assert_int_equal(inode_of(m.fds[0]), inode);
	(void)snprintf(want, sizeof(want), "%llu 0 %llu", (unsigned long long)inode,
		       (unsigned long long)inode_of(b[0]));
	assert_string_equal(note, want);
	manager_stop(&m);
	(void)handover_free(h);
	for (int i = 0; i < 2; i++) {
		(void)close(a[i]);
		(void)close(b[i]);
	}
}

static void a_dead_socket_is_not_given(void **state)
{
	struct manager m;
	struct handover *h;
	char note[HANDOVER_NOTE_BYTES] = "";
	int a[2], listen_fd;

	assert_int_equal(handover_new("control", &listen_fd, &h), 0);
	assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM, 0, a), 0);
	(void)close(a[1]);
	manager_start(&m);
	assert_int_equal(handover_give(h, 7, a, 1, note), 0);
	assert_int_equal(m.n, 0);
	assert_string_equal(note, "0");
	manager_stop(&m);
	(void)handover_free(h);
	(void)close(a[0]);
}

static void without_a_store_nothing_is_given(void **state)
{
	struct manager m;
	struct handover *h;
	char note[HANDOVER_NOTE_BYTES] = "as it was";
	int a[2], listen_fd;

	assert_int_equal(handover_new("control", &listen_fd, &h), 0);
	assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM, 0, a), 0);
	assert_int_equal(handover_give(NULL, 7, a, 1, note), -EOPNOTSUPP);
	assert_int_equal(handover_give(h, 7, a, 1, note), -EOPNOTSUPP);
	manager_start(&m);
	(void)setenv("FDSTORE", "0", 1);
	assert_int_equal(handover_give(h, 7, a, 1, note), -EOPNOTSUPP);
	assert_int_equal(m.n, 0);
	(void)setenv("FDSTORE", "4096", 1);
	manager_stop(&m);
	/* Nobody listens there any more. */
	(void)setenv("NOTIFY_SOCKET", "/nonexistent/notify", 1);
	assert_true(handover_give(h, 7, a, 1, note) < 0);
	(void)unsetenv("NOTIFY_SOCKET");
	(void)unsetenv("FDSTORE");
	assert_string_equal(note, "as it was");
	(void)handover_free(h);
	(void)close(a[0]);
	(void)close(a[1]);
}

static void a_note_leads_to_its_sockets_and_the_store_forgets_them(void **state)
{
	struct manager m;
	struct passed p = { 0 };
	unsigned long long inode0, inode1, other;
	char note[HANDOVER_NOTE_BYTES];
	struct handover *h;
	int listen_fd, fds[3];

	inode1 = pass_socket(&p, "nbd7-1");
	inode0 = pass_socket(&p, "nbd7-0");
	other = pass_socket(&p, "nbd8-0");
	manager_start(&m);
	h = receive(&p, &listen_fd);
	assert_int_equal(m.n, 0);
	assert_int_equal(listen_fd, -1);
	assert_true(handover_is_waiting(h));
	(void)snprintf(note, sizeof(note), "%llu %llu 0", inode0, inode1);
	assert_int_equal(handover_take(h, 7, note, 3, fds), 2);
	/* By now. */
	assert_int_equal(m.n, 2);
	assert_non_null(strstr(m.texts[0], "FDSTOREREMOVE=1\nFDNAME=nbd7-"));
	assert_non_null(strstr(m.texts[1], "FDSTOREREMOVE=1\nFDNAME=nbd7-"));
	assert_int_equal(inode_of(fds[0]), inode0);
	assert_int_equal(inode_of(fds[1]), inode1);
	assert_int_equal(fds[2], -1);
	(void)close(fds[0]);
	(void)close(fds[1]);
	/* Once. */
	assert_int_equal(handover_take(h, 7, note, 3, fds), 0);
	assert_int_equal(m.n, 2);
	assert_true(handover_is_waiting(h));
	(void)snprintf(note, sizeof(note), "%llu", other);
	assert_int_equal(handover_take(h, 8, note, 1, fds), 1);
	(void)close(fds[0]);
	assert_false(handover_is_waiting(h));
	(void)handover_free(h);
	manager_stop(&m);
	done(&p);
}

/* Two under one name, one that is dead, one of another kind, one too many. */
static void nothing_is_taken_that_the_note_does_not_name(void **state)
{
	struct manager m;
	struct passed p = { 0 };
	unsigned long long good, dead, file, listening;
	char note[HANDOVER_NOTE_BYTES];
	struct handover *h;
	int listen_fd, fds[4], fd;

	(void)pass_socket(&p, "nbd7-0");
	good = pass_socket(&p, "nbd7-0");
	dead = pass_socket(&p, "nbd7-1");
	(void)close(p.kernel[2]);
	p.kernel[2] = -1;
	fd = open("/dev/null", O_RDWR);
	file = inode_of(fd);
	p.kernel[p.n] = -1;
	pass(&p, "nbd7-2", fd);
	fd = socket(AF_UNIX, SOCK_STREAM, 0);
	listening = inode_of(fd);
	p.kernel[p.n] = -1;
	pass(&p, "nbd7-3", fd);
	(void)pass_socket(&p, "nbd7-4");
	manager_start(&m);
	h = receive(&p, &listen_fd);
	(void)snprintf(note, sizeof(note), "%llu %llu %llu %llu", good, dead, file, listening);
	assert_int_equal(handover_take(h, 7, note, 4, fds), 1);
	assert_int_equal(inode_of(fds[0]), good);
	assert_int_equal(fds[1], -1);
	assert_int_equal(fds[2], -1);
	assert_int_equal(fds[3], -1);
	assert_true(is_broken(p.kernel[0]));
	assert_false(is_broken(p.kernel[1]));
	assert_true(is_broken(p.kernel[5]));
	assert_int_equal(m.n, 6);
	(void)close(fds[0]);
	(void)handover_free(h);
	manager_stop(&m);
	done(&p);
}

static void a_damaged_note_names_nothing(void **state)
{
	static const char *const notes[] = { "",
					     " ",
					     "x",
					     "-1",
					     "0",
					     "0 0",
					     "99999999999999999999",
					     "1 x",
					     "18446744073709551615" };
	struct manager m;

	manager_start(&m);
	for (unsigned int i = 0; i < sizeof(notes) / sizeof(notes[0]); i++) {
		struct passed p = { 0 };
		struct handover *h;
		int listen_fd, fds[1];

		(void)pass_socket(&p, "nbd7-0");
		h = receive(&p, &listen_fd);
		assert_int_equal(handover_take(h, 7, notes[i], 1, fds), 0);
		assert_true(is_broken(p.kernel[0]));
		(void)handover_free(h);
		done(&p);
	}
	manager_stop(&m);
}

static void what_is_not_ours_is_let_go_at_once(void **state)
{
	struct manager m;
	struct passed p = { 0 };
	struct handover *h;
	int listen_fd;

	(void)pass_socket(&p, "control");
	(void)pass_socket(&p, "stored");
	(void)pass_socket(&p, "nbd07-0");
	(void)pass_socket(&p, "nbd7-0x");
	(void)pass_socket(&p, "nbd-7-0");
	(void)pass_socket(&p, "nbd7");
	(void)pass_socket(&p, "control");
	manager_start(&m);
	h = receive(&p, &listen_fd);
	assert_int_equal(listen_fd, 3);
	assert_false(is_broken(p.kernel[0]));
	for (int i = 1; i < p.n; i++)
		assert_true(is_broken(p.kernel[i]));
	assert_false(handover_is_waiting(h));
	(void)handover_free(h);
	(void)close(listen_fd);
	manager_stop(&m);
	assert_int_equal(m.n, 6);
	assert_string_equal(m.texts[0], "FDSTOREREMOVE=1\nFDNAME=stored");
	done(&p);
}

static bool is_eight(void *arg, int device)
{
	(void)arg;
	return device == 8;
}

static void a_sweep_leaves_what_is_wanted(void **state)
{
	struct manager m;
	struct passed p = { 0 };
	struct handover *h;
	int listen_fd;

	(void)pass_socket(&p, "nbd7-0");
	(void)pass_socket(&p, "nbd8-0");
	(void)pass_socket(&p, "nbd9-0");
	manager_start(&m);
	h = receive(&p, &listen_fd);
	handover_sweep(h, is_eight, NULL);
	assert_int_equal(m.n, 2);
	assert_true(is_broken(p.kernel[0]));
	assert_false(is_broken(p.kernel[1]));
	assert_true(is_broken(p.kernel[2]));
	/* What was not taken stays in the store. */
	(void)handover_free(h);
	assert_true(is_broken(p.kernel[1]));
	assert_int_equal(m.n, 2);
	manager_stop(&m);
	done(&p);
}

/* With an argument: the tests of which it is the name, or a pattern. */
int main(int argc, char **argv)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(sockets_come_to_the_store_before_give_returns),
		cmocka_unit_test(a_dead_socket_is_not_given),
		cmocka_unit_test(without_a_store_nothing_is_given),
		cmocka_unit_test(a_note_leads_to_its_sockets_and_the_store_forgets_them),
		cmocka_unit_test(nothing_is_taken_that_the_note_does_not_name),
		cmocka_unit_test(a_damaged_note_names_nothing),
		cmocka_unit_test(what_is_not_ours_is_let_go_at_once),
		cmocka_unit_test(a_sweep_leaves_what_is_wanted),
	};

	/* What the tests are passed begins there, and whoever runs them may have something open. */
	for (int fd = 3; fd < 3 + PASSED_MAX; fd++)
		(void)close(fd);
	if (argc > 1)
		cmocka_set_test_filter(argv[1]);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
