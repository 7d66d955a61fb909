/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Copyright (C) 2026 the rbdcrypt-nbd authors */

/*
 * Hundreds of random, overlapping requests at once from several connections, each write stamped,
 * judged afterwards (support/stamps.h). The stores delay, reorder and tear, so what holds here is
 * what the daemon itself promises: sub-sector writes lose nothing of one another, and no read
 * sees a part of a sector's old bytes beside a part of its new ones.
 */

#undef NDEBUG
#include <assert.h>
#include <errno.h>
#include <pthread.h>
#include <semaphore.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "rig.h"
#include "stamps.h"

#define PEERS_MAX 4
#define PER_PEER 160 /* requests of one round */
#define DEPTH 110 /* of one peer; the connection takes 128 */
#define HOT 24 /* sectors that all fight for */
#define BIG (32u << 20)

struct plan {
	struct rig_options rig;
	unsigned int n_peers;
	enum peer_kind kind;
	bool has_big; /* one request of 32 MiB in each round */
	bool is_rough; /* store operations fail now and then */
	double seconds;
	uint64_t seed;
};

struct round;

struct seat {
	struct round *round;
	struct peer peer;
	sem_t room;
	unsigned int index;
	uint64_t random;
	uint16_t types[PER_PEER], flags[PER_PEER];
	pthread_t sender, receiver;
};

struct round {
	const struct plan *plan;
	struct rig rig;
	struct seat seats[PEERS_MAX];
	struct stamp_op ops[PEERS_MAX * PER_PEER];
	_Atomic uint64_t clock;
	uint32_t next_id;
};

/* ---- what is asked for ---- */

static void place(const struct round *r, struct seat *s, struct stamp_op *op)
{
	uint64_t size = r->rig.size, x = rig_random(&s->random);
	uint32_t sector = r->plan->rig.sector ? r->plan->rig.sector : 512;

	switch (rig_random(&s->random) % 8) {
	case 0:
	case 1:
	case 2: /* a hot place, a few bytes up to three sectors */
		op->len = 1 + (uint32_t)(rig_random(&s->random) % (3 * sector));
		op->off = size / 2 + x % (HOT * sector);
		break;
	case 3: /* one whole hot sector */
		op->len = sector;
		op->off = size / 2 / sector * sector + x % HOT * sector;
		break;
	case 4: /* anything up to 1 MiB */
		op->len = 1 + (uint32_t)(rig_random(&s->random) % (1u << 20));
		op->off = x % size;
		break;
	case 5: /* aligned, workers help */
		op->len = sector * (1 + (uint32_t)(rig_random(&s->random) % 64));
		op->off = x % size / sector * sector;
		break;
	default:
		op->len = 1 + (uint32_t)(rig_random(&s->random) % 20000);
		op->off = x % (size / 4);
		break;
	}
	if (op->off + op->len > size)
		op->off = size - op->len;
}

static void choose(struct round *r, struct seat *s, unsigned int i)
{
	struct stamp_op *op = &r->ops[s->index * PER_PEER + i];
	uint64_t x = rig_random(&s->random) % 100;

	memset(op, 0, sizeof(*op));
	op->end = UINT64_MAX;
	place(r, s, op);
	s->flags[i] = rig_random(&s->random) % 16 == 0 ? WIRE_CMD_FUA : 0;
	if (x < 45) {
		op->kind = STAMP_WRITE;
		s->types[i] = WIRE_WRITE;
		op->id = ++r->next_id;
	} else if (x < 85) {
		op->kind = STAMP_READ;
		s->types[i] = WIRE_READ;
	} else if (x < 92) {
		op->kind = STAMP_ZERO;
		s->types[i] = WIRE_WRITE_ZEROES;
		s->flags[i] |= rig_random(&s->random) % 2 ? WIRE_CMD_NO_HOLE : 0;
	} else if (x < 97) {
		op->kind = STAMP_TRIM;
		s->types[i] = WIRE_TRIM;
	} else {
		op->kind = STAMP_OTHER;
		s->types[i] = WIRE_FLUSH;
		op->off = op->len = 0;
	}
	if (r->plan->has_big && s->index == 0 && i == PER_PEER / 2) {
		op->kind = r->next_id % 2 ? STAMP_READ : STAMP_WRITE;
		s->types[i] = op->kind == STAMP_READ ? WIRE_READ : WIRE_WRITE;
		op->id = ++r->next_id;
		op->len = BIG;
		op->off = 1 + rig_random(&s->random) % (r->rig.size - BIG - 1);
	}
}

/* ---- a peer at work: threads, where cmocka cannot catch a failure ---- */

static void *send_all(void *arg)
{
	struct seat *s = arg;
	struct round *r = s->round;
	unsigned char *buf = malloc(BIG);

	assert(buf);
	for (unsigned int i = 0; i < PER_PEER; i++) {
		unsigned int cookie = s->index * PER_PEER + i;
		struct stamp_op *op = &r->ops[cookie];

		while (sem_wait(&s->room) < 0)
			;
		if (op->kind == STAMP_WRITE)
			stamps_fill(buf, op->id, op->off, op->len);
		op->begin = atomic_fetch_add(&r->clock, 1);
		assert(peer_send(&s->peer, s->types[i], s->flags[i], cookie, op->off, op->len,
				 buf));
	}
	free(buf);
	return NULL;
}

