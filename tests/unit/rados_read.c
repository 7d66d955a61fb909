/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Copyright (C) 2026 the rbdcrypt-nbd authors */

/* Reads of a layered chain on a librados of our own, whose answers can come in any order. */

#include "../../rbd/rados.h"

#include <errno.h>
#include <inttypes.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#define OBJECT 16384u
#define N_OBJECTS 8u
#define N_LAYERS 3u
#define SIZE (N_OBJECTS * OBJECT)

/* ---- librados ---- */

/* A layer's objects: the bytes each has, or -1. Every byte says which layer it is of. */
static struct fake {
	int bytes[N_OBJECTS];
} fakes[N_LAYERS];

static struct call {
	rados_callback_t done;
	void *arg;
	int result;
	struct call *next;
} * calls;

static unsigned int n_reads, fail_create_at, fail_read_at;
static int read_error;

int rados_aio_create_completion2(void *arg, rados_callback_t done, rados_completion_t *ret)
{
	struct call *c;

	if (fail_create_at && --fail_create_at == 0)
		return -ENOMEM;
	c = calloc(1, sizeof(*c));
	assert_non_null(c);
	c->done = done;
	c->arg = arg;
	*ret = c;
	return 0;
}

int rados_aio_get_return_value(rados_completion_t completion)
{
	return ((struct call *)completion)->result;
}

void rados_aio_release(rados_completion_t completion)
{
	free(completion);
}

int rados_aio_read(rados_ioctx_t io, const char *name, rados_completion_t completion, char *buf,
		   size_t len, uint64_t off)
{
	struct fake *f = io;
	struct call *c = completion;
	uint64_t object;
	int has;

	assert_int_equal(sscanf(name, "prefix.%16" SCNx64, &object), 1);
	assert_int_equal(strlen(name), strlen("prefix.") + 16);
	assert_in_range(object, 0, N_OBJECTS - 1);
	assert_true(off + len <= OBJECT);
	n_reads++;
	if (fail_read_at && n_reads == fail_read_at)
		return -ESHUTDOWN;
	has = f->bytes[object];
	if (has < 0) {
		c->result = -ENOENT;
	} else {
		c->result = (uint64_t)has > off ? has - (int)off : 0;
		if ((size_t)c->result > len)
			c->result = (int)len;
		memset(buf, 'a' + (int)(f - fakes), (size_t)c->result);
	}
	if (read_error && has >= 0)
		c->result = read_error;
	c->next = calls;
	calls = c;
	return 0;
}

/* The answers, the last asked first. */
static void answer_all(void)
{
	while (calls) {
		struct call *c = calls;

		calls = c->next;
		c->done(c, c->arg);
	}
}

/* ---- the store ---- */

struct fixture {
	struct rados_store *rs;
	struct store_io io;
	unsigned int n_done;
	unsigned char buf[SIZE];
};

static void io_done(struct store_io *io)
{
	struct fixture *fx = (struct fixture *)((char *)io - offsetof(struct fixture, io));

	fx->n_done++;
}

static int setup(void **state)
{
	struct fixture *fx = calloc(1, sizeof(*fx));

	assert_non_null(fx);
	fx->rs = calloc(1, sizeof(*fx->rs) + N_LAYERS * sizeof(fx->rs->layers[0]));
	assert_non_null(fx->rs);
	fx->rs->n = N_LAYERS;
	atomic_init(&fx->rs->raw_size, SIZE);
	for (unsigned int i = 0; i < N_LAYERS; i++) {
		struct rados_objects *l = &fx->rs->layers[i];

		for (unsigned int j = 0; j < N_OBJECTS; j++)
			fakes[i].bytes[j] = -1;
		l->io = &fakes[i];
		strcpy(l->place.prefix, "prefix");
		l->layout = (struct layout){ .object_size = OBJECT,
					     .stripe_unit = OBJECT,
					     .stripe_count = 1 };
		l->sector = i == 2 ? 4096 : 512;
		atomic_init(&l->overlap, i + 1 < N_LAYERS ? SIZE : 0);
	}
	fx->io.done = io_done;
	calls = NULL;
	n_reads = fail_create_at = fail_read_at = 0;
	read_error = 0;
	*state = fx;
	return 0;
}

static int teardown(void **state)
{
	struct fixture *fx = *state;

	store_io_reset(&fx->io);
	free(fx->rs);
	free(fx);
	return 0;
}

static int read_range(struct fixture *fx, uint64_t off, size_t len)
{
	store_io_reset(&fx->io);
	fx->n_done = 0;
	memset(fx->buf, '?', sizeof(fx->buf));
	if (rados_store_read(&fx->rs->base, &fx->io, off, fx->buf, len) == STORE_DONE) {
		assert_int_equal(fx->n_done, 0);
		return fx->io.result;
	}
	answer_all();
	assert_int_equal(fx->n_done, 1);
	return fx->io.result;
}

