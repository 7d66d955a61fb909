/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Copyright (C) 2026 the rbdcrypt-nbd authors */

/*
 * The handshake driven over a socketpair by a client written here from the
 * protocol text: whole, in two pieces cut at every position, and wrong in every
 * way the protocol names.
 */

#include <endian.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sched.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cmocka.h>

#include "wire.h"

#define SIZE UINT64_C(0x0000000123456000)
#define FLAGS (WIRE_FLAG_HAS_FLAGS | WIRE_FLAG_SEND_FLUSH | WIRE_FLAG_CAN_MULTI_CONN)

enum { EXPORT_NAME = 1, ABORT, LIST, PEEK, STARTTLS, INFO, GO, STRUCTURED, LIST_META, SET_META };
enum { ACK = 1, SERVER, REP_INFO, META };
#define ERR_UNSUP 0x80000001u
#define ERR_INVALID 0x80000003u
#define ERR_UNKNOWN 0x80000006u
#define ERR_BLOCK_SIZE 0x80000008u
#define ERR_TOO_BIG 0x80000009u

/* ---- the bytes a client sends ---- */

struct script {
	size_t n;
	unsigned char bytes[2 << 20];
};

static void say(struct script *s, const void *data, size_t len)
{
	assert_true(s->n + len <= sizeof(s->bytes));
	if (len > 0)
		memcpy(s->bytes + s->n, data, len);
	s->n += len;
}

static void say16(struct script *s, uint16_t v)
{
	v = htobe16(v);
	say(s, &v, sizeof(v));
}

static void say32(struct script *s, uint32_t v)
{
	v = htobe32(v);
	say(s, &v, sizeof(v));
}

static void say_option(struct script *s, uint32_t option, const void *data, size_t len)
{
	say(s, "IHAVEOPT", 8);
	say32(s, option);
	say32(s, (uint32_t)len);
	say(s, data, len);
}

static void say_name(struct script *s, const char *name)
{
	say32(s, (uint32_t)strlen(name));
	say(s, name, strlen(name));
}

/* GO or INFO with up to two information requests (-1: none). */
static void say_go(struct script *s, uint32_t option, const char *name, int info1, int info2)
{
	static struct script data;

	data.n = 0;
	say_name(&data, name);
	say16(&data, (uint16_t)((info1 >= 0) + (info2 >= 0)));
	if (info1 >= 0)
		say16(&data, (uint16_t)info1);
	if (info2 >= 0)
		say16(&data, (uint16_t)info2);
	say_option(s, option, data.bytes, data.n);
}

static void say_meta(struct script *s, uint32_t option, const char *name, unsigned int n,
		     const char *const *queries)
{
	static struct script data;
	unsigned int i;

	data.n = 0;
	say_name(&data, name);
	say32(&data, n);
	for (i = 0; i < n; i++)
		say_name(&data, queries[i]);
	say_option(s, option, data.bytes, data.n);
}

/* ---- a server run on a script ---- */

struct run {
	int result;
	struct wire_session session;
	/* What the server sent. */
	size_t n, at;
	unsigned char out[1 << 20];
	/* How many bytes the server left unread. */
	size_t rest;

	int fd, stop_fd, timeout_ms;
	uint32_t min_block;
	bool is_many;
};

static int find(void *arg, const char *name, struct wire_export *ret)
{
	struct run *run = arg;

	if (strcmp(name, "") != 0 && strcmp(name, "vol") != 0 && strcmp(name, "other") != 0)
		return -ENOENT;
	*ret = (struct wire_export){
		.name = strcmp(name, "other") == 0 ? "other" : "vol",
		.description = strcmp(name, "other") == 0 ? NULL : "a volume",
		.size = SIZE,
		.flags = FLAGS | WIRE_FLAG_SEND_DF,
		.min_block = run->min_block,
		.preferred_block = 4096,
		.max_block = 32 << 20,
		.has_status = strcmp(name, "other") != 0,
	};
	return 0;
}

static int list(void *arg, unsigned int i, struct wire_export *ret)
{
	struct run *run = arg;

	if (i >= (run->is_many ? 100u : 2u))
		return -ENOENT;
	return find(arg, i == 0 || run->is_many ? "vol" : "other", ret);
}

