/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Copyright (C) 2026 the rbdcrypt-nbd authors */

#ifndef RBD_OBJECT_MAP_STATE_H
#define RBD_OBJECT_MAP_STATE_H

#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <rados/librados.h>

#include "cls.h"
#include "object_map.h"

/* What an object map is, for the two files that share it. */

#define OBJECT_MAP_NAME_MAX 128
#define OBJECT_MAP_HASH 256u /* a power of two */

/* The states, four a byte as they are on the cluster. Never freed before the map is. */
struct map_bits {
	struct map_bits *older;
	uint64_t n; /* objects */
	_Atomic unsigned char bytes[];
};

struct object_map {
	rados_ioctx_t io; /* not owned */
	char *spec;
	struct layout layout; /* of the image */
	char name[OBJECT_MAP_NAME_MAX], header[OBJECT_MAP_NAME_MAX]; /* objects */
	/* Constant while the map is taken. */
	bool is_taken, has_map, has_fast_diff;
	char header_cookie[64];
	uint64_t n_objects; /* of the image */
	uint64_t n_states; /* objects that bits has a state of: fewer, or none, if not trusted */
	uint32_t n_snaps;
	uint64_t *snaps; /* newest first */
	/* Read by any thread; written by who takes, or under the lock. */
	struct map_bits *_Atomic bits; /* NULL: none yet */
	atomic_bool is_trusted;
	atomic_uint n_changes; /* objects with a change under way */
	pthread_mutex_t lock; /* guards all below */
	bool is_flagged; /* the header says that the map is invalid */
	unsigned int n_flight; /* operations */
	struct map_wait *ready, **ready_end; /* the first change of an object, not sent yet */
	struct map_wait *hash[OBJECT_MAP_HASH]; /* the first change of an object */
};

static inline unsigned int map_shift(uint64_t object)
{
	return 2 * (3 - (unsigned int)(object % 4));
}

/* object is below b->n. */
static inline enum object_state map_get(struct map_bits *b, uint64_t object)
{
	unsigned char byte = atomic_load_explicit(&b->bytes[object / 4], memory_order_acquire);

	return (enum object_state)(byte >> map_shift(object) & 3);
}

/* The header's flags, set under the header's lock. */
static inline void map_flag(struct object_map *m, rados_write_op_t op)
{
	uint64_t flags = CLS_FLAG_OBJECT_MAP_INVALID | CLS_FLAG_FAST_DIFF_INVALID;

	cls_assert_locked(op, m->header_cookie, CLS_TAG_HEADER);
	cls_set_flags(op, flags, flags, CLS_NOSNAP);
}

/*
 * The cluster has shut this client out: then nothing that it does may count as done, whatever
 * else might be tried.
 */
bool map_is_fenced(int error);

#endif
