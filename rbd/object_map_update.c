/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Copyright (C) 2026 the rbdcrypt-nbd authors */

/*
 * Changes of object maps. Called by any thread that writes, and carried on by librados' callback
 * threads; nothing here waits.
 *
 * The first change of an object stands for it in a hash until it has ended. Those that want the
 * same join it, those that want another wait behind it, so that an object has one change under way
 * and what the cluster and the memory say of it comes in one order. Memory is changed when the
 * cluster has been, and not before: what it says may be relied on without asking.
 *
 * A class method does not see what methods before it in the same operation have written, and it
 * writes whole blocks. Two updates of one block in one operation would undo the first. So an
 * operation has one range per block, and takes along what lies near: objects that the change would
 * not change may lie between. It is sent under the lock, as a range that reaches over an object
 * must not overtake a later change of that object; librados keeps the order.
 *
 * What is done with m comes before the callbacks, as the last of them may free it.
 */

#include "object_map_state.h"

#include <assert.h>
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "log.h"
#include "store.h"

#define FLIGHT_MAX 8u /* operations */
#define TAKE_MAX 128u /* changes that are looked at for one operation */
#define RANGES_MAX 64u
#define GAP_MAX 64u /* objects in between */
#define BLOCK_OBJECTS 16384u /* that a class method reads and writes at once: 4096 bytes */

/* ---- states ---- */

static bool has_state(enum object_state has, int wanted)
{
	return wanted == CLS_ANY_STATE || (int)has == wanted ||
	       (wanted == OBJECT_EXISTS && has == OBJECT_CLEAN);
}

/* Whether the change would change the object. */
static bool is_needed(struct object_map *m, uint64_t object, enum object_state state, int current)
{
	enum object_state has = map_get(atomic_load(&m->bits), object);

	return has != state && has_state(has, current);
}

/* The lock is held, so nobody else writes. */
static void set_state(struct object_map *m, uint64_t object, enum object_state state)
{
	struct map_bits *b = atomic_load(&m->bits);
	unsigned int shift = map_shift(object);
	unsigned char byte = atomic_load(&b->bytes[object / 4]);

	byte = (unsigned char)((byte & ~(3u << shift)) | (unsigned int)state << shift);
	atomic_store_explicit(&b->bytes[object / 4], byte, memory_order_release);
}

/* ---- lists ---- */

struct done_list {
	struct map_wait *first, **end;
};

static void add_done(struct done_list *l, struct map_wait *w, int result)
{
	w->result = result;
	w->next = NULL;
	*l->end = w;
	l->end = &w->next;
}

static void run_done(struct done_list *l)
{
	struct map_wait *next;

	for (struct map_wait *w = l->first; w; w = next) {
		next = w->next;
		w->done(w);
	}
}

static struct map_wait **bucket(struct object_map *m, uint64_t object)
{
	return &m->hash[object % OBJECT_MAP_HASH];
}

static struct map_wait *find(struct object_map *m, uint64_t object)
{
	struct map_wait *w = *bucket(m, object);

	while (w && w->object != object)
		w = w->chain;
	return w;
}

static bool is_alike(const struct map_wait *a, const struct map_wait *b)
{
	return a->state == b->state && a->current == b->current;
}

/* The first change of its object, to be sent. */
static void make_first(struct object_map *m, struct map_wait *w)
{
	struct map_wait **b = bucket(m, w->object);

	w->chain = *b;
	*b = w;
	(void)atomic_fetch_add(&m->n_changes, 1);
	w->next = NULL;
	*m->ready_end = w;
	m->ready_end = &w->next;
}

static void add_behind(struct map_wait *first, struct map_wait *w)
{
	struct map_wait **end = &first->later;

	if (!first->later && is_alike(first, w)) {
		w->next = first->joined;
		first->joined = w;
		return;
	}
	while (*end)
		end = &(*end)->next;
	w->next = NULL;
	*end = w;
}

