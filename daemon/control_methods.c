/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Copyright (C) 2026 the rbdcrypt-nbd authors */

/*
 * From a call to what it asks for, and its answer. A call whose answer takes its time is noted in
 * control_pending.c. How volumes end is control_unmap.c's.
 */

#include "control_methods.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "control_find.h"
#include "control_pending.h"
#include "control_request.h"
#include "control_unmap.h"
#include "state.h"
#include "view.h"

#define SERVICE CONTROL_SERVICE
#define HOMEPAGE "man:rbdcrypt-nbd-control(7)"

/* ---- answers ---- */

static void refuse_name(struct control_call *call, const char *error, const char *key,
			const char *name)
{
	struct json_object *o = json_object_new_object();

	if (o)
		control_add_text(o, key, name);
	control_refuse(call, error, o);
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
		p = pending_new(m, call);
		r = p && request ? host_add_take(m->o.host, &add, &o, &p->volume) : -ENOMEM;
		json_object_put(request);
		if (p && r == 0)
			p->is_start = true;
		else if (p)
			pending_forget(p);
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
		r = control_get_name(call, &name, f);
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
	control_succeed(call);
	return 0;
}

/* ---- what every varlink service answers ---- */

static int get_info(struct methods *m, struct control_call *call, struct fault *f)
{
	struct json_object *o = json_object_new_object(), *array = json_object_new_array();

	(void)m;
	(void)f;
	if (o && array) {
		control_add_text(o, "vendor", "rbdcrypt-nbd");
		control_add_text(o, "product", "rbdcrypt-nbd");
		control_add_text(o, "version", VERSION);
		control_add_text(o, "url", HOMEPAGE);
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
		control_add_text(o, "description", text);
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
	{ CONTROL_INTERFACE ".Unmap", methods_unmap },
	{ CONTROL_INTERFACE ".Detach", methods_detach },
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
			control_fail(call, &f);
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
		pending_forget(m->pending);
	free(m);
	return NULL;
}
