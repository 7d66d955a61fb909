/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Copyright (C) 2026 the rbdcrypt-nbd authors */

/*
 * What is there after a power cut, what zeroing and trimming leave, and what errors of the store
 * become.
 */

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "rig.h"
#include "stamps.h"

#define MIB (1u << 20)
#define SECTOR 512u

static const struct rig_options usual = {
	.sector = SECTOR,
	.sim = { .raw_size = 9 * MIB,
		 .data_offset = { MIB },
		 .object_size = MIB,
		 .delay_us = 100,
		 .seed = 1 },
};

/* ---- durability ---- */

#define PLACES 64u
#define STEP 65536u /* from one place to the next */
#define BATCH 48u

/* A place is written by one request at a time, so its versions have an order. */
struct place {
	uint32_t version; /* written and answered */
	uint32_t durable; /* must survive: this one or a later one */
	uint32_t pending; /* sent and not answered, or 0 */
};

struct book {
	struct place places[PLACES];
	struct peer peers[2];
	uint64_t random;
	uint32_t last_version;
};

static uint64_t where(unsigned int place)
{
	return place * (uint64_t)STEP + place % 3 * SECTOR;
}

/* A batch of writes on both connections, with and without FUA, all answered. */
static void write_batch(struct book *b)
{
	unsigned char buf[SECTOR];
	unsigned int sent[2] = { 0 };
	bool has_fua[PLACES] = { false };

	for (unsigned int i = 0; i < BATCH; i++) {
		unsigned int place = (unsigned int)(rig_random(&b->random) % PLACES), to = i % 2;

		if (b->places[place].pending)
			continue;
		b->places[place].pending = ++b->last_version;
		has_fua[place] = rig_random(&b->random) % 4 == 0;
		stamps_fill(buf, b->last_version, where(place), SECTOR);
		assert_true(peer_send(&b->peers[to], WIRE_WRITE, has_fua[place] ? WIRE_CMD_FUA : 0,
				      place, where(place), SECTOR, buf));
		sent[to]++;
	}
	for (unsigned int to = 0; to < 2; to++) {
		while (sent[to]-- > 0) {
			struct place *p;
			uint64_t cookie;
			uint32_t error;

			assert_true(peer_recv(&b->peers[to], &cookie, &error));
			assert_int_equal(error, 0);
			p = &b->places[cookie];
			p->version = p->pending;
			p->pending = 0;
			if (has_fua[cookie])
				p->durable = p->version;
		}
	}
}

/* Sent on either connection; covers what both have answered. */
static void flush(struct book *b)
{
	unsigned int by = (unsigned int)(rig_random(&b->random) % 2);

	assert_int_equal(peer_do(&b->peers[by], WIRE_FLUSH, 0, 0, 0, NULL), 0);
	for (unsigned int i = 0; i < PLACES; i++)
		b->places[i].durable = b->places[i].version;
}

static void check_after_crash(struct book *b)
{
	unsigned char seen[SECTOR], want[SECTOR];

	for (unsigned int i = 0; i < PLACES; i++) {
		struct place *p = &b->places[i];
		bool is_legal = false;

		assert_int_equal(peer_do(&b->peers[0], WIRE_READ, 0, where(i), SECTOR, seen), 0);
		for (uint32_t v = p->durable; v <= p->version && !is_legal; v++) {
			memset(want, 0, sizeof(want));
			if (v > 0)
				stamps_fill(want, v, where(i), SECTOR);
			is_legal = memcmp(seen, want, SECTOR) == 0;
			if (is_legal)
				p->version = p->durable = v;
		}
		assert_true(is_legal);
	}
}

static void what_was_flushed_survives_a_power_cut(void **state)
{
	struct rig_options o = usual;
	struct book b = { .random = o.sim.seed = rig_seed(21) };
	double end = rig_now() + rig_seconds(2);
	unsigned int crashes = 0;
	struct rig rig;

	rig_start(&o, &rig);
	for (unsigned int i = 0; i < 2; i++)
		peer_open(&rig, PEER_KERNEL, &b.peers[i]);
	for (; rig_now() < end; crashes++) {
		for (uint64_t n = rig_random(&b.random) % 4; n > 0; n--) {
			write_batch(&b);
			if (rig_random(&b.random) % 2)
				flush(&b);
		}
		sim_crash(rig.store, rig_random(&b.random) % 2);
		check_after_crash(&b);
	}
	print_message("%u power cuts, %u writes\n", crashes, b.last_version);
	for (unsigned int i = 0; i < 2; i++)
		(void)peer_close(&b.peers[i]);
	rig_stop(&rig);
}

