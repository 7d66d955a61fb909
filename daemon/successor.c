/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Copyright (C) 2026 the rbdcrypt-nbd authors */

/*
 * What a daemon was asked is in the state file of each volume, so its successor can ask itself the
 * same. A device is attached again: its requests wait in the kernel. A socket is made again: its
 * clients come back by themselves.
 *
 * An orderly predecessor also left the device's sockets (handover.c), for this daemon to go on
 * with. Those of a device that it is not going to serve are let go as soon as that is clear.
 *
 * What cannot be had now, a key whose source is away or a cluster that does not answer, may be had
 * later: it is tried again and again, less and less often, and the state file says what is waited
 * for. Only a passphrase that does not fit is not tried again by itself: it will not fit the next
 * time. Nor does one come back by itself that was given once, on standard input or as a descriptor.
 */

#include "successor.h"

#include <errno.h>
#include <json-c/json_tokener.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "clock.h"
#include "control_request.h"
#include "event_about.h"
#include "log.h"
#include "nbdctl.h"
#include "state.h"
#include "text.h"

#define AGAIN_FIRST_MS 500
#define AGAIN_MAX_MS 30000
/* Somebody else may have attached, or unmapped, a device whose sockets wait here. */
#define SWEEP_MS 2000

/* One that failed. */
struct failed {
	struct failed *next;
	char *key;
	unsigned int wait_ms; /* before the next try; 0: none by itself */
	int64_t due_ms;
	char said[256]; /* to the log, the last time */
};

struct successor {
	struct successor_options o;
	struct watch timer;
	struct failed *failed;
};

/* ---- what failed before ---- */

static struct failed *find_failed(struct successor *r, const char *key)
{
	for (struct failed *f = r->failed; f; f = f->next)
		if (strcmp(f->key, key) == 0)
			return f;
	return NULL;
}

static void forget(struct successor *r, const char *key)
{
	struct failed **link = &r->failed;

	while (*link && strcmp((*link)->key, key) != 0)
		link = &(*link)->next;
	if (*link) {
		struct failed *f = *link;

		*link = f->next;
		free(f->key);
		free(f);
	}
}

static void set_timer(struct successor *r)
{
	int64_t now = clock_ms(), next = -1;

	for (struct failed *f = r->failed; f; f = f->next)
		if (f->wait_ms > 0 && (next < 0 || f->due_ms < next))
			next = f->due_ms;
	if (handover_is_waiting(r->o.handover) && (next < 0 || now + SWEEP_MS < next))
		next = now + SWEEP_MS;
	timer_set(r->timer.fd, next < 0 ? 0 : next <= now ? 1 : (unsigned int)(next - now));
}

static void note_failure(struct successor *r, const char *key, const struct fault *why,
			 const struct event_about *volume)
{
	struct event_about about = *volume;
	struct failed *f = find_failed(r, key);
	char health[256];

	if (!f) {
		f = calloc(1, sizeof(*f));
		if (f)
			f->key = strdup(key);
		if (!f || !f->key) {
			free(f);
			return;
		}
		f->wait_ms = AGAIN_FIRST_MS;
		f->next = r->failed;
		r->failed = f;
	} else if (f->wait_ms == 0) {
		/* It did not fit, and somebody asked for it: now it is something else. */
		f->wait_ms = AGAIN_FIRST_MS;
	} else {
		f->wait_ms = f->wait_ms * 2 < AGAIN_MAX_MS ? f->wait_ms * 2 : AGAIN_MAX_MS;
	}
	if (why->error == -EPERM)
		f->wait_ms = 0;
	f->due_ms = clock_ms() + f->wait_ms;
	(void)snprintf(health, sizeof(health), "waits: %.240s", why->message);
	about.fault = why;
	/* The same again is no news, and may come for days. */
	if (strcmp(f->said, health) != 0)
		event_log(EVENT_WAITS, &about, "%s", health);
	text_copy(f->said, sizeof(f->said), health);
	state_note_health(r->o.run_dir, key, health);
	set_timer(r);
}

void successor_ended(struct successor *r, const struct host_volume *v)
{
	const char *key = host_volume_resumed(v);
	const struct fault *why = host_volume_fault(v);

	const struct event_about about = event_about_image(
		host_volume_spec(v), &host_volume_options(v)->spec, host_volume_service(v)->device);

	if (key && why && why->error != -EINTR)
		note_failure(r, key, why, &about);
	else if (key)
		forget(r, key);
}

/* ---- trying ---- */

static bool is_left(const struct volume_state *v)
{
	struct nbd_sysfs kernel;

	if (!v->is_hosted || !v->request || volume_is_alive(v))
		return false;
	if (v->device < 0)
		return v->socket[0] != '\0';
	return nbd_sysfs_read(v->device, &kernel) == 0 && kernel.is_connected &&
	       (!kernel.cookie[0] || strcmp(kernel.cookie, v->cookie) == 0);
}

struct search {
	const char *key;
	bool is_found;
};

static void compare(void *arg, struct host_volume *v)
{
	struct search *s = arg;
	const char *key = host_volume_resumed(v);

	if (key && strcmp(key, s->key) == 0)
		s->is_found = true;
}

static bool is_ours(const struct successor *r, const char *key)
{
	struct search s = { .key = key };

	host_for_each(r->o.host, compare, &s);
	return s.is_found;
}

struct wanted {
	const struct successor *successor;
	const struct state_list *list;
};

/* Whether the sockets of a device are still for us. */
static bool is_wanted(void *arg, int device)
{
	const struct wanted *w = arg;

	for (unsigned int i = 0; i < w->list->n; i++) {
		const struct volume_state *v = &w->list->volumes[i];

		if (v->device == device && (is_left(v) || is_ours(w->successor, v->key)))
			return true;
	}
	return false;
}

