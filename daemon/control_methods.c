/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Copyright (C) 2026 the rbdcrypt-nbd authors */

/*
 * From a call to a volume and back. A call that takes its time is noted with the volume it waits
 * for and what it waits for, and answered when the host says so. A client that goes away while its
 * volume starts takes the start back: nobody would know of the device. One that goes away while its
 * volume ends changes nothing.
 */

#include "control_methods.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "control_find.h"
#include "control_request.h"
#include "state.h"
#include "view.h"
#include "unmap_child.h"

#define SERVICE CONTROL_SERVICE
#define HOMEPAGE "man:rbdcrypt-nbd-control(7)"
/* For a volume to end, as the unmap command has it: what the caller does not say, and at most. */
#define PATIENCE_DEFAULT_S 30
#define PATIENCE_MAX_S (30 * 24 * 3600)

struct pending {
	struct pending *next;
	struct methods *methods;
	struct control_call *call; /* NULL: its client has gone */
	struct host_volume *volume; /* it waits for, or NULL */
	bool is_start; /* waits until it serves; else until it has ended */
	enum host_stop how; /* it ends once child has found its keys safe */
	struct unmap_child *child; /* it waits for, or NULL */
	int timeout_s; /* for its volume to end; -1: the command's */
	struct watch patience; /* while it waits for that; fd -1: not yet */
};

struct methods {
	struct methods_options o;
	struct pending *pending;
};

/* ---- answers ---- */

static void add_text(struct json_object *o, const char *key, const char *text)
{
	(void)json_object_object_add(o, key, json_object_new_string(text));
}

static void fail(struct control_call *call, const struct fault *f)
{
	control_refuse(call, CONTROL_FAILED, control_fault_write(f));
}

static void refuse_name(struct control_call *call, const char *error, const char *key,
			const char *name)
{
	struct json_object *o = json_object_new_object();

	if (o)
		add_text(o, key, name);
	control_refuse(call, error, o);
}

static void succeed(struct control_call *call)
{
	control_reply(call, json_object_new_object());
}

static void announce(struct control_call *call, const struct host_volume_service *s)
{
	struct json_object *o = json_object_new_object();
	char device[32];

	(void)snprintf(device, sizeof(device), "/dev/nbd%d", s->device);
	if (o && s->device >= 0) {
		add_text(o, "device", device);
		add_text(o, "cookie", s->cookie);
	} else if (o) {
		add_text(o, "socket", s->socket);
	}
	control_reply(call, o);
}

/* ---- what waits ---- */

static struct pending *new_pending(struct methods *m, struct control_call *call)
{
	struct pending *p = calloc(1, sizeof(*p));

	if (!p)
		return NULL;
	p->methods = m;
	p->call = call;
	p->patience.fd = -1;
	p->next = m->pending;
	m->pending = p;
	return p;
}

static void forget(struct pending *p)
{
	struct pending **link = &p->methods->pending;

	while (*link != p)
		link = &(*link)->next;
	*link = p->next;
	p->child = unmap_child_free(p->child);
	loop_remove(p->methods->o.loop, &p->patience);
	if (p->patience.fd >= 0)
		(void)close(p->patience.fd);
	free(p);
}

void methods_abandoned(void *arg, struct control_call *call)
{
	struct methods *m = arg;

	for (struct pending *p = m->pending; p; p = p->next) {
		if (p->call != call)
			continue;
		p->call = NULL;
		if (p->is_start)
			host_volume_stop(p->volume, HOST_DISCONNECT);
	}
}

bool methods_serving(struct methods *m, struct host_volume *v)
{
	for (struct pending *p = m->pending; p; p = p->next) {
		if (p->volume != v || !p->is_start)
			continue;
		/* Abandoned: its end is on the way. */
		if (p->call)
			announce(p->call, host_volume_service(v));
		forget(p);
		return true;
	}
	return false;
}