/* Those who waited for another change of their object: now it is their turn. */
static void promote(struct object_map *m, struct map_wait *later, struct done_list *done)
{
	struct map_wait *next, *first = NULL;

	for (struct map_wait *w = later; w; w = next) {
		next = w->next;
		if (first) {
			add_behind(first, w);
		} else if (is_needed(m, w->object, w->state, w->current)) {
			make_first(m, w);
			first = w;
		} else {
			add_done(done, w, 0);
		}
	}
}

/* The operation's changes have ended; is_made: the cluster has them. */
static void finish(struct object_map *m, struct map_wait *op, int result, bool is_made,
		   struct done_list *done)
{
	struct map_wait *next, *joined, *later;

	for (struct map_wait *w = op; w; w = next) {
		struct map_wait **at = bucket(m, w->object);

		next = w->next;
		joined = w->joined;
		later = w->later;
		if (is_made)
			set_state(m, w->object, w->state);
		while (*at != w)
			at = &(*at)->chain;
		*at = w->chain;
		(void)atomic_fetch_sub(&m->n_changes, 1);
		add_done(done, w, result);
		for (struct map_wait *j = joined; j; j = joined) {
			joined = j->next;
			add_done(done, j, result);
		}
		promote(m, later, done);
	}
}

/* ---- ranges ---- */

struct range {
	uint64_t start, end;
	const struct map_wait *like;
};

static bool is_apart(const struct range *a, const struct range *b)
{
	return (a->end - 1) / BLOCK_OBJECTS < b->start / BLOCK_OBJECTS ||
	       (b->end - 1) / BLOCK_OBJECTS < a->start / BLOCK_OBJECTS;
}

static bool is_apart_from_all(const struct range *r, const struct range *ranges, unsigned int n)
{
	for (unsigned int i = 0; i < n; i++)
		if (&ranges[i] != r && !is_apart(r, &ranges[i]))
			return false;
	return true;
}

/* Whether the change may be made to [start, end) too, as it changes nothing there. */
static bool is_calm(struct object_map *m, uint64_t start, uint64_t end, const struct map_wait *w)
{
	if (start == end)
		return true;
	if (end - start > GAP_MAX || !atomic_load(&m->is_trusted))
		return false;
	for (uint64_t o = start; o < end; o++)
		if (find(m, o) || is_needed(m, o, w->state, w->current))
			return false;
	return true;
}

static bool extend(struct object_map *m, struct range *r, const struct map_wait *w)
{
	if (!is_alike(r->like, w))
		return false;
	if (w->object < r->start && is_calm(m, w->object + 1, r->start, w))
		r->start = w->object;
	else if (w->object >= r->end && is_calm(m, r->end, w->object, w))
		r->end = w->object + 1;
	else
		return false;
	return true;
}

/* Whether w could be put into one of the ranges, or a new one. */
static bool take_along(struct object_map *m, const struct map_wait *w,
		       struct range ranges[RANGES_MAX], unsigned int *n)
{
	struct range *r;

	for (unsigned int i = 0; i < *n; i++) {
		struct range before = ranges[i];

		if (!extend(m, &ranges[i], w))
			continue;
		if (is_apart_from_all(&ranges[i], ranges, *n))
			return true;
		ranges[i] = before;
	}
	if (*n == RANGES_MAX)
		return false;
	r = &ranges[*n];
	*r = (struct range){ .start = w->object, .end = w->object + 1, .like = w };
	if (!is_apart_from_all(r, ranges, *n))
		return false;
	(*n)++;
	return true;
}

/*
 * Moves changes from the ready ones into an operation: the oldest in any case. Returns their list.
 */
static struct map_wait *gather(struct object_map *m, struct range ranges[RANGES_MAX],
			       unsigned int *ret_n)
{
	struct map_wait *op = NULL, **op_end = &op, **at;
	unsigned int n = 0, looked_at;
	bool has_moved;

	do {
		has_moved = false;
		at = &m->ready;
		for (looked_at = 0; *at && looked_at < TAKE_MAX; looked_at++) {
			struct map_wait *w = *at;

			if (!take_along(m, w, ranges, &n)) {
				at = &w->next;
				continue;
			}
			*at = w->next;
			if (m->ready_end == &w->next)
				m->ready_end = at;
			w->next = NULL;
			*op_end = w;
			op_end = &w->next;
			has_moved = true;
		}
	} while (has_moved);
	*ret_n = n;
	return op;
}

