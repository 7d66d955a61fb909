/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Copyright (C) 2026 the rbdcrypt-nbd authors */

/*
 * Connections that want more memory than there is: all are served, the large ones too, and whoever
 * is told to stop while waiting in line, stops.
 */

#undef NDEBUG
#include <assert.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cmocka.h>

#include "no_pages.h"
#include "rig.h"
#include "stamps.h"

#define MIB (1u << 20)
#define BIG WIRE_MAX_PAYLOAD

static const struct rig_options tight = {
	.sector = 4096,
	.sim = { .raw_size = 42 * MIB,
		 .data_offset = { MIB },
		 .object_size = MIB,
		 .delay_us = 200,
		 .seed = 1 },
};

struct client {
	pthread_t thread;
	struct peer peer;
	unsigned int rounds;
	uint64_t off; /* unaligned, so that scratch sectors are needed as well */
	unsigned char *data;
	atomic_bool *stop;
	atomic_uint done;
};

static void *move_big_requests(void *arg)
{
	struct client *c = arg;

	for (unsigned int i = 0; i < c->rounds; i++) {
		assert(peer_do(&c->peer, WIRE_WRITE, 0, c->off, BIG, c->data) == 0);
		assert(peer_do(&c->peer, WIRE_READ, 0, c->off, BIG, c->data) == 0);
	}
	return NULL;
}

static void four_connections_move_32_mib_each_in_33(void **state)
{
	struct client c[4];
	struct rig rig;

	rig_start(&tight, &rig);
	for (unsigned int i = 0; i < 4; i++) {
		c[i] = (struct client){ .rounds = 3, .off = 1 + i * 5000, .data = calloc(1, BIG) };
		assert_non_null(c[i].data);
		peer_open(&rig, i % 2 ? PEER_CLIENT : PEER_KERNEL, &c[i].peer);
		assert_int_equal(pthread_create(&c[i].thread, NULL, move_big_requests, &c[i]), 0);
	}
	for (unsigned int i = 0; i < 4; i++) {
		(void)pthread_join(c[i].thread, NULL);
		assert_int_equal(peer_close(&c[i].peer), CONN_CLOSED);
		free(c[i].data);
	}
	rig_stop(&rig);
}

/* Keeps 64 reads of 64 KiB under way. */
static void *move_small_requests(void *arg)
{
	struct client *c = arg;
	unsigned int under_way = 0;
	uint64_t cookie;
	uint32_t error;

	while (!atomic_load(c->stop)) {
		while (under_way < 64) {
			assert(peer_send(&c->peer, WIRE_READ, 0, under_way, 65536ull * under_way,
					 65536, NULL));
			under_way++;
		}
		assert(peer_recv(&c->peer, &cookie, &error) && error == 0);
		assert(peer_recv_bytes(&c->peer, c->data, 65536));
		under_way--;
		atomic_fetch_add(&c->done, 1);
	}
	for (; under_way > 0; under_way--) {
		assert(peer_recv(&c->peer, &cookie, &error) && error == 0);
		assert(peer_recv_bytes(&c->peer, c->data, 65536));
	}
	return NULL;
}

static void a_large_request_is_not_starved_by_small_ones(void **state)
{
	struct client c[4];
	atomic_bool stop = false;
	unsigned int small = 0;
	struct rig rig;

	rig_start(&tight, &rig);
	for (unsigned int i = 0; i < 4; i++) {
		c[i] = (struct client){ .rounds = 3, .stop = &stop, .data = calloc(1, BIG) };
		assert_non_null(c[i].data);
		peer_open(&rig, PEER_KERNEL, &c[i].peer);
	}
	for (unsigned int i = 0; i < 3; i++)
		assert_int_equal(pthread_create(&c[i].thread, NULL, move_small_requests, &c[i]), 0);
	(void)usleep(50000);
	(void)move_big_requests(&c[3]);
	atomic_store(&stop, true);
	for (unsigned int i = 0; i < 4; i++) {
		if (i < 3)
			(void)pthread_join(c[i].thread, NULL);
		small += atomic_load(&c[i].done);
		assert_int_equal(peer_close(&c[i].peer), CONN_CLOSED);
		free(c[i].data);
	}
	assert_true(small > 0);
	rig_stop(&rig);
}

