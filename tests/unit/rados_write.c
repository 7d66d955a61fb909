/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Copyright (C) 2026 the rbdcrypt-nbd authors */

/*
 * Changes of a layered image on a librados of our own: random writes, zeros and discards, several
 * at once, snapshots between them. Answers come in any order that RADOS allows (operations on one
 * object happen in the order in which they were sent), and some of them are errors, of which a few
 * happened all the same. After each round the image, and every snapshot, must be what a flat array
 * of bytes is. SEED=N runs one seed, and more of it.
 */

#include "../../rbd/rados.h"

#include <errno.h>
#include <inttypes.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "../../rbd/object_map_state.h"

#define OBJECT 8192u
#define N_OBJECTS 6u
#define SIZE (N_OBJECTS * OBJECT)
#define BLOCK 512u
#define OVERLAP (3 * OBJECT + 5 * BLOCK)
#define N_SNAPS 3u
#define N_AT_ONCE 5u
#define STEPS_MAX 4u

/* ---- objects, as an OSD has them ---- */

struct bytes {
	bool exists;
	unsigned int len;
	unsigned char at[OBJECT];
};

struct object {
	struct bytes head;
	/* What each snapshot has kept; until it has, the head is it. */
	bool is_kept[N_SNAPS];
	struct bytes kept[N_SNAPS];
};

enum step_kind { ASSERT_EXISTS, WRITE, TRUNCATE, ZERO, CREATE, REMOVE, COPYUP };

struct step {
	enum step_kind kind;
	const void *buf;
	void *owned;
	uint64_t off, len;
};

struct op {
	struct step steps[STEPS_MAX];
	unsigned int n;
};

struct call {
	rados_callback_t done;
	void *arg;
	int result;
	/* As sent. */
	uint64_t object;
	bool is_read, is_parent, is_with_snaps;
	char *buf;
	uint64_t off, len;
	struct op op;
	struct call *next;
};

static struct {
	struct object child[N_OBJECTS];
	struct bytes parent[N_OBJECTS];
	struct call *sent; /* the oldest first */
	unsigned int n_snaps, n_completions, n_ops;
	unsigned int error_in; /* one of so many calls fails; 0: none */
	uint32_t random;
} osd;

/* Contexts: which one is asked is all that counts. */
static char io_child, io_parent, io_plan, io_copyup;

static unsigned int any(unsigned int n)
{
	osd.random ^= osd.random << 13;
	osd.random ^= osd.random >> 17;
	osd.random ^= osd.random << 5;
	return osd.random % n;
}

static bool is_failing(void)
{
	return osd.error_in > 0 && any(osd.error_in) == 0;
}

/* ---- librados ---- */

int rados_aio_create_completion2(void *arg, rados_callback_t done, rados_completion_t *ret)
{
	struct call *c;

	if (is_failing())
		return -ENOMEM;
	c = calloc(1, sizeof(*c));
	assert_non_null(c);
	c->done = done;
	c->arg = arg;
	osd.n_completions++;
	*ret = c;
	return 0;
}

int rados_aio_get_return_value(rados_completion_t completion)
{
	return ((struct call *)completion)->result;
}

static void op_clear(struct op *op)
{
	for (unsigned int i = 0; i < op->n; i++)
		free(op->steps[i].owned);
	op->n = 0;
}

void rados_aio_release(rados_completion_t completion)
{
	struct call *c = completion;

	osd.n_completions--;
	op_clear(&c->op);
	free(c);
}

static int send_to(struct call *c, const char *name)
{
	struct call **end = &osd.sent;

	if (is_failing())
		return -EIO;
	assert_int_equal(sscanf(name, "prefix.%16" SCNx64, &c->object), 1);
	assert_in_range(c->object, 0, N_OBJECTS - 1);
	while (*end)
		end = &(*end)->next;
	*end = c;
	return 0;
}

int rados_aio_read(rados_ioctx_t io, const char *name, rados_completion_t completion, char *buf,
		   size_t len, uint64_t off)
{
	struct call *c = completion;

	assert_true(off + len <= OBJECT);
	c->is_read = true;
	c->is_parent = io == &io_parent;
	c->buf = buf;
	c->off = off;
	c->len = len;
	return send_to(c, name);
}

rados_write_op_t rados_create_write_op(void)
{
	struct op *op = calloc(1, sizeof(*op));

	assert_non_null(op);
	osd.n_ops++;
	return op;
}

void rados_release_write_op(rados_write_op_t op)
{
	osd.n_ops--;
	op_clear(op);
	free(op);
}

static struct step *add(struct op *op, enum step_kind kind, uint64_t off, uint64_t len)
{
	struct step *s = &op->steps[op->n];

	assert_true(op->n < STEPS_MAX);
	op->n++;
	*s = (struct step){ .kind = kind, .off = off, .len = len };
	return s;
}

void rados_write_op_assert_exists(rados_write_op_t op)
{
	(void)add(op, ASSERT_EXISTS, 0, 0);
}