/* ---- sending ---- */

static void on_updated(rados_completion_t completion, void *arg);
static void on_flagged(rados_completion_t completion, void *arg);

/*
 * The operation is released. Its callback gets arg. None takes space, and what is to be freed in a
 * full pool waits for it.
 */
static int submit(struct object_map *m, const char *object, rados_write_op_t op,
		  rados_callback_t done, struct map_wait *arg)
{
	rados_completion_t completion;
	int r = rados_aio_create_completion2(arg, done, &completion);

	if (r == 0) {
		r = rados_aio_write_op_operate(op, m->io, completion, object, NULL,
					       LIBRADOS_OPERATION_FULL_TRY);
		if (r < 0)
			rados_aio_release(completion);
	}
	rados_release_write_op(op);
	return r < 0 ? r : 0;
}

static int send_update(struct object_map *m, const struct range *ranges, unsigned int n,
		       struct map_wait *arg)
{
	rados_write_op_t op = rados_create_write_op();

	if (!op)
		return -ENOMEM;
	cls_assert_locked(op, "", "");
	for (unsigned int i = 0; i < n; i++)
		cls_object_map_update(op, ranges[i].start, ranges[i].end, ranges[i].like->state,
				      ranges[i].like->current);
	return submit(m, m->name, op, on_updated, arg);
}

static int send_flags(struct object_map *m, struct map_wait *arg)
{
	rados_write_op_t op = rados_create_write_op();

	if (!op)
		return -ENOMEM;
	map_flag(m, op);
	return submit(m, m->header, op, on_flagged, arg);
}

/* What is ready is sent, as far as there may be operations under way. */
static void pump(struct object_map *m, struct done_list *done)
{
	while (m->ready && m->n_flight < FLIGHT_MAX) {
		struct range ranges[RANGES_MAX];
		unsigned int n;
		struct map_wait *op = gather(m, ranges, &n);
		int r = send_update(m, ranges, n, op);

		/* Nothing was sent, so the map is as good as before. */
		if (r < 0)
			finish(m, op, r, false, done);
		else
			m->n_flight++;
	}
}

/* ---- answers ---- */

/*
 * Whether the map was changed or not is not known: nobody may believe it any more. Returns whether
 * that is being told to the cluster, and the operation goes on.
 */
static bool on_failure(struct object_map *m, struct map_wait *op, int error, struct done_list *done)
{
	int r = error;

	atomic_store(&m->is_trusted, false);
	op->result = error;
	if (!map_is_fenced(error)) {
		r = m->is_flagged ? 0 : send_flags(m, op);
		if (r == 0 && !m->is_flagged)
			return true;
	}
	finish(m, op, r, false, done);
	return false;
}

static void on_updated(rados_completion_t completion, void *arg)
{
	struct map_wait *op = arg;
	struct object_map *m = op->map;
	struct done_list done = { .first = NULL, .end = &done.first };
	int r = rados_aio_get_return_value(completion);
	bool is_over = true;

	rados_aio_release(completion);
	(void)pthread_mutex_lock(&m->lock);
	if (r >= 0)
		finish(m, op, 0, true, &done);
	else
		is_over = !on_failure(m, op, r, &done);
	if (is_over)
		m->n_flight--;
	pump(m, &done);
	(void)pthread_mutex_unlock(&m->lock);
	run_done(&done);
}

