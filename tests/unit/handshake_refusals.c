/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Copyright (C) 2026 the rbdcrypt-nbd authors */

/*
 * The handshake with clients that are wrong, hostile, silent or gone.
 */

#include "client.h"

static void export_name_that_cannot_be_granted_hangs_up(void **state)
{
	static const struct {
		const char *name;
		size_t len;
		uint32_t min_block;
		int result;
	} table[] = {
		{ "nope", 4, 1, -ENOENT },
		{ "vol", 3, 512, -EPROTO },
		{ "v\0l", 3, 1, -EPROTO },
	};
	unsigned int i;

	for (i = 0; i < 3; i++) {
		struct run *run = new_run();
		struct script *s = greeted();

		run->min_block = table[i].min_block;
		say_option(s, EXPORT_NAME, table[i].name, table[i].len);
		play(run, s);
		assert_int_equal(run->result, table[i].result);
		assert_true(is_untouched(&run->session));
		expect_greeting(run);
		expect_end(run);
	}
}

static void a_name_of_4096_bytes_is_the_longest(void **state)
{
	static char name[4098];
	unsigned int len;

	memset(name, 'n', sizeof(name));
	for (len = 4096; len <= 4097; len++) {
		struct run *run = new_run();
		struct script *s = greeted();

		say_option(s, EXPORT_NAME, name, len);
		play(run, s);
		assert_int_equal(run->result, len == 4096 ? -ENOENT : -EPROTO);

		run = new_run();
		s = greeted();
		name[len] = 0;
		say_go(s, INFO, name, -1, -1);
		name[len] = 'n';
		play(run, s);
		expect_greeting(run);
		expect_reply(run, INFO, len == 4096 ? ERR_UNKNOWN : ERR_TOO_BIG, NULL);
		expect_end(run);
	}
}

static void unknown_client_flags_hang_up(void **state)
{
	struct run *run = new_run();
	struct script *s = greeted_with(7);

	say_option(s, EXPORT_NAME, "vol", 3);
	play(run, s);
	assert_int_equal(run->result, -EPROTO);
	expect_greeting(run);
	expect_end(run);
}

static void large_blocks_need_a_client_that_asks(void **state)
{
	struct run *run = new_run();
	struct script *s = greeted();

	run->min_block = 4096;
	say_go(s, GO, "vol", -1, -1);
	say_go(s, GO, "vol", 3, -1);
	play(run, s);
	expect_session(run, FLAGS, false, false);
	expect_greeting(run);
	expect_info_block_size(run, GO);
	expect_reply(run, GO, ERR_BLOCK_SIZE, NULL);
	expect_info_block_size(run, GO);
	expect_info_export(run, GO, FLAGS);
	expect_reply(run, GO, ACK, NULL);
	expect_end(run);
}

static void contexts_need_structured_replies(void **state)
{
	struct run *run = new_run();
	struct script *s = greeted();

	say_meta(s, LIST_META, "vol", 0, NULL);
	say_meta(s, SET_META, "vol", 2, allocation);
	play(run, s);
	expect_greeting(run);
	expect_reply(run, LIST_META, ERR_INVALID, NULL);
	expect_reply(run, SET_META, ERR_INVALID, NULL);
	expect_end(run);
}

static void unknown_options_are_unsupported_not_fatal(void **state)
{
	static const uint32_t unknown[] = { 0, PEEK, STARTTLS, 11, 0xffffffff };
	struct run *run = new_run();
	struct script *s = greeted();
	unsigned int i;

	for (i = 0; i < 5; i++)
		say_option(s, unknown[i], "data", 4);
	say_go(s, GO, "vol", -1, -1);
	play(run, s);
	expect_session(run, FLAGS, false, false);
	expect_greeting(run);
	for (i = 0; i < 5; i++)
		expect_reply(run, unknown[i], ERR_UNSUP, NULL);
}

static void options_that_take_no_data_refuse_it(void **state)
{
	struct run *run = new_run();
	struct script *s = greeted();

	say_option(s, LIST, "x", 1);
	say_option(s, STRUCTURED, "x", 1);
	say_go(s, GO, "vol", -1, -1);
	play(run, s);
	expect_session(run, FLAGS, false, false);
	expect_greeting(run);
	expect_reply(run, LIST, ERR_INVALID, NULL);
	expect_reply(run, STRUCTURED, ERR_INVALID, NULL);
}

