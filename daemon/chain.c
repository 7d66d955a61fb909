/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Copyright (C) 2026 the rbdcrypt-nbd authors */

/*
 * The walk up the hierarchy, in two passes: first every layer's header is read and judged, which
 * costs nothing, so that what cannot work is refused at once; then the passphrases are tried, which
 * costs seconds each (chain_keys.c). And what follows from it: which store can serve such a chain.
 * Called by the volume's thread while it starts, by the check of its keys, and by a dry run.
 *
 * The rules are librbd's rbd_encryption_load2() of Reef (spec: librbd-encryption 2.4): the i-th
 * passphrase belongs to the i-th layer; when there are no more, the last one goes on for the
 * ancestors; an ancestor that has no header then is plaintext, and so is everything above it; a
 * header that no key opens is never plaintext; too many passphrases are an error.
 */

#include "chain_private.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "log.h"

static const char *layer_name(const struct chain_layer *l)
{
	return layer_info(l->layer)->spec;
}

int chain_note(const struct chain_options *o, int r, struct fault *f)
{
	if (r >= 0 || !o->note)
		return r;
	o->note(o->note_arg, f);
	fault_clear(f);
	return 0;
}

/* What the i-th layer was told to be. */
static enum luks_format format_of(const struct chain_options *o, unsigned int i)
{
	enum luks_format format = LUKS_FORMAT_ANY;

	if (o->formats->n > 0)
		(void)luks_format_parse(
			o->formats->items[i < o->formats->n ? i : o->formats->n - 1], &format);
	return format;
}

/* ---- first pass: layers and headers ---- */

static int add_layer(struct chain *c, struct layer **layer)
{
	struct chain_layer *more = realloc(c->layers, (c->n + 1) * sizeof(*more));

	if (!more)
		return -ENOMEM;
	c->layers = more;
	memset(&more[c->n], 0, sizeof(more[c->n]));
	more[c->n].layer = *layer;
	more[c->n].keyslot = -1;
	*layer = NULL;
	c->n++;
	return 0;
}

/* Reads and judges the header of layer i. */
static int load_header(const struct chain_options *o, struct chain *c, unsigned int i,
		       struct fault *f)
{
	struct chain_layer *l = &c->layers[i];
	enum luks_format format = format_of(o, i);
	bool is_given = i < o->passphrase_files->n;
	int r = luks_header_load(layer_read, l->layer, layer_info(l->layer)->raw_size, 0,
				 &o->limits, &l->header, f);

	if (r == -ENODATA && !is_given)
		return 0;
	if (r == -ENODATA) {
		(void)fault_set(
			f, EXIT_HEADER, -EINVAL,
			"layer %u: %s has no LUKS header, but passphrase file %s was given for it",
			i + 1, layer_name(l), o->passphrase_files->items[i]);
		fault_hint(
			f,
			i == 0 ? "format it with 'rbd encryption format', or map it without a "
				 "passphrase"
			       : "leave out the passphrase files of layers that are not encrypted");
		return -EINVAL;
	}
	if (r < 0) {
		l->is_damaged = true;
		fault_prefix(f, "layer %u: %s", i + 1, layer_name(l));
		return r;
	}
	l->luks = *luks_header_info(l->header);
	l->is_encrypted = true;
	if ((format == LUKS_FORMAT_LUKS1 && l->luks.version != 1) ||
	    (format == LUKS_FORMAT_LUKS2 && l->luks.version != 2)) {
		(void)fault_set(f, EXIT_HEADER, -EINVAL,
				"layer %u: %s is luks%d, but encryption-format=%s was given for it",
				i + 1, layer_name(l), l->luks.version, luks_format_name(format));
		fault_hint(f, "give encryption-format=luks for either version");
		return -EINVAL;
	}
	if (i > 0 && c->layers[i - 1].is_encrypted &&
	    memcmp(c->layers[i - 1].luks.digest, l->luks.digest, sizeof(l->luks.digest)) == 0)
		c->layers[i - 1].is_inherited = true;
	return 0;
}

