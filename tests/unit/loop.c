/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Copyright (C) 2026 the rbdcrypt-nbd authors */

/* The control thread's loop: events, timers, and watches that go while others are ready. */

#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <unistd.h>

#include <cmocka.h>

#include "../../daemon/loop.h"
#include "rig.h"

struct counter {
	struct watch watch;
	struct loop *loop;
	unsigned int times, quit_after;
	struct counter *removes; /* takes it out of the loop */
};

static void on_ready(struct watch *w)
{
	struct counter *c = (struct counter *)w;

	event_clear(w->fd);
	c->times++;
	if (c->removes)
		loop_remove(c->loop, &c->removes->watch);
	if (c->times == c->quit_after)
		loop_quit(c->loop);
}

static void watch_event(struct loop *l, struct counter *c)
{
	c->loop = l;
	c->watch.ready = on_ready;
	c->watch.fd = event_new();
	assert_true(c->watch.fd >= 0);
	assert_int_equal(loop_add(l, &c->watch), 0);
}

static void *raise_often(void *arg)
{
	struct counter *c = arg;

	for (unsigned int i = 0; i < 1000; i++)
		event_raise(c->watch.fd);
	(void)usleep(10000);
	event_raise(c->watch.fd);
	return NULL;
}

static void an_event_raised_elsewhere_is_seen(void **state)
{
	struct counter c = { .quit_after = 1 };
	struct loop *l;
	pthread_t t;

	assert_int_equal(loop_new(&l), 0);
	watch_event(l, &c);
	assert_int_equal(pthread_create(&t, NULL, raise_often, &c), 0);
	assert_int_equal(loop_run(l), 0);
	(void)pthread_join(t, NULL);
	assert_int_equal(c.times, 1);
	loop_remove(l, &c.watch);
	loop_remove(l, &c.watch);
	(void)close(c.watch.fd);
	assert_null(loop_free(l));
	assert_null(loop_free(NULL));
}

/* Both are ready, and whichever is first removes the other. */
static void a_watch_removed_by_another_is_not_called(void **state)
{
	struct counter a = { .quit_after = 1 }, b = { .quit_after = 1 };
	struct loop *l;

	assert_int_equal(loop_new(&l), 0);
	watch_event(l, &a);
	watch_event(l, &b);
	a.removes = &b;
	b.removes = &a;
	event_raise(a.watch.fd);
	event_raise(b.watch.fd);
	assert_int_equal(loop_run(l), 0);
	assert_int_equal(a.times + b.times, 1);
	(void)close(a.watch.fd);
	(void)close(b.watch.fd);
	loop_free(l);
}

static void a_timer_comes_when_it_should(void **state)
{
	struct counter c = { .quit_after = 1 };
	struct loop *l;
	double begin = rig_now();

	assert_int_equal(loop_new(&l), 0);
	c.loop = l;
	c.watch.ready = on_ready;
	c.watch.fd = timer_new();
	assert_true(c.watch.fd >= 0);
	assert_int_equal(loop_add(l, &c.watch), 0);
	timer_set(c.watch.fd, 10000);
	timer_set(c.watch.fd, 1050);
	timer_set(c.watch.fd, 30);
	assert_int_equal(loop_run(l), 0);
	assert_true(rig_now() - begin >= 0.03);
	assert_true(rig_now() - begin < 1);
	(void)close(c.watch.fd);
	loop_free(l);
}

/* And another thread may go on with it, once its descriptor says that there is something to do. */
static void a_quiet_loop_returns_and_can_be_watched(void **state)
{
	struct counter c = { .quit_after = 2 };
	struct pollfd p = { .events = POLLIN };
	struct loop *l;

	assert_int_equal(loop_new(&l), 0);
	watch_event(l, &c);
	p.fd = loop_fd(l);
	event_raise(c.watch.fd);
	assert_int_equal(loop_run_until_quiet(l, 20), LOOP_QUIET);
	assert_int_equal(c.times, 1);
	assert_int_equal(poll(&p, 1, 0), 0);
	event_raise(c.watch.fd);
	assert_int_equal(poll(&p, 1, 0), 1);
	assert_int_equal(loop_run_until_quiet(l, 20), 0);
	assert_int_equal(c.times, 2);
	(void)close(c.watch.fd);
	loop_free(l);
}

static void a_descriptor_that_cannot_be_watched_is_an_error(void **state)
{
	struct watch w = { .ready = on_ready, .fd = -1 };
	struct loop *l;

	assert_int_equal(loop_new(&l), 0);
	assert_int_equal(loop_add(l, &w), -EBADF);
	assert_false(w.is_added);
	loop_remove(l, &w);
	loop_free(l);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(an_event_raised_elsewhere_is_seen),
		cmocka_unit_test(a_watch_removed_by_another_is_not_called),
		cmocka_unit_test(a_timer_comes_when_it_should),
		cmocka_unit_test(a_quiet_loop_returns_and_can_be_watched),
		cmocka_unit_test(a_descriptor_that_cannot_be_watched_is_an_error),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
