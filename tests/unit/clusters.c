/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Copyright (C) 2026 the rbdcrypt-nbd authors */

/* Connections that volumes share, with a librados that counts them, fails and is slow on demand. */

#include "../../daemon/clusters.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "clock.h"
#include "fake_librbd.h"

#define N 8

static const char *words[] = { "", "--some-word", NULL };
static const struct cluster_options admin = {
	.conf = "/c", .argc = 1, .argv = words, .timeout_s = 60
};

static struct clusters *clusters;

static int start(void **state)
{
	fake_reset();
	return clusters_new(&clusters);
}

static int stop(void **state)
{
	clusters = clusters_free(clusters);
	return atomic_load(&fake.clusters);
}

static struct cluster *get(const struct cluster_options *o)
{
	struct cluster *c = NULL;

	assert_int_equal(clusters_get(clusters, o, NULL, &c, NULL), 0);
	return c;
}

static void the_last_who_lets_go_ends_it(void **state)
{
	struct cluster *a = get(&admin), *b = get(&admin);

	assert_ptr_equal(a, b);
	assert_int_equal(atomic_load(&fake.clusters), 1);
	assert_null(clusters_put(clusters, a));
	assert_int_equal(atomic_load(&fake.clusters), 1);
	assert_ptr_equal(get(&admin), b);
	(void)clusters_put(clusters, b);
	(void)clusters_put(clusters, b);
	assert_int_equal(atomic_load(&fake.clusters), 0);
	/* And the next one is new. */
	(void)clusters_put(clusters, get(&admin));
	assert_null(clusters_put(clusters, NULL));
}

/* Whatever Ceph is told differently is another connection. */
static void only_the_same_words_are_the_same_cluster(void **state)
{
	struct cluster_options o[6];
	struct cluster *c[6];

	for (unsigned int i = 0; i < 6; i++)
		o[i] = admin;
	o[1].conf = "/d";
	o[2].name = "client.x";
	o[3].cluster = "other";
	o[4].timeout_s = 61;
	o[5].args = "--x";
	for (unsigned int i = 0; i < 6; i++) {
		c[i] = get(&o[i]);
		assert_int_equal(atomic_load(&fake.clusters), i + 1);
	}
	for (unsigned int i = 0; i < 6; i++) {
		assert_ptr_equal(get(&o[i]), c[i]);
		(void)clusters_put(clusters, c[i]);
		(void)clusters_put(clusters, c[i]);
		assert_int_equal(atomic_load(&fake.clusters), 5 - i);
	}
}

static void a_word_that_ceph_does_not_know_is_refused(void **state)
{
	struct cluster_options o = admin;
	struct cluster *c = NULL;
	struct fault f = { 0 };

	o.argc = 2;
	assert_int_equal(clusters_get(clusters, &o, NULL, &c, &f), -EINVAL);
	assert_non_null(strstr(f.message, "--some-word"));
	assert_string_equal(words[1], "--some-word");
	assert_null(c);
}

static void nobody_new_gets_one_that_was_retired(void **state)
{
	struct cluster *old = get(&admin), *mine = get(&admin), *next;

	clusters_retire(clusters, NULL);
	assert_ptr_equal(get(&admin), old);
	clusters_retire(clusters, old);
	next = get(&admin);
	assert_ptr_not_equal(next, old);
	assert_ptr_equal(get(&admin), next);
	assert_int_equal(atomic_load(&fake.clusters), 2);
	/* Those who have it keep it. */
	(void)clusters_put(clusters, old);
	(void)clusters_put(clusters, mine);
	assert_int_equal(atomic_load(&fake.clusters), 2);
	(void)clusters_put(clusters, old);
	assert_int_equal(atomic_load(&fake.clusters), 1);
	(void)clusters_put(clusters, next);
	(void)clusters_put(clusters, next);
}

/* ---- many at once ---- */

struct asker {
	pthread_t thread;
	struct cluster *cluster;
	struct fault fault;
	const struct interrupt *i;
	int result;
};

static void *ask(void *arg)
{
	struct asker *a = arg;

	a->result = clusters_get(clusters, &admin, a->i, &a->cluster, &a->fault);
	return NULL;
}

static void ask_all(struct asker *a)
{
	memset(a, 0, N * sizeof(*a));
	for (unsigned int i = 0; i < N; i++)
		assert_int_equal(pthread_create(&a[i].thread, NULL, ask, &a[i]), 0);
	for (unsigned int i = 0; i < N; i++)
		(void)pthread_join(a[i].thread, NULL);
}

static void who_asks_meanwhile_gets_the_same(void **state)
{
	struct asker a[N];

	make_fail("rados_connect", 0, 1);
	ask_all(a);
	assert_int_equal(atomic_load(&fake.clusters), 1);
	for (unsigned int i = 0; i < N; i++) {
		assert_int_equal(a[i].result, 0);
		assert_ptr_equal(a[i].cluster, a[0].cluster);
	}
	for (unsigned int i = 0; i < N; i++)
		(void)clusters_put(clusters, a[i].cluster);
	assert_int_equal(atomic_load(&fake.clusters), 0);
}

