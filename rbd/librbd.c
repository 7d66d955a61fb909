/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Copyright (C) 2026 the rbdcrypt-nbd authors */

/*
 * The librbd store: its life, its lock, and what librbd tells of changes. For flat images
 * and for chains in which every layer has the same key, where raw copy-up is the right
 * copy-up. Opened, asked and closed by the volume's thread; the watch's callback comes from
 * a librbd thread and only signals. IO is in librbd_io.c.
 *
 * The store opens the image by id, so that a rename between two steps cannot make it
 * another one. A read-only map is opened as writers do, without ever taking the lock,
 * because only those hear of a resize, and of the removal of a snapshot, whose objects OSDs
 * then read as nothing; a user who may not gets a plain read-only handle and the size of the
 * moment.
 *
 * When a call about the watch does not come back in time, close() leaves the struct behind,
 * as the callback may still come.
 */

#include "fence.h"
#include "librbd.h"
#include "layer.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const struct store_ops librbd_ops;

/* What must be known before the first IO, gathered in one limited call. */
struct open_facts {
	uint64_t raw_size;
	uint64_t stripe_unit, stripe_count, object_size;
	/* Effective: an image's or pool's own settings beat those of our connection. */
	struct layer_settings settings;
};

static int fill_facts(struct handle *h, void *data)
{
	struct open_facts *facts = data;
	rbd_image_info_t stat;
	int r = rbd_stat(h->image, &stat, sizeof(stat));

	if (r < 0)
		return r;
	facts->raw_size = stat.size;
	facts->object_size = stat.obj_size;
	r = rbd_get_stripe_unit(h->image, &facts->stripe_unit);
	if (r == 0)
		r = rbd_get_stripe_count(h->image, &facts->stripe_count);
	return r < 0 ? r : layer_settings_read(h, &facts->settings);
}

/* ---- changes ---- */

static void changed(void *arg)
{
	struct librbd_store *ls = arg;

	store_tell_change(&ls->base);
}

struct watch_call {
	struct librbd_store *ls; /* stays when it is late: see op_close() */
	uint64_t watch;
};

static int watch(struct handle *h, void *data)
{
	struct watch_call *call = data;

	return rbd_update_watch(h->image, &call->watch, changed, call->ls);
}

static int unwatch(struct handle *h, void *data)
{
	struct watch_call *call = data;

	return rbd_update_unwatch(h->image, call->watch);
}

static int get_size(struct handle *h, void *data)
{
	return rbd_get_size(h->image, data);
}

static int has_snapshot(struct handle *h, void *data)
{
	const uint64_t *id = data;
	char name[1];
	size_t len = sizeof(name);
	int r = rbd_snap_get_name(h->image, *id, name, &len);

	return r == -ERANGE ? 0 : r;
}

int librbd_call(struct librbd_store *ls, handle_fn fn, void *data, size_t len)
{
	return handle_call_unless(ls->handle, ls->opening, ls->timeout_s, fn, data, len);
}

int librbd_ask_gone(struct librbd_store *ls)
{
	uint64_t id = ls->snap_id;
	int r = librbd_call(ls, has_snapshot, &id, sizeof(id));

	if (r == -ENOENT)
		atomic_store(&ls->is_gone, true);
	return r == -ENOENT ? 1 : r;
}

static int set_snapshot(struct handle *h, void *data)
{
	const uint64_t *id = data;

	return rbd_snap_set_by_id(h->image, *id);
}

/*
 * Flattening gives a snapshot objects of its own, which librbd does not see as long as it has the
 * object map that it read when it was opened; but it does see that there is no parent. Nor does it
 * see that a new map was rebuilt; but it does see that it is good now.
 */
static int set_snapshot_again(struct librbd_store *ls)
{
	uint64_t id = ls->snap_id;

	return librbd_call(ls, set_snapshot, &id, sizeof(id));
}

static int op_raw_size(struct store *s, uint64_t *ret)
{
	struct librbd_store *ls = librbd_of(s);
	uint64_t size;
	int r;

	/* A snapshot has one size for ever; what librbd calls it when it is gone is none. */
	if (ls->is_snapshot) {
		r = librbd_ask_gone(ls);
		if (r == 0)
			r = set_snapshot_again(ls);
		if (r >= 0)
			*ret = atomic_load(&ls->raw_size);
		return r < 0 ? r : 0;
	}
	r = librbd_call(ls, get_size, &size, sizeof(size));
	if (r < 0)
		return r;
	atomic_store(&ls->raw_size, size);
	librbd_direct_look(ls);
	*ret = size;
	return 0;
}

