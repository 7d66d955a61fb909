/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Copyright (C) 2026 the rbdcrypt-nbd authors */

/* The volumes of a process: none waits for another, none is lost, and nothing of one stays. */

#include "../../daemon/host.h"

#include "fake_mapping.h"

static void one_that_hangs_holds_no_other(void **state)
{
	atomic_store(&t.images[0].holds_start, true);
	atomic_store(&t.images[1].holds_stop, true);
	add(0);
	wait_for(&t.images[0].n_starts);
	add(1);
	wait_for(&t.images[1].n_announced);
	ask_end(1, HOST_DISCONNECT);
	wait_for(&t.images[1].n_stops);
	/* One hangs while it starts, one while it ends. */
	for (int i = 2; i < 6; i++) {
		add(i);
		wait_for(&t.images[i].n_announced);
		ask_end(i, HOST_DISCONNECT);
		wait_for(&t.images[i].n_ended);
		assert_int_equal(t.images[i].n_left, 2);
	}
	assert_int_equal(atomic_load(&t.images[0].n_announced), 0);
	assert_int_equal(atomic_load(&t.images[1].n_ended), 0);
	/* They were only slow. */
	atomic_store(&t.images[0].holds_start, false);
	atomic_store(&t.images[1].holds_stop, false);
	wait_for(&t.images[0].n_announced);
	wait_for(&t.images[1].n_ended);
}

static void see(void *arg, struct host_volume *v)
{
	((unsigned int *)arg)[index_of(v)]++;
}

static void do_see(void *arg)
{
	host_for_each(t.host, see, arg);
}

static void each_that_has_not_ended_is_seen_once(void **state)
{
	unsigned int seen[N] = { 0 };

	atomic_store(&t.images[2].holds_start, true);
	t.images[3].error = -EIO;
	for (int i = 0; i < 4; i++)
		add(i);
	wait_for(&t.images[0].n_announced);
	wait_for(&t.images[1].n_announced);
	wait_for(&t.images[3].n_ended);
	ask_end(0, HOST_DISCONNECT);
	wait_for(&t.images[0].n_ended);
	there(do_see, seen);
	assert_int_equal(seen[0], 0);
	assert_int_equal(seen[1], 1);
	assert_int_equal(seen[2], 1);
	assert_int_equal(seen[3], 0);
}

static void all_are_asked_to_end_whatever_they_are_at(void **state)
{
	atomic_store(&t.images[0].heeds_interruption, true);
	for (int i = 0; i < 4; i++)
		add(i);
	for (int i = 1; i < 4; i++)
		wait_for(&t.images[i].n_announced);
	ask_end(3, HOST_DETACH);
	ask_end(-1, HOST_LEAVE);
	for (int i = 0; i < 4; i++)
		wait_for(&t.images[i].n_ended);
	assert_int_equal(t.images[0].fault.error, -EINTR);
	assert_int_equal(atomic_load(&t.images[1].end), MAPPING_LEAVE);
	assert_int_equal(atomic_load(&t.images[2].end), MAPPING_LEAVE);
	assert_int_equal(atomic_load(&t.images[3].end), MAPPING_DETACH);
	assert_int_equal(n_volumes(), 0);
}

static void who_is_told_of_an_end_may_add_the_next(void **state)
{
	for (int i = 0; i < 3; i++) {
		add(i);
		wait_for(&t.images[i].n_announced);
	}
	t.add_next = 3;
	ask_end(1, HOST_DISCONNECT);
	wait_for(&t.images[1].n_ended);
	wait_for(&t.images[3].n_announced);
	assert_int_equal(n_volumes(), 3);
	/* None was lost on the way. */
	ask_end(-1, HOST_DISCONNECT);
	for (int i = 0; i < 4; i++)
		wait_for(&t.images[i].n_ended);
	assert_int_equal(n_volumes(), 0);
}

