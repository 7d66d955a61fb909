/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Copyright (C) 2026 the rbdcrypt-nbd authors */

/*
 * From a call to a volume, with real state files and volumes, clients and unmap processes of this
 * test's own: who is asked before a volume goes, how it goes, and what its client is told when.
 */

#include "../../daemon/control_methods.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <json-c/json_tokener.h>

#include "../../daemon/control_request.h"
#include "../../daemon/unmap_child.h"
#include "state_dir.h"

struct host_volume {
	enum host_phase phase;
	enum host_stop how; /* it was asked to end */
	struct host_volume_service service;
	struct fault fault;
	const char *resumed;
};

struct unmap_child {
	struct unmap_child_options o;
	char name[64];
};

struct control_call {
	const char *method;
	struct json_object *parameters, *answer;
	char error[128];
	bool is_answered;
};

static struct {
	struct loop *loop;
	struct methods *methods;
	struct state *files[2];
	struct host_volume device, socket; /* those that are served */
	struct host_volume *started; /* by a call, or NULL */
	struct unmap_child *child; /* that runs, or NULL */
	struct control_call calls[4], *call; /* all, the last one */
	unsigned int n_calls;
} t;

/* ---- what the methods stand on ---- */

int host_add_take(struct host *h, const struct host_add *add, struct options **options,
		  struct host_volume **ret)
{
	t.started = calloc(1, sizeof(*t.started));
	assert_non_null(t.started);
	assert_int_equal(add->kind, MAPPING_SERVE);
	assert_non_null(strstr(add->request, "socket="));
	options_done(*options);
	free(*options);
	*options = NULL;
	*ret = t.started;
	return 0;
}

void host_for_each(struct host *h, void (*each)(void *arg, struct host_volume *v), void *arg)
{
	each(arg, &t.device);
	each(arg, &t.socket);
	if (t.started)
		each(arg, t.started);
}

enum host_phase host_volume_phase(const struct host_volume *v)
{
	return v->phase;
}

void host_volume_stop(struct host_volume *v, enum host_stop how)
{
	if (v->how == HOST_KEEP)
		v->how = how;
}

const char *host_volume_spec(const struct host_volume *v)
{
	return "file:/new";
}

const char *host_volume_resumed(const struct host_volume *v)
{
	return v->resumed;
}

const struct host_volume_service *host_volume_service(const struct host_volume *v)
{
	return &v->service;
}

const struct fault *host_volume_fault(const struct host_volume *v)
{
	return v->fault.error ? &v->fault : NULL;
}

int unmap_child_new(const struct unmap_child_options *o, struct unmap_child **ret,
		    struct fault *fault)
{
	assert_null(t.child);
	t.child = calloc(1, sizeof(*t.child));
	assert_non_null(t.child);
	t.child->o = *o;
	(void)snprintf(t.child->name, sizeof(t.child->name), "%s", o->name);
	*ret = t.child;
	return 0;
}

struct unmap_child *unmap_child_free(struct unmap_child *c)
{
	if (c)
		t.child = NULL;
	free(c);
	return NULL;
}

const char *control_method(const struct control_call *call)
{
	return call->method;
}

struct json_object *control_parameters(const struct control_call *call)
{
	return call->parameters;
}

bool control_is_trusted(const struct control_call *call)
{
	return true;
}

int control_take_fd(struct control_call *call, unsigned int i)
{
	return -EBADF;
}

void control_reply(struct control_call *call, struct json_object *parameters)
{
	control_refuse(call, "", parameters);
}

void control_refuse(struct control_call *call, const char *error, struct json_object *parameters)
{
	assert_false(call->is_answered);
	call->is_answered = true;
	call->answer = parameters;
	(void)snprintf(call->error, sizeof(call->error), "%s", error);
}

/* ---- around each test ---- */

static struct state *own(const char *key, int device, const char *socket)
{
	struct volume_state v;
	struct state *s;

	volume_state_init(&v);
	v.device = device;
	v.is_hosted = true;
	v.status = device >= 0 ? VOLUME_MAPPED : VOLUME_SERVING;
	strcpy(v.file, device >= 0 ? "/disk" : "/plain");
	strcpy(v.socket, socket);
	s = claim(key, &v);
	volume_state_done(&v);
	return s;
}

static int start(void **state)
{
	struct methods_options o = { .run_dir = dir };

	memset(&t, 0, sizeof(t));
	if (setup(state) < 0 || loop_new(&t.loop) < 0)
		return -1;
	o.loop = t.loop;
	if (methods_new(&o, &t.methods) < 0)
		return -1;
	t.files[0] = own("device", 7, "");
	t.files[1] = own("socket", -1, "/s");
	t.device.phase = t.socket.phase = HOST_SERVING;
	t.device.service.device = 7;
	t.socket.service.device = -1;
	strcpy(t.device.service.key, "device");
	strcpy(t.socket.service.key, "socket");
	return 0;
}

