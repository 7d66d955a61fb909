/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Copyright (C) 2026 the rbdcrypt-nbd authors */

/*
 * What a connection does with requests that are wrong, cut short, dribbled, or never answered to
 * anybody who listens: the right error, and it lives; or it ends, and nothing is left.
 */

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
#define OVER (WIRE_MAX_PAYLOAD + 1)

static const struct rig_options usual = {
	.sector = 4096,
	.sim = { .raw_size = 41 * MIB, .data_offset = { MIB }, .object_size = MIB, .seed = 1 },
};
#define SIZE (40ull * MIB)

/* ---- wrong requests ---- */

struct wrong {
	uint16_t type, flags;
	uint64_t off;
	uint32_t len;
	uint32_t error;
};

/* Sends what a client would, payload included, and checks that the next request works. */
static void expect_error(struct peer *p, const struct wrong *w, void *payload)
{
	unsigned char byte;
	uint32_t error = peer_do(p, w->type, w->flags, w->off, w->len, payload);

	if (error != w->error)
		print_message("type %u flags %#x offset %llu length %u: error %u\n", w->type,
			      w->flags, (unsigned long long)w->off, w->len, error);
	assert_int_equal(error, w->error);
	assert_int_equal(peer_do(p, WIRE_READ, 0, SIZE - 1, 1, &byte), 0);
}

static void expect_errors(const struct rig_options *o, const struct wrong *list, size_t n)
{
	unsigned char *payload = calloc(1, OVER);
	struct rig rig;

	assert_non_null(payload);
	for (enum peer_kind kind = PEER_KERNEL; kind <= PEER_CLIENT; kind++) {
		struct peer p;

		rig_start(o, &rig);
		peer_open(&rig, kind, &p);
		for (size_t i = 0; i < n; i++)
			expect_error(&p, &list[i], payload);
		assert_int_equal(peer_close(&p), CONN_CLOSED);
		rig_stop(&rig);
	}
	free(payload);
}

static void a_wrong_request_gets_its_error(void **state)
{
	static const struct wrong list[] = {
		{ WIRE_READ, 0, SIZE, 1, PEER_EINVAL },
		{ WIRE_READ, 0, SIZE - 1, 2, PEER_EINVAL },
		{ WIRE_READ, 0, UINT64_MAX, 1, PEER_EINVAL },
		{ WIRE_READ, 0, UINT64_MAX - 4095, 8192, PEER_EINVAL },
		{ WIRE_READ, 0, 0, UINT32_MAX, PEER_EINVAL },
		{ WIRE_READ, 0, 0, 0, PEER_EINVAL },
		{ WIRE_READ, 0, 0, OVER, PEER_EOVERFLOW },
		{ WIRE_READ, WIRE_CMD_DF, 0, 1, PEER_EINVAL },
		{ WIRE_READ, 1u << 15, 0, 1, PEER_EINVAL },
		{ WIRE_WRITE, 0, SIZE, 1, PEER_ENOSPC },
		{ WIRE_WRITE, 0, SIZE - 1, 2, PEER_ENOSPC },
		{ WIRE_WRITE, 0, UINT64_MAX, 70000, PEER_ENOSPC },
		{ WIRE_WRITE, 0, 0, 0, PEER_EINVAL },
		{ WIRE_WRITE, 0, 0, OVER, PEER_EINVAL },
		{ WIRE_WRITE, WIRE_CMD_NO_HOLE, 0, 100000, PEER_EINVAL },
		{ WIRE_WRITE, 1u << 7, 0, 1, PEER_EINVAL },
		{ WIRE_TRIM, 0, SIZE - 1, 2, PEER_ENOSPC },
		{ WIRE_TRIM, 0, 0, 0, PEER_EINVAL },
		{ WIRE_TRIM, WIRE_CMD_FAST_ZERO, 0, 1, PEER_EINVAL },
		{ WIRE_WRITE_ZEROES, 0, SIZE, UINT32_MAX, PEER_ENOSPC },
		{ WIRE_WRITE_ZEROES, 0, 0, 0, PEER_EINVAL },
		{ WIRE_WRITE_ZEROES, WIRE_CMD_REQ_ONE, 0, 1, PEER_EINVAL },
		{ WIRE_FLUSH, 0, 1, 0, PEER_EINVAL },
		{ WIRE_FLUSH, 0, 0, 1, PEER_EINVAL },
		{ WIRE_FLUSH, WIRE_CMD_DF, 0, 0, PEER_EINVAL },
		{ WIRE_CACHE, 0, 0, 1, PEER_EINVAL },
		{ WIRE_BLOCK_STATUS, 0, 0, 1, PEER_EINVAL },
		{ 8, 0, 0, 1, PEER_EINVAL },
		{ 255, 0, 0, 100, PEER_EINVAL },
		{ UINT16_MAX, UINT16_MAX, UINT64_MAX, UINT32_MAX, PEER_EINVAL },
	};

	expect_errors(&usual, list, sizeof(list) / sizeof(list[0]));
}