static void zeroes_and_trims_are_durable_with_fua(void **state)
{
	unsigned char data[100000], seen[100000];
	struct rig rig;
	struct peer p;

	rig_start(&usual, &rig);
	peer_open(&rig, PEER_KERNEL, &p);
	stamps_fill(data, 1, 0, sizeof(data));
	assert_int_equal(peer_do(&p, WIRE_WRITE, WIRE_CMD_FUA, 777, sizeof(data), data), 0);
	assert_int_equal(peer_do(&p, WIRE_WRITE_ZEROES, WIRE_CMD_FUA, 1777, 50001, NULL), 0);
	assert_int_equal(peer_do(&p, WIRE_WRITE_ZEROES, 0, 70777, 10, NULL), 0);
	sim_crash(rig.store, false);
	assert_int_equal(peer_do(&p, WIRE_READ, 0, 777, sizeof(seen), seen), 0);
	memset(data + 1000, 0, 50001);
	assert_memory_equal(seen, data, sizeof(data));
	(void)peer_close(&p);
	rig_stop(&rig);
}

/* ---- zeroes and trim ---- */

static void fill_device(struct rig *rig, struct peer *p)
{
	unsigned char *data = malloc(MIB);

	assert_non_null(data);
	for (uint64_t at = 0; at < rig->size; at += MIB) {
		stamps_fill(data, 3, at, MIB);
		assert_int_equal(peer_do(p, WIRE_WRITE, 0, at, MIB, data), 0);
	}
	free(data);
}

/* The device holds stamp 3 but for zeros from..to. */
static void expect_zeroes(struct rig *rig, struct peer *p, uint64_t from, uint64_t to)
{
	unsigned char *seen = malloc(rig->size), *want = malloc(rig->size);

	assert_true(seen && want);
	stamps_fill(want, 3, 0, rig->size);
	memset(want + from, 0, to - from);
	for (uint64_t at = 0; at < rig->size; at += MIB)
		assert_int_equal(peer_do(p, WIRE_READ, 0, at, MIB, seen + at), 0);
	assert_memory_equal(seen, want, rig->size);
	free(seen);
	free(want);
}

static void zeroes_are_exact_at_any_alignment(void **state)
{
	static const uint32_t sectors[] = { 0, 512, 4096 };
	static const struct {
		uint64_t off;
		uint32_t len;
		uint16_t flags;
	} cases[] = {
		{ 0, 1, 0 },
		{ 4095, 2, 0 },
		{ 1, 4095, WIRE_CMD_NO_HOLE },
		{ 4096, 4096, WIRE_CMD_FUA },
		{ 524287, 524290, 0 },
		{ MIB, MIB, WIRE_CMD_NO_HOLE },
		{ MIB, 2 * MIB, 0 },
		{ MIB - 1, 2 * MIB + 2, 0 },
		{ 5 * MIB + 4000, 3 * MIB - 4000, WIRE_CMD_FUA },
		{ 77, 8 * MIB - 78, WIRE_CMD_NO_HOLE },
		{ 0, 8 * MIB, 0 },
	};
	struct rig rig;
	struct peer p;

	for (unsigned int s = 0; s < 3; s++) {
		struct rig_options o = usual;

		o.sector = sectors[s];
		o.sim.delay_us = 0;
		for (unsigned int i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
			rig_start(&o, &rig);
			peer_open(&rig, PEER_KERNEL, &p);
			fill_device(&rig, &p);
			assert_int_equal(peer_do(&p, WIRE_WRITE_ZEROES, cases[i].flags,
						 cases[i].off, cases[i].len, NULL),
					 0);
			expect_zeroes(&rig, &p, cases[i].off, cases[i].off + cases[i].len);
			(void)peer_close(&p);
			rig_stop(&rig);
		}
	}
}

