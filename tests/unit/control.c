/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Copyright (C) 2026 the rbdcrypt-nbd authors */

/*
 * The control socket, with a real socket and a loop on a thread of its own: how messages are cut,
 * what comes with them, and what becomes of clients who go.
 */

#include "../../daemon/control.h"

#include <dirent.h>
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

static int count_fds(void)
{
	DIR *dir = opendir("/proc/self/fd");
	int n = 0;

	assert_non_null(dir);
	while (readdir(dir))
		n++;
	(void)closedir(dir);
	return n;
}

static void called(void *arg, struct control_call *call)
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

static void abandoned(void *arg, struct control_call *call)
{
	if (call != atomic_load(&d.waiting))
		abort();
	atomic_store(&d.waiting, NULL);
	atomic_fetch_add(&d.abandoned, 1);
}

static void on_quit(struct watch *w)
{
	event_clear(w->fd);
	loop_quit(d.loop);
}

static void *run(void *arg)
{
	(void)loop_run(d.loop);
	d.control = control_free(d.control);
	return NULL;
}

static int start(void **state)
{
	struct control_options o = {
		.run_dir = "/nowhere", .group = (gid_t)-1, .called = called, .abandoned = abandoned
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

static void end_loop(void)
{
	if (!d.thread)
		return;
	event_raise(d.quit.fd);
	(void)pthread_join(d.thread, NULL);
	d.thread = 0;
}

static int stop(void **state)
{
	end_loop();
	(void)close(d.quit.fd);
	d.loop = loop_free(d.loop);
	return count_fds() == d.fds ? 0 : -1;
}

/* ---- a client ---- */

static int dial(void)
{
	const struct timeval patience = { .tv_sec = 30 };
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);

	assert_int_equal(connect(fd, (struct sockaddr *)&d.address, d.address_len), 0);
	(void)setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof(patience));
	return fd;
}

static void send_text(int fd, const char *text, size_t len)
{
	while (len > 0) {
		ssize_t n = send(fd, text, len, MSG_NOSIGNAL);

		assert_true(n > 0);
		text += n;
		len -= (size_t)n;
	}
}

/* With n_fds descriptors of /dev/null beside it. */
static void send_with(int fd, const char *text, size_t len, unsigned int n_fds)
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

static void assert_hung_up(int fd)
{
	assert_string_equal(answer(fd), "");
	(void)close(fd);
}

static void assert_serves(void)
{
	int fd = dial();

	send_text(fd, CALL, sizeof(CALL));
	assert_non_null(strstr(answer(fd), "\"fds\":0"));
	(void)close(fd);
}

static bool has_waiting(void *arg)
{
	return atomic_load(&d.waiting) != NULL;
}

static bool was_abandoned(void *arg)
{
	return atomic_load(&d.abandoned) == 1;
}

/* ---- messages ---- */

static void a_message_in_single_bytes_is_one(void **state)
{
	static const char text[] = "{\"method\":\"x.y.Z\",\"parameters\":{\"a\":1,\"b\":[2]}}";
	int fd = dial();

	for (size_t i = 0; i < sizeof(text); i++) {
		assert_int_equal(atomic_load(&d.called), 0);
		send_text(fd, text + i, 1);
		if (i % 8 == 0)
			(void)usleep(500);
	}
	assert_non_null(strstr(answer(fd), "\"members\":2"));
	assert_string_equal(d.method, "x.y.Z");
	(void)close(fd);
}

static void messages_in_one_send_are_answered_one_after_the_other(void **state)
{
	static const char text[] = CALL "\0{\"method\":\"c.D\",\"parameters\":{\"n\":1}}\0" CALL;
	int fd = dial();

	send_text(fd, text, sizeof(text));
	assert_non_null(strstr(answer(fd), "\"members\":0"));
	assert_non_null(strstr(answer(fd), "\"members\":1"));
	assert_non_null(strstr(answer(fd), "\"members\":0"));
	(void)close(fd);
}

