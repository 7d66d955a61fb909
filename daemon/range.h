/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Copyright (C) 2026 the rbdcrypt-nbd authors */

#ifndef DAEMON_RANGE_H
#define DAEMON_RANGE_H

#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>

/*
 * Order among requests of one volume that touch the same sectors: readers share,
 * a writer is alone, and whoever came first goes first. Nobody sleeps: a request that
 * must wait is handed to whoever releases the range it waits for.
 */
struct range {
	uint64_t start, end; /* dev_off, bytes, end exclusive */
	bool is_write;
	/* The lock's own: */
	bool is_held;
	struct range *prev, *next; /* in order of arrival */
	struct range *ready; /* list of those that range_release() lets go */
};

struct range_lock {
	pthread_mutex_t mutex;
	/* Guarded by mutex: */
	struct range *first, *last; /* held and waiting, oldest first */
	unsigned int waiting;
};

void range_lock_init(struct range_lock *l);
void range_lock_done(struct range_lock *l);

/* True: r holds its range now. False: it will be on the list of a later range_release(). Any
 * thread. */
bool range_acquire(struct range_lock *l, struct range *r);

/* Gives r up; returns those that hold their range from now on, linked by ready, oldest first. */
struct range *range_release(struct range_lock *l, struct range *r);

#endif
