/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Copyright (C) 2026 the rbdcrypt-nbd authors */

/*
 * Structured replies and block status, as a client sees them that wrote both from the protocol
 * text: every byte of a reply is looked at, and what is called a hole must read as zeros.
 */

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cmocka.h>

#include "rig.h"
#include "stamps.h"

#define MIB (1u << 20)
#define OBJECT 16384u
#define SIZE (8ull * MIB)

enum { OPT_GO = 7, OPT_STRUCTURED = 8, OPT_SET_META = 10 };
enum { REP_ACK = 1, REP_INFO = 3, REP_META = 4 };
enum { CHUNK_DATA = 1, CHUNK_STATUS = 5, CHUNK_ERROR = 0x8001 };
enum { STATE_HOLE = 1, STATE_ZERO = 2 };

static const struct rig_options usual = {
	.sector = 4096,
	.sim = { .raw_size = 9 * MIB, .data_offset = { MIB }, .object_size = OBJECT, .seed = 1 },
};

/* ---- a client ---- */

struct client {
	struct rig rig;
	struct peer p;
	uint32_t context; /* of base:allocation */
	uint64_t cookie; /* of the last request */
};

static uint64_t get(const unsigned char *at, unsigned int bytes)
{
	uint64_t value = 0;

	for (unsigned int i = 0; i < bytes; i++)
		value = value << 8 | at[i];
	return value;
}

static uint64_t receive(struct peer *p, unsigned int bytes)
{
	unsigned char buf[8];

	assert_true(peer_recv_bytes(p, buf, bytes));
	return get(buf, bytes);
}

static void send_option(struct peer *p, unsigned char option, const char *data, unsigned char len)
{
	const unsigned char head[16] = { 'I', 'H', 'A', 'V',	'E', 'O', 'P', 'T',
					 0,   0,   0,	option, 0,   0,	  0,   len };

	assert_true(peer_send_bytes(p, head, sizeof(head)));
	assert_true(peer_send_bytes(p, data, len));
}

/* The type of the next reply to this option; its data. */
static uint32_t option_reply(struct peer *p, uint32_t option, unsigned char *data, size_t room)
{
	uint32_t type, len;

	assert_true(receive(p, 8) == 0x3e889045565a9);
	assert_int_equal(receive(p, 4), option);
	type = (uint32_t)receive(p, 4);
	len = (uint32_t)receive(p, 4);
	assert_true(len <= room);
	assert_true(peer_recv_bytes(p, data, len));
	return type;
}

static void shake_hands(struct client *c, bool wants_status)
{
	static const char query[] = "\0\0\0\0\0\0\0\1\0\0\0\x0f"
				    "base:allocation";
	static const unsigned char flags[4] = { 0, 0, 0, 3 };
	unsigned char buf[256];
	uint32_t type;

	assert_true(peer_recv_bytes(&c->p, buf, 18));
	assert_true(peer_send_bytes(&c->p, flags, sizeof(flags)));
	send_option(&c->p, OPT_STRUCTURED, "", 0);
	assert_int_equal(option_reply(&c->p, OPT_STRUCTURED, buf, sizeof(buf)), REP_ACK);
	if (wants_status) {
		send_option(&c->p, OPT_SET_META, query, sizeof(query) - 1);
		assert_int_equal(option_reply(&c->p, OPT_SET_META, buf, sizeof(buf)), REP_META);
		c->context = (uint32_t)get(buf, 4);
		assert_memory_equal(buf + 4, "base:allocation", 15);
		assert_int_equal(option_reply(&c->p, OPT_SET_META, buf, sizeof(buf)), REP_ACK);
	}
	send_option(&c->p, OPT_GO, "\0\0\0\0\0\0", 6);
	while ((type = option_reply(&c->p, OPT_GO, buf, sizeof(buf))) != REP_ACK)
		assert_int_equal(type, REP_INFO);
}

static void start_with(struct client *c, const struct rig_options *o, bool wants_status)
{
	memset(c, 0, sizeof(*c));
	rig_start(o, &c->rig);
	peer_open(&c->rig, PEER_RAW, &c->p);
	shake_hands(c, wants_status);
}

static void start(struct client *c)
{
	start_with(c, &usual, true);
}

