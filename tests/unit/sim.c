/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Copyright (C) 2026 the rbdcrypt-nbd authors */

/* The simulated store must itself be right: other tests trust it. */

#include "checker.h"
#include "sim.h"

#include <errno.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#define OBJECT 65536u

/* One call at a time, waited for. */
struct waiter {
	struct store_io io;
	pthread_mutex_t lock;
	pthread_cond_t cond;
	bool is_done;
};

static void waiter_done(struct store_io *io)
{
	struct waiter *w = (struct waiter *)((char *)io - offsetof(struct waiter, io));

	pthread_mutex_lock(&w->lock);
	w->is_done = true;
	pthread_cond_signal(&w->cond);
	pthread_mutex_unlock(&w->lock);
}

static void waiter_init(struct waiter *w)
{
	memset(w, 0, sizeof(*w));
	w->io.done = waiter_done;
	pthread_mutex_init(&w->lock, NULL);
	pthread_cond_init(&w->cond, NULL);
}

static int waiter_wait(struct waiter *w, int r)
{
	pthread_mutex_lock(&w->lock);
	while (r != STORE_DONE && !w->is_done)
		pthread_cond_wait(&w->cond, &w->lock);
	w->is_done = false;
	pthread_mutex_unlock(&w->lock);
	return w->io.result;
}

static void waiter_end(struct waiter *w)
{
	store_io_reset(&w->io);
	pthread_cond_destroy(&w->cond);
	pthread_mutex_destroy(&w->lock);
}

static struct store *must_new(struct sim_options o)
{
	struct store *s = NULL;

	if (!o.object_size)
		o.object_size = OBJECT;
	assert_int_equal(sim_new(&o, &s), 0);
	return s;
}

static int put(struct store *s, uint64_t off, int byte, size_t len)
{
	unsigned char *buf = malloc(len);
	struct waiter w;
	int r;

	assert_non_null(buf);
	memset(buf, byte, len);
	waiter_init(&w);
	r = waiter_wait(&w, s->ops->write(s, &w.io, off, buf, len));
	waiter_end(&w);
	free(buf);
	return r;
}

static int flush(struct store *s)
{
	struct waiter w;
	int r;

	waiter_init(&w);
	r = waiter_wait(&w, s->ops->flush(s, &w.io));
	waiter_end(&w);
	return r;
}

static int byte_at(struct store *s, uint64_t off)
{
	unsigned char byte[512];
	struct waiter w;

	waiter_init(&w);
	assert_int_equal(waiter_wait(&w, s->ops->read(s, &w.io, off, byte, sizeof(byte))), 0);
	waiter_end(&w);
	return byte[0];
}

static void random_io_agrees(struct sim_options o)
{
	struct store *s = must_new(o);
	struct checker *c = checker_new(s, o.raw_size - o.data_offset[0], 16, o.seed);

	checker_load(c);
	checker_run(c, 2000);
	checker_compare(c, s);
	checker_free(c);
	store_close(s);
}

static void random_io_agrees_with_the_model(void **state)
{
	(void)state;
	random_io_agrees((struct sim_options){ .raw_size = 8 << 20, .seed = 1, .is_inline = true });
	random_io_agrees((struct sim_options){ .raw_size = 8 << 20, .seed = 2, .delay_us = 200 });
	random_io_agrees((struct sim_options){
		.raw_size = 8 << 20, .seed = 3, .is_tearing = true, .is_encrypted = true });
	random_io_agrees((struct sim_options){ .raw_size = 8 << 20,
					       .seed = 4,
					       .data_offset = { 12288 },
					       .is_encrypted = true,
					       .is_writethrough = true });
}

