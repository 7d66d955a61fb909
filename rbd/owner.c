/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Copyright (C) 2026 the rbdcrypt-nbd authors */

/*
 * The owner's life, as one loop on one thread: hold the lock, hand it over when asked for
 * something harmless, take it back at once, read everything again, go on. The gate is what the
 * data path sees of it: closed and drained before the lock is given away, opened when the lock is
 * ours again and take() has planned for what the image is now.
 *
 *   start -> UNLOCKED -> LOCKED -> (asked) RELEASING -> UNLOCKED -> LOCKED ...
 *   any   -> LOST: fenced, the image gone or changed beyond us. Nothing is written any more.
 *
 * Calls of librados here wait with an end (osd.h, limit.h), the mutex is never held across one.
 */

#include "owner_private.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "fence.h"
#include "log.h"

/* After giving the lock away: whoever wanted it shall get it. (spec: rados-engine 3.3) */
#define HOLD_OFF_MS 300
#define AGAIN_MS 1000
#define CALL_TIMEOUT_S 30
/* The watch of a client that died lives on for 30 s by default; only then is it known dead. */
#define DEAD_OWNER_MS 40000
/* A release that takes longer is worth a word. */
#define SLOW_MS 5000

static void changed(struct owner *o)
{
	o->o.ops.changed(o->o.ops.arg);
}

static void set_state(struct owner *o, enum owner_state state, const char *why)
{
	(void)pthread_mutex_lock(&o->lock);
	if (o->state != OWNER_LOST) {
		o->state = state;
		(void)snprintf(o->why, sizeof(o->why), "%s", why);
	}
	(void)pthread_mutex_unlock(&o->lock);
	changed(o);
}

static enum owner_state state_of(struct owner *o)
{
	enum owner_state state;

	(void)pthread_mutex_lock(&o->lock);
	state = o->state;
	(void)pthread_mutex_unlock(&o->lock);
	return state;
}

/* For good: what is written afterwards could be wrong, or could overwrite another's. */
static void lose(struct owner *o, int error, const char *why)
{
	const struct event_about about = owner_about(o, error);

	if (state_of(o) == OWNER_LOST)
		return;
	set_state(o, OWNER_LOST, why);
	event_log(EVENT_WRITING_STOPPED, &about, "writing has stopped: %s", why);
	gate_fail(o->o.gate, -EIO);
	/* Nothing old can follow any more. */
	owner_acknowledge_deferred(o, OWNER_DEFERRED);
}

static void lose_by(struct owner *o, const char *doing, int error)
{
	char why[256];

	if (error == -ESHUTDOWN)
		(void)snprintf(why, sizeof(why),
			       "this client was blocklisted, so another may have written since; "
			       "unmap the image and map it again");
	else if (error == -ENOENT)
		(void)snprintf(why, sizeof(why), "the image was removed");
	else
		(void)snprintf(why, sizeof(why), "%s: %s; unmap the image and map it again", doing,
			       strerror(-error));
	lose(o, error, why);
}

static bool is_final(int error)
{
	return error == -ESHUTDOWN || error == -ENOENT || error == -EPERM || error == -EACCES;
}

/* ---- planning ---- */

static bool is_same_list(const struct image_facts *a, const struct image_facts *b)
{
	return a->n_snaps == b->n_snaps && a->snap_seq == b->snap_seq &&
	       (a->n_snaps == 0 ||
		memcmp(a->snaps, b->snaps, a->n_snaps * sizeof(a->snaps[0])) == 0);
}

static bool is_same(const struct image_facts *a, const struct image_facts *b)
{
	return a->size == b->size && a->features == b->features && a->flags == b->flags &&
	       is_same_list(a, b) && a->has_parent == b->has_parent &&
	       a->parent_pool == b->parent_pool && a->parent_snap == b->parent_snap &&
	       strcmp(a->parent_id, b->parent_id) == 0 &&
	       strcmp(a->parent_nspace, b->parent_nspace) == 0 && a->raw_overlap == b->raw_overlap;
}

