/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Copyright (C) 2026 the rbdcrypt-nbd authors */

/*
 * An OSD with the object map of an image, for one test program. As the real one does, it reads
 * and writes a map in blocks, and no step of an operation sees what those before it wrote.
 */

#ifndef FAKE_MAP_H
#define FAKE_MAP_H

#include <errno.h>

#include "../../rbd/object_map.h"
#include "fake_osd.h"

#define MAP_OBJECTS 70000u /* five blocks */
#define MAP_BLOCK 16384u
#define OBJECT_SIZE 4096u

static struct {
	unsigned char states[MAP_OBJECTS]; /* of the head */
	uint64_t n; /* it has */
	unsigned int n_updates, n_ranges, n_flagged;
	bool is_locked, is_stolen; /* the map; by us, by another */
	bool is_header_lost;
	bool is_blocking; /* calls are answered at once */
	/* What fails: a method, and with what. */
	const char *failing;
	int error;
	char snaps[8][200]; /* "rbd_object_map.10.0000000000000004 1": what was told of snapshots */
	unsigned int n_snaps;
} map;

static const struct layout map_layout = { .object_size = OBJECT_SIZE,
					  .stripe_unit = OBJECT_SIZE,
					  .stripe_count = 1 };

static void map_reset(uint64_t n)
{
	fake_reset();
	memset(&map, 0, sizeof(map));
	map.n = n;
}

static uint64_t map_number(const unsigned char *at)
{
	uint64_t v;

	memcpy(&v, at, sizeof(v));
	return v;
}

/* now is what this step may see; all of its blocks are written. */
static int map_update(const unsigned char *now, const struct fake_step *s)
{
	uint64_t start = map_number(s->in), end = map_number(s->in + 8);
	uint64_t first = start / MAP_BLOCK * MAP_BLOCK;
	uint64_t last = ((end - 1) / MAP_BLOCK + 1) * MAP_BLOCK;

	if (start >= end || s->in_len != (s->in[17] ? 19u : 18u))
		return -EINVAL;
	if (end > map.n)
		return -ERANGE;
	map.n_ranges++;
	for (uint64_t o = first; o < last && o < map.n; o++) {
		int current = s->in[17] ? s->in[18] : -1;
		bool is_changed = o >= start && o < end &&
				  (current < 0 || now[o] == current ||
				   (current == 1 && now[o] == 3));

		map.states[o] = is_changed ? s->in[16] : now[o];
	}
	return 0;
}

static void map_load(struct fake_step *s)
{
	size_t states = (map.n + 3) / 4, len = 18 + states + 24;
	unsigned char *reply = calloc(1, len);
	uint32_t n = (uint32_t)map.n;

	(void)from_hex("0e000000 0101 08000000", reply, 10);
	memcpy(reply + 10, &n, sizeof(n));
	for (uint64_t o = 0; o < map.n; o++)
		reply[18 + o / 4] |= (unsigned char)(map.states[o] << 2 * (3 - o % 4));
	fake_output(s, reply, len);
	free(reply);
}

/* The locker is client.77 with the cookie "". */
static void map_info(struct fake_step *s)
{
	unsigned char reply[128];
	size_t len = map.is_stolen
			     ? from_hex("0101 29000000 01000000 0101 0d000000 08 "
					"4d00000000000000 00000000 0101 08000000 "
					"0000000000000000 01 00000000",
					reply, sizeof(reply))
			     : from_hex("0101 09000000 00000000 01 00000000", reply, sizeof(reply));

	fake_output(s, reply, len);
}

static int map_step(const unsigned char *now, struct fake_call *call, struct fake_step *s)
{
	bool is_header = strncmp(call->object, "rbd_header.", 11) == 0;

	if (map.failing && strcmp(s->method, map.failing) == 0)
		return map.error;
	if (strcmp(s->method, "lock") == 0) {
		if (map.is_stolen)
			return -EBUSY;
		map.is_locked = true;
	} else if (strcmp(s->method, "unlock") == 0) {
		map.is_locked = false;
	} else if (strcmp(s->method, "get_info") == 0) {
		map_info(s);
	} else if (strcmp(s->method, "break_lock") == 0) {
		map.is_stolen = false;
	} else if (strcmp(s->method, "assert_locked") == 0) {
		return (is_header ? map.is_header_lost : !map.is_locked) ? -EBUSY : 0;
	} else if (strcmp(s->method, "object_map_load") == 0) {
		map_load(s);
	} else if (strcmp(s->method, "object_map_update") == 0) {
		return map_update(now, s);
	} else if (strcmp(s->method, "set_flags") == 0) {
		map.n_flagged++;
	}
	return 0;
}

static int map_snap(struct fake_call *call)
{
	const struct fake_step *s = &call->op.steps[0];

	if (call->op.n != 1 || strcmp(s->method, "object_map_update") != 0 || s->in[17])
		return -EINVAL;
	(void)snprintf(map.snaps[map.n_snaps++ % 8], sizeof(map.snaps[0]), "%s %u %u", call->object,
		       (unsigned int)map_number(s->in), s->in[16]);
	return FAKE_HOLD;
}

/* The first step that fails is the operation's result, and nothing of it is done. */
static int map_answer(struct fake_call *call)
{
	static unsigned char now[MAP_OBJECTS];
	int r = 0;

	if (strncmp(call->object, "rbd_object_map.10.", 18) == 0)
		return map_snap(call);
	memcpy(now, map.states, sizeof(now));
	if (call->op.n > 1 && strcmp(call->op.steps[1].method, "object_map_update") == 0)
		map.n_updates++;
	for (unsigned int i = 0; r == 0 && i < call->op.n; i++)
		r = map_step(now, call, &call->op.steps[i]);
	if (r < 0)
		memcpy(map.states, now, sizeof(now));
	call->planned = r;
	return map.is_blocking ? r : FAKE_HOLD;
}

/* ---- what the tests do with it ---- */

struct change {
	struct map_wait wait;
	unsigned int n_done;
	bool was_none; /* when it was done */
	unsigned int order; /* in which they were done */
};

static unsigned int n_changes_done;

static inline void change_done(struct map_wait *w)
{
	struct change *c = (struct change *)w;

	c->n_done++;
	c->was_none = object_map_is_none(w->map, w->object);
	c->order = n_changes_done++;
}

static struct image_facts map_facts(void)
{
	return (struct image_facts){
		.size = (uint64_t)MAP_OBJECTS * OBJECT_SIZE,
		.order = 12,
		.features = 4 | 8 | 16,
	};
}

static inline int map_take_with(struct object_map *m, const struct image_facts *f,
				const char *header_cookie)
{
	struct patience p = patience_for(60, NULL);
	int r;

	map.is_blocking = true;
	r = object_map_take(m, f, header_cookie, &p);
	map.is_blocking = false;
	return r;
}

static inline int map_take(struct object_map *m, const struct image_facts *f)
{
	return map_take_with(m, f, "auto 7");
}

static inline int map_give(struct object_map *m)
{
	struct patience p = patience_for(60, NULL);
	int r;

	map.is_blocking = true;
	r = object_map_give(m, &p);
	map.is_blocking = false;
	return r;
}

#endif