/* In a survey: all that speaks against the layer. Else it would not have been opened. */
static int note_refusals(const struct chain_options *o, const struct layer *layer, struct fault *f)
{
	unsigned int at = 0;
	int r;

	while ((r = layer_refusal(layer, &at, f)) < 0) {
		r = chain_note(o, r, f);
		if (r < 0)
			break;
	}
	return r;
}

static int open_first(const struct chain_options *o, struct layer **ret, struct fault *f)
{
	if (o->known)
		return layer_open_again(o->cluster, o->known, o->timeout_s, o->interrupt, ret, f);
	return o->note ? layer_open_any(o->cluster, o->spec, o->timeout_s, o->interrupt, ret, f)
		       : layer_open(o->cluster, o->spec, o->timeout_s, o->interrupt, ret, f);
}

static int open_layers(const struct chain_options *o, struct chain *c, struct fault *f)
{
	struct layer *layer = NULL;
	unsigned int files = o->passphrase_files->n;
	int r = open_first(o, &layer, f);

	while (r == 0) {
		r = add_layer(c, &layer);
		if (r < 0) {
			(void)layer_close(layer);
			return fault_set(f, EXIT_MEMORY, r, "no memory for the layers of %s",
					 layer_name(&c->layers[0]));
		}
		/* Above a plaintext layer librbd looks at no header; those layers are only named.
		 */
		r = note_refusals(o, c->layers[c->n - 1].layer, f);
		if (r == 0 && (c->n == 1 || c->layers[c->n - 2].is_encrypted ||
			       c->layers[c->n - 2].is_damaged))
			r = load_header(o, c, c->n - 1, f);
		r = chain_note(o, r, f);
		if (r < 0)
			return r;
		r = layer_open_parent(c->layers[c->n - 1].layer, &layer, f);
	}
	/* A survey goes on with the layers that there are. */
	if (c->n > 0 && f->message[0])
		return chain_note(o, r, f);
	if (r != -ENOENT || c->n == 0)
		return r;
	if (files > c->n) {
		(void)fault_set(f, EXIT_USAGE, -EINVAL,
				"%u passphrase files were given, but %s has %u layer%s", files,
				layer_name(&c->layers[0]), c->n, c->n == 1 ? "" : "s");
		fault_hint(f, "one passphrase file per layer, the image's own first; %s",
			   c->n == 1 ? "it has no parent"
				     : "the last one goes on for the layers above it");
		return chain_note(o, -EINVAL, f);
	}
	return 0;
}

/* ---- checks ---- */

static int check_strict(const struct chain_options *o, const struct chain *c, struct fault *f)
{
	for (unsigned int i = 0; i < c->n; i++) {
		if (c->layers[i].is_encrypted || c->layers[i].is_damaged)
			continue;
		(void)fault_set(f, EXIT_HEADER, -EINVAL,
				"layer %u: %s is plaintext, which encryption-strict refuses", i + 1,
				layer_name(&c->layers[i]));
		fault_hint(f,
			   i == 0 ? "give its encryption-passphrase-file"
				  : "map without encryption-strict to accept plaintext ancestors");
		if (chain_note(o, -EINVAL, f) < 0)
			return -EINVAL;
	}
	return 0;
}

/* ---- all of it ---- */

/* Whether the image that is served raw is an encrypted one. Not known is not a no. */
static int look_for_header(struct chain *c, struct fault *f)
{
	struct layer *layer = c->layers[0].layer;
	unsigned char magic[6];
	int r;

	if (layer_info(layer)->raw_size < sizeof(magic))
		return 0;
	r = layer_read(layer, 0, magic, sizeof(magic));
	if (r < 0)
		return fault_set(f, r == -ETIMEDOUT || r == -EINTR ? EXIT_TIMED_OUT : EXIT_CLUSTER,
				 r, "%s: its first bytes cannot be read: %s",
				 layer_name(&c->layers[0]), strerror(-r));
	c->has_raw_header = memcmp(magic, "LUKS\xba\xbe", 6) == 0 ||
			    memcmp(magic, "RBDL\xba\xbe", 6) == 0;
	c->is_raw_clone = c->has_raw_header && magic[0] == 'R' && layer_info(layer)->has_parent;
	return 0;
}

