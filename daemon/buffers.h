/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Copyright (C) 2026 the rbdcrypt-nbd authors */

#ifndef DAEMON_BUFFERS_H
#define DAEMON_BUFFERS_H

#include <stdbool.h>
#include <stddef.h>

/*
 * The memory that carries data of one volume: page-aligned, pre-faulted, reused,
 * and bounded. Who finds none waits in line without holding any.
 */
struct buffers;

/* In line for memory. wake is called, on any thread, when it may be this one's turn. */
struct buffers_waiter {
	void (*wake)(struct buffers_waiter *w);
	/* The pool's own: */
	struct buffers_waiter *next;
	bool is_queued;
};

/*
 * At most limit bytes in use and kept; at least one request of the largest size
 * fits. Takes a first part from the system at once. 0, -EINVAL or -ENOMEM.
 */
#define BUFFERS_LARGEST ((33u << 20))
int buffers_new(size_t limit, struct buffers **ret);
/* All must have been put back. NULL is fine. Returns NULL. */
struct buffers *buffers_free(struct buffers *b);

/*
 * len bytes (1..BUFFERS_LARGEST), contents undefined. NULL: none now; w is in line and
 * is woken, then call again (with the same len, or buffers_leave()). Any thread.
 */
void *buffers_get(struct buffers *b, size_t len, struct buffers_waiter *w);
void buffers_put(struct buffers *b, void *buf, size_t len);
/* Whether others than w wait in line. Any thread. */
bool buffers_are_wanted(struct buffers *b, const struct buffers_waiter *w);
/*
 * What is kept goes back to the system, but for what buffers_new() took: for a volume that nobody
 * uses at the moment. Any thread.
 */
void buffers_give_back(struct buffers *b);
/* Out of the line, if in it. */
void buffers_leave(struct buffers *b, struct buffers_waiter *w);

#endif