static void a_read_only_volume_refuses_every_change(void **state)
{
	static const struct wrong list[] = {
		{ WIRE_WRITE, 0, 0, 4096, PEER_EPERM },
		{ WIRE_WRITE, 0, SIZE, 70000, PEER_EPERM },
		{ WIRE_WRITE, WIRE_CMD_FUA, 1, 1, PEER_EPERM },
		{ WIRE_TRIM, 0, 0, 4096, PEER_EPERM },
		{ WIRE_WRITE_ZEROES, 0, 0, 4096, PEER_EPERM },
		{ WIRE_FLUSH, 0, 0, 0, 0 },
	};
	struct rig_options o = usual;

	o.is_read_only = true;
	expect_errors(&o, list, sizeof(list) / sizeof(list[0]));
}

static void a_volume_without_trim_refuses_it(void **state)
{
	static const struct wrong list[] = { { WIRE_TRIM, 0, 0, 4096, PEER_EINVAL } };
	struct rig_options o = usual;

	o.has_no_trim = true;
	expect_errors(&o, list, 1);
}

static void requests_are_counted_under_their_command(void **state)
{
	unsigned char byte;
	struct stats_sum sum;
	struct rig rig;
	struct peer p;

	rig_start(&usual, &rig);
	peer_open(&rig, PEER_KERNEL, &p);
	assert_int_equal(peer_do(&p, WIRE_READ, 0, 5, 1, &byte), 0);
	assert_int_equal(peer_do(&p, WIRE_TRIM, 0, 0, 0, NULL), PEER_EINVAL);
	assert_int_equal(peer_do(&p, 77, 0, 0, 1, NULL), PEER_EINVAL);
	(void)peer_close(&p);
	stats_sum(rig.volume->stats, &sum);
	assert_int_equal(sum.op[WIRE_READ].requests, 1);
	assert_int_equal(sum.op[WIRE_READ].bytes, 1);
	assert_int_equal(sum.op[WIRE_READ].errors, 0);
	assert_int_equal(sum.op[WIRE_READ].sampled, 1);
	/* One byte is no whole sector. */
	assert_int_equal(sum.op[WIRE_READ].sizes[1][0], 1);
	assert_int_equal(sum.op[WIRE_TRIM].requests, 1);
	assert_int_equal(sum.op[WIRE_TRIM].errors, 1);
	assert_int_equal(sum.in_flight, 0);
	rig_stop(&rig);
}

static void garbage_ends_one_connection_only(void **state)
{
	unsigned char junk[WIRE_REQUEST_BYTES], byte;
	struct rig rig;
	struct peer bad, good;

	rig_start(&usual, &rig);
	peer_open(&rig, PEER_KERNEL, &bad);
	peer_open(&rig, PEER_KERNEL, &good);
	peer_encode(junk, WIRE_READ, 0, 1, 0, 1);
	junk[0] ^= 1;
	assert_true(peer_send_bytes(&bad, junk, sizeof(junk)));
	assert_false(peer_recv_bytes(&bad, &byte, 1));
	assert_int_equal(peer_wait_end(&bad, 8000), CONN_BROKEN);
	assert_int_equal(peer_do(&good, WIRE_READ, 0, 0, 1, &byte), 0);
	assert_int_equal(peer_close(&good), CONN_CLOSED);
	rig_stop(&rig);
}

