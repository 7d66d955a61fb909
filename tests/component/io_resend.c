/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Copyright (C) 2026 the rbdcrypt-nbd authors */

/*
 * The kernel sends a request again on another connection when its socket died, and once that copy
 * is answered, it may write the same place anew. The first copy, wherever it was stuck, must not
 * come after that.
 */

#include <pthread.h>
#include <semaphore.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cmocka.h>

#include "rig.h"

#define MIB (1u << 20)
#define PLACE 8192u /* what is written again and again */
#define GATE (4ull * MIB) /* a read of this sector waits */

static const struct rig_options usual = {
	.sector = 4096,
	.sim = { .raw_size = 9 * MIB, .data_offset = { MIB }, .object_size = MIB, .seed = 1 },
};

static void fill(unsigned char *buf, uint32_t version)
{
	memset(buf, (int)(version & 0xff), PLACE);
	memcpy(buf, &version, sizeof(version));
}

static uint32_t version_now(struct peer *p)
{
	unsigned char buf[PLACE];
	uint32_t version;

	assert_int_equal(peer_do(p, WIRE_READ, 0, 1000, PLACE, buf), 0);
	memcpy(&version, buf, sizeof(version));
	for (unsigned int i = sizeof(version); i < PLACE; i++)
		assert_int_equal(buf[i], version & 0xff);
	return version;
}

static bool send_version(struct peer *p, uint32_t version)
{
	unsigned char buf[PLACE];

	fill(buf, version);
	return peer_send(p, WIRE_WRITE, 0, version, 1000, PLACE, buf);
}

static void write_version(struct peer *p, uint32_t version)
{
	uint64_t cookie;
	uint32_t error;

	assert_true(send_version(p, version));
	assert_true(peer_recv(p, &cookie, &error));
	assert_int_equal(cookie, version);
	assert_int_equal(error, 0);
}

static bool is_writing(void *arg)
{
	struct sim_counts counts;

	sim_counts(arg, &counts);
	return counts.in_flight > 0;
}

static void the_first_copy_is_with_the_store(void **state)
{
	struct rig rig;
	struct peer old, new;

	rig_start(&usual, &rig);
	peer_open(&rig, PEER_KERNEL, &old);
	peer_open(&rig, PEER_KERNEL, &new);
	sim_pause(rig.store);
	assert_true(send_version(&old, 1));
	assert_true(rig_wait(is_writing, rig.store, 30000));
	(void)shutdown(old.fd, SHUT_RDWR);
	assert_true(send_version(&new, 1));
	/* It waits for the first copy, which nobody can call back. */
	assert_false(peer_has_reply(&new, 50));
	sim_resume(rig.store);
	assert_true(peer_has_reply(&new, 30000));
	{
		uint64_t cookie;
		uint32_t error;

		assert_true(peer_recv(&new, &cookie, &error));
		assert_int_equal(error, 0);
	}
	write_version(&new, 2);
	assert_int_equal(version_now(&new), 2);
	assert_int_equal(peer_close(&old), CONN_CLOSED);
	assert_int_equal(version_now(&new), 2);
	(void)peer_close(&new);
	rig_stop(&rig);
}

static void the_first_copy_waits_for_another_write(void **state)
{
	struct sim_counts counts;
	struct rig rig;
	struct peer first, old, new;

	rig_start(&usual, &rig);
	peer_open(&rig, PEER_KERNEL, &first);
	peer_open(&rig, PEER_KERNEL, &old);
	peer_open(&rig, PEER_KERNEL, &new);
	sim_pause(rig.store);
	assert_true(send_version(&first, 1));
	assert_true(rig_wait(is_writing, rig.store, 30000));
	assert_true(send_version(&old, 2));
	while (atomic_load(&rig.volume->stats->in_flight) < 2)
		(void)usleep(500);
	(void)shutdown(old.fd, SHUT_RDWR);
	sim_resume(rig.store);
	assert_int_equal(peer_close(&old), CONN_CLOSED);
	write_version(&new, 2);
	write_version(&new, 3);
	assert_int_equal(version_now(&new), 3);
	/* The one on the dead socket was never carried out. */
	sim_counts(rig.store, &counts);
	assert_int_equal(counts.ops[SIM_WRITE], 3);
	(void)peer_close(&first);
	(void)peer_close(&new);
	rig_stop(&rig);
}

