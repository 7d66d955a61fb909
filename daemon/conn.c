/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Copyright (C) 2026 the rbdcrypt-nbd authors */

/*
 * The reader's side of a connection: bytes to requests. The other side, replies
 * to bytes, is reply.c; conn_private.h has what they share.
 *
 * The reader sleeps in one place only, wait_for(), and there it also does what other threads leave
 * to it: sending what a full socket did not take. So it may wait for memory or for a free request
 * while replies drain.
 *
 * It reads many headers with one call, and the payload of a large write straight to where it is
 * encrypted.
 *
 * Who goes on with the socket of the kernel after us finds the beginning of a request in it. So a
 * connection that leaves reads what it has begun to the end, and not a byte more; bytes that were
 * read ahead are requests, or become ones. Handing those bytes on instead would need a second way
 * for them, and the kernel never takes long to send the rest of a request.
 */

#include "conn.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <sched.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include <unistd.h>

#include "clock.h"
#include "conn_private.h"
#include "request.h"
#include "validate.h"

/* Headers of a full queue, and the payload of a few small writes. */
#define IN_BYTES (64u << 10)
#define HANDSHAKE_MS 60000
/*
 * A stopping connection whose client takes nothing for so long is cut, and so is the kernel's where
 * nothing is answered for so long: it sends again what it was not told of, or fails it by itself.
 */
#define STUCK_MS 10000
/* A client that takes no answer for so long, or sends nothing of what it has begun, is cut once
 * others wait for the memory. */
#define STARVING_MS 10000
/* Memory can also come back from elsewhere in the system, which wakes nobody. */
#define MEMORY_RETRY_MS 1000
#define SOCKET_BUFFER (4 << 20)
/* A client that sends nothing for so long is idle: the memory of its last requests goes back. */
#define IDLE_MS 10000

static void on_memory(struct buffers_waiter *w)
{
	conn_wake((struct conn *)((char *)w - offsetof(struct conn, waiter)));
}

/* The kernel is never cut: its device would be lost. On pipes there is nobody else. */
static enum conn_hold hold_of(const struct conn *c)
{
	if (c->is_kernel || !c->is_socket)
		return HOLD_NONE;
	if (atomic_load(&c->is_blocked))
		return HOLD_ANSWERS;
	return c->is_in_payload ? HOLD_PAYLOAD : HOLD_NONE;
}

/* Whether the client has kept memory for STARVING_MS without a byte in the direction it is for. */
static bool is_holding_long(struct conn *c)
{
	enum conn_hold why = hold_of(c);
	size_t moved = why == HOLD_ANSWERS ? atomic_load(&c->sent) : c->received;
	int64_t now = clock_ms();

	if (why == HOLD_NONE || why != c->hold.why || moved != c->hold.moved) {
		c->hold.why = why;
		c->hold.moved = moved;
		c->hold.since_ms = now;
		return false;
	}
	return now - c->hold.since_ms >= STARVING_MS;
}

/*
 * Sleeps until the socket has what is waited for (POLLIN, POLLRDHUP, or 0), somebody woke us, or
 * timeout_ms passed (-1: never). 0; -ECONNRESET when POLLRDHUP was waited for and came; -ECANCELED
 * when the connection is to stop; -ETIMEDOUT when it was cut for the sake of others.
 */
static int wait_for(struct conn *c, short events, int timeout_ms)
{
	bool is_blocked = atomic_load(&c->is_blocked);
	bool is_long = is_holding_long(c);
	struct pollfd p[] = {
		{ .fd = c->wake_fd, .events = POLLIN },
		{ .fd = events ? c->rfd : -1, .events = events },
		{ .fd = is_blocked ? c->wfd : -1, .events = POLLOUT },
	};
	uint64_t count;

	if (c->hold.why != HOLD_NONE && (timeout_ms < 0 || timeout_ms > MEMORY_RETRY_MS))
		timeout_ms = MEMORY_RETRY_MS;
	if (poll(p, 3, timeout_ms) > 0) {
		if (p[0].revents)
			(void)!read(c->wake_fd, &count, sizeof(count));
		if (p[2].revents)
			reply_resume(c);
	}
	if (is_long && !p[c->hold.why == HOLD_ANSWERS ? 2 : 1].revents &&
	    buffers_are_wanted(c->volume->buffers, &c->waiter)) {
		log_warning(c->volume->spec,
			    "a client keeps memory that others wait for: its connection is cut");
		(void)shutdown(c->wfd, SHUT_RDWR);
		reply_give_up(c);
		return -ETIMEDOUT;
	}
	if (atomic_load(&c->is_stopping))
		return -ECANCELED;
	return events == POLLRDHUP && p[1].revents ? -ECONNRESET : 0;
}

