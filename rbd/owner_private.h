/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Copyright (C) 2026 the rbdcrypt-nbd authors */

#ifndef RBD_OWNER_PRIVATE_H
#define RBD_OWNER_PRIVATE_H

#include <pthread.h>

#include "clock.h"
#include "event.h"
#include "locker.h"
#include "notice.h"
#include "owner.h"

#define OWNER_GRANTS 16
#define OWNER_DEFERRED 64

enum owner_state {
	OWNER_UNLOCKED, /* nobody writes; the lock is free or somebody's */
	OWNER_LOCKED, /* the gate is open, or about to be */
	OWNER_RELEASING, /* decided to hand over */
	OWNER_LOST, /* for good */
};

#define TODO_STOP 1u
#define TODO_REFRESH 2u
#define TODO_REWATCH 4u
#define TODO_FENCED 8u

struct owner {
	struct owner_options o; /* its strings are ours */
	struct locker_place place;
	rados_ioctx_t io; /* owned; metadata pool and namespace */
	char object[128]; /* rbd_header.ID */
	char spec[4608], pool[128], image[256], image_id[64], nspace[128];
	unsigned int call_timeout_s; /* never 0 */
	bool is_abandoned; /* a call that ran out of time may still use this struct */
	/* Only the thread that runs the owner; starter and stopper before and after it. */
	uint64_t watch;
	bool has_watch, has_lock;
	char cookie[32]; /* that the lock was taken with */
	int64_t next_try_ms;
	int64_t released_ms; /* when the lock was last handed over; 0: never */
	struct image_facts facts;
	bool is_planned; /* for these facts */
	pthread_t thread;
	bool has_thread;
	atomic_bool is_over; /* stop waiting for the cluster */
	/* Guarded by lock, which is never held across a call of librados. */
	pthread_mutex_t lock;
	pthread_cond_t more;
	enum owner_state state;
	bool is_stopped; /* nothing of the options may be used: an abandoned owner outlives it */
	struct client_id us;
	unsigned int todo; /* TODO_... */
	int watch_error;
	uint64_t raw_size;
	int64_t foreign_acquired_ms; /* 0: not since we gave it back */
	bool foreign_released;
	struct {
		uint64_t gid;
		int64_t until_ms;
	} grants[OWNER_GRANTS];
	/* Header updates that are acknowledged once we have drained and read again. */
	uint64_t deferred[OWNER_DEFERRED];
	unsigned int n_deferred;
	unsigned int n_notifying; /* notifications of ours that are under way */
	char why[512];
};

/* An event of this image; texts are the owner's. */
static inline struct event_about owner_about(const struct owner *o, int error)
{
	return (struct event_about){ .volume = o->spec,
				     .pool = o->pool,
				     .nspace = o->nspace,
				     .image = o->image,
				     .device = -1,
				     .error = error };
}

/* owner_watch.c: the watch, and what comes over it. */
/* -ETIMEDOUT: and the struct is abandoned. */
int owner_watch(struct owner *o, const struct patience *p);
void owner_unwatch(struct owner *o, const struct patience *p);
void owner_notify(struct owner *o, enum notice_op op);
/* Until all of ours are through: librados uses the IO context for that long. Else abandoned. */
void owner_wait_notified(struct owner *o, const struct patience *p);
/* How many acknowledgements are put off: what is read from now on is news to all of these. */
unsigned int owner_deferred(struct owner *o);
/* Acknowledges the n oldest of them. */
void owner_acknowledge_deferred(struct owner *o, unsigned int n);

/* owner_lock.c: one try to get the lock. */
/*
 * 0: it is ours. -EAGAIN: try again at next_try_ms. -EROFS: its owner keeps it. -EBUSY: held by
 * hand. Others: of the cluster.
 */
int owner_try_lock(struct owner *o, const struct patience *p);
int owner_unlock(struct owner *o, const struct patience *p);
/* After the watch got another handle. Anything but 0: take the lock from scratch. */
int owner_move_lock(struct owner *o, const struct patience *p);

#endif
