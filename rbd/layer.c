/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Copyright (C) 2026 the rbdcrypt-nbd authors */

/*
 * One layer of a chain as the unlock sees it: facts about an image (or file), its raw
 * bytes, and the way up to its parent. Called from the thread that opens a volume, never
 * from an IO thread. A layer owns a read-only handle of its own, or a descriptor.
 *
 * Raw bytes are read through to the parents, as librbd does it without encryption, since
 * that is how an inherited clone "has" its ancestor's header.
 */

#include "layer.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* A header is at most 4 MiB, but keyslot areas may be larger; nobody reads images this way. */
#define READ_CHUNK (1u << 20)

_Static_assert(IMAGE_FEATURE_EXCLUSIVE_LOCK == RBD_FEATURE_EXCLUSIVE_LOCK &&
		       IMAGE_FEATURE_OBJECT_MAP == RBD_FEATURE_OBJECT_MAP,
	       "layer_info has librbd's numbers");

const struct layer_info *layer_info(const struct layer *l)
{
	return &l->info;
}

bool layer_is_file(const struct layer *l, const struct file *file)
{
	return l->file.dev == file->dev && l->file.ino == file->ino &&
	       l->file.is_block == file->is_block;
}

struct layer *layer_close(struct layer *l)
{
	if (!l)
		return NULL;
	handle_close(l->handle, l->timeout_s);
	file_done(&l->file);
	cluster_unref(l->cluster);
	free(l);
	return NULL;
}

static struct layer *layer_new(struct cluster *c, unsigned int timeout_s, const struct interrupt *i)
{
	struct layer *l = calloc(1, sizeof(*l));

	if (!l)
		return NULL;
	l->file.fd = -1;
	l->timeout_s = timeout_s;
	l->interrupt = i;
	l->cluster = c ? cluster_ref(c) : NULL;
	l->info.snap_id = UINT64_MAX;
	return l;
}

/* One limited call on the image. -EINTR as well. */
static int call(const struct layer *l, handle_fn fn, void *data, size_t len)
{
	return handle_call_unless(l->handle, l->interrupt, l->timeout_s, fn, data, len);
}

static int call_fault(const struct layer *l, int error, const char *doing, struct fault *f)
{
	return error == -EINTR
		       ? fault_set(f, EXIT_TIMED_OUT, error, "%s: interrupted", l->info.spec)
		       : cluster_fault(f, error, l->info.spec, doing);
}

/* ---- files ---- */

static int open_file(struct layer *l, const struct image_spec *spec, struct fault *f)
{
	int r;

	l->info.is_file = true;
	(void)snprintf(l->info.image, sizeof(l->info.image), "%s", spec->image);
	(void)snprintf(l->info.spec, sizeof(l->info.spec), "file:%s", spec->image);
	r = file_open(spec->image, false, &l->file, f);
	if (r < 0) {
		l->file.fd = -1;
		return r;
	}
	r = file_size(&l->file, &l->info.raw_size);
	if (r < 0)
		fault_set(f, EXIT_NOT_FOUND, r, "%s: its size cannot be read: %s", spec->image,
			  strerror(-r));
	return r;
}

/* ---- images ---- */

/* What librbd knows of an image, gathered in one limited call. */
struct facts {
	struct layer_info info; /* without the names we came by */
	struct layer_settings settings;
	uint8_t is_old_format;
	bool has_settings; /* wanted */
};

static int fill_snap_name(struct handle *h, struct layer_info *info)
{
	size_t len = sizeof(info->snap);
	int r;

	if (info->snap_id == UINT64_MAX) {
		info->snap[0] = '\0';
		return 0;
	}
	r = rbd_snap_get_name(h->image, info->snap_id, info->snap, &len);
	if (r < 0)
		(void)snprintf(info->snap, sizeof(info->snap), "%" PRIu64, info->snap_id);
	return r == -ERANGE ? 0 : r;
}

static int fill_parent(struct handle *h, struct layer_info *info)
{
	rbd_linked_image_spec_t image;
	rbd_snap_spec_t snap;
	int r = rbd_get_parent(h->image, &image, &snap);

	info->has_parent = r == 0;
	if (r == -ENOENT)
		return 0;
	if (r < 0)
		return r;
	rbd_linked_image_spec_cleanup(&image);
	rbd_snap_spec_cleanup(&snap);
	return rbd_get_overlap(h->image, &info->raw_overlap);
}

static int fill_layout(struct handle *h, struct layer_info *info)
{
	uint64_t stripe_count;
	rbd_image_info_t stat;
	int r = rbd_stat(h->image, &stat, sizeof(stat));

	if (r < 0)
		return r;
	info->raw_size = stat.size;
	info->object_size = stat.obj_size;
	r = rbd_get_stripe_count(h->image, &stripe_count);
	if (r < 0)
		return r;
	info->stripe_period = stat.obj_size * stripe_count;
	return rbd_get_features(h->image, &info->features);
}