bool methods_ended(struct methods *m, struct host_volume *v)
{
	const struct fault *why = host_volume_fault(v);
	struct fault f = { 0 };
	bool was_awaited = false;

	if (!why)
		(void)fault_set(&f, EXIT_TIMED_OUT, -EINTR, "%s: ended before it could be used",
				host_volume_spec(v));
	for (struct pending *p = m->pending, *next; p; p = next) {
		next = p->next;
		if (p->volume != v)
			continue;
		was_awaited = true;
		if (p->call && p->is_start)
			fail(p->call, why ? why : &f);
		else if (p->call)
			succeed(p->call);
		forget(p);
	}
	return was_awaited;
}

/* ---- Map, Attach, Serve ---- */

static int take_fd(void *arg, unsigned int i)
{
	return control_take_fd(arg, i);
}

static int start(struct methods *m, struct control_call *call, enum command command,
		 struct fault *f)
{
	enum mapping_kind kind = command == COMMAND_MAP	     ? MAPPING_MAP
				 : command == COMMAND_ATTACH ? MAPPING_ATTACH
							     : MAPPING_SERVE;
	struct host_add add = { .kind = kind, .listen_fd = -1 };
	struct json_object *request;
	struct options *o = NULL;
	struct pending *p;
	int r = control_request_read(control_parameters(call), command, control_is_trusted(call),
				     take_fd, call, &o, f);

	if (r < 0)
		return r;
	if (kind == MAPPING_SERVE && !control_is_trusted(call))
		r = fault_set(f, EXIT_PASSPHRASE, -EPERM, "Serve: only root may make a socket");
	else if (kind == MAPPING_SERVE && !o->socket)
		r = fault_set(f, EXIT_USAGE, -EINVAL, "Serve: needs the option socket=PATH");
	if (r == 0) {
		request = control_request_write(o, NULL, 0);
		add.request = json_object_to_json_string_ext(request, JSON_C_TO_STRING_PLAIN);
		p = new_pending(m, call);
		r = p && request ? host_add_take(m->o.host, &add, &o, &p->volume) : -ENOMEM;
		json_object_put(request);
		if (p && r == 0)
			p->is_start = true;
		else if (p)
			forget(p);
		if (r < 0)
			(void)fault_set(f, EXIT_MEMORY, r, "cannot start a volume: %s",
					strerror(-r));
	}
	if (o) {
		options_done(o);
		free(o);
	}
	return r;
}

static int map(struct methods *m, struct control_call *call, struct fault *f)
{
	return start(m, call, COMMAND_MAP, f);
}

static int attach(struct methods *m, struct control_call *call, struct fault *f)
{
	return start(m, call, COMMAND_ATTACH, f);
}

static int serve(struct methods *m, struct control_call *call, struct fault *f)
{
	return start(m, call, COMMAND_SERVE, f);
}

/* ---- Unmap, Detach ---- */

/* The parameter "name". */
static int get_name(struct control_call *call, const char **ret, struct fault *f)
{
	struct json_object *value;
	const char *name;

	if (!json_object_object_get_ex(control_parameters(call), "name", &value) ||
	    !json_object_is_type(value, json_type_string))
		return fault_set(f, EXIT_USAGE, -EINVAL, "\"name\" must be a text");
	name = json_object_get_string(value);
	if (!name[0] || strlen(name) != (size_t)json_object_get_string_len(value) ||
	    strlen(name) > 4000)
		return fault_set(f, EXIT_USAGE, -EINVAL, "\"name\" is empty or too long");
	*ret = name;
	return 0;
}

static bool has_device(const struct host_volume *v, enum host_phase phase)
{
	return phase != HOST_STARTING && host_volume_service(v)->device >= 0;
}