/* ---- cut short and dribbled ---- */

#define PAYLOAD 100u

static void fill_write(unsigned char *buf, uint64_t off)
{
	peer_encode(buf, WIRE_WRITE, 0, 7, off, PAYLOAD);
	stamps_fill(buf + WIRE_REQUEST_BYTES, 5, off, PAYLOAD);
}

static void half_a_request_is_no_request(void **state)
{
	unsigned char bytes[2 * (WIRE_REQUEST_BYTES + PAYLOAD)], seen[PAYLOAD], zeros[PAYLOAD];
	const unsigned int one = WIRE_REQUEST_BYTES + PAYLOAD;
	struct rig rig;

	memset(zeros, 0, sizeof(zeros));
	rig_start(&usual, &rig);
	for (unsigned int n = 0; n < 2 * one; n++) {
		struct peer p, other;
		uint64_t off = 10000 * (uint64_t)n;

		fill_write(bytes, off + 1);
		fill_write(bytes + one, off + 5001);
		peer_open(&rig, PEER_CLIENT, &p);
		assert_true(peer_send_bytes(&p, bytes, n));
		/* Not gone: that would take back what was sent. */
		(void)shutdown(p.fd, SHUT_WR);
		assert_int_equal(peer_wait_end(&p, 8000), CONN_CLOSED);
		peer_open(&rig, PEER_KERNEL, &other);
		assert_int_equal(peer_do(&other, WIRE_READ, 0, off + 1, PAYLOAD, seen), 0);
		assert_memory_equal(seen, n >= one ? bytes + WIRE_REQUEST_BYTES : zeros, PAYLOAD);
		assert_int_equal(peer_do(&other, WIRE_READ, 0, off + 5001, PAYLOAD, seen), 0);
		assert_memory_equal(seen, zeros, PAYLOAD);
		assert_int_equal(peer_close(&other), CONN_CLOSED);
	}
	rig_stop(&rig);
}

static void requests_may_come_byte_by_byte(void **state)
{
	unsigned char bytes[2 * (WIRE_REQUEST_BYTES + PAYLOAD)], seen[PAYLOAD];
	struct rig rig;
	struct peer p;
	uint64_t cookie;
	uint32_t error;

	rig_start(&usual, &rig);
	peer_open(&rig, PEER_KERNEL, &p);
	fill_write(bytes, 4090);
	fill_write(bytes + sizeof(bytes) / 2, 9000);
	for (size_t i = 0; i < sizeof(bytes); i++) {
		assert_true(peer_send_bytes(&p, bytes + i, 1));
		if (i % 16 == 0)
			(void)usleep(200);
	}
	for (unsigned int i = 0; i < 2; i++) {
		assert_true(peer_recv(&p, &cookie, &error));
		assert_int_equal(cookie, 7);
		assert_int_equal(error, 0);
	}
	assert_int_equal(peer_do(&p, WIRE_READ, 0, 9000, PAYLOAD, seen), 0);
	assert_memory_equal(seen, bytes + sizeof(bytes) / 2 + WIRE_REQUEST_BYTES, PAYLOAD);
	assert_int_equal(peer_close(&p), CONN_CLOSED);
	rig_stop(&rig);
}