/*
 * What to look for while we wait for something else than input: the kernel gives a socket up and
 * wants another, which it must get although this one has no memory to read on.
 */
static short death_of(const struct conn *c)
{
	return c->is_kernel ? POLLRDHUP : 0;
}

/* As wait_for(); *timeout_ms is IDLE_MS at first, and -1 from when nothing came for so long. */
static int wait_for_input(struct conn *c, int *timeout_ms)
{
	int64_t idle = clock_ms() + IDLE_MS;
	int r = wait_for(c, POLLIN, *timeout_ms);

	if (r == 0 && *timeout_ms >= 0 && clock_ms() >= idle) {
		buffers_give_back(c->volume->buffers);
		*timeout_ms = -1;
	}
	return r;
}

/* At least one byte into iov. Bytes read, -ECONNRESET at the end of the stream, -ECANCELED, -errno.
 */
static ssize_t read_some(struct conn *c, struct iovec *iov, int n)
{
	int timeout_ms = IDLE_MS;

	for (;;) {
		ssize_t got;
		int r;

		if (atomic_load(&c->is_stopping) || (c->is_between && atomic_load(&c->is_leaving)))
			return -ECANCELED;
		/* Nobody takes answers any more; a socket ends in both directions then. */
		if (!c->is_socket && atomic_load(&c->is_dead))
			return -EPIPE;
		got = readv(c->rfd, iov, n);
		if (got > 0) {
			c->received += (size_t)got;
			return got;
		}
		if (got == 0)
			return -ECONNRESET;
		if (errno == EINTR)
			continue;
		if (errno != EAGAIN)
			return -errno;
		/* The batch is over: what it finished goes out before we sleep. */
		reply_uncork(c);
		r = wait_for_input(c, &timeout_ms);
		if (r < 0)
			return r;
	}
}

/* Makes at least need bytes (at most IN_BYTES) available at c->in + c->in_at. 0 or as read_some().
 */
static int fill(struct conn *c, size_t need)
{
	if (c->in_len >= need)
		return 0;
	memmove(c->in, c->in + c->in_at, c->in_len);
	c->in_at = 0;
	while (c->in_len < need) {
		size_t end = atomic_load(&c->is_leaving) ? need : IN_BYTES;
		struct iovec iov = { c->in + c->in_len, end - c->in_len };
		ssize_t n;

		c->is_between = c->in_len == 0;
		n = read_some(c, &iov, 1);
		if (n < 0)
			return (int)n;
		c->in_len += (size_t)n;
	}
	c->is_between = false;
	return 0;
}

/* What is buffered of a payload, and how much that was. */
static size_t take_buffered(struct conn *c, unsigned char *to, size_t len)
{
	size_t n = len < c->in_len ? len : c->in_len;

	if (to)
		memcpy(to, c->in + c->in_at, n);
	c->in_at += n;
	c->in_len -= n;
	return n;
}

/* A payload to where it belongs; the headers behind it go to the buffer in the same call. */
static int read_payload(struct conn *c, unsigned char *to, size_t len)
{
	size_t done = take_buffered(c, to, len);

	while (done < len) {
		struct iovec iov[] = { { to + done, len - done }, { c->in, IN_BYTES } };
		ssize_t n = read_some(c, iov, atomic_load(&c->is_leaving) ? 1 : 2);

		if (n < 0)
			return (int)n;
		if ((size_t)n > len - done) {
			c->in_at = 0;
			c->in_len = (size_t)n - (len - done);
			n = (ssize_t)(len - done);
		}
		done += (size_t)n;
	}
	return 0;
}

/* The payload of a write that was refused. */
static int skip_payload(struct conn *c, size_t len)
{
	len -= take_buffered(c, NULL, len);
	while (len > 0) {
		struct iovec iov = { c->in, len < IN_BYTES ? len : IN_BYTES };
		ssize_t n = read_some(c, &iov, 1);

		if (n < 0)
			return (int)n;
		len -= (size_t)n;
	}
	return 0;
}

/* ---- requests and memory ---- */

/* Takes back what the senders have finished with. */
static void collect(struct conn *c)
{
	struct request *req = atomic_exchange(&c->returned, NULL);

	while (req) {
		struct request *next = req->next;

		req->next = c->free;
		c->free = req;
		c->n_free++;
		req = next;
	}
}

/* Sleeps for something that senders return. events and timeout_ms as wait_for(). */
static int wait_returned(struct conn *c, short events, int timeout_ms)
{
	reply_uncork(c);
	atomic_store(&c->wants_return, true);
	if (atomic_load(&c->returned))
		return 0;
	return wait_for(c, events, timeout_ms);
}

