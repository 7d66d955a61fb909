/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Copyright (C) 2026 the rbdcrypt-nbd authors */

/*
 * The owner's loop, with a watch, a lock and a header that the test makes up: when the gate is
 * open, what it is planned for, and who is answered.
 */

#include "../../rbd/fence.h"
#include "../../rbd/owner_private.h"

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

/* Steps of ten milliseconds that a state is waited for. */
#define SOON 1000u

/* ---- the world ---- */

static struct {
	pthread_mutex_t lock; /* guards all but what is atomic */
	uint64_t size; /* of the image, as the header has it */
	uint64_t planned; /* size that was planned for last */
	int take_error, facts_error, lock_error;
	struct owner *meets; /* somebody changes the header just after it was read, once */
	unsigned int n_reads_at_ack; /* the last */
	atomic_uint n_takes, n_reads, n_acks, n_unlocks, n_unwatches, n_moves;
} world = { .lock = PTHREAD_MUTEX_INITIALIZER };

int rados_ioctx_create2(rados_t cluster, int64_t pool, rados_ioctx_t *ret)
{
	(void)cluster;
	(void)pool;
	*ret = malloc(1);
	return 0;
}

void rados_ioctx_set_namespace(rados_ioctx_t io, const char *nspace)
{
	(void)io;
	(void)nspace;
}

void rados_ioctx_destroy(rados_ioctx_t io)
{
	free(io);
}

static void say(struct owner *o, unsigned int todo, bool is_deferred)
{
	(void)pthread_mutex_lock(&o->lock);
	o->todo |= todo;
	if (is_deferred)
		o->deferred[o->n_deferred++] = 1;
	(void)pthread_cond_broadcast(&o->more);
	(void)pthread_mutex_unlock(&o->lock);
}

int facts_read(rados_ioctx_t io, const char *image_id, const struct patience *p,
	       struct image_facts *ret)
{
	struct owner *meets;
	int r;

	(void)io;
	(void)image_id;
	(void)p;
	(void)pthread_mutex_lock(&world.lock);
	r = world.facts_error;
	if (r == 0)
		*ret = (struct image_facts){ .size = world.size };
	meets = world.meets;
	world.meets = NULL;
	(void)pthread_mutex_unlock(&world.lock);
	world.n_reads++;
	if (meets)
		say(meets, TODO_REFRESH, true);
	return r;
}

void facts_done(struct image_facts *f)
{
	*f = (struct image_facts){ 0 };
}

int owner_watch(struct owner *o, const struct patience *p)
{
	(void)p;
	o->watch = 7;
	o->has_watch = true;
	return 0;
}

void owner_unwatch(struct owner *o, const struct patience *p)
{
	(void)p;
	o->has_watch = false;
	world.n_unwatches++;
}

void owner_notify(struct owner *o, enum notice_op op)
{
	(void)o;
	(void)op;
}

void owner_wait_notified(struct owner *o, const struct patience *p)
{
	(void)o;
	(void)p;
}

unsigned int owner_deferred(struct owner *o)
{
	unsigned int n;

	(void)pthread_mutex_lock(&o->lock);
	n = o->n_deferred;
	(void)pthread_mutex_unlock(&o->lock);
	return n;
}

void owner_acknowledge_deferred(struct owner *o, unsigned int n)
{
	(void)pthread_mutex_lock(&o->lock);
	if (n > o->n_deferred)
		n = o->n_deferred;
	o->n_deferred -= n;
	(void)pthread_mutex_unlock(&o->lock);
	if (n > 0) {
		(void)pthread_mutex_lock(&world.lock);
		world.n_reads_at_ack = world.n_reads;
		(void)pthread_mutex_unlock(&world.lock);
	}
	world.n_acks += n;
}

int owner_try_lock(struct owner *o, const struct patience *p)
{
	int r;

	(void)p;
	(void)pthread_mutex_lock(&world.lock);
	r = world.lock_error;
	(void)pthread_mutex_unlock(&world.lock);
	o->has_lock = r == 0;
	if (r == -EAGAIN)
		o->next_try_ms = clock_ms() + 10;
	return r;
}

int owner_unlock(struct owner *o, const struct patience *p)
{
	(void)p;
	o->has_lock = false;
	world.n_unlocks++;
	return 0;
}

int owner_move_lock(struct owner *o, const struct patience *p)
{
	(void)o;
	(void)p;
	world.n_moves++;
	return 0;
}

int locker_find(const struct locker_place *p, struct locker *ret)
{
	(void)p;
	(void)ret;
	return -ENOENT;
}

const char *bare_address(const char *address)
{
	return address;
}

/* ---- the owner ---- */

static struct gate gate;
static struct owner *owner;

static int take(void *arg, const struct image_facts *f, const char *cookie,
		const struct patience *p, char *why, size_t len)
{
	int r;

	(void)arg;
	(void)cookie;
	(void)p;
	(void)why;
	(void)len;
	(void)pthread_mutex_lock(&world.lock);
	r = world.take_error;
	if (r == 0)
		world.planned = f->size;
	(void)pthread_mutex_unlock(&world.lock);
	world.n_takes++;
	return r;
}

static void give(void *arg, const struct patience *p)
{
	(void)arg;
	(void)p;
}

