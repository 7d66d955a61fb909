/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Copyright (C) 2026 the rbdcrypt-nbd authors */

#ifndef RBD_OBJECT_MAP_H
#define RBD_OBJECT_MAP_H

#include <stdbool.h>
#include <stdint.h>

#include "cls.h"
#include "facts.h"
#include "layout.h"
#include "osd.h"

/*
 * The object maps of an image that we own the lock of: the head's, held in memory and kept
 * true on the cluster, and those of its snapshots, which copy-ups change. (spec: rados-engine
 * 2.3, 7.2, 7.4)
 */
struct object_map;

/*
 * One change, embedded in its owner, the map's from a call that returned 0 until done runs: once,
 * on any thread; it must not block.
 */
struct map_wait {
	void (*done)(struct map_wait *w);
	int result; /* 0 or -errno: the change must be taken as not made, and no data be written */
	/* The map's own. */
	struct object_map *map;
	struct map_wait *next; /* in whatever list it is */
	struct map_wait *chain; /* of the same hash */
	struct map_wait *joined; /* who wants the same change */
	struct map_wait *later; /* who wants another change of the object, after this */
	uint64_t object;
	enum object_state state;
	int current;
	unsigned int pending; /* snapshot maps */
};

/*
 * spec is for messages and is copied, as image_id and the image's layout are. io is the metadata
 * pool; not owned.
 */
int object_map_new(rados_ioctx_t io, const char *image_id, const char *spec,
		   const struct layout *layout, struct object_map **ret);
/* No change may be under way. Returns NULL. */
struct object_map *object_map_free(struct object_map *m);

/*
 * When the header lock has just been taken, with header_cookie: takes the map's own lock, from
 * whomever (the header lock is the authority), and loads it. Without the feature: nothing to do,
 * and all calls below are done at once. A map that does not fit the image, or cannot be read, is
 * flagged as invalid, and so kept on. Blocking; no change under way. 0 or -errno; -EBUSY also when
 * somebody takes the map's lock again and again.
 */
int object_map_take(struct object_map *m, const struct image_facts *f, const char *header_cookie,
		    const struct patience *p);
/*
 * Gives the map's lock back; before the header lock is. Blocking; no change under way. Also after
 * object_map_take() failed. 0 or -errno; either way the map is not trusted until it is taken again.
 */
int object_map_give(struct object_map *m, const struct patience *p);

/*
 * Whether the object certainly does not exist. False where the map cannot be trusted. Any
 * thread; never blocks.
 */
bool object_map_is_none(struct object_map *m, uint64_t object);

/*
 * Makes the head's map say so, if it does not already: any thread, never blocks. Changes are
 * gathered: a few operations are under way at a time, and what comes meanwhile goes along with the
 * next. An object has one change under way; a like one joins it, another waits for it. When the
 * map cannot be changed it is flagged as invalid, which makes the change a success; when that
 * fails too, or the cluster has shut us out, the result is an error. current: CLS_ANY_STATE or the
 * only state that is changed (OBJECT_EXISTS: OBJECT_CLEAN too). -ERANGE: beyond the image.
 * STORE_DONE or 0, as stores.
 */
int object_map_set(struct object_map *m, struct map_wait *w, uint64_t object,
		   enum object_state state, int current);
/*
 * Before the object is copied up: the maps of all snapshots that it will exist in. A map that is
 * missing or too short does not matter. As object_map_set().
 */
int object_map_copyup(struct object_map *m, struct map_wait *w, uint64_t object);

#endif
