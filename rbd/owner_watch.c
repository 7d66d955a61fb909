/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Copyright (C) 2026 the rbdcrypt-nbd authors */

/*
 * An owner's watch on the image's header: by it others know that we are alive, and ask for what
 * they want. The callbacks run on a thread of librados, one at a time; they decide by notice.h
 * and what they find under the mutex, acknowledge, and leave the work to the owner's thread.
 * Every notification is acknowledged once. (spec: rados-engine 2.4, 3.4, 3.6)
 */

#include "owner_private.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "log.h"

/* How long the OSD waits for a sign of life before it drops our watch, and others may fence us. */
#define WATCH_TIMEOUT_S 15
#define GRANT_MS 30000
#define REQUEST_TIMEOUT_MS 5000

static void acknowledge(struct owner *o, uint64_t id, uint64_t handle, const void *buf, size_t len)
{
	/* It is not waited for, and one that gets lost is a timeout for who asked. */
	(void)rados_notify_ack(o->io, o->object, id, handle, buf, (int)len);
}

static bool is_granted(const struct owner *o, uint64_t gid)
{
	for (unsigned int i = 0; i < OWNER_GRANTS; i++)
		if (o->grants[i].gid == gid && o->grants[i].until_ms > clock_ms())
			return true;
	return false;
}

static void grant(struct owner *o, uint64_t gid)
{
	unsigned int oldest = 0;

	for (unsigned int i = 0; i < OWNER_GRANTS; i++) {
		if (o->grants[i].gid == gid) {
			oldest = i;
			break;
		}
		if (o->grants[i].until_ms < o->grants[oldest].until_ms)
			oldest = i;
	}
	o->grants[oldest].gid = gid;
	o->grants[oldest].until_ms = clock_ms() + GRANT_MS;
}

static bool is_owner(const struct owner *o)
{
	return o->o.has_lock && (o->state == OWNER_LOCKED || o->state == OWNER_RELEASING);
}

/* Does what the answer says; returns whether the acknowledgement has to wait. Mutex held. */
static bool note(struct owner *o, uint64_t id, uint64_t sender, const struct notice_answer *a)
{
	bool is_deferred = false;

	if (a->todo & NOTICE_DO_GRANT)
		grant(o, sender);
	if ((a->todo & NOTICE_DO_RELEASE) && o->state == OWNER_LOCKED)
		o->state = OWNER_RELEASING;
	if (a->todo & NOTICE_DO_ACQUIRED) {
		o->foreign_acquired_ms = clock_ms();
		o->foreign_released = false;
	}
	if (a->todo & NOTICE_DO_RELEASED)
		o->foreign_released = true;
	if (a->todo & NOTICE_DO_REFRESH) {
		o->todo |= TODO_REFRESH;
		/* Without a lock, who made a snapshot waits until no old write can follow. */
		if (!o->o.has_lock && o->state != OWNER_LOST && !o->is_stopped &&
		    o->n_deferred < OWNER_DEFERRED) {
			o->deferred[o->n_deferred++] = id;
			is_deferred = true;
		}
	}
	if (a->todo)
		(void)pthread_cond_broadcast(&o->more);
	return is_deferred;
}

static void on_notice(void *arg, uint64_t id, uint64_t handle, uint64_t sender, void *data,
		      size_t len)
{
	struct owner *o = arg;
	struct notice n = { .op = UINT32_MAX };
	struct notice_answer a = { 0 };
	struct notice_view v = { .is_guarded = o->o.is_guarded, .is_layered = o->o.is_layered };
	unsigned char buf[NOTICE_MAX];
	bool is_deferred = false;

	/* What cannot be read is not answered with anything but a sign of life. */
	if (notice_decode(data, len, &n) == 0) {
		(void)pthread_mutex_lock(&o->lock);
		v.us = o->us;
		v.is_owner = is_owner(o);
		v.is_granted = is_granted(o, sender);
		v.raw_size = o->raw_size;
		notice_answer(&n, &v, &a);
		is_deferred = note(o, id, sender, &a);
		(void)pthread_mutex_unlock(&o->lock);
	}
	log_debug(o->spec, "client %" PRIu64 ": %s, answered %d", sender, notice_name(n.op),
		  a.result);
	if (is_deferred)
		return;
	if (a.has_result)
		acknowledge(o, id, handle, buf, notice_encode_result(a.result, buf));
	else
		acknowledge(o, id, handle, NULL, 0);
	if (a.todo & NOTICE_DO_LOG)
		log_warning(o->spec, "client %" PRIu64 " asked for %s and was refused: %s", sender,
			    notice_name(n.op), a.remedy);
}

