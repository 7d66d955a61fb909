/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Copyright (C) 2026 the rbdcrypt-nbd authors */

/*
 * Changes of a layered image on a librados of our own: random writes, zeros and discards, several
 * at once, snapshots between them. Answers come in any order that RADOS allows (operations on one
 * object happen in the order in which they were sent), and some of them are errors, of which a few
 * happened all the same. After each round the image, and every snapshot, must be what a flat array
 * of bytes is. SEED=N runs one seed, and more of it.
 */

#include "../../rbd/object_map_state.h"
#include "../../rbd/rados.h"

#include "fake_objects.h"

#define FEW_OBJECTS 6u
#define MOST (N_OBJECTS * OBJECT)
#define BLOCK 512u
#define OVERLAP (3 * OBJECT + 5 * BLOCK)
#define N_AT_ONCE 5u

/* ---- the image, and what it should be ---- */

static struct rados_store *rs;
static uint64_t size;
static unsigned char image[MOST], snaps[N_SNAPS][MOST];

static unsigned char parent_byte(uint64_t off)
{
	const struct bytes *b = &osd.parent[off / OBJECT];

	return off < OVERLAP && b->exists && off % OBJECT < b->len ? b->at[off % OBJECT] : 0;
}

static unsigned char byte_of(const struct bytes *b, uint64_t off)
{
	if (!b->exists)
		return parent_byte(off);
	return off % OBJECT < b->len ? b->at[off % OBJECT] : 0;
}

static const struct bytes *of_snap(const struct object *o, unsigned int snap)
{
	return o->is_kept[snap] ? &o->kept[snap] : &o->head;
}

static void check_snaps(void)
{
	for (unsigned int s = 0; s < osd.n_snaps; s++) {
		for (uint64_t off = 0; off < size; off++)
			assert_int_equal(byte_of(of_snap(&osd.child[off / OBJECT], s), off),
					 snaps[s][off]);
		/* A deep-flatten copies only what no longer has a head, so all others have it. */
		for (unsigned int i = 0; i * OBJECT < OVERLAP; i++)
			assert_false(osd.child[i].head.exists &&
				     !of_snap(&osd.child[i], s)->exists);
	}
}

struct job {
	struct store_io io;
	enum { DO_WRITE, DO_ZERO, DO_ZERO_DENSE, DO_DISCARD, N_KINDS } kind;
	uint64_t off, len;
	unsigned char buf[2 * OBJECT];
	unsigned int n_done;
};

static void job_done(struct store_io *io)
{
	((struct job *)io)->n_done++;
}

static void job_start(struct job *j)
{
	struct store *s = &rs->base;
	int r = 0;

	j->io = (struct store_io){ .done = job_done };
	switch (j->kind) {
	case DO_WRITE:
		r = rados_store_write(s, &j->io, j->off, j->buf, j->len);
		break;
	case DO_ZERO:
	case DO_ZERO_DENSE:
		r = rados_store_zero(s, &j->io, j->off, j->len,
				     j->kind == DO_ZERO ? 0 : STORE_ZERO_NO_HOLE);
		break;
	default:
		r = rados_store_discard(s, &j->io, j->off, j->len);
	}
	if (r == STORE_DONE)
		j->n_done++;
}

/* A place that none of the others has, in blocks. */
static bool place(struct job *jobs, unsigned int n)
{
	struct job *j = &jobs[n];
	unsigned int blocks = any(4) == 0 ? OBJECT / BLOCK : 1 + any(2 * OBJECT / BLOCK);
	unsigned int n_objects = (unsigned int)(size / OBJECT);

	j->off = (uint64_t)(any(4) == 0 ? any(n_objects) * OBJECT
					: any(n_objects * (OBJECT / BLOCK)) * BLOCK);
	j->len = blocks * BLOCK;
	/* As only what removes may be. */
	if (j->kind != DO_WRITE && n_objects > FEW_OBJECTS && any(2) == 0)
		j->len = (uint64_t)any(n_objects) * OBJECT + blocks * BLOCK;
	if (j->len > size - j->off)
		j->len = size - j->off;
	for (unsigned int i = 0; i < n; i++)
		if (j->off < jobs[i].off + jobs[i].len && jobs[i].off < j->off + j->len)
			return false;
	return true;
}

