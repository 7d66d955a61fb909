/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Copyright (C) 2026 the rbdcrypt-nbd authors */

/* The thread of one volume: what it is told, when it is announced, and how it ends. */

#include "../../daemon/host_volume.h"

#include "fake_mapping.h"

static void it_is_announced_when_it_serves_and_told_of_when_it_has_ended(void **state)
{
	struct image *i = &t.images[4];

	atomic_store(&i->holds_start, true);
	add(4);
	wait_for(&i->n_starts);
	assert_int_equal(n_volumes(), 1);
	assert_int_equal(atomic_load(&i->n_announced), 0);
	atomic_store(&i->holds_start, false);
	wait_for(&i->n_announced);
	assert_int_equal(i->service.device, 4);
	assert_string_equal(i->service.cookie, "cookie 4");
	assert_string_equal(i->service.key, "key 4");
	atomic_store(&i->holds_stop, true);
	ask_end(4, HOST_DISCONNECT);
	wait_for(&i->n_stops);
	/* What is still busy with its end is still there. */
	assert_int_equal(n_volumes(), 1);
	assert_int_equal(atomic_load(&i->n_ended), 0);
	atomic_store(&i->holds_stop, false);
	wait_for(&i->n_ended);
	assert_int_equal(i->n_left, 0);
	assert_int_equal(i->fault.error, 0);
	assert_int_equal(n_volumes(), 0);
	assert_int_equal(atomic_load(&i->n_announced), 1);
	assert_int_equal(atomic_load(&i->n_ended), 1);
	assert_int_equal(atomic_load(&t.n_held), 0);
}

static void a_socket_has_no_cookie_of_a_device(void **state)
{
	add(5);
	wait_for(&t.images[5].n_announced);
	assert_int_equal(t.images[5].service.device, -1);
	assert_string_equal(t.images[5].service.cookie, "");
	assert_string_equal(t.images[5].service.socket, "/s5");
}

/* Texts are its own: whoever asked for it may be gone when it reads them. */
static void it_gets_what_it_was_added_with(void **state)
{
	char request[] = "{\"spec\":\"x\"}", resumed[] = "key of a predecessor";
	struct addition a = { .i = 0, .request = request, .resumed = resumed };
	const struct image *first = &t.images[0], *second = &t.images[1];

	atomic_store(&t.images[0].holds_start, true);
	there(do_add, &a);
	memset(request, 'x', sizeof(request) - 1);
	memset(resumed, 'x', sizeof(resumed) - 1);
	wait_for(&t.images[0].n_starts);
	assert_string_equal(first->seen.request, "{\"spec\":\"x\"}");
	assert_string_equal(first->seen.resumed, "key of a predecessor");
	add(1);
	wait_for(&t.images[1].n_starts);
	assert_string_equal(second->request, "");
	assert_null(second->seen.request);
	assert_null(second->seen.resumed);
	assert_int_equal(first->seen.kind, MAPPING_SERVE);
	assert_int_equal(first->seen.listen_fd, 77);
	assert_string_equal(first->seen.run_dir, "/run/dir");
	assert_true(first->seen.is_hosted);
	assert_ptr_equal(first->seen.handover, &t.add_next);
	assert_ptr_equal(first->seen.spec, &first->seen.options->spec);
	/* The workers are shared; the loop, and what tells them apart in the kernel, are not. */
	assert_non_null(first->seen.pool);
	assert_ptr_equal(first->seen.pool, second->seen.pool);
	assert_ptr_not_equal(first->seen.loop, second->seen.loop);
	assert_ptr_not_equal(first->seen.loop, t.loop);
	assert_int_not_equal(first->seen.serial, second->seen.serial);
	atomic_store(&t.images[0].holds_start, false);
	wait_for(&t.images[0].n_announced);
}

static void one_that_cannot_start_leaves_nothing_but_why(void **state)
{
	struct image *i = &t.images[0];

	i->error = -EPERM;
	add(0);
	wait_for(&i->n_ended);
	assert_int_equal(i->fault.error, -EPERM);
	assert_int_equal(i->fault.status, EXIT_PASSPHRASE);
	assert_string_equal(i->fault.message, "image 0");
	assert_int_equal(i->n_left, 0);
	assert_int_equal(atomic_load(&i->n_announced), 0);
	/* What did not start undid itself. */
	assert_int_equal(atomic_load(&i->n_stops), 0);
	assert_int_equal(atomic_load(&t.n_held), 0);
	/* And it is no obstacle to the next. */
	i->error = 0;
	add(0);
	wait_for(&i->n_announced);
}