static void on_flagged(rados_completion_t completion, void *arg)
{
	struct map_wait *op = arg;
	struct object_map *m = op->map;
	struct done_list done = { .first = NULL, .end = &done.first };
	int r = rados_aio_get_return_value(completion), error = op->result;
	bool is_news;

	rados_aio_release(completion);
	(void)pthread_mutex_lock(&m->lock);
	is_news = r >= 0 && !m->is_flagged;
	if (r >= 0)
		m->is_flagged = true;
	finish(m, op, r < 0 ? r : 0, false, &done);
	m->n_flight--;
	pump(m, &done);
	(void)pthread_mutex_unlock(&m->lock);
	if (is_news)
		log_warning(m->spec,
			    "the object map cannot be changed (%s), and is marked as invalid: "
			    "rbd object-map rebuild makes it good again",
			    strerror(-error));
	run_done(&done);
}

/* ---- the calls ---- */

static int at_once(struct map_wait *w, int result)
{
	w->result = result;
	return STORE_DONE;
}

int object_map_set(struct object_map *m, struct map_wait *w, uint64_t object,
		   enum object_state state, int current)
{
	struct done_list done = { .first = NULL, .end = &done.first };
	struct map_wait *first;
	bool is_waiting = true;

	assert(m->is_taken);
	w->map = m;
	w->object = object;
	w->state = state;
	w->current = current;
	w->chain = w->joined = w->later = NULL;
	if (!m->has_map)
		return at_once(w, 0);
	if (object >= m->n_objects)
		return at_once(w, -ERANGE);
	/* The map has no place for it, and is flagged. */
	if (object >= m->n_states)
		return at_once(w, 0);
	if (atomic_load(&m->n_changes) == 0 && !is_needed(m, object, state, current))
		return at_once(w, 0);
	(void)pthread_mutex_lock(&m->lock);
	first = find(m, object);
	if (first) {
		add_behind(first, w);
	} else if (is_needed(m, object, state, current)) {
		make_first(m, w);
		pump(m, &done);
	} else {
		is_waiting = false;
	}
	(void)pthread_mutex_unlock(&m->lock);
	if (!is_waiting)
		return at_once(w, 0);
	run_done(&done);
	return 0;
}

/* ---- snapshots ---- */

static bool is_last(struct map_wait *w)
{
	return __atomic_sub_fetch(&w->pending, 1, __ATOMIC_ACQ_REL) == 0;
}

static void note_error(struct map_wait *w, int error)
{
	int expected = 0;

	if (error < 0 && error != -ENOENT && error != -ERANGE)
		(void)__atomic_compare_exchange_n(&w->result, &expected, error, false,
						  __ATOMIC_ACQ_REL, __ATOMIC_ACQUIRE);
}

static void on_snap_updated(rados_completion_t completion, void *arg)
{
	struct map_wait *w = arg;

	note_error(w, rados_aio_get_return_value(completion));
	rados_aio_release(completion);
	if (is_last(w))
		w->done(w);
}

static int send_snap(struct object_map *m, struct map_wait *w, uint64_t snap_id,
		     enum object_state state)
{
	rados_write_op_t op = rados_create_write_op();
	char name[OBJECT_MAP_NAME_MAX + 20];

	if (!op)
		return -ENOMEM;
	(void)snprintf(name, sizeof(name), "%s.%016" PRIx64, m->name, snap_id);
	cls_object_map_update(op, w->object, w->object + 1, state, CLS_ANY_STATE);
	return submit(m, name, op, on_snap_updated, w);
}

int object_map_copyup(struct object_map *m, struct map_wait *w, uint64_t object)
{
	uint32_t n = m->has_map ? m->n_snaps : 0;

	assert(m->is_taken);
	w->map = m;
	w->object = object;
	w->result = 0;
	w->pending = n + 1;
	for (uint32_t i = 0; i < n; i++) {
		/* The copy is the same in all snapshots, so newer ones did not change it. */
		bool is_oldest = i == n - 1;
		int r = send_snap(m, w, m->snaps[i],
				  is_oldest || !m->has_fast_diff ? OBJECT_EXISTS : OBJECT_CLEAN);

		if (r < 0) {
			note_error(w, r);
			(void)is_last(w);
		}
	}
	return is_last(w) ? STORE_DONE : 0;
}
