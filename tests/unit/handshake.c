/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Copyright (C) 2026 the rbdcrypt-nbd authors */

/*
 * The handshake with good clients: each option, and the stream cut in two at every byte.
 */

#include "client.h"

static void export_name_gets_size_flags_and_zeroes(void **state)
{
	static const unsigned char zeroes[124];
	struct run *run = new_run();
	struct script *s = greeted_with(1);

	say_option(s, EXPORT_NAME, "vol", 3);
	play(run, s);
	expect_session(run, FLAGS, false, false);
	expect_greeting(run);
	assert_memory_equal(take(run, 10), "\0\0\0\x01\x23\x45\x60\0\x01\x05", 10);
	assert_memory_equal(take(run, 124), zeroes, 124);
	expect_end(run);
}

static void export_name_without_zeroes_is_ten_bytes(void **state)
{
	struct run *run = new_run();
	struct script *s = greeted();

	say_option(s, EXPORT_NAME, "", 0);
	play(run, s);
	expect_session(run, FLAGS, false, false);
	expect_greeting(run);
	take(run, 10);
	expect_end(run);
}

static void an_old_client_without_flags_is_served(void **state)
{
	struct run *run = new_run();
	struct script *s = greeted_with(0);

	say_option(s, EXPORT_NAME, "vol", 3);
	play(run, s);
	expect_session(run, FLAGS, false, false);
}

static void abort_is_acknowledged(void **state)
{
	struct run *run = new_run();
	struct script *s = greeted();

	say_option(s, ABORT, "ignored", 7);
	play(run, s);
	assert_int_equal(run->result, -ECONNRESET);
	expect_greeting(run);
	expect_reply(run, ABORT, ACK, NULL);
	expect_end(run);
}

static void list_names_every_export(void **state)
{
	struct run *run = new_run();
	struct script *s = greeted();

	say_option(s, LIST, NULL, 0);
	play(run, s);
	expect_greeting(run);
	expect_data(run, LIST, SERVER, "\0\0\0\3vola volume", 15);
	expect_data(run, LIST, SERVER, "\0\0\0\5other", 9);
	expect_reply(run, LIST, ACK, NULL);
	expect_end(run);
	assert_int_equal(run->result, -ECONNRESET);
}

static void a_list_longer_than_the_send_buffer_arrives(void **state)
{
	struct run *run = new_run();
	struct script *s = greeted();
	unsigned int i, k;

	run->is_many = true;
	for (k = 0; k < 4; k++)
		say_option(s, LIST, NULL, 0);
	play(run, s);
	expect_greeting(run);
	for (k = 0; k < 4; k++) {
		for (i = 0; i < MANY; i++)
			expect_data(run, LIST, SERVER, "\0\0\0\3vola volume", 15);
		expect_reply(run, LIST, ACK, NULL);
	}
	expect_end(run);
}

static void go_tells_what_was_asked_for(void **state)
{
	struct run *run = new_run();
	struct script *s = greeted();

	say_go(s, GO, "", 1, 2);
	play(run, s);
	expect_session(run, FLAGS, false, false);
	expect_greeting(run);
	expect_info_block_size(run, GO);
	expect_info_export(run, GO, FLAGS);
	expect_data(run, GO, REP_INFO, "\0\1vol", 5);
	expect_data(run, GO, REP_INFO, "\0\2a volume", 10);
	expect_reply(run, GO, ACK, NULL);
	expect_end(run);
}

static void info_does_not_begin_transmission(void **state)
{
	struct run *run = new_run();
	struct script *s = greeted();

	/* 2: it has no description; 99: nobody knows. */
	say_go(s, INFO, "other", 2, 99);
	say_go(s, GO, "vol", 3, -1);
	play(run, s);
	expect_session(run, FLAGS, false, false);
	expect_greeting(run);
	expect_info_block_size(run, INFO);
	expect_info_export(run, INFO, FLAGS);
	expect_reply(run, INFO, ACK, NULL);
	expect_info_block_size(run, GO);
	expect_info_export(run, GO, FLAGS);
	expect_reply(run, GO, ACK, NULL);
	expect_end(run);
}

static void structured_replies_bring_the_df_flag(void **state)
{
	struct run *run = new_run();
	struct script *s = greeted();

	say_option(s, STRUCTURED, NULL, 0);
	say_go(s, GO, "vol", -1, -1);
	play(run, s);
	expect_session(run, FLAGS | WIRE_FLAG_SEND_DF, true, false);
	expect_greeting(run);
	expect_reply(run, STRUCTURED, ACK, NULL);
	expect_info_block_size(run, GO);
	expect_info_export(run, GO, FLAGS | WIRE_FLAG_SEND_DF);
	expect_reply(run, GO, ACK, NULL);
	expect_end(run);
}