/*
 * librbd believes the object map of a snapshot that it read when it was opened, and so reads zeros:
 * of a clone's once that is flattened, which gives the snapshot objects of its own and takes its
 * parent; of any once the feature was taken away and given again, and the map rebuilt.
 */
static bool is_misread_by_librbd(const struct chain *c)
{
	return layer_info(c->layers[0].layer)->snap_id != UINT64_MAX;
}

static int load_plain(const struct chain_options *o, struct chain *c, struct fault *f)
{
	struct layer *layer = NULL;
	int r = open_first(o, &layer, f);

	if (r == 0)
		r = add_layer(c, &layer);
	if (r < 0) {
		(void)layer_close(layer);
		return fault_set(f, EXIT_MEMORY, r, "no memory for a layer");
	}
	/* Without librbd, somebody else has to read what is the parents'. */
	while (o->store == STORE_RADOS || (o->store == STORE_AUTO && is_misread_by_librbd(c))) {
		r = layer_open_parent(c->layers[c->n - 1].layer, &layer, f);
		if (r == -ENOENT && !f->message[0])
			break;
		if (r == 0 && add_layer(c, &layer) < 0) {
			(void)layer_close(layer);
			r = fault_set(f, EXIT_MEMORY, -ENOMEM, "no memory for a layer");
		}
		if (r < 0)
			return r;
	}
	return look_for_header(c, f);
}

int chain_open(const struct chain_options *o, struct chain *ret, struct fault *f)
{
	struct chain c = { 0 };
	int r = o->passphrase_files->n == 0 && !o->note ? load_plain(o, &c, f)
							: open_layers(o, &c, f);

	if (r == 0 && o->passphrase_files->n == 0 && o->note) {
		c.has_raw_header = c.layers[0].is_encrypted || c.layers[0].is_damaged;
		c.is_raw_clone = c.layers[0].luks.is_clone_magic &&
				 layer_info(c.layers[0].layer)->has_parent;
	}
	if (r == 0 && o->is_strict)
		r = check_strict(o, &c, f);
	if (r < 0) {
		chain_done(&c);
		return r;
	}
	*ret = c;
	return 0;
}

int chain_check_raw(const struct chain_options *o, const struct chain *c, bool is_read_only,
		    struct fault *f)
{
	if (o->passphrase_files->n > 0 || !c->is_raw_clone || is_read_only)
		return 0;
	(void)fault_set(f, EXIT_SAFEGUARD, -ENOTSUP,
			"%s is a formatted clone: written without its key, it would mix its "
			"parent's bytes with its own",
			layer_name(&c->layers[0]));
	fault_hint(f, "give its encryption-passphrase-file, or --read-only to see the raw bytes");
	return -ENOTSUP;
}

/*
 * Whether what layer i shows of the one above it ends inside a sector. That part of it is all that
 * librbd would give us, and copy up; decrypted, it is nothing.
 */
static bool ends_in_a_sector(const struct chain *c, unsigned int i)
{
	const struct luks_info *luks = &c->layers[i].luks;
	uint64_t raw = layer_info(c->layers[i].layer)->raw_overlap;
	uint64_t above = layer_info(c->layers[i + 1].layer)->raw_size;

	if (above < raw)
		raw = above;
	return raw > luks->data_offset && (raw - luks->data_offset) % luks->sector_size != 0;
}

const char *chain_difference(const struct chain *c, unsigned int i)
{
	const struct chain_layer *child = &c->layers[i], *parent = &c->layers[i + 1];

	if (!child->is_encrypted)
		return NULL;
	if (!parent->is_encrypted)
		return "is plaintext under an encrypted clone";
	if (c->xts ? !secret_equal(xts_key(c->xts[i]), xts_key(c->xts[i + 1]))
		   : strcmp(child->luks.uuid, parent->luks.uuid) != 0)
		return "has another volume key than its clone";
	if (child->luks.data_offset != parent->luks.data_offset ||
	    child->luks.sector_size != parent->luks.sector_size)
		return "has another data offset or sector size than its clone";
	if (ends_in_a_sector(c, i))
		return "ends for its clone inside a sector";
	return NULL;
}