/* More replies than any socket holds, taken in odd pieces: sent in parts, but whole. */
static void replies_survive_a_slow_reader(void **state)
{
	enum { N = 120, LEN = 150001 };
	unsigned char *data = malloc(LEN), *want = malloc(LEN);
	uint64_t random = 3;
	struct rig_options o = usual;
	struct rig rig;
	struct peer p;
	bool has_come[N] = { false };

	assert_true(data && want);
	o.memory = 64 * MIB;
	rig_start(&o, &rig);
	peer_open(&rig, PEER_KERNEL, &p);
	for (uint64_t at = 0; at < 20 * MIB; at += 100000) {
		stamps_fill(data, 9, at, 100000);
		assert_int_equal(peer_do(&p, WIRE_WRITE, 0, at, 100000, data), 0);
	}
	/* The reader is asleep when the store's threads fill the socket. */
	sim_pause(rig.store);
	for (unsigned int i = 0; i < N; i++)
		assert_true(peer_send(&p, WIRE_READ, 0, i, i * 99991ull, LEN, NULL));
	while (atomic_load(&rig.volume->stats->in_flight) < N)
		(void)usleep(1000);
	(void)usleep(20000);
	sim_resume(rig.store);
	(void)usleep(20000);
	for (unsigned int i = 0; i < N; i++) {
		uint64_t cookie;
		uint32_t error;

		assert_true(peer_recv(&p, &cookie, &error));
		assert_int_equal(error, 0);
		assert_true(cookie < N && !has_come[cookie]);
		has_come[cookie] = true;
		for (uint32_t at = 0; at < LEN;) {
			uint32_t n = 1 + (uint32_t)(rig_random(&random) % 70000);

			if (n > LEN - at)
				n = LEN - at;
			assert_true(peer_recv_bytes(&p, data + at, n));
			at += n;
			if (n % 8 == 0)
				(void)usleep(100);
		}
		stamps_fill(want, 9, cookie * 99991, LEN);
		assert_memory_equal(data, want, LEN);
	}
	assert_int_equal(peer_close(&p), CONN_CLOSED);
	rig_stop(&rig);
	free(data);
	free(want);
}

/* The reader waits for a free request, not for input: it has to be told when there is one. */
static void more_requests_than_a_connection_takes_at_once(void **state)
{
	enum { N = 3 * CONN_REQUESTS };
	unsigned char data[4096];
	struct rig rig;
	struct peer p;

	rig_start(&usual, &rig);
	peer_open(&rig, PEER_KERNEL, &p);
	sim_pause(rig.store);
	for (unsigned int i = 0; i < N; i++)
		assert_true(peer_send(&p, WIRE_READ, 0, i, i * 4096, 4096, NULL));
	while (atomic_load(&rig.volume->stats->in_flight) < CONN_REQUESTS)
		(void)usleep(1000);
	(void)usleep(20000);
	sim_resume(rig.store);
	for (unsigned int i = 0; i < N; i++) {
		uint64_t cookie;
		uint32_t error;

		assert_true(peer_has_reply(&p, 30000));
		assert_true(peer_recv(&p, &cookie, &error));
		assert_int_equal(error, 0);
		assert_true(peer_recv_bytes(&p, data, sizeof(data)));
	}
	assert_int_equal(peer_close(&p), CONN_CLOSED);
	rig_stop(&rig);
}

/*
 * A reply that becomes ready while another thread is about to stop sending: with nothing else
 * under way, nobody would come by later and send it.
 */
static void no_reply_is_left_behind_by_the_sender_before(void **state)
{
	enum { PAIRS = 15000 };
	struct rig_options o = usual;
	unsigned char data[2];
	struct rig rig;
	struct peer p;

	o.sim.n_threads = 4;
	rig_start(&o, &rig);
	peer_open(&rig, PEER_KERNEL, &p);
	for (unsigned int i = 0; i < PAIRS; i++) {
		assert_true(peer_send(&p, WIRE_READ, 0, 1, 1, 1, NULL));
		assert_true(peer_send(&p, WIRE_READ, 0, 2, 8192, 1, NULL));
		for (unsigned int j = 0; j < 2; j++) {
			uint64_t cookie;
			uint32_t error;

			assert_true(peer_has_reply(&p, 30000));
			assert_true(peer_recv(&p, &cookie, &error));
			assert_int_equal(error, 0);
			assert_true(peer_recv_bytes(&p, data, 1));
		}
	}
	assert_int_equal(peer_close(&p), CONN_CLOSED);
	rig_stop(&rig);
}

/* ---- ends ---- */

static bool has_in_flight(void *arg)
{
	struct sim_counts counts;

	sim_counts(arg, &counts);
	return counts.in_flight > 0;
}

