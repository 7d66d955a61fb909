/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Copyright (C) 2026 the rbdcrypt-nbd authors */

#ifndef DAEMON_CONN_PRIVATE_H
#define DAEMON_CONN_PRIVATE_H

/* What conn.c (bytes to requests) and reply.c (replies to bytes) share. */

#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>

#include "buffers.h"
#include "conn.h"
#include "request.h"

/* What a client has to do before memory comes back. */
enum conn_hold {
	HOLD_NONE,
	HOLD_ANSWERS, /* take its answers */
	HOLD_PAYLOAD, /* send the rest of a write */
};

struct conn {
	/* Constant once the reader runs. */
	struct volume *volume;
	int rfd, wfd; /* non-blocking */
	int wake_fd; /* eventfd: wakes the reader */
	bool is_kernel, is_socket;
	unsigned int shard; /* of the statistics */
	wire_find_export_fn find;
	wire_list_exports_fn list;
	void *export_arg;
	void (*lost)(void *arg); /* or NULL */
	void (*ended)(void *arg);
	void *ended_arg;
	pthread_t thread; /* for joining: the volume's thread */
	struct wire_session session; /* written by the reader before the first request */

	/* The reader's own. */
	pthread_t reader; /* itself; other threads read it once there are requests */
	unsigned char *in; /* bytes received and not yet taken */
	size_t in_at, in_len;
	bool is_between; /* nothing of the next request is read */
	struct request *free; /* of those that were used */
	unsigned int n_free; /* those that were never used, too */
	unsigned int n_used; /* of requests: the others' memory was never touched */
	struct buffers_waiter waiter;
	unsigned int turn; /* of the statistics' sample */
	unsigned int corked; /* replies of this batch that wait to go out together */
	size_t corked_bytes; /* and their data */
	bool is_in_payload; /* a request has its memory and not all of its data */
	struct {
		enum conn_hold why;
		size_t moved;
		int64_t since_ms;
	} hold; /* of memory that the client does not let go: how far it was when it last moved */
	size_t received; /* bytes; wraps */

	/* Stacks that any thread pushes to and one takes whole. */
	_Atomic(struct request *) returned; /* answered; the reader takes */
	_Atomic(struct request *) ready; /* to be sent; the sender takes */

	/* Signals. */
	atomic_bool wants_return; /* the reader sleeps until something is returned */
	atomic_bool is_sending; /* somebody is the sender */
	atomic_bool is_blocked; /* the socket was full: the reader resumes when it is not */
	atomic_bool is_dead; /* nothing can be sent any more: replies are dropped */
	atomic_bool is_stopping;
	atomic_bool is_leaving; /* to stop between two requests */
	atomic_uint visitors; /* threads inside conn_reply(): c outlives them */
	_Atomic(enum conn_end) lost_end; /* set before drain() */
	_Atomic(enum conn_end) end;

	/* The sender's own: whoever set is_sending. */
	struct request *out_first, *out_last;
	size_t out_sent; /* bytes of out_first that are gone */
	atomic_size_t sent; /* bytes; wraps; the reader looks */

	struct request requests[CONN_REQUESTS];
};

void conn_wake(struct conn *c);

/* Reader only: the batch is over, send what it finished. */
void reply_uncork(struct conn *c);
/* Reader only: the socket takes bytes again. */
void reply_resume(struct conn *c);
/* Reader only: the client takes nothing; drop what is left. */
void reply_give_up(struct conn *c);

#endif
