/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Copyright (C) 2026 the rbdcrypt-nbd authors */

/* The control socket with a loop on a thread of its own, and clients of it. */

#ifndef CONTROL_FIXTURE_H
#define CONTROL_FIXTURE_H

#include "../../daemon/control.h"

#include <errno.h>
#include <fcntl.h>
#include <malloc.h>
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
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <cmocka.h>

#include "clock.h"
#include "leftovers.h"
#include "rig.h"

#define MESSAGE_MAX (256u << 10)
#define CALL "{\"method\":\"a.B\"}"

/* A daemon that answers each call with the number of its descriptors, unless it is told to wait. */
static struct {
	struct loop *loop;
	struct control *control;
	struct watch quit;
	struct sockaddr_un address;
	socklen_t address_len;
	pthread_t thread;
	atomic_bool is_waiting;
	atomic_uint called, abandoned;
	atomic_size_t answer_bytes; /* at least */
	struct control_call *_Atomic waiting;
	char method[256];
	int fds; /* before */
} d;

static inline void called(void *arg, struct control_call *call)
{
	struct json_object *o = json_object_new_object();
	int n = 0;

	for (int fd; (fd = control_take_fd(call, (unsigned int)n)) >= 0; n++) {
		(void)close(fd);
		/* Taken is taken. */
		if (control_take_fd(call, (unsigned int)n) != -EBADF)
			abort();
	}
	(void)snprintf(d.method, sizeof(d.method), "%s", control_method(call));
	(void)json_object_object_add(o, "fds", json_object_new_int(n));
	(void)json_object_object_add(
		o, "members",
		json_object_new_int(json_object_object_length(control_parameters(call))));
	if (atomic_load(&d.answer_bytes) > 0) {
		char *pad = calloc(1, atomic_load(&d.answer_bytes) + 1);

		memset(pad, 'x', atomic_load(&d.answer_bytes));
		(void)json_object_object_add(o, "pad", json_object_new_string(pad));
		free(pad);
	}
	atomic_fetch_add(&d.called, 1);
	if (atomic_load(&d.is_waiting)) {
		json_object_put(o);
		atomic_store(&d.waiting, call);
	} else {
		control_reply(call, o);
	}
}

static inline void abandoned(void *arg, struct control_call *call)
{
	if (call != atomic_load(&d.waiting))
		abort();
	atomic_store(&d.waiting, NULL);
	atomic_fetch_add(&d.abandoned, 1);
}

static inline void on_quit(struct watch *w)
{
	event_clear(w->fd);
	loop_quit(d.loop);
}

static inline void *run(void *arg)
{
	(void)loop_run(d.loop);
	d.control = control_free(d.control);
	return NULL;
}

static inline int start_for(gid_t group)
{
	struct control_options o = {
		.run_dir = "/nowhere", .group = group, .called = called, .abandoned = abandoned
	};
	struct fault f = { 0 };

	memset(&d, 0, sizeof(d));
	d.fds = count_fds();
	d.address.sun_family = AF_UNIX;
	d.address_len = sizeof(d.address);
	o.fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	/* Without a name: the kernel finds one that no file stands for. */
	if (bind(o.fd, (struct sockaddr *)&d.address, sizeof(sa_family_t)) < 0 ||
	    getsockname(o.fd, (struct sockaddr *)&d.address, &d.address_len) < 0 ||
	    listen(o.fd, 64) < 0 || loop_new(&d.loop) < 0)
		return -1;
	o.loop = d.loop;
	if (control_new(&o, &d.control, &f) < 0)
		return -1;
	d.quit.fd = event_new();
	d.quit.ready = on_quit;
	if (loop_add(d.loop, &d.quit) < 0)
		return -1;
	return -pthread_create(&d.thread, NULL, run, NULL);
}

static inline int start(void **state)
{
	return start_for((gid_t)-1);
}

static inline void end_loop(void)
{
	if (!d.thread)
		return;
	event_raise(d.quit.fd);
	(void)pthread_join(d.thread, NULL);
	d.thread = 0;
}

static inline int stop(void **state)
{
	end_loop();
	(void)close(d.quit.fd);
	d.loop = loop_free(d.loop);
	return count_fds() == d.fds ? 0 : -1;
}

/* ---- a client ---- */

static inline int dial(void)
{
	const struct timeval patience = { .tv_sec = 30 };
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);

	assert_int_equal(connect(fd, (struct sockaddr *)&d.address, d.address_len), 0);
	(void)setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof(patience));
	return fd;
}

static inline void send_text(int fd, const char *text, size_t len)
{
	while (len > 0) {
		ssize_t n = send(fd, text, len, MSG_NOSIGNAL);

		assert_true(n > 0);
		text += n;
		len -= (size_t)n;
	}
}

/* With n_fds descriptors of /dev/null beside it. */
static inline void send_with(int fd, const char *text, size_t len, unsigned int n_fds)
{
	union {
		struct cmsghdr align;
		char bytes[CMSG_SPACE(sizeof(int) * 64)];
	} u = { 0 };
	struct iovec iov = { (void *)(uintptr_t)text, len };
	struct msghdr m = { .msg_iov = &iov, .msg_iovlen = 1 };
	int fds[64];

	for (unsigned int i = 0; i < n_fds; i++)
		fds[i] = open("/dev/null", O_RDONLY | O_CLOEXEC);
	if (n_fds > 0) {
		m.msg_control = &u;
		m.msg_controllen = CMSG_SPACE(sizeof(int) * n_fds);
		u.align.cmsg_level = SOL_SOCKET;
		u.align.cmsg_type = SCM_RIGHTS;
		u.align.cmsg_len = CMSG_LEN(sizeof(int) * n_fds);
		memcpy(CMSG_DATA(&u.align), fds, sizeof(int) * n_fds);
	}
	assert_int_equal(sendmsg(fd, &m, MSG_NOSIGNAL), len);
	for (unsigned int i = 0; i < n_fds; i++)
		(void)close(fds[i]);
}

/* One answer. "" when the daemon hung up. */
static const char *answer(int fd)
{
	static char text[4096];
	size_t n = 0;

	for (;;) {
		ssize_t got = recv(fd, text + n, 1, 0);

		if (got <= 0) {
			/* Not our own patience. */
			assert_true(got == 0 || errno == ECONNRESET);
			return "";
		}
		if (!text[n])
			return text;
		assert_true(++n < sizeof(text));
	}
}

static inline void assert_hung_up(int fd)
{
	assert_string_equal(answer(fd), "");
	(void)close(fd);
}

static inline void assert_serves(void)
{
	int fd = dial();

	send_text(fd, CALL, sizeof(CALL));
	assert_non_null(strstr(answer(fd), "\"fds\":0"));
	(void)close(fd);
}

static inline bool has_waiting(void *arg)
{
	return atomic_load(&d.waiting) != NULL;
}

static inline bool was_abandoned(void *arg)
{
	return atomic_load(&d.abandoned) == 1;
}

static inline char *long_message(size_t len)
{
	static const char head[] = "{\"method\":\"a.B\",\"parameters\":{\"x\":\"", tail[] = "\"}}";
	char *text = malloc(len + 1);

	assert_non_null(text);
	memset(text, 'y', len);
	memcpy(text, head, sizeof(head) - 1);
	memcpy(text + len - (sizeof(tail) - 1), tail, sizeof(tail));
	return text;
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, start, stop)

#endif