static void *serve(void *arg)
{
	struct run *run = arg;

	run->result = wire_handshake(run->fd, run->fd, run->stop_fd, run->timeout_ms, find, list,
				     run, &run->session);
	/* The client that reads all we said comes to an end. */
	shutdown(run->fd, SHUT_WR);
	return NULL;
}

static void read_all(int fd, struct run *run)
{
	for (;;) {
		ssize_t n = read(fd, run->out + run->n, sizeof(run->out) - run->n);

		if (n <= 0)
			return;
		run->n += (size_t)n;
		assert_true(run->n < sizeof(run->out));
	}
}

static void write_all(int fd, const unsigned char *p, size_t len)
{
	while (len > 0) {
		ssize_t n = send(fd, p, len, MSG_NOSIGNAL);

		/* The server hung up on us: what it thinks is in its result. */
		if (n < 0)
			return;
		p += n;
		len -= (size_t)n;
	}
}

/* Plays s in two pieces; the second is sent when the server must have eaten the first. */
static void play_cut(struct run *run, const struct script *s, size_t cut)
{
	pthread_t thread;
	int fds[2], left;

	assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM, 0, fds), 0);
	run->fd = fds[1];
	run->stop_fd = -1;
	run->n = run->at = 0;
	if (run->timeout_ms == 0)
		run->timeout_ms = 10000;
	if (run->min_block == 0)
		run->min_block = 1;
	memset(&run->session, 0xaa, sizeof(run->session));
	assert_int_equal(pthread_create(&thread, NULL, serve, run), 0);
	write_all(fds[0], s->bytes, cut);
	/* Empty again: the first piece is in the server, which now waits for more. */
	while (ioctl(fds[1], FIONREAD, &left) == 0 && left > 0)
		sched_yield();
	write_all(fds[0], s->bytes + cut, s->n - cut);
	shutdown(fds[0], SHUT_WR);
	read_all(fds[0], run);
	pthread_join(thread, NULL);
	assert_int_equal(ioctl(fds[1], FIONREAD, &left), 0);
	run->rest = (size_t)left;
	close(fds[1]);
	close(fds[0]);
}

static void play(struct run *run, const struct script *s)
{
	play_cut(run, s, 0);
}

static struct script *script(void)
{
	static struct script s;

	s.n = 0;
	return &s;
}

/* A client that greeted, with both flags or as said. */
static struct script *greeted_with(uint32_t flags)
{
	struct script *s = script();

	say32(s, flags);
	return s;
}

static struct script *greeted(void)
{
	return greeted_with(3);
}

static struct run *new_run(void)
{
	static struct run run;

	memset(&run, 0, sizeof(run));
	return &run;
}

/* ---- what the server said ---- */

static const unsigned char *take(struct run *run, size_t len)
{
	const unsigned char *p = run->out + run->at;

	assert_true(run->n - run->at >= len);
	run->at += len;
	return p;
}

static uint32_t take32(struct run *run)
{
	uint32_t v;

	memcpy(&v, take(run, sizeof(v)), sizeof(v));
	return be32toh(v);
}

static void expect_greeting(struct run *run)
{
	assert_memory_equal(take(run, 18), "NBDMAGICIHAVEOPT\0\3", 18);
}

static void expect_end(struct run *run)
{
	assert_int_equal(run->at, run->n);
}

/* The next reply is of this type, to this option; returns its data. */
static const unsigned char *expect_reply(struct run *run, uint32_t option, uint32_t type,
					 size_t *ret_len)
{
	uint32_t len;

	assert_memory_equal(take(run, 8), "\0\x03\xe8\x89\x04\x55\x65\xa9", 8);
	assert_int_equal(take32(run), option);
	assert_int_equal(take32(run), type);
	len = take32(run);
	if (ret_len)
		*ret_len = len;
	else if (type == ACK)
		assert_int_equal(len, 0);
	return take(run, len);
}

static void expect_data(struct run *run, uint32_t option, uint32_t type, const void *data,
			size_t len)
{
	size_t got_len;
	const unsigned char *got = expect_reply(run, option, type, &got_len);

	assert_int_equal(got_len, len);
	assert_memory_equal(got, data, len);
}