/* The next is not even looked at while one is under way, and none gets another's answer. */
static void a_call_under_way_holds_back_the_next(void **state)
{
	static const char text[] = CALL "\0" CALL;
	int fd = dial();

	atomic_store(&d.is_waiting, true);
	send_text(fd, text, sizeof(text));
	assert_true(rig_wait(has_waiting, NULL, 10000));
	(void)usleep(50000);
	assert_int_equal(atomic_load(&d.called), 1);
	(void)close(fd);
	assert_true(rig_wait(was_abandoned, NULL, 10000));
	atomic_store(&d.is_waiting, false);
	assert_serves();
	assert_int_equal(atomic_load(&d.called), 2);
}

static char *long_message(size_t len)
{
	static const char head[] = "{\"method\":\"a.B\",\"parameters\":{\"x\":\"", tail[] = "\"}}";
	char *text = malloc(len + 1);

	assert_non_null(text);
	memset(text, 'y', len);
	memcpy(text, head, sizeof(head) - 1);
	memcpy(text + len - (sizeof(tail) - 1), tail, sizeof(tail));
	return text;
}

/* The limit counts the zero byte. */
static void only_a_message_beyond_the_limit_is_cut(void **state)
{
	char *fits = long_message(MESSAGE_MAX - 1), *is_over = long_message(MESSAGE_MAX);
	int fd = dial();

	send_text(fd, fits, MESSAGE_MAX);
	assert_non_null(strstr(answer(fd), "\"members\":1"));
	/* And the place is free for the next. */
	send_text(fd, fits, MESSAGE_MAX);
	assert_non_null(strstr(answer(fd), "\"members\":1"));
	send_text(fd, is_over, MESSAGE_MAX);
	assert_hung_up(fd);
	assert_int_equal(atomic_load(&d.called), 2);
	assert_serves();
	free(fits);
	free(is_over);
}

static void what_is_no_call_ends_the_connection(void **state)
{
	static const char *const bad[] = {
		"",
		"{}",
		"[]",
		"null",
		"\"text\"",
		"{\"method\":null}",
		"{\"method\":7}",
		"{\"method\":[\"a.B\"]}",
		"{\"method\":\"a\\u0000b\"}",
		"{\"method\":\"a.B\",\"parameters\":[]}",
		"{\"method\":\"a.B\",\"parameters\":7}",
		"{\"method\":\"a.B\",\"upgrade\":true}",
		"{\"method\":\"a.B\",\"upgrade\":\"\"}",
		"{\"method\":\"a.B\",\"oneway\":\"false\"}",
		"{\"method\":\"a.B\",\"oneway\":1}",
		"{\"method\":\"a.B\",\"oneway\":{}}",
		CALL " x",
		CALL CALL,
		"{\"method\":\"a.B\",}",
		"{'method':'a.B'}",
		"{\"method\":\"\xff\"}",
		"[[[[[[[[[[[[[[[[[[]]]]]]]]]]]]]]]]]]",
	};
	char name[300];
	int fd;

	for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
		fd = dial();
		send_text(fd, bad[i], strlen(bad[i]) + 1);
		assert_hung_up(fd);
	}
	(void)snprintf(name, sizeof(name), "{\"method\":\"%0256d\"}", 0);
	fd = dial();
	send_text(fd, name, strlen(name) + 1);
	assert_hung_up(fd);
	assert_int_equal(atomic_load(&d.called), 0);
	assert_serves();
}