static void on_patience_over(struct watch *w)
{
	struct pending *p = (struct pending *)((char *)w - offsetof(struct pending, patience));
	struct fault f = { 0 };

	/* It goes on ending. */
	(void)fault_set(&f, EXIT_TIMED_OUT, -ETIMEDOUT, "%s: still served after %d seconds",
			host_volume_spec(p->volume), p->timeout_s);
	fault_hint(&f, "it finishes what is in flight first; is the cluster reachable?");
	if (p->call)
		fail(p->call, &f);
	forget(p);
}

/* Its volume ends; for as long as the call allows, it waits for that. */
static int end_volume(struct pending *p, enum host_stop how, struct fault *f)
{
	int s = p->timeout_s, r = timer_new();

	p->timeout_s = s < 0 ? PATIENCE_DEFAULT_S : s < PATIENCE_MAX_S ? s : PATIENCE_MAX_S;
	if (r >= 0) {
		p->patience.fd = r;
		p->patience.ready = on_patience_over;
		r = loop_add(p->methods->o.loop, &p->patience);
	}
	if (r < 0)
		return fault_set(f, EXIT_MEMORY, r, "cannot wait for a volume: %s", strerror(-r));
	/* No time at all is a look, as for the command; here 0 would be for ever. */
	timer_set(p->patience.fd, p->timeout_s > 0 ? (unsigned int)p->timeout_s * 1000u : 1);
	host_volume_stop(p->volume, how);
	return 0;
}

static int wait_end(struct methods *m, struct control_call *call, struct host_volume *v,
		    enum host_stop how, int timeout_s, struct fault *f)
{
	struct pending *p = new_pending(m, call);
	int r;

	if (!p)
		return fault_set(f, EXIT_MEMORY, -ENOMEM, "no memory for a call");
	p->volume = v;
	p->timeout_s = timeout_s;
	r = end_volume(p, how, f);
	if (r < 0)
		forget(p);
	return r;
}

static void on_unmapped(void *arg, const struct fault *f)
{
	struct pending *p = arg;
	struct fault own = { 0 };

	/* Only its keys were looked at: now it may go. */
	if (!f && p->volume) {
		p->child = unmap_child_free(p->child);
		if (end_volume(p, p->how, &own) == 0)
			return;
		f = &own;
	}
	if (p->call && f)
		fail(p->call, f);
	else if (p->call)
		succeed(p->call);
	forget(p);
}

/* The parameters "force" and "timeout". A text is never true: nothing is forced by mistake. */
static int get_force(struct control_call *call, struct unmap_child_options *ret, struct fault *f)
{
	struct json_object *force = NULL, *timeout = NULL;

	(void)json_object_object_get_ex(control_parameters(call), "force", &force);
	(void)json_object_object_get_ex(control_parameters(call), "timeout", &timeout);
	if (force && !json_object_is_type(force, json_type_boolean))
		return fault_set(f, EXIT_USAGE, -EINVAL, "\"force\" must be true or false");
	if (timeout &&
	    (!json_object_is_type(timeout, json_type_int) || json_object_get_int(timeout) < 0))
		return fault_set(f, EXIT_USAGE, -EINVAL, "\"timeout\" must be a number of seconds");
	ret->is_forced = json_object_get_boolean(force);
	ret->timeout_s = timeout ? json_object_get_int(timeout) : -1;
	return 0;
}

/* Whether a volume in this phase ends without a look at its keys. Before and after it serves there
 * are none to lose. */
static bool is_unasked(const struct unmap_child_options *o, enum host_phase phase)
{
	return o->is_forced || phase != HOST_SERVING;
}

/* volume: one whose keys are looked at before it is stopped, as how says; NULL: the child unmaps.
 */
static int start_child(struct methods *m, struct control_call *call, struct unmap_child_options *o,
		       struct host_volume *volume, enum host_stop how, struct fault *f)
{
	struct pending *p = new_pending(m, call);
	int r;

	if (!p)
		return fault_set(f, EXIT_MEMORY, -ENOMEM, "no memory for a call");
	o->loop = m->o.loop;
	o->run_dir = m->o.run_dir;
	o->is_check = volume != NULL;
	o->done = on_unmapped;
	o->arg = p;
	p->volume = volume;
	p->how = how;
	p->timeout_s = o->timeout_s;
	r = unmap_child_new(o, &p->child, f);
	if (r < 0)
		forget(p);
	return r;
}