static int stop(void **state)
{
	t.methods = methods_free(t.methods);
	t.loop = loop_free(t.loop);
	for (unsigned int i = 0; i < t.n_calls; i++) {
		json_object_put(t.calls[i].parameters);
		json_object_put(t.calls[i].answer);
	}
	free(t.started);
	for (int i = 0; i < 2; i++)
		(void)state_release(t.files[i], /* is_removed */ true);
	/* Whoever waited for a process has let go of it. */
	return t.child ? -1 : teardown(state);
}

static void call(const char *method, const char *parameters)
{
	assert_true(t.n_calls < 4);
	t.call = &t.calls[t.n_calls++];
	t.call->method = method;
	t.call->parameters = json_tokener_parse(parameters);
	assert_non_null(t.call->parameters);
	methods_called(t.methods, t.call);
}

#define HOST(method) CONTROL_INTERFACE "." method

static void assert_succeeded(void)
{
	assert_true(t.call->is_answered);
	assert_string_equal(t.call->error, "");
}

static void assert_failed(int status, const char *text)
{
	struct fault said = { 0 };

	assert_true(t.call->is_answered);
	assert_string_equal(t.call->error, CONTROL_FAILED);
	assert_true(control_fault_read(t.call->answer, &said));
	assert_int_equal(said.status, status);
	assert_non_null(strstr(said.message, text));
}

/* The child looks at the keys of what is called name, and has not done so yet. */
static void assert_looks(const char *name, const struct host_volume *v)
{
	assert_non_null(t.child);
	assert_true(t.child->o.is_check);
	assert_string_equal(t.child->name, name);
	assert_int_equal(v->how, HOST_KEEP);
	assert_false(t.call->is_answered);
}

/* The child has ended. */
static void child_says(const struct fault *why)
{
	t.child->o.done(t.child->o.arg, why);
}

static const struct fault lost = { .status = EXIT_SAFEGUARD,
				   .error = -EKEYREJECTED,
				   .message = "it might not open again" };

/* ---- Detach ---- */

static void detach_ends_a_volume_whose_keys_are_safe(void **state)
{
	call(HOST("Detach"), "{\"name\":\"/dev/nbd7\"}");
	assert_looks("/dev/nbd7", &t.device);
	child_says(NULL);
	assert_int_equal(t.device.how, HOST_DETACH);
	assert_null(t.child);
	/* And is answered when that is done. */
	assert_false(t.call->is_answered);
	assert_true(methods_ended(t.methods, &t.device));
	assert_succeeded();
}

static void detach_keeps_a_volume_whose_key_is_lost(void **state)
{
	call(HOST("Detach"), "{\"name\":\"file:/disk\",\"force\":false}");
	assert_looks("file:/disk", &t.device);
	child_says(&lost);
	assert_int_equal(t.device.how, HOST_KEEP);
	assert_failed(EXIT_SAFEGUARD, "might not open again");
	/* Nobody waits for its end now. */
	assert_false(methods_ended(t.methods, &t.device));
}

static void detach_by_force_does_not_look(void **state)
{
	call(HOST("Detach"), "{\"name\":\"/dev/nbd7\",\"force\":true}");
	assert_null(t.child);
	assert_int_equal(t.device.how, HOST_DETACH);
	assert_true(methods_ended(t.methods, &t.device));
	assert_succeeded();
}

static void a_volume_that_ends_already_is_not_looked_at(void **state)
{
	t.device.phase = HOST_STOPPING;
	call(HOST("Detach"), "{\"name\":\"/dev/nbd7\"}");
	assert_null(t.child);
	assert_true(methods_ended(t.methods, &t.device));
	assert_succeeded();
}

static void a_volume_that_ends_during_the_look_is_answered_for(void **state)
{
	call(HOST("Detach"), "{\"name\":\"/dev/nbd7\"}");
	assert_looks("/dev/nbd7", &t.device);
	assert_true(methods_ended(t.methods, &t.device));
	assert_succeeded();
	assert_null(t.child);
}

static void a_client_that_goes_changes_nothing_about_the_end(void **state)
{
	call(HOST("Detach"), "{\"name\":\"/dev/nbd7\"}");
	methods_abandoned(t.methods, t.call);
	child_says(&lost);
	assert_int_equal(t.device.how, HOST_KEEP);
	call(HOST("Detach"), "{\"name\":\"/dev/nbd7\"}");
	methods_abandoned(t.methods, t.call);
	child_says(NULL);
	assert_int_equal(t.device.how, HOST_DETACH);
	assert_true(methods_ended(t.methods, &t.device));
	assert_false(t.call->is_answered);
}

static void detach_needs_a_device_of_ours(void **state)
{
	call(HOST("Detach"), "{\"name\":\"/s\"}");
	assert_failed(EXIT_USAGE, "no device to leave behind");
	call(HOST("Detach"), "{\"name\":\"/dev/nbd8\"}");
	assert_failed(EXIT_NOT_FOUND, "not served by this daemon");
	call(HOST("Detach"), "{}");
	assert_failed(EXIT_USAGE, "\"name\"");
	assert_null(t.child);
	assert_int_equal(t.socket.how, HOST_KEEP);
}