static void expect_piece(struct fixture *fx, unsigned int i, uint64_t off, uint64_t len,
			 unsigned int layer)
{
	assert_in_range(i, 0, fx->io.n_extents - 1);
	assert_int_equal(fx->io.extents[i].dev_off, off);
	assert_int_equal(fx->io.extents[i].len, len);
	assert_int_equal(fx->io.extents[i].layer, layer);
}

static void expect_bytes(struct fixture *fx, uint64_t from, uint64_t to, int byte)
{
	for (uint64_t i = from; i < to; i++)
		assert_int_equal(fx->buf[i], byte);
}

static void nothing_anywhere_is_zeros(void **state)
{
	struct fixture *fx = *state;

	assert_int_equal(read_range(fx, 0, SIZE), 0);
	assert_int_equal(fx->io.n_extents, 1);
	expect_piece(fx, 0, 0, SIZE, STORE_LAYER_ZERO);
	expect_bytes(fx, 0, SIZE, 0);
}

static void each_object_is_of_the_first_layer_that_has_it(void **state)
{
	struct fixture *fx = *state;

	fakes[0].bytes[1] = fakes[1].bytes[1] = OBJECT;
	fakes[1].bytes[2] = fakes[2].bytes[2] = OBJECT;
	fakes[2].bytes[3] = fakes[2].bytes[0] = OBJECT;
	assert_int_equal(read_range(fx, 0, 5 * OBJECT), 0);
	assert_int_equal(fx->io.n_extents, 5);
	expect_piece(fx, 0, 0, OBJECT, 2);
	expect_piece(fx, 1, OBJECT, OBJECT, 0);
	expect_piece(fx, 2, 2 * OBJECT, OBJECT, 1);
	expect_piece(fx, 3, 3 * OBJECT, OBJECT, 2);
	expect_piece(fx, 4, 4 * OBJECT, OBJECT, STORE_LAYER_ZERO);
	expect_bytes(fx, OBJECT, 2 * OBJECT, 'a');
	expect_bytes(fx, 2 * OBJECT, 3 * OBJECT, 'b');
	expect_bytes(fx, 3 * OBJECT, 4 * OBJECT, 'c');
}

static void a_short_or_empty_object_hides_its_parent(void **state)
{
	struct fixture *fx = *state;

	fakes[0].bytes[0] = 5000;
	fakes[0].bytes[1] = 0;
	fakes[1].bytes[0] = fakes[1].bytes[1] = OBJECT;
	assert_int_equal(read_range(fx, 0, 2 * OBJECT), 0);
	assert_int_equal(fx->io.n_extents, 1);
	expect_piece(fx, 0, 0, 2 * OBJECT, 0);
	expect_bytes(fx, 0, 5000, 'a');
	expect_bytes(fx, 5000, 2 * OBJECT, 0);
}

static void other_layouts_and_data_offsets_meet_in_the_device(void **state)
{
	struct fixture *fx = *state;

	fx->rs->layers[1].layout.stripe_unit = 4096;
	fx->rs->layers[1].layout.stripe_count = 2;
	fx->rs->layers[1].data_offset = 2 * OBJECT;
	/* The device's first unit is in object 2, its second in object 3, the third in 2 ... */
	fakes[1].bytes[2] = OBJECT;
	assert_int_equal(read_range(fx, 0, 4 * 4096), 0);
	assert_int_equal(fx->io.n_extents, 4);
	expect_piece(fx, 0, 0, 4096, 1);
	expect_piece(fx, 1, 4096, 4096, STORE_LAYER_ZERO);
	expect_piece(fx, 2, 8192, 4096, 1);
	expect_bytes(fx, 8192, 12288, 'b');
}

static void the_overlap_ends_a_piece_inside_a_sector(void **state)
{
	struct fixture *fx = *state;

	fakes[1].bytes[1] = OBJECT;
	fakes[2].bytes[0] = fakes[2].bytes[1] = OBJECT;
	atomic_store(&fx->rs->layers[0].overlap, OBJECT + 700);
	assert_int_equal(read_range(fx, 0, 3 * OBJECT), 0);
	assert_int_equal(fx->io.n_extents, 3);
	expect_piece(fx, 0, 0, OBJECT, 2);
	expect_piece(fx, 1, OBJECT, 700, 1);
	expect_piece(fx, 2, OBJECT + 700, 2 * OBJECT - 700, STORE_LAYER_ZERO);
	/* To the end of the sector it is ciphertext, and needed. */
	expect_bytes(fx, OBJECT, OBJECT + 1024, 'b');
	expect_bytes(fx, OBJECT + 1024, 3 * OBJECT, 0);
}

static void the_smallest_overlap_on_the_way_up_counts(void **state)
{
	struct fixture *fx = *state;

	fakes[2].bytes[0] = OBJECT;
	atomic_store(&fx->rs->layers[0].overlap, 9000);
	atomic_store(&fx->rs->layers[1].overlap, 5000);
	assert_int_equal(read_range(fx, 0, OBJECT), 0);
	assert_int_equal(fx->io.n_extents, 2);
	expect_piece(fx, 0, 0, 5000, 2);
	expect_bytes(fx, 0, 8192, 'c');
	expect_bytes(fx, 8192, OBJECT, 0);
	/* Nor does a larger one further up give back what was cut off. */
	atomic_store(&fx->rs->layers[0].overlap, 5000);
	atomic_store(&fx->rs->layers[1].overlap, 9000);
	assert_int_equal(read_range(fx, 0, OBJECT), 0);
	expect_piece(fx, 0, 0, 5000, 2);
}