static int unmap(struct methods *m, struct control_call *call, struct fault *f)
{
	struct unmap_child_options o = { 0 };
	struct host_volume *v = NULL;
	enum host_phase phase;
	int r = get_name(call, &o.name, f);

	if (r == 0)
		r = get_force(call, &o, f);
	if (r == 0)
		r = control_find(m->o.host, m->o.run_dir, o.name, &v, f);
	if (r < 0)
		return r;
	/* Asked once: the device of a start that ends meanwhile is looked at before it goes. */
	phase = v ? host_volume_phase(v) : HOST_ENDED;
	if (v && has_device(v, phase))
		v = NULL;
	if (v && is_unasked(&o, phase))
		return wait_end(m, call, v, HOST_DISCONNECT, o.timeout_s, f);
	return start_child(m, call, &o, v, HOST_DISCONNECT, f);
}

static int detach(struct methods *m, struct control_call *call, struct fault *f)
{
	struct unmap_child_options o = { 0 };
	struct host_volume *v = NULL;
	enum host_phase phase;
	int r = get_name(call, &o.name, f);

	if (r == 0)
		r = get_force(call, &o, f);
	if (r == 0)
		r = control_find(m->o.host, m->o.run_dir, o.name, &v, f);
	if (r < 0)
		return r;
	if (!v)
		return fault_set(f, EXIT_NOT_FOUND, -ENOENT, "%s is not served by this daemon",
				 o.name);
	phase = host_volume_phase(v);
	if (!has_device(v, phase))
		return fault_set(f, EXIT_USAGE, -EINVAL, "%s has no device to leave behind",
				 o.name);
	/* With the daemon the key goes, as it does with unmap. */
	return is_unasked(&o, phase) ? wait_end(m, call, v, HOST_DETACH, o.timeout_s, f)
				     : start_child(m, call, &o, v, HOST_DETACH, f);
}

/* ---- Status, Reload ---- */

static int write_volumes(const struct state_list *l, const struct volume_state *one,
			 struct json_object *array)
{
	for (unsigned int i = 0; i < l->n; i++) {
		struct json_object *o;

		if (one && one != &l->volumes[i])
			continue;
		o = view_to_json(&l->volumes[i]);
		if (!o || json_object_array_add(array, o) < 0) {
			json_object_put(o);
			return -ENOMEM;
		}
	}
	return 0;
}

static int status(struct methods *m, struct control_call *call, struct fault *f)
{
	struct json_object *value, *o, *array;
	const struct volume_state *one = NULL;
	const char *name;
	struct state_list l;
	int r = state_list(m->o.run_dir, &l, f);

	if (r < 0)
		return r;
	if (json_object_object_get_ex(control_parameters(call), "name", &value) && value) {
		r = get_name(call, &name, f);
		if (r == 0)
			r = state_find(&l, name, &one, f);
	}
	o = json_object_new_object();
	array = json_object_new_array();
	if (r == 0 && (!o || !array || write_volumes(&l, one, array) < 0))
		r = fault_set(f, EXIT_MEMORY, -ENOMEM, "no memory for the list of volumes");
	state_list_done(&l);
	if (r < 0) {
		json_object_put(array);
		json_object_put(o);
		return r;
	}
	(void)json_object_object_add(o, "volumes", array);
	control_reply(call, o);
	return 0;
}

static int reload(struct methods *m, struct control_call *call, struct fault *f)
{
	if (!control_is_trusted(call))
		return fault_set(f, EXIT_PASSPHRASE, -EPERM, "Reload: only root may ask for it");
	m->o.reload(m->o.arg);
	succeed(call);
	return 0;
}

/* ---- what every varlink service answers ---- */