/* That it could be told of progress it may say; there is none to tell. */
static void a_call_that_wants_more_gets_one_answer(void **state)
{
	static const char text[] =
		"{\"method\":\"a.B\",\"more\":true,\"oneway\":null}\0"
		"{\"method\":\"a.B\",\"oneway\":false,\"upgrade\":false,\"parameters\":null}";
	int fd = dial();

	send_text(fd, text, sizeof(text));
	for (int i = 0; i < 2; i++) {
		const char *got = answer(fd);

		assert_non_null(strstr(got, "\"fds\":0"));
		assert_null(strstr(got, "continues"));
	}
	(void)shutdown(fd, SHUT_WR);
	assert_hung_up(fd);
	assert_int_equal(atomic_load(&d.called), 2);
}

static void a_call_that_wants_no_answer_gets_none(void **state)
{
	static const char text[] = "{\"method\":\"a.B\",\"oneway\":true}\0" CALL;
	int fd = dial();

	send_text(fd, text, sizeof(text));
	assert_non_null(strstr(answer(fd), "fds"));
	assert_int_equal(atomic_load(&d.called), 2);
	(void)shutdown(fd, SHUT_WR);
	assert_hung_up(fd);
}

/* ---- descriptors ---- */

static void descriptors_come_with_their_message(void **state)
{
	int fd = dial();

	send_with(fd, CALL, sizeof(CALL), 2);
	assert_non_null(strstr(answer(fd), "\"fds\":2"));
	/* They are not the next one's. */
	send_text(fd, CALL, sizeof(CALL));
	assert_non_null(strstr(answer(fd), "\"fds\":0"));
	/* Some with each half of one message. */
	send_with(fd, CALL, 5, 3);
	send_with(fd, &CALL[5], sizeof(CALL) - 5, CONTROL_FDS_MAX - 3);
	assert_non_null(strstr(answer(fd), "\"fds\":16"));
	(void)close(fd);
}

static void too_many_descriptors_are_closed_with_the_connection(void **state)
{
	int once = dial(), twice = dial();

	send_with(once, CALL, sizeof(CALL), CONTROL_FDS_MAX + 1);
	assert_hung_up(once);
	send_with(twice, CALL, 5, CONTROL_FDS_MAX);
	send_with(twice, &CALL[5], sizeof(CALL) - 5, 1);
	assert_hung_up(twice);
	assert_int_equal(atomic_load(&d.called), 0);
}

/* ---- clients who go ---- */

static void a_client_that_dies_in_the_middle_was_never_there(void **state)
{
	int fd = dial();

	send_with(fd, CALL, 5, 4);
	(void)close(fd);
	assert_serves();
	assert_int_equal(atomic_load(&d.called), 1);
	assert_int_equal(atomic_load(&d.abandoned), 0);
}

static void a_call_whose_client_dies_is_abandoned_once(void **state)
{
	int fd = dial();

	atomic_store(&d.is_waiting, true);
	send_with(fd, CALL, sizeof(CALL), 1);
	assert_true(rig_wait(has_waiting, NULL, 10000));
	(void)close(fd);
	assert_true(rig_wait(was_abandoned, NULL, 10000));
}

static void a_call_under_way_is_abandoned_when_the_daemon_stops(void **state)
{
	int fd = dial();

	atomic_store(&d.is_waiting, true);
	send_text(fd, CALL, sizeof(CALL));
	assert_true(rig_wait(has_waiting, NULL, 10000));
	end_loop();
	assert_int_equal(atomic_load(&d.abandoned), 1);
	assert_hung_up(fd);
}

/* ---- what a client can make us hold ---- */

/* {"method":"a.B","parameters":{"x":[{},{},...]}} with n of them. */
static char *many_values(size_t n, size_t *ret_len)
{
	static const char head[] = "{\"method\":\"a.B\",\"parameters\":{\"x\":[", tail[] = "{}]}}";
	char *text = malloc(sizeof(head) + 3 * n + sizeof(tail)), *p = text;

	assert_non_null(text);
	p = stpcpy(p, head);
	while (n-- > 1)
		p = stpcpy(p, "{},");
	p = stpcpy(p, tail);
	*ret_len = (size_t)(p - text) + 1;
	return text;
}