static int get_request(struct conn *c, struct request **ret)
{
	for (;;) {
		int r;

		if (!c->free)
			collect(c);
		if (c->free) {
			*ret = c->free;
			c->free = (*ret)->next;
			c->n_free--;
			return 0;
		}
		if (c->n_used < CONN_REQUESTS) {
			*ret = &c->requests[c->n_used++];
			c->n_free--;
			return 0;
		}
		r = wait_returned(c, death_of(c), -1);
		if (r < 0)
			return r;
	}
}

static void unget_request(struct conn *c, struct request *req)
{
	req->next = c->free;
	c->free = req;
	c->n_free++;
}

static int get_memory(struct conn *c, struct request *req, size_t len)
{
	req->buf = NULL;
	req->buf_len = len;
	if (len == 0)
		return 0;
	for (;;) {
		int r;

		req->buf = buffers_get(c->volume->buffers, len, &c->waiter);
		if (req->buf)
			return 0;
		reply_uncork(c);
		r = wait_for(c, death_of(c), MEMORY_RETRY_MS);
		if (r < 0) {
			buffers_leave(c->volume->buffers, &c->waiter);
			return r;
		}
	}
}

/* ---- one request after the other ---- */

/* Reads what belongs to a valid request and lets it go. */
static int accept_request(struct conn *c, struct request *req)
{
	int r = get_memory(c, req, request_memory(c->volume, &req->wire));

	if (r == 0 && req->wire.type == WIRE_WRITE) {
		c->is_in_payload = true;
		r = read_payload(c, request_payload(req), req->wire.len);
		c->is_in_payload = false;
	}
	if (r < 0) {
		/* Half a request is no request. */
		if (req->buf)
			buffers_put(c->volume->buffers, req->buf, req->buf_len);
		unget_request(c, req);
		return r;
	}
	request_start(req);
	return 0;
}

static int next_request(struct conn *c)
{
	struct request *req;
	struct wire_request w;
	int r = fill(c, WIRE_REQUEST_BYTES);

	if (r < 0)
		return r;
	r = wire_request_decode(c->in + c->in_at, &w);
	if (r < 0)
		return r;
	c->in_at += WIRE_REQUEST_BYTES;
	c->in_len -= WIRE_REQUEST_BYTES;
	if (w.type == WIRE_DISC)
		return -ESHUTDOWN;
	r = get_request(c, &req);
	if (r < 0)
		return r;
	req->conn = c;
	req->volume = c->volume;
	req->wire = w;
	stats_begin(&req->came, &c->turn);
	r = validate_request(c->volume, &c->session, &w);
	if (r == 0)
		return accept_request(c, req);
	log_debug(c->volume->spec, "refused request type %u flags %#x offset %llu length %u: %s",
		  w.type, w.flags, (unsigned long long)w.offset, w.len, strerror(-r));
	req->error = r;
	req->buf = NULL;
	req->data = NULL;
	req->data_len = 0;
	(void)atomic_fetch_add(&c->volume->stats->in_flight, 1);
	if (w.type == WIRE_WRITE) {
		int s = skip_payload(c, w.len);

		if (s < 0) {
			(void)atomic_fetch_sub(&c->volume->stats->in_flight, 1);
			unget_request(c, req);
			return s;
		}
	}
	conn_reply(req);
	return 0;
}

static enum conn_end end_of(int error)
{
	switch (error) {
	case -ESHUTDOWN:
		return CONN_DISCONNECTED;
	case -ECONNRESET:
		return CONN_CLOSED;
	case -ECANCELED:
		return CONN_STOPPED;
	default:
		return CONN_BROKEN;
	}
}

/*
 * Until every request is answered, or its answer dropped because the socket is gone or its client
 * takes nothing. Then until those who answered have let go of the connection.
 */
static void drain(struct conn *c)
{
	int64_t since = clock_ms();
	unsigned int n_free = c->n_free;
	bool is_stuck;

	reply_uncork(c);
	for (;;) {
		collect(c);
		if (c->n_free == CONN_REQUESTS)
			break;
		is_stuck = atomic_load(&c->is_blocked) ||
			   (c->is_kernel && atomic_load(&c->is_stopping));
		if (!is_stuck || c->n_free != n_free) {
			since = clock_ms();
			n_free = c->n_free;
		} else if (clock_ms() - since >= STUCK_MS) {
			reply_give_up(c);
		}
		(void)wait_returned(c, 0, STUCK_MS / 10);
	}
	while (atomic_load(&c->visitors) > 0)
		(void)sched_yield();
}