static void many_come_and_go(void **state)
{
	for (int round = 0; round < 3; round++) {
		for (int i = 0; i < N; i++) {
			struct image *image = &t.images[i];

			atomic_store(&image->n_announced, 0);
			atomic_store(&image->n_ended, 0);
			image->error = i % 5 == round ? -EIO : 0;
			image->is_gone_at_once = i % 7 == round;
			add(i);
		}
		for (int i = N - 1; i >= 0; i--)
			ask_end(i, HOST_DISCONNECT);
		for (int i = 0; i < N; i++)
			wait_for(&t.images[i].n_ended);
		assert_int_equal(n_volumes(), 0);
		assert_int_equal(atomic_load(&t.n_held), 0);
		for (int i = 0; i < N; i++) {
			assert_int_equal(atomic_load(&t.images[i].n_ended), 1);
			assert_int_equal(t.images[i].error < 0 || t.images[i].fault.error == 0, 1);
			memset(&t.images[i].fault, 0, sizeof(t.images[i].fault));
		}
	}
}

static void *let_go(void *arg)
{
	struct image *i = arg;

	(void)rig_wait(is_above_zero, &i->n_stops, PATIENCE_MS);
	(void)usleep(20000);
	atomic_store(&i->holds_stop, false);
	return NULL;
}

/* A daemon that ends leaves devices to its successor, and nothing of its own. */
static void the_host_ends_when_all_have_left(void **state)
{
	struct image *slow = &t.images[0];
	pthread_t thread;

	atomic_store(&slow->holds_stop, true);
	add(0);
	add(1);
	wait_for(&slow->n_announced);
	wait_for(&t.images[1].n_announced);
	assert_int_equal(pthread_create(&thread, NULL, let_go, slow), 0);
	there(end_host, NULL);
	assert_false(atomic_load(&slow->holds_stop));
	assert_int_equal(atomic_load(&t.n_held), 0);
	assert_false(atomic_load(&t.was_early));
	assert_int_equal(atomic_load(&slow->end), MAPPING_LEAVE);
	assert_int_equal(atomic_load(&t.images[1].end), MAPPING_LEAVE);
	/* Who frees the host is not called back about it. */
	assert_int_equal(atomic_load(&slow->n_ended), 0);
	(void)pthread_join(thread, NULL);
}

/* ---- volumes without a thread ---- */

/* The control thread and one worker are all that is left. */
static bool are_quiet(void *arg)
{
	return count_entries("/proc/self/task") <= t.threads + 2;
}

static void start_quiet(int n)
{
	for (int i = 0; i < n; i++) {
		add(i);
		wait_for(&t.images[i].n_announced);
	}
	assert_false(are_quiet(NULL));
	assert_true(rig_wait(are_quiet, NULL, PATIENCE_MS));
}

static void poke(int i)
{
	event_raise(atomic_load(&t.images[i].poke_fd));
}

static void one_without_a_thread_is_there_all_the_same(void **state)
{
	unsigned int seen[N] = { 0 };

	start_quiet(3);
	assert_int_equal(n_volumes(), 3);
	there(do_see, seen);
	assert_int_equal(seen[0] + seen[1] + seen[2], 3);
	/* What comes up is done, and its end too. */
	for (int i = 0; i < 2; i++) {
		atomic_store(&t.images[0].n_poked, 0);
		poke(0);
		wait_for(&t.images[0].n_poked);
	}
	ask_end(1, HOST_DETACH);
	wait_for(&t.images[1].n_ended);
	assert_int_equal(atomic_load(&t.images[1].end), MAPPING_DETACH);
	assert_int_equal(t.images[1].n_left, 2);
	assert_int_equal(atomic_load(&t.images[2].n_poked), 0);
	/* They were announced once only. */
	assert_int_equal(atomic_load(&t.images[0].n_announced), 1);
}

