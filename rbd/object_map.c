/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Copyright (C) 2026 the rbdcrypt-nbd authors */

/*
 * The object map of an image's head, taken and given with the image's lock. Called by the thread
 * that keeps the lock, which may wait; only object_map_is_none() is for all threads. Changes are
 * in object_map_update.c.
 *
 * Who may not take the lock of the header has no business here, so a lock on the map is a dead
 * one's, and is broken. What the map says is believed when it has an entry for each object and the
 * header does not call it invalid. A map that is not believed is still kept, as librbd does, and
 * flagged, so that nobody else believes it either: it is never silently wrong.
 *
 * Readers ask for an object's state without a lock. So the states stay where they are when the
 * map is taken again, and move only when the image has grown; what is outgrown is kept until the
 * end, which is little, for images seldom grow.
 */

#include "object_map_state.h"

#include <assert.h>
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "log.h"

#define FEATURE_OBJECT_MAP 8u
#define FEATURE_FAST_DIFF 16u
#define BREAKS_MAX 10u
#define OBJECTS_MAX 256000000u /* Ceph's own limit for maps */
#define LOAD_EXTRA 4096u /* headers, and more than enough */

bool map_is_fenced(int error)
{
	return error == -ESHUTDOWN || error == -ENOTCONN;
}

/* ---- life ---- */

static int set_name(char name[OBJECT_MAP_NAME_MAX], const char *kind, const char *image_id)
{
	int n = snprintf(name, OBJECT_MAP_NAME_MAX, "%s.%s", kind, image_id);

	return n < 0 || n >= OBJECT_MAP_NAME_MAX ? -ENAMETOOLONG : 0;
}

int object_map_new(rados_ioctx_t io, const char *image_id, const char *spec,
		   const struct layout *layout, struct object_map **ret)
{
	struct object_map *m = calloc(1, sizeof(*m));
	int r;

	if (!m)
		return -ENOMEM;
	(void)pthread_mutex_init(&m->lock, NULL);
	m->io = io;
	m->layout = *layout;
	m->ready_end = &m->ready;
	m->spec = strdup(spec);
	r = m->spec ? set_name(m->name, "rbd_object_map", image_id) : -ENOMEM;
	if (r == 0)
		r = set_name(m->header, "rbd_header", image_id);
	if (r < 0) {
		object_map_free(m);
		return r;
	}
	*ret = m;
	return 0;
}

struct object_map *object_map_free(struct object_map *m)
{
	struct map_bits *older;

	if (!m)
		return NULL;
	assert(atomic_load(&m->n_changes) == 0);
	for (struct map_bits *b = atomic_load(&m->bits); b; b = older) {
		older = b->older;
		free(b);
	}
	(void)pthread_mutex_destroy(&m->lock);
	free(m->snaps);
	free(m->spec);
	free(m);
	return NULL;
}

bool object_map_is_none(struct object_map *m, uint64_t object)
{
	struct map_bits *b;

	if (!atomic_load(&m->is_trusted))
		return false;
	b = atomic_load_explicit(&m->bits, memory_order_acquire);
	return object < b->n && map_get(b, object) == OBJECT_NONE;
}

/* ---- the map's own lock ---- */

#define INFO_LEN 8192u

struct info_reply {
	size_t len;
	int error;
	char bytes[INFO_LEN];
};

/* -ENOENT: nobody has it. */
static int find_locker(struct object_map *m, const struct patience *p, struct cls_locker *ret)
{
	struct info_reply *re = calloc(1, sizeof(*re));
	rados_read_op_t op = rados_create_read_op();
	bool is_late;
	int r;

	if (!re || !op) {
		if (op)
			rados_release_read_op(op);
		free(re);
		return -ENOMEM;
	}
	cls_lock_info(op, re->bytes, INFO_LEN, &re->len, &re->error);
	r = osd_read(m->io, m->name, op, p, re, &is_late);
	if (is_late)
		return r;
	if (r >= 0)
		r = re->error;
	if (r >= 0)
		r = cls_lock_decode(re->bytes, re->len < INFO_LEN ? re->len : INFO_LEN, ret);
	free(re);
	return r;
}

static int break_lock(struct object_map *m, const struct patience *p)
{
	struct cls_locker locker;
	rados_write_op_t op;
	int r = find_locker(m, p, &locker);

	if (r < 0)
		return r == -ENOENT ? 0 : r;
	log_debug(m->spec, "object map: client.%" PRId64 " left its lock behind", locker.client);
	op = rados_create_write_op();
	if (!op)
		return -ENOMEM;
	cls_break_lock(op, locker.client, locker.cookie);
	r = osd_write(m->io, m->name, op, p);
	return r == -ENOENT ? 0 : r;
}

static int take_lock(struct object_map *m, const struct patience *p)
{
	for (unsigned int i = 0; i < BREAKS_MAX; i++) {
		rados_write_op_t op = rados_create_write_op();
		int r;

		if (!op)
			return -ENOMEM;
		cls_lock(op, "", "");
		r = osd_write(m->io, m->name, op, p);
		if (r >= 0 || r == -EEXIST)
			return 0;
		if (r == -EBUSY)
			r = break_lock(m, p);
		if (r < 0)
			return r;
	}
	return -EBUSY;
}

/* ---- reading it ---- */

struct load_reply {
	size_t len;
	int error;
	char bytes[];
};

static size_t bytes_for(uint64_t n)
{
	return (size_t)(n / 4 + (n % 4 != 0));
}