/* Takes f. Nobody is inside. On -ECANCELED why is filled in; other errors are the cluster's. */
static int plan(struct owner *o, struct image_facts *f, const struct patience *p, char *why,
		size_t len)
{
	int r;

	why[0] = '\0';
	/* Only what was planned for is not planned for again. */
	o->is_planned = false;
	facts_done(&o->facts);
	o->facts = *f;
	*f = (struct image_facts){ 0 };
	r = o->o.ops.take(o->o.ops.arg, &o->facts, o->cookie, p, why, len);
	o->is_planned = r == 0;
	(void)pthread_mutex_lock(&o->lock);
	o->raw_size = o->facts.size;
	(void)pthread_mutex_unlock(&o->lock);
	return r < 0 && why[0] ? -ECANCELED : r;
}

/* The lock is ours: what is the image now? */
static int learn(struct owner *o, const struct patience *p, char *why, size_t len)
{
	struct image_facts f;
	int r;

	why[0] = '\0';
	r = facts_read(o->io, o->image_id, p, &f);
	if (r < 0)
		return r;
	r = plan(o, &f, p, why, len);
	facts_done(&f);
	return r;
}

static void open_gate(struct owner *o)
{
	unsigned int closings;
	bool may_open;

	/* A watch that breaks meanwhile closes the gate, and will open it again. */
	(void)pthread_mutex_lock(&o->lock);
	closings = gate_closings(o->o.gate);
	may_open = o->state == OWNER_LOCKED && !(o->todo & (TODO_REWATCH | TODO_FENCED));
	(void)pthread_mutex_unlock(&o->lock);
	if (may_open)
		gate_open_since(o->o.gate, closings);
}

/* 0, or what owner_try_lock() or learn() said. */
static int acquire(struct owner *o, const struct patience *p, char *why, size_t len)
{
	unsigned int n_deferred = owner_deferred(o);
	int r = o->o.has_lock ? owner_try_lock(o, p) : 0;

	why[0] = '\0';
	if (r == 0)
		r = learn(o, p, why, len);
	if (r < 0)
		return r;
	set_state(o, OWNER_LOCKED, "");
	if (o->o.has_lock)
		owner_notify(o, NOTICE_ACQUIRED_LOCK);
	open_gate(o);
	owner_acknowledge_deferred(o, n_deferred);
	return 0;
}

/* ---- what the thread does ---- */

static struct patience no_end(struct owner *o)
{
	return (struct patience){ .is_over = &o->is_over };
}

static void reacquire(struct owner *o)
{
	const struct patience p = no_end(o);
	char why[512];
	int r;

	(void)pthread_mutex_lock(&o->lock);
	if (o->foreign_released)
		o->foreign_acquired_ms = 0;
	o->foreign_released = false;
	(void)pthread_mutex_unlock(&o->lock);
	r = acquire(o, &p, why, sizeof(why));
	if (r == 0 && o->released_ms)
		log_debug(o->spec, "the lock is back after %" PRId64 " ms",
			  clock_ms() - o->released_ms);
	if (r == 0 || r == -EAGAIN)
		return;
	if (r == -ECANCELED) {
		lose(o, r, why);
	} else if (r == -EROFS || r == -EBUSY) {
		set_state(o, OWNER_UNLOCKED, "another client keeps the lock: writes wait");
		o->next_try_ms = clock_ms() + AGAIN_MS;
	} else if (is_final(r)) {
		lose_by(o, "taking the lock back", r);
	} else {
		log_warning(o->spec, "cannot take the lock back yet: %s", strerror(-r));
		o->next_try_ms = clock_ms() + AGAIN_MS;
	}
}

static void hand_over(struct owner *o)
{
	const struct patience p = no_end(o);
	int64_t start = clock_ms();
	int r;

	gate_close(o->o.gate);
	r = gate_drain(o->o.gate, &p);
	if (r < 0)
		return;
	o->o.ops.give(o->o.ops.arg, &p);
	(void)pthread_mutex_lock(&o->lock);
	o->foreign_acquired_ms = 0;
	o->foreign_released = false;
	(void)pthread_mutex_unlock(&o->lock);
	r = owner_unlock(o, &p);
	if (r < 0 && is_final(r)) {
		lose_by(o, "handing over the lock", r);
		return;
	}
	o->next_try_ms = clock_ms() + HOLD_OFF_MS;
	o->released_ms = clock_ms();
	set_state(o, OWNER_UNLOCKED, "");
	owner_notify(o, NOTICE_RELEASED_LOCK);
	log_debug(o->spec, "the lock was handed over, after %" PRId64 " ms of finishing writes",
		  o->released_ms - start);
	if (clock_ms() - start > SLOW_MS)
		log_warning(o->spec, "handing over the lock took %" PRId64 " ms",
			    clock_ms() - start);
}