static int no_fd(void *arg, unsigned int i)
{
	(void)arg;
	(void)i;
	return -EBADF;
}

/* -EPERM: it is not tried again by itself. */
static int refuse_once(const struct volume_state *v, struct fault *f)
{
	static const char why[] = "its passphrase was given once and is not kept";

	fault_clear(f);
	if (v->device < 0) {
		(void)fault_set(f, EXIT_PASSPHRASE, -EPERM, "%s: serve it again", why);
		fault_hint(f, "rbdcrypt-nbd serve, with the options and the passphrase that it "
			      "was served with");
		return -EPERM;
	}
	(void)fault_set(f, EXIT_PASSPHRASE, -EPERM, "%s: attach /dev/nbd%d again", why, v->device);
	fault_hint(f,
		   "rbdcrypt-nbd attach --device /dev/nbd%d, with the options and the "
		   "passphrase that it was mapped with",
		   v->device);
	return -EPERM;
}

static int read_options(const struct volume_state *v, struct options **ret, struct fault *f)
{
	struct json_object *request = json_tokener_parse(v->request);
	int r;

	if (!json_object_is_type(request, json_type_object))
		r = fault_set(f, EXIT_HEADER, -EBADMSG, "%s: its request is damaged", v->key);
	else
		r = control_request_read(request, v->device >= 0 ? COMMAND_MAP : COMMAND_SERVE,
					 /* is_trusted */ true, no_fd, NULL, ret, f);
	json_object_put(request);
	return r == -ENOKEY ? refuse_once(v, f) : r;
}

/* The device that it has, whatever was asked for. */
static int set_device(struct options *o, int index, struct fault *f)
{
	free(o->device);
	if (asprintf(&o->device, "/dev/nbd%d", index) >= 0)
		return 0;
	o->device = NULL;
	return fault_set(f, EXIT_MEMORY, -ENOMEM, "no memory for a volume");
}

static void start(struct successor *r, const struct volume_state *v)
{
	struct host_add add = { .kind = v->device >= 0 ? MAPPING_ATTACH : MAPPING_SERVE,
				.listen_fd = -1,
				.request = v->request,
				.resumed = v->key };
	char spec[1024];
	const struct event_about about = event_about_state(spec, v);
	struct options *o = NULL;
	struct fault f = { 0 };
	int e = read_options(v, &o, &f);

	volume_state_spec(v, spec, sizeof(spec));
	if (e == 0 && v->device >= 0)
		e = set_device(o, v->device, &f);
	if (e == 0) {
		e = host_add_take(r->o.host, &add, &o, NULL);
		if (e < 0)
			(void)fault_set(&f, EXIT_MEMORY, e, "%s: cannot be started: %s", v->key,
					strerror(-e));
	}
	if (o) {
		options_done(o);
		free(o);
	}
	if (e < 0)
		note_failure(r, v->key, &f, &about);
}

/*
 * What is still due was not started: it is being started or served already, its file is gone, or
 * could not be read. Else the timer would come again at once, and again. l: NULL when there is
 * none.
 */
static void put_off(struct successor *r, const struct state_list *l)
{
	int64_t now = clock_ms();

	for (struct failed *f = r->failed, *next; f; f = next) {
		next = f->next;
		if (f->wait_ms == 0 || f->due_ms > now)
			continue;
		if (l && l->n_damaged == 0 && !state_list_key(l, f->key))
			forget(r, f->key);
		else
			f->due_ms = now + f->wait_ms;
	}
}

static void try(struct successor *r, bool is_due_only)
{
	struct state_list l;
	struct wanted wanted = { .successor = r, .list = &l };
	struct fault f = { 0 };

	if (state_list(r->o.run_dir, &l, &f) < 0) {
		log_error(NULL, "cannot see what an earlier daemon left: %s", f.message);
		put_off(r, NULL);
		set_timer(r);
		return;
	}
	for (unsigned int i = 0; i < l.n; i++) {
		const struct volume_state *v = &l.volumes[i];
		struct failed *failed = find_failed(r, v->key);

		if (is_ours(r, v->key))
			continue;
		if (!is_left(v)) {
			forget(r, v->key);
			continue;
		}
		if (is_due_only && (!failed || failed->wait_ms == 0 || failed->due_ms > clock_ms()))
			continue;
		start(r, v);
	}
	handover_sweep(r->o.handover, is_wanted, &wanted);
	put_off(r, &l);
	state_list_done(&l);
	set_timer(r);
}

void successor_try(struct successor *r)
{
	/* Somebody wants to know. */
	for (struct failed *f = r->failed; f; f = f->next)
		f->said[0] = '\0';
	try(r, false);
}

static void on_timer(struct watch *w)
{
	struct successor *r = (struct successor *)((char *)w - offsetof(struct successor, timer));

	timer_clear(w->fd);
	try(r, true);
}

int successor_new(const struct successor_options *o, struct successor **ret)
{
	struct successor *r = calloc(1, sizeof(*r));
	int e;

	if (!r)
		return -ENOMEM;
	r->o = *o;
	r->timer.fd = -1;
	e = loop_watch(o->loop, &r->timer, timer_new(), on_timer);
	if (e < 0) {
		if (r->timer.fd >= 0)
			(void)close(r->timer.fd);
		free(r);
		return e;
	}
	*ret = r;
	return 0;
}

struct successor *successor_free(struct successor *r)
{
	if (!r)
		return NULL;
	while (r->failed)
		forget(r, r->failed->key);
	loop_remove(r->o.loop, &r->timer);
	(void)close(r->timer.fd);
	free(r);
	return NULL;
}
