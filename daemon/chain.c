/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Copyright (C) 2026 the rbdcrypt-nbd authors */

/*
 * The walk up the hierarchy, in two passes: first every layer's header is read and judged, which
 * costs nothing, so that what cannot work is refused at once; then the passphrases are tried, which
 * costs seconds each.
 *
 * The rules are librbd's rbd_encryption_load2() of Reef (spec: librbd-encryption 2.4): the i-th
 * passphrase belongs to the i-th layer; when there are no more, the last one goes on for the
 * ancestors; an ancestor that has no header then is plaintext, and so is everything above it; a
 * header that no key opens is never plaintext; too many passphrases are an error.
 */

#include "chain.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "key.h"
#include "log.h"

static const char *layer_name(const struct chain_layer *l)
{
	return layer_info(l->layer)->spec;
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

static int open_layers(const struct chain_options *o, struct chain *c, struct fault *f)
{
	struct layer *layer = NULL;
	unsigned int files = o->passphrase_files->n;
	int r = layer_open(o->cluster, o->spec, o->timeout_s, &layer, f);

	while (r == 0) {
		r = add_layer(c, &layer);
		if (r < 0) {
			(void)layer_close(layer);
			return fault_set(f, EXIT_MEMORY, r, "no memory for the layers of %s",
					 layer_name(&c->layers[0]));
		}
		/* Above a plaintext layer librbd looks at no header; those layers are only named.
		 */
		if (c->n == 1 || c->layers[c->n - 2].is_encrypted)
			r = load_header(o, c, c->n - 1, f);
		if (r < 0)
			return r;
		r = layer_open_parent(c->layers[c->n - 1].layer, &layer, f);
	}
	if (r != -ENOENT || c->n == 0 || f->message[0])
		return r;
	if (files > c->n) {
		(void)fault_set(f, EXIT_USAGE, -EINVAL,
				"%u passphrase files were given, but %s has %u layer%s", files,
				layer_name(&c->layers[0]), c->n, c->n == 1 ? "" : "s");
		fault_hint(f, "one passphrase file per layer, the image's own first; %s",
			   c->n == 1 ? "it has no parent"
				     : "the last one goes on for the layers above it");
		return -EINVAL;
	}
	return 0;
}

/* ---- second pass: keys ---- */

struct passphrase {
	struct secret *secret; /* NULL: the layer below has the same header, and so the same key */
	char *file; /* what it was read from; NULL with it */
};

int chain_try_passphrase(const struct chain_options *o, struct chain_layer *l,
			 const struct secret *passphrase, const char *source, struct secret **ret,
			 struct fault *f)
{
	struct secret *stripped = NULL;
	int r = -EPERM;

	if (o->newline != NEWLINE_STRIP || !key_has_newline(passphrase))
		r = luks_unlock(l->header, passphrase, &o->limits, ret, &l->keyslot, f);
	if (r != -EPERM || o->newline == NEWLINE_KEEP || !key_has_newline(passphrase))
		return r;
	r = secret_copy(passphrase, &stripped);
	if (r < 0)
		return fault_set(f, EXIT_MEMORY, r, "no memory for a passphrase");
	secret_truncate(stripped, secret_len(stripped) - 1);
	fault_clear(f);
	r = luks_unlock(l->header, stripped, &o->limits, ret, &l->keyslot, f);
	stripped = secret_free(stripped);
	if (r == 0)
		log_notice(layer_name(l),
			   "the passphrase in %s fits without its final newline, as rbd before "
			   "Reef read it",
			   source);
	return r;
}

/* Which other layer this passphrase's file would have opened is not tried: each try costs seconds.
 */
static void explain_wrong(const struct chain_options *o, const struct chain *c, unsigned int i,
			  const char *file, struct fault *f)
{
	bool is_assumed = i >= o->passphrase_files->n;

	fault_clear(f);
	(void)fault_set(f, EXIT_PASSPHRASE, -EPERM,
			"layer %u: %s (luks%d): No key available with the passphrase in %s", i + 1,
			layer_name(&c->layers[i]), c->layers[i].luks.version, file);
	if (is_assumed)
		fault_hint(f, "the last passphrase goes on for the layers above it; give one "
			      "encryption-passphrase-file per layer, the image's own first");
	else if (o->passphrase_files->n > 1)
		fault_hint(f, "passphrase files are given in the order of the layers: %s first",
			   layer_name(&c->layers[0]));
	else if (o->newline == NEWLINE_KEEP)
		fault_hint(f, "--passphrase-newline=auto also tries it without a final newline");
	else
		fault_hint(f, "the file is used byte for byte; check it with 'cryptsetup open "
			      "--test-passphrase --key-file'");
}

/* The key of layer i, from the layer below when that was opened with the same header and source. */
static int unlock_layer(const struct chain_options *o, struct chain *c, unsigned int i,
			const struct passphrase *p, struct fault *f)
{
	struct chain_layer *l = &c->layers[i];
	struct secret *key = NULL;
	int r;

	if (!p[i].secret) {
		l->keyslot = c->layers[i - 1].keyslot;
		r = secret_copy(xts_key(c->xts[i - 1]), &key);
	} else {
		r = chain_try_passphrase(o, l, p[i].secret, p[i].file, &key, f);
	}
	if (r == -EPERM) {
		explain_wrong(o, c, i, p[i].file, f);
		return r;
	}
	if (r == 0)
		r = xts_new_choice_take(o->engine, &key, l->luks.sector_size, &c->xts[i]);
	key = secret_free(key);
	if (r == 0 && xts_note(c->xts[i]))
		log_warning(layer_name(l), "encryption engine %s is used: %s",
			    xts_engine(c->xts[i]), xts_note(c->xts[i]));
	if (r < 0) {
		(void)fault_set(f, r == -ENOMEM ? EXIT_MEMORY : EXIT_HEADER, r,
				"the volume key cannot be used: %s", strerror(-r));
		fault_prefix(f, "layer %u: %s", i + 1, layer_name(l));
	}
	return r;
}

const char *chain_source(const struct chain_options *o, unsigned int i)
{
	const struct option_list *files = o->passphrase_files;

	return files->items[i < files->n ? i : files->n - 1];
}

struct key_place chain_place(const struct chain_options *o, const struct chain *c, unsigned int i)
{
	const struct layer_info *info = layer_info(c->layers[i].layer);

	return (struct key_place){ .pool = info->pool,
				   .nspace = info->nspace,
				   .image = info->image,
				   .snap = info->snap,
				   .cookie = o->cookie ? o->cookie : "",
				   .fsid = o->fsid ? o->fsid : "",
				   .layer = i + 1 };
}

/*
 * The passphrase of layer i, once all below have theirs. What is named twice is read once: it may
 * be a pipe.
 */
static int read_passphrase(const struct chain_options *o, const struct chain *c, unsigned int i,
			   struct passphrase *p, struct fault *f)
{
	const struct key_place place = chain_place(o, c, i);
	bool is_below = i > 0 && c->layers[i - 1].is_inherited;
	int r;

	/* Nobody gave a source for this layer, and the one below has it opened. */
	if (is_below && i >= o->passphrase_files->n)
		return 0;
	r = key_resolve(chain_source(o, i), &place, &p[i].file, f);
	for (unsigned int j = i; r == 0 && !p[i].secret && j-- > 0;) {
		if (!p[j].file || strcmp(p[j].file, p[i].file) != 0)
			continue;
		if (is_below && j == i - 1)
			return 0;
		if (!p[j].secret)
			continue;
		r = secret_copy(p[j].secret, &p[i].secret);
		if (r < 0)
			(void)fault_set(f, EXIT_MEMORY, r, "no memory for a passphrase");
	}
	if (r == 0 && !p[i].secret)
		r = key_read(p[i].file, &place, &o->keys, &p[i].secret, f);
	return r;
}

static int unlock_layers(const struct chain_options *o, struct chain *c, struct fault *f)
{
	struct passphrase *p = calloc(c->n, sizeof(*p));
	int r = 0;

	if (!p)
		return fault_set(f, EXIT_MEMORY, -ENOMEM, "no memory for passphrases");
	/* All of them before the first is tried, which costs seconds. */
	for (unsigned int i = 0; r == 0 && i < c->n && c->layers[i].is_encrypted; i++)
		r = read_passphrase(o, c, i, p, f);
	for (unsigned int i = 0; r == 0 && i < c->n && c->layers[i].is_encrypted; i++)
		r = unlock_layer(o, c, i, p, f);
	for (unsigned int i = 0; i < c->n; i++) {
		p[i].secret = secret_free(p[i].secret);
		free(p[i].file);
	}
	free(p);
	return r;
}

static int check_strict(const struct chain *c, struct fault *f)
{
	for (unsigned int i = 0; i < c->n; i++) {
		if (c->layers[i].is_encrypted)
			continue;
		(void)fault_set(f, EXIT_HEADER, -EINVAL,
				"layer %u: %s is plaintext, which encryption-strict refuses", i + 1,
				layer_name(&c->layers[i]));
		fault_hint(f,
			   i == 0 ? "give its encryption-passphrase-file"
				  : "map without encryption-strict to accept plaintext ancestors");
		return -EINVAL;
	}
	return 0;
}

/* ---- all of it ---- */

static int load_plain(const struct chain_options *o, struct chain *c, struct fault *f)
{
	struct layer *layer = NULL;
	unsigned char magic[6] = { 0 };
	int r = layer_open(o->cluster, o->spec, o->timeout_s, &layer, f);

	if (r == 0)
		r = add_layer(c, &layer);
	if (r < 0) {
		(void)layer_close(layer);
		return fault_set(f, EXIT_MEMORY, r, "no memory for a layer");
	}
	c->has_raw_header = layer_info(c->layers[0].layer)->raw_size >= sizeof(magic) &&
			    layer_read(c->layers[0].layer, 0, magic, sizeof(magic)) == 0 &&
			    (memcmp(magic, "LUKS\xba\xbe", 6) == 0 ||
			     memcmp(magic, "RBDL\xba\xbe", 6) == 0);
	c->is_raw_clone = c->has_raw_header && magic[0] == 'R' &&
			  layer_info(c->layers[0].layer)->has_parent;
	return 0;
}

int chain_open(const struct chain_options *o, struct chain *ret, struct fault *f)
{
	struct chain c = { 0 };
	int r = o->passphrase_files->n == 0 ? load_plain(o, &c, f) : open_layers(o, &c, f);

	if (r == 0 && o->is_strict)
		r = check_strict(&c, f);
	if (r < 0) {
		chain_done(&c);
		return r;
	}
	*ret = c;
	return 0;
}

int chain_unlock(const struct chain_options *o, struct chain *c, struct fault *f)
{
	int r;

	if (o->passphrase_files->n == 0)
		return 0;
	c->xts = calloc(c->n, sizeof(*c->xts));
	if (!c->xts)
		return fault_set(f, EXIT_MEMORY, -ENOMEM, "no memory for keys");
	r = unlock_layers(o, c, f);
	if (r < 0) {
		for (unsigned int i = 0; i < c->n; i++)
			(void)xts_free(c->xts[i]);
		free(c->xts);
		c->xts = NULL;
	}
	return r;
}

int chain_check_flat(const struct chain *c, struct fault *f)
{
	for (unsigned int i = 1; i < c->n; i++) {
		const struct chain_layer *child = &c->layers[i - 1], *parent = &c->layers[i];
		const char *why;

		if (!c->xts || !c->xts[0])
			break;
		if (!parent->is_encrypted)
			why = "is plaintext under an encrypted clone";
		else if (!secret_equal(xts_key(c->xts[i - 1]), xts_key(c->xts[i])))
			why = "has another volume key than its clone";
		else if (child->luks.data_offset != parent->luks.data_offset ||
			 child->luks.sector_size != parent->luks.sector_size)
			why = "has another data offset or sector size than its clone";
		else
			continue;
		(void)fault_set(f, EXIT_LAYERED, -ENOTSUP,
				"%s is a formatted clone: layer %u: %s %s, and such a chain cannot "
				"be written yet",
				layer_name(&c->layers[0]), i + 1, layer_name(parent), why);
		fault_hint(f,
			   "--read-only works; for writing, flatten it with its keys first: rbd "
			   "flatten --encryption-passphrase-file ... %s (Ceph Reef or later)",
			   layer_name(&c->layers[0]));
		return -ENOTSUP;
	}
	return 0;
}

static int open_layered(const struct chain *c, struct cluster *cluster,
			const struct store_options *o, struct store **ret, struct fault *f)
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
	}
	r = store_open_rados(cluster, layers, c->n, o, ret, f);
	free(layers);
	return r;
}

int chain_open_store(const struct chain *c, struct cluster *cluster, const struct store_options *o,
		     struct store **ret, struct fault *f)
{
	const struct layer *layer = c->layers[0].layer;

	if (layer_info(layer)->is_file)
		return store_open_file(layer, o, ret, f);
	return chain_check_flat(c, NULL) == 0 ? store_open_librbd(cluster, layer, o, ret, f)
					      : open_layered(c, cluster, o, ret, f);
}

uint64_t chain_data_offset(const struct chain *c)
{
	return c->n > 0 && c->layers[0].is_encrypted ? c->layers[0].luks.data_offset : 0;
}

void chain_done(struct chain *c)
{
	for (unsigned int i = 0; i < c->n; i++) {
		if (c->xts)
			(void)xts_free(c->xts[i]);
		(void)luks_header_free(c->layers[i].header);
		(void)layer_close(c->layers[i].layer);
	}
	free(c->xts);
	free(c->layers);
	memset(c, 0, sizeof(*c));
}