/* An object of two bytes would take a kilobyte of memory. */
static void a_message_of_too_many_values_is_cut(void **state)
{
	static const size_t n[] = { 900, 3000, 80000 };

	for (size_t i = 0; i < 3; i++) {
		int fd = dial();
		size_t len;
		char *text = many_values(n[i], &len);

		send_text(fd, text, len);
		if (i == 0)
			assert_non_null(strstr(answer(fd), "\"members\":1"));
		else
			assert_string_equal(answer(fd), "");
		(void)close(fd);
		free(text);
	}
	assert_int_equal(atomic_load(&d.called), 1);
}

static void what_stands_in_a_text_is_no_value(void **state)
{
	char *text = long_message(40000);
	int fd = dial();

	for (size_t i = 100; i < 39000; i += 3)
		memcpy(text + i, i % 2 ? "{[," : "\\\",", 3);
	send_text(fd, text, 40001);
	assert_non_null(strstr(answer(fd), "\"members\":1"));
	(void)close(fd);
	free(text);
}

static size_t heap(void)
{
	const struct mallinfo2 m = mallinfo2();

	return m.uordblks + m.hblkhd;
}

static size_t heap_limit;

static bool is_heap_below(void *arg)
{
	return heap() < heap_limit;
}

/* With sanitizers, which do not count so, it says nothing. */
static void clients_hold_no_more_than_they_sent(void **state)
{
	int fds[60];
	size_t before;

	assert_serves();
	before = heap();
	for (unsigned int i = 0; i < 60; i++) {
		fds[i] = dial();
		send_text(fds[i], CALL, sizeof(CALL));
		(void)answer(fds[i]);
	}
	heap_limit = before + 60 * 2048u;
	assert_true(rig_wait(is_heap_below, NULL, 10000));
	for (unsigned int i = 0; i < 60; i++)
		send_text(fds[i], CALL, 1);
	assert_serves();
	heap_limit = before + 60 * 8192u;
	assert_true(rig_wait(is_heap_below, NULL, 10000));
	for (unsigned int i = 0; i < 60; i++)
		(void)close(fds[i]);
}

static void a_call_under_way_holds_nothing_of_its_message(void **state)
{
	char *text = long_message(MESSAGE_MAX - 1);
	int fd = dial();

	assert_serves();
	heap_limit = heap() + 65536u;
	atomic_store(&d.is_waiting, true);
	send_text(fd, text, MESSAGE_MAX);
	assert_true(rig_wait(has_waiting, NULL, 10000));
	assert_true(rig_wait(is_heap_below, NULL, 10000));
	(void)close(fd);
	free(text);
}

/* ---- who takes time ---- */

#define ANSWER (3u << 20)

static bool is_hung_up(int fd)
{
	struct pollfd p = { .fd = fd, .events = POLLIN };

	return poll(&p, 1, 0) > 0;
}

/* Takes some of its answer, never all of it at once. */
static bool has_ended(int fd, size_t *taken)
{
	static char some[65536];
	ssize_t n = recv(fd, some, sizeof(some), MSG_DONTWAIT);

	*taken += n > 0 ? (size_t)n : 0;
	return n == 0 || (n < 0 && errno != EAGAIN);
}

