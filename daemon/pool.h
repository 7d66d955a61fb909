/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Copyright (C) 2026 the rbdcrypt-nbd authors */

#ifndef DAEMON_POOL_H
#define DAEMON_POOL_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/*
 * The worker threads: work that is large enough to be worth sharing is cut into
 * pieces, and the thread that brings it does pieces too. One pool per process,
 * shared by all volumes.
 */
struct pool;

/*
 * One piece of work, embedded in its owner. Nobody may touch it after done has
 * begun: done may free it.
 */
struct job {
	/* Set by the owner. piece runs n_pieces times, on several threads at once. */
	void (*piece)(struct job *job, unsigned int i);
	/* Runs once, on the worker that finished the last piece, unless pool_run() did. */
	void (*done)(struct job *job);
	unsigned int n_pieces;
	/* The pool's own, guarded by its mutex. */
	unsigned int next, finished;
	struct job *link;
};

/* n_threads 0: as many as there are processors. 0 or -errno. */
int pool_new(unsigned int n_threads, struct pool **ret);
/* No job may be under way. NULL is fine. Returns NULL. */
struct pool *pool_free(struct pool *p);
unsigned int pool_threads(const struct pool *p);

/* Bytes of a piece when len bytes are cut at multiples of unit: a share for each thread that helps.
 */
size_t pool_piece(const struct pool *p, size_t len, uint32_t unit);

/*
 * Any thread. Works on the job until no piece is left to begin; does not wait
 * for pieces that others began. True: the job is finished, and done does not
 * run. False: done runs on a worker, perhaps before this returns.
 */
bool pool_run(struct pool *p, struct job *job);

#endif
