/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Copyright (C) 2026 the rbdcrypt-nbd authors */

/*
 * How a volume ends when a client asks. Whoever has it as a device has a child unmap it, which
 * opens the device; else the child only looks at its keys, and the volume is told to end. It has
 * ended when the host says so; who asked waits for that no longer than it allows.
 */

#include "control_unmap.h"

#include <errno.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>

#include "control_find.h"
#include "control_pending.h"
#include "state.h"
#include "text.h"
#include "unmap_child.h"

/* For a volume to end, as the unmap command has it: what the caller does not say, and at most. */
#define PATIENCE_DEFAULT_S 30
#define PATIENCE_MAX_S (30 * 24 * 3600)

/* What a call wants to end. */
struct ending {
	struct unmap_child_options o;
	struct host_volume *volume; /* NULL: this daemon has none of that name */
	enum host_phase phase; /* of it. Asked once: a start may end meanwhile. */
	char name[256]; /* of a device or socket, for the child */
};

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
		control_fail(p->call, &f);
	pending_forget(p);
}

/* Its volume ends; for as long as the call allows, it waits for that. */
static int end_volume(struct pending *p, enum host_stop how, struct fault *f)
{
	int s = p->timeout_s;
	int r = loop_watch(p->methods->o.loop, &p->patience, timer_new(), on_patience_over);

	p->timeout_s = s < 0 ? PATIENCE_DEFAULT_S : s < PATIENCE_MAX_S ? s : PATIENCE_MAX_S;
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
	struct pending *p = pending_new(m, call);
	int r;

	if (!p)
		return fault_set(f, EXIT_MEMORY, -ENOMEM, "no memory for a call");
	p->volume = v;
	p->timeout_s = timeout_s;
	r = end_volume(p, how, f);
	if (r < 0)
		pending_forget(p);
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
		control_fail(p->call, f);
	else if (p->call)
		control_succeed(p->call);
	pending_forget(p);
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
	struct pending *p = pending_new(m, call);
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
		pending_forget(p);
	return r;
}

static int read_call(struct methods *m, struct control_call *call, struct ending *ret,
		     struct fault *f)
{
	int r = control_get_name(call, &ret->o.name, f);

	if (r == 0)
		r = get_force(call, &ret->o, f);
	if (r == 0)
		r = control_find(m->o.host, m->o.run_dir, ret->o.name, &ret->volume, f);
	ret->phase = r == 0 && ret->volume ? host_volume_phase(ret->volume) : HOST_ENDED;
	return r;
}

/* What clients call it may mean another device to the child: a cookie can be any text. */
static void name_device(struct ending *e, int device)
{
	(void)snprintf(e->name, sizeof(e->name), "/dev/nbd%d", device);
	e->o.name = e->name;
}

/*
 * The child can end whatever root can: volumes of other processes, and devices of other programs.
 * Who is not root has it end what this daemon serves, or an earlier one has left to it.
 */
static int name_left(struct methods *m, struct ending *e, struct fault *f)
{
	const struct volume_state *v;
	struct state_list l;
	int r = state_list(m->o.run_dir, &l, f);

	if (r < 0)
		return r;
	r = state_find(&l, e->o.name, &v, f);
	if (r == 0 && (!v->is_hosted || volume_is_alive(v)))
		r = fault_set(f, EXIT_PASSPHRASE, -EPERM,
			      "%s: only root may unmap what this daemon does not serve", e->o.name);
	if (r == 0 && v->device >= 0) {
		name_device(e, v->device);
	} else if (r == 0) {
		text_copy(e->name, sizeof(e->name), v->socket);
		e->o.name = e->name;
	}
	state_list_done(&l);
	return r;
}

/* Whether its keys are looked at first. */
static int end(struct methods *m, struct control_call *call, struct ending *e, enum host_stop how,
	       struct fault *f)
{
	return e->volume && is_unasked(&e->o, e->phase)
		       ? wait_end(m, call, e->volume, how, e->o.timeout_s, f)
		       : start_child(m, call, &e->o, e->volume, how, f);
}

int methods_unmap(struct methods *m, struct control_call *call, struct fault *f)
{
	struct ending e = { 0 };
	int r = read_call(m, call, &e, f);

	if (r == 0 && e.volume && has_device(e.volume, e.phase)) {
		name_device(&e, host_volume_service(e.volume)->device);
		/* It is looked at before it goes. */
		e.volume = NULL;
	} else if (r == 0 && !e.volume && !control_is_trusted(call)) {
		r = name_left(m, &e, f);
	}
	return r < 0 ? r : end(m, call, &e, HOST_DISCONNECT, f);
}

int methods_detach(struct methods *m, struct control_call *call, struct fault *f)
{
	struct ending e = { 0 };
	int r = read_call(m, call, &e, f);

	if (r < 0)
		return r;
	if (!e.volume)
		return fault_set(f, EXIT_NOT_FOUND, -ENOENT, "%s is not served by this daemon",
				 e.o.name);
	if (!has_device(e.volume, e.phase))
		return fault_set(f, EXIT_USAGE, -EINVAL, "%s has no device to leave behind",
				 e.o.name);
	name_device(&e, host_volume_service(e.volume)->device);
	/* With the daemon the key goes, as it does with unmap. */
	return end(m, call, &e, HOST_DETACH, f);
}