static void a_selected_context_is_in_the_session(void **state)
{
	struct run *run = new_run();
	struct script *s = greeted();

	say_option(s, STRUCTURED, NULL, 0);
	say_meta(s, SET_META, "vol", 2, allocation);
	say_go(s, GO, "vol", -1, -1);
	play(run, s);
	expect_session(run, FLAGS | WIRE_FLAG_SEND_DF, true, true);
	expect_greeting(run);
	expect_reply(run, STRUCTURED, ACK, NULL);
	expect_data(run, SET_META, META, "\0\0\0\1base:allocation", 19);
	expect_reply(run, SET_META, ACK, NULL);
}

static void a_context_of_another_export_does_not_count(void **state)
{
	struct run *run = new_run();
	struct script *s = greeted();

	say_option(s, STRUCTURED, NULL, 0);
	say_meta(s, SET_META, "vol", 2, allocation);
	say_go(s, GO, "other", -1, -1);
	play(run, s);
	expect_session(run, FLAGS | WIRE_FLAG_SEND_DF, true, false);
}

static void an_export_without_status_selects_nothing(void **state)
{
	struct run *run = new_run();
	struct script *s = greeted();

	say_option(s, STRUCTURED, NULL, 0);
	say_meta(s, SET_META, "other", 2, allocation);
	say_go(s, GO, "other", -1, -1);
	play(run, s);
	expect_session(run, FLAGS | WIRE_FLAG_SEND_DF, true, false);
	expect_greeting(run);
	expect_reply(run, STRUCTURED, ACK, NULL);
	expect_reply(run, SET_META, ACK, NULL);
}

static void a_failed_selection_drops_the_old_one(void **state)
{
	struct run *run = new_run();
	struct script *s = greeted();

	say_option(s, STRUCTURED, NULL, 0);
	say_meta(s, SET_META, "vol", 2, allocation);
	say_meta(s, SET_META, "nope", 2, allocation);
	say_go(s, GO, "vol", -1, -1);
	play(run, s);
	expect_session(run, FLAGS | WIRE_FLAG_SEND_DF, true, false);
	expect_greeting(run);
	expect_reply(run, STRUCTURED, ACK, NULL);
	expect_reply(run, SET_META, META, &(size_t){ 0 });
	expect_reply(run, SET_META, ACK, NULL);
	expect_reply(run, SET_META, ERR_UNKNOWN, NULL);
}

static void wildcards_list_but_do_not_select(void **state)
{
	static const char *const wild[] = { "base:" };
	static const char *const odd[] = { "", "nocolon", "base:unheard", "x-y:z",
					   "base:allocation2" };
	struct run *run = new_run();
	struct script *s = greeted();

	say_option(s, STRUCTURED, NULL, 0);
	say_meta(s, LIST_META, "vol", 0, NULL);
	say_meta(s, LIST_META, "vol", 1, wild);
	say_meta(s, LIST_META, "vol", 2, allocation);
	say_meta(s, LIST_META, "vol", 5, odd);
	say_meta(s, SET_META, "vol", 0, NULL);
	say_meta(s, SET_META, "vol", 1, wild);
	say_meta(s, SET_META, "vol", 5, odd);
	say_go(s, GO, "vol", -1, -1);
	play(run, s);
	expect_session(run, FLAGS | WIRE_FLAG_SEND_DF, true, false);
	expect_greeting(run);
	expect_reply(run, STRUCTURED, ACK, NULL);
	expect_data(run, LIST_META, META, "\0\0\0\0base:allocation", 19);
	expect_reply(run, LIST_META, ACK, NULL);
	expect_data(run, LIST_META, META, "\0\0\0\0base:allocation", 19);
	expect_reply(run, LIST_META, ACK, NULL);
	expect_data(run, LIST_META, META, "\0\0\0\0base:allocation", 19);
	expect_reply(run, LIST_META, ACK, NULL);
	expect_reply(run, LIST_META, ACK, NULL);
	expect_reply(run, SET_META, ACK, NULL);
	expect_reply(run, SET_META, ACK, NULL);
	expect_reply(run, SET_META, ACK, NULL);
}

static void not_one_byte_of_the_first_request_is_taken(void **state)
{
	struct run *run = new_run();
	struct script *s = greeted();

	say_go(s, GO, "vol", -1, -1);
	say(s, "a request of 28 bytes follow", 28);
	play(run, s);
	expect_session(run, FLAGS, false, false);
	assert_int_equal(run->rest, 28);
}