/* All are told why, and nothing of the failure is kept: the next try is a new one. */
static void a_failure_is_everybodys_and_over(void **state)
{
	struct asker a[N];

	make_fail("rados_connect", -EACCES, 1);
	ask_all(a);
	for (unsigned int i = 0; i < N; i++) {
		assert_int_equal(a[i].result, a[0].result);
		assert_true(a[i].result < 0);
		assert_null(a[i].cluster);
		assert_string_equal(a[i].fault.message, a[0].fault.message);
		assert_true(a[i].fault.message[0]);
	}
	assert_int_equal(atomic_load(&fake.clusters), 0);
	make_fail("", 0, 0);
	(void)clusters_put(clusters, get(&admin));
}

/* ---- who is told to stop ---- */

static atomic_bool is_told;

static bool was_told(void *arg)
{
	return atomic_load(&is_told);
}

static const struct interrupt told = { was_told, NULL };

static void begin(struct asker *a, const struct interrupt *i)
{
	memset(a, 0, sizeof(*a));
	a->i = i;
	assert_int_equal(pthread_create(&a->thread, NULL, ask, a), 0);
}

static void finish(struct asker *a, int result)
{
	(void)pthread_join(a->thread, NULL);
	assert_int_equal(a->result, result);
	assert_int_equal(a->cluster != NULL, result == 0);
	assert_int_equal(a->fault.error, result);
}

/* Until connections that nobody waits for any more have come back and are gone. */
static void assert_settles_at(int n)
{
	for (int i = 0; i < 1000 && atomic_load(&fake.clusters) != n; i++)
		(void)usleep(10000);
	assert_int_equal(atomic_load(&fake.clusters), n);
}

/* Connecting takes three seconds; nobody who is told to stop waits for that. */
static void tell(struct asker *maker, const struct interrupt *i)
{
	unsigned int before = atomic_load(&fake.n_slow);

	atomic_store(&is_told, false);
	make_fail("rados_connect", 0, 3);
	begin(maker, i);
	for (int j = 0; j < 1000 && atomic_load(&fake.n_slow) == before; j++)
		(void)usleep(10000);
	assert_int_equal(atomic_load(&fake.n_slow), before + 1);
}

static void who_makes_it_stops_at_once(void **state)
{
	struct asker a;
	int64_t start;

	tell(&a, &told);
	start = clock_ms();
	atomic_store(&is_told, true);
	finish(&a, -EINTR);
	assert_true(clock_ms() - start < 2500);
	make_fail("", 0, 0);
	/* The next does not trip over it. */
	(void)clusters_put(clusters, get(&admin));
	assert_settles_at(0);
}

static void who_waits_makes_it_himself_then(void **state)
{
	struct asker a, b[N];

	tell(&a, &told);
	for (unsigned int i = 0; i < N; i++)
		begin(&b[i], NULL);
	(void)usleep(200000);
	make_fail("", 0, 0);
	atomic_store(&is_told, true);
	finish(&a, -EINTR);
	for (unsigned int i = 0; i < N; i++) {
		finish(&b[i], 0);
		assert_ptr_equal(b[i].cluster, b[0].cluster);
	}
	for (unsigned int i = 0; i < N; i++)
		(void)clusters_put(clusters, b[i].cluster);
	assert_settles_at(0);
}

static void who_waits_stops_at_once_too(void **state)
{
	struct asker a, b;
	int64_t start;

	tell(&a, NULL);
	begin(&b, &told);
	(void)usleep(100000);
	start = clock_ms();
	atomic_store(&is_told, true);
	finish(&b, -EINTR);
	assert_true(clock_ms() - start < 2500);
	finish(&a, 0);
	(void)clusters_put(clusters, a.cluster);
	assert_settles_at(0);
}

static void all_can_be_told(void **state)
{
	struct asker a, b[N];

	tell(&a, &told);
	for (unsigned int i = 0; i < N; i++)
		begin(&b[i], &told);
	(void)usleep(100000);
	atomic_store(&is_told, true);
	finish(&a, -EINTR);
	for (unsigned int i = 0; i < N; i++)
		finish(&b[i], -EINTR);
	assert_settles_at(0);
}

/* Holds come and go on many threads; never two connections, never one that was ended. */
static void *come_and_go(void *arg)
{
	for (unsigned int i = 0; i < 2000; i++) {
		struct cluster *c;

		if (clusters_get(clusters, &admin, NULL, &c, NULL) < 0 ||
		    atomic_load(&fake.clusters) < 1)
			return arg;
		(void)clusters_put(clusters, c);
	}
	return NULL;
}

static void holds_come_and_go_on_many_threads(void **state)
{
	pthread_t threads[4];
	void *result;

	for (unsigned int i = 0; i < 4; i++)
		assert_int_equal(pthread_create(&threads[i], NULL, come_and_go, &fake), 0);
	for (unsigned int i = 0; i < 4; i++) {
		(void)pthread_join(threads[i], &result);
		assert_null(result);
	}
	assert_int_equal(atomic_load(&fake.clusters), 0);
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, start, stop)
	const struct CMUnitTest tests[] = {
		TEST(the_last_who_lets_go_ends_it),
		TEST(only_the_same_words_are_the_same_cluster),
		TEST(a_word_that_ceph_does_not_know_is_refused),
		TEST(nobody_new_gets_one_that_was_retired),
		TEST(who_asks_meanwhile_gets_the_same),
		TEST(a_failure_is_everybodys_and_over),
		TEST(who_makes_it_stops_at_once),
		TEST(who_waits_makes_it_himself_then),
		TEST(who_waits_stops_at_once_too),
		TEST(all_can_be_told),
		TEST(holds_come_and_go_on_many_threads),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