static int handshake(struct conn *c)
{
	if (c->is_kernel) {
		c->session.flags = volume_flags(c->volume);
		c->session.size = atomic_load(&c->volume->size);
		return 0;
	}
	return wire_handshake(c->rfd, c->wfd, c->wake_fd, HANDSHAKE_MS, c->find, c->list,
			      c->export_arg, &c->session);
}

/*
 * The kernel sends what was not answered again, on another socket if it gets one: it is told at
 * once, and need not wait until all that is in flight has come to its end.
 */
static void tell_lost(struct conn *c, enum conn_end end)
{
	atomic_store(&c->lost_end, end);
	if (c->is_kernel && (end == CONN_CLOSED || end == CONN_BROKEN))
		(void)shutdown(c->wfd, SHUT_RDWR);
	if (c->lost)
		c->lost(c->ended_arg);
}

/* After drain(): whether the kernel has every answer, and nothing was read that has none. */
static bool is_left(const struct conn *c)
{
	return atomic_load(&c->is_leaving) && c->is_between && !atomic_load(&c->is_dead);
}

static void *reader_main(void *arg)
{
	struct conn *c = arg;
	enum conn_end end;
	int r;

	c->reader = pthread_self();
	r = handshake(c);
	while (r == 0)
		r = next_request(c);
	end = end_of(r);
	if (r == -EPROTO)
		log_warning(c->volume->spec,
			    "a client broke the protocol; its connection is closed");
	else if (r == -ENOENT)
		log_notice(c->volume->spec, "a client asked for an export that is not here");
	else if (end == CONN_BROKEN && r != -EPIPE && r != -ETIMEDOUT)
		log_warning(c->volume->spec, "a connection failed: %s", strerror(-r));
	tell_lost(c, end);
	drain(c);
	if (end == CONN_STOPPED && is_left(c))
		end = CONN_LEFT;
	/* The client learns at once; the descriptor itself stays ours until conn_free(). */
	if (c->is_socket && end != CONN_LEFT)
		(void)shutdown(c->wfd, SHUT_RDWR);
	atomic_store(&c->end, end);
	c->ended(c->ended_arg);
	return NULL;
}

/* ---- life ---- */

/* Large buffers spare the sender from sleeping in the middle of replies. Best effort. */
static void widen(int fd)
{
	int bytes = SOCKET_BUFFER;

	if (setsockopt(fd, SOL_SOCKET, SO_SNDBUFFORCE, &bytes, sizeof(bytes)) < 0)
		(void)setsockopt(fd, SOL_SOCKET, SO_SNDBUF, &bytes, sizeof(bytes));
}

static int set_nonblocking(int fd)
{
	int flags = fcntl(fd, F_GETFL);

	if (flags < 0 || fcntl(fd, F_SETFL, flags | O_NONBLOCK) < 0)
		return -errno;
	return 0;
}

int conn_new(const struct conn_options *o, struct conn **ret)
{
	struct conn *c = calloc(1, sizeof(*c));
	int type, r;
	socklen_t len = sizeof(type);

	if (!c)
		return -ENOMEM;
	c->wake_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	if (c->wake_fd < 0) {
		r = -errno;
		free(c);
		return r;
	}
	c->in = malloc(IN_BYTES);
	r = c->in ? set_nonblocking(o->rfd) : -ENOMEM;
	if (r == 0)
		r = set_nonblocking(o->wfd);
	if (r < 0)
		goto fail;
	c->volume = o->volume;
	c->shard = atomic_fetch_add(&o->volume->stats->connections, 1);
	c->rfd = o->rfd;
	c->wfd = o->wfd;
	c->is_kernel = o->is_kernel;
	c->is_socket = getsockopt(o->wfd, SOL_SOCKET, SO_TYPE, &type, &len) == 0;
	c->find = o->find;
	c->list = o->list;
	c->export_arg = o->export_arg;
	c->lost = o->lost;
	c->ended = o->ended;
	c->ended_arg = o->ended_arg;
	c->waiter.wake = on_memory;
	widen(o->wfd);
	c->n_free = CONN_REQUESTS;
	r = -pthread_create(&c->thread, NULL, reader_main, c);
	if (r < 0)
		goto fail;
	(void)pthread_setname_np(c->thread, "reader");
	*ret = c;
	return 0;
fail:
	(void)close(c->wake_fd);
	free(c->in);
	free(c);
	return r;
}

struct conn *conn_free(struct conn *c)
{
	if (!c)
		return NULL;
	(void)pthread_join(c->thread, NULL);
	if (c->rfd != c->wfd)
		(void)close(c->rfd);
	(void)close(c->wfd);
	(void)close(c->wake_fd);
	free(c->in);
	free(c);
	return NULL;
}