static int fill_facts(struct handle *h, void *data)
{
	struct facts *facts = data;
	struct layer_info *info = &facts->info;
	size_t len = sizeof(info->image);
	int r;

	info->pool_id = rados_ioctx_get_id(h->io);
	r = rados_ioctx_get_pool_name(h->io, info->pool, sizeof(info->pool));
	if (r < 0)
		return r;
	r = rbd_get_old_format(h->image, &facts->is_old_format);
	/* One of these has no id, and is not looked at any further. */
	if (r < 0 || facts->is_old_format)
		return r < 0 ? r : fill_layout(h, info);
	if (facts->has_settings) {
		r = layer_settings_read(h, &facts->settings);
		if (r < 0)
			return r;
	}
	r = rbd_get_id(h->image, info->image_id, sizeof(info->image_id));
	if (r < 0)
		return r;
	r = rbd_get_name(h->image, info->image, &len);
	if (r < 0)
		return r;
	if (info->snap_id == UINT64_MAX && info->snap[0]) {
		r = rbd_snap_get_id(h->image, info->snap, &info->snap_id);
		if (r < 0)
			return r;
	} else {
		r = fill_snap_name(h, info);
		if (r < 0)
			return r;
	}
	r = fill_layout(h, info);
	return r < 0 ? r : fill_parent(h, info);
}

void layer_image_spec(const struct layer_info *i, char *buf, size_t len)
{
	if (i->is_file)
		(void)snprintf(buf, len, "%s", i->spec);
	else
		(void)snprintf(buf, len, "%s/%s%s%s", i->pool, i->nspace, i->nspace[0] ? "/" : "",
			       i->image);
}

static void name_it(struct layer_info *info)
{
	size_t n;

	layer_image_spec(info, info->spec, sizeof(info->spec));
	n = strlen(info->spec);
	(void)snprintf(info->spec + n, sizeof(info->spec) - n, "%s%s", info->snap[0] ? "@" : "",
		       info->snap);
}

static int learn(struct layer *l, bool is_parent, struct fault *f)
{
	struct facts facts = { .info = l->info, .has_settings = !is_parent };
	unsigned int at = 0;
	int r = call(l, fill_facts, &facts, sizeof(facts));

	if (r < 0)
		return call_fault(l, r, "cannot read the image's metadata", f);
	name_it(&facts.info);
	l->info = facts.info;
	l->settings = facts.settings;
	l->is_old_format = facts.is_old_format;
	return l->is_any ? 0 : layer_refusal(l, &at, f);
}

static int default_pool(struct cluster *c, char *buf, size_t len, struct fault *f)
{
	int r = cluster_conf_get(c, "rbd_default_pool", buf, len);

	if (r < 0)
		return fault_set(f, EXIT_CLUSTER, r, "rbd_default_pool: %s", strerror(-r));
	if (!buf[0])
		(void)snprintf(buf, len, "rbd");
	return 0;
}

static int open_image(struct layer *l, const struct image_spec *spec, struct fault *f)
{
	struct layer_info *info = &l->info;
	struct place place = { .pool = info->pool,
			       .nspace = info->nspace,
			       .image = info->image,
			       .snap = spec->snap && spec->snap[0] ? info->snap : NULL,
			       .snap_id = spec->snap_id };
	int r = 0;

	if (spec->pool && spec->pool[0])
		(void)snprintf(info->pool, sizeof(info->pool), "%s", spec->pool);
	else
		r = default_pool(l->cluster, info->pool, sizeof(info->pool), f);
	if (r < 0)
		return r;
	(void)snprintf(info->nspace, sizeof(info->nspace), "%s", spec->nspace ? spec->nspace : "");
	(void)snprintf(info->image, sizeof(info->image), "%s", spec->image);
	(void)snprintf(info->snap, sizeof(info->snap), "%s", spec->snap ? spec->snap : "");
	info->snap_id = spec->snap_id;
	name_it(info);
	r = handle_open(l->cluster, &place, info->spec, l->timeout_s, l->interrupt, &l->handle, f);
	return r < 0 ? r : learn(l, false, f);
}

/* What opening l came to. Takes it. */
static int hand_out(struct layer *l, int r, struct layer **ret)
{
	if (r < 0)
		layer_close(l);
	else
		*ret = l;
	return r < 0 ? r : 0;
}

static int open_layer(struct cluster *c, const struct image_spec *spec, unsigned int timeout_s,
		      const struct interrupt *i, bool is_any, struct layer **ret, struct fault *f)
{
	struct layer *l = layer_new(spec->is_file ? NULL : c, timeout_s, i);

	if (!l)
		return fault_set(f, EXIT_MEMORY, -ENOMEM, "out of memory");
	l->is_any = is_any;
	return hand_out(l, spec->is_file ? open_file(l, spec, f) : open_image(l, spec, f), ret);
}

