/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Copyright (C) 2026 the rbdcrypt-nbd authors */

/*
 * Replies to bytes. There is no writer thread: whoever finishes a request puts it on the
 * connection's ready stack, and if nobody is sending, becomes the sender and sends all that is
 * ready, in one call for many. That saves a wake-up per reply, and under load replies gather by
 * themselves.
 *
 * A sender never waits: when the socket is full it leaves the rest to the reader, which sleeps for
 * both directions. The order of the two stores there matters: is_sending is given up before
 * is_blocked is set, so that the reader, once woken, finds the place free.
 *
 * Requests that finish on the reader itself (a store that answers at once) are held back until the
 * batch of headers it has read is used up.
 */

#include <errno.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include <unistd.h>

#include "conn_private.h"
#include "request.h"

/* Replies in one call. */
#define GATHER 64
/* A thread of librbd sends so much for others before it passes the job on. */
#define TURN_BYTES (8u << 20)
/*
 * So many replies of one batch wait for each other at most, and so many bytes: what is sent at once
 * is still in the cache, and so is its buffer when the next request takes it.
 */
#define CORK_MAX 32
#define CORK_BYTES (64u << 10)

static void push(_Atomic(struct request *) *stack, struct request *req)
{
	struct request *top = atomic_load(stack);

	do {
		req->next = top;
	} while (!atomic_compare_exchange_weak(stack, &top, req));
}

/* ---- one reply ---- */

/* Extents of the store to descriptors of the protocol, in buf. */
static uint32_t describe(struct request *req)
{
	uint64_t at = req->wire.offset, end = req->wire.offset + req->wire.len;
	unsigned int max = req->wire.flags & WIRE_CMD_REQ_ONE ? 1 : CONN_STATUS_MAX;
	uint32_t n = 0, state = 0, len = 0;

	for (unsigned int i = 0; i < req->io.n_extents && at < end; i++) {
		const struct store_extent *e = &req->io.extents[i];
		uint32_t s = e->is_hole ? WIRE_STATE_HOLE | WIRE_STATE_ZERO : 0;
		uint64_t to = e->dev_off + e->len < end ? e->dev_off + e->len : end;

		if (to <= at)
			continue;
		if (len > 0 && s != state) {
			wire_status_descriptor(req->buf + 8 * n++, len, state);
			len = 0;
			if (n == max)
				return n;
		}
		state = s;
		len += (uint32_t)(to - at);
		at = to;
	}
	if (len > 0)
		wire_status_descriptor(req->buf + 8 * n++, len, state);
	return n;
}

static void compose_status(struct request *req)
{
	uint32_t n = describe(req);

	if (n == 0) {
		req->head_len = wire_error_chunk(req->head, req->wire.cookie, -EIO);
		return;
	}
	req->head_len = wire_status_chunk(req->head, req->wire.cookie,
					  req->conn->session.status_context, n);
	req->data = req->buf;
	req->data_len = (size_t)n * 8;
}

static void compose(struct request *req)
{
	const struct wire_session *s = &req->conn->session;
	bool is_chunked = s->has_structured &&
			  (req->wire.type == WIRE_READ || req->wire.type == WIRE_BLOCK_STATUS);

	if (req->error) {
		req->data = NULL;
		req->data_len = 0;
	}
	if (!is_chunked)
		req->head_len = wire_simple_reply(req->head, req->wire.cookie, req->error);
	else if (req->error)
		req->head_len = wire_error_chunk(req->head, req->wire.cookie, req->error);
	else if (req->wire.type == WIRE_READ)
		req->head_len = wire_data_chunk(req->head, req->wire.cookie, req->wire.offset,
						req->wire.len);
	else
		compose_status(req);
}

static void count(struct request *req)
{
	const struct volume *v = req->volume;
	const struct wire_request *w = &req->wire;

	stats_end(v->stats, req->conn->shard, &req->came, w->type, w->len,
		  (w->offset | w->len) % v->sector == 0, req->error);
	(void)atomic_fetch_sub(&v->stats->in_flight, 1);
}

/* Its answer is on its way, or dropped: memory and request go back. */
static void finish(struct conn *c, struct request *req)
{
	if (req->buf)
		buffers_put(c->volume->buffers, req->buf, req->buf_len);
	req->buf = NULL;
	store_io_reset(&req->io);
	push(&c->returned, req);
	if (atomic_exchange(&c->wants_return, false))
		conn_wake(c);
}

/* ---- the sender ---- */

/* Appends what is ready, oldest first. */
static void take_ready(struct conn *c)
{
	struct request *req = atomic_exchange(&c->ready, NULL), *oldest = NULL, *newest = req;

	while (req) {
		struct request *next = req->next;

		req->next = oldest;
		oldest = req;
		req = next;
	}
	if (!oldest)
		return;
	if (c->out_first)
		c->out_last->next = oldest;
	else
		c->out_first = oldest;
	c->out_last = newest;
}

