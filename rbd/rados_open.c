/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Copyright (C) 2026 the rbdcrypt-nbd authors */

/*
 * What a rados store needs to be written: its owner, its object map, and a plan of writes that
 * is made anew each time the owner has read what the image is now. Opened and closed by the
 * volume's thread; take() and give() run on the owner's thread, with nobody inside the gate. When
 * the volume ends, a thread of its own sees to it that no write waits for ever.
 *
 * In doubt writing stops: a plan is only made for an image that is the one we opened, changed in
 * ways that we know to be harmless.
 */

#include "layer.h"
#include "rados.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "clock.h"
#include "log.h"

/* Copy-ups under way at once: as much memory as this, but always one. */
#define COPYUP_MEMORY (32u << 20)

/* ---- the beginning of the header ---- */

/*
 * It shows that the image still is what was unlocked, and whether somebody flattened it. Of LUKS1
 * all that makes the volume key stays the same as long as the key does; of LUKS2 only the UUID
 * can be relied on. The places are the same in both. (spec: librbd-encryption 2)
 */
#define HEADER_LEN 256
#define MAGIC_LEN 6
#define UUID_OFF 168
#define UUID_LEN 40

struct header_call {
	char bytes[HEADER_LEN];
	size_t len;
	int error;
};

/* 1: read. 0: the image has no object for it, and reads its parent's. -errno. */
static int read_identity(struct rados_store *rs, const struct patience *p,
			 unsigned char ret[HEADER_LEN])
{
	struct header_call *c = calloc(1, sizeof(*c));
	char name[OBJECT_NAME_MAX];
	rados_read_op_t op;
	bool is_late = false;
	int r;

	if (!c)
		return -ENOMEM;
	object_name(&rs->layers[0].place, 0, name);
	op = rados_create_read_op();
	rados_read_op_read(op, 0, HEADER_LEN, c->bytes, &c->len, &c->error);
	r = osd_read(rs->layers[0].io, name, op, p, c, &is_late);
	if (is_late)
		return r;
	if (r >= 0) {
		memcpy(ret, c->bytes, HEADER_LEN);
		r = c->len == HEADER_LEN;
	} else if (r == -ENOENT) {
		r = 0;
	}
	free(c);
	return r;
}

static bool is_same_header(const unsigned char *a, const unsigned char *b)
{
	bool is_luks1 = a[MAGIC_LEN] == 0 && a[MAGIC_LEN + 1] == 1;
	size_t len = is_luks1 ? UUID_OFF - MAGIC_LEN : 2;

	return memcmp(a + MAGIC_LEN, b + MAGIC_LEN, len) == 0 &&
	       memcmp(a + UUID_OFF, b + UUID_OFF, UUID_LEN) == 0;
}

/* 0, -errno, or -ECANCELED with why. */
static int check_identity(struct rados_store *rs, const struct image_facts *f,
			  const struct patience *p, char *why, size_t len)
{
	struct rados_writer *w = rs->writer;
	unsigned char now[HEADER_LEN];
	int r;

	if (!rs->base.is_encrypted)
		return 0;
	r = read_identity(rs, p, now);
	if (r <= 0)
		return r;
	if (!w->is_planned) {
		memcpy(w->identity, now, sizeof(now));
		w->has_identity = true;
	}
	if (w->has_identity && !is_same_header(w->identity, now)) {
		(void)snprintf(why, len,
			       "its LUKS header is another one now; do not unmap it before you "
			       "know who wrote it: what was written here needs the old header");
		return -ECANCELED;
	}
	if (rs->n > 1 && !f->has_parent && memcmp(now, "RBDL", 4) == 0) {
		(void)snprintf(why, len,
			       "it was flattened by a client that had not loaded its encryption: "
			       "parts that were never written hold bytes of its parent under the "
			       "wrong key; restore it from a snapshot or copy");
		return -ECANCELED;
	}
	return 0;
}

/* ---- judging what the image is now ---- */

static const struct {
	uint64_t feature;
	const char *why;
} refused[] = {
	{ RBD_FEATURE_JOURNALING, "journaling is enabled, which this client cannot write; rbd "
				  "feature disable ... journaling" },
	{ RBD_FEATURE_MIGRATING, "a migration is under way; finish it with rbd migration commit or "
				 "rbd migration abort" },
	{ RBD_FEATURE_NON_PRIMARY,
	  "it is a mirror that is not primary; promote it first: rbd mirror image promote" },
	{ RBD_FEATURE_DIRTY_CACHE, "a persistent cache of another client holds writes; flush it: "
				   "rbd persistent-cache flush" },
};

