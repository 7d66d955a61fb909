/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Copyright (C) 2026 the rbdcrypt-nbd authors */

/* What clients of the control socket can hold, and for how long. */

#include "control_fixture.h"

#include <sys/syscall.h>

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

/* ---- who takes all places ---- */

#define OTHER 65534
#define SHARE 56 /* of members of the group */
#define PLACES (SHARE + 8)

static bool has_called(void *arg)
{
	return atomic_load(&d.called) == *(unsigned int *)arg;
}

static int start_for_our_group(void **state)
{
	return start_for(getegid());
}

/* A member of the control group that is not root: this thread alone, not the daemon's. */
static int dial_as_member(void)
{
	int fd;

	assert_int_equal(syscall(SYS_setresuid, -1, OTHER, -1), 0);
	fd = dial();
	assert_int_equal(syscall(SYS_setresuid, -1, 0, -1), 0);
	return fd;
}

static void members_of_the_group_leave_root_a_place(void **state)
{
	int members[PLACES], root[PLACES];

	if (geteuid() != 0)
		skip();
	/* None takes its answer, so none has to make room. */
	atomic_store(&d.answer_bytes, ANSWER);
	for (unsigned int i = 0; i < PLACES; i++) {
		members[i] = dial_as_member();
		(void)send(members[i], CALL, sizeof(CALL), MSG_NOSIGNAL);
		if (i < SHARE)
			assert_true(rig_wait(has_called, &(unsigned int){ i + 1 }, 10000));
	}
	for (unsigned int i = SHARE; i < PLACES; i++)
		assert_non_null(strstr(answer(members[i]), "too many clients"));
	atomic_store(&d.answer_bytes, 0);
	/* One place after the other, and also where idle ones of root have taken some. */
	for (unsigned int i = 0; i < PLACES; i++) {
		root[i] = dial();
		send_text(root[i], CALL, sizeof(CALL));
		assert_non_null(strstr(answer(root[i]), "\"fds\":0"));
	}
	for (unsigned int i = 0; i < PLACES; i++) {
		(void)close(members[i]);
		(void)close(root[i]);
	}
}

static void idle_members_make_room_for_members_and_not_root(void **state)
{
	int root, members[PLACES], n_cut = 0;

	if (geteuid() != 0)
		skip();
	root = dial();
	send_text(root, CALL, sizeof(CALL));
	assert_non_null(strstr(answer(root), "fds"));
	for (unsigned int i = 0; i < PLACES; i++) {
		members[i] = dial_as_member();
		send_text(members[i], CALL, sizeof(CALL));
		assert_non_null(strstr(answer(members[i]), "fds"));
	}
	send_text(root, CALL, sizeof(CALL));
	assert_non_null(strstr(answer(root), "fds"));
	for (unsigned int i = 0; i < PLACES; i++) {
		n_cut += is_hung_up(members[i]);
		(void)close(members[i]);
	}
	assert_int_equal(n_cut, PLACES - SHARE);
	(void)close(root);
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
#define GROUP(name) cmocka_unit_test_setup_teardown(name, start_for_our_group, stop)
	const struct CMUnitTest tests[] = {
		TEST(a_message_of_too_many_values_is_cut),
		TEST(what_stands_in_a_text_is_no_value),
		TEST(clients_hold_no_more_than_they_sent),
		TEST(a_call_under_way_holds_nothing_of_its_message),
		TEST(who_is_half_way_for_too_long_is_cut),
		GROUP(members_of_the_group_leave_root_a_place),
		GROUP(idle_members_make_room_for_members_and_not_root),
		TEST(without_descriptors_clients_wait_and_the_loop_sleeps),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