/* What the image has now, where a job was, against what it had and was given. */
static void job_check(const struct job *j)
{
	for (uint64_t i = 0; i < j->len; i++) {
		unsigned char is = byte_of(&osd.child[(j->off + i) / OBJECT].head, j->off + i);
		unsigned char is_new = j->kind == DO_WRITE ? j->buf[i] : 0;

		if (j->io.result < 0 || j->kind == DO_DISCARD)
			assert_true(is == is_new || is == image[j->off + i]);
		else
			assert_int_equal(is, is_new);
		image[j->off + i] = is;
	}
}

static unsigned int n_failed, n_succeeded;
static uint32_t seed_under_way;

static void one_round(void)
{
	static struct job jobs[N_AT_ONCE];
	unsigned int n = 0, started = 0;

	for (unsigned int i = 0; i < N_AT_ONCE; i++) {
		jobs[n].kind = any(N_KINDS);
		if (!place(jobs, n))
			continue;
		jobs[n].n_done = 0;
		for (uint64_t b = 0; jobs[n].kind == DO_WRITE && b < jobs[n].len; b++)
			jobs[n].buf[b] = (unsigned char)any(256);
		n++;
	}
	/* They come while others are under way. */
	while (started < n)
		if (any(2) == 0 || !answer_one())
			job_start(&jobs[started++]);
	while (answer_one())
		;
	for (unsigned int i = 0; i < n; i++) {
		assert_int_equal(jobs[i].n_done, 1);
		n_failed += jobs[i].io.result < 0;
		n_succeeded += jobs[i].io.result == 0;
		job_check(&jobs[i]);
	}
	for (uint64_t off = 0; off < size; off++)
		assert_int_equal(byte_of(&osd.child[off / OBJECT].head, off), image[off]);
	check_snaps();
}

static void take_snap(void)
{
	memcpy(snaps[osd.n_snaps], image, size);
	osd.n_snaps++;
	rs->writer->plan.n_snaps = osd.n_snaps;
}

/* ---- a store without what would need a cluster ---- */

static void layer_init(struct rados_objects *l, void *io)
{
	l->io = io;
	(void)snprintf(l->place.prefix, sizeof(l->place.prefix), "prefix");
	l->layout =
		(struct layout){ .object_size = OBJECT, .stripe_unit = OBJECT, .stripe_count = 1 };
	l->sector = BLOCK;
	l->raw_size = size;
}

static void open_image(unsigned int n_objects, uint32_t seed)
{
	struct rados_writer *w = calloc(1, sizeof(*w));

	size = (uint64_t)n_objects * OBJECT;
	memset(&osd, 0, sizeof(osd));
	osd.random = seed * 2654435761u + 1;
	for (unsigned int i = 0; i < N_OBJECTS; i++) {
		osd.parent[i].exists = i != 1;
		osd.parent[i].len = i == 2 ? 3 * BLOCK + 7 : OBJECT;
		memset(osd.parent[i].at, 'a' + (int)i, OBJECT);
	}
	for (uint64_t off = 0; off < size; off++)
		image[off] = parent_byte(off);
	rs = calloc(1, sizeof(*rs) + 2 * sizeof(rs->layers[0]));
	assert_true(rs && w);
	rs->n = 2;
	rs->sector_max = BLOCK;
	rs->writer = w;
	atomic_init(&rs->raw_size, size);
	layer_init(&rs->layers[0], &io_child);
	layer_init(&rs->layers[1], &io_parent);
	atomic_init(&rs->layers[0].overlap, OVERLAP);
	w->plan = (struct rados_plan){ .io = &io_plan, .raw_size = size, .overlap = OVERLAP };
	w->copyup = &io_copyup;
	w->max_running = 1 + any(3);
	w->waiting_tail = &w->waiting;
	(void)pthread_mutex_init(&w->lock, NULL);
	assert_int_equal(object_map_new(NULL, "1", "rbd/a", &rs->layers[0].layout, &w->map), 0);
	w->map->is_taken = true;
	gate_init(&w->gate);
	gate_open_since(&w->gate, gate_closings(&w->gate));
}

