/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Copyright (C) 2026 the rbdcrypt-nbd authors */

#ifndef RBD_HANDLE_H
#define RBD_HANDLE_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include <rados/librados.h>
#include <rbd/librbd.h>

#include "cluster.h"

/*
 * An open image, counted: who keeps it open is its layer or store, and every call that is
 * under way or ran out of time. The last to let go closes it, which may block.
 */
struct handle {
	struct cluster *cluster; /* one reference */
	rados_ioctx_t io; /* the image's pool and namespace */
	rbd_image_t image;
	bool is_read_only; /* opened so: librbd itself refuses to write */
	atomic_uint refs;
};

/* Which image. Names or ids; strings stay the caller's. */
struct place {
	const char *pool; /* or NULL: by pool_id */
	int64_t pool_id;
	const char *nspace; /* "" for none */
	const char *image; /* or NULL: by image_id */
	const char *image_id;
	const char *snap; /* or NULL: by snap_id */
	uint64_t snap_id; /* UINT64_MAX: the head */
	/*
	 * Open it as writers do: with a watch that tells of changes. Falls back to read-only
	 * for a user who may not.
	 */
	bool has_watch;
	bool is_writer; /* no fallback */
};

/*
 * Blocking, for at most timeout_s (0: for ever), and no longer than i (or NULL) is not raised,
 * which is -EINTR (EXIT_TIMED_OUT). The fault says which of pool, namespace, image or snapshot is
 * missing; subject is how the user calls it.
 */
int handle_open(struct cluster *c, const struct place *place, const char *subject,
		unsigned int timeout_s, const struct interrupt *i, struct handle **ret,
		struct fault *f);
/* Lets go of it, and does not wait longer than timeout_s for the image to close. */
struct handle *handle_close(struct handle *h, unsigned int timeout_s);

/*
 * Runs fn on the handle with a time limit. data (len bytes) is copied in, and out again
 * when fn came back in time and succeeded, so that a late fn writes to memory of its own.
 * Returns what fn returned, -ETIMEDOUT, -ENOMEM or -EAGAIN.
 */
typedef int (*handle_fn)(struct handle *h, void *data);
int handle_call(struct handle *h, unsigned int timeout_s, handle_fn fn, void *data, size_t len);
/* The same, and -EINTR soon after i, or NULL, was raised. */
int handle_call_unless(struct handle *h, const struct interrupt *i, unsigned int timeout_s,
		       handle_fn fn, void *data, size_t len);
/* The same; tells fn's own -ETIMEDOUT and -EINTR from those of a call that is still running. */
int handle_call_late(struct handle *h, const struct interrupt *i, unsigned int timeout_s,
		     handle_fn fn, void *data, size_t len, bool *ret_is_late);

#endif