/* Lengths inside an option that do not add up. */
static void malformed_options_are_invalid_not_fatal(void **state)
{
	static const struct {
		uint32_t option;
		const char *data;
		size_t len;
	} table[] = {
		{ GO, "", 0 },
		{ GO, "\0\0\0", 3 },
		{ GO, "\0\0\0\0", 4 },
		{ GO, "\0\0\0\0\0", 5 },
		{ GO, "\0\0\0\3vol", 7 },
		{ GO, "\xff\xff\xff\xffvol\0\0", 9 },
		{ GO, "\0\0\0\3vol\0\1\0", 10 },
		{ GO, "\0\0\0\3vol\0\0\0\0", 11 },
		{ GO, "\0\0\0\3v\0l\0\0", 9 },
		{ INFO, "\0\0\0\3vol\xff\xff\0\0", 11 },
		{ SET_META, "", 0 },
		{ SET_META, "\0\0\0\3vol", 7 },
		{ SET_META, "\0\0\0\3vol\0\0\0\1", 11 },
		{ SET_META, "\0\0\0\3vol\0\0\0\1\0\0\0\5base", 19 },
		{ SET_META, "\0\0\0\3vol\0\0\0\0x", 12 },
		{ SET_META, "\0\0\0\3vol\xff\xff\xff\xff\0\0\0\0", 15 },
		{ LIST_META, "\0\0\0\4vol\0\0\0\0", 11 },
	};
	const size_t n = sizeof(table) / sizeof(table[0]);
	struct run *run = new_run();
	struct script *s = greeted();
	unsigned int i;

	say_option(s, STRUCTURED, NULL, 0);
	for (i = 0; i < n; i++)
		say_option(s, table[i].option, table[i].data, table[i].len);
	say_go(s, GO, "vol", -1, -1);
	play(run, s);
	expect_session(run, FLAGS | WIRE_FLAG_SEND_DF, true, false);
	expect_greeting(run);
	expect_reply(run, STRUCTURED, ACK, NULL);
	for (i = 0; i < n; i++)
		expect_reply(run, table[i].option, ERR_INVALID, NULL);
}

static void oversize_data_is_skipped_and_answered(void **state)
{
	static const unsigned char much[1 << 20];
	struct run *run = new_run();
	struct script *s = greeted();

	say_option(s, LIST_META, much, (32 << 10) + 1);
	say_option(s, 77, much, sizeof(much));
	say_go(s, GO, "vol", -1, -1);
	play(run, s);
	expect_session(run, FLAGS, false, false);
	expect_greeting(run);
	expect_reply(run, LIST_META, ERR_TOO_BIG, NULL);
	expect_reply(run, 77, ERR_TOO_BIG, NULL);
}

static void oversize_export_name_hangs_up(void **state)
{
	static const unsigned char much[64 << 10];
	struct run *run = new_run();
	struct script *s = greeted();

	say_option(s, EXPORT_NAME, much, sizeof(much));
	play(run, s);
	assert_int_equal(run->result, -EPROTO);
}

static void more_than_a_megabyte_hangs_up(void **state)
{
	struct run *run = new_run();
	struct script *s = greeted();

	say(s, "IHAVEOPT", 8);
	say32(s, GO);
	say32(s, (1 << 20) + 1);
	play(run, s);
	assert_int_equal(run->result, -EPROTO);
}

static void too_many_options_hang_up(void **state)
{
	struct run *run = new_run();
	struct script *s = greeted();
	unsigned int i;

	for (i = 0; i < 256; i++)
		say_option(s, 99, NULL, 0);
	say_go(s, GO, "vol", -1, -1);
	play(run, s);
	assert_int_equal(run->result, -EPROTO);
}

static void a_wrong_option_magic_hangs_up(void **state)
{
	struct run *run = new_run();
	struct script *s = greeted();

	say(s, "IHAVEOPU\0\0\0\1\0\0\0\0", 16);
	play(run, s);
	assert_int_equal(run->result, -EPROTO);
	expect_greeting(run);
	expect_end(run);
}

static void silence_times_out(void **state)
{
	struct wire_session session;
	struct run *run = new_run();
	int fds[2];

	assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM, 0, fds), 0);
	run->min_block = 1;
	assert_int_equal(wire_handshake(fds[0], fds[0], -1, 30, find, list, run, &session),
			 -ETIMEDOUT);
	close(fds[0]);
	close(fds[1]);
}

static void a_client_that_never_reads_times_out(void **state)
{
	struct run *run = new_run();
	struct script *s = greeted();
	struct wire_session session;
	int fds[2], small = 1, i;

	assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM, 0, fds), 0);
	setsockopt(fds[0], SOL_SOCKET, SO_SNDBUF, &small, sizeof(small));
	for (i = 0; i < 200; i++)
		say_option(s, LIST, NULL, 0);
	write_all(fds[1], s->bytes, s->n);
	run->min_block = 1;
	run->is_many = true;
	assert_int_equal(wire_handshake(fds[0], fds[0], -1, 50, find, list, run, &session),
			 -ETIMEDOUT);
	close(fds[0]);
	close(fds[1]);
}

