/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Copyright (C) 2026 the rbdcrypt-nbd authors */

#ifndef TESTS_FAKE_HOST_H
#define TESTS_FAKE_HOST_H

/*
 * What the methods stand between: one call at a time, a host whose volumes go through their phases
 * when a test says so, and children that unmap. State files are real ones. Included once, by a test
 * program.
 */

#include <fcntl.h>
#include <json-c/json_tokener.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "../../daemon/control_methods.h"
#include "../../daemon/control_request.h"
#include "../../daemon/unmap_child.h"
#include "leftovers.h"
#include "state_dir.h"

#define MAP CONTROL_INTERFACE ".Map"
#define ATTACH CONTROL_INTERFACE ".Attach"
#define SERVE CONTROL_INTERFACE ".Serve"
#define UNMAP CONTROL_INTERFACE ".Unmap"
#define DETACH CONTROL_INTERFACE ".Detach"
#define STATUS CONTROL_INTERFACE ".Status"
#define RELOAD CONTROL_INTERFACE ".Reload"
#define FDS_MAX 2

struct control_call {
	char method[128];
	struct json_object *parameters;
	bool is_from_group; /* not from root */
	int fds[FDS_MAX];
	/* What came of it: */
	unsigned int n_answers;
	char error[128]; /* "": none */
	struct json_object *answer;
};

struct host_volume {
	struct host_volume *next;
	char spec[64];
	enum mapping_kind kind;
	struct options *options;
	char request[256];
	const char *resumed;
	enum host_phase phase;
	/* Once its phase was looked at so often, it has gone on by itself. */
	unsigned int looks_until_it_serves; /* 0: never */
	struct host_volume_service service;
	struct fault fault;
	enum host_stop how;
	unsigned int n_stops;
};

struct unmap_child {
	struct unmap_child_options o;
	char name[4100];
};

static struct {
	struct loop *loop;
	struct watch deadline;
	struct methods *methods;
	struct control_call call; /* the last one */
	struct host_volume *volumes;
	struct unmap_child *child; /* NULL: none runs */
	unsigned int n_children;
	int add_error, child_error;
	unsigned int n_reloads;
	int fds; /* before */
} t;

/* ---- the call ---- */

const char *control_method(const struct control_call *c)
{
	return c->method;
}

struct json_object *control_parameters(const struct control_call *c)
{
	return c->parameters;
}

bool control_is_trusted(const struct control_call *c)
{
	return !c->is_from_group;
}

int control_take_fd(struct control_call *c, unsigned int i)
{
	int fd = i < FDS_MAX ? c->fds[i] : -1;

	if (fd >= 0)
		c->fds[i] = -1;
	return fd >= 0 ? fd : -EBADF;
}

void control_refuse(struct control_call *c, const char *error, struct json_object *parameters)
{
	assert_int_equal(c->n_answers, 0);
	assert_true(json_object_is_type(parameters, json_type_object));
	c->n_answers++;
	(void)snprintf(c->error, sizeof(c->error), "%s", error);
	c->answer = parameters;
}

void control_reply(struct control_call *c, struct json_object *parameters)
{
	control_refuse(c, "", parameters);
}

/* ---- the host ---- */

int host_add_take(struct host *h, const struct host_add *add, struct options **options,
		  struct host_volume **ret)
{
	struct host_volume *v;

	if (t.add_error < 0)
		return t.add_error;
	v = calloc(1, sizeof(*v));
	assert_non_null(v);
	v->kind = add->kind;
	assert_int_equal(add->listen_fd, -1);
	assert_null(add->resumed);
	(void)snprintf(v->request, sizeof(v->request), "%s", add->request);
	v->options = *options;
	*options = NULL;
	image_spec_format(&v->options->spec, v->spec, sizeof(v->spec));
	v->service.device = -1;
	v->next = t.volumes;
	t.volumes = v;
	*ret = v;
	return 0;
}

void host_for_each(struct host *h, void (*each)(void *arg, struct host_volume *v), void *arg)
{
	for (struct host_volume *v = t.volumes; v; v = v->next)
		each(arg, v);
}

enum host_phase host_volume_phase(const struct host_volume *v)
{
	struct host_volume *changing = (struct host_volume *)(uintptr_t)v;
	enum host_phase phase = v->phase;

	if (v->looks_until_it_serves > 0 && --changing->looks_until_it_serves == 0)
		changing->phase = HOST_SERVING;
	return phase;
}

void host_volume_stop(struct host_volume *v, enum host_stop how)
{
	v->n_stops++;
	v->how = how;
}