/* ---- a store in which one read stops the reader itself ---- */

static struct {
	struct store_ops ops;
	const struct store_ops *real;
	sem_t arrived, open;
} gate;

static int gated_read(struct store *s, struct store_io *io, uint64_t dev_off, void *buf, size_t len)
{
	if (dev_off == GATE) {
		(void)sem_post(&gate.arrived);
		while (sem_wait(&gate.open) < 0)
			;
	}
	return gate.real->read(s, io, dev_off, buf, len);
}

static void start_gated(struct rig *rig)
{
	rig_start(&usual, rig);
	gate.real = rig->store->ops;
	gate.ops = *gate.real;
	gate.ops.read = gated_read;
	rig->store->ops = &gate.ops;
	(void)sem_init(&gate.arrived, 0, 0);
	(void)sem_init(&gate.open, 0, 0);
}

static void the_first_copy_is_still_in_the_reader_s_buffer(void **state)
{
	struct rig rig;
	struct peer old, new;

	start_gated(&rig);
	peer_open(&rig, PEER_KERNEL, &old);
	peer_open(&rig, PEER_KERNEL, &new);
	assert_true(peer_send(&old, WIRE_READ, 0, 1, GATE, 4096, NULL));
	assert_int_equal(sem_wait(&gate.arrived), 0);
	assert_true(send_version(&old, 1));
	(void)shutdown(old.fd, SHUT_RDWR);
	write_version(&new, 1);
	write_version(&new, 2);
	(void)sem_post(&gate.open);
	assert_int_equal(peer_close(&old), CONN_CLOSED);
	assert_int_equal(version_now(&new), 2);
	(void)peer_close(&new);
	rig_stop(&rig);
}

/* A client of the unix socket that only says that it sends no more is still there. */
static void a_client_that_ends_its_stream_has_its_writes_done(void **state)
{
	struct rig rig;
	struct peer old, new;

	start_gated(&rig);
	peer_open(&rig, PEER_CLIENT, &old);
	peer_open(&rig, PEER_CLIENT, &new);
	assert_true(peer_send(&old, WIRE_READ, 0, 1, GATE, 4096, NULL));
	assert_int_equal(sem_wait(&gate.arrived), 0);
	assert_true(send_version(&old, 1));
	(void)shutdown(old.fd, SHUT_WR);
	(void)sem_post(&gate.open);
	/* Hanging up before that would take it back. */
	assert_int_equal(peer_wait_end(&old, 8000), CONN_CLOSED);
	assert_int_equal(version_now(&new), 1);
	(void)peer_close(&new);
	rig_stop(&rig);
}

/* One that is gone may have come back and asked again, as QEMU does with a reconnect delay. */
static void a_client_that_came_back_is_not_overtaken_by_its_past(void **state)
{
	struct rig rig;
	struct peer old, new;

	start_gated(&rig);
	peer_open(&rig, PEER_CLIENT, &old);
	peer_open(&rig, PEER_CLIENT, &new);
	assert_true(peer_send(&old, WIRE_READ, 0, 1, GATE, 4096, NULL));
	assert_int_equal(sem_wait(&gate.arrived), 0);
	assert_true(send_version(&old, 1));
	(void)shutdown(old.fd, SHUT_RDWR);
	write_version(&new, 1);
	write_version(&new, 2);
	(void)sem_post(&gate.open);
	assert_int_equal(peer_close(&old), CONN_CLOSED);
	assert_int_equal(version_now(&new), 2);
	(void)peer_close(&new);
	rig_stop(&rig);
}

/* ---- the loss is told before all that was in flight has come to its end ---- */

static bool is_lost(void *arg)
{
	return conn_lost(arg) != CONN_RUNNING;
}