static struct request *pop_out(struct conn *c)
{
	struct request *req = c->out_first;

	c->out_first = req->next;
	c->out_sent = 0;
	return req;
}

static void drop_all(struct conn *c)
{
	while (c->out_first)
		finish(c, pop_out(c));
}

static int gather(const struct conn *c, struct iovec iov[2 * GATHER])
{
	const struct request *req = c->out_first;
	size_t skip = c->out_sent;
	int n = 0;

	for (; req && n < 2 * GATHER - 1; req = req->next) {
		if (skip < req->head_len) {
			iov[n].iov_base = (void *)((uintptr_t)req->head + skip);
			iov[n++].iov_len = req->head_len - skip;
			skip = 0;
		} else {
			skip -= req->head_len;
		}
		if (req->data_len > skip) {
			iov[n].iov_base = (void *)((uintptr_t)req->data + skip);
			iov[n++].iov_len = req->data_len - skip;
		}
		skip = 0;
	}
	return n;
}

static ssize_t send_some(struct conn *c, struct iovec *iov, int n)
{
	struct msghdr m = { .msg_iov = iov, .msg_iovlen = (size_t)n };
	ssize_t sent;

	do {
		/* writev() on a socket would raise SIGPIPE, and a pipe knows no sendmsg(). */
		sent = c->is_socket ? sendmsg(c->wfd, &m, MSG_NOSIGNAL | MSG_DONTWAIT)
				    : writev(c->wfd, iov, n);
	} while (sent < 0 && errno == EINTR);
	return sent < 0 ? -errno : sent;
}

static void advance_out(struct conn *c, size_t sent)
{
	while (c->out_first) {
		size_t left = c->out_first->head_len + c->out_first->data_len - c->out_sent;

		if (sent < left) {
			c->out_sent += sent;
			return;
		}
		sent -= left;
		finish(c, pop_out(c));
	}
}

/* As the sender: all that is ready. False when the reader has to go on. */
static bool send_turn(struct conn *c, size_t turn_bytes)
{
	struct iovec iov[2 * GATHER];
	size_t total = 0;

	for (;;) {
		ssize_t n;

		take_ready(c);
		if (!c->out_first)
			return true;
		if (atomic_load(&c->is_dead)) {
			drop_all(c);
			continue;
		}
		if (total >= turn_bytes)
			return false;
		n = send_some(c, iov, gather(c, iov));
		if (n == -EAGAIN)
			return false;
		if (n < 0) {
			log_debug(c->volume->spec, "cannot answer: %s", strerror((int)-n));
			atomic_store(&c->is_dead, true);
			/* The reader is to notice, too. */
			if (c->is_socket)
				(void)shutdown(c->wfd, SHUT_RDWR);
			else
				conn_wake(c);
			continue;
		}
		total += (size_t)n;
		(void)atomic_fetch_add(&c->sent, (size_t)n);
		advance_out(c, (size_t)n);
	}
}

static void send_ready(struct conn *c, size_t turn_bytes)
{
	do {
		bool is_all;

		/* Whoever is sending looks at the stack once more after giving up the place. */
		if (atomic_exchange(&c->is_sending, true))
			return;
		is_all = send_turn(c, turn_bytes);
		atomic_store(&c->is_sending, false);
		if (!is_all) {
			atomic_store(&c->is_blocked, true);
			conn_wake(c);
			return;
		}
	} while (atomic_load(&c->ready));
}

void reply_resume(struct conn *c)
{
	atomic_store(&c->is_blocked, false);
	send_ready(c, SIZE_MAX);
}

void reply_give_up(struct conn *c)
{
	atomic_store(&c->is_dead, true);
	reply_resume(c);
}

void reply_uncork(struct conn *c)
{
	c->corked = 0;
	c->corked_bytes = 0;
	if (atomic_load(&c->ready) && !atomic_load(&c->is_blocked))
		send_ready(c, SIZE_MAX);
}

void conn_reply(struct request *req)
{
	struct conn *c = req->conn;
	bool is_reader = pthread_equal(pthread_self(), c->reader);

	(void)atomic_fetch_add(&c->visitors, 1);
	compose(req);
	count(req);
	if (is_reader)
		c->corked_bytes += req->data_len;
	push(&c->ready, req);
	/* From here on req is the sender's. */
	if (is_reader && ++c->corked < CORK_MAX && c->corked_bytes < CORK_BYTES)
		goto out;
	if (is_reader) {
		c->corked = 0;
		c->corked_bytes = 0;
	}
	/* A full socket is the reader's business; it takes what was pushed before it cleared the
	 * flag. */
	if (!atomic_load(&c->is_blocked))
		send_ready(c, TURN_BYTES);
out:
	/* The last touch: the connection may be freed now. */
	(void)atomic_fetch_sub(&c->visitors, 1);
}