/* Somebody changed the header. With the lock ours that is little, but it has to be known. */
static void refresh(struct owner *o)
{
	const struct patience p = no_end(o);
	struct image_facts f = { 0 };
	char why[512] = "";
	unsigned int n_deferred;
	int r;

	/* Without a lock the order is the proof: first nobody writes, then we look. */
	if (!o->o.has_lock) {
		gate_close(o->o.gate);
		if (gate_drain(o->o.gate, &p) < 0)
			return;
	}
	/* Who comes from now on waits for the next look. */
	n_deferred = owner_deferred(o);
	r = facts_read(o->io, o->image_id, &p, &f);
	if (r == 0 && !(o->is_planned && is_same(&f, &o->facts))) {
		gate_close(o->o.gate);
		r = gate_drain(o->o.gate, &p);
		if (r == 0)
			r = plan(o, &f, &p, why, sizeof(why));
	}
	facts_done(&f);
	if (r == -ECANCELED)
		lose(o, r, why);
	else if (r < 0 && is_final(r))
		lose_by(o, "reading the image's header", r);
	else if (r < 0)
		log_warning(o->spec, "cannot read the image's header: %s", strerror(-r));
	else
		open_gate(o);
	owner_acknowledge_deferred(o, n_deferred);
	changed(o);
	if (r < 0 && state_of(o) != OWNER_LOST) {
		/* Until it has been read, nobody knows what may be written. */
		(void)pthread_mutex_lock(&o->lock);
		o->todo |= TODO_REFRESH;
		(void)pthread_mutex_unlock(&o->lock);
		gate_close(o->o.gate);
		o->next_try_ms = clock_ms() + AGAIN_MS;
	}
}

/* The watch broke: from now on nobody knows whether we live. */
static void rewatch(struct owner *o)
{
	const struct patience p = no_end(o);
	int error, r;

	(void)pthread_mutex_lock(&o->lock);
	error = o->watch_error;
	o->todo &= ~TODO_REWATCH;
	(void)pthread_mutex_unlock(&o->lock);
	gate_close(o->o.gate);
	log_warning(o->spec, "the watch on the image broke: %s", strerror(-error));
	set_state(o, OWNER_UNLOCKED, "the connection to the image broke: writes wait");
	owner_unwatch(o, &p);
	r = owner_watch(o, &p);
	if (r < 0 && is_final(r)) {
		lose_by(o, "watching the image again", r);
		return;
	}
	if (r < 0) {
		(void)pthread_mutex_lock(&o->lock);
		o->todo |= TODO_REWATCH;
		(void)pthread_mutex_unlock(&o->lock);
		o->next_try_ms = clock_ms() + AGAIN_MS;
		return;
	}
	/* At once: to others, the lock of a watch that is gone is a dead client's. */
	r = owner_move_lock(o, &p);
	if (gate_drain(o->o.gate, &p) < 0)
		return;
	/* Notifications were missed: everything is taken and read again. */
	if (r < 0)
		(void)owner_unlock(o, &p);
	o->next_try_ms = 0;
}

/* When to do what is left to do; INT64_MAX: when told to. Mutex held. */
static int64_t wake_ms(const struct owner *o)
{
	int64_t busy_until = o->foreign_acquired_ms ? o->foreign_acquired_ms + AGAIN_MS : 0;

	if (o->todo & TODO_REWATCH)
		return o->next_try_ms;
	if (o->state == OWNER_UNLOCKED) {
		/* He has done what he wanted to do, or does what we asked him for. */
		if (o->foreign_released)
			return 0;
		return busy_until > o->next_try_ms ? busy_until : o->next_try_ms;
	}
	return o->todo & TODO_REFRESH ? o->next_try_ms : INT64_MAX;
}

static void wait_until(struct owner *o, int64_t ms)
{
	struct timespec t = clock_at(ms);

	if (ms == INT64_MAX)
		(void)pthread_cond_wait(&o->more, &o->lock);
	else
		(void)pthread_cond_timedwait(&o->more, &o->lock, &t);
}

