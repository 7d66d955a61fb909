/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Copyright (C) 2026 the rbdcrypt-nbd authors */

/*
 * What a call waits for, from when it is noted until it is answered or forgotten. A client that
 * goes away while its volume starts takes the start back: nobody would know of the device. One that
 * goes away while its volume ends changes nothing.
 */

#include "control_pending.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "control_request.h"
#include "unmap_child.h"

/* ---- answers ---- */

void control_fail(struct control_call *call, const struct fault *f)
{
	control_refuse(call, CONTROL_FAILED, control_fault_write(f));
}

void control_succeed(struct control_call *call)
{
	control_reply(call, json_object_new_object());
}

void control_add_text(struct json_object *o, const char *key, const char *text)
{
	(void)json_object_object_add(o, key, json_object_new_string(text));
}

static void announce(struct control_call *call, const struct host_volume_service *s)
{
	struct json_object *o = json_object_new_object();
	char device[32];

	(void)snprintf(device, sizeof(device), "/dev/nbd%d", s->device);
	if (o && s->device >= 0) {
		control_add_text(o, "device", device);
		control_add_text(o, "cookie", s->cookie);
	} else if (o) {
		control_add_text(o, "socket", s->socket);
	}
	control_reply(call, o);
}

/* ---- what waits ---- */

struct pending *pending_new(struct methods *m, struct control_call *call)
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

void pending_forget(struct pending *p)
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
		pending_forget(p);
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
			control_fail(p->call, why ? why : &f);
		else if (p->call)
			control_succeed(p->call);
		pending_forget(p);
	}
	return was_awaited;
}
