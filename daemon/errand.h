/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Copyright (C) 2026 the rbdcrypt-nbd authors */

#ifndef DAEMON_ERRAND_H
#define DAEMON_ERRAND_H

#include <pthread.h>

#include "loop.h"

/*
 * Something that takes its time, done on a thread of its own so that a loop need not wait; one at
 * a time. All calls: the loop's thread. Embedded; between errand_start() and ended, what run works
 * with is run's.
 */
struct errand {
	void (*run)(void *arg); /* on a thread of its own */
	void (*ended)(void *arg); /* on the loop's thread; may start the next */
	void *arg;
	const char *name; /* of the thread, at most 15 bytes */
	/* Its own: */
	struct loop *loop;
	struct watch over;
	pthread_t thread;
	bool is_running;
};

/* run, ended, arg and name are set. 0 or -errno. */
int errand_init(struct errand *e, struct loop *loop);
/* Begins, unless it is under way; ended follows either way. 0 or -errno. */
int errand_start(struct errand *e);
/* Waits for one that is under way; ended is not called then. Fine after a failed or no init. */
void errand_done(struct errand *e);

#endif