/* The bytes are looked at when it happens: they have to stay until then. */
void rados_write_op_write(rados_write_op_t op, const char *buf, size_t len, uint64_t off)
{
	assert_true(off + len <= OBJECT);
	add(op, WRITE, off, len)->buf = buf;
}

void rados_write_op_truncate(rados_write_op_t op, uint64_t off)
{
	(void)add(op, TRUNCATE, off, 0);
}

void rados_write_op_zero(rados_write_op_t op, uint64_t off, uint64_t len)
{
	assert_true(off + len <= OBJECT);
	(void)add(op, ZERO, off, len);
}

void rados_write_op_create(rados_write_op_t op, int exclusive, const char *category)
{
	(void)category;
	assert_int_equal(exclusive, LIBRADOS_CREATE_IDEMPOTENT);
	(void)add(op, CREATE, 0, 0);
}

void rados_write_op_remove(rados_write_op_t op)
{
	(void)add(op, REMOVE, 0, 0);
}

/* librados takes a copy of what a method is given. */
void rados_write_op_exec(rados_write_op_t op, const char *cls, const char *method, const char *in,
			 size_t len, int *error)
{
	struct step *s = add(op, COPYUP, 0, len);

	(void)error;
	assert_string_equal(cls, "rbd");
	assert_string_equal(method, "copyup");
	assert_true(len <= OBJECT);
	s->owned = malloc(len + 1);
	assert_non_null(s->owned);
	if (len > 0)
		memcpy(s->owned, in, len);
	s->buf = s->owned;
}

int rados_aio_write_op_operate(rados_write_op_t op, rados_ioctx_t io, rados_completion_t completion,
			       const char *name, time_t *mtime, int flags)
{
	struct call *c = completion;
	int r;

	(void)mtime;
	(void)flags;
	assert_true(io == &io_plan || io == &io_copyup);
	c->is_with_snaps = io == &io_plan;
	r = send_to(c, name);
	if (r < 0)
		return r;
	c->op = *(struct op *)op;
	((struct op *)op)->n = 0;
	return 0;
}

/* ---- what happens to objects ---- */

static void grow(struct bytes *b, uint64_t len)
{
	b->exists = true;
	if (len <= b->len)
		return;
	memset(b->at + b->len, 0, len - b->len);
	b->len = (unsigned int)len;
}

static int apply(const struct step *s, struct bytes *b)
{
	switch (s->kind) {
	case ASSERT_EXISTS:
		return b->exists ? 0 : -ENOENT;
	case WRITE:
		grow(b, s->off + s->len);
		memcpy(b->at + s->off, s->buf, s->len);
		return 0;
	case TRUNCATE:
		grow(b, s->off);
		b->len = (unsigned int)s->off;
		return 0;
	case ZERO:
		/* Creates nothing, and makes nothing longer. */
		for (uint64_t i = s->off; i < s->off + s->len && i < b->len; i++)
			b->at[i] = 0;
		return 0;
	case CREATE:
		b->exists = true;
		return 0;
	case REMOVE:
		if (!b->exists)
			return -ENOENT;
		*b = (struct bytes){ 0 };
		return 0;
	case COPYUP:
		if (b->exists)
			return 0;
		grow(b, s->len);
		memcpy(b->at, s->buf, s->len);
		return 0;
	}
	return -EINVAL;
}

/* All steps or none, and what snapshots need is kept first. */
static int happen(struct call *c)
{
	struct object *o = &osd.child[c->object];
	struct bytes b = o->head;
	int r = 0;

	for (unsigned int i = 0; i < c->op.n && r == 0; i++)
		r = apply(&c->op.steps[i], &b);
	if (r < 0)
		return r;
	for (unsigned int i = 0; c->is_with_snaps && i < osd.n_snaps; i++)
		if (!o->is_kept[i]) {
			o->is_kept[i] = true;
			o->kept[i] = o->head;
		}
	o->head = b;
	return 0;
}

static int answer_read(const struct call *c)
{
	const struct bytes *b = c->is_parent ? &osd.parent[c->object] : &osd.child[c->object].head;
	uint64_t n;

	if (!b->exists)
		return -ENOENT;
	n = b->len > c->off ? b->len - c->off : 0;
	if (n > c->len)
		n = c->len;
	memcpy(c->buf, b->at + c->off, n);
	return (int)n;
}

static bool is_first_of_its_object(const struct call *c)
{
	for (const struct call *o = osd.sent; o != c; o = o->next)
		if (o->object == c->object && o->is_parent == c->is_parent)
			return false;
	return true;
}

/* One call, of those that may be next. False: none is under way. */
static bool answer_one(void)
{
	struct call *choice = NULL, **at = &osd.sent;
	unsigned int n = 0;

	for (struct call *c = osd.sent; c; c = c->next)
		if (is_first_of_its_object(c) && any(++n) == 0)
			choice = c;
	if (!choice)
		return false;
	while (*at != choice)
		at = &(*at)->next;
	*at = choice->next;
	if (is_failing()) {
		choice->result = -EIO;
		if (!choice->is_read && any(2))
			(void)happen(choice);
	} else {
		choice->result = choice->is_read ? answer_read(choice) : happen(choice);
	}
	choice->done(choice, choice->arg);
	return true;
}