static void layers_are_told_apart(void **state)
{
	struct store *s = must_new((struct sim_options){ .n_layers = 3,
							 .raw_size = 8 * OBJECT,
							 .data_offset = { OBJECT, 0, 2 * OBJECT },
							 .overlap = { 4 * OBJECT, 0 },
							 .is_inline = true });
	unsigned char buf[6 * OBJECT];
	struct waiter w;

	(void)state;
	memset(buf, 1, sizeof(buf));
	sim_poke(s, 0, OBJECT, buf, 512); /* dev 0: child */
	memset(buf, 2, sizeof(buf));
	sim_poke(s, 1, 1 * OBJECT, buf, OBJECT); /* dev 1: parent */
	memset(buf, 3, sizeof(buf));
	sim_poke(s, 2, 2 * OBJECT, buf, 6 * OBJECT); /* all: grandparent */
	waiter_init(&w);
	assert_int_equal(waiter_wait(&w, s->ops->read(s, &w.io, 0, buf, sizeof(buf))), 0);
	assert_int_equal(w.io.n_extents, 4);
	assert_int_equal(w.io.extents[0].layer, 0);
	assert_int_equal(w.io.extents[1].layer, 1);
	assert_int_equal(w.io.extents[2].layer, 2);
	assert_int_equal(w.io.extents[2].len, 2 * OBJECT);
	/* Beyond the child's overlap nobody is asked. */
	assert_int_equal(w.io.extents[3].layer, STORE_LAYER_ZERO);
	assert_int_equal(buf[0], 1);
	assert_int_equal(buf[512], 0);
	assert_int_equal(buf[OBJECT], 2);
	assert_int_equal(buf[2 * OBJECT], 3);
	assert_int_equal(buf[4 * OBJECT], 0);
	waiter_end(&w);
	store_close(s);
}

static void first_write_copies_the_object_up(void **state)
{
	struct store *s = must_new(
		(struct sim_options){ .n_layers = 2, .raw_size = 4 * OBJECT, .is_inline = true });
	unsigned char buf[OBJECT];

	(void)state;
	memset(buf, 7, sizeof(buf));
	sim_poke(s, 1, OBJECT, buf, sizeof(buf));
	assert_false(sim_has_object(s, 0, OBJECT));
	assert_int_equal(put(s, OBJECT + 4096, 9, 4096), 0);
	assert_true(sim_has_object(s, 0, OBJECT));
	assert_int_equal(byte_at(s, OBJECT), 7);
	assert_int_equal(byte_at(s, OBJECT + 4096), 9);
	assert_int_equal(byte_at(s, OBJECT + 8192), 7);
	/* What was copied up is not lost with what was written. */
	sim_crash(s, false);
	assert_int_equal(byte_at(s, OBJECT), 7);
	assert_int_equal(byte_at(s, OBJECT + 4096), 7);
	store_close(s);
}

static void crash_forgets_what_was_not_flushed(void **state)
{
	struct store *s = must_new((struct sim_options){ .raw_size = 4 * OBJECT, .delay_us = 50 });

	(void)state;
	assert_int_equal(put(s, 0, 1, 4096), 0);
	assert_int_equal(flush(s), 0);
	assert_int_equal(put(s, 0, 2, 4096), 0);
	assert_int_equal(put(s, 8192, 2, 4096), 0);
	sim_crash(s, false);
	assert_int_equal(byte_at(s, 0), 1);
	assert_int_equal(byte_at(s, 8192), 0);
	store_close(s);
}

static void crash_may_keep_some_sectors(void **state)
{
	struct store *s = must_new((struct sim_options){ .raw_size = 4 * OBJECT, .seed = 5 });
	unsigned int kept = 0;

	(void)state;
	assert_int_equal(put(s, 0, 2, OBJECT), 0);
	sim_crash(s, true);
	for (uint64_t off = 0; off < OBJECT; off += 512)
		kept += byte_at(s, off) == 2;
	assert_in_range(kept, 1, OBJECT / 512 - 1);
	store_close(s);
}

static void writethrough_survives_a_crash(void **state)
{
	struct store *s =
		must_new((struct sim_options){ .raw_size = 4 * OBJECT, .is_writethrough = true });

	(void)state;
	assert_int_equal(put(s, 0, 2, 4096), 0);
	sim_crash(s, false);
	assert_int_equal(byte_at(s, 0), 2);
	store_close(s);
}

static void faults_strike_the_nth_call(void **state)
{
	struct store *s = must_new((struct sim_options){ .raw_size = 4 * OBJECT });
	struct sim_counts counts;

	(void)state;
	sim_fail(s, SIM_WRITE, 2, -EIO);
	assert_int_equal(put(s, 0, 1, 512), 0);
	assert_int_equal(put(s, 0, 2, 512), -EIO);
	assert_int_equal(put(s, 0, 3, 512), 0);
	sim_fail_from(s, SIM_FLUSH, 1, -ENOSPC);
	assert_int_equal(flush(s), -ENOSPC);
	assert_int_equal(flush(s), -ENOSPC);
	sim_fail_from(s, SIM_FLUSH, 0, 0);
	assert_int_equal(flush(s), 0);
	sim_counts(s, &counts);
	assert_int_equal(counts.failed, 3);
	assert_int_equal(counts.ops[SIM_WRITE], 3);
	store_close(s);
}