/* One holds all there is; those behind it leave the line, in the middle and at its head. */
static void who_waits_for_memory_can_be_stopped(void **state)
{
	unsigned char *data = malloc(BIG);
	struct rig rig;
	struct peer holder, first, second, third;
	uint64_t cookie;
	uint32_t error;

	rig_start(&tight, &rig);
	peer_open(&rig, PEER_KERNEL, &holder);
	peer_open(&rig, PEER_KERNEL, &first);
	peer_open(&rig, PEER_KERNEL, &second);
	peer_open(&rig, PEER_KERNEL, &third);
	sim_pause(rig.store);
	assert_true(peer_send(&holder, WIRE_READ, 0, 1, 1, BIG, NULL));
	while (atomic_load(&rig.volume->stats->in_flight) < 1)
		(void)usleep(500);
	assert_true(peer_send(&first, WIRE_READ, 0, 2, 0, BIG, NULL));
	(void)usleep(20000);
	assert_true(peer_send(&second, WIRE_READ, 0, 3, 0, 1, NULL));
	(void)usleep(20000);
	assert_true(peer_send(&third, WIRE_READ, 0, 4, 0, 1, NULL));
	(void)usleep(20000);
	assert_int_equal(atomic_load(&rig.volume->stats->in_flight), 1);
	conn_stop(second.conn);
	assert_int_equal(peer_wait_end(&second, 8000), CONN_STOPPED);
	conn_stop(first.conn);
	assert_int_equal(peer_wait_end(&first, 8000), CONN_STOPPED);
	sim_resume(rig.store);
	assert_true(peer_recv(&holder, &cookie, &error));
	assert_true(peer_recv_bytes(&holder, data, BIG));
	assert_true(peer_recv(&third, &cookie, &error));
	assert_int_equal(error, 0);
	assert_true(peer_recv_bytes(&third, data, 1));
	(void)peer_close(&third);
	(void)peer_close(&holder);
	rig_stop(&rig);
	free(data);
}

/* Nobody tells a connection that the system has memory again. */
static void what_the_system_had_no_memory_for_is_done_later(void **state)
{
	unsigned char *data = calloc(1, MIB), byte;
	struct peer large, small;
	uint64_t cookie;
	uint32_t error;
	struct rig rig;

	assert_non_null(data);
	rig_start(&tight, &rig);
	peer_open(&rig, PEER_KERNEL, &large);
	peer_open(&rig, PEER_CLIENT, &small);
	atomic_store(&is_empty, true);
	assert_true(peer_send(&large, WIRE_READ, 0, 1, 0, MIB, NULL));
	assert_false(peer_has_reply(&large, 300));
	/* What is small goes on. */
	for (unsigned int i = 0; i < 3; i++)
		assert_int_equal(peer_do(&small, WIRE_READ, 0, i, 1, &byte), 0);
	assert_false(peer_has_reply(&large, 0));
	atomic_store(&is_empty, false);
	assert_true(peer_has_reply(&large, 30000));
	assert_true(peer_recv(&large, &cookie, &error));
	assert_int_equal(error, 0);
	assert_true(peer_recv_bytes(&large, data, MIB));
	/* One that waits for it is stopped all the same. */
	atomic_store(&is_empty, true);
	assert_true(peer_send(&small, WIRE_READ, 0, 2, 0, BIG, NULL));
	(void)usleep(20000);
	conn_stop(small.conn);
	assert_int_equal(peer_wait_end(&small, 8000), CONN_STOPPED);
	atomic_store(&is_empty, false);
	assert_int_equal(peer_close(&large), CONN_CLOSED);
	rig_stop(&rig);
	free(data);
}

