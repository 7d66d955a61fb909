/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Copyright (C) 2026 the rbdcrypt-nbd authors */

/* A cluster, a layer and a store on the librbd of fake_librbd.h, and calls that wait. */

#ifndef IMAGE_FIXTURE_H
#define IMAGE_FIXTURE_H

#include "fake_librbd.h"
#include "image.h"

#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <time.h>

#include <cmocka.h>

struct fixture {
	struct cluster *cluster;
	struct layer *layer;
	struct store *store;
	struct store_io io;
	pthread_mutex_t lock;
	pthread_cond_t cond;
	unsigned int n_done; /* lock */
};
static struct fixture fx;

static inline int new_cluster(unsigned int timeout_s, struct fault *f)
{
	const struct cluster_options o = { .timeout_s = timeout_s };
	int argc, r = cluster_new(&o, &argc, &fx.cluster, f);

	return r < 0 ? r : cluster_connect(fx.cluster, NULL, f);
}

static inline int setup(void **state)
{
	struct fault f = { 0 };

	(void)state;
	memset(&fx, 0, sizeof(fx));
	pthread_mutex_init(&fx.lock, NULL);
	pthread_cond_init(&fx.cond, NULL);
	fake_reset();
	return new_cluster(60, &f);
}

static inline int open_layer_unless(const char *text, unsigned int timeout_s,
				    const struct interrupt *i, struct fault *f)
{
	struct image_spec spec = IMAGE_SPEC_INIT;
	int r = image_spec_parse(text, &spec, f);

	if (r == 0)
		r = layer_open(fx.cluster, &spec, timeout_s, i, &fx.layer, f);
	image_spec_done(&spec);
	return r;
}

static inline int open_layer(const char *text, unsigned int timeout_s, struct fault *f)
{
	return open_layer_unless(text, timeout_s, NULL, f);
}

static inline int open_store(const struct store_options *o, struct fault *f)
{
	return store_open_librbd(fx.cluster, fx.layer, o, &fx.store, f);
}

static inline void must_open(const struct store_options *o)
{
	struct fault f = { 0 };

	assert_int_equal(open_layer("img", 60, &f), 0);
	assert_int_equal(open_store(o, &f), 0);
}

static inline void close_all(void)
{
	store_io_reset(&fx.io);
	store_close(fx.store);
	fx.layer = layer_close(fx.layer);
	fx.cluster = cluster_free(fx.cluster);
	fx.store = NULL;
}

/* Of calls that were too late as well, in the end. */
static inline void expect_all_closed(void)
{
	const struct timespec pause = { .tv_nsec = 20000000 };

	for (int i = 0; i < 500 && fake.clusters; i++)
		(void)nanosleep(&pause, NULL);
	assert_int_equal(fake.images, 0);
	assert_int_equal(fake.ioctxs, 0);
	assert_int_equal(fake.completions, 0);
	assert_int_equal(fake.lists, 0);
	assert_int_equal(fake.clusters, 0);
}

static inline int teardown(void **state)
{
	(void)state;
	make_fail("", 0, 0);
	close_all();
	expect_all_closed();
	pthread_cond_destroy(&fx.cond);
	pthread_mutex_destroy(&fx.lock);
	return 0;
}

static inline void io_done(struct store_io *io)
{
	(void)io;
	pthread_mutex_lock(&fx.lock);
	fx.n_done++;
	pthread_cond_signal(&fx.cond);
	pthread_mutex_unlock(&fx.lock);
}

static inline struct store_io *fresh(void)
{
	store_io_reset(&fx.io);
	fx.io.done = io_done;
	fx.io.result = 99;
	fx.n_done = 0;
	return &fx.io;
}

/* r is what the call said: done runs exactly when that was 0. */
static inline int result(int r)
{
	pthread_mutex_lock(&fx.lock);
	while (r == 0 && !fx.n_done)
		pthread_cond_wait(&fx.cond, &fx.lock);
	assert_int_equal(fx.n_done, r == STORE_DONE ? 0 : 1);
	pthread_mutex_unlock(&fx.lock);
	return fx.io.result;
}

static inline int do_read(uint64_t off, void *buf, size_t len)
{
	return result(fx.store->ops->read(fx.store, fresh(), off, buf, len));
}
static inline int do_write(uint64_t off, const void *buf, size_t len)
{
	return result(fx.store->ops->write(fx.store, fresh(), off, buf, len));
}
static inline int do_zero(uint64_t off, uint64_t len, unsigned int flags)
{
	return result(fx.store->ops->zero(fx.store, fresh(), off, len, flags));
}
static inline int do_discard(uint64_t off, uint64_t len)
{
	return result(fx.store->ops->discard(fx.store, fresh(), off, len));
}
static inline int do_flush(void)
{
	return result(fx.store->ops->flush(fx.store, fresh()));
}
static inline int do_status(uint64_t off, uint64_t len)
{
	return result(fx.store->ops->status(fx.store, fresh(), off, len));
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

#endif