static void zeroes_free_whole_objects_unless_told_not_to(void **state)
{
	unsigned char zeros[4096] = { 0 }, raw[4096];
	struct rig rig;
	struct peer p;

	rig_start(&usual, &rig);
	peer_open(&rig, PEER_KERNEL, &p);
	fill_device(&rig, &p);
	assert_int_equal(peer_do(&p, WIRE_WRITE_ZEROES, 0, MIB / 2, 2 * MIB, NULL), 0);
	/* Raw: the header takes the first object, so device object n is raw object n + 1. */
	assert_true(sim_has_object(rig.store, 0, MIB));
	assert_false(sim_has_object(rig.store, 0, 2 * MIB));
	assert_true(sim_has_object(rig.store, 0, 3 * MIB));
	assert_int_equal(peer_do(&p, WIRE_WRITE_ZEROES, WIRE_CMD_NO_HOLE, 4 * MIB, MIB, NULL), 0);
	assert_true(sim_has_object(rig.store, 0, 5 * MIB));
	/* Encrypted zeros, or another client would decrypt zeros to garbage. */
	sim_peek(rig.store, 0, 5 * MIB, raw, sizeof(raw));
	assert_memory_not_equal(raw, zeros, sizeof(raw));
	(void)peer_close(&p);
	rig_stop(&rig);
}

static void fast_zeroes_are_fast_or_refused(void **state)
{
	const uint16_t fast = WIRE_CMD_FAST_ZERO;
	struct sim_counts before, after;
	struct rig rig;
	struct peer p;

	rig_start(&usual, &rig);
	peer_open(&rig, PEER_KERNEL, &p);
	fill_device(&rig, &p);
	sim_counts(rig.store, &before);
	assert_int_equal(peer_do(&p, WIRE_WRITE_ZEROES, fast, MIB + 1, MIB, NULL), PEER_ENOTSUP);
	assert_int_equal(peer_do(&p, WIRE_WRITE_ZEROES, fast, MIB, MIB + 512, NULL), PEER_ENOTSUP);
	assert_int_equal(peer_do(&p, WIRE_WRITE_ZEROES, fast | WIRE_CMD_NO_HOLE, MIB, MIB, NULL),
			 PEER_ENOTSUP);
	sim_counts(rig.store, &after);
	assert_int_equal(before.ops[SIM_WRITE] + before.ops[SIM_ZERO],
			 after.ops[SIM_WRITE] + after.ops[SIM_ZERO]);
	assert_int_equal(peer_do(&p, WIRE_WRITE_ZEROES, fast, MIB, 2 * MIB, NULL), 0);
	expect_zeroes(&rig, &p, MIB, 3 * MIB);
	(void)peer_close(&p);
	rig_stop(&rig);
}

static void trim_frees_objects_and_touches_nothing_else(void **state)
{
	struct rig rig;
	struct peer p;

	rig_start(&usual, &rig);
	peer_open(&rig, PEER_KERNEL, &p);
	fill_device(&rig, &p);
	assert_int_equal(peer_do(&p, WIRE_TRIM, 0, 100, 300, NULL), 0);
	assert_int_equal(peer_do(&p, WIRE_TRIM, 0, 511, 2, NULL), 0);
	expect_zeroes(&rig, &p, 0, 0);
	assert_int_equal(peer_do(&p, WIRE_TRIM, WIRE_CMD_FUA, 2 * MIB, 2 * MIB, NULL), 0);
	assert_false(sim_has_object(rig.store, 0, 3 * MIB));
	assert_false(sim_has_object(rig.store, 0, 4 * MIB));
	expect_zeroes(&rig, &p, 2 * MIB, 4 * MIB);
	(void)peer_close(&p);
	rig_stop(&rig);
}

/* ---- errors of the store ---- */

struct failing {
	enum sim_op op;
	uint16_t type, flags;
	uint64_t off;
	uint32_t len;
	int error;
	uint32_t expected;
	/* How many operations of that kind the request needs: the fault is tried on each. */
	unsigned int n_ops;
};