int layer_open(struct cluster *c, const struct image_spec *spec, unsigned int timeout_s,
	       const struct interrupt *i, struct layer **ret, struct fault *f)
{
	return open_layer(c, spec, timeout_s, i, false, ret, f);
}

int layer_open_any(struct cluster *c, const struct image_spec *spec, unsigned int timeout_s,
		   const struct interrupt *i, struct layer **ret, struct fault *f)
{
	return open_layer(c, spec, timeout_s, i, true, ret, f);
}

/* By the ids that l->info has. */
static int open_by_id(struct layer *l, bool is_parent, struct fault *f)
{
	const struct place place = { .pool_id = l->info.pool_id,
				     .nspace = l->info.nspace,
				     .image_id = l->info.image_id,
				     .snap_id = l->info.snap_id };
	int r = handle_open(l->cluster, &place, l->info.spec, l->timeout_s, l->interrupt,
			    &l->handle, f);

	return r < 0 ? r : learn(l, is_parent, f);
}

int layer_open_again(struct cluster *c, const struct layer_info *was, unsigned int timeout_s,
		     const struct interrupt *i, struct layer **ret, struct fault *f)
{
	struct layer *l = layer_new(c, timeout_s, i);

	if (!l)
		return fault_set(f, EXIT_MEMORY, -ENOMEM, "out of memory");
	l->info = *was;
	return hand_out(l, open_by_id(l, false, f), ret);
}

/* ---- the way up ---- */

static int parent_place(struct handle *h, void *data)
{
	struct layer_info *info = data;
	rbd_linked_image_spec_t image;
	rbd_snap_spec_t snap;
	int r = rbd_get_parent(h->image, &image, &snap);

	if (r < 0)
		return r;
	info->pool_id = image.pool_id;
	info->snap_id = snap.id;
	(void)snprintf(info->pool, sizeof(info->pool), "%s", image.pool_name);
	(void)snprintf(info->nspace, sizeof(info->nspace), "%s", image.pool_namespace);
	(void)snprintf(info->image, sizeof(info->image), "%s", image.image_name);
	(void)snprintf(info->image_id, sizeof(info->image_id), "%s", image.image_id);
	(void)snprintf(info->snap, sizeof(info->snap), "%s", snap.name);
	rbd_linked_image_spec_cleanup(&image);
	rbd_snap_spec_cleanup(&snap);
	return 0;
}

int layer_open_parent(struct layer *child, struct layer **ret, struct fault *f)
{
	struct layer *l;
	int r;

	if (!child->info.has_parent)
		return -ENOENT;
	l = layer_new(child->cluster, child->timeout_s, child->interrupt);
	if (!l)
		return fault_set(f, EXIT_MEMORY, -ENOMEM, "out of memory");
	l->is_any = child->is_any;
	r = call(child, parent_place, &l->info, sizeof(l->info));
	if (r < 0) {
		call_fault(child, r, "cannot find the parent", f);
		layer_close(l);
		return r;
	}
	name_it(&l->info);
	r = hand_out(l, open_by_id(l, true, f), ret);
	/* -ENOENT is kept for "there is none"; a parent that is gone is damage. */
	return r == -ENOENT ? -EIO : r;
}

/* ---- bytes ---- */

struct read_call {
	uint64_t off;
	size_t len;
	unsigned char bytes[];
};

static int read_bytes(struct handle *h, void *data)
{
	struct read_call *c = data;
	ssize_t n;

	for (size_t at = 0; at < c->len; at += (size_t)n) {
		n = rbd_read(h->image, c->off + at, c->len - at, (char *)c->bytes + at);
		if (n < 0)
			return (int)n;
		if (n == 0)
			return -EIO;
	}
	return 0;
}

static int read_image(struct layer *l, uint64_t off, unsigned char *buf, size_t len)
{
	struct read_call *c = malloc(sizeof(*c) + READ_CHUNK);
	int r = 0;

	if (!c)
		return -ENOMEM;
	for (size_t at = 0; r == 0 && at < len; at += c->len) {
		c->off = off + at;
		c->len = len - at < READ_CHUNK ? len - at : READ_CHUNK;
		r = call(l, read_bytes, c, sizeof(*c) + c->len);
		if (r == 0)
			memcpy(buf + at, c->bytes, c->len);
	}
	free(c);
	return r;
}

int layer_read(void *layer, uint64_t off, void *buf, size_t len)
{
	struct layer *l = layer;

	if (off > l->info.raw_size || len > l->info.raw_size - off)
		return -EIO;
	return l->info.is_file ? file_read(&l->file, off, buf, len) : read_image(l, off, buf, len);
}