static void expect_info_export(struct run *run, uint32_t option, uint16_t flags)
{
	unsigned char want[] = "\0\0\0\0\0\x01\x23\x45\x60\0\0";

	want[10] = (unsigned char)(flags >> 8);
	want[11] = (unsigned char)flags;
	expect_data(run, option, REP_INFO, want, 12);
}

static void expect_info_block_size(struct run *run, uint32_t option)
{
	unsigned char want[14] = "\0\3\0\0\0\0\0\0\x10\0\2\0\0";

	want[4] = (unsigned char)(run->min_block >> 8);
	want[5] = (unsigned char)run->min_block;
	expect_data(run, option, REP_INFO, want, 14);
}

static void expect_session(const struct run *run, uint16_t flags, bool structured, bool status)
{
	assert_int_equal(run->result, 0);
	assert_int_equal(run->session.flags, flags);
	assert_int_equal(run->session.size, SIZE);
	assert_int_equal(run->session.has_structured, structured);
	assert_int_equal(run->session.has_status, status);
	if (status)
		assert_int_equal(run->session.status_context, 1);
}

static bool is_untouched(const struct wire_session *s)
{
	return s->size == 0xaaaaaaaaaaaaaaaaull;
}

/* ---- claims ---- */

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
		for (i = 0; i < 100; i++)
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

static const char *const allocation[] = { "qemu:dirty-bitmap:x", "base:allocation" };

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

/* ---- waiting ---- */

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

static void a_broken_descriptor_is_said(void **state)
{
	struct wire_session session;
	struct run *run = new_run();
	int fd = open("/dev/null", O_RDONLY);

	/* Writable by poll's account, but not for write(). */
	assert_int_equal(wire_handshake(fd, fd, -1, 1000, find, list, run, &session), -EBADF);
	close(fd);
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
		cmocka_unit_test(export_name_that_cannot_be_granted_hangs_up),
		cmocka_unit_test(a_name_of_4096_bytes_is_the_longest),
		cmocka_unit_test(unknown_client_flags_hang_up),
		cmocka_unit_test(abort_is_acknowledged),
		cmocka_unit_test(list_names_every_export),
		cmocka_unit_test(a_list_longer_than_the_send_buffer_arrives),
		cmocka_unit_test(go_tells_what_was_asked_for),
		cmocka_unit_test(info_does_not_begin_transmission),
		cmocka_unit_test(large_blocks_need_a_client_that_asks),
		cmocka_unit_test(structured_replies_bring_the_df_flag),
		cmocka_unit_test(a_selected_context_is_in_the_session),
		cmocka_unit_test(a_context_of_another_export_does_not_count),
		cmocka_unit_test(an_export_without_status_selects_nothing),
		cmocka_unit_test(a_failed_selection_drops_the_old_one),
		cmocka_unit_test(wildcards_list_but_do_not_select),
		cmocka_unit_test(contexts_need_structured_replies),
		cmocka_unit_test(unknown_options_are_unsupported_not_fatal),
		cmocka_unit_test(options_that_take_no_data_refuse_it),
		cmocka_unit_test(malformed_options_are_invalid_not_fatal),
		cmocka_unit_test(oversize_data_is_skipped_and_answered),
		cmocka_unit_test(oversize_export_name_hangs_up),
		cmocka_unit_test(more_than_a_megabyte_hangs_up),
		cmocka_unit_test(too_many_options_hang_up),
		cmocka_unit_test(a_wrong_option_magic_hangs_up),
		cmocka_unit_test(not_one_byte_of_the_first_request_is_taken),
		cmocka_unit_test(it_makes_no_difference_where_the_stream_is_cut),
		cmocka_unit_test(a_client_may_leave_at_any_byte),
		cmocka_unit_test(silence_times_out),
		cmocka_unit_test(a_client_that_never_reads_times_out),
		cmocka_unit_test(a_stop_ends_the_wait),
		cmocka_unit_test(a_client_that_is_gone_at_once_is_no_error_of_ours),
		cmocka_unit_test(a_broken_descriptor_is_said),
		cmocka_unit_test(pipes_serve_as_well_as_sockets),
		cmocka_unit_test(a_pipe_nobody_reads_is_a_client_that_left),
		cmocka_unit_test(a_server_without_a_list_lists_nothing),
	};

	signal(SIGPIPE, SIG_IGN);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