static const char *first_difference(const struct chain *c)
{
	const char *why = NULL;

	for (unsigned int i = 0; i + 1 < c->n && !why; i++)
		why = chain_difference(c, i);
	return why;
}

static bool is_layered(const struct chain_options *o, const struct chain *c)
{
	/* Raw bytes are librbd's to read through to the parents. */
	return o->passphrase_files->n > 0 && first_difference(c);
}

/*
 * Clones that inherit are librbd's to read and to copy up, but for one thing: what it copies from
 * more than one layer away has stored zeros for holes, which other clients decrypt.
 */
static bool is_miswritten_by_librbd(const struct chain_options *o, const struct chain *c,
				    bool is_read_only)
{
	return o->passphrase_files->n > 0 && c->layers[0].is_encrypted && c->n > 2 && !is_read_only;
}

/* What rados_writer_open() and its like ask for, and most images have. */
static bool could_be_rados(const struct chain_options *o, const struct chain *c, bool is_read_only)
{
	const struct layer_info *child = layer_info(c->layers[0].layer);

	for (unsigned int i = 0; i < c->n; i++) {
		const struct layer_info *info = layer_info(c->layers[i].layer);

		if (info->stripe_period != info->object_size)
			return false;
	}
	return is_read_only ||
	       ((child->features & IMAGE_FEATURE_EXCLUSIVE_LOCK || o->is_without_lock) &&
		c->layers[0].luks.data_offset % child->stripe_period == 0);
}

bool chain_needs_rados(const struct chain_options *o, const struct chain *c, bool is_read_only)
{
	return o->store == STORE_RADOS || is_layered(o, c) ||
	       (o->store == STORE_AUTO &&
		(is_miswritten_by_librbd(o, c, is_read_only) || is_misread_by_librbd(c)) &&
		could_be_rados(o, c, is_read_only));
}

static int check_writer(const struct chain_options *o, const struct chain *c, struct fault *f)
{
	const struct layer *child = c->layers[0].layer;
	int r = 0;

	if (is_layered(o, c))
		r = chain_note(o, layer_check_copy_on_read(child, f), f);
	if (r == 0 && !o->is_without_lock)
		r = chain_note(o, layer_check_exclusive_lock(child, f), f);
	return r;
}

int chain_check_store(const struct chain_options *o, const struct chain *c, bool is_read_only,
		      struct fault *f)
{
	const struct layer_info *info = layer_info(c->layers[0].layer);

	if (info->is_file && o->store != STORE_AUTO)
		return chain_note(o,
				  fault_set(f, EXIT_USAGE, -EINVAL,
					    "%s: a file has a store of its own: leave out --store",
					    info->spec),
				  f);
	if (o->store == STORE_LIBRBD && is_layered(o, c)) {
		(void)fault_set(f, EXIT_USAGE, -EINVAL, "%s: librbd cannot read it: a layer %s",
				info->spec, first_difference(c));
		fault_hint(f, "leave out --store, or give --store=rados");
		return chain_note(o, -EINVAL, f);
	}
	if (is_read_only || info->is_file || !chain_needs_rados(o, c, is_read_only))
		return 0;
	return check_writer(o, c, f);
}

/* The first layer with the same key as layer i, counted from 1; 0 for plaintext. */
static unsigned int key_id(const struct chain *c, unsigned int i)
{
	if (!c->xts || !c->xts[i])
		return 0;
	for (unsigned int j = 0; j < i; j++)
		if (c->xts[j] && secret_equal(xts_key(c->xts[j]), xts_key(c->xts[i])))
			return j + 1;
	return i + 1;
}