/* ---- Unmap ---- */

/* The child does it all, because it opens the device. */
static void unmap_of_a_device_is_a_process(void **state)
{
	call(HOST("Unmap"), "{\"name\":\"/dev/nbd7\",\"force\":true,\"timeout\":7}");
	assert_non_null(t.child);
	assert_false(t.child->o.is_check);
	assert_true(t.child->o.is_forced);
	assert_int_equal(t.child->o.timeout_s, 7);
	child_says(NULL);
	assert_int_equal(t.device.how, HOST_KEEP);
	assert_succeeded();
}

static void unmap_of_a_socket_looks_at_its_keys(void **state)
{
	call(HOST("Unmap"), "{\"name\":\"/s\"}");
	assert_looks("/s", &t.socket);
	child_says(&lost);
	assert_int_equal(t.socket.how, HOST_KEEP);
	assert_failed(EXIT_SAFEGUARD, "might not open again");
	call(HOST("Unmap"), "{\"name\":\"/s\"}");
	assert_looks("/s", &t.socket);
	child_says(NULL);
	assert_int_equal(t.socket.how, HOST_DISCONNECT);
	assert_true(methods_ended(t.methods, &t.socket));
	assert_succeeded();
}

/* ---- what starts ---- */

#define NEW "{\"spec\":\"file:/new\",\"options\":[\"socket=/new\"]}"

static void a_start_is_answered_when_it_serves(void **state)
{
	call(HOST("Serve"), NEW);
	assert_false(t.call->is_answered);
	t.started->service.device = -1;
	strcpy(t.started->service.socket, "/new");
	assert_true(methods_serving(t.methods, t.started));
	assert_succeeded();
	assert_string_equal(
		json_object_get_string(json_object_object_get(t.call->answer, "socket")), "/new");
	assert_false(methods_ended(t.methods, t.started));
}

static void a_start_that_fails_is_told_why(void **state)
{
	call(HOST("Serve"), NEW);
	t.started->fault = lost;
	assert_true(methods_ended(t.methods, t.started));
	assert_failed(EXIT_SAFEGUARD, "might not open again");
}

static void a_client_that_goes_takes_its_start_back(void **state)
{
	call(HOST("Serve"), NEW);
	methods_abandoned(t.methods, t.call);
	assert_int_equal(t.started->how, HOST_DISCONNECT);
	assert_true(methods_ended(t.methods, t.started));
	assert_false(t.call->is_answered);
}

/* It has no name but its image's yet, and nothing to lose. */
static void what_starts_is_unmapped_unasked(void **state)
{
	struct control_call *start;

	call(HOST("Serve"), NEW);
	start = t.call;
	call(HOST("Unmap"), "{\"name\":\"file:/new\"}");
	assert_null(t.child);
	assert_int_equal(t.started->how, HOST_DISCONNECT);
	assert_true(methods_ended(t.methods, t.started));
	assert_succeeded();
	t.call = start;
	assert_failed(EXIT_TIMED_OUT, "ended before it could be used");
}

/* One that a predecessor served is known by all of its names. */
static void what_comes_back_is_unmapped_by_its_socket(void **state)
{
	t.socket.phase = HOST_STARTING;
	t.socket.service.key[0] = '\0';
	t.socket.resumed = "socket";
	call(HOST("Unmap"), "{\"name\":\"/s\"}");
	assert_null(t.child);
	assert_int_equal(t.socket.how, HOST_DISCONNECT);
	assert_true(methods_ended(t.methods, &t.socket));
	assert_succeeded();
}

static void what_is_not_there_is_said_so(void **state)
{
	call(HOST("Nothing"), "{}");
	assert_string_equal(t.call->error, "org.varlink.service.MethodNotFound");
	call("a.b.C", "{}");
	assert_string_equal(t.call->error, "org.varlink.service.InterfaceNotFound");
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, start, stop)
	const struct CMUnitTest tests[] = {
		TEST(detach_ends_a_volume_whose_keys_are_safe),
		TEST(detach_keeps_a_volume_whose_key_is_lost),
		TEST(detach_by_force_does_not_look),
		TEST(a_volume_that_ends_already_is_not_looked_at),
		TEST(a_volume_that_ends_during_the_look_is_answered_for),
		TEST(a_client_that_goes_changes_nothing_about_the_end),
		TEST(detach_needs_a_device_of_ours),
		TEST(unmap_of_a_device_is_a_process),
		TEST(unmap_of_a_socket_looks_at_its_keys),
		TEST(a_start_is_answered_when_it_serves),
		TEST(a_start_that_fails_is_told_why),
		TEST(a_client_that_goes_takes_its_start_back),
		TEST(what_starts_is_unmapped_unasked),
		TEST(what_comes_back_is_unmapped_by_its_socket),
		TEST(what_is_not_there_is_said_so),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
