/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Copyright (C) 2026 the rbdcrypt-nbd authors */

#ifndef DAEMON_ACCEPTOR_H
#define DAEMON_ACCEPTOR_H

#include <stdbool.h>

#include "loop.h"

/*
 * A listening socket in a loop. While this process has no descriptor to spare for a client, it
 * leaves clients in the socket's queue and looks again now and then. The loop's thread only.
 */
struct acceptor {
	struct loop *loop;
	const char *subject; /* of its messages; NULL: the daemon's */
	/* One came: fd, non-blocking, is the callee's. */
	void (*came)(struct acceptor *a, int fd);
	/* The acceptor's own: */
	struct watch listening, pause;
	bool is_short; /* of descriptors or memory, and that was said */
};

/* Ready for acceptor_stop(). */
void acceptor_init(struct acceptor *a);
/* loop, subject and came are set. Takes fd, which listens and does not block, on success. 0 or
 * -errno. */
int acceptor_start(struct acceptor *a, int fd);
/* Closes it. Harmless when it was not started. */
void acceptor_stop(struct acceptor *a);

#endif
