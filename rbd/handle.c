/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Copyright (C) 2026 the rbdcrypt-nbd authors */

/*
 * librbd's image handles, opened, called and closed with a time limit, because librbd
 * waits for ever when OSDs do not answer. Called from commands and the threads of volumes;
 * the calls run on threads of limit.c. What such a thread touches it owns or counts:
 * a call that ran out of time keeps the handle, and the connection below it, until it
 * comes back; then they are closed if nobody else has them.
 */

#include "handle.h"
#include "limit.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static struct handle *handle_ref(struct handle *h)
{
	atomic_fetch_add(&h->refs, 1);
	return h;
}

static struct handle *handle_unref(struct handle *h)
{
	if (!h || atomic_fetch_sub(&h->refs, 1) != 1)
		return NULL;
	if (h->image)
		(void)rbd_close(h->image);
	if (h->io)
		rados_ioctx_destroy(h->io);
	cluster_unref(h->cluster);
	free(h);
	return NULL;
}

static int unref_call(void *arg)
{
	handle_unref(arg);
	return 0;
}

static void unref_late(void *arg)
{
	(void)arg; /* gone already */
}

struct handle *handle_close(struct handle *h, unsigned int timeout_s)
{
	bool is_late;

	/* No thread to be had: then it has to be waited for. */
	if (h && limit_call(timeout_s, unref_call, unref_late, h, &is_late) < 0 && !is_late)
		handle_unref(h);
	return NULL;
}

/* ---- calls ---- */

struct call {
	struct handle *handle; /* one reference */
	handle_fn fn;
	unsigned char data[];
};

static int call_run(void *arg)
{
	struct call *call = arg;

	return call->fn(call->handle, call->data);
}

static void call_free(void *arg)
{
	struct call *call = arg;

	handle_unref(call->handle);
	free(call);
}

int handle_call_late(struct handle *h, const struct interrupt *i, unsigned int timeout_s,
		     handle_fn fn, void *data, size_t len, bool *ret_is_late)
{
	struct call *call = malloc(sizeof(*call) + len);
	int r;

	*ret_is_late = false;
	if (!call)
		return -ENOMEM;
	call->handle = handle_ref(h);
	call->fn = fn;
	memcpy(call->data, data, len);
	r = limit_call_unless(i, timeout_s, call_run, call_free, call, ret_is_late);
	if (*ret_is_late)
		return r;
	if (r >= 0)
		memcpy(data, call->data, len);
	call_free(call);
	return r;
}

int handle_call(struct handle *h, unsigned int timeout_s, handle_fn fn, void *data, size_t len)
{
	return handle_call_unless(h, NULL, timeout_s, fn, data, len);
}

int handle_call_unless(struct handle *h, const struct interrupt *i, unsigned int timeout_s,
		       handle_fn fn, void *data, size_t len)
{
	bool is_late;

	return handle_call_late(h, i, timeout_s, fn, data, len, &is_late);
}

/* ---- opening ---- */

enum open_step { OPEN_POOL, OPEN_NAMESPACE, OPEN_IMAGE, OPEN_PARENT, OPEN_SNAP };

struct open_call {
	struct handle *handle; /* one reference; half-built until the call has succeeded */
	struct place place; /* its strings are copies, below */
	enum open_step step; /* how far it came */
	char *strings[5];
};

static int copy_string(struct open_call *o, unsigned int i, const char **s)
{
	if (!*s)
		return 0;
	o->strings[i] = strdup(*s);
	*s = o->strings[i];
	return *s ? 0 : -ENOMEM;
}

static int open_image(struct handle *h, const struct place *p, bool is_read_only)
{
	h->is_read_only = is_read_only;
	if (is_read_only)
		return p->image ? rbd_open_read_only(h->io, p->image, &h->image, NULL)
				: rbd_open_by_id_read_only(h->io, p->image_id, &h->image, NULL);
	return p->image ? rbd_open(h->io, p->image, &h->image, NULL)
			: rbd_open_by_id(h->io, p->image_id, &h->image, NULL);
}

/* librbd opens an image's parents with it, and says the same of those. */
static bool is_there(struct handle *h, const struct place *p)
{
	char object[4200];
	uint64_t size;
	time_t changed;

	if (p->image)
		(void)snprintf(object, sizeof(object), "rbd_id.%s", p->image);
	else
		(void)snprintf(object, sizeof(object), "rbd_header.%s", p->image_id);
	return rados_stat(h->io, object, &size, &changed) == 0;
}