/* ---- the image, and what it should be ---- */

static struct rados_store *rs;
static unsigned char image[SIZE], snaps[N_SNAPS][SIZE];

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
		for (uint64_t off = 0; off < SIZE; off++)
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

	j->off = any(4) == 0 ? any(N_OBJECTS) * OBJECT : any(SIZE / BLOCK) * BLOCK;
	j->len = blocks * BLOCK;
	if (j->len > SIZE - j->off)
		j->len = SIZE - j->off;
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
		if (!place(jobs, n))
			continue;
		jobs[n].kind = any(N_KINDS);
		jobs[n].n_done = 0;
		for (uint64_t b = 0; b < jobs[n].len; b++)
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
	for (uint64_t off = 0; off < SIZE; off++)
		assert_int_equal(byte_of(&osd.child[off / OBJECT].head, off), image[off]);
	check_snaps();
}

static void take_snap(void)
{
	memcpy(snaps[osd.n_snaps], image, SIZE);
	osd.n_snaps++;
	rs->writer->plan.n_snaps = osd.n_snaps;
}

/* ---- a store without what would need a cluster ---- */

static void layer_init(struct rados_objects *l, void *io)
{
	l->io = io;
	(void)snprintf(l->prefix, sizeof(l->prefix), "prefix");
	l->layout =
		(struct layout){ .object_size = OBJECT, .stripe_unit = OBJECT, .stripe_count = 1 };
	l->sector = BLOCK;
	l->raw_size = SIZE;
}

static void open_image(uint32_t seed)
{
	struct rados_writer *w = calloc(1, sizeof(*w));

	memset(&osd, 0, sizeof(osd));
	osd.random = seed * 2654435761u + 1;
	for (unsigned int i = 0; i < N_OBJECTS; i++) {
		osd.parent[i].exists = i != 1;
		osd.parent[i].len = i == 2 ? 3 * BLOCK + 7 : OBJECT;
		memset(osd.parent[i].at, 'a' + (int)i, OBJECT);
	}
	for (uint64_t off = 0; off < SIZE; off++)
		image[off] = parent_byte(off);
	rs = calloc(1, sizeof(*rs) + 2 * sizeof(rs->layers[0]));
	assert_true(rs && w);
	rs->n = 2;
	rs->sector_max = BLOCK;
	rs->writer = w;
	atomic_init(&rs->raw_size, SIZE);
	layer_init(&rs->layers[0], &io_child);
	layer_init(&rs->layers[1], &io_parent);
	atomic_init(&rs->layers[0].overlap, OVERLAP);
	w->plan = (struct rados_plan){ .io = &io_plan, .raw_size = SIZE, .overlap = OVERLAP };
	w->copyup = &io_copyup;
	w->max_running = 1 + any(3);
	w->waiting_tail = &w->waiting;
	(void)pthread_mutex_init(&w->lock, NULL);
	assert_int_equal(object_map_new(NULL, "1", "rbd/a", &rs->layers[0].layout, &w->map), 0);
	w->map->is_taken = true;
	gate_init(&w->gate);
	gate_open(&w->gate);
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

static void run(uint32_t seed, unsigned int rounds, unsigned int error_in)
{
	open_image(seed);
	osd.error_in = error_in;
	for (unsigned int i = 0; i < rounds; i++) {
		one_round();
		if (osd.n_snaps < N_SNAPS && any(rounds / N_SNAPS) == 0)
			take_snap();
	}
	close_image();
}

static void run_all(unsigned int error_in)
{
	const char *seed = getenv("SEED");

	n_failed = n_succeeded = 0;
	if (seed)
		run((uint32_t)strtoul(seed, NULL, 0), 200, error_in);
	for (uint32_t i = 1; !seed && i <= 100; i++) {
		seed_under_way = i;
		run(i, 12, error_in);
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
	run_all(0);
	assert_int_equal(n_failed, 0);
	assert_true(n_succeeded > 100);
}

static void failing_calls_harm_nothing_else(void **state)
{
	(void)state;
	run_all(30);
	assert_true(n_failed > 0 && n_succeeded > n_failed);
}

/* An object that is gone again after each copy-up: somebody else works on it. */
static void an_object_that_vanishes_again_and_again_is_an_error(void **state)
{
	static struct job j = { .kind = DO_WRITE, .off = 0, .len = BLOCK };
	unsigned int answers = 0;

	(void)state;
	open_image(1);
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

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_teardown(changes_in_any_order_are_what_a_flat_image_would_have,
					  say_seed),
		cmocka_unit_test_teardown(failing_calls_harm_nothing_else, say_seed),
		cmocka_unit_test(an_object_that_vanishes_again_and_again_is_an_error),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