static void *receive_all(void *arg)
{
	struct seat *s = arg;
	struct round *r = s->round;

	for (unsigned int i = 0; i < PER_PEER; i++) {
		struct stamp_op *op;
		uint64_t cookie;
		uint32_t error;

		assert(peer_recv(&s->peer, &cookie, &error));
		assert(cookie / PER_PEER == s->index);
		op = &r->ops[cookie];
		assert(op->end == UINT64_MAX);
		if (op->kind == STAMP_READ && error == 0) {
			op->data = malloc(op->len);
			assert(op->data);
			assert(peer_recv_bytes(&s->peer, op->data, op->len));
		}
		assert(error == 0 || (r->plan->is_rough && error == PEER_EIO));
		op->has_failed = error != 0;
		op->end = atomic_fetch_add(&r->clock, 1);
		(void)sem_post(&s->room);
	}
	return NULL;
}

static void play(struct round *r)
{
	for (unsigned int i = 0; i < r->plan->n_peers; i++)
		for (unsigned int j = 0; j < PER_PEER; j++)
			choose(r, &r->seats[i], j);
	for (unsigned int i = 0; i < r->plan->n_peers; i++) {
		struct seat *s = &r->seats[i];

		assert_int_equal(pthread_create(&s->sender, NULL, send_all, s), 0);
		assert_int_equal(pthread_create(&s->receiver, NULL, receive_all, s), 0);
	}
	for (unsigned int i = 0; i < r->plan->n_peers; i++) {
		(void)pthread_join(r->seats[i].sender, NULL);
		(void)pthread_join(r->seats[i].receiver, NULL);
	}
}

static void read_all(struct round *r, unsigned char *to)
{
	struct peer *p = &r->seats[0].peer;

	for (uint64_t at = 0; at < r->rig.size;) {
		uint64_t left = r->rig.size - at;
		uint32_t len = left < (1u << 20) ? (uint32_t)left : 1u << 20;

		assert_int_equal(peer_do(p, WIRE_READ, 0, at, len, to + at), 0);
		at += len;
	}
}

static void open_seats(struct round *r)
{
	for (unsigned int i = 0; i < r->plan->n_peers; i++) {
		struct seat *s = &r->seats[i];

		s->round = r;
		s->index = i;
		s->random = r->plan->seed * 16 + i;
		(void)sem_init(&s->room, 0, DEPTH);
		peer_open(&r->rig, r->plan->kind, &s->peer);
	}
}

static void set_faults(struct round *r, bool is_on)
{
	for (enum sim_op op = SIM_READ; op <= SIM_FLUSH; op++)
		sim_fail(r->rig.store, op,
			 is_on ? 1 + (unsigned int)(rig_random(&r->seats[0].random) % 200) : 0,
			 -EIO);
}

static unsigned int play_rounds(struct round *r, unsigned char *now)
{
	struct stamps *s;
	double end = rig_now() + rig_seconds(r->plan->seconds);
	unsigned int wrong = 0, n_rounds = 0;
	uint64_t units, contended;

	read_all(r, now);
	s = stamps_new(r->rig.size, r->plan->rig.sector ? r->plan->rig.sector : 1, now);
	do {
		if (r->plan->is_rough)
			set_faults(r, true);
		play(r);
		if (r->plan->is_rough)
			set_faults(r, false);
		read_all(r, now);
		wrong += stamps_judge(s, r->ops, r->plan->n_peers * PER_PEER, now);
		for (unsigned int i = 0; i < PEERS_MAX * PER_PEER; i++)
			free(r->ops[i].data);
		memset(r->ops, 0, sizeof(r->ops));
		n_rounds++;
	} while (rig_now() < end && wrong == 0);
	stamps_counts(s, &units, &contended);
	printf("# %u rounds of %u requests, %llu units judged, %llu with several writers\n",
	       n_rounds, r->plan->n_peers * PER_PEER, (unsigned long long)units,
	       (unsigned long long)contended);
	stamps_free(s);
	return wrong;
}

/* What the ancestors hold: stamped, with gaps in which nobody has anything. */
static void fill_layers(struct round *r)
{
	unsigned char buf[4096];
	uint32_t step = r->plan->rig.sector;

	for (unsigned int layer = 0; layer < r->plan->rig.n_layers; layer++) {
		uint64_t random = layer + 1;

		for (uint64_t at = 0; at + step <= r->rig.size; at += step) {
			if (rig_random(&random) % 3)
				continue;
			stamps_fill(buf, 1000000000 + layer, at, step);
			rig_poke(&r->rig, layer, at, buf, step);
		}
	}
}