static int refuse(char *why, size_t len, const char *text)
{
	(void)snprintf(why, len, "%s", text);
	return -ECANCELED;
}

static bool is_parent(const struct rados_store *rs, const struct image_facts *f)
{
	struct rados_parent now = { .pool = f->parent_pool, .snap = f->parent_snap };

	(void)snprintf(now.id, sizeof(now.id), "%s", f->parent_id);
	return rados_is_parent(rs, &now);
}

static int check_facts(struct rados_store *rs, const struct image_facts *f, char *why, size_t len)
{
	const struct rados_writer *w = rs->writer;

	for (unsigned int i = 0; i < sizeof(refused) / sizeof(refused[0]); i++)
		if (f->features & refused[i].feature)
			return refuse(why, len, refused[i].why);
	if (w->has_lock && !(f->features & RBD_FEATURE_EXCLUSIVE_LOCK))
		return refuse(
			why, len,
			"its exclusive-lock feature was disabled; enable it and map it again");
	/* Whoever has the lock keeps the map, without looking at what we write. */
	if (!w->has_lock && (f->features & RBD_FEATURE_OBJECT_MAP))
		return refuse(why, len,
			      "its object-map feature was enabled, which only the owner of the "
			      "exclusive lock can keep; unmap it and map it again");
	if (1ull << f->order != rs->layers[0].layout.object_size)
		return refuse(why, len, "its object size is another one now");
	if (f->has_parent && !is_parent(rs, f)) {
		atomic_store(&rs->is_parent_lost, true);
		return refuse(why, len, "it has another parent now; unmap it and map it again");
	}
	if (f->size <= rs->base.data_offset)
		return refuse(why, len, "it has become too small to hold anything");
	return 0;
}

/* ---- the plan ---- */

static int plan_writes(struct rados_store *rs, const struct image_facts *f)
{
	struct rados_objects *l = &rs->layers[0];
	struct rados_writer *w = rs->writer;
	rados_ioctx_t io;
	int r = cluster_ioctx(rs->cluster, l->place.pool_id, rs->nspace, &io);

	if (r < 0)
		return r;
	r = rados_ioctx_selfmanaged_snap_set_write_ctx(io, f->snap_seq, f->snaps, (int)f->n_snaps);
	if (r < 0) {
		rados_ioctx_destroy(io);
		return r;
	}
	if (w->is_planned)
		rados_ioctx_destroy(w->plan.io);
	w->plan.io = io;
	w->plan.n_snaps = f->n_snaps;
	w->plan.raw_size = f->size;
	w->plan.overlap = rs->n == 1 || !f->has_parent
				  ? 0
				  : layout_overlap(f->raw_overlap, l->data_offset,
						   rs->layers[1].raw_size,
						   rs->layers[1].data_offset);
	w->is_planned = true;
	atomic_store(&l->overlap, w->plan.overlap);
	atomic_store(&rs->raw_size, f->size);
	return 0;
}

static int take(void *arg, const struct image_facts *f, const char *cookie,
		const struct patience *p, char *why, size_t len)
{
	struct rados_store *rs = arg;
	struct rados_writer *w = rs->writer;
	int r;

	r = check_facts(rs, f, why, len);
	if (r == 0)
		r = check_identity(rs, f, p, why, len);
	if (r == 0)
		r = object_map_take(w->map, f, cookie, p);
	return r < 0 ? r : plan_writes(rs, f);
}

static void give(void *arg, const struct patience *p)
{
	struct rados_store *rs = arg;

	/* Whoever has the header lock takes it from us if this fails. */
	(void)object_map_give(rs->writer->map, p);
}

static void changed(void *arg)
{
	struct rados_store *rs = arg;

	store_tell_change(&rs->base);
}

/* ---- life ---- */

/* A copy-up makes whole objects, and no header of the child may be in one. */
static int check_offset(const struct rados_store *rs, const struct layer_info *info,
			struct fault *f)
{
	const struct rados_objects *l = &rs->layers[0];

	if (rs->n == 1 || l->data_offset % (l->layout.object_size * l->layout.stripe_count) == 0)
		return 0;
	(void)fault_set(f, EXIT_LAYERED, -ENOTSUP,
			"%s: its data begins at %llu, inside a stripe of objects of %llu bytes: a "
			"clone like this can only be read",
			info->spec, (unsigned long long)l->data_offset,
			(unsigned long long)l->layout.object_size);
	fault_hint(f, "map it with --read-only, or copy its data to an image that rbd encryption "
		      "format made");
	return -ENOTSUP;
}