const char *host_volume_spec(const struct host_volume *v)
{
	return v->spec;
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

/* ---- children ---- */

int unmap_child_new(const struct unmap_child_options *o, struct unmap_child **ret,
		    struct fault *fault)
{
	if (t.child_error < 0)
		return fault_set(fault, EXIT_MEMORY, t.child_error, "no child");
	assert_null(t.child);
	assert_string_equal(o->run_dir, dir);
	t.child = calloc(1, sizeof(*t.child));
	assert_non_null(t.child);
	t.child->o = *o;
	(void)snprintf(t.child->name, sizeof(t.child->name), "%s", o->name);
	t.n_children++;
	*ret = t.child;
	return 0;
}

struct unmap_child *unmap_child_free(struct unmap_child *c)
{
	if (c) {
		assert_ptr_equal(c, t.child);
		t.child = NULL;
	}
	free(c);
	return NULL;
}

/* ---- around each test ---- */

static void reload(void *arg)
{
	t.n_reloads++;
}

static void on_deadline(struct watch *w)
{
	timer_clear(w->fd);
	loop_quit(t.loop);
}

/* Once in a test. */
static inline void run_for(unsigned int ms)
{
	timer_set(t.deadline.fd, ms);
	assert_int_equal(loop_run(t.loop), 0);
}

static int start(void **state)
{
	struct methods_options o = { .run_dir = dir, .reload = reload };

	memset(&t, 0, sizeof(t));
	memset(t.call.fds, 0xff, sizeof(t.call.fds));
	t.fds = count_fds();
	if (setup(state) < 0 || loop_new(&t.loop) < 0)
		return -1;
	t.deadline.fd = timer_new();
	t.deadline.ready = on_deadline;
	o.loop = t.loop;
	return loop_add(t.loop, &t.deadline) < 0 ? -1 : methods_new(&o, &t.methods);
}

/* The last call is over; whether it was answered is seen from now on. */
static inline void close_call(void)
{
	for (int i = 0; i < FDS_MAX; i++)
		if (t.call.fds[i] >= 0)
			(void)close(t.call.fds[i]);
	json_object_put(t.call.parameters);
	json_object_put(t.call.answer);
	memset(&t.call, 0, sizeof(t.call));
	memset(t.call.fds, 0xff, sizeof(t.call.fds));
}

static inline void drop_volume(struct host_volume *v)
{
	struct host_volume **link = &t.volumes;

	while (*link != v)
		link = &(*link)->next;
	*link = v->next;
	if (v->options)
		options_done(v->options);
	free(v->options);
	free(v);
}

static int stop(void **state)
{
	t.methods = methods_free(t.methods);
	loop_remove(t.loop, &t.deadline);
	(void)close(t.deadline.fd);
	t.loop = loop_free(t.loop);
	close_call();
	while (t.volumes)
		drop_volume(t.volumes);
	return t.child || count_fds() != t.fds || teardown(state) < 0 ? -1 : 0;
}

/* ---- what a test does ---- */

/* So many descriptors come with the next call. */
static inline void pass(unsigned int n)
{
	bool is_from_group = t.call.is_from_group;

	close_call();
	t.call.is_from_group = is_from_group;
	for (unsigned int i = 0; i < n; i++)
		t.call.fds[i] = open("/dev/null", O_RDONLY | O_CLOEXEC);
}

static inline void call(const char *method, const char *parameters)
{
	struct control_call next = t.call;

	/* Of the call before, what was set for this one stays. */
	json_object_put(t.call.parameters);
	json_object_put(t.call.answer);
	memset(&t.call, 0, sizeof(t.call));
	memcpy(t.call.fds, next.fds, sizeof(t.call.fds));
	t.call.is_from_group = next.is_from_group;
	(void)snprintf(t.call.method, sizeof(t.call.method), "%s", method);
	t.call.parameters = json_tokener_parse(parameters);
	assert_true(json_object_is_type(t.call.parameters, json_type_object));
	methods_called(t.methods, &t.call);
	t.call.is_from_group = false;
}

/* Its volume serves now: whether somebody waited for that. */
static inline bool serve(struct host_volume *v, int device, const char *socket)
{
	v->phase = HOST_SERVING;
	v->service.device = device;
	if (device >= 0)
		(void)snprintf(v->service.cookie, sizeof(v->service.cookie), "cookie %d", device);
	(void)snprintf(v->service.socket, sizeof(v->service.socket), "%s", socket);
	(void)snprintf(v->service.key, sizeof(v->service.key), "%s", v->spec);
	return methods_serving(t.methods, v);
}

/* It has ended, for this reason if error is one, and is gone: whether somebody waited for that. */
static inline bool end(struct host_volume *v, enum exit_status status, int error)
{
	bool was_awaited;

	v->phase = HOST_ENDED;
	if (error < 0) {
		(void)fault_set(&v->fault, status, error, "it fails");
		fault_hint(&v->fault, "do something");
	}
	was_awaited = methods_ended(t.methods, v);
	drop_volume(v);
	return was_awaited;
}

/* ---- what a test sees ---- */

/* The volume that the last call added, which nobody asked for anything else yet. */
static inline struct host_volume *assert_added(enum mapping_kind kind)
{
	if (t.call.n_answers > 0)
		fail_msg("%s", json_object_to_json_string(t.call.answer));
	assert_non_null(t.volumes);
	assert_int_equal(t.volumes->kind, kind);
	assert_int_equal(t.volumes->phase, HOST_STARTING);
	assert_int_equal(t.volumes->n_stops, 0);
	return t.volumes;
}

static inline struct json_object *member(const char *name)
{
	struct json_object *value = NULL;

	assert_int_equal(t.call.n_answers, 1);
	if (!json_object_object_get_ex(t.call.answer, name, &value))
		fail_msg("no \"%s\" in %s", name, json_object_to_json_string(t.call.answer));
	return value;
}

static inline const char *text_of(const char *name)
{
	assert_true(json_object_is_type(member(name), json_type_string));
	return json_object_get_string(member(name));
}

/* The last answer's parameters are these. */
static inline void __attribute__((format(printf, 1, 2))) assert_answer(const char *format, ...)
{
	char text[512];
	struct json_object *want;
	va_list ap;

	va_start(ap, format);
	(void)vsnprintf(text, sizeof(text), format, ap);
	va_end(ap);
	want = json_tokener_parse(text);
	assert_int_equal(t.call.n_answers, 1);
	if (!json_object_equal(t.call.answer, want))
		fail_msg("%s is not %s", json_object_to_json_string(t.call.answer), text);
	json_object_put(want);
}

static inline void assert_failed(enum exit_status status, int error, const char *says)
{
	if (strcmp(t.call.error, CONTROL_FAILED) != 0 ||
	    json_object_get_int(member("status")) != (int)status)
		fail_msg("%s %s", t.call.error, json_object_to_json_string(t.call.answer));
	assert_int_equal(json_object_get_int(member("errno")), -error);
	if (!strstr(text_of("message"), says))
		fail_msg("'%s' does not say '%s'", text_of("message"), says);
}

/* ---- what the daemon says of itself ---- */

/* Valid until the next call. */
static inline const char *describe(const char *interface)
{
	static char text[8192];
	char parameters[128];

	(void)snprintf(parameters, sizeof(parameters), "{\"interface\":\"%s\"}", interface);
	call("org.varlink.service.GetInterfaceDescription", parameters);
	assert_string_equal(t.call.error, "");
	assert_int_equal(json_object_object_length(t.call.answer), 1);
	(void)snprintf(text, sizeof(text), "%s", text_of("description"));
	return text;
}

static inline bool has_type(struct json_object *o, const char *type)
{
	return strncmp(type, "int", 3) == 0	 ? json_object_is_type(o, json_type_int)
	       : strncmp(type, "string", 6) == 0 ? json_object_is_type(o, json_type_string)
	       : strncmp(type, "[]", 2) == 0	 ? json_object_is_type(o, json_type_array)
						 : false;
}

/* fields: "a: int, b: string)..."; the answer has these members and no other. */
static inline void assert_fields(struct json_object *answer, const char *fields)
{
	int n = 0;

	while (*fields != ')') {
		struct json_object *value = NULL;
		char name[64];

		fields += strspn(fields, ", \n");
		(void)snprintf(name, sizeof(name), "%.*s", (int)strcspn(fields, ":"), fields);
		fields += strcspn(fields, ":") + 2;
		if (!json_object_object_get_ex(answer, name, &value) || !has_type(value, fields))
			fail_msg("\"%s\" is not in %s", name, json_object_to_json_string(answer));
		fields += strcspn(fields, ",)");
		n++;
	}
	assert_int_equal(json_object_object_length(answer), n);
}

/* The last answer, a success, is what the daemon's own description of the method says. */
static inline void assert_shape(const char *interface, const char *method)
{
	struct control_call last = t.call;
	char start_of[128];
	const char *at;

	assert_int_equal(last.n_answers, 1);
	assert_string_equal(last.error, "");
	memset(&t.call, 0, sizeof(t.call));
	memset(t.call.fds, 0xff, sizeof(t.call.fds));
	(void)snprintf(start_of, sizeof(start_of), "\nmethod %s(", method);
	at = strstr(describe(interface), start_of);
	close_call();
	t.call = last;
	assert_non_null(at);
	assert_fields(t.call.answer, strstr(at, "-> (") + 4);
}

static inline void assert_shape_of_error(void)
{
	assert_string_equal(t.call.error, CONTROL_FAILED);
	assert_fields(t.call.answer, strstr(control_interface, "error Failed (") + 14);
}

#endif