/* What to do now, and none of it twice. Mutex held; blocks until there is something. */
static unsigned int next_todo(struct owner *o, enum owner_state *ret_state)
{
	for (;;) {
		unsigned int todo = o->todo;
		int64_t until = wake_ms(o);
		bool is_due = until <= clock_ms();

		*ret_state = o->state;
		if (todo & TODO_STOP)
			return todo;
		if (o->state == OWNER_LOST) {
			o->todo = 0;
		} else if ((todo & TODO_FENCED) || o->state == OWNER_RELEASING) {
			o->todo &= ~TODO_FENCED;
			return todo;
		} else if (is_due) {
			/* Whatever it is, it ends with the header read again. */
			o->todo &= ~(TODO_REWATCH | TODO_REFRESH);
			return todo;
		}
		wait_until(o, until);
	}
}

static void *run(void *arg)
{
	struct owner *o = arg;

	for (;;) {
		enum owner_state state;
		unsigned int todo;

		(void)pthread_mutex_lock(&o->lock);
		todo = next_todo(o, &state);
		(void)pthread_mutex_unlock(&o->lock);
		if (todo & TODO_STOP)
			return NULL;
		if (todo & TODO_FENCED)
			lose_by(o, "writing", -ESHUTDOWN);
		else if (todo & TODO_REWATCH)
			rewatch(o);
		else if (state == OWNER_RELEASING)
			hand_over(o);
		else if (state == OWNER_UNLOCKED)
			reacquire(o);
		else
			refresh(o);
	}
}

/* ---- for others ---- */

static void tell(struct owner *o, unsigned int todo)
{
	(void)pthread_mutex_lock(&o->lock);
	o->todo |= todo;
	(void)pthread_cond_broadcast(&o->more);
	(void)pthread_mutex_unlock(&o->lock);
}

void owner_is_fenced(struct owner *o)
{
	/* In this order: a gate that is being opened sees one of both. */
	tell(o, TODO_FENCED);
	gate_close(o->o.gate);
}

const char *owner_lock_state(struct owner *o)
{
	enum owner_state state = state_of(o);

	if (state == OWNER_LOST)
		return "lost";
	if (!o->o.has_lock)
		return "-";
	return state == OWNER_UNLOCKED ? "none" : "owner";
}

void owner_health(struct owner *o, char *buf, size_t len)
{
	(void)pthread_mutex_lock(&o->lock);
	(void)snprintf(buf, len, "%s", o->why);
	(void)pthread_mutex_unlock(&o->lock);
}

/* ---- life ---- */

static struct owner *owner_free(struct owner *o)
{
	/* A callback may still come: then this, and what it needs, stays. */
	if (o->is_abandoned) {
		(void)pthread_mutex_lock(&o->lock);
		o->is_stopped = true;
		(void)pthread_mutex_unlock(&o->lock);
		return NULL;
	}
	facts_done(&o->facts);
	if (o->io)
		rados_ioctx_destroy(o->io);
	(void)pthread_cond_destroy(&o->more);
	(void)pthread_mutex_destroy(&o->lock);
	free(o);
	return NULL;
}

struct owner *owner_stop(struct owner *o)
{
	struct patience p;

	if (!o)
		return NULL;
	if (o->has_thread) {
		atomic_store(&o->is_over, true);
		tell(o, TODO_STOP);
		(void)pthread_join(o->thread, NULL);
	}
	p = patience_for(o->call_timeout_s, NULL);
	gate_close(o->o.gate);
	if (o->has_lock) {
		o->o.ops.give(o->o.ops.arg, &p);
		(void)owner_unlock(o, &p);
		(void)pthread_mutex_lock(&o->lock);
		o->state = OWNER_UNLOCKED;
		(void)pthread_mutex_unlock(&o->lock);
		owner_notify(o, NOTICE_RELEASED_LOCK);
	}
	owner_unwatch(o, &p);
	owner_wait_notified(o, &p);
	return owner_free(o);
}

