/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Copyright (C) 2026 the rbdcrypt-nbd authors */

#ifndef RBD_RADOS_H
#define RBD_RADOS_H

#include <pthread.h>
#include <stdatomic.h>

#include <rados/librados.h>

#include "gate.h"
#include "image.h"
#include "layout.h"
#include "object_map.h"
#include "object_place.h"
#include "owner.h"
#include "store.h"

/* One layer as IO sees it. Constant while the store is open, but for overlap. */
struct rados_objects {
	rados_ioctx_t io; /* owned: the data pool, namespace and snapshot */
	struct object_place place;
	struct layout layout;
	uint64_t data_offset; /* bytes */
	uint32_t sector; /* bytes; 1 for plaintext */
	uint64_t raw_size; /* bytes, as opened */
	/* Bytes of the device that are the parent's where this layer has no object. */
	atomic_uint_fast64_t overlap;
};

/*
 * What writes are planned by between two changes of the image. Replaced by the owner's thread
 * while nobody is inside the gate, so who is inside uses it without a count.
 */
struct rados_plan {
	rados_ioctx_t io; /* owned: the data pool, with the snapshots that writes must not change */
	unsigned int n_snaps;
	uint64_t raw_size; /* bytes */
	uint64_t overlap; /* bytes of the device; as layers[0].overlap */
};

/* What makes a store of one that may be written. rados_write.c, copyup.c. */
struct rados_writer {
	struct gate gate;
	struct owner *owner; /* owned */
	struct object_map *map; /* owned */
	rados_ioctx_t metadata, copyup; /* owned; copyup: the data pool, with no snapshots */
	struct rados_plan plan;
	bool is_planned;
	/* What the image was when it was opened; the rest may change. */
	bool has_lock, has_identity;
	unsigned char identity[256]; /* the beginning of the header */
	/* Copy-ups under way, by object, and those that wait for memory. */
	pthread_mutex_t lock;
	struct flight *flights, *waiting, **waiting_tail;
	unsigned int n_running, max_running;
	/* Turns away who waits at the gate when the volume has been ending for too long. */
	struct {
		pthread_t thread; /* of the thread that closes the store, and says so */
		bool has_thread, is_over; /* is_over: guarded by lock */
		pthread_cond_t over;
		struct timespec until; /* CLOCK_MONOTONIC */
	} ending;
};

/* The snapshot that the child was cloned from. */
struct rados_parent {
	int64_t pool;
	uint64_t snap;
	char id[64];
};

struct rados_store {
	struct store base;
	struct store *image; /* owned; read-only stores: knows size and changes of the child */
	struct rados_writer *writer; /* owned; NULL: read-only */
	struct cluster *cluster; /* outlives the store */
	char nspace[128]; /* of the child */
	unsigned int timeout_s;
	bool is_layered; /* others may see these bytes otherwise than we do */
	uint32_t sector_max; /* bytes: the largest of the layers */
	atomic_uint_fast64_t raw_size; /* bytes of the child, as last asked for */
	struct rados_parent parent; /* when it was opened; of a child without one: nothing */
	/* By now it has another: then nobody keeps what the old one has, and it cannot be read. */
	atomic_bool is_parent_lost;
	unsigned int n;
	struct rados_objects layers[];
};

static inline struct rados_store *rados_of(struct store *s)
{
	return (struct rados_store *)s;
}

/* Whether the child still has the parent that it was opened with. */
bool rados_is_parent(const struct rados_store *rs, const struct rados_parent *p);

/* rados_io.c */
int rados_store_read(struct store *s, struct store_io *io, uint64_t dev_off, void *buf, size_t len);
/*
 * As rados_store_read(), of what the child sees where it has no objects. Whole sectors of the
 * largest size. Always asynchronous.
 */
void rados_read_parent(struct rados_store *rs, struct store_io *io, uint64_t dev_off, void *buf,
		       size_t len);
/* Whether the child, as far as we know, still has this range: 0 or -EIO. */
int rados_check_range(struct rados_store *rs, uint64_t dev_off, uint64_t len);

/* rados_write.c */
int rados_store_write(struct store *s, struct store_io *io, uint64_t dev_off, const void *buf,
		      size_t len);
int rados_store_zero(struct store *s, struct store_io *io, uint64_t dev_off, uint64_t len,
		     unsigned int flags);
int rados_store_discard(struct store *s, struct store_io *io, uint64_t dev_off, uint64_t len);
void rados_store_freeable(struct store *s, uint64_t dev_off, uint64_t len, uint64_t *ret_off,
			  uint64_t *ret_len);

/* copyup.c */
struct copyup_wait {
	/* 0: the object exists in the child now. On any thread; must not block. */
	void (*done)(struct copyup_wait *w, int result);
	struct copyup_wait *next;
	/*
	 * What to write along, when that can be done in the same operation; then *is_written. The
	 * first who asks for an object may get it. NULL: nothing.
	 */
	const void *buf;
	size_t len;
	uint64_t object_off;
	bool is_written;
};
/* Inside the gate, with the object's map saying that it exists. done runs, perhaps before this
 * returns. */
void copyup_object(struct rados_store *rs, uint64_t object, struct copyup_wait *w);

/* rados_open.c */
int rados_writer_open(struct rados_store *rs, struct cluster *c, const struct rados_layer *layers,
		      const struct store_options *o, struct fault *f);
/* As store_ops.ending. */
void rados_store_ending(struct store *s, unsigned int grace_ms);
/* Nothing may be under way. NULL is fine. */
void rados_writer_close(struct rados_store *rs);

#endif