/* One takes no answers, one sends half of a write; what they keep, others get after a while. */
static void who_keeps_memory_from_others_is_cut(void **state)
{
	struct rig_options options = tight;
	unsigned char *data = calloc(1, BIG);
	struct peer deaf, mute, kernel, third;
	uint64_t cookie;
	uint32_t error;
	struct rig rig;
	double start;

	assert_non_null(data);
	options.memory = 2 * BUFFERS_LARGEST;
	rig_start(&options, &rig);
	peer_open(&rig, PEER_CLIENT, &deaf);
	peer_open(&rig, PEER_CLIENT, &mute);
	peer_open(&rig, PEER_KERNEL, &kernel);
	peer_open(&rig, PEER_CLIENT, &third);
	assert_true(peer_send(&deaf, WIRE_READ, 0, 1, 0, BIG, NULL));
	peer_encode(data, WIRE_WRITE, 0, 2, 0, BIG);
	assert_true(peer_send_bytes(&mute, data, 100));
	(void)usleep(100000);
	assert_int_equal(peer_do(&third, WIRE_FLUSH, 0, 0, 0, NULL), 0);
	start = rig_now();
	/* First in line, and not read: two of the others' places are needed. */
	assert_true(peer_send(&kernel, WIRE_READ, 0, 3, 0, BIG, NULL));
	(void)usleep(300000);
	assert_int_equal(peer_do(&third, WIRE_READ, 0, 0, BIG, data), 0);
	assert_true(peer_recv(&kernel, &cookie, &error));
	assert_int_equal(error, 0);
	assert_true(peer_recv_bytes(&kernel, data, BIG));
	assert_in_range((unsigned int)(rig_now() - start), 8, 25);
	assert_int_equal(peer_wait_end(&mute, 8000), CONN_BROKEN);
	assert_int_equal(peer_wait_end(&deaf, 8000), CONN_BROKEN);
	assert_int_equal(peer_close(&third), CONN_CLOSED);
	assert_int_equal(peer_close(&kernel), CONN_CLOSED);
	rig_stop(&rig);
	free(data);
}

/* Connections come and go in the middle of everything; what they leave behind is nothing. */
static void connections_come_and_go(void **state)
{
	double end = rig_now() + rig_seconds(3);
	uint64_t random = rig_seed(31);
	unsigned char *data = calloc(1, MIB);
	unsigned int n = 0;
	struct rig rig;

	assert_non_null(data);
	rig_start(&tight, &rig);
	for (; rig_now() < end; n++) {
		struct peer p[3];

		for (unsigned int i = 0; i < 3; i++)
			peer_open(&rig, rig_random(&random) % 2, &p[i]);
		for (unsigned int i = 0; i < 60; i++) {
			uint64_t off = rig_random(&random) % (38 * MIB);
			uint32_t len = 1 + (uint32_t)(rig_random(&random) % (i % 8 ? 20000 : MIB));
			bool is_write = rig_random(&random) % 2;

			/* The socket is full, perhaps: whoever does not read must not send on. */
			if (!peer_send(&p[i % 3], is_write ? WIRE_WRITE : WIRE_READ, 0, i, off,
				       is_write ? len : len / 8 + 1, data))
				break;
		}
		for (unsigned int i = 0; i < 3; i++) {
			switch (rig_random(&random) % 3) {
			case 0:
				conn_stop(p[i].conn);
				break;
			case 1:
				(void)shutdown(p[i].fd, SHUT_WR);
				break;
			default:
				(void)shutdown(p[i].fd, SHUT_RDWR);
				break;
			}
		}
		for (unsigned int i = 0; i < 3; i++)
			(void)peer_close(&p[i]);
		assert_int_equal(atomic_load(&rig.volume->stats->in_flight), 0);
	}
	print_message("%u rounds\n", n);
	rig_stop(&rig);
	free(data);
}

/* With an argument: the tests of which it is the name, or a pattern. */
int main(int argc, char **argv)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(four_connections_move_32_mib_each_in_33),
		cmocka_unit_test(a_large_request_is_not_starved_by_small_ones),
		cmocka_unit_test(who_waits_for_memory_can_be_stopped),
		cmocka_unit_test(what_the_system_had_no_memory_for_is_done_later),
		cmocka_unit_test(who_keeps_memory_from_others_is_cut),
		cmocka_unit_test(connections_come_and_go),
	};

	if (argc > 1)
		cmocka_set_test_filter(argv[1]);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
