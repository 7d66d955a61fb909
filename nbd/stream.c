/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Copyright (C) 2026 the rbdcrypt-nbd authors */

/*
 * Bytes to and from a client that may be slow, silent or malicious: every wait
 * ends at a deadline or when the server stops. Used by the handshake, on the
 * connection's reader thread. The caller owns the descriptors; we never change
 * their flags, because a standard input shared with a shell would keep them.
 */

#include "clock.h"
#include "stream.h"

#include <errno.h>
#include <limits.h>
#include <poll.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

void stream_init(struct stream *s, int rfd, int wfd, int stop_fd, int timeout_ms)
{
	s->rfd = rfd;
	s->wfd = wfd;
	s->stop_fd = stop_fd;
	s->timeout_ms = timeout_ms;
	s->n_out = 0;
	stream_restart(s);
}

void stream_restart(struct stream *s)
{
	s->deadline_ms = clock_ms() + s->timeout_ms;
}

static int wait_for(const struct stream *s, int fd, short events)
{
	struct pollfd p[2] = {
		{ .fd = fd, .events = events },
		{ .fd = s->stop_fd, .events = POLLIN },
	};
	int64_t left;
	int r;

	do {
		left = -1;
		if (s->timeout_ms >= 0) {
			left = s->deadline_ms - clock_ms();
			if (left < 0)
				left = 0;
		}
		r = poll(p, 2, (int)left);
		if (r < 0 && errno != EINTR)
			return -errno;
	} while (r < 0);
	if (p[1].revents)
		return -ECANCELED;
	return r == 0 ? -ETIMEDOUT : 0;
}

/* What a descriptor says when the other side is not there any more. */
static int peer_error(int error)
{
	return error == EPIPE ? -ECONNRESET : -error;
}

int stream_read(struct stream *s, void *buf, size_t len)
{
	unsigned char *p = buf;

	while (len > 0) {
		ssize_t n;
		int r = wait_for(s, s->rfd, POLLIN);

		if (r < 0)
			return r;
		n = recv(s->rfd, p, len, MSG_DONTWAIT);
		if (n < 0 && errno == ENOTSOCK)
			n = read(s->rfd, p, len);
		if (n == 0)
			return -ECONNRESET;
		if (n < 0) {
			if (errno == EAGAIN || errno == EINTR)
				continue;
			return peer_error(errno);
		}
		p += n;
		len -= (size_t)n;
	}
	return 0;
}

int stream_skip(struct stream *s, uint64_t len)
{
	unsigned char sink[4096];

	while (len > 0) {
		size_t n = len < sizeof(sink) ? (size_t)len : sizeof(sink);
		int r = stream_read(s, sink, n);

		if (r < 0)
			return r;
		len -= n;
	}
	return 0;
}

int stream_flush(struct stream *s)
{
	size_t sent = 0;

	while (sent < s->n_out) {
		size_t len = s->n_out - sent;
		ssize_t n;
		int r = wait_for(s, s->wfd, POLLOUT);

		if (r < 0)
			return r;
		n = send(s->wfd, s->out + sent, len, MSG_DONTWAIT | MSG_NOSIGNAL);
		if (n < 0 && errno == ENOTSOCK)
			/* A writable pipe takes this much without blocking. */
			n = write(s->wfd, s->out + sent, len < PIPE_BUF ? len : PIPE_BUF);
		if (n < 0) {
			if (errno == EAGAIN || errno == EINTR)
				continue;
			return peer_error(errno);
		}
		sent += (size_t)n;
	}
	s->n_out = 0;
	return 0;
}

int stream_put(struct stream *s, const void *data, size_t len)
{
	const unsigned char *p = data;

	while (len > 0) {
		size_t n = sizeof(s->out) - s->n_out;

		if (n > len)
			n = len;
		memcpy(s->out + s->n_out, p, n);
		s->n_out += n;
		p += n;
		len -= n;
		if (s->n_out == sizeof(s->out)) {
			int r = stream_flush(s);

			if (r < 0)
				return r;
		}
	}
	return 0;
}
