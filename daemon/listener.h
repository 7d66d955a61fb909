/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Copyright (C) 2026 the rbdcrypt-nbd authors */

#ifndef DAEMON_LISTENER_H
#define DAEMON_LISTENER_H

#include <stdbool.h>

#include "fault.h"
#include "loop.h"
#include "peers.h"
#include "unix_socket.h"
#include "volume.h"

/*
 * A volume as NBD on a unix socket: our own, one that systemd passed, or a single client on two
 * descriptors. The volume's thread only, but for the handshakes, which run on the connections'
 * readers.
 */
struct listener;

struct listener_options {
	struct volume *volume;
	struct loop *loop;
	const char *export_name;
	const char *path; /* NULL: not by path */
	struct unix_socket_access access; /* of the path */
	const struct peers *peers; /* who may connect; NULL: who gets through to the socket */
	int fd; /* a listening socket that was passed; -1: none. Taken on success. */
	bool is_single; /* one client, on in_fd and out_fd (taken); no socket */
	int in_fd, out_fd;
	/* The single client is gone. */
	void (*gone)(void *arg);
	void *gone_arg;
};

/*
 * With a path: a stale socket is replaced, a living one is EXIT_BUSY. On failure nothing
 * is left.
 */
int listener_start(const struct listener_options *o, struct listener **ret, struct fault *f);

/* Ends the connections (what was read is answered), removes the socket's file. NULL is fine.
 * Returns NULL. */
struct listener *listener_stop(struct listener *l);

#endif