/* ---- the lock ---- */

static int acquire(struct handle *h, void *data)
{
	(void)data;
	return rbd_lock_acquire(h->image, RBD_LOCK_MODE_EXCLUSIVE);
}

struct lock_facts {
	int is_owner;
	char owner[128]; /* address, empty: nobody */
};

static int fill_lock(struct handle *h, void *data)
{
	struct lock_facts *facts = data;
	rbd_lock_mode_t mode;
	char *owner;
	size_t n = 1;
	int r = rbd_is_exclusive_lock_owner(h->image, &facts->is_owner);

	if (r < 0)
		return r;
	r = rbd_lock_get_owners(h->image, &mode, &owner, &n);
	facts->owner[0] = '\0';
	if (r == -ENOENT)
		return 0;
	if (r < 0)
		return r;
	if (n > 0)
		(void)snprintf(facts->owner, sizeof(facts->owner), "%s", owner);
	rbd_lock_get_owners_cleanup(&owner, n);
	return 0;
}

static void op_lock(struct store *s, struct store_lock *ret)
{
	struct lock_facts facts = { 0 };
	struct librbd_store *ls = librbd_of(s);
	int r;

	if (!ls->has_lock_feature)
		return;
	r = librbd_call(ls, fill_lock, &facts, sizeof(facts));
	if (r < 0) {
		store_lock_unknown(ret, r);
		return;
	}
	ret->state = facts.is_owner ? "owner" : facts.owner[0] ? "other" : "none";
	(void)snprintf(ret->owner, sizeof(ret->owner), "%s", bare_address(facts.owner));
}

static void op_health(struct store *s, char *buf, size_t len)
{
	(void)snprintf(buf, len, "%s",
		       librbd_is_gone(librbd_of(s))
			       ? "the snapshot was removed: nothing can be read of it any more"
			       : "");
}

static int take_lock(struct librbd_store *ls, const char *spec, struct fault *f)
{
	struct lock_facts facts = { 0 };
	char nothing = 0;
	int r;

	if (!ls->has_lock_feature) {
		fault_set(f, EXIT_USAGE, -EINVAL, "%s: the image has no exclusive lock", spec);
		fault_hint(f,
			   "map it without --exclusive, or: rbd feature enable %s exclusive-lock",
			   spec);
		return -EINVAL;
	}
	r = librbd_call(ls, acquire, &nothing, sizeof(nothing));
	if (r >= 0)
		return 0;
	if (librbd_call(ls, fill_lock, &facts, sizeof(facts)) < 0 || !facts.owner[0])
		return cluster_fault(f, r, spec, "cannot take the exclusive lock");
	/* librbd's word for it is a file system that is read-only. */
	fault_set(f, EXIT_LOCKED, -EBUSY, "%s: locked by another client at %s", spec, facts.owner);
	fault_hint(f, "unmap it there; if that client is dead: rbd lock ls %s, then rbd lock rm",
		   spec);
	return -EBUSY;
}

/* ---- life ---- */

static int flush_all(struct handle *h, void *data)
{
	(void)data;
	return rbd_flush(h->image);
}

static void op_close(struct store *s)
{
	struct librbd_store *ls = librbd_of(s);
	struct watch_call call = { .ls = ls, .watch = ls->watch };
	char nothing = 0;

	librbd_status_stop(ls);
	/* Else nothing was written. */
	if (ls->is_open && !ls->is_read_only)
		(void)librbd_call(ls, flush_all, &nothing, sizeof(nothing));
	if (ls->has_watch)
		(void)handle_call_late(ls->handle, NULL, ls->timeout_s, unwatch, &call,
				       sizeof(call), &ls->is_abandoned);
	librbd_direct_close(ls);
	librbd_copyup_close(ls);
	ls->handle = handle_close(ls->handle, ls->timeout_s);
	if (ls->is_abandoned)
		return;
	(void)pthread_cond_destroy(&ls->more);
	(void)pthread_mutex_destroy(&ls->lock);
	free(ls);
}