static void a_client_that_reads_nothing_is_cut_when_the_server_stops(void **state)
{
	struct rig rig;
	struct peer p;
	double begin;

	rig_start(&usual, &rig);
	peer_open(&rig, PEER_KERNEL, &p);
	for (unsigned int i = 0; i < 128; i++)
		assert_true(peer_send(&p, WIRE_READ, 0, i, i * 4096, 256 * 1024, NULL));
	/* No slots are left: these stay in the socket. */
	for (unsigned int i = 0; i < 100; i++)
		assert_true(peer_send(&p, WIRE_FLUSH, 0, i, 0, 0, NULL));
	(void)usleep(100000);
	begin = rig_now();
	conn_stop(p.conn);
	assert_int_equal(peer_wait_end(&p, 30000), CONN_STOPPED);
	print_message("it took %.1f seconds\n", rig_now() - begin);
	rig_stop(&rig);
}

static void a_client_that_reads_nothing_and_leaves_is_forgotten_at_once(void **state)
{
	struct rig rig;
	struct peer p;
	double begin;

	rig_start(&usual, &rig);
	peer_open(&rig, PEER_CLIENT, &p);
	for (unsigned int i = 0; i < 228; i++)
		assert_true(peer_send(&p, WIRE_READ, 0, i, i * 4096, 256 * 1024, NULL));
	(void)usleep(50000);
	begin = rig_now();
	(void)peer_close(&p);
	assert_true(rig_now() - begin < 5);
	rig_stop(&rig);
}

static void a_client_leaves_while_the_store_works_for_it(void **state)
{
	unsigned char data[5000] = { 1 };
	struct rig rig;
	struct peer p;

	rig_start(&usual, &rig);
	for (enum peer_kind kind = PEER_KERNEL; kind <= PEER_CLIENT; kind++) {
		peer_open(&rig, kind, &p);
		sim_pause(rig.store);
		for (unsigned int i = 0; i < 40; i++) {
			assert_true(peer_send(&p, WIRE_WRITE, 0, i, 100, sizeof(data), data));
			assert_true(peer_send(&p, WIRE_READ, 0, i, 0, 10000, NULL));
		}
		assert_true(rig_wait(has_in_flight, rig.store, 30000));
		(void)close(p.fd);
		p.fd = -1;
		(void)usleep(20000);
		assert_int_equal(conn_ended(p.conn), CONN_RUNNING);
		sim_resume(rig.store);
		assert_int_equal(peer_wait_end(&p, 8000), CONN_CLOSED);
	}
	rig_stop(&rig);
}

static void what_was_read_is_answered_before_a_stop(void **state)
{
	unsigned char *data = calloc(1, 100000);
	struct rig rig;
	struct peer p;
	uint64_t cookie;
	uint32_t error;
	unsigned int n = 0;

	assert_non_null(data);
	rig_start(&usual, &rig);
	peer_open(&rig, PEER_CLIENT, &p);
	sim_pause(rig.store);
	for (unsigned int i = 0; i < 60; i++) {
		assert_true(peer_send(&p, WIRE_WRITE, 0, 2 * i, i * 1000, 999, data));
		assert_true(peer_send(&p, WIRE_READ, 0, 2 * i + 1, i * 50000, 50001, NULL));
	}
	while (atomic_load(&rig.volume->stats->in_flight) < 120)
		(void)usleep(1000);
	conn_stop(p.conn);
	(void)usleep(20000);
	assert_int_equal(conn_ended(p.conn), CONN_RUNNING);
	sim_resume(rig.store);
	while (peer_recv(&p, &cookie, &error)) {
		assert_int_equal(error, 0);
		if (cookie % 2)
			assert_true(peer_recv_bytes(&p, data, 50001));
		n++;
	}
	assert_int_equal(n, 120);
	assert_int_equal(peer_wait_end(&p, 8000), CONN_STOPPED);
	rig_stop(&rig);
	free(data);
}

static void a_stop_in_the_middle_of_a_payload_does_not_wait_for_the_rest(void **state)
{
	unsigned char head[WIRE_REQUEST_BYTES], half[50000] = { 0 };
	struct rig rig;
	struct peer p;

	rig_start(&usual, &rig);
	peer_open(&rig, PEER_CLIENT, &p);
	peer_encode(head, WIRE_WRITE, 0, 1, 0, 100000);
	assert_true(peer_send_bytes(&p, head, sizeof(head)));
	assert_true(peer_send_bytes(&p, half, sizeof(half)));
	(void)usleep(20000);
	conn_stop(p.conn);
	assert_int_equal(peer_wait_end(&p, 8000), CONN_STOPPED);
	rig_stop(&rig);
}

