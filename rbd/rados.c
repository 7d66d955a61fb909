/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Copyright (C) 2026 the rbdcrypt-nbd authors */

/*
 * The rados store: chains whose layers have different keys, read and written straight in their
 * objects without librbd, which would show the parent's ciphertext through holes of the child, and
 * copy it up. Opened, asked and closed by the volume's thread; reads are in rados_io.c, what writes
 * need is in rados_open.c, and they are in rados_write.c and copyup.c.
 *
 * Each layer has an IO context of its own, set to its snapshot once. A parent is a snapshot and
 * stays as it was; only the head's size and overlap are asked for again, each time the image
 * changed: by the owner if there is one, else of a librbd store on the child, which never reads or
 * writes.
 */

#include "layer.h"
#include "librbd.h"
#include "rados.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static int op_flush(struct store *s, struct store_io *io)
{
	(void)s;
	/* What the OSDs have answered is on their disks. */
	io->result = 0;
	return STORE_DONE;
}

/* ---- size and overlap ---- */

struct parent_facts {
	uint64_t overlap; /* bytes, raw */
	bool has_parent;
	struct rados_parent parent;
};

static int get_parent(struct handle *h, void *data)
{
	struct parent_facts *facts = data;
	rbd_linked_image_spec_t image;
	rbd_snap_spec_t snap;
	int r = rbd_get_overlap(h->image, &facts->overlap);

	if (r == 0)
		r = rbd_get_parent(h->image, &image, &snap);
	/* Flattened since: all that was the parent's is the child's now. */
	if (r == -ENOENT)
		facts->overlap = 0;
	if (r < 0)
		return r == -ENOENT ? 0 : r;
	facts->has_parent = true;
	facts->parent = (struct rados_parent){ .pool = image.pool_id, .snap = snap.id };
	(void)snprintf(facts->parent.id, sizeof(facts->parent.id), "%s", image.image_id);
	rbd_linked_image_spec_cleanup(&image);
	rbd_snap_spec_cleanup(&snap);
	return 0;
}

static void set_overlap(struct rados_store *rs, unsigned int i, uint64_t raw_overlap)
{
	struct rados_objects *l = &rs->layers[i];

	atomic_store(&l->overlap, i + 1 == rs->n ? 0
						 : layout_overlap(raw_overlap, l->data_offset,
								  l[1].raw_size, l[1].data_offset));
}

static int op_raw_size(struct store *s, uint64_t *ret)
{
	struct rados_store *rs = rados_of(s);
	struct parent_facts facts = { .overlap = 0 };
	uint64_t size;
	int r;

	/* Then the owner has read it, and planned for it. */
	if (rs->writer) {
		*ret = atomic_load(&rs->raw_size);
		return 0;
	}
	r = rs->image->ops->raw_size(rs->image, &size);
	/* Flattened or not, what a snapshot had of its parent it has still. */
	if (r == 0 && librbd_of(rs->image)->is_snapshot) {
		*ret = size;
		return 0;
	}
	if (r == 0)
		r = handle_call(librbd_of(rs->image)->handle, rs->timeout_s, get_parent, &facts,
				sizeof(facts));
	if (r < 0)
		return r;
	atomic_store(&rs->is_parent_lost, facts.has_parent && !rados_is_parent(rs, &facts.parent));
	set_overlap(rs, 0, facts.overlap);
	atomic_store(&rs->raw_size, size);
	*ret = size;
	return 0;
}

static void op_lock(struct store *s, struct store_lock *ret)
{
	struct rados_store *rs = rados_of(s);

	if (rs->writer)
		owner_lock(rs->writer->owner, ret);
	else
		store_lock(rs->image, ret);
}

static void op_health(struct store *s, char *buf, size_t len)
{
	struct rados_store *rs = rados_of(s);

	buf[0] = '\0';
	if (rs->writer)
		owner_health(rs->writer->owner, buf, len);
	else if (atomic_load(&rs->is_parent_lost))
		(void)snprintf(buf, len,
			       "it has another parent now, and the old one's bytes cannot be read; "
			       "unmap it and map it again");
	else
		rs->image->ops->health(rs->image, buf, len);
}

static void on_change(void *arg)
{
	struct rados_store *rs = arg;

	store_tell_change(&rs->base);
}

/* ---- life ---- */