static void run_plan(struct plan *plan)
{
	struct round *r = calloc(1, sizeof(*r));
	struct sim_counts counts = { 0 };
	unsigned char *now;
	unsigned int wrong;

	assert_non_null(r);
	plan->seed = plan->rig.sim.seed = rig_seed(plan->seed);
	r->plan = plan;
	rig_start(&plan->rig, &r->rig);
	if (plan->rig.n_layers > 1)
		fill_layers(r);
	now = malloc(r->rig.size);
	assert_non_null(now);
	open_seats(r);
	wrong = play_rounds(r, now);
	for (unsigned int i = 0; i < plan->n_peers; i++)
		assert_int_equal(peer_close(&r->seats[i].peer), CONN_CLOSED);
	if (!plan->rig.file)
		sim_counts(r->rig.store, &counts);
	rig_stop(&r->rig);
	free(now);
	free(r);
	assert_int_equal(wrong, 0);
	/* Writes to the same bytes are never with the store at once. */
	assert_int_equal(counts.overlapping_writes, 0);
}

/* ---- the stores ---- */

#define TEARING(sector_bytes, us)                                                                  \
	{                                                                                          \
		.sector = (sector_bytes),                                                          \
		.sim = {.raw_size = 7u << 20,                                                      \
			.data_offset = { 1u << 20 },                                               \
			.object_size = 1u << 20,                                                   \
			.is_tearing = true,                                                        \
			.n_threads = 3,                                                            \
			.delay_us = (us) }                                                         \
	}

static void sectors_of_4096_on_a_tearing_store(void **state)
{
	struct plan plan = { .rig = TEARING(4096, 500), .n_peers = 4, .seconds = 2, .seed = 1 };

	run_plan(&plan);
}

static void sectors_of_512_on_a_tearing_store(void **state)
{
	struct plan plan = {
		.rig = TEARING(512, 200), .n_peers = 3, .kind = PEER_CLIENT, .seconds = 2, .seed = 2
	};

	run_plan(&plan);
}

static void without_encryption(void **state)
{
	struct plan plan = { .rig = TEARING(0, 300), .n_peers = 2, .seconds = 2, .seed = 3 };

	run_plan(&plan);
}

/* Objects of one sector, so that a request meets all layers; a write replaces whole objects. */
static void layers_with_keys_of_their_own(void **state)
{
	struct plan plan = { .rig = { .sector = 4096,
				      .n_layers = 3,
				      .sim = { .raw_size = 9u << 20,
					       .data_offset = { 1u << 20, 1u << 20, 1u << 20 },
					       .overlap = { 6u << 20, 5u << 20 },
					       .object_size = 4096,
					       .is_tearing = true,
					       .delay_us = 300 } },
			     .n_peers = 3,
			     .seconds = 2,
			     .seed = 4 };

	run_plan(&plan);
}

static void a_store_that_answers_inside_the_call(void **state)
{
	struct plan plan = { .rig = TEARING(4096, 0), .n_peers = 4, .seconds = 2, .seed = 5 };

	plan.rig.sim.is_inline = true;
	run_plan(&plan);
}

static void requests_of_32_mib_among_small_ones(void **state)
{
	struct plan plan = {
		.rig = TEARING(4096, 200), .n_peers = 4, .has_big = true, .seconds = 2, .seed = 6
	};

	/* Tearing takes a system call for each 64 bytes. */
	plan.rig.sim.is_tearing = false;
	plan.rig.sim.raw_size = 37u << 20;
	run_plan(&plan);
}

static void a_store_that_fails_now_and_then(void **state)
{
	struct plan plan = {
		.rig = TEARING(4096, 300), .n_peers = 3, .is_rough = true, .seconds = 2, .seed = 7
	};

	run_plan(&plan);
}

static void a_file(void **state)
{
	const char *dir = getenv("TMPDIR");
	struct plan plan = { .rig = { .sector = 4096 },
			     .n_peers = 3,
			     .kind = PEER_CLIENT,
			     .seconds = 2,
			     .seed = 8 };
	char path[4096];
	int fd;

	(void)snprintf(path, sizeof(path), "%s/io_stamps.XXXXXX", dir ? dir : "/tmp");
	fd = mkstemp(path);
	assert_true(fd >= 0);
	assert_int_equal(ftruncate(fd, 12u << 20), 0);
	(void)close(fd);
	plan.rig.file = path;
	run_plan(&plan);
	(void)unlink(path);
}

/* With an argument: the tests of which it is the name, or a pattern. */
int main(int argc, char **argv)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(sectors_of_4096_on_a_tearing_store),
		cmocka_unit_test(sectors_of_512_on_a_tearing_store),
		cmocka_unit_test(without_encryption),
		cmocka_unit_test(layers_with_keys_of_their_own),
		cmocka_unit_test(a_store_that_answers_inside_the_call),
		cmocka_unit_test(requests_of_32_mib_among_small_ones),
		cmocka_unit_test(a_store_that_fails_now_and_then),
		cmocka_unit_test(a_file),
	};

	if (argc > 1)
		cmocka_set_test_filter(argv[1]);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