static void close_image(void)
{
	struct rados_writer *w = rs->writer;

	assert_null(osd.sent);
	assert_int_equal(osd.n_completions, 0);
	assert_int_equal(osd.n_ops, 0);
	assert_null(w->flights);
	assert_int_equal(w->n_running, 0);
	assert_int_equal(w->gate.inside, 0);
	object_map_free(w->map);
	gate_done(&w->gate);
	(void)pthread_mutex_destroy(&w->lock);
	free(w);
	free(rs);
}

static void run(unsigned int n_objects, uint32_t seed, unsigned int rounds, unsigned int error_in)
{
	open_image(n_objects, seed);
	osd.error_in = error_in;
	for (unsigned int i = 0; i < rounds; i++) {
		one_round();
		if (osd.n_snaps < N_SNAPS && any(rounds / N_SNAPS) == 0)
			take_snap();
	}
	close_image();
}

static void run_all(unsigned int n_objects, uint32_t seeds, unsigned int error_in)
{
	const char *seed = getenv("SEED");

	n_failed = n_succeeded = 0;
	if (seed)
		run(n_objects, (uint32_t)strtoul(seed, NULL, 0), 200, error_in);
	for (uint32_t i = 1; !seed && i <= seeds; i++) {
		seed_under_way = i;
		run(n_objects, i, 12, error_in);
	}
	seed_under_way = 0;
}

/* After a failed assertion too: the seed is what helps then. */
static int say_seed(void **state)
{
	(void)state;
	if (seed_under_way)
		print_message("seed %" PRIu32 "\n", seed_under_way);
	return 0;
}

/* ---- claims ---- */

static void changes_in_any_order_are_what_a_flat_image_would_have(void **state)
{
	(void)state;
	run_all(FEW_OBJECTS, 100, 0);
	assert_int_equal(n_failed, 0);
	assert_true(n_succeeded > 100);
	run_all(N_OBJECTS, 10, 0);
	assert_int_equal(n_failed, 0);
}

static void failing_calls_harm_nothing_else(void **state)
{
	(void)state;
	run_all(FEW_OBJECTS, 100, 30);
	assert_true(n_failed > 0 && n_succeeded > n_failed);
	run_all(N_OBJECTS, 10, 200);
	assert_true(n_failed > 0 && n_succeeded > n_failed);
}

/* An object that is gone again after each copy-up: somebody else works on it. */
static void an_object_that_vanishes_again_and_again_is_an_error(void **state)
{
	static struct job j = { .kind = DO_WRITE, .off = 0, .len = BLOCK };
	unsigned int answers = 0;

	(void)state;
	open_image(FEW_OBJECTS, 1);
	/* Without a snapshot the copy-up brings the write along. */
	take_snap();
	job_start(&j);
	while (answer_one()) {
		osd.child[0].head.exists = false;
		assert_true(answers++ < 100);
	}
	assert_int_equal(j.n_done, 1);
	assert_int_equal(j.io.result, -EIO);
	close_image();
}

static struct job *job_of_objects(unsigned int kind, uint64_t off, unsigned int objects)
{
	struct job *j = calloc(1, sizeof(*j));

	assert_non_null(j);
	j->kind = kind;
	j->off = off;
	j->len = (uint64_t)objects * OBJECT;
	job_start(j);
	return j;
}

static struct job *job_of(unsigned int kind, uint64_t off)
{
	return job_of_objects(kind, off, 1);
}

static void job_end(struct job *j)
{
	assert_int_equal(j->n_done, 1);
	assert_int_equal(j->io.result, 0);
	job_check(j);
	free(j);
}

static void answer_all(void)
{
	while (answer_one())
		;
}

/* In a full pool a write waits, and nothing that is asked for must fail where a write does not. */
static void a_full_pool_makes_nothing_fail(void **state)
{
	struct job *free_backed, *free_own, *zeros, *kept, *write;

	(void)state;
	open_image(FEW_OBJECTS, 1);
	zeros = job_of(DO_WRITE, 0);
	kept = job_of(DO_WRITE, 4 * OBJECT);
	answer_all();
	job_end(zeros);
	job_end(kept);
	osd.is_full = true;
	free_backed = job_of(DO_ZERO, 0);
	free_own = job_of(DO_ZERO, 4 * OBJECT);
	answer_all();
	job_end(free_backed);
	job_end(free_own);
	/* An empty object hides the parent's. */
	zeros = job_of(DO_ZERO, 2 * OBJECT);
	write = job_of(DO_WRITE, 5 * OBJECT);
	answer_all();
	assert_int_equal(zeros->n_done + write->n_done, 0);
	osd.is_full = false;
	answer_all();
	job_end(zeros);
	job_end(write);
	take_snap();
	osd.is_full = true;
	kept = job_of(DO_ZERO, 5 * OBJECT);
	answer_all();
	assert_int_equal(kept->n_done, 0);
	osd.is_full = false;
	answer_all();
	job_end(kept);
	check_snaps();
	close_image();
}