static void what_a_clone_does_not_see_is_not_asked_for(void **state)
{
	struct fixture *fx = *state;

	fakes[1].bytes[3] = OBJECT;
	atomic_store(&fx->rs->layers[0].overlap, 3 * OBJECT);
	assert_int_equal(read_range(fx, 3 * OBJECT, OBJECT), 0);
	assert_int_equal(n_reads, 1);
	expect_piece(fx, 0, 3 * OBJECT, OBJECT, STORE_LAYER_ZERO);
}

/* Its bytes may be gone by now, which looks like zeros. */
static void a_parent_that_is_lost_is_not_read(void **state)
{
	struct fixture *fx = *state;

	fakes[0].bytes[2] = OBJECT;
	fakes[1].bytes[3] = OBJECT;
	atomic_store(&fx->rs->layers[0].overlap, 4 * OBJECT);
	atomic_store(&fx->rs->is_parent_lost, true);
	assert_int_equal(read_range(fx, 2 * OBJECT, OBJECT), 0);
	assert_int_equal(read_range(fx, 2 * OBJECT, 2 * OBJECT), -EIO);
	/* What the clone never saw of it is zeros all the same. */
	assert_int_equal(read_range(fx, 4 * OBJECT, OBJECT), 0);
}

/* The child's "no such object" is older than that, and so is what it says of the parent. */
static void a_clone_that_is_flattened_meanwhile_loses_nothing(void **state)
{
	struct fixture *fx = *state;

	fakes[1].bytes[1] = OBJECT;
	assert_int_equal(rados_store_read(&fx->rs->base, &fx->io, OBJECT, fx->buf, OBJECT), 0);
	atomic_store(&fx->rs->layers[0].overlap, 0);
	answer_all();
	assert_int_equal(fx->n_done, 1);
	assert_int_equal(fx->io.result, 0);
	expect_piece(fx, 0, OBJECT, OBJECT, 1);
	expect_bytes(fx, 0, OBJECT, 'b');
	/* Who asks after that sees nothing of it. */
	assert_int_equal(read_range(fx, OBJECT, OBJECT), 0);
	expect_piece(fx, 0, OBJECT, OBJECT, STORE_LAYER_ZERO);
}

static void errors_of_any_object_fail_the_read_once(void **state)
{
	struct fixture *fx = *state;

	fakes[2].bytes[2] = OBJECT;
	read_error = -EIO;
	assert_int_equal(read_range(fx, 0, 5 * OBJECT), -EIO);
	read_error = -ESHUTDOWN;
	assert_int_equal(read_range(fx, 0, 5 * OBJECT), -ESHUTDOWN);
	/* More than was asked for is no answer. */
	read_error = OBJECT + 1;
	assert_int_equal(read_range(fx, 0, 5 * OBJECT), -EIO);
}

static void calls_that_cannot_be_made_fail_the_read_once(void **state)
{
	struct fixture *fx = *state;

	for (unsigned int i = 1; i <= 3 * N_OBJECTS; i++) {
		fail_create_at = i;
		assert_int_equal(read_range(fx, 0, SIZE), -ENOMEM);
		n_reads = 0;
		fail_read_at = i;
		assert_int_equal(read_range(fx, 0, SIZE), -ESHUTDOWN);
		fail_read_at = 0;
	}
}

static void beyond_the_end_is_an_error(void **state)
{
	struct fixture *fx = *state;

	assert_int_equal(read_range(fx, SIZE, 512), -EIO);
	assert_int_equal(read_range(fx, SIZE - 512, 1024), -EIO);
	/* Another client shrank the image below its header. */
	fx->rs->base.data_offset = OBJECT;
	atomic_store(&fx->rs->raw_size, OBJECT / 2);
	assert_int_equal(read_range(fx, 0, 512), -EIO);
	assert_int_equal(n_reads, 0);
}

#define test(f) cmocka_unit_test_setup_teardown(f, setup, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		test(nothing_anywhere_is_zeros),
		test(each_object_is_of_the_first_layer_that_has_it),
		test(a_short_or_empty_object_hides_its_parent),
		test(other_layouts_and_data_offsets_meet_in_the_device),
		test(the_overlap_ends_a_piece_inside_a_sector),
		test(the_smallest_overlap_on_the_way_up_counts),
		test(what_a_clone_does_not_see_is_not_asked_for),
		test(a_parent_that_is_lost_is_not_read),
		test(a_clone_that_is_flattened_meanwhile_loses_nothing),
		test(errors_of_any_object_fail_the_read_once),
		test(calls_that_cannot_be_made_fail_the_read_once),
		test(beyond_the_end_is_an_error),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