static int get_info(struct methods *m, struct control_call *call, struct fault *f)
{
	struct json_object *o = json_object_new_object(), *array = json_object_new_array();

	(void)m;
	(void)f;
	if (o && array) {
		add_text(o, "vendor", "rbdcrypt-nbd");
		add_text(o, "product", "rbdcrypt-nbd");
		add_text(o, "version", VERSION);
		add_text(o, "url", HOMEPAGE);
		(void)json_object_array_add(array, json_object_new_string(SERVICE));
		(void)json_object_array_add(array, json_object_new_string(CONTROL_INTERFACE));
		(void)json_object_object_add(o, "interfaces", array);
	}
	control_reply(call, o);
	return 0;
}

static int get_description(struct methods *m, struct control_call *call, struct fault *f)
{
	struct json_object *value, *o;
	const char *name, *text;

	(void)m;
	(void)f;
	if (!json_object_object_get_ex(control_parameters(call), "interface", &value) ||
	    !json_object_is_type(value, json_type_string)) {
		refuse_name(call, SERVICE ".InvalidParameter", "parameter", "interface");
		return 0;
	}
	name = json_object_get_string(value);
	text = control_description(name);
	if (!text) {
		refuse_name(call, SERVICE ".InterfaceNotFound", "interface", name);
		return 0;
	}
	o = json_object_new_object();
	if (o)
		add_text(o, "description", text);
	control_reply(call, o);
	return 0;
}

/* ---- which is which ---- */

/* Each answers, or notes the call for later, or fails with the fault. */
static const struct method {
	const char *name;
	int (*run)(struct methods *m, struct control_call *call, struct fault *f);
} methods[] = {
	{ SERVICE ".GetInfo", get_info },
	{ SERVICE ".GetInterfaceDescription", get_description },
	{ CONTROL_INTERFACE ".Map", map },
	{ CONTROL_INTERFACE ".Attach", attach },
	{ CONTROL_INTERFACE ".Serve", serve },
	{ CONTROL_INTERFACE ".Unmap", unmap },
	{ CONTROL_INTERFACE ".Detach", detach },
	{ CONTROL_INTERFACE ".Status", status },
	{ CONTROL_INTERFACE ".Reload", reload },
};

static bool has_interface(const char *method, const char *interface)
{
	size_t len = strlen(interface);

	return strncmp(method, interface, len) == 0 && method[len] == '.' &&
	       !strchr(method + len + 1, '.');
}

/* The interface is what stands before a method's last dot. */
static void refuse_interface(struct control_call *call, const char *method)
{
	const char *dot = strrchr(method, '.');
	char *interface = strndup(method, dot ? (size_t)(dot - method) : strlen(method));

	if (interface)
		refuse_name(call, SERVICE ".InterfaceNotFound", "interface", interface);
	else
		control_refuse(call, SERVICE ".InterfaceNotFound", NULL);
	free(interface);
}

void methods_called(void *arg, struct control_call *call)
{
	struct methods *m = arg;
	const char *name = control_method(call);
	struct fault f = { 0 };

	for (size_t i = 0; i < sizeof(methods) / sizeof(methods[0]); i++) {
		if (strcmp(methods[i].name, name) != 0)
			continue;
		if (methods[i].run(m, call, &f) < 0)
			fail(call, &f);
		return;
	}
	if (has_interface(name, SERVICE) || has_interface(name, CONTROL_INTERFACE))
		refuse_name(call, SERVICE ".MethodNotFound", "method", name);
	else
		refuse_interface(call, name);
}

int methods_new(const struct methods_options *o, struct methods **ret)
{
	struct methods *m = calloc(1, sizeof(*m));

	if (!m)
		return -ENOMEM;
	m->o = *o;
	*ret = m;
	return 0;
}

struct methods *methods_free(struct methods *m)
{
	if (!m)
		return NULL;
	while (m->pending)
		forget(m->pending);
	free(m);
	return NULL;
}
