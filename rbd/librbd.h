/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Copyright (C) 2026 the rbdcrypt-nbd authors */

#ifndef RBD_LIBRBD_H
#define RBD_LIBRBD_H

#include <pthread.h>
#include <stdatomic.h>

#include "handle.h"
#include "layout.h"
#include "object_place.h"
#include "store.h"

/* librbd_direct.c */
struct librbd_direct {
	rados_ioctx_t io; /* owned: the data pool; NULL: all reads are librbd's */
	struct object_place place;
	bool has_parent;
	atomic_bool is_on; /* nothing is configured that librbd would have to see to */
};

/* librbd_copyup.c */
struct librbd_copyup {
	uint64_t n; /* objects of which a parent has something */
	atomic_uchar *is_written; /* owned; of each of them: there is no doubt that it exists */
	unsigned int max_running;
	pthread_mutex_t lock;
	unsigned int n_running; /* lock */
	struct store_io *head, **tail; /* lock; they wait */
};

struct librbd_store {
	struct store base;
	struct handle *handle; /* one reference */
	unsigned int timeout_s;
	const struct interrupt *opening; /* heeded while it is opened, by the volume's thread */
	bool is_open;
	bool is_read_only;
	bool is_snapshot;
	uint64_t snap_id; /* with is_snapshot */
	atomic_bool is_gone; /* the snapshot: what it held may be zeros by now */
	bool has_lock_feature;
	bool has_watch;
	bool is_abandoned; /* a call that ran out of time may still use this struct */
	uint64_t watch;
	struct layout layout;
	atomic_uint_fast64_t raw_size; /* bytes, as last asked for */
	struct librbd_direct direct;
	struct librbd_copyup copyup;
	/* The status thread: started by the first status call. */
	pthread_mutex_t lock;
	pthread_cond_t more;
	struct store_io *head, **tail; /* lock */
	bool has_thread, stopping; /* lock */
	pthread_t thread;
};

static inline struct librbd_store *librbd_of(struct store *s)
{
	return (struct librbd_store *)s;
}

enum librbd_op {
	LIBRBD_WRITE,
	LIBRBD_ZERO,
	LIBRBD_ZERO_DENSE,
	LIBRBD_DISCARD,
};

/* librbd_io.c: read, write, zero, discard, flush, freeable. */
int librbd_read(struct store *s, struct store_io *io, uint64_t dev_off, void *buf, size_t len);
/* The same by librbd, always. */
int librbd_read_image(struct store *s, struct store_io *io, uint64_t dev_off, void *buf,
		      size_t len);
int librbd_write(struct store *s, struct store_io *io, uint64_t dev_off, const void *buf,
		 size_t len);
int librbd_zero(struct store *s, struct store_io *io, uint64_t dev_off, uint64_t len,
		unsigned int flags);
int librbd_discard(struct store *s, struct store_io *io, uint64_t dev_off, uint64_t len);
int librbd_flush(struct store *s, struct store_io *io);
void librbd_freeable(struct store *s, uint64_t dev_off, uint64_t len, uint64_t *ret_off,
		     uint64_t *ret_len);
/*
 * A change, or its next piece. 0: under way, and io may be gone; STORE_DONE: nothing was left to
 * do; else -errno.
 */
int librbd_send(struct store_io *io);
/*
 * The one place where an offset in the device becomes one in the image. -EIO for a range
 * that the image no longer has: librbd would cut it short and call it a success.
 */
int librbd_img_off(const struct librbd_store *ls, uint64_t dev_off, uint64_t len, uint64_t *ret);

/* librbd.c: handle_call_unless() on its handle. */
int librbd_call(struct librbd_store *ls, handle_fn fn, void *data, size_t len);

/* librbd_direct.c */
struct layer_info;
/* Where the objects are. What cannot be found out leaves all reads to librbd. Blocking. */
void librbd_direct_open(struct librbd_store *ls, struct cluster *c, const struct layer_info *info);
/* After a change: what is configured now. Blocking. */
void librbd_direct_look(struct librbd_store *ls);
/* No call may be under way. */
void librbd_direct_close(struct librbd_store *ls);
/* Whether it is on its way; else librbd has to do it, and io is as it was. */
bool librbd_direct_read(struct librbd_store *ls, struct store_io *io, uint64_t dev_off, void *buf,
			size_t len);

/* librbd_copyup.c */
/* When the layout is known. 0 or -ENOMEM. */
int librbd_copyup_open(struct librbd_store *ls, uint64_t raw_overlap);
/* No call may be under way. */
void librbd_copyup_close(struct librbd_store *ls);
/* Before a change is sent. false: it waits, and will be sent; io may be gone. */
bool librbd_copyup_enter(struct librbd_store *ls, struct store_io *io);
/* After a change that was let in, with its result, before its done; may send others. */
void librbd_copyup_leave(struct librbd_store *ls, struct store_io *io);

/* librbd.c. Whether the snapshot has been removed, asked of librbd; blocking. 0, 1 or -errno. */
int librbd_ask_gone(struct librbd_store *ls);
static inline bool librbd_is_gone(const struct librbd_store *ls)
{
	return atomic_load_explicit(&ls->is_gone, memory_order_relaxed);
}

/* librbd_status.c */
int librbd_status(struct store *s, struct store_io *io, uint64_t dev_off, uint64_t len);
/* No call may be under way. */
void librbd_status_stop(struct librbd_store *ls);

#endif