static void stop(struct client *c)
{
	assert_int_equal(peer_close(&c->p), CONN_CLOSED);
	rig_stop(&c->rig);
}

static void ask(struct client *c, uint16_t type, uint16_t flags, uint64_t off, uint32_t len)
{
	assert_true(peer_send(&c->p, type, flags, ++c->cookie, off, len, NULL));
}

/* The head of a reply's only chunk, and how long the rest of it is. */
static uint32_t chunk(struct client *c, uint16_t type)
{
	assert_int_equal(receive(&c->p, 4), 0x668e33ef);
	assert_int_equal(receive(&c->p, 2), 1); /* it is the last */
	assert_int_equal(receive(&c->p, 2), type);
	assert_int_equal(receive(&c->p, 8), c->cookie);
	return (uint32_t)receive(&c->p, 4);
}

static void expect_error(struct client *c, uint32_t error)
{
	assert_int_equal(chunk(c, CHUNK_ERROR), 6);
	assert_int_equal(receive(&c->p, 4), error);
	assert_int_equal(receive(&c->p, 2), 0);
}

static void expect_data(struct client *c, uint64_t off, unsigned char *buf, uint32_t len)
{
	assert_int_equal(chunk(c, CHUNK_DATA), 8 + len);
	assert_int_equal(receive(&c->p, 8), off);
	assert_true(peer_recv_bytes(&c->p, buf, len));
}

/* A change's answer is a simple one, even so. */
static void change(struct client *c, uint16_t type, uint64_t off, uint32_t len, void *data)
{
	uint64_t cookie;
	uint32_t error;

	assert_true(peer_send(&c->p, type, 0, ++c->cookie, off, len, data));
	assert_true(peer_recv(&c->p, &cookie, &error));
	assert_int_equal(cookie, c->cookie);
	assert_int_equal(error, 0);
}

struct piece {
	uint32_t len, state;
};

/* The number of pieces of the answer to the last request. */
static unsigned int expect_status(struct client *c, struct piece ret[CONN_STATUS_MAX])
{
	uint32_t bytes = chunk(c, CHUNK_STATUS), n = (bytes - 4) / 8;

	assert_true(bytes >= 12 && bytes % 8 == 4 && n <= CONN_STATUS_MAX);
	assert_int_equal(receive(&c->p, 4), c->context);
	for (uint32_t i = 0; i < n; i++) {
		ret[i].len = (uint32_t)receive(&c->p, 4);
		ret[i].state = (uint32_t)receive(&c->p, 4);
		assert_true(ret[i].len > 0);
	}
	return n;
}

/* ---- reads ---- */

static void a_read_is_one_chunk_that_says_where_it_is(void **state)
{
	enum { MAX = 200000 };
	unsigned char *data = malloc(SIZE), *seen = malloc(MAX);
	uint64_t random = rig_seed(1);
	struct client c;

	assert_true(data && seen);
	start(&c);
	for (uint64_t at = 0; at < SIZE; at += MIB) {
		stamps_fill(data + at, 3, at, MIB);
		change(&c, WIRE_WRITE, at, MIB, data + at);
	}
	for (unsigned int i = 0; i < 300; i++) {
		uint32_t len = 1 + (uint32_t)(rig_random(&random) % (i % 2 ? MAX : 600));
		uint64_t off = rig_random(&random) % (SIZE - len + 1);

		ask(&c, WIRE_READ, i % 3 ? 0 : WIRE_CMD_DF, off, len);
		expect_data(&c, off, seen, len);
		assert_memory_equal(seen, data + off, len);
	}
	stop(&c);
	free(data);
	free(seen);
}

/* An error has no data behind it, and the next reply is where it should be. */
static void a_read_that_fails_is_an_error_and_nothing_else(void **state)
{
	const uint32_t lens[] = { 1, 4096, 5000, MIB };
	unsigned char byte;
	struct client c;

	start(&c);
	for (unsigned int i = 0; i < sizeof(lens) / sizeof(lens[0]); i++) {
		sim_fail(c.rig.store, SIM_READ, 1, -EIO);
		ask(&c, WIRE_READ, 0, 3, lens[i]);
		expect_error(&c, PEER_EIO);
		ask(&c, WIRE_READ, 0, SIZE - 1, 1);
		expect_data(&c, SIZE - 1, &byte, 1);
		assert_int_equal(byte, 0);
	}
	ask(&c, WIRE_READ, 0, SIZE - 1, 2);
	expect_error(&c, PEER_EINVAL);
	ask(&c, WIRE_READ, 0, 0, 1);
	expect_data(&c, 0, &byte, 1);
	stop(&c);
}