static void op_close(struct store *s)
{
	struct rados_store *rs = rados_of(s);

	/* Not before its last call came back; one that is late finds nobody to tell. */
	if (rs->image)
		store_on_change(rs->image, NULL, rs);
	store_close(rs->image);
	rados_writer_close(rs);
	for (unsigned int i = 0; i < rs->n; i++)
		if (rs->layers[i].io)
			rados_ioctx_destroy(rs->layers[i].io);
	free(rs);
}

/* Which bytes nobody has, as librbd sees it; see rados_same_ops. */
static int op_status(struct store *s, struct store_io *io, uint64_t dev_off, uint64_t len)
{
	return librbd_status(rados_of(s)->image, io, dev_off, len);
}

#define OPS                                                                                        \
	.name = "rados", .read = rados_store_read, .write = rados_store_write,                     \
	.zero = rados_store_zero, .discard = rados_store_discard, .flush = op_flush,               \
	.freeable = rados_store_freeable, .raw_size = op_raw_size, .lock = op_lock,                \
	.health = op_health, .ending = rados_store_ending, .close = op_close

static const struct store_ops rados_ops = { OPS };
/* Read-only, and librbd sees the same bytes, so that it can also say where there are none. */
static const struct store_ops rados_same_ops = { OPS, .status = op_status };

/* Where an image's objects are, gathered in one limited call. */
struct object_facts {
	struct object_place place;
	struct layout layout;
};

static int fill_objects(struct handle *h, void *data)
{
	struct object_facts *facts = data;
	int r = rbd_get_stripe_unit(h->image, &facts->layout.stripe_unit);

	if (r == 0)
		r = rbd_get_stripe_count(h->image, &facts->layout.stripe_count);
	return r < 0 ? r : object_place_read(h, &facts->place);
}

static int open_objects(struct cluster *c, const struct rados_layer *from, struct rados_objects *l,
			struct fault *f)
{
	const struct layer_info *info = layer_info(from->layer);
	struct object_facts facts = { .layout.object_size = info->object_size };
	const struct layer *layer = from->layer;
	int r = handle_call_unless(layer->handle, layer->interrupt, layer->timeout_s, fill_objects,
				   &facts, sizeof(facts));

	if (r >= 0)
		r = cluster_ioctx(c, facts.place.pool_id, info->nspace, &l->io);
	if (r < 0)
		return cluster_fault(f, r, info->spec, "cannot find the image's objects");
	if (facts.layout.stripe_unit == 0 || facts.layout.stripe_count == 0 ||
	    facts.layout.object_size % facts.layout.stripe_unit)
		return fault_set(f, EXIT_LAYERED, -EINVAL, "%s: striping that makes no sense",
				 info->spec);
	l->place = facts.place;
	if (info->snap_id != UINT64_MAX)
		rados_ioctx_snap_set_read(l->io, info->snap_id);
	l->layout = facts.layout;
	l->data_offset = from->data_offset;
	l->sector = from->sector;
	l->raw_size = info->raw_size;
	return 0;
}

/* How long a run of bytes is in an object, at the least: what reads are cut to. */
static bool is_cut_between(const struct rados_objects *l, uint32_t sector)
{
	uint64_t unit = l->layout.stripe_count > 1 ? l->layout.stripe_unit : l->layout.object_size;

	return unit % sector == 0 && l->data_offset % sector == 0;
}

/*
 * A sector has to lie in one object, of its own layer and of each that its reads are cut by on
 * their way up. Ceph's own headers and usual striping see to that.
 */
static int check_sectors(const struct rados_store *rs, const struct rados_layer *from,
			 struct fault *f)
{
	for (unsigned int i = 0; i < rs->n; i++)
		for (unsigned int j = 0; j <= i; j++) {
			if (is_cut_between(&rs->layers[j], rs->layers[i].sector))
				continue;
			fault_set(f, EXIT_LAYERED, -ENOTSUP,
				  "layer %u: %s: its objects or data offset split the sectors of "
				  "%u bytes of layer %u",
				  j + 1, layer_info(from[j].layer)->spec, rs->layers[i].sector,
				  i + 1);
			fault_hint(f,
				   "copy it with rbd deep cp to an image without fancy striping");
			return -ENOTSUP;
		}
	return 0;
}

/* Who has no keys copies up of a parent what the clone sees of it, which is to be whole sectors. */
static bool ends_inside_sector(const struct rados_layer *l)
{
	uint64_t overlap = layer_info(l->layer)->raw_overlap;

	return overlap > l->data_offset && (overlap - l->data_offset) % l->sector != 0;
}

