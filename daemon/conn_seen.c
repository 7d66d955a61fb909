/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Copyright (C) 2026 the rbdcrypt-nbd authors */

/*
 * A connection as others see it: they ask it to end, and how it did. The reader hears of it by its
 * event and by flags; nobody waits here, and any thread may call. Owns nothing.
 */

#include <poll.h>
#include <stddef.h>
#include <unistd.h>

#include "conn_private.h"

void conn_wake(struct conn *c)
{
	uint64_t one = 1;

	/* Can only fail when the counter is full, and then the reader is awake. */
	(void)!write(c->wake_fd, &one, sizeof(one));
}

void conn_stop(struct conn *c)
{
	atomic_store(&c->is_stopping, true);
	conn_wake(c);
}

void conn_leave(struct conn *c)
{
	atomic_store(&c->is_leaving, true);
	conn_wake(c);
}

int conn_fd(const struct conn *c)
{
	return c->rfd;
}

enum conn_end conn_ended(const struct conn *c)
{
	return atomic_load(&c->end);
}

enum conn_end conn_lost(const struct conn *c)
{
	return atomic_load(&c->lost_end);
}

/*
 * A client that has shut its end for sending only still reads its answers, and one on pipes cannot
 * be told from it; but one that left altogether may be back on another connection.
 */
bool conn_is_abandoned(const struct conn *c)
{
	const short left = POLLHUP | POLLERR;
	struct pollfd p = { .fd = c->wfd, .events = c->is_kernel ? POLLRDHUP : 0 };

	if (!c->is_socket)
		return false;
	return poll(&p, 1, 0) > 0 && (p.revents & (left | p.events));
}
