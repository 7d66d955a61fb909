/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Copyright (C) 2026 the rbdcrypt-nbd authors */

/*
 * What an earlier daemon left, with real state files and a host of this test's own, whose volumes
 * fail as they are told to: how often each is tried, and what its file says meanwhile.
 */

#include "../../daemon/successor.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/mman.h>
#include <sys/resource.h>

#include <cmocka.h>

#include "clock.h"
#include "state_dir.h"

#define TRIES_MAX 16

/* A volume that ends as soon as it was started. */
struct host_volume {
	char resumed[640];
	struct fault fault;
};

static struct {
	struct loop *loop;
	struct successor *successor;
	struct watch started, deadline;
	struct host_volume *running;
	int error; /* that the next ones end with; 0: they run on */
	unsigned int tries, quit_after;
	unsigned int runs_from; /* the first one that runs on all the same; 0: none does */
	long long at_ms[TRIES_MAX];
} t;

/* ---- the host ---- */

int host_add_take(struct host *h, const struct host_add *add, struct options **options,
		  struct host_volume **ret)
{
	struct host_volume *v = calloc(1, sizeof(*v));

	assert_non_null(v);
	assert_null(t.running);
	assert_true(t.tries < TRIES_MAX);
	assert_int_equal(add->kind, MAPPING_SERVE);
	(void)snprintf(v->resumed, sizeof(v->resumed), "%s", add->resumed);
	t.at_ms[t.tries++] = clock_ms();
	t.running = v;
	options_done(*options);
	free(*options);
	*options = NULL;
	event_raise(t.started.fd);
	return 0;
}

void host_for_each(struct host *h, void (*each)(void *arg, struct host_volume *v), void *arg)
{
	if (t.running)
		each(arg, t.running);
}

const char *host_volume_resumed(const struct host_volume *v)
{
	return v->resumed;
}

const struct fault *host_volume_fault(const struct host_volume *v)
{
	return v->fault.error ? &v->fault : NULL;
}

const char *host_volume_spec(const struct host_volume *v)
{
	return v->resumed;
}

const struct options *host_volume_options(const struct host_volume *v)
{
	static const struct options none = { .spec = IMAGE_SPEC_INIT };

	(void)v;
	return &none;
}

const struct host_volume_service *host_volume_service(const struct host_volume *v)
{
	static const struct host_volume_service none = { .device = -1 };

	(void)v;
	return &none;
}

static void on_started(struct watch *w)
{
	struct host_volume *v = t.running;

	event_clear(w->fd);
	if (t.error != 0 && (t.runs_from == 0 || t.tries < t.runs_from)) {
		(void)fault_set(&v->fault, EXIT_PASSPHRASE, t.error, "it fails, number %u",
				t.tries);
		t.running = NULL;
		successor_ended(t.successor, v);
		free(v);
	}
	if (t.tries == t.quit_after)
		loop_quit(t.loop);
}

static void on_deadline(struct watch *w)
{
	timer_clear(w->fd);
	loop_quit(t.loop);
}

/* ---- around each test ---- */

static int start(void **state)
{
	struct successor_options o = { .run_dir = dir };

	memset(&t, 0, sizeof(t));
	if (setup(state) < 0 || loop_new(&t.loop) < 0)
		return -1;
	t.started.fd = event_new();
	t.started.ready = on_started;
	t.deadline.fd = timer_new();
	t.deadline.ready = on_deadline;
	o.loop = t.loop;
	return loop_add(t.loop, &t.started) < 0 || loop_add(t.loop, &t.deadline) < 0 ||
			       successor_new(&o, &t.successor) < 0
		       ? -1
		       : 0;
}

static int stop(void **state)
{
	t.successor = successor_free(t.successor);
	free(t.running);
	loop_remove(t.loop, &t.started);
	loop_remove(t.loop, &t.deadline);
	(void)close(t.started.fd);
	(void)close(t.deadline.fd);
	t.loop = loop_free(t.loop);
	return teardown(state);
}

/* A socket that an earlier daemon served. */
static void leave(const char *request, bool is_hosted)
{
	struct volume_state v;

	volume_state_init(&v);
	strcpy(v.file, "/disk");
	strcpy(v.socket, "/s");
	v.is_hosted = is_hosted;
	v.status = VOLUME_DETACHED;
	v.request = request ? strdup(request) : NULL;
	(void)state_release(claim("left", &v), /* is_removed */ false);
	volume_state_done(&v);
}