static void the_loss_is_told_while_a_write_is_with_the_store(void **state)
{
	struct rig rig;
	struct peer old;

	rig_start(&usual, &rig);
	peer_open(&rig, PEER_KERNEL, &old);
	sim_pause(rig.store);
	assert_true(send_version(&old, 1));
	assert_true(rig_wait(is_writing, rig.store, 30000));
	assert_false(is_lost(old.conn));
	(void)shutdown(old.fd, SHUT_RDWR);
	assert_true(rig_wait(is_lost, old.conn, 30000));
	assert_int_equal(conn_lost(old.conn), CONN_CLOSED);
	assert_int_equal(conn_ended(old.conn), CONN_RUNNING);
	sim_resume(rig.store);
	assert_int_equal(peer_close(&old), CONN_CLOSED);
	rig_stop(&rig);
}

/* Its requests took all memory, so its reader waits for that and not for the socket. */
static void the_loss_is_told_while_there_is_no_memory(void **state)
{
	const uint32_t len = 4 * MIB;
	struct rig rig;
	struct peer old;

	rig_start(&usual, &rig);
	peer_open(&rig, PEER_KERNEL, &old);
	sim_pause(rig.store);
	for (uint64_t i = 0; i < 12; i++)
		assert_true(peer_send(&old, WIRE_READ, 0, i, 0, len, NULL));
	while (atomic_load(&rig.volume->stats->in_flight) < 8)
		(void)usleep(500);
	(void)usleep(50000);
	assert_in_range(atomic_load(&rig.volume->stats->in_flight), 8, 11);
	(void)shutdown(old.fd, SHUT_RDWR);
	assert_true(rig_wait(is_lost, old.conn, 30000));
	sim_resume(rig.store);
	assert_int_equal(peer_close(&old), CONN_CLOSED);
	rig_stop(&rig);
}

/* ---- at random ---- */

/* Sends versions from..to on p, hangs up at a random moment; how far the answers came. */
static uint32_t write_and_die(struct peer *p, uint32_t from, uint32_t to, uint64_t *random)
{
	uint32_t answered = from - 1, error;
	uint64_t cookie;

	for (uint32_t v = from; v <= to; v++)
		assert_true(send_version(p, v));
	(void)usleep((unsigned int)(rig_random(random) % 2000));
	while (peer_has_reply(p, 0) && peer_recv(p, &cookie, &error)) {
		assert_int_equal(error, 0);
		answered = (uint32_t)cookie > answered ? (uint32_t)cookie : answered;
		if (rig_random(random) % 3 == 0)
			break;
	}
	(void)shutdown(p->fd, SHUT_RDWR);
	return answered;
}

static void sockets_die_at_random_moments(void **state)
{
	struct rig_options o = usual;
	uint64_t random = o.sim.seed = rig_seed(11);
	double end = rig_now() + rig_seconds(2);
	uint32_t version = 0, rounds = 0;
	struct rig rig;
	struct peer last;

	o.sim.delay_us = 400;
	rig_start(&o, &rig);
	peer_open(&rig, PEER_KERNEL, &last);
	for (; rig_now() < end; rounds++) {
		uint32_t n = 1 + (uint32_t)(rig_random(&random) % 20), answered;
		struct peer p;

		peer_open(&rig, PEER_KERNEL, &p);
		answered = write_and_die(&p, version + 1, version + n, &random);
		/* The kernel asks again for what was not answered, and goes on. */
		for (uint32_t v = answered + 1; v <= version + n + 1; v++)
			write_version(&last, v);
		version += n + 1;
		assert_int_equal(version_now(&last), version);
		(void)peer_close(&p);
		assert_int_equal(version_now(&last), version);
	}
	print_message("%u rounds, %u versions\n", rounds, version);
	(void)peer_close(&last);
	rig_stop(&rig);
}

/* With an argument: the tests of which it is the name, or a pattern. */
int main(int argc, char **argv)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(the_first_copy_is_with_the_store),
		cmocka_unit_test(the_first_copy_waits_for_another_write),
		cmocka_unit_test(the_first_copy_is_still_in_the_reader_s_buffer),
		cmocka_unit_test(a_client_that_ends_its_stream_has_its_writes_done),
		cmocka_unit_test(a_client_that_came_back_is_not_overtaken_by_its_past),
		cmocka_unit_test(the_loss_is_told_while_a_write_is_with_the_store),
		cmocka_unit_test(the_loss_is_told_while_there_is_no_memory),
		cmocka_unit_test(sockets_die_at_random_moments),
	};

	if (argc > 1)
		cmocka_set_test_filter(argv[1]);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