static void changed(void *arg)
{
	(void)arg;
}

static void start(bool has_lock)
{
	/* Only asked for a handle, which nobody here looks at. */
	static uint64_t cluster[64];
	struct owner_options o = { .cluster = (struct cluster *)cluster,
				   .gate = &gate,
				   .spec = "rbd/image",
				   .image_id = "10",
				   .nspace = "",
				   .is_guarded = true,
				   .has_lock = has_lock,
				   .timeout_s = 30,
				   .ops = { .take = take, .give = give, .changed = changed } };
	struct fault f = { 0 };

	assert_int_equal(owner_start(&o, &owner, &f), 0);
}

static int setup(void **state)
{
	(void)state;
	memset(&world, 0, sizeof(world));
	(void)pthread_mutex_init(&world.lock, NULL);
	world.size = 1 << 20;
	gate_init(&gate);
	return 0;
}

static int teardown(void **state)
{
	(void)state;
	owner = owner_stop(owner);
	gate_done(&gate);
	return 0;
}

static bool is_open(void)
{
	bool is_open;

	(void)pthread_mutex_lock(&gate.lock);
	is_open = gate.is_open;
	(void)pthread_mutex_unlock(&gate.lock);
	return is_open;
}

static void set(uint64_t size, int take_error, int facts_error)
{
	(void)pthread_mutex_lock(&world.lock);
	world.size = size;
	world.take_error = take_error;
	world.facts_error = facts_error;
	(void)pthread_mutex_unlock(&world.lock);
}

#define EXPECT_SOON(cond)                                                                          \
	do {                                                                                       \
		for (unsigned int i = 0; i < SOON && !(cond); i++)                                 \
			usleep(10000);                                                             \
		assert_true(cond);                                                                 \
	} while (0)

/* ---- the tests ---- */

static void a_plan_that_failed_is_made_again_before_anybody_writes(void **state)
{
	unsigned int n_reads;

	(void)state;
	start(true);
	assert_true(is_open());
	set(2 << 20, -ENOMEM, 0);
	say(owner, TODO_REFRESH, false);
	EXPECT_SOON(world.n_takes >= 2);
	n_reads = world.n_reads;
	/* Read again, and the same as the last time: but nothing was planned for it. */
	EXPECT_SOON(world.n_reads > n_reads + 1);
	assert_false(is_open());
	set(2 << 20, 0, 0);
	EXPECT_SOON(is_open());
	assert_int_equal(world.planned, 2 << 20);
}

/* Without a lock, whoever made a snapshot waits until no old write can follow. */
static void who_waits_for_a_refresh_is_answered_in_every_state(void **state)
{
	(void)state;
	start(false);
	say(owner, TODO_REFRESH, true);
	EXPECT_SOON(world.n_acks == 1);
	/* While the watch is made again, all is read again too. */
	say(owner, TODO_REFRESH | TODO_REWATCH, true);
	EXPECT_SOON(world.n_acks == 2);
	assert_true(is_open());
	/* The image was removed: then there is nothing to wait for. */
	set(1 << 20, 0, -ENOENT);
	say(owner, TODO_REFRESH | TODO_REWATCH, true);
	EXPECT_SOON(world.n_acks == 3);
	assert_string_equal(owner_lock_state(owner), "lost");
}

/* It was read before he changed it: what is planned for does not have his snapshot. */
static void who_comes_while_it_is_read_waits_for_the_next_time(void **state)
{
	static const unsigned int todo[] = { TODO_REFRESH, TODO_REFRESH | TODO_REWATCH };
	unsigned int n_acks = 0;

	(void)state;
	start(false);
	for (unsigned int turn = 0; turn < sizeof(todo) / sizeof(todo[0]); turn++) {
		unsigned int n_reads = world.n_reads;

		(void)pthread_mutex_lock(&world.lock);
		world.meets = owner;
		(void)pthread_mutex_unlock(&world.lock);
		say(owner, todo[turn], true);
		n_acks += 2;
		EXPECT_SOON(world.n_acks == n_acks);
		assert_int_equal(world.n_reads_at_ack, n_reads + 2);
		EXPECT_SOON(is_open());
	}
}

/* Others take the lock of a watch that is gone for a dead client's, and shoot him. */
static void the_lock_follows_the_watch_before_writes_have_ended(void **state)
{
	struct gate_pass pass = { .go = NULL };

	(void)state;
	start(true);
	assert_true(gate_enter(&gate, &pass));
	say(owner, TODO_REWATCH, false);
	EXPECT_SOON(world.n_moves == 1);
	assert_int_equal(world.n_takes, 1);
	assert_false(is_open());
	gate_leave(&gate);
	EXPECT_SOON(is_open());
	assert_int_equal(world.n_takes, 2);
	assert_int_equal(world.n_unlocks, 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(
			a_plan_that_failed_is_made_again_before_anybody_writes, setup, teardown),
		cmocka_unit_test_setup_teardown(who_waits_for_a_refresh_is_answered_in_every_state,
						setup, teardown),
		cmocka_unit_test_setup_teardown(who_comes_while_it_is_read_waits_for_the_next_time,
						setup, teardown),
		cmocka_unit_test_setup_teardown(the_lock_follows_the_watch_before_writes_have_ended,
						setup, teardown),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