/* ---- status ---- */

/* Random objects that hold something, as another client has left them. */
static void scatter(struct client *c, bool *is_there, uint64_t *random)
{
	unsigned char bytes[4096];

	for (unsigned int i = 0; i < SIZE / OBJECT; i++) {
		uint64_t at = (uint64_t)i * OBJECT + rig_random(random) % 4 * 4096;

		is_there[i] = rig_random(random) % 2;
		if (!is_there[i])
			continue;
		stamps_fill(bytes, 1, at, sizeof(bytes));
		rig_poke(&c->rig, 0, at, bytes, sizeof(bytes));
	}
}

/* Each place has the state that the object there calls for. */
static void check_pieces(const struct piece *pieces, unsigned int n, const bool *is_there,
			 uint64_t off)
{
	for (unsigned int i = 0; i < n; i++) {
		uint64_t end = off + pieces[i].len;

		for (; off < end; off = (off / OBJECT + 1) * OBJECT)
			assert_int_equal(pieces[i].state,
					 is_there[off / OBJECT] ? 0 : STATE_HOLE | STATE_ZERO);
		off = end;
		/* Neighbours of one kind are one. */
		assert_true(i == 0 || pieces[i].state != pieces[i - 1].state);
	}
}

static uint64_t length_of(const struct piece *pieces, unsigned int n)
{
	uint64_t len = 0;

	for (unsigned int i = 0; i < n; i++)
		len += pieces[i].len;
	return len;
}

static void what_is_called_a_hole_is_one(void **state)
{
	static struct piece pieces[CONN_STATUS_MAX];
	bool is_there[SIZE / OBJECT];
	uint64_t random = rig_seed(2);
	struct client c;

	start(&c);
	scatter(&c, is_there, &random);
	for (unsigned int i = 0; i < 500; i++) {
		uint32_t len = 1 + (uint32_t)(rig_random(&random) % (i % 2 ? 10 * OBJECT : 6000));
		uint64_t off = rig_random(&random) % (SIZE - len + 1);
		bool is_one = i % 5 == 0;
		unsigned int n;

		ask(&c, WIRE_BLOCK_STATUS, is_one ? WIRE_CMD_REQ_ONE : 0, off, len);
		n = expect_status(&c, pieces);
		if (is_one)
			assert_int_equal(n, 1);
		else
			assert_int_equal(length_of(pieces, n), len);
		assert_true(length_of(pieces, n) <= len);
		check_pieces(pieces, n, is_there, off);
	}
	stop(&c);
}

/* More than one answer holds: each answer goes on where the last one ended. */
static void the_whole_device_is_told_in_turns(void **state)
{
	static struct piece pieces[CONN_STATUS_MAX];
	struct rig_options o = usual;
	bool is_there[SIZE / 4096];
	unsigned int n_turns = 0;
	struct client c;

	o.sim.object_size = 4096;
	start_with(&c, &o, true);
	for (unsigned int i = 0; i < SIZE / 4096; i++) {
		unsigned char bytes[4096];

		is_there[i] = i % 2;
		stamps_fill(bytes, 1, i * 4096, sizeof(bytes));
		if (is_there[i])
			rig_poke(&c.rig, 0, i * 4096, bytes, sizeof(bytes));
	}
	for (uint64_t off = 0; off < SIZE; n_turns++) {
		unsigned int n;

		ask(&c, WIRE_BLOCK_STATUS, 0, off, (uint32_t)(SIZE - off));
		n = expect_status(&c, pieces);
		for (unsigned int i = 0; i < n; i++, off += 4096) {
			assert_int_equal(pieces[i].len, 4096);
			assert_int_equal(pieces[i].state,
					 is_there[off / 4096] ? 0 : STATE_HOLE | STATE_ZERO);
		}
	}
	assert_int_equal(n_turns, SIZE / 4096 / CONN_STATUS_MAX);
	stop(&c);
}

