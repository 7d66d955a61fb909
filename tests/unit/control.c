/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Copyright (C) 2026 the rbdcrypt-nbd authors */

/*
 * The control socket, with a real socket and a loop on a thread of its own: how messages are cut,
 * what comes with them, and what becomes of clients who go.
 */

#include "control_fixture.h"

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
	assert_non_null(strstr(answer(fd), "the daemon ended"));
	assert_hung_up(fd);
}

int main(void)
{
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
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