#define REQUEST "{\"spec\":\"file:/disk\",\"options\":[\"socket=/s\"]}"

static void run_for(unsigned int ms)
{
	timer_set(t.deadline.fd, ms);
	assert_int_equal(loop_run(t.loop), 0);
}

/* The loop sleeps: it does not turn for nothing. */
static void assert_rests(unsigned int ms)
{
	struct rusage before, after;

	assert_int_equal(getrusage(RUSAGE_SELF, &before), 0);
	run_for(ms);
	assert_int_equal(getrusage(RUSAGE_SELF, &after), 0);
	assert_true(after.ru_nvcsw - before.ru_nvcsw < 100);
}

static void assert_health(const char *text)
{
	struct state_list l;

	get_list(&l);
	assert_int_equal(l.n, 1);
	assert_string_equal(l.volumes[0].health, text);
	assert_false(volume_is_alive(&l.volumes[0]));
	/* And what has to be known of it is still there. */
	assert_string_equal(l.volumes[0].request, REQUEST);
	state_list_done(&l);
}

/* ---- claims ---- */

static void what_cannot_be_had_is_tried_less_and_less_often(void **state)
{
	leave(REQUEST, true);
	t.error = -EIO;
	t.quit_after = 4;
	successor_try(t.successor);
	run_for(20000);
	assert_int_equal(t.tries, 4);
	assert_true(t.at_ms[1] - t.at_ms[0] >= 490);
	assert_true(t.at_ms[2] - t.at_ms[1] >= 990);
	assert_true(t.at_ms[3] - t.at_ms[2] >= 1990);
	assert_health("waits: it fails, number 4");
}

static void a_passphrase_that_does_not_fit_is_not_hammered(void **state)
{
	leave(REQUEST, true);
	t.error = -EPERM;
	successor_try(t.successor);
	run_for(1500);
	assert_int_equal(t.tries, 1);
	assert_health("waits: it fails, number 1");
}

/* What was read from standard input, say. */
static void a_passphrase_that_was_given_once_is_not_waited_for(void **state)
{
	struct state_list l;

	leave("{\"spec\":\"file:/disk\",\"options\":[\"socket=/s\"],"
	      "\"keys\":[{\"source\":\"/k\"},{\"source\":\"-\"}]}",
	      true);
	successor_try(t.successor);
	get_list(&l);
	assert_int_equal(l.n, 1);
	assert_string_equal(l.volumes[0].health,
			    "waits: its passphrase was given once and is not kept: serve it again");
	state_list_done(&l);
	assert_rests(700);
	assert_int_equal(t.tries, 0);
}

/* Who asks for it has it tried at once, and what then only is away is tried again by itself. */
static void asked_for_it_is_tried_at_once_and_then_again(void **state)
{
	struct host_volume v = { .resumed = "left" };

	leave(REQUEST, true);
	(void)fault_set(&v.fault, EXIT_PASSPHRASE, -EPERM, "wrong");
	successor_ended(t.successor, &v);
	assert_health("waits: wrong");
	t.error = -ENOENT;
	t.quit_after = 2;
	successor_try(t.successor);
	assert_int_equal(t.tries, 1);
	run_for(10000);
	assert_int_equal(t.tries, 2);
}

static void one_that_runs_is_not_tried(void **state)
{
	leave(REQUEST, true);
	successor_try(t.successor);
	successor_try(t.successor);
	run_for(700);
	assert_int_equal(t.tries, 1);
}

static unsigned int count(const char *text, const char *what)
{
	unsigned int n = 0;

	for (; (text = strstr(text, what)); text++)
		n++;
	return n;
}