static const struct failing failures[] = {
	{ SIM_READ, WIRE_READ, 0, 5, 100000, -EIO, PEER_EIO, 1 },
	{ SIM_READ, WIRE_READ, 0, 0, 512, -ENOMEM, PEER_ENOMEM, 1 },
	{ SIM_READ, WIRE_WRITE, 0, 5, 2000, -EIO, PEER_EIO, 2 },
	{ SIM_READ, WIRE_WRITE, 0, 5, 20, -EIO, PEER_EIO, 1 },
	{ SIM_READ, WIRE_WRITE, 0, 1024, 1000, -EIO, PEER_EIO, 1 },
	{ SIM_WRITE, WIRE_WRITE, 0, 5, 2000, -ENOSPC, PEER_ENOSPC, 1 },
	{ SIM_WRITE, WIRE_WRITE, WIRE_CMD_FUA, 512, 512, -EROFS, PEER_EPERM, 1 },
	{ SIM_FLUSH, WIRE_WRITE, WIRE_CMD_FUA, 512, 512, -EIO, PEER_EIO, 1 },
	{ SIM_FLUSH, WIRE_FLUSH, 0, 0, 0, -EIO, PEER_EIO, 1 },
	{ SIM_READ, WIRE_WRITE_ZEROES, 0, 5, MIB / 2 + 2, -EIO, PEER_EIO, 2 },
	{ SIM_WRITE, WIRE_WRITE_ZEROES, WIRE_CMD_NO_HOLE, 5, MIB, -EIO, PEER_EIO, 3 },
	{ SIM_WRITE, WIRE_WRITE_ZEROES, 0, 5, MIB, -EIO, PEER_EIO, 2 },
	{ SIM_ZERO, WIRE_WRITE_ZEROES, 0, 5, 4 * MIB, -EIO, PEER_EIO, 1 },
	{ SIM_FLUSH, WIRE_WRITE_ZEROES, WIRE_CMD_FUA, 0, MIB, -EIO, PEER_EIO, 1 },
	{ SIM_DISCARD, WIRE_TRIM, 0, 5, 4 * MIB, -EIO, PEER_EIO, 1 },
	{ SIM_FLUSH, WIRE_TRIM, WIRE_CMD_FUA, 0, MIB, -EIO, PEER_EIO, 1 },
};

/* The same fault inside the call and from another thread; nothing keeps its range or memory. */
static void an_error_of_the_store_is_the_answer(void **state)
{
	unsigned char *data = calloc(1, MIB);

	assert_non_null(data);
	for (unsigned int is_inline = 0; is_inline < 2; is_inline++) {
		struct rig_options o = usual;
		struct rig rig;
		struct peer p;

		o.sim.is_inline = is_inline;
		rig_start(&o, &rig);
		peer_open(&rig, PEER_KERNEL, &p);
		for (unsigned int i = 0; i < sizeof(failures) / sizeof(failures[0]); i++) {
			const struct failing *f = &failures[i];

			for (unsigned int nth = 1; nth <= f->n_ops; nth++) {
				sim_fail(rig.store, f->op, nth, f->error);
				assert_int_equal(
					peer_do(&p, f->type, f->flags, f->off, f->len, data),
					f->expected);
				/* Would wait for ever for a range that was not given up. */
				assert_int_equal(
					peer_do(&p, WIRE_WRITE, WIRE_CMD_FUA, 0, MIB, data), 0);
			}
			sim_fail(rig.store, f->op, f->n_ops + 1, f->error);
			assert_int_equal(peer_do(&p, f->type, f->flags, f->off, f->len, data), 0);
			sim_fail(rig.store, f->op, 0, 0);
		}
		(void)peer_close(&p);
		rig_stop(&rig);
	}
	free(data);
}

/* With an argument: the tests of which it is the name, or a pattern. */
int main(int argc, char **argv)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(what_was_flushed_survives_a_power_cut),
		cmocka_unit_test(zeroes_and_trims_are_durable_with_fua),
		cmocka_unit_test(zeroes_are_exact_at_any_alignment),
		cmocka_unit_test(zeroes_free_whole_objects_unless_told_not_to),
		cmocka_unit_test(fast_zeroes_are_fast_or_refused),
		cmocka_unit_test(trim_frees_objects_and_touches_nothing_else),
		cmocka_unit_test(an_error_of_the_store_is_the_answer),
	};

	if (argc > 1)
		cmocka_set_test_filter(argv[1]);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