static int open_steps(struct open_call *o)
{
	const struct place *p = &o->place;
	struct handle *h = o->handle;
	rados_t rados = cluster_rados(h->cluster);
	bool exists = true;
	int r;

	o->step = OPEN_POOL;
	r = p->pool ? rados_ioctx_create(rados, p->pool, &h->io)
		    : rados_ioctx_create2(rados, p->pool_id, &h->io);
	if (r < 0) {
		h->io = NULL;
		return r;
	}
	rados_ioctx_set_namespace(h->io, p->nspace);
	o->step = OPEN_IMAGE;
	r = open_image(h, p, !p->has_watch && !p->is_writer);
	if ((r == -EPERM || r == -EACCES || r == -EROFS) && p->has_watch && !p->is_writer)
		r = open_image(h, p, true);
	if (r < 0) {
		h->image = NULL;
		if (r == -ENOENT && p->nspace[0] &&
		    rbd_namespace_exists(h->io, p->nspace, &exists) == 0 && !exists)
			o->step = OPEN_NAMESPACE;
		else if (r == -ENOENT && is_there(h, p))
			o->step = OPEN_PARENT;
		return r;
	}
	o->step = OPEN_SNAP;
	if (p->snap)
		return rbd_snap_set(h->image, p->snap);
	return p->snap_id != UINT64_MAX ? rbd_snap_set_by_id(h->image, p->snap_id) : 0;
}

static int open_run(void *arg)
{
	return open_steps(arg);
}

static void open_free(void *arg)
{
	struct open_call *o = arg;

	if (!o)
		return;
	handle_unref(o->handle);
	for (unsigned int i = 0; i < sizeof(o->strings) / sizeof(o->strings[0]); i++)
		free(o->strings[i]);
	free(o);
}

static struct open_call *open_new(struct cluster *c, const struct place *place)
{
	struct open_call *o = calloc(1, sizeof(*o));

	if (!o)
		return NULL;
	o->handle = calloc(1, sizeof(*o->handle));
	if (!o->handle) {
		free(o);
		return NULL;
	}
	o->handle->cluster = cluster_ref(c);
	atomic_init(&o->handle->refs, 1);
	o->place = *place;
	if (copy_string(o, 0, &o->place.pool) < 0 || copy_string(o, 1, &o->place.nspace) < 0 ||
	    copy_string(o, 2, &o->place.image) < 0 || copy_string(o, 3, &o->place.image_id) < 0 ||
	    copy_string(o, 4, &o->place.snap) < 0) {
		open_free(o);
		return NULL;
	}
	return o;
}

static int explain_open(const struct place *p, enum open_step step, int error, const char *subject,
			struct fault *f)
{
	if (error == -ENOSYS)
		fault_hint(f,
			   "rbd_plugins may ask for a plugin that this machine has not: rbd "
			   "config image ls %s",
			   subject);
	if (error != -ENOENT)
		return cluster_fault(f, error, subject, "cannot open the image");
	switch (step) {
	case OPEN_POOL:
		if (p->pool)
			fault_set(f, EXIT_NOT_FOUND, error, "%s: no pool '%s'", subject, p->pool);
		else
			fault_set(f, EXIT_NOT_FOUND, error, "%s: no pool with id %lld", subject,
				  (long long)p->pool_id);
		fault_hint(f, "see 'ceph osd pool ls'");
		break;
	case OPEN_NAMESPACE:
		fault_set(f, EXIT_NOT_FOUND, error, "%s: no namespace '%s' in the pool", subject,
			  p->nspace);
		fault_hint(f, "see 'rbd namespace ls POOL'");
		break;
	case OPEN_IMAGE:
		fault_set(f, EXIT_NOT_FOUND, error, "%s: no image '%s'", subject,
			  p->image ? p->image : p->image_id);
		fault_hint(f, "see 'rbd ls POOL[/NAMESPACE]'");
		break;
	case OPEN_PARENT:
		fault_set(f, EXIT_NOT_FOUND, error,
			  "%s: its parent, or an image above that, cannot be opened: it is gone",
			  subject);
		fault_hint(f, "what the clone has not written itself is lost with its parent; see "
			      "'rbd trash ls --all POOL' and 'rbd snap ls --all' for what is left");
		break;
	case OPEN_SNAP:
		if (p->snap)
			fault_set(f, EXIT_NOT_FOUND, error, "%s: no snapshot '%s'", subject,
				  p->snap);
		else
			fault_set(f, EXIT_NOT_FOUND, error, "%s: no snapshot with id %llu", subject,
				  (unsigned long long)p->snap_id);
		fault_hint(f, "see 'rbd snap ls --all IMAGE'");
		break;
	}
	return error;
}

int handle_open(struct cluster *c, const struct place *place, const char *subject,
		unsigned int timeout_s, const struct interrupt *i, struct handle **ret,
		struct fault *f)
{
	struct open_call *o = open_new(c, place);
	bool is_late;
	int r;

	if (!o)
		return fault_set(f, EXIT_MEMORY, -ENOMEM, "%s: out of memory", subject);
	r = limit_call_unless(i, timeout_s, open_run, open_free, o, &is_late);
	if (is_late && r == -EINTR)
		return fault_set(f, EXIT_TIMED_OUT, r, "%s: interrupted while it was opened",
				 subject);
	if (is_late)
		return cluster_fault(f, -ETIMEDOUT, subject, "cannot open the image");
	if (r < 0) {
		explain_open(place, o->step, r, subject, f);
	} else {
		*ret = o->handle;
		o->handle = NULL;
		r = 0;
	}
	open_free(o);
	return r;
}