static int start_owner(struct rados_store *rs, struct cluster *c, const struct layer_info *info,
		       const struct store_options *o, struct fault *f)
{
	struct owner_options owner = {
		.cluster = c,
		.gate = &rs->writer->gate,
		.spec = info->spec,
		.pool = info->pool,
		.image = info->image,
		.image_id = info->image_id,
		.pool_id = info->pool_id,
		.nspace = info->nspace,
		.is_guarded = !o->is_exclusive,
		.is_layered = rs->is_layered,
		.has_lock = rs->writer->has_lock,
		.timeout_s = o->timeout_s,
		.ops = { .take = take, .give = give, .changed = changed, .arg = rs }
	};

	return owner_start(&owner, &rs->writer->owner, f);
}

int rados_writer_open(struct rados_store *rs, struct cluster *c, const struct rados_layer *layers,
		      const struct store_options *o, struct fault *f)
{
	const struct layer_info *info = layer_info(layers[0].layer);
	struct rados_writer *w;
	int r = o->is_without_lock ? 0 : layer_check_exclusive_lock(layers[0].layer, f);

	if (r == 0)
		r = check_offset(rs, info, f);
	if (r < 0)
		return r;
	w = calloc(1, sizeof(*w));
	if (!w)
		return fault_set(f, EXIT_MEMORY, -ENOMEM, "no memory for a store");
	gate_init(&w->gate);
	(void)pthread_mutex_init(&w->lock, NULL);
	clock_cond_init(&w->ending.over);
	w->waiting_tail = &w->waiting;
	w->max_running = (unsigned int)(COPYUP_MEMORY / rs->layers[0].layout.object_size);
	if (w->max_running == 0)
		w->max_running = 1;
	w->has_lock = info->features & RBD_FEATURE_EXCLUSIVE_LOCK;
	rs->writer = w;
	r = cluster_ioctx(c, info->pool_id, info->nspace, &w->metadata);
	if (r == 0)
		r = cluster_ioctx(c, rs->layers[0].place.pool_id, rs->nspace, &w->copyup);
	if (r == 0)
		r = object_map_new(w->metadata, info->image_id, info->spec, &rs->layers[0].layout,
				   &w->map);
	if (r < 0)
		return cluster_fault(f, r, info->spec, "cannot be opened for writing");
	return start_owner(rs, c, info, o, f);
}

/* ---- the end ---- */

/*
 * A hand-over takes a second. But another client may keep the lock, or the cluster be away, for
 * ever, and whoever stops the volume waits for its writes.
 */
static void *end_waiting(void *arg)
{
	struct rados_writer *w = arg;
	int r = 0;

	(void)pthread_mutex_lock(&w->lock);
	while (!w->ending.is_over && r == 0)
		r = pthread_cond_timedwait(&w->ending.over, &w->lock, &w->ending.until);
	(void)pthread_mutex_unlock(&w->lock);
	gate_end_waiting(&w->gate, -ESHUTDOWN);
	return NULL;
}

void rados_store_ending(struct store *s, unsigned int grace_ms)
{
	struct rados_writer *w = rados_of(s)->writer;

	if (!w || w->ending.has_thread)
		return;
	w->ending.until = clock_at(clock_ms() + grace_ms);
	w->ending.has_thread = pthread_create(&w->ending.thread, NULL, end_waiting, w) == 0;
	if (!w->ending.has_thread)
		gate_end_waiting(&w->gate, -ESHUTDOWN);
}

static void ending_done(struct rados_writer *w)
{
	if (w->ending.has_thread) {
		(void)pthread_mutex_lock(&w->lock);
		w->ending.is_over = true;
		(void)pthread_cond_signal(&w->ending.over);
		(void)pthread_mutex_unlock(&w->lock);
		(void)pthread_join(w->ending.thread, NULL);
	}
	(void)pthread_cond_destroy(&w->ending.over);
}

void rados_writer_close(struct rados_store *rs)
{
	struct rados_writer *w = rs->writer;

	if (!w)
		return;
	ending_done(w);
	w->owner = owner_stop(w->owner);
	w->map = object_map_free(w->map);
	if (w->is_planned)
		rados_ioctx_destroy(w->plan.io);
	if (w->copyup)
		rados_ioctx_destroy(w->copyup);
	if (w->metadata)
		rados_ioctx_destroy(w->metadata);
	(void)pthread_mutex_destroy(&w->lock);
	gate_done(&w->gate);
	free(w);
	rs->writer = NULL;
}