/* But it is in the file all the time, which each try writes anew. Who asks is told again. */
static void the_same_cause_is_told_once(void **state)
{
	int saved = dup(STDERR_FILENO), log = memfd_create("log", MFD_CLOEXEC);
	struct host_volume v = { .resumed = "left" };
	char text[4096] = "";

	leave(REQUEST, true);
	(void)fault_set(&v.fault, EXIT_PASSPHRASE, -ENOENT, "the key is away");
	assert_true(dup2(log, STDERR_FILENO) >= 0);
	for (unsigned int i = 0; i < 3; i++)
		successor_ended(t.successor, &v);
	successor_try(t.successor);
	assert_int_equal(t.tries, 1);
	for (unsigned int i = 0; i < 3; i++)
		successor_ended(t.successor, &v);
	(void)dup2(saved, STDERR_FILENO);
	assert_true(pread(log, text, sizeof(text) - 1, 0) > 0);
	(void)close(saved);
	(void)close(log);
	assert_int_equal(count(text, "waits: the key is away"), 2);
	assert_health("waits: the key is away");
}

static void one_that_runs_at_last_costs_nothing_more(void **state)
{
	leave(REQUEST, true);
	t.error = -EIO;
	t.runs_from = 2;
	successor_try(t.successor);
	assert_rests(2500);
	assert_int_equal(t.tries, 2);
	assert_non_null(t.running);
}

static void fail_once(void)
{
	struct host_volume v = { .resumed = "left" };

	leave(REQUEST, true);
	(void)fault_set(&v.fault, EXIT_CLUSTER, -EIO, "away");
	successor_ended(t.successor, &v);
	assert_health("waits: away");
}

static void one_that_was_unmapped_meanwhile_costs_nothing_more(void **state)
{
	struct state_list l;

	fail_once();
	assert_int_equal(state_list(dir, &l, &f), 0);
	assert_int_equal(state_remove(dir, l.volumes), 0);
	state_list_done(&l);
	assert_rests(2500);
	assert_int_equal(t.tries, 0);
}

static void one_whose_file_is_damaged_costs_nothing_more(void **state)
{
	fail_once();
	make_file("left.json", "{");
	assert_rests(2500);
	assert_int_equal(t.tries, 0);
}

static void one_that_was_told_to_stop_is_not_tried_again(void **state)
{
	leave(REQUEST, true);
	t.error = -EINTR;
	successor_try(t.successor);
	run_for(1200);
	assert_int_equal(t.tries, 1);
	assert_health("");
}

static void what_was_not_left_is_let_be(void **state)
{
	struct volume_state v;
	struct owner owner;

	leave(NULL, true);
	successor_try(t.successor);
	leave(REQUEST, false);
	successor_try(t.successor);
	volume_state_init(&v);
	strcpy(v.file, "/disk");
	strcpy(v.socket, "/s");
	v.is_hosted = true;
	v.status = VOLUME_SERVING;
	v.request = strdup(REQUEST);
	start_owner(&owner, &v, "left");
	successor_try(t.successor);
	stop_owner(&owner);
	assert_int_equal(t.tries, 0);
	/* Its owner was killed: now it is. */
	successor_try(t.successor);
	assert_int_equal(t.tries, 1);
	volume_state_done(&v);
}

static void a_damaged_request_is_told_and_starts_nothing(void **state)
{
	static const char *const bad[] = { "", "{", "[]", "{\"spec\":7}",
					   "{\"spec\":\"file:/disk\",\"keys\":[{\"fd\":0}]}" };

	for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
		struct state_list l;

		leave(bad[i], true);
		successor_try(t.successor);
		get_list(&l);
		assert_int_equal(l.n, 1);
		assert_memory_equal(l.volumes[0].health, "waits: ", 7);
		state_list_done(&l);
	}
	assert_int_equal(t.tries, 0);
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, start, stop)
	const struct CMUnitTest tests[] = {
		TEST(what_cannot_be_had_is_tried_less_and_less_often),
		TEST(a_passphrase_that_does_not_fit_is_not_hammered),
		TEST(a_passphrase_that_was_given_once_is_not_waited_for),
		TEST(asked_for_it_is_tried_at_once_and_then_again),
		TEST(one_that_runs_is_not_tried),
		TEST(the_same_cause_is_told_once),
		TEST(one_that_runs_at_last_costs_nothing_more),
		TEST(one_that_was_unmapped_meanwhile_costs_nothing_more),
		TEST(one_whose_file_is_damaged_costs_nothing_more),
		TEST(one_that_was_told_to_stop_is_not_tried_again),
		TEST(what_was_not_left_is_let_be),
		TEST(a_damaged_request_is_told_and_starts_nothing),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