/* Of its calls that were sent, and nothing of objects below this one. */
static unsigned int n_under_way(uint64_t lowest)
{
	unsigned int n = 0;

	for (const struct call *c = osd.sent; c; c = c->next) {
		assert_true(c->object >= lowest);
		n++;
	}
	return n;
}

static void what_removes_much_goes_piece_by_piece_the_last_first(void **state)
{
	static const struct {
		unsigned int kind, at_once, first;
	} cases[] = {
		{ DO_ZERO, PIECE_OBJECTS, 32 },
		{ DO_DISCARD, PIECE_OBJECTS, 32 },
		{ DO_ZERO_DENSE, 1, 35 },
	};

	(void)state;
	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		struct job *j;

		open_image(N_OBJECTS, 1);
		/* Objects that exist, the first ones not. */
		j = job_of_objects(DO_ZERO_DENSE, 4 * OBJECT, N_OBJECTS - 4);
		answer_all();
		job_end(j);
		j = job_of_objects(cases[i].kind, 0, N_OBJECTS);
		assert_true(n_under_way(cases[i].first) > 0);
		do
			assert_true(n_under_way(0) <= cases[i].at_once);
		while (answer_one());
		job_end(j);
		close_image();
	}
}

static void a_piece_that_fails_is_the_last(void **state)
{
	struct job *j;

	(void)state;
	open_image(N_OBJECTS, 1);
	j = job_of_objects(DO_ZERO_DENSE, 0, N_OBJECTS);
	answer_all();
	job_end(j);
	j = job_of_objects(DO_ZERO, 0, N_OBJECTS);
	osd.error_in = 1;
	assert_true(answer_one());
	osd.error_in = 0;
	answer_all();
	assert_int_equal(j->n_done, 1);
	assert_true(j->io.result < 0);
	for (unsigned int i = 0; i < 32; i++)
		assert_true(osd.child[i].head.exists);
	free(j);
	close_image();
}

/* Whoever closes the gate waits for what is under way, not for all of a large change. */
static void a_gate_that_closes_comes_between_the_pieces(void **state)
{
	struct gate *g;
	struct job *j;

	(void)state;
	open_image(N_OBJECTS, 1);
	g = &rs->writer->gate;
	j = job_of_objects(DO_ZERO_DENSE, 4 * OBJECT, N_OBJECTS - 4);
	answer_all();
	job_end(j);
	j = job_of_objects(DO_ZERO, 4 * OBJECT, N_OBJECTS - 4);
	gate_close(g);
	answer_all();
	assert_int_equal(g->inside, 0);
	assert_int_equal(j->n_done, 0);
	for (unsigned int i = 4; i < N_OBJECTS; i++)
		assert_int_equal(osd.child[i].head.exists, i < 32);
	gate_open_since(g, gate_closings(g));
	assert_true(n_under_way(16) > 0);
	/* And the rest may not come at all. */
	gate_fail(g, -EIO);
	answer_all();
	assert_int_equal(j->n_done, 1);
	assert_int_equal(j->io.result, -EIO);
	for (unsigned int i = 4; i < N_OBJECTS; i++)
		assert_int_equal(osd.child[i].head.exists, i < 16);
	free(j);
	close_image();
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_teardown(changes_in_any_order_are_what_a_flat_image_would_have,
					  say_seed),
		cmocka_unit_test_teardown(failing_calls_harm_nothing_else, say_seed),
		cmocka_unit_test(an_object_that_vanishes_again_and_again_is_an_error),
		cmocka_unit_test(a_full_pool_makes_nothing_fail),
		cmocka_unit_test(what_removes_much_goes_piece_by_piece_the_last_first),
		cmocka_unit_test(a_piece_that_fails_is_the_last),
		cmocka_unit_test(a_gate_that_closes_comes_between_the_pieces),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