static void on_watch_error(void *arg, uint64_t handle, int error)
{
	struct owner *o = arg;

	(void)handle;
	(void)pthread_mutex_lock(&o->lock);
	o->watch_error = error;
	o->todo |= TODO_REWATCH;
	/* Whoever could not reach us may be taking the lock right now. */
	if (!o->is_stopped)
		gate_close(o->o.gate);
	(void)pthread_cond_broadcast(&o->more);
	(void)pthread_mutex_unlock(&o->lock);
}

unsigned int owner_deferred(struct owner *o)
{
	unsigned int n;

	(void)pthread_mutex_lock(&o->lock);
	n = o->n_deferred;
	(void)pthread_mutex_unlock(&o->lock);
	return n;
}

void owner_acknowledge_deferred(struct owner *o, unsigned int n)
{
	uint64_t ids[OWNER_DEFERRED];

	(void)pthread_mutex_lock(&o->lock);
	if (n > o->n_deferred)
		n = o->n_deferred;
	memcpy(ids, o->deferred, n * sizeof(ids[0]));
	o->n_deferred -= n;
	memmove(o->deferred, o->deferred + n, o->n_deferred * sizeof(ids[0]));
	(void)pthread_mutex_unlock(&o->lock);
	for (unsigned int i = 0; i < n; i++)
		acknowledge(o, ids[i], o->watch, NULL, 0);
}

int owner_watch(struct owner *o, const struct patience *p)
{
	rados_completion_t completion;
	struct osd_call *call;
	bool is_late = false;
	uint64_t *handle = malloc(sizeof(*handle));
	int r = handle ? osd_begin(&call, &completion) : -ENOMEM;

	if (r < 0) {
		free(handle);
		return r;
	}
	r = rados_aio_watch2(o->io, o->object, completion, handle, on_notice, on_watch_error,
			     WATCH_TIMEOUT_S, o);
	if (r < 0) {
		osd_forget(call);
		free(handle);
		return r;
	}
	r = osd_wait(call, p, handle, &is_late);
	if (is_late) {
		o->is_abandoned = true;
		return r;
	}
	if (r >= 0) {
		o->watch = *handle;
		o->has_watch = true;
		(void)pthread_mutex_lock(&o->lock);
		o->us.gid = rados_get_instance_id(cluster_rados(o->o.cluster));
		o->us.handle = *handle;
		(void)pthread_mutex_unlock(&o->lock);
	}
	free(handle);
	return r;
}

/* Until callbacks that had begun are over. */
static bool is_flushed(struct owner *o, const struct patience *p)
{
	rados_completion_t completion;
	struct osd_call *call;
	bool is_late;

	if (osd_begin(&call, &completion) < 0)
		return false;
	if (rados_aio_watch_flush(cluster_rados(o->o.cluster), completion) < 0) {
		osd_forget(call);
		return false;
	}
	(void)osd_wait(call, p, NULL, &is_late);
	return !is_late;
}

/* The way the OSD is told matters little; that no callback comes afterwards does. */
void owner_unwatch(struct owner *o, const struct patience *p)
{
	rados_completion_t completion;
	struct osd_call *call;
	bool is_late = false;

	if (!o->has_watch)
		return;
	o->has_watch = false;
	if (osd_begin(&call, &completion) < 0) {
		o->is_abandoned = true;
		return;
	}
	if (rados_aio_unwatch(o->io, o->watch, completion) < 0)
		osd_forget(call);
	else
		(void)osd_wait(call, p, NULL, &is_late);
	if (is_late || !is_flushed(o, p))
		o->is_abandoned = true;
}

static void on_notified(rados_completion_t completion, void *arg)
{
	struct owner *o = arg;

	rados_aio_release(completion);
	(void)pthread_mutex_lock(&o->lock);
	o->n_notifying--;
	(void)pthread_cond_broadcast(&o->more);
	(void)pthread_mutex_unlock(&o->lock);
}

/* Nobody has to hear it, and we do not wait: whoever missed it finds out by himself. */
void owner_notify(struct owner *o, enum notice_op op)
{
	unsigned char buf[NOTICE_MAX];
	rados_completion_t completion;
	struct client_id us;
	size_t len;

	if (rados_aio_create_completion2(o, on_notified, &completion) < 0)
		return;
	(void)pthread_mutex_lock(&o->lock);
	us = o->us;
	o->n_notifying++;
	(void)pthread_mutex_unlock(&o->lock);
	len = notice_encode(op, &us, buf);
	if (rados_aio_notify(o->io, o->object, completion, (const char *)buf, (int)len,
			     REQUEST_TIMEOUT_MS, NULL, NULL) < 0)
		on_notified(completion, o);
}

void owner_wait_notified(struct owner *o, const struct patience *p)
{
	(void)pthread_mutex_lock(&o->lock);
	while (o->n_notifying > 0 && patience_wait(p, &o->more, &o->lock))
		;
	if (o->n_notifying > 0)
		o->is_abandoned = true;
	(void)pthread_mutex_unlock(&o->lock);
}
