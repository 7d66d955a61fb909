/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Copyright (C) 2026 the rbdcrypt-nbd authors */

/*
 * Getting an image's lock: from nobody, from a living client that gives it up when asked, or from
 * a dead one, who is fenced first. Run by the thread that runs the owner. Everything that waits
 * for another client is cut into tries, so that the thread stays open to what is asked of it.
 * (spec: rados-engine 3.2)
 */

#include "owner_private.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "cls.h"
#include "limit.h"
#include "fence.h"
#include "log.h"

/* Between two looks at somebody who does not let go, and after he took it: let him work. */
#define AGAIN_MS 1000
#define REQUEST_TIMEOUT_MS 5000

static int write_header(struct owner *o, rados_write_op_t op, const struct patience *p)
{
	return osd_write(o->io, o->object, op, p);
}

static int lock_header(struct owner *o, const struct patience *p)
{
	rados_write_op_t op = rados_create_write_op();
	char cookie[sizeof(o->cookie)];
	int r;

	(void)snprintf(cookie, sizeof(cookie), "auto %" PRIu64, o->watch);
	cls_lock(op, cookie, CLS_TAG_HEADER);
	r = write_header(o, op, p);
	/* Of one that is still under way, nobody knows: it is given back like one that we have. */
	if (r >= 0 || r == -EEXIST || r == -ETIMEDOUT) {
		memcpy(o->cookie, cookie, sizeof(cookie));
		o->has_lock = true;
	}
	return r == -EEXIST ? 0 : r;
}

int owner_unlock(struct owner *o, const struct patience *p)
{
	rados_write_op_t op;
	int r;

	if (!o->has_lock)
		return 0;
	o->has_lock = false;
	op = rados_create_write_op();
	cls_unlock(op, o->cookie);
	r = write_header(o, op, p);
	return r == -ENOENT ? 0 : r;
}

int owner_move_lock(struct owner *o, const struct patience *p)
{
	rados_write_op_t op;
	char cookie[sizeof(o->cookie)];
	int r;

	(void)snprintf(cookie, sizeof(cookie), "auto %" PRIu64, o->watch);
	if (!o->has_lock || strcmp(cookie, o->cookie) == 0)
		return 0;
	op = rados_create_write_op();
	cls_set_cookie(op, o->cookie, CLS_TAG_HEADER, cookie);
	r = write_header(o, op, p);
	/* What gives it back comes behind one that is still under way. */
	if (r >= 0 || r == -ETIMEDOUT)
		memcpy(o->cookie, cookie, sizeof(cookie));
	return r;
}

/* ---- asking the owner ---- */

struct request_call {
	struct cluster *cluster; /* one reference */
	rados_ioctx_t io; /* owned */
	char object[128];
	unsigned char message[NOTICE_MAX];
	size_t len;
	int answer;
};

static void request_free(void *arg)
{
	struct request_call *c = arg;

	if (c->io)
		rados_ioctx_destroy(c->io);
	cluster_unref(c->cluster);
	free(c);
}

static int request_run(void *arg)
{
	struct request_call *c = arg;
	char *reply = NULL;
	size_t len = 0;
	int r = rados_notify2(c->io, c->object, (const char *)c->message, (int)c->len,
			      REQUEST_TIMEOUT_MS, &reply, &len);

	/* A watcher that did not answer in time makes a timeout of it all; the owner may have. */
	c->answer = reply ? notice_decode_result(reply, len) : r < 0 ? r : -ETIMEDOUT;
	rados_buffer_free(reply);
	return 0;
}

/* The owner's answer, or -errno. */
static int ask_owner(struct owner *o)
{
	struct request_call *c = calloc(1, sizeof(*c));
	bool is_late = false;
	int r;

	if (!c)
		return -ENOMEM;
	c->cluster = cluster_ref(o->o.cluster);
	memcpy(c->object, o->object, sizeof(c->object));
	(void)pthread_mutex_lock(&o->lock);
	c->len = notice_encode(NOTICE_REQUEST_LOCK, &o->us, c->message);
	(void)pthread_mutex_unlock(&o->lock);
	r = cluster_ioctx(c->cluster, o->o.pool_id, o->nspace, &c->io);
	if (r < 0) {
		request_free(c);
		return r;
	}
	r = limit_call(o->call_timeout_s, request_run, request_free, c, &is_late);
	if (is_late)
		return r;
	if (r == 0)
		r = c->answer;
	request_free(c);
	return r;
}

static int try_later(struct owner *o, int64_t ms)
{
	o->next_try_ms = clock_ms() + ms;
	return -EAGAIN;
}

/* A living client has it. */
static int request(struct owner *o)
{
	int64_t since;
	int r;

	(void)pthread_mutex_lock(&o->lock);
	since = o->foreign_acquired_ms;
	(void)pthread_mutex_unlock(&o->lock);
	/* Asked at once, he would break off what we gave it to him for. */
	if (since && clock_ms() < since + AGAIN_MS)
		return try_later(o, since + AGAIN_MS - clock_ms());
	r = ask_owner(o);
	if (r == -EROFS)
		return r;
	/* Granted: his RELEASED_LOCK wakes us up. No answer: he may have died just now. */
	return try_later(o, r == -ETIMEDOUT ? 0 : AGAIN_MS);
}

/* ---- a dead owner ---- */

static int take_over(struct owner *o, const struct locker *first)
{
	const struct event_about about = owner_about(o, 0);
	struct locker again;
	int64_t start = clock_ms();
	int r = locker_find(&o->place, &again);

	if (r == -ENOENT || (r == 0 && !locker_is_same(first, &again)))
		return try_later(o, 0);
	if (r == 0)
		r = locker_is_alive(&o->place, &again);
	if (r != 0)
		return r < 0 ? r : try_later(o, AGAIN_MS);
	r = locker_break(&o->place, &again, rados_get_instance_id(cluster_rados(o->o.cluster)));
	if (r < 0)
		return r;
	event_log(EVENT_LOCK_TAKEN, &about,
		  "%s at %s held the lock and is dead: blocklisted, its lock broken in %" PRId64
		  " ms",
		  again.client, bare_address(again.address), clock_ms() - start);
	return try_later(o, 0);
}

int owner_try_lock(struct owner *o, const struct patience *p)
{
	struct locker l;
	int r = lock_header(o, p);

	if (r != -EBUSY)
		return r;
	r = locker_find(&o->place, &l);
	if (r == -ENOENT)
		return try_later(o, 0);
	if (r < 0)
		return r;
	if (!locker_is_automatic(&l)) {
		log_warning(o->spec, "the lock is held by hand by %s at %s (id \"%s\", tag \"%s\")",
			    l.client, bare_address(l.address), l.cookie, l.tag);
		return -EBUSY;
	}
	r = locker_is_alive(&o->place, &l);
	if (r < 0)
		return r;
	return r ? request(o) : take_over(o, &l);
}

void owner_lock(struct owner *o, struct store_lock *ret)
{
	struct locker l;
	int r;

	ret->state = owner_lock_state(o);
	if (strcmp(ret->state, "owner") == 0) {
		(void)cluster_address(o->o.cluster, ret->owner, sizeof(ret->owner));
		return;
	}
	if (strcmp(ret->state, "-") == 0)
		return;
	r = locker_find(&o->place, &l);
	if (r == 0) {
		(void)snprintf(ret->owner, sizeof(ret->owner), "%s", bare_address(l.address));
		if (strcmp(ret->state, "none") == 0)
			ret->state = "other";
	} else if (r != -ENOENT) {
		store_lock_unknown(ret, r);
	}
}