struct writer {
	struct store *store;
	atomic_bool stopping;
	atomic_uint rounds;
};

static void *write_often(void *arg)
{
	struct writer *w = arg;

	while (!atomic_load(&w->stopping))
		assert_int_equal(
			put(w->store, 0, atomic_fetch_add(&w->rounds, 1) % 2 ? 0xaa : 0x55, 4096),
			0);
	return NULL;
}

static bool is_torn(struct store *s)
{
	unsigned char buf[4096];
	struct waiter w;
	bool torn = false;

	waiter_init(&w);
	assert_int_equal(waiter_wait(&w, s->ops->read(s, &w.io, 0, buf, sizeof(buf))), 0);
	waiter_end(&w);
	for (unsigned int b = 1; b < sizeof(buf); b++)
		torn |= buf[b] != buf[0];
	return torn;
}

/* Reads against 2000 writes, however the processors are shared. */
static unsigned int count_torn(bool is_tearing)
{
	struct writer w = { .store = must_new((struct sim_options){ .raw_size = 4 * OBJECT,
								    .is_inline = true,
								    .is_tearing = is_tearing,
								    .is_writethrough = true }) };
	unsigned int torn = 0;
	pthread_t thread;

	assert_int_equal(pthread_create(&thread, NULL, write_often, &w), 0);
	while (atomic_load(&w.rounds) < 2000)
		torn += is_torn(w.store);
	atomic_store(&w.stopping, true);
	pthread_join(thread, NULL);
	store_close(w.store);
	return torn;
}

static void sectors_tear_only_when_asked(void **state)
{
	(void)state;
	assert_true(count_torn(true) > 0);
	assert_int_equal(count_torn(false), 0);
}

static void pause_holds_completions_back(void **state)
{
	struct store *s = must_new((struct sim_options){ .raw_size = 4 * OBJECT });
	unsigned char buf[2][4096] = { { 1 }, { 2 } };
	struct sim_counts counts;
	struct waiter w[2];

	(void)state;
	sim_pause(s);
	for (int i = 0; i < 2; i++) {
		waiter_init(&w[i]);
		assert_int_equal(s->ops->write(s, &w[i].io, 0, buf[i], sizeof(buf[i])), 0);
	}
	sim_counts(s, &counts);
	assert_int_equal(counts.in_flight, 2);
	assert_int_equal(counts.max_in_flight, 2);
	assert_int_equal(counts.overlapping_writes, 1);
	sim_resume(s);
	for (int i = 0; i < 2; i++) {
		assert_int_equal(waiter_wait(&w[i], 0), 0);
		waiter_end(&w[i]);
	}
	store_close(s);
}

static void note_change(void *arg)
{
	++*(int *)arg;
}

static void resize_tells_and_forgets_the_end(void **state)
{
	struct store *s = must_new((struct sim_options){ .raw_size = 4 * OBJECT });
	uint64_t size;
	int changes = 0;

	(void)state;
	store_on_change(s, note_change, &changes);
	assert_int_equal(put(s, 3 * OBJECT, 1, 4096), 0);
	sim_resize(s, 2 * OBJECT);
	assert_int_equal(changes, 1);
	assert_int_equal(s->ops->raw_size(s, &size), 0);
	assert_int_equal(size, 2 * OBJECT);
	assert_int_equal(put(s, 3 * OBJECT, 1, 4096), -EIO);
	sim_resize(s, 4 * OBJECT);
	assert_int_equal(byte_at(s, 3 * OBJECT), 0);
	store_close(s);
}

static void read_only_refuses_changes(void **state)
{
	struct store *s =
		must_new((struct sim_options){ .raw_size = 4 * OBJECT, .is_read_only = true });

	(void)state;
	assert_int_equal(put(s, 0, 1, 512), -EROFS);
	store_close(s);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(random_io_agrees_with_the_model),
		cmocka_unit_test(layers_are_told_apart),
		cmocka_unit_test(first_write_copies_the_object_up),
		cmocka_unit_test(crash_forgets_what_was_not_flushed),
		cmocka_unit_test(crash_may_keep_some_sectors),
		cmocka_unit_test(writethrough_survives_a_crash),
		cmocka_unit_test(faults_strike_the_nth_call),
		cmocka_unit_test(sectors_tear_only_when_asked),
		cmocka_unit_test(pause_holds_completions_back),
		cmocka_unit_test(resize_tells_and_forgets_the_end),
		cmocka_unit_test(read_only_refuses_changes),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
