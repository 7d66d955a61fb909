/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Copyright (C) 2026 the rbdcrypt-nbd authors */

/*
 * Who asks for a check of the keys, and when the next one comes, with checks and a socket that the
 * test makes up. daemon/guard.c is included, so that its timer can be watched.
 */

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "../../daemon/loop.h"

static void note_timer(int fd, unsigned int ms);
#define timer_set note_timer
#include "../../daemon/guard.c"
#undef timer_set

static struct {
	unsigned int n_timers, timer_ms, n_changed, n_started, n_answers;
	int start_error, answered; /* answered: error of the last */
} seen;

static void note_timer(int fd, unsigned int ms)
{
	assert_int_equal(fd, 99);
	seen.n_timers++;
	seen.timer_ms = ms;
}

static void changed(void *arg)
{
	seen.n_changed++;
}

/* ---- checks ---- */

static struct key_check_layer layer = { .health = KEY_OK, .source = "/etc/vol.key" };

int key_check_new(const struct key_check_options *o, const struct chain *c, struct xts *const *xts,
		  struct key_check **ret)
{
	return -ENOSYS;
}

struct key_check *key_check_free(struct key_check *k)
{
	return NULL;
}

int key_check_start(struct key_check *k, bool is_accepting)
{
	seen.n_started += seen.start_error == 0;
	return seen.start_error;
}

const struct key_check_layer *key_check_layer(const struct key_check *k, unsigned int i)
{
	assert_int_equal(i, 0);
	return &layer;
}

int key_check_result(const struct key_check *k, struct fault *f)
{
	return layer.health == KEY_FAILED ? fault_set(f, EXIT_SAFEGUARD, -EKEYREJECTED, "lost") : 0;
}

const char *key_health_name(enum key_health h)
{
	return h == KEY_OK ? "ok" : h == KEY_FAILED ? "failed" : "once";
}

/* ---- the socket ---- */

int guard_socket_new(const struct guard_socket_options *o, struct guard_socket **ret)
{
	return -ENOSYS;
}

struct guard_socket *guard_socket_free(struct guard_socket *s)
{
	return NULL;
}

void guard_socket_answer(struct guard_socket *s, const struct fault *f)
{
	seen.n_answers++;
	seen.answered = f->error;
}

void guard_socket_looked(struct guard_socket *s)
{
}

/* ---- the tests ---- */

static struct layer_state layers[1];
static struct volume_state state_file;
static struct guard g;

static int setup(void **state)
{
	memset(&seen, 0, sizeof(seen));
	layer.health = KEY_OK;
	state_file = (struct volume_state){ .n_layers = 1, .layers = layers, .device = -1 };
	(void)strcpy(layers[0].key_health, "ok");
	g = (struct guard){ .o = { .spec = "rbd/vol",
				   .state = &state_file,
				   .interval_s = 60,
				   .changed = changed },
			    .socket = (struct guard_socket *)&seen,
			    .timer.fd = 99 };
	return 0;
}

static void a_check_is_told_and_the_next_one_comes_in_time(void **state)
{
	on_asked(&g, GUARD_CHECK);
	assert_int_equal(seen.n_started, 1);
	assert_int_equal(seen.n_answers, 0);
	on_checked(&g);
	assert_int_equal(seen.n_answers, 1);
	assert_int_equal(seen.answered, 0);
	assert_int_equal(seen.n_changed, 1);
	assert_int_equal(seen.n_timers, 1);
	assert_int_equal(seen.timer_ms, 60000);
	assert_string_equal(layers[0].key_source, "/etc/vol.key");
}

/* The one under way may have looked too early for who asks now. */
static void who_asks_during_a_check_is_answered_after_another(void **state)
{
	on_asked(&g, GUARD_CHECK);
	on_asked(&g, GUARD_CHECK);
	assert_int_equal(seen.n_started, 1);
	layer.health = KEY_FAILED;
	on_checked(&g);
	assert_int_equal(seen.n_started, 2);
	assert_int_equal(seen.n_answers, 0);
	on_checked(&g);
	assert_int_equal(seen.n_answers, 1);
	assert_int_equal(seen.answered, -EKEYREJECTED);
	assert_int_equal(seen.n_timers, 1);
}

/* What was found counts, who waits is told, and the keys go on being looked at. */
static void a_check_that_cannot_be_repeated_is_not_the_last(void **state)
{
	on_asked(&g, GUARD_CHECK);
	on_asked(&g, GUARD_CHECK);
	layer.health = KEY_FAILED;
	seen.start_error = -EAGAIN;
	on_checked(&g);
	assert_true(seen.n_answers >= 1);
	assert_int_not_equal(seen.answered, 0);
	assert_false(g.is_checking);
	assert_int_equal(seen.n_changed, 1);
	assert_string_equal(layers[0].key_health, "failed");
	assert_int_equal(seen.n_timers, 1);
	seen.start_error = 0;
	on_asked(&g, GUARD_CHECK);
	assert_int_equal(seen.n_started, 2);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup(a_check_is_told_and_the_next_one_comes_in_time, setup),
		cmocka_unit_test_setup(who_asks_during_a_check_is_answered_after_another, setup),
		cmocka_unit_test_setup(a_check_that_cannot_be_repeated_is_not_the_last, setup),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
