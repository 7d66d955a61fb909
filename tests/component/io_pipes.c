/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Copyright (C) 2026 the rbdcrypt-nbd authors */

/*
 * A connection on two pipes, as a single client on standard input and output has it: nothing can be
 * shut down there, and each direction ends by itself.
 */

#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include <cmocka.h>

#include "rig.h"
#include "stamps.h"

#define MIB (1u << 20)
#define LEN 300001u

static const struct rig_options usual = {
	.sector = 4096,
	.sim = { .raw_size = 9 * MIB, .data_offset = { MIB }, .object_size = MIB, .seed = 1 },
};

struct client {
	struct rig rig;
	struct peer p; /* fd: none */
	int to, from; /* the client's ends */
};

static void on_ended(void *arg)
{
	const struct peer *p = arg;
	uint64_t one = 1;

	if (write(p->ended, &one, sizeof(one)) != sizeof(one))
		abort();
}

static void start(struct client *c)
{
	struct conn_options o = { .is_kernel = true, .ended = on_ended, .ended_arg = &c->p };
	int in[2], out[2];

	(void)signal(SIGPIPE, SIG_IGN);
	rig_start(&usual, &c->rig);
	o.volume = c->rig.volume;
	assert_int_equal(pipe2(in, O_CLOEXEC), 0);
	assert_int_equal(pipe2(out, O_CLOEXEC), 0);
	c->p.fd = -1;
	c->p.ended = eventfd(0, EFD_CLOEXEC);
	c->to = in[1];
	c->from = out[0];
	o.rfd = in[0];
	o.wfd = out[1];
	assert_int_equal(conn_new(&o, &c->p.conn), 0);
}

static void stop(struct client *c, enum conn_end end)
{
	assert_int_equal(peer_wait_end(&c->p, 5000), end);
	if (c->to >= 0)
		(void)close(c->to);
	if (c->from >= 0)
		(void)close(c->from);
	rig_stop(&c->rig);
}

static void hang_up(int *fd)
{
	(void)close(*fd);
	*fd = -1;
}

static void send_bytes(struct client *c, const void *buf, size_t len)
{
	const unsigned char *at = buf;

	while (len > 0) {
		ssize_t n = write(c->to, at, len);

		assert_true(n > 0);
		at += n;
		len -= (size_t)n;
	}
}

static void receive(struct client *c, void *buf, size_t len)
{
	unsigned char *at = buf;

	while (len > 0) {
		ssize_t n = read(c->from, at, len);

		assert_true(n > 0);
		at += n;
		len -= (size_t)n;
	}
}

static void ask(struct client *c, uint16_t type, uint64_t off, uint32_t len)
{
	unsigned char head[WIRE_REQUEST_BYTES];

	peer_encode(head, type, 0, off, off, len);
	send_bytes(c, head, sizeof(head));
}

/* A reply without an error. */
static void expect_reply(struct client *c, uint64_t cookie)
{
	static const unsigned char good[8] = { 0x67, 0x44, 0x66, 0x98 };
	unsigned char head[16], want[8];

	receive(c, head, sizeof(head));
	assert_memory_equal(head, good, sizeof(good));
	for (unsigned int i = 0; i < 8; i++)
		want[i] = (unsigned char)(cookie >> 8 * (7 - i));
	assert_memory_equal(head + 8, want, sizeof(want));
}

/* Answers larger than a pipe go out in parts, when there is room. */
static void what_is_written_comes_back(void **state)
{
	unsigned char *data = malloc(LEN), *seen = malloc(LEN);
	struct client c;

	assert_true(data && seen);
	start(&c);
	for (uint64_t off = 5; off < 8 * MIB - LEN; off += MIB) {
		stamps_fill(data, 1, off, LEN);
		ask(&c, WIRE_WRITE, off, LEN);
		send_bytes(&c, data, LEN);
		expect_reply(&c, off);
		ask(&c, WIRE_READ, off, LEN);
		(void)usleep(5000);
		expect_reply(&c, off);
		receive(&c, seen, LEN);
		assert_memory_equal(seen, data, LEN);
	}
	hang_up(&c.to);
	stop(&c, CONN_CLOSED);
	free(data);
	free(seen);
}

static void an_end_of_input_lets_answers_out_first(void **state)
{
	unsigned char *seen = malloc(LEN);
	struct client c;

	assert_non_null(seen);
	start(&c);
	sim_pause(c.rig.store);
	ask(&c, WIRE_READ, 0, LEN);
	while (atomic_load(&c.rig.volume->stats->in_flight) < 1)
		(void)usleep(500);
	hang_up(&c.to);
	(void)usleep(20000);
	sim_resume(c.rig.store);
	expect_reply(&c, 0);
	receive(&c, seen, LEN);
	stop(&c, CONN_CLOSED);
	free(seen);
}

/* It still could send, and never will. */
static void who_takes_no_answers_any_more_has_left(void **state)
{
	for (int is_full = 0; is_full < 2; is_full++) {
		struct client c;

		start(&c);
		sim_pause(c.rig.store);
		ask(&c, WIRE_READ, 0, is_full ? LEN : 1);
		while (atomic_load(&c.rig.volume->stats->in_flight) < 1)
			(void)usleep(500);
		/* In the middle of an answer, or before any. */
		if (is_full) {
			sim_resume(c.rig.store);
			expect_reply(&c, 0);
			(void)usleep(20000);
			hang_up(&c.from);
		} else {
			hang_up(&c.from);
			sim_resume(c.rig.store);
		}
		stop(&c, CONN_BROKEN);
	}
}

static void a_stop_ends_it_too(void **state)
{
	struct client c;

	start(&c);
	conn_stop(c.p.conn);
	stop(&c, CONN_STOPPED);
}

/* What cannot be one stays with its caller. */
static void what_is_no_descriptor_makes_no_connection(void **state)
{
	struct client c;
	struct conn_options o = { .is_kernel = true, .ended = on_ended, .ended_arg = &c.p };
	struct conn *none = NULL;
	int null = open("/dev/null", O_RDWR | O_CLOEXEC);

	start(&c);
	o.volume = c.rig.volume;
	o.rfd = null;
	o.wfd = -1;
	assert_int_equal(conn_new(&o, &none), -EBADF);
	o.rfd = -1;
	o.wfd = null;
	assert_int_equal(conn_new(&o, &none), -EBADF);
	assert_null(none);
	assert_true(fcntl(null, F_GETFD) >= 0);
	assert_int_equal(atomic_load(&c.rig.volume->stats->connections), 1);
	(void)close(null);
	hang_up(&c.to);
	stop(&c, CONN_CLOSED);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(what_is_written_comes_back),
		cmocka_unit_test(an_end_of_input_lets_answers_out_first),
		cmocka_unit_test(who_takes_no_answers_any_more_has_left),
		cmocka_unit_test(a_stop_ends_it_too),
		cmocka_unit_test(what_is_no_descriptor_makes_no_connection),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