static const struct store_ops librbd_ops = {
	.name = "librbd",
	.read = librbd_read,
	.write = librbd_write,
	.zero = librbd_zero,
	.discard = librbd_discard,
	.flush = librbd_flush,
	.status = librbd_status,
	.freeable = librbd_freeable,
	.raw_size = op_raw_size,
	.lock = op_lock,
	.health = op_health,
	.close = op_close,
};

static int learn(struct librbd_store *ls, const char *spec, struct fault *f)
{
	struct open_facts facts = { 0 };
	int r = librbd_call(ls, fill_facts, &facts, sizeof(facts));

	if (r < 0)
		return cluster_fault(f, r, spec, "cannot read the image's metadata");
	atomic_init(&ls->raw_size, facts.raw_size);
	ls->layout = (struct layout){ .object_size = facts.object_size,
				      .stripe_unit = facts.stripe_unit,
				      .stripe_count = facts.stripe_count };
	ls->base.is_writethrough = !facts.settings.has_cache;
	ls->base.optimal_io = (uint32_t)(facts.stripe_count > 1 ? facts.stripe_unit
								: facts.object_size);
	/* One object's part of a request is one operation of its OSD, which readers see whole. */
	ls->base.has_atomic_sectors = !facts.settings.has_cache && facts.stripe_unit % 4096 == 0 &&
				      ls->base.data_offset % 4096 == 0;
	return 0;
}

static int start_watch(struct librbd_store *ls, const char *spec, struct fault *f)
{
	struct watch_call call = { .ls = ls };
	int r;

	if (ls->handle->is_read_only)
		return 0;
	r = handle_call_late(ls->handle, ls->opening, ls->timeout_s, watch, &call, sizeof(call),
			     &ls->is_abandoned);
	if (r < 0)
		return cluster_fault(f, r, spec, "cannot watch the image for changes");
	ls->watch = call.watch;
	ls->has_watch = true;
	return 0;
}

static int open_steps(struct librbd_store *ls, struct cluster *c, const struct layer *l,
		      const struct store_options *o, struct fault *f)
{
	const struct layer_info *info = layer_info(l);
	struct place place = { .pool_id = info->pool_id,
			       .nspace = info->nspace,
			       .image_id = info->image_id,
			       .snap_id = info->snap_id,
			       .has_watch = true,
			       .is_writer = !ls->is_read_only };
	int r = handle_open(c, &place, info->spec, ls->timeout_s, ls->opening, &ls->handle, f);

	if (r == 0)
		r = learn(ls, info->spec, f);
	if (r == 0 && o->is_exclusive && !ls->is_read_only)
		r = take_lock(ls, info->spec, f);
	if (r == 0)
		r = start_watch(ls, info->spec, f);
	if (r == 0 && info->has_parent && !ls->is_read_only &&
	    librbd_copyup_open(ls, info->raw_overlap) < 0)
		return fault_set(f, EXIT_MEMORY, -ENOMEM, "%s: out of memory", info->spec);
	if (r == 0 && o->has_direct_reads && !ls->is_snapshot)
		librbd_direct_open(ls, c, info);
	return r;
}

int store_open_librbd(struct cluster *c, const struct layer *l, const struct store_options *o,
		      struct store **ret, struct fault *f)
{
	const struct layer_info *info = layer_info(l);
	struct librbd_store *ls = calloc(1, sizeof(*ls));
	int r;

	if (!ls)
		return fault_set(f, EXIT_MEMORY, -ENOMEM, "%s: out of memory", info->spec);
	ls->base.ops = &librbd_ops;
	ls->base.data_offset = o->data_offset;
	ls->base.is_encrypted = o->is_encrypted;
	ls->timeout_s = o->timeout_s;
	ls->is_snapshot = info->snap_id != UINT64_MAX;
	ls->snap_id = info->snap_id;
	ls->is_read_only = o->is_read_only || ls->is_snapshot;
	/* librbd does not know of a snapshot who has the image's lock. */
	ls->has_lock_feature = !ls->is_snapshot && info->features & RBD_FEATURE_EXCLUSIVE_LOCK;
	ls->tail = &ls->head;
	(void)pthread_mutex_init(&ls->lock, NULL);
	(void)pthread_cond_init(&ls->more, NULL);
	ls->opening = l->interrupt;
	r = open_steps(ls, c, l, o, f);
	ls->opening = NULL;
	if (r < 0) {
		op_close(&ls->base);
		return r;
	}
	ls->is_open = true;
	*ret = &ls->base;
	return 0;
}