static void a_stop_in_the_handshake(void **state)
{
	struct rig rig;
	struct peer p;

	rig_start(&usual, &rig);
	peer_open(&rig, PEER_CLIENT, &p);
	conn_stop(p.conn);
	assert_int_equal(peer_wait_end(&p, 8000), CONN_STOPPED);
	rig_stop(&rig);
}

static void a_disconnect_is_told_from_a_loss(void **state)
{
	struct rig rig;
	struct peer p;
	uint64_t cookie;
	uint32_t error;

	rig_start(&usual, &rig);
	peer_open(&rig, PEER_KERNEL, &p);
	sim_pause(rig.store);
	assert_true(peer_send(&p, WIRE_FLUSH, 0, 3, 0, 0, NULL));
	assert_true(peer_send(&p, WIRE_DISC, 0, 4, 0, 0, NULL));
	(void)usleep(20000);
	assert_int_equal(conn_ended(p.conn), CONN_RUNNING);
	sim_resume(rig.store);
	assert_true(peer_recv(&p, &cookie, &error));
	assert_int_equal(cookie, 3);
	assert_int_equal(peer_wait_end(&p, 8000), CONN_DISCONNECTED);
	rig_stop(&rig);
}

/* The door let it in, and then the image became smaller. */
static void the_image_shrinks_under_a_request(void **state)
{
	unsigned char data[10000] = { 0 };
	struct rig rig;
	struct peer p;

	rig_start(&usual, &rig);
	peer_open(&rig, PEER_KERNEL, &p);
	sim_resize(rig.store, 20 * MIB);
	assert_int_equal(peer_do(&p, WIRE_READ, 0, 30 * MIB, 10000, data), PEER_EIO);
	assert_int_equal(peer_do(&p, WIRE_WRITE, 0, 30 * MIB + 1, 10000, data), PEER_EIO);
	assert_int_equal(peer_do(&p, WIRE_WRITE_ZEROES, 0, 18 * MIB, 3 * MIB, data), PEER_EIO);
	atomic_store(&rig.volume->size, volume_size_for(rig.volume, 20 * MIB));
	assert_int_equal(peer_do(&p, WIRE_READ, 0, 30 * MIB, 10000, data), PEER_EINVAL);
	assert_int_equal(peer_do(&p, WIRE_READ, 0, 19 * MIB - 1, 1, data), 0);
	assert_int_equal(peer_close(&p), CONN_CLOSED);
	rig_stop(&rig);
}

/* With an argument: the tests of which it is the name, or a pattern. */
int main(int argc, char **argv)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_wrong_request_gets_its_error),
		cmocka_unit_test(a_read_only_volume_refuses_every_change),
		cmocka_unit_test(a_volume_without_trim_refuses_it),
		cmocka_unit_test(requests_are_counted_under_their_command),
		cmocka_unit_test(garbage_ends_one_connection_only),
		cmocka_unit_test(half_a_request_is_no_request),
		cmocka_unit_test(requests_may_come_byte_by_byte),
		cmocka_unit_test(replies_survive_a_slow_reader),
		cmocka_unit_test(more_requests_than_a_connection_takes_at_once),
		cmocka_unit_test(no_reply_is_left_behind_by_the_sender_before),
		cmocka_unit_test(a_client_that_reads_nothing_is_cut_when_the_server_stops),
		cmocka_unit_test(a_client_that_reads_nothing_and_leaves_is_forgotten_at_once),
		cmocka_unit_test(a_client_leaves_while_the_store_works_for_it),
		cmocka_unit_test(what_was_read_is_answered_before_a_stop),
		cmocka_unit_test(a_stop_in_the_middle_of_a_payload_does_not_wait_for_the_rest),
		cmocka_unit_test(a_stop_in_the_handshake),
		cmocka_unit_test(a_disconnect_is_told_from_a_loss),
		cmocka_unit_test(the_image_shrinks_under_a_request),
	};

	if (argc > 1)
		cmocka_set_test_filter(argv[1]);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
