/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Copyright (C) 2026 the rbdcrypt-nbd authors */

#ifndef RBDCRYPT_NBD_STREAM_H
#define RBDCRYPT_NBD_STREAM_H

#include <stddef.h>
#include <stdint.h>

/*
 * Two descriptors (sockets or pipes, blocking or not) on which exact amounts are
 * read and written until a deadline, or until a third one says stop. One thread.
 * Every call returns 0 or
 *   -ETIMEDOUT   the deadline passed
 *   -ECANCELED   stop_fd became readable
 *   -ECONNRESET  the peer is gone
 *   -errno       the descriptor failed
 */
struct stream {
	int rfd, wfd;
	int stop_fd; /* or -1 */
	int timeout_ms; /* negative: none */
	int64_t deadline_ms; /* CLOCK_MONOTONIC */
	size_t n_out; /* bytes waiting in out */
	unsigned char out[8192];
};

/* The descriptors stay the caller's. The first deadline starts now. */
void stream_init(struct stream *s, int rfd, int wfd, int stop_fd, int timeout_ms);
/* A new message begins: it has timeout_ms from now, however many pieces it comes in. */
void stream_restart(struct stream *s);
int stream_read(struct stream *s, void *buf, size_t len);
/* Reads and forgets len bytes. */
int stream_skip(struct stream *s, uint64_t len);
/* Collects; sends when its buffer is full. */
int stream_put(struct stream *s, const void *data, size_t len);
int stream_flush(struct stream *s);

#endif