/* No stack is as large as the one that every new thread is to have. */
static void make_threads_fail(bool fails)
{
	static size_t usual;
	pthread_attr_t attr;

	(void)pthread_attr_init(&attr);
	if (usual == 0)
		(void)pthread_attr_getstacksize(&attr, &usual);
	assert_int_equal(pthread_attr_setstacksize(&attr, fails ? (size_t)1 << 50 : usual), 0);
	assert_int_equal(pthread_setattr_default_np(&attr), 0);
	(void)pthread_attr_destroy(&attr);
}

static void without_a_thread_to_be_had_it_is_only_late(void **state)
{
	start_quiet(3);
	make_threads_fail(true);
	poke(0);
	ask_end(1, HOST_DISCONNECT);
	(void)usleep(100000);
	assert_int_equal(atomic_load(&t.images[0].n_poked), 0);
	assert_int_equal(atomic_load(&t.images[1].n_stops), 0);
	make_threads_fail(false);
	wait_for(&t.images[0].n_poked);
	wait_for(&t.images[1].n_ended);
	assert_int_equal(atomic_load(&t.images[1].end), MAPPING_DISCONNECT);
	assert_true(rig_wait(are_quiet, NULL, PATIENCE_MS));
	/* At the end there is always one: that which ends. */
	make_threads_fail(true);
	there(end_host, NULL);
	make_threads_fail(false);
	assert_int_equal(atomic_load(&t.images[0].end), MAPPING_LEAVE);
	assert_int_equal(atomic_load(&t.images[2].end), MAPPING_LEAVE);
	assert_int_equal(atomic_load(&t.n_held), 0);
}

/* ---- no descriptor to spare ---- */

static void do_add_without_descriptors(void *arg)
{
	struct rlimit old, tight;

	if (getrlimit(RLIMIT_NOFILE, &old) < 0)
		abort();
	tight = old;
	tight.rlim_cur = 0;
	if (setrlimit(RLIMIT_NOFILE, &tight) < 0)
		abort();
	do_add(arg);
	if (setrlimit(RLIMIT_NOFILE, &old) < 0)
		abort();
}

static void what_cannot_be_added_stays_with_its_caller(void **state)
{
	struct addition a = { .i = 0, .request = "r", .resumed = "k" };
	unsigned int seen[N] = { 0 };

	there(do_add_without_descriptors, &a);
	assert_int_equal(a.result, -EMFILE);
	assert_non_null(a.options);
	options_drop(a.options);
	assert_int_equal(n_volumes(), 0);
	there(do_see, seen);
	assert_int_equal(atomic_load(&t.images[0].n_ended), 0);
	add(0);
	wait_for(&t.images[0].n_announced);
}

static void do_host_without_descriptors(void *arg)
{
	struct host *good = t.host;
	struct rlimit old, tight;

	t.host = NULL;
	if (getrlimit(RLIMIT_NOFILE, &old) < 0)
		abort();
	tight = old;
	tight.rlim_cur = 0;
	if (setrlimit(RLIMIT_NOFILE, &tight) < 0)
		abort();
	*(int *)arg = new_host();
	if (setrlimit(RLIMIT_NOFILE, &old) < 0 || t.host)
		abort();
	t.host = good;
}

/* Its workers end too: the teardown counts threads. */
static void a_host_that_cannot_start_leaves_nothing(void **state)
{
	int result = 0;

	there(do_host_without_descriptors, &result);
	assert_int_equal(result, -EMFILE);
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, start, stop)
	const struct CMUnitTest tests[] = {
		TEST(one_that_hangs_holds_no_other),
		TEST(each_that_has_not_ended_is_seen_once),
		TEST(all_are_asked_to_end_whatever_they_are_at),
		TEST(who_is_told_of_an_end_may_add_the_next),
		TEST(many_come_and_go),
		TEST(the_host_ends_when_all_have_left),
		TEST(one_without_a_thread_is_there_all_the_same),
		TEST(without_a_thread_to_be_had_it_is_only_late),
		TEST(what_cannot_be_added_stays_with_its_caller),
		TEST(a_host_that_cannot_start_leaves_nothing),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