static void a_stop_ends_the_wait(void **state)
{
	struct wire_session session;
	struct run *run = new_run();
	int fds[2], stop[2];

	assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM, 0, fds), 0);
	assert_int_equal(pipe(stop), 0);
	assert_int_equal(write(stop[1], "", 1), 1);
	/* No time limit: only the stop can end it. */
	assert_int_equal(wire_handshake(fds[0], fds[0], stop[0], -1, find, list, run, &session),
			 -ECANCELED);
	close(fds[0]);
	close(fds[1]);
	close(stop[0]);
	close(stop[1]);
}

static void a_client_that_is_gone_at_once_is_no_error_of_ours(void **state)
{
	struct wire_session session;
	struct run *run = new_run();
	int fds[2];

	assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM, 0, fds), 0);
	close(fds[1]);
	assert_int_equal(wire_handshake(fds[0], fds[0], -1, 1000, find, list, run, &session),
			 -ECONNRESET);
	close(fds[0]);
}

static void a_client_that_goes_without_reading_left(void **state)
{
	struct run *run = new_run();
	int fds[2];
	pthread_t thread;
	char c;

	assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM, 0, fds), 0);
	run->fd = fds[0];
	run->stop_fd = -1;
	run->timeout_ms = 10000;
	assert_int_equal(pthread_create(&thread, NULL, serve, run), 0);
	/* Some of the greeting is read, so it is there; the rest makes this a reset. */
	assert_int_equal(read(fds[1], &c, 1), 1);
	close(fds[1]);
	pthread_join(thread, NULL);
	assert_int_equal(run->result, -ECONNRESET);
	close(fds[0]);
}

static void a_client_that_leaves_in_much_data_left(void **state)
{
	static const unsigned char much[64 << 10];
	struct run *run = new_run();
	struct script *s = greeted();

	say_option(s, LIST_META, much, sizeof(much));
	s->n--;
	play(run, s);
	assert_int_equal(run->result, -ECONNRESET);
}

static void a_broken_descriptor_is_said(void **state)
{
	struct wire_session session;
	struct run *run = new_run();
	int fd = open("/dev/null", O_RDONLY);

	/* Writable by poll's account, but not for write(). */
	assert_int_equal(wire_handshake(fd, fd, -1, 1000, find, list, run, &session), -EBADF);
	close(fd);
}

static void a_pipe_nobody_reads_is_a_client_that_left(void **state)
{
	struct wire_session session;
	struct run *run = new_run();
	int in[2], out[2];

	assert_int_equal(pipe(in), 0);
	assert_int_equal(pipe(out), 0);
	close(out[0]);
	assert_int_equal(wire_handshake(in[0], out[1], -1, 1000, find, list, run, &session),
			 -ECONNRESET);
	close(in[0]);
	close(in[1]);
	close(out[1]);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(export_name_that_cannot_be_granted_hangs_up),
		cmocka_unit_test(a_name_of_4096_bytes_is_the_longest),
		cmocka_unit_test(unknown_client_flags_hang_up),
		cmocka_unit_test(large_blocks_need_a_client_that_asks),
		cmocka_unit_test(contexts_need_structured_replies),
		cmocka_unit_test(unknown_options_are_unsupported_not_fatal),
		cmocka_unit_test(options_that_take_no_data_refuse_it),
		cmocka_unit_test(malformed_options_are_invalid_not_fatal),
		cmocka_unit_test(oversize_data_is_skipped_and_answered),
		cmocka_unit_test(oversize_export_name_hangs_up),
		cmocka_unit_test(more_than_a_megabyte_hangs_up),
		cmocka_unit_test(too_many_options_hang_up),
		cmocka_unit_test(a_wrong_option_magic_hangs_up),
		cmocka_unit_test(silence_times_out),
		cmocka_unit_test(a_client_that_never_reads_times_out),
		cmocka_unit_test(a_stop_ends_the_wait),
		cmocka_unit_test(a_client_that_is_gone_at_once_is_no_error_of_ours),
		cmocka_unit_test(a_client_that_goes_without_reading_left),
		cmocka_unit_test(a_client_that_leaves_in_much_data_left),
		cmocka_unit_test(a_broken_descriptor_is_said),
		cmocka_unit_test(a_pipe_nobody_reads_is_a_client_that_left),
	};

	signal(SIGPIPE, SIG_IGN);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