static int owner_new(const struct owner_options *o, struct owner **ret, struct fault *f)
{
	struct owner *owner = calloc(1, sizeof(*owner));
	int r;

	if (!owner)
		return fault_set(f, EXIT_MEMORY, -ENOMEM, "no memory for a lock");
	owner->o = *o;
	(void)snprintf(owner->spec, sizeof(owner->spec), "%s", o->spec);
	(void)snprintf(owner->image_id, sizeof(owner->image_id), "%s", o->image_id);
	(void)snprintf(owner->nspace, sizeof(owner->nspace), "%s", o->nspace);
	(void)snprintf(owner->object, sizeof(owner->object), "rbd_header.%s", o->image_id);
	(void)snprintf(owner->pool, sizeof(owner->pool), "%s", o->pool ? o->pool : "");
	(void)snprintf(owner->image, sizeof(owner->image), "%s", o->image ? o->image : "");
	owner->o.spec = owner->spec;
	owner->o.pool = owner->pool;
	owner->o.image = owner->image;
	owner->o.image_id = owner->image_id;
	owner->o.nspace = owner->nspace;
	owner->call_timeout_s = o->timeout_s ? o->timeout_s : CALL_TIMEOUT_S;
	(void)pthread_mutex_init(&owner->lock, NULL);
	clock_cond_init(&owner->more);
	r = cluster_ioctx(o->cluster, o->pool_id, owner->nspace, &owner->io);
	if (r < 0) {
		(void)owner_free(owner);
		return cluster_fault(f, r, o->spec, "cannot reach the image's header");
	}
	owner->place = (struct locker_place){ .cluster = o->cluster,
					      .io = owner->io,
					      .pool_id = o->pool_id,
					      .nspace = owner->nspace,
					      .image_id = owner->image_id,
					      .timeout_s = owner->call_timeout_s };
	*ret = owner;
	return 0;
}

static int refuse_locked(struct owner *o, struct fault *f)
{
	struct locker l;

	if (locker_find(&o->place, &l) == 0)
		(void)fault_set(f, EXIT_LOCKED, -EBUSY, "%s: locked by another client at %s (%s)",
				o->spec, bare_address(l.address), l.client);
	else
		(void)fault_set(f, EXIT_LOCKED, -EBUSY, "%s: locked by another client", o->spec);
	fault_hint(f, "unmap it there; if that client is dead: rbd lock ls %s, then rbd lock rm",
		   o->spec);
	return -EBUSY;
}

static void wait_for_try(struct owner *o)
{
	(void)pthread_mutex_lock(&o->lock);
	while (!o->foreign_released && clock_ms() < o->next_try_ms)
		wait_until(o, o->next_try_ms);
	o->foreign_released = false;
	(void)pthread_mutex_unlock(&o->lock);
}

static int first_lock(struct owner *o, const struct patience *p, struct fault *f)
{
	char why[512] = "";
	int r = -EAGAIN;

	while (r == -EAGAIN && (!p->deadline_ms || clock_ms() < p->deadline_ms)) {
		r = acquire(o, p, why, sizeof(why));
		if (r == -EAGAIN)
			wait_for_try(o);
	}
	if (r == -ECANCELED)
		return fault_set(f, EXIT_SAFEGUARD, -ENOTSUP, "%s: %s", o->spec, why);
	if (r == -EROFS || r == -EBUSY || r == -EAGAIN)
		return refuse_locked(o, f);
	return r < 0 ? cluster_fault(f, r, o->spec, "cannot take the exclusive lock") : 0;
}

int owner_start(const struct owner_options *options, struct owner **ret, struct fault *f)
{
	struct patience p = patience_for(options->timeout_s, NULL);
	struct owner *o = NULL;
	int r = owner_new(options, &o, f);

	if (r < 0)
		return r;
	r = owner_watch(o, &p);
	if (r < 0)
		r = cluster_fault(f, r, o->spec, "cannot watch the image");
	if (p.deadline_ms)
		p.deadline_ms += DEAD_OWNER_MS;
	if (r == 0)
		r = first_lock(o, &p, f);
	if (r == 0) {
		r = -pthread_create(&o->thread, NULL, run, o);
		o->has_thread = r == 0;
		if (r < 0)
			r = fault_set(f, EXIT_MEMORY, r, "no thread for the lock of %s", o->spec);
	}
	if (r < 0) {
		(void)owner_stop(o);
		return r;
	}
	*ret = o;
	return 0;
}