static int open_rados(const struct chain *c, struct cluster *cluster, const struct store_options *o,
		      struct store **ret, struct fault *f)
{
	struct rados_layer *layers = calloc(c->n, sizeof(*layers));
	int r;

	if (!layers)
		return fault_set(f, EXIT_MEMORY, -ENOMEM, "no memory for the layers");
	for (unsigned int i = 0; i < c->n; i++) {
		const struct chain_layer *l = &c->layers[i];

		layers[i].layer = l->layer;
		layers[i].data_offset = l->is_encrypted ? l->luks.data_offset : 0;
		layers[i].sector = l->is_encrypted ? l->luks.sector_size : 1;
		layers[i].key_id = key_id(c, i);
	}
	r = store_open_rados(cluster, layers, c->n, o, ret, f);
	free(layers);
	return r;
}

int chain_open_store(const struct chain_options *o, const struct chain *c,
		     const struct store_options *so, struct store **ret, struct fault *f)
{
	const struct layer *layer = c->layers[0].layer;
	struct store_options librbd = *so;

	if (layer_info(layer)->is_file)
		return store_open_file(layer, so, ret, f);
	if (chain_needs_rados(o, c, so->is_read_only))
		return open_rados(c, o->cluster, so, ret, f);
	if (is_miswritten_by_librbd(o, c, so->is_read_only))
		log_notice(layer_info(layer)->spec, "librbd serves it: what was never written, "
						    "other clients may read as noise");
	librbd.has_direct_reads = o->store == STORE_AUTO;
	return store_open_librbd(o->cluster, layer, &librbd, ret, f);
}

static int check_header(const struct chain_options *o, const struct chain_layer *l, struct fault *f)
{
	struct luks_header *now = NULL;
	int r = luks_header_load(layer_read, l->layer, layer_info(l->layer)->raw_size, 0,
				 &o->limits, &now, f);
	bool is_same = r == 0 && memcmp(luks_header_info(now)->digest, l->luks.digest,
					sizeof(l->luks.digest)) == 0;

	(void)luks_header_free(now);
	if (r < 0 && r != -ENODATA)
		return r;
	if (is_same)
		return 0;
	fault_hint(f, "somebody changed or replaced it just now; if that was meant, try again");
	return fault_set(f, EXIT_SAFEGUARD, -ESTALE,
			 "its LUKS header has changed while it was being opened");
}

int chain_check_headers(const struct chain_options *o, const struct chain *c, struct fault *f)
{
	for (unsigned int i = 0; i < c->n; i++) {
		int r = c->layers[i].header ? check_header(o, &c->layers[i], f) : 0;

		if (r < 0) {
			fault_prefix(f, "layer %u: %s", i + 1, layer_name(&c->layers[i]));
			return r;
		}
	}
	return 0;
}

static uint64_t header_of(const struct chain_layer *l)
{
	return l->is_encrypted ? l->luks.data_offset : 0;
}

uint64_t chain_data_offset(const struct chain *c)
{
	return c->n > 0 ? header_of(&c->layers[0]) : 0;
}

uint64_t chain_unseen(const struct chain *c, unsigned int i)
{
	const struct chain_layer *child = &c->layers[i], *parent = &c->layers[i + 1];
	uint64_t seen = layer_info(child->layer)->raw_overlap;
	uint64_t there = layer_info(parent->layer)->raw_size;

	/* Who has made it smaller once has given up the rest. */
	if (seen < there)
		return 0;
	seen -= seen < header_of(child) ? seen : header_of(child);
	there -= there < header_of(parent) ? there : header_of(parent);
	return seen < there ? there - seen : 0;
}

void chain_done(struct chain *c)
{
	for (unsigned int i = 0; i < c->n; i++) {
		if (c->xts)
			(void)xts_free(c->xts[i]);
		(void)luks_header_free(c->layers[i].header);
		free(c->layers[i].file);
		(void)layer_close(c->layers[i].layer);
	}
	free(c->xts);
	free(c->layers);
	memset(c, 0, sizeof(*c));
}