/* Everything a good client says, as the cuts go through every part of it. */
static struct script *long_script(void)
{
	struct script *s = greeted();

	say_option(s, LIST, NULL, 0);
	say_option(s, 99, "data", 4);
	say_option(s, STRUCTURED, NULL, 0);
	say_meta(s, LIST_META, "vol", 0, NULL);
	say_meta(s, SET_META, "vol", 2, allocation);
	say_go(s, INFO, "vol", 1, 2);
	say_go(s, GO, "vol", 3, -1);
	return s;
}

static void it_makes_no_difference_where_the_stream_is_cut(void **state)
{
	struct run *run = new_run();
	struct script *s = long_script();
	static unsigned char whole[4096];
	size_t n, cut;

	play(run, s);
	expect_session(run, FLAGS | WIRE_FLAG_SEND_DF, true, true);
	n = run->n;
	assert_true(n < sizeof(whole));
	memcpy(whole, run->out, n);
	for (cut = 1; cut < s->n; cut++) {
		play_cut(run, s, cut);
		expect_session(run, FLAGS | WIRE_FLAG_SEND_DF, true, true);
		assert_int_equal(run->n, n);
		assert_memory_equal(run->out, whole, n);
	}
}

static void a_client_may_leave_at_any_byte(void **state)
{
	struct script *s = long_script();
	size_t n = s->n;

	for (s->n = 0; s->n < n; s->n++) {
		struct run *run = new_run();

		play(run, s);
		assert_int_equal(run->result, -ECONNRESET);
		assert_true(is_untouched(&run->session));
	}
}

static void pipes_serve_as_well_as_sockets(void **state)
{
	struct run *run = new_run();
	struct script *s = greeted();
	int in[2], out[2];

	assert_int_equal(pipe(in), 0);
	assert_int_equal(pipe(out), 0);
	run->min_block = 1;
	say_option(s, LIST, NULL, 0);
	say_go(s, GO, "vol", 1, 2);
	assert_int_equal(write(in[1], s->bytes, s->n), s->n);
	assert_int_equal(wire_handshake(in[0], out[1], -1, 1000, find, list, run, &run->session),
			 0);
	close(out[1]);
	read_all(out[0], run);
	expect_session(run, FLAGS, false, false);
	expect_greeting(run);
	expect_data(run, LIST, SERVER, "\0\0\0\3vola volume", 15);
	close(in[0]);
	close(in[1]);
	close(out[0]);
}

static void a_server_without_a_list_lists_nothing(void **state)
{
	struct run *run = new_run();
	struct script *s = greeted();
	int fds[2];

	assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM, 0, fds), 0);
	say_option(s, LIST, NULL, 0);
	say_option(s, ABORT, NULL, 0);
	write_all(fds[1], s->bytes, s->n);
	assert_int_equal(wire_handshake(fds[0], fds[0], -1, 1000, find, NULL, run, &run->session),
			 -ECONNRESET);
	close(fds[0]);
	read_all(fds[1], run);
	close(fds[1]);
	expect_greeting(run);
	expect_reply(run, LIST, ACK, NULL);
	expect_reply(run, ABORT, ACK, NULL);
	expect_end(run);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(export_name_gets_size_flags_and_zeroes),
		cmocka_unit_test(export_name_without_zeroes_is_ten_bytes),
		cmocka_unit_test(an_old_client_without_flags_is_served),
		cmocka_unit_test(abort_is_acknowledged),
		cmocka_unit_test(list_names_every_export),
		cmocka_unit_test(a_list_longer_than_the_send_buffer_arrives),
		cmocka_unit_test(go_tells_what_was_asked_for),
		cmocka_unit_test(info_does_not_begin_transmission),
		cmocka_unit_test(structured_replies_bring_the_df_flag),
		cmocka_unit_test(a_selected_context_is_in_the_session),
		cmocka_unit_test(a_context_of_another_export_does_not_count),
		cmocka_unit_test(an_export_without_status_selects_nothing),
		cmocka_unit_test(a_failed_selection_drops_the_old_one),
		cmocka_unit_test(wildcards_list_but_do_not_select),
		cmocka_unit_test(not_one_byte_of_the_first_request_is_taken),
		cmocka_unit_test(it_makes_no_difference_where_the_stream_is_cut),
		cmocka_unit_test(a_client_may_leave_at_any_byte),
		cmocka_unit_test(pipes_serve_as_well_as_sockets),
		cmocka_unit_test(a_server_without_a_list_lists_nothing),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
