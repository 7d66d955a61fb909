/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Copyright (C) 2026 the rbdcrypt-nbd authors */

/*
 * A time limit for calls that have none: librados and librbd wait for ever for OSDs that
 * do not answer, and cannot be interrupted. Called from the threads of volumes and from
 * commands. Each limited call has a thread of its own; whichever of the two sides is last
 * to let go of the struct limit frees it. The lock guards all its fields but the call's.
 */

#include "limit.h"

#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdbool.h>
#include <stdlib.h>

#include "clock.h"

struct limit {
	int (*call)(void *arg);
	void (*late)(void *arg);
	void *arg;
	pthread_mutex_t lock;
	pthread_cond_t changed;
	bool is_done, is_abandoned; /* lock */
	int result; /* lock */
};

static struct limit *limit_free(struct limit *l)
{
	(void)pthread_cond_destroy(&l->changed);
	(void)pthread_mutex_destroy(&l->lock);
	free(l);
	return NULL;
}

static void *run(void *arg)
{
	struct limit *l = arg;
	int result = l->call(l->arg);
	bool is_abandoned;

	(void)pthread_mutex_lock(&l->lock);
	is_abandoned = l->is_abandoned;
	l->is_done = true;
	l->result = result;
	/* Under the lock: the other side frees as soon as it has it. */
	(void)pthread_cond_signal(&l->changed);
	(void)pthread_mutex_unlock(&l->lock);
	if (is_abandoned) {
		l->late(l->arg);
		limit_free(l);
	}
	return NULL;
}

static struct limit *limit_new(int (*call)(void *arg), void (*late)(void *arg), void *arg)
{
	struct limit *l = calloc(1, sizeof(*l));

	if (!l)
		return NULL;
	l->call = call;
	l->late = late;
	l->arg = arg;
	(void)pthread_mutex_init(&l->lock, NULL);
	clock_cond_init(&l->changed);
	return l;
}

static int start(struct limit *l)
{
	pthread_attr_t attr;
	sigset_t all, old;
	pthread_t thread;
	int r;

	(void)pthread_attr_init(&attr);
	(void)pthread_attr_setdetachstate(&attr, PTHREAD_CREATE_DETACHED);
	/* Also for the threads that the library starts in turn: signals are the daemon's. */
	(void)sigfillset(&all);
	(void)pthread_sigmask(SIG_SETMASK, &all, &old);
	r = -pthread_create(&thread, &attr, run, l);
	(void)pthread_sigmask(SIG_SETMASK, &old, NULL);
	(void)pthread_attr_destroy(&attr);
	return r;
}

/* Under the lock, until the call is done. end_ms: of clock_ms(), or -1. 0, -ETIMEDOUT, -EINTR. */
static int wait_done(struct limit *l, int64_t end_ms, const struct interrupt *i)
{
	while (!l->is_done) {
		int64_t now = clock_ms(), next = i ? now + INTERRUPT_SLICE_MS : end_ms;
		struct timespec t;

		if (end_ms >= 0 && now >= end_ms)
			return -ETIMEDOUT;
		if (interrupt_is_raised(i))
			return -EINTR;
		t = clock_at(end_ms >= 0 && end_ms < next ? end_ms : next);
		(void)pthread_cond_timedwait(&l->changed, &l->lock, &t);
	}
	return 0;
}

int limit_call_unless(const struct interrupt *i, unsigned int timeout_s, int (*call)(void *arg),
		      void (*late)(void *arg), void *arg, bool *ret_is_late)
{
	int64_t end_ms = timeout_s > 0 ? clock_ms() + (int64_t)timeout_s * 1000 : -1;
	struct limit *l;
	int r;

	*ret_is_late = false;
	if (timeout_s == 0 && !i)
		return call(arg);
	l = limit_new(call, late, arg);
	if (!l)
		return -ENOMEM;
	r = start(l);
	if (r < 0) {
		limit_free(l);
		return -EAGAIN;
	}
	(void)pthread_mutex_lock(&l->lock);
	r = wait_done(l, end_ms, i);
	*ret_is_late = l->is_abandoned = r < 0;
	if (r == 0)
		r = l->result;
	(void)pthread_mutex_unlock(&l->lock);
	/* Else its thread frees it. */
	if (!*ret_is_late)
		limit_free(l);
	return r;
}

int limit_call(unsigned int timeout_s, int (*call)(void *arg), void (*late)(void *arg), void *arg,
	       bool *ret_is_late)
{
	return limit_call_unless(NULL, timeout_s, call, late, arg, ret_is_late);
}