/* The states of the image's objects come here; there may be others from before. */
static int make_room(struct object_map *m, uint64_t n)
{
	struct map_bits *b = atomic_load(&m->bits);

	if (b && b->n == n)
		return 0;
	b = calloc(1, sizeof(*b) + bytes_for(n));
	if (!b)
		return -ENOMEM;
	b->n = n;
	b->older = atomic_load(&m->bits);
	atomic_store(&m->bits, b);
	return 0;
}

static int understand(struct object_map *m, const struct load_reply *re)
{
	const unsigned char *bits;
	struct map_bits *b;
	uint64_t n;
	int r = cls_object_map_decode(re->bytes, re->len, &n, &bits);

	if (r < 0)
		return r;
	/* What is left of a larger image does not matter. */
	if (n > m->n_objects)
		n = m->n_objects;
	r = make_room(m, n);
	if (r < 0)
		return r;
	b = atomic_load(&m->bits);
	for (size_t i = 0; i < bytes_for(n); i++)
		atomic_store_explicit(&b->bytes[i], bits[i], memory_order_release);
	m->n_states = n;
	return n < m->n_objects ? -EBADMSG : 0;
}

static int load_into(struct object_map *m, size_t cap, const struct patience *p)
{
	struct load_reply *re = calloc(1, sizeof(*re) + cap);
	rados_read_op_t op = rados_create_read_op();
	bool is_late;
	int r;

	if (!re || !op) {
		if (op)
			rados_release_read_op(op);
		free(re);
		return -ENOMEM;
	}
	rados_read_op_exec_user_buf(op, "rbd", "object_map_load", NULL, 0, re->bytes, cap, &re->len,
				    &re->error);
	r = osd_read(m->io, m->name, op, p, re, &is_late);
	if (is_late)
		return r;
	if (r >= 0)
		r = re->error;
	if (r >= 0)
		r = re->len > cap ? -ERANGE : understand(m, re);
	free(re);
	return r;
}

/* A map that is too long for its image, after a shrink that was cut off, gets more room. */
static int load(struct object_map *m, const struct patience *p)
{
	size_t cap = bytes_for(m->n_objects), most = bytes_for(OBJECTS_MAX);
	int r;

	m->n_states = 0;
	if (m->n_objects > OBJECTS_MAX)
		return -EFBIG;
	for (;;) {
		/* A checksum for each 4096 bytes is behind the states. */
		r = load_into(m, cap + cap / 512 + LOAD_EXTRA, p);
		if (r != -ERANGE || cap == most)
			return r;
		cap = cap > most / 16 ? most : cap * 16 + LOAD_EXTRA;
	}
}

/* ---- taking and giving ---- */

static int remember(struct object_map *m, const struct image_facts *f, const char *header_cookie)
{
	uint64_t *snaps = NULL;
	size_t len = strlen(header_cookie);

	assert(len < sizeof(m->header_cookie));
	if (f->n_snaps) {
		snaps = calloc(f->n_snaps, sizeof(*snaps));
		if (!snaps)
			return -ENOMEM;
		memcpy(snaps, f->snaps, f->n_snaps * sizeof(*snaps));
	}
	free(m->snaps);
	m->snaps = snaps;
	m->n_snaps = f->n_snaps;
	m->n_objects = layout_objects(&m->layout, f->size);
	m->has_map = f->features & FEATURE_OBJECT_MAP;
	m->has_fast_diff = f->features & FEATURE_FAST_DIFF;
	memcpy(m->header_cookie, header_cookie, len + 1);
	return 0;
}

/* From here on nobody believes it: who rebuilds it makes it good again. */
static int flag_now(struct object_map *m, const struct patience *p)
{
	rados_write_op_t op = rados_create_write_op();

	if (!op)
		return -ENOMEM;
	map_flag(m, op);
	return osd_write(m->io, m->header, op, p);
}

/* Not the map's fault: the next attempt may find it good. */
static bool is_about_us(int error)
{
	return map_is_fenced(error) || error == -ETIMEDOUT || error == -ENOMEM;
}

int object_map_take(struct object_map *m, const struct image_facts *f, const char *header_cookie,
		    const struct patience *p)
{
	int r = remember(m, f, header_cookie);

	atomic_store(&m->is_trusted, false);
	if (r < 0)
		return r;
	m->is_flagged = f->flags & CLS_FLAG_OBJECT_MAP_INVALID;
	if (m->has_map) {
		r = take_lock(m, p);
		if (r < 0)
			return r;
		r = load(m, p);
		if (r < 0 && is_about_us(r))
			return r;
		if (r < 0 && !m->is_flagged) {
			log_warning(m->spec,
				    "the object map cannot be used (%s), and is marked as invalid: "
				    "rbd object-map rebuild makes it good again",
				    strerror(-r));
			r = flag_now(m, p);
			if (r < 0)
				return r;
			m->is_flagged = true;
		}
		atomic_store(&m->is_trusted, !m->is_flagged);
	}
	m->is_taken = true;
	return 0;
}

int object_map_give(struct object_map *m, const struct patience *p)
{
	rados_write_op_t op;
	int r;

	assert(atomic_load(&m->n_changes) == 0);
	atomic_store(&m->is_trusted, false);
	m->is_taken = false;
	if (!m->has_map)
		return 0;
	op = rados_create_write_op();
	if (!op)
		return -ENOMEM;
	cls_unlock(op, "");
	r = osd_write(m->io, m->name, op, p);
	return r < 0 && r != -ENOENT ? r : 0;
}