static void without_its_cluster_it_is_not_even_begun(void **state)
{
	struct image *i = &t.images[0];

	i->cluster_error = -ETIMEDOUT;
	add(0);
	wait_for(&i->n_ended);
	assert_int_equal(i->fault.status, EXIT_CLUSTER);
	assert_int_equal(i->fault.error, -ETIMEDOUT);
	assert_int_equal(atomic_load(&i->n_starts), 0);
	assert_int_equal(atomic_load(&i->n_announced), 0);
	assert_int_equal(atomic_load(&t.n_held), 0);
}

/* ---- its end ---- */

static void the_first_to_ask_says_how_it_ends(void **state)
{
	static const struct {
		enum host_stop how;
		enum mapping_end end;
	} ends[] = { { HOST_LEAVE, MAPPING_LEAVE },
		     { HOST_DETACH, MAPPING_DETACH },
		     { HOST_DISCONNECT, MAPPING_DISCONNECT } };
	const int n = sizeof(ends) / sizeof(ends[0]);

	for (int first = 0; first < n; first++)
		for (int next = 0; next < n; next++) {
			int i = first * n + next;

			add(i);
			wait_for(&t.images[i].n_announced);
			atomic_store(&t.images[i].holds_stop, true);
			ask_end(i, ends[first].how);
			ask_end(i, ends[next].how);
			atomic_store(&t.images[i].holds_stop, false);
			wait_for(&t.images[i].n_ended);
			assert_int_equal(atomic_load(&t.images[i].end), ends[first].end);
			assert_int_equal(atomic_load(&t.images[i].n_stops), 1);
		}
}

/* One that nobody asked to end is unmapped already: what it may not do is to unmap another's. */
static void one_that_lost_its_device_lets_it_be(void **state)
{
	t.images[0].is_gone_at_once = true;
	add(0);
	wait_for(&t.images[0].n_ended);
	assert_int_equal(atomic_load(&t.images[0].end), MAPPING_DETACH);
	assert_int_equal(t.images[0].fault.error, 0);
}

static void a_start_is_interrupted_by_its_end(void **state)
{
	struct image *i = &t.images[0];

	atomic_store(&i->heeds_interruption, true);
	add(0);
	wait_for(&i->n_starts);
	(void)usleep(20000);
	assert_int_equal(atomic_load(&i->n_ended), 0);
	ask_end(0, HOST_DISCONNECT);
	wait_for(&i->n_ended);
	assert_int_equal(i->fault.error, -EINTR);
	assert_int_equal(atomic_load(&i->n_announced), 0);
}

/* The step under way could not see it, and none came after that. */
static void an_end_that_a_start_does_not_see_comes_after_it(void **state)
{
	struct image *i = &t.images[0];

	atomic_store(&i->holds_start, true);
	add(0);
	wait_for(&i->n_starts);
	ask_end(0, HOST_DISCONNECT);
	atomic_store(&i->holds_start, false);
	wait_for(&i->n_ended);
	assert_true(atomic_load(&i->was_interrupted));
	assert_int_equal(atomic_load(&i->n_stops), 1);
	assert_int_equal(atomic_load(&i->end), MAPPING_DISCONNECT);
	assert_int_equal(i->fault.error, 0);
}

static bool has_ended(void *arg)
{
	return host_volume_phase(arg) == HOST_ENDED;
}

static void add_and_miss(void *arg)
{
	do_add(arg);
	(void)rig_wait(has_ended, t.volumes[0], PATIENCE_MS);
}

/* The control thread was busy all the while: nobody is told to use what is gone. */
static void what_served_unseen_is_not_announced(void **state)
{
	struct addition a = { .i = 0 };

	t.images[0].is_gone_at_once = true;
	there(add_and_miss, &a);
	wait_for(&t.images[0].n_ended);
	assert_int_equal(atomic_load(&t.images[0].n_started), 1);
	assert_int_equal(atomic_load(&t.images[0].n_announced), 0);
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, start, stop)
	const struct CMUnitTest tests[] = {
		TEST(it_is_announced_when_it_serves_and_told_of_when_it_has_ended),
		TEST(a_socket_has_no_cookie_of_a_device),
		TEST(it_gets_what_it_was_added_with),
		TEST(one_that_cannot_start_leaves_nothing_but_why),
		TEST(without_its_cluster_it_is_not_even_begun),
		TEST(the_first_to_ask_says_how_it_ends),
		TEST(one_that_lost_its_device_lets_it_be),
		TEST(a_start_is_interrupted_by_its_end),
		TEST(an_end_that_a_start_does_not_see_comes_after_it),
		TEST(what_served_unseen_is_not_announced),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
