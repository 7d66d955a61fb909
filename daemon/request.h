/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Copyright (C) 2026 the rbdcrypt-nbd authors */

#ifndef DAEMON_REQUEST_H
#define DAEMON_REQUEST_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include "pool.h"
#include "range.h"
#include "store.h"
#include "volume.h"
#include "wire.h"

struct conn;

/* Where a request is on its way; see the picture in request.c. */
enum request_step {
	STEP_BEGIN,
	STEP_ORDERED,
	STEP_READ,
	STEP_DECRYPTED,
	STEP_PIECE,
	STEP_HEAD,
	STEP_TAIL,
	STEP_MERGED,
	STEP_ENCRYPTED,
	STEP_WRITTEN,
	STEP_ZERO,
	STEP_FREED,
	STEP_DURABLE,
	STEP_LAST,
	STEP_FINISHED,
};

/*
 * One NBD command in flight. Held by exactly one place at a time: its
 * connection's free list, the reader, a thread that advances it, the range lock, the
 * store, the pool, or the reply list; handing it on is the only synchronisation.
 */
struct request {
	struct conn *conn;
	struct volume *volume;
	struct wire_request wire;
	struct stats_mark came;
	enum request_step step;
	int error; /* -errno; the first one wins */
	/* The memory, taken at the door: the window, then two scratch sectors where there are
	 * edges. */
	unsigned char *buf;
	size_t buf_len;
	/* The window: whole sectors around the piece being moved; dev_off and bytes. */
	uint64_t window;
	size_t window_len;
	/* The piece: all of a READ or WRITE, one part of a WRITE_ZEROES. */
	uint64_t piece;
	size_t piece_len;
	uint64_t cursor; /* WRITE_ZEROES: dev_off done so far */
	struct range range;
	struct store_io io;
	struct job job;
	size_t job_piece_bytes;
	bool job_is_encrypt;
	atomic_int job_error;
	/* Reply. */
	unsigned char head[WIRE_REPLY_MAX];
	size_t head_len;
	const unsigned char *data; /* inside buf */
	size_t data_len;
	/* Whatever list it is on. */
	struct request *next;
};

/* How much memory a valid request needs; 0 for none. Pure. */
size_t request_memory(const struct volume *v, const struct wire_request *w);

/* Where a WRITE's payload goes, after buf has been set. */
unsigned char *request_payload(struct request *req);

/*
 * Any thread that holds req, with conn, volume, wire and buf set: takes it through to its reply,
 * which conn_reply() gets. req is no longer the caller's.
 */
void request_start(struct request *req);

#endif