static void what_was_written_is_no_hole_any_more(void **state)
{
	static struct piece pieces[CONN_STATUS_MAX];
	unsigned char byte = 7;
	struct client c;

	start(&c);
	ask(&c, WIRE_BLOCK_STATUS, 0, 0, SIZE);
	assert_int_equal(expect_status(&c, pieces), 1);
	assert_int_equal(pieces[0].len, SIZE);
	assert_int_equal(pieces[0].state, STATE_HOLE | STATE_ZERO);
	change(&c, WIRE_WRITE, MIB + 1, 1, &byte);
	ask(&c, WIRE_BLOCK_STATUS, WIRE_CMD_REQ_ONE, MIB + 1, 1);
	assert_int_equal(expect_status(&c, pieces), 1);
	assert_int_equal(pieces[0].state, 0);
	change(&c, WIRE_TRIM, MIB, OBJECT, NULL);
	ask(&c, WIRE_BLOCK_STATUS, WIRE_CMD_REQ_ONE, MIB + 1, 1);
	assert_int_equal(expect_status(&c, pieces), 1);
	assert_int_equal(pieces[0].state, STATE_HOLE | STATE_ZERO);
	stop(&c);
}

static void a_status_that_fails_is_an_error_and_no_hole(void **state)
{
	static struct piece pieces[CONN_STATUS_MAX];
	struct client c;

	start(&c);
	sim_fail(c.rig.store, SIM_STATUS, 1, -EIO);
	ask(&c, WIRE_BLOCK_STATUS, 0, 0, 4096);
	expect_error(&c, PEER_EIO);
	ask(&c, WIRE_BLOCK_STATUS, 0, SIZE - 1, 2);
	expect_error(&c, PEER_EINVAL);
	ask(&c, WIRE_BLOCK_STATUS, 0, 0, 0);
	expect_error(&c, PEER_EINVAL);
	ask(&c, WIRE_BLOCK_STATUS, WIRE_CMD_NO_HOLE, 0, 4096);
	expect_error(&c, PEER_EINVAL);
	ask(&c, WIRE_BLOCK_STATUS, 0, SIZE - 1, 1);
	assert_int_equal(expect_status(&c, pieces), 1);
	stop(&c);
}

/* Who did not ask for the context, or whose store has no status, is refused and lives. */
static void status_that_was_not_agreed_on_is_refused(void **state)
{
	struct rig_options o = usual;
	unsigned char byte;
	struct client c;

	for (int has_none = 0; has_none < 2; has_none++) {
		o.sim.has_no_status = has_none;
		start_with(&c, &o, false);
		ask(&c, WIRE_BLOCK_STATUS, 0, 0, 4096);
		expect_error(&c, PEER_EINVAL);
		ask(&c, WIRE_READ, 0, 0, 1);
		expect_data(&c, 0, &byte, 1);
		stop(&c);
	}
}

static void a_client_leaves_while_its_status_is_looked_for(void **state)
{
	struct client c;

	start(&c);
	sim_pause(c.rig.store);
	for (unsigned int i = 0; i < 40; i++)
		ask(&c, WIRE_BLOCK_STATUS, 0, 0, SIZE);
	while (atomic_load(&c.rig.volume->stats->in_flight) < 40)
		(void)usleep(1000);
	(void)close(c.p.fd);
	c.p.fd = -1;
	(void)usleep(20000);
	sim_resume(c.rig.store);
	assert_int_equal(peer_wait_end(&c.p, 8000), CONN_CLOSED);
	rig_stop(&c.rig);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_read_is_one_chunk_that_says_where_it_is),
		cmocka_unit_test(a_read_that_fails_is_an_error_and_nothing_else),
		cmocka_unit_test(what_is_called_a_hole_is_one),
		cmocka_unit_test(the_whole_device_is_told_in_turns),
		cmocka_unit_test(what_was_written_is_no_hole_any_more),
		cmocka_unit_test(a_status_that_fails_is_an_error_and_no_hole),
		cmocka_unit_test(status_that_was_not_agreed_on_is_refused),
		cmocka_unit_test(a_client_leaves_while_its_status_is_looked_for),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
