/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Copyright (C) 2026 the rbdcrypt-nbd authors */

/*
 * A connection that leaves its socket to somebody else: wherever in the stream it is told to, every
 * request is answered exactly once, by one of the two, and none is cut in half between them.
 */

#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "rig.h"
#include "stamps.h"

#define MIB (1u << 20)
#define PAYLOAD 100u
#define ONE (WIRE_REQUEST_BYTES + PAYLOAD)
/* As much as is read with one call, and more. */
#define MANY 1000u

static const struct rig_options usual = {
	.sector = 4096,
	.sim = { .raw_size = 41 * MIB, .data_offset = { MIB }, .object_size = MIB, .seed = 1 },
};

static void fill_write(unsigned char *buf, uint64_t cookie)
{
	peer_encode(buf, WIRE_WRITE, 0, cookie, cookie * PAYLOAD, PAYLOAD);
	stamps_fill(buf + WIRE_REQUEST_BYTES, 5, cookie * PAYLOAD, PAYLOAD);
}

/* One answer for each of n from the first cookie on, without an error, and no more. */
static void expect_answers(struct peer *p, uint64_t first, unsigned int n)
{
	bool *is_answered = calloc(n, sizeof(*is_answered));
	uint64_t cookie;
	uint32_t error;

	assert_non_null(is_answered);
	for (unsigned int i = 0; i < n; i++) {
		assert_true(peer_recv(p, &cookie, &error));
		assert_int_equal(error, 0);
		assert_in_range(cookie, first, first + n - 1);
		assert_false(is_answered[cookie - first]);
		is_answered[cookie - first] = true;
	}
	assert_false(peer_has_reply(p, 1));
	free(is_answered);
}

static void nothing_is_lost_wherever_it_leaves(void **state)
{
	unsigned char bytes[2 * ONE], seen[2 * PAYLOAD];
	struct rig rig;

	rig_start(&usual, &rig);
	for (unsigned int n = 0; n <= 2 * ONE; n++) {
		unsigned int begun = (n + ONE - 1) / ONE * ONE;
		struct peer p;

		fill_write(bytes, 2 * n);
		fill_write(bytes + ONE, 2 * n + 1);
		peer_open(&rig, PEER_KERNEL, &p);
		assert_true(peer_send_bytes(&p, bytes, n));
		/* Sometimes it has read that by now, and then waits for the rest. */
		if (n % 2)
			(void)usleep(1000);
		conn_leave(p.conn);
		assert_true(peer_send_bytes(&p, bytes + n, begun - n));
		peer_succeed(&rig, &p);
		assert_true(peer_send_bytes(&p, bytes + begun, 2 * ONE - begun));
		expect_answers(&p, 2 * n, 2);
		assert_int_equal(peer_do(&p, WIRE_READ, 0, 2 * n * PAYLOAD, 2 * PAYLOAD, seen), 0);
		assert_memory_equal(seen, bytes + WIRE_REQUEST_BYTES, PAYLOAD);
		assert_memory_equal(seen + PAYLOAD, bytes + ONE + WIRE_REQUEST_BYTES, PAYLOAD);
		assert_int_equal(peer_close(&p), CONN_CLOSED);
	}
	rig_stop(&rig);
}

struct writer {
	struct peer *p;
	const unsigned char *bytes;
};

static void *write_all(void *arg)
{
	struct writer *w = arg;

	return peer_send_bytes(w->p, w->bytes, (size_t)MANY * ONE) ? w : NULL;
}

/* Again and again while more is sent than it reads ahead. */
static void nothing_is_lost_in_a_stream(void **state)
{
	unsigned char *bytes = malloc((size_t)MANY * ONE), *seen = malloc(MANY * PAYLOAD);
	struct rig rig;
	struct peer p;
	struct writer w = { .p = &p, .bytes = bytes };
	pthread_t thread;
	void *result;

	assert_non_null(bytes);
	assert_non_null(seen);
	for (unsigned int i = 0; i < MANY; i++)
		fill_write(bytes + (size_t)i * ONE, i);
	rig_start(&usual, &rig);
	peer_open(&rig, PEER_KERNEL, &p);
	assert_int_equal(pthread_create(&thread, NULL, write_all, &w), 0);
	for (unsigned int i = 0; i < 200; i++) {
		conn_leave(p.conn);
		peer_succeed(&rig, &p);
	}
	assert_int_equal(pthread_join(thread, &result), 0);
	assert_non_null(result);
	expect_answers(&p, 0, MANY);
	assert_int_equal(peer_do(&p, WIRE_READ, 0, 0, MANY * PAYLOAD, seen), 0);
	for (unsigned int i = 0; i < MANY; i++)
		assert_memory_equal(seen + (size_t)i * PAYLOAD,
				    bytes + (size_t)i * ONE + WIRE_REQUEST_BYTES, PAYLOAD);
	assert_int_equal(peer_close(&p), CONN_CLOSED);
	rig_stop(&rig);
	free(bytes);
	free(seen);
}

static void what_was_read_is_answered_before_it_leaves(void **state)
{
	unsigned char data[PAYLOAD] = { 0 };
	struct rig rig;
	struct peer p;

	rig_start(&usual, &rig);
	peer_open(&rig, PEER_KERNEL, &p);
	sim_pause(rig.store);
	for (unsigned int i = 0; i < 60; i++)
		assert_true(peer_send(&p, WIRE_WRITE, 0, i, i * 5000, PAYLOAD, data));
	while (atomic_load(&rig.volume->stats->in_flight) < 60)
		(void)usleep(1000);
	conn_leave(p.conn);
	(void)usleep(20000);
	assert_int_equal(conn_ended(p.conn), CONN_RUNNING);
	sim_resume(rig.store);
	expect_answers(&p, 0, 60);
	peer_succeed(&rig, &p);
	assert_int_equal(peer_close(&p), CONN_CLOSED);
	rig_stop(&rig);
}

static void a_socket_that_is_given_up_is_not_left(void **state)
{
	unsigned char bytes[ONE];
	struct rig rig;
	struct peer p;

	fill_write(bytes, 0);
	rig_start(&usual, &rig);
	peer_open(&rig, PEER_KERNEL, &p);
	assert_true(peer_send_bytes(&p, bytes, ONE / 2));
	(void)usleep(20000);
	conn_leave(p.conn);
	assert_int_equal(peer_close(&p), CONN_CLOSED);
	rig_stop(&rig);
}

static void who_cannot_leave_can_be_stopped(void **state)
{
	unsigned char bytes[ONE];
	struct rig rig;
	struct peer p;

	fill_write(bytes, 0);
	rig_start(&usual, &rig);
	peer_open(&rig, PEER_KERNEL, &p);
	assert_true(peer_send_bytes(&p, bytes, ONE / 2));
	(void)usleep(20000);
	conn_leave(p.conn);
	(void)usleep(20000);
	assert_int_equal(conn_ended(p.conn), CONN_RUNNING);
	conn_stop(p.conn);
	assert_int_equal(peer_wait_end(&p, 8000), CONN_STOPPED);
	rig_stop(&rig);
}

/* With an argument: the tests of which it is the name, or a pattern. */
int main(int argc, char **argv)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(nothing_is_lost_wherever_it_leaves),
		cmocka_unit_test(nothing_is_lost_in_a_stream),
		cmocka_unit_test(what_was_read_is_answered_before_it_leaves),
		cmocka_unit_test(a_socket_that_is_given_up_is_not_left),
		cmocka_unit_test(who_cannot_leave_can_be_stopped),
	};

	if (argc > 1)
		cmocka_set_test_filter(argv[1]);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