/* Whether anybody could take these bytes for something else than we do. */
static bool is_layered(const struct rados_layer *layers, unsigned int n)
{
	for (unsigned int i = 1; i < n; i++)
		if (layers[i].key_id != layers[0].key_id ||
		    layers[i].data_offset != layers[0].data_offset ||
		    layers[i].sector != layers[0].sector || ends_inside_sector(&layers[i - 1]))
			return true;
	return false;
}

/*
 * The child as librbd sees it, to be told of changes and of settings that forbid it. Never for
 * writing: a raw handle that owned the lock would do what others ask for with the wrong view.
 */
static int open_image(struct rados_store *rs, struct cluster *c, const struct rados_layer *layers,
		      const struct store_options *o, struct fault *f)
{
	struct store_options read_only = *o;
	int r;

	read_only.is_read_only = true;
	read_only.is_exclusive = false;
	read_only.has_direct_reads = false;
	r = store_open_librbd(c, layers[0].layer, &read_only, &rs->image, f);
	if (r < 0)
		return r;
	rs->base.optimal_io = rs->image->optimal_io;
	if (o->is_read_only) {
		store_on_change(rs->image, on_change, rs);
	} else {
		store_close(rs->image);
		rs->image = NULL;
	}
	return 0;
}

static int open_steps(struct rados_store *rs, struct cluster *c, const struct rados_layer *layers,
		      const struct store_options *o, struct fault *f)
{
	const struct layer_info *top = layer_info(layers[rs->n - 1].layer);
	int r;

	/* Its holes would be zeros to us, and the parent's bytes to everybody else. */
	if (top->has_parent)
		return fault_set(f, EXIT_LAYERED, -ENOTSUP, "%s has a parent that was not opened",
				 top->spec);
	r = open_image(rs, c, layers, o, f);

	for (unsigned int i = 0; r == 0 && i < rs->n; i++)
		r = open_objects(c, &layers[i], &rs->layers[i], f);
	if (r == 0)
		r = check_sectors(rs, layers, f);
	if (r < 0)
		return r;
	/* Not as it is when the lock is ours: it may have been flattened since the chain was read.
	 */
	if (rs->n > 1) {
		const struct layer_info *parent = layer_info(layers[1].layer);

		rs->parent.pool = parent->pool_id;
		rs->parent.snap = parent->snap_id;
		(void)snprintf(rs->parent.id, sizeof(rs->parent.id), "%s", parent->image_id);
	}
	for (unsigned int i = 0; i < rs->n; i++)
		set_overlap(rs, i, layer_info(layers[i].layer)->raw_overlap);
	atomic_store(&rs->raw_size, rs->layers[0].raw_size);
	for (unsigned int i = 0; i < rs->n; i++)
		if (rs->layers[i].sector > rs->sector_max)
			rs->sector_max = rs->layers[i].sector;
	return o->is_read_only ? 0 : rados_writer_open(rs, c, layers, o, f);
}

int store_open_rados(struct cluster *c, const struct rados_layer *layers, unsigned int n,
		     const struct store_options *o, struct store **ret, struct fault *f)
{
	struct rados_store *rs = calloc(1, sizeof(*rs) + n * sizeof(rs->layers[0]));
	int r;

	if (!rs)
		return fault_set(f, EXIT_MEMORY, -ENOMEM, "no memory for a store");
	rs->base.ops = &rados_ops;
	rs->base.data_offset = o->data_offset;
	rs->base.is_encrypted = o->is_encrypted;
	rs->base.is_writethrough = true;
	/* check_sectors() sees to it: one object's part of a read is one operation of its OSD. */
	rs->base.has_atomic_sectors = true;
	rs->timeout_s = o->timeout_s;
	rs->n = n;
	rs->cluster = c;
	rs->is_layered = is_layered(layers, n);
	(void)snprintf(rs->nspace, sizeof(rs->nspace), "%s", layer_info(layers[0].layer)->nspace);
	r = open_steps(rs, c, layers, o, f);
	if (r < 0) {
		op_close(&rs->base);
		return r;
	}
	if (rs->image && !rs->is_layered)
		rs->base.ops = &rados_same_ops;
	*ret = &rs->base;
	return 0;
}
