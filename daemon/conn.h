/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Copyright (C) 2026 the rbdcrypt-nbd authors */

#ifndef DAEMON_CONN_H
#define DAEMON_CONN_H

#include <stdbool.h>
#include <stddef.h>

#include "volume.h"
#include "wire.h"

/*
 * One NBD connection: from the kernel's socketpair or from a client of the unix socket. One thread,
 * the reader; replies are sent by whoever has one.
 */
struct conn;
struct request;

#define CONN_REQUESTS 128 /* in flight per connection: the kernel's queue depth per socket */
#define CONN_STATUS_MAX 512 /* descriptors in one BLOCK_STATUS reply */

enum conn_end {
	CONN_RUNNING,
	CONN_DISCONNECTED, /* the client said so: the kernel, that the device is going away */
	CONN_CLOSED, /* the socket ended without a word */
	CONN_BROKEN, /* framing or handshake broken, or an error of the socket */
	CONN_STOPPED, /* conn_stop() */
	CONN_LEFT, /* conn_leave(): the socket is open, and somebody else can go on with it */
};

struct conn_options {
	struct volume *volume;
	int rfd, wfd; /* taken on success; may be the same */
	bool is_kernel; /* no handshake */
	/* Not the kernel: who is asked for exports. */
	wire_find_export_fn find;
	wire_list_exports_fn list;
	void *export_arg;
	/* Called by the reader when it stops reading, or NULL. Must only signal. */
	void (*lost)(void *arg);
	/* Called by the reader as its last act, when nothing is in flight any more. Must only
	 * signal. */
	void (*ended)(void *arg);
	void *ended_arg; /* of both */
};

/* Starts the reader. 0 or -errno; on failure the fds stay the caller's. The volume's thread. */
int conn_new(const struct conn_options *o, struct conn **ret);

/*
 * Stop reading requests; those that were read are finished and answered. Returns at once; ended
 * follows. A client that does not take its answers is given some seconds. Any thread.
 */
void conn_stop(struct conn *c);

/*
 * Stop reading requests at the end of one, and leave the socket open: nothing of the next is read,
 * and all that was read is answered. Returns at once; ended follows, with CONN_LEFT, or with
 * another end when the socket died or conn_stop() came first. For a store that hangs it waits for
 * ever. The kernel's connections only. Any thread.
 */
void conn_leave(struct conn *c);

/* Its socket, which stays the connection's. */
int conn_fd(const struct conn *c);

/* How it ended; CONN_RUNNING before. Any thread. */
enum conn_end conn_ended(const struct conn *c);

/*
 * Why it does not read any more, while requests may still be in flight; CONN_RUNNING before. The
 * kernel may have a new socket from then on: writes in flight keep their place in the order. Any
 * thread.
 */
enum conn_end conn_lost(const struct conn *c);

/* Waits for the reader, closes the fds. The volume's thread. NULL is fine. Returns NULL. */
struct conn *conn_free(struct conn *c);

/* ---- for request.c ---- */

/* Takes req with its error or data, answers, and puts req back in the free list. Any thread. */
void conn_reply(struct request *req);

/*
 * The kernel gave this socket up, or its client is gone: what was not answered may be sent again
 * elsewhere, as the kernel does, and QEMU with a reconnect delay. Any thread.
 */
bool conn_is_abandoned(const struct conn *c);

#endif
