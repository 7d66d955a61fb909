/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Copyright (C) 2026 the rbdcrypt-nbd authors */

#ifndef RBD_GATE_H
#define RBD_GATE_H

#include <pthread.h>
#include <stdbool.h>

#include "osd.h"

/*
 * What changes an image passes a gate: open while we may write, closed while the right to
 * write is with somebody else or what we know of the image is being read again. Whoever
 * comes meanwhile waits, without a thread of its own.
 */
struct gate_pass {
	/* Error 0: inside now, to be left with gate_leave(). Else the gate will not open again. */
	void (*go)(struct gate_pass *p, int error);
	struct gate_pass *next; /* the gate's own */
};

struct gate {
	pthread_mutex_t lock;
	pthread_cond_t empty;
	bool is_open;
	int error; /* -errno: closed for good */
	int no_waiting; /* -errno: for those who would have to wait */
	unsigned int inside, closings;
	struct gate_pass *head, **tail; /* waiting, in order */
};

/* Closed. */
void gate_init(struct gate *g);
void gate_done(struct gate *g);

/*
 * Any thread; blocks for nothing but the mutex. True: inside. False: p->go runs, perhaps
 * before this returns.
 */
bool gate_enter(struct gate *g, struct gate_pass *p);
void gate_leave(struct gate *g);

/* Any thread. Nobody enters from now on. */
void gate_close(struct gate *g);
/* How often it was closed. */
unsigned int gate_closings(struct gate *g);
/* Waits until nobody is inside a gate that is closed. 0 or -ETIMEDOUT. */
int gate_drain(struct gate *g, const struct patience *p);
/*
 * Lets in who waits, unless it was closed since there were so many closings. Does nothing to a gate
 * that has failed.
 */
void gate_open_since(struct gate *g, unsigned int closings);
/*
 * From now on nobody waits: who does, and who comes while it is closed, gets the error. While it
 * is open all goes on. Any thread.
 */
void gate_end_waiting(struct gate *g, int error);
/* For good: who waits, and who comes, gets the error. The first error stays. Any thread. */
void gate_fail(struct gate *g, int error);

#endif
