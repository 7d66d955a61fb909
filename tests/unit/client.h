/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Copyright (C) 2026 the rbdcrypt-nbd authors */

#ifndef RBDCRYPT_TESTS_CLIENT_H
#define RBDCRYPT_TESTS_CLIENT_H

/*
 * A client for handshake tests, written from the protocol text: what it says, a server
 * thread to say it to, and what it expects to hear.
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

#define MANY 300u /* exports, more than fit the buffer of a reply */
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

static inline void say(struct script *s, const void *data, size_t len)
{
	assert_true(s->n + len <= sizeof(s->bytes));
	if (len > 0)
		memcpy(s->bytes + s->n, data, len);
	s->n += len;
}

static inline void say16(struct script *s, uint16_t v)
{
	v = htobe16(v);
	say(s, &v, sizeof(v));
}

static inline void say32(struct script *s, uint32_t v)
{
	v = htobe32(v);
	say(s, &v, sizeof(v));
}

static inline void say_option(struct script *s, uint32_t option, const void *data, size_t len)
{
	say(s, "IHAVEOPT", 8);
	say32(s, option);
	say32(s, (uint32_t)len);
	say(s, data, len);
}

static inline void say_name(struct script *s, const char *name)
{
	say32(s, (uint32_t)strlen(name));
	say(s, name, strlen(name));
}

/* GO or INFO with up to two information requests (-1: none). */
static inline void say_go(struct script *s, uint32_t option, const char *name, int info1, int info2)
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

static inline void say_meta(struct script *s, uint32_t option, const char *name, unsigned int n,
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

static inline int find(void *arg, const char *name, struct wire_export *ret)
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

static inline int list(void *arg, unsigned int i, struct wire_export *ret)
{
	struct run *run = arg;

	if (i >= (run->is_many ? MANY : 2u))
		return -ENOENT;
	return find(arg, i == 0 || run->is_many ? "vol" : "other", ret);
}

static inline void *serve(void *arg)
{
	struct run *run = arg;

	run->result = wire_handshake(run->fd, run->fd, run->stop_fd, run->timeout_ms, find, list,
				     run, &run->session);
	/* The client that reads all we said comes to an end. */
	shutdown(run->fd, SHUT_WR);
	return NULL;
}

static inline void read_all(int fd, struct run *run)
{
	for (;;) {
		ssize_t n = read(fd, run->out + run->n, sizeof(run->out) - run->n);

		if (n <= 0)
			return;
		run->n += (size_t)n;
		assert_true(run->n < sizeof(run->out));
	}
}

static inline void write_all(int fd, const unsigned char *p, size_t len)
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
static inline void play_cut(struct run *run, const struct script *s, size_t cut)
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

static inline void play(struct run *run, const struct script *s)
{
	play_cut(run, s, 0);
}

static inline struct script *script(void)
{
	static struct script s;

	s.n = 0;
	return &s;
}

/* A client that greeted, with both flags or as said. */
static inline struct script *greeted_with(uint32_t flags)
{
	struct script *s = script();

	say32(s, flags);
	return s;
}

static inline struct script *greeted(void)
{
	return greeted_with(3);
}

static inline struct run *new_run(void)
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

static inline uint32_t take32(struct run *run)
{
	uint32_t v;

	memcpy(&v, take(run, sizeof(v)), sizeof(v));
	return be32toh(v);
}

static inline void expect_greeting(struct run *run)
{
	assert_memory_equal(take(run, 18), "NBDMAGICIHAVEOPT\0\3", 18);
}

static inline void expect_end(struct run *run)
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

static inline void expect_data(struct run *run, uint32_t option, uint32_t type, const void *data,
			       size_t len)
{
	size_t got_len;
	const unsigned char *got = expect_reply(run, option, type, &got_len);

	assert_int_equal(got_len, len);
	assert_memory_equal(got, data, len);
}

static inline void expect_info_export(struct run *run, uint32_t option, uint16_t flags)
{
	unsigned char want[] = "\0\0\0\0\0\x01\x23\x45\x60\0\0";

	want[10] = (unsigned char)(flags >> 8);
	want[11] = (unsigned char)flags;
	expect_data(run, option, REP_INFO, want, 12);
}

static inline void expect_info_block_size(struct run *run, uint32_t option)
{
	unsigned char want[14] = "\0\3\0\0\0\0\0\0\x10\0\2\0\0";

	want[4] = (unsigned char)(run->min_block >> 8);
	want[5] = (unsigned char)run->min_block;
	expect_data(run, option, REP_INFO, want, 14);
}

static inline void expect_session(const struct run *run, uint16_t flags, bool structured,
				  bool status)
{
	assert_int_equal(run->result, 0);
	assert_int_equal(run->session.flags, flags);
	assert_int_equal(run->session.size, SIZE);
	assert_int_equal(run->session.has_structured, structured);
	assert_int_equal(run->session.has_status, status);
	if (status)
		assert_int_equal(run->session.status_context, 1);
}

static inline bool is_untouched(const struct wire_session *s)
{
	return s->size == 0xaaaaaaaaaaaaaaaaull;
}

/* Queries of which one selects something. */
static const char *const allocation[] = { "qemu:dirty-bitmap:x", "base:allocation" };

#endif