/* What counts is the time since the beginning, not since the last byte. */
static void who_is_half_way_for_too_long_is_cut(void **state)
{
	int writer = dial(), reader = dial(), silent = dial(), waiting = dial();
	int64_t start = clock_ms(), writer_ms = 0, reader_ms = 0;
	size_t taken = 0;

	atomic_store(&d.is_waiting, true);
	/* Behind a call under way, the next message has time. */
	send_text(waiting, CALL, sizeof(CALL));
	send_text(waiting, CALL, 3);
	assert_true(rig_wait(has_waiting, NULL, 10000));
	atomic_store(&d.is_waiting, false);
	atomic_store(&d.answer_bytes, ANSWER);
	send_text(reader, CALL, sizeof(CALL));
	while ((!writer_ms || !reader_ms) && clock_ms() - start < 18000) {
		if (!writer_ms && is_hung_up(writer))
			writer_ms = clock_ms() - start;
		if (!writer_ms)
			(void)send(writer, "{", 1, MSG_NOSIGNAL);
		if (!reader_ms && has_ended(reader, &taken))
			reader_ms = clock_ms() - start;
		(void)usleep(300000);
	}
	assert_true(writer_ms > 9000 && writer_ms < 14000);
	assert_true(reader_ms > 9000 && taken > 0 && taken < ANSWER);
	assert_false(is_hung_up(silent));
	assert_int_equal(atomic_load(&d.abandoned), 0);
	atomic_store(&d.answer_bytes, 0);
	send_text(silent, CALL, sizeof(CALL));
	assert_non_null(strstr(answer(silent), "\"fds\":0"));
	for (size_t i = 0; i < 4; i++)
		(void)close((int[]){ writer, reader, silent, waiting }[i]);
}

/* ---- no descriptor to spare ---- */

static double processor_seconds(void)
{
	struct rusage u;

	assert_int_equal(getrusage(RUSAGE_SELF, &u), 0);
	return (double)(u.ru_utime.tv_sec + u.ru_stime.tv_sec) +
	       (double)(u.ru_utime.tv_usec + u.ru_stime.tv_usec) / 1e6;
}

static void without_descriptors_clients_wait_and_the_loop_sleeps(void **state)
{
	struct rlimit old, tight;
	double used;
	int fd = dial();

	/* All numbers below this one's are taken. */
	send_text(fd, CALL, sizeof(CALL));
	assert_non_null(strstr(answer(fd), "fds"));
	(void)close(fd);
	fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	assert_int_equal(getrlimit(RLIMIT_NOFILE, &old), 0);
	tight = old;
	tight.rlim_cur = (rlim_t)fd + 1;
	assert_int_equal(setrlimit(RLIMIT_NOFILE, &tight), 0);
	used = processor_seconds();
	(void)connect(fd, (struct sockaddr *)&d.address, d.address_len);
	(void)send(fd, CALL, sizeof(CALL), MSG_NOSIGNAL);
	(void)usleep(700000);
	used = processor_seconds() - used;
	assert_int_equal(atomic_load(&d.called), 1);
	assert_int_equal(setrlimit(RLIMIT_NOFILE, &old), 0);
	assert_true(used < 0.2);
	/* It was only late. */
	assert_non_null(strstr(answer(fd), "fds"));
	assert_int_equal(atomic_load(&d.called), 2);
	(void)close(fd);
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, start, stop)
	const struct CMUnitTest tests[] = {
		TEST(a_message_in_single_bytes_is_one),
		TEST(messages_in_one_send_are_answered_one_after_the_other),
		TEST(a_call_under_way_holds_back_the_next),
		TEST(only_a_message_beyond_the_limit_is_cut),
		TEST(what_is_no_call_ends_the_connection),
		TEST(a_call_that_wants_more_gets_one_answer),
		TEST(a_call_that_wants_no_answer_gets_none),
		TEST(descriptors_come_with_their_message),
		TEST(too_many_descriptors_are_closed_with_the_connection),
		TEST(a_client_that_dies_in_the_middle_was_never_there),
		TEST(a_call_whose_client_dies_is_abandoned_once),
		TEST(a_call_under_way_is_abandoned_when_the_daemon_stops),
		TEST(a_message_of_too_many_values_is_cut),
		TEST(what_stands_in_a_text_is_no_value),
		TEST(clients_hold_no_more_than_they_sent),
		TEST(a_call_under_way_holds_nothing_of_its_message),
		TEST(who_is_half_way_for_too_long_is_cut),
		TEST(without_descriptors_clients_wait_and_the_loop_sleeps),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
