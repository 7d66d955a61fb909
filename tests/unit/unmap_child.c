/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Copyright (C) 2026 the rbdcrypt-nbd authors */

/*
 * The child that unmaps for a daemon: what it says arrives, and none is left as a zombie. The child
 * is this program, which does what the name of its volume says.
 */

#include "../../daemon/unmap_child.h"

#include <errno.h>
#include <poll.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "../../daemon/control_request.h"
#include "leftovers.h"

/* ---- the child ---- */

static void be_child(const char *name)
{
	const struct fault why = { .status = EXIT_BUSY, .error = -EBUSY, .message = "in use" };
	struct json_object *answer;

	if (strcmp(name, "works") == 0)
		_exit(0);
	/* Until nobody listens any more, and then some. */
	if (strcmp(name, "lasts") == 0) {
		(void)poll(&(struct pollfd){ .fd = STDOUT_FILENO }, 1, 20000);
		usleep(50000);
		_exit(0);
	}
	if (strcmp(name, "fails") == 0) {
		answer = control_fault_write(&why);
		(void)puts(json_object_to_json_string(answer));
		json_object_put(answer);
		(void)fflush(stdout);
		_exit(5);
	}
	/* For ever, but not after a test that has failed. */
	(void)prctl(PR_SET_PDEATHSIG, SIGKILL);
	for (;;)
		(void)pause();
}

/* ---- the parent ---- */

static struct {
	struct loop *loop;
	struct unmap_child *child;
	struct fault fault;
	unsigned int n_done;
	int fds; /* before */
} t;

static void done(void *arg, const struct fault *f)
{
	(void)arg;
	t.n_done++;
	if (f)
		t.fault = *f;
	t.child = unmap_child_free(t.child);
	loop_quit(t.loop);
}

static int start(void **state)
{
	(void)state;
	memset(&t, 0, sizeof(t));
	t.fds = count_fds();
	return loop_new(&t.loop);
}

static int stop(void **state)
{
	(void)state;
	t.loop = loop_free(t.loop);
	return count_fds() == t.fds ? 0 : -1;
}

static void begin(const char *name, bool is_check)
{
	const struct unmap_child_options o = { .loop = t.loop,
					       .run_dir = "/nowhere",
					       .name = name,
					       .is_check = is_check,
					       .timeout_s = -1,
					       .done = done };
	struct fault f = { 0 };

	assert_int_equal(unmap_child_new(&o, &t.child, &f), 0);
}

static void assert_no_child(void)
{
	assert_int_equal(waitpid(-1, NULL, WNOHANG), -1);
	assert_int_equal(errno, ECHILD);
}

static void what_it_says_arrives_and_it_is_gone(void **state)
{
	for (int i = 0; i < 4; i++) {
		bool is_failing = i & 1, is_check = i & 2;

		begin(is_failing ? "fails" : "works", is_check);
		assert_int_equal(loop_run(t.loop), 0);
		assert_int_equal(t.n_done, 1);
		assert_int_equal(t.fault.error, is_failing ? -EBUSY : 0);
		assert_int_equal(t.fault.status, is_failing ? EXIT_BUSY : EXIT_OK);
		assert_string_equal(t.fault.message, is_failing ? "in use" : "");
		assert_no_child();
		/* A loop that was quit is over. */
		assert_int_equal(stop(state), 0);
		assert_int_equal(start(state), 0);
	}
}

static void a_look_at_keys_that_nobody_waits_for_ends(void **state)
{
	(void)state;
	begin("stays", true);
	t.child = unmap_child_free(t.child);
	assert_no_child();
	assert_int_equal(t.n_done, 0);
}

static void unmapping_goes_on_alone(void **state)
{
	int status;

	(void)state;
	begin("lasts", false);
	t.child = unmap_child_free(t.child);
	assert_true(waitpid(-1, &status, 0) > 0);
	assert_true(WIFEXITED(status) && WEXITSTATUS(status) == 0);
	assert_no_child();
	assert_int_equal(t.n_done, 0);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, start, stop)

int main(int argc, char **argv)
{
	const struct CMUnitTest tests[] = {
		TEST(what_it_says_arrives_and_it_is_gone),
		TEST(a_look_at_keys_that_nobody_waits_for_ends),
		TEST(unmapping_goes_on_alone),
	};

	if (argc == 5)
		be_child(argv[4]);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
