/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Copyright (C) 2026 the rbdcrypt-nbd authors */

/*
 * The second pass over a chain: the passphrases are tried on the headers, each of which costs
 * seconds. Called by the volume's thread while it starts, and by a dry run. Owns the
 * passphrases while it runs; the keys are the chain's.
 *
 * The i-th file is the i-th layer's, and the last one goes on for the layers above. Only when a
 * layer does not open this way are the other files tried, on it and on the layers above it, and
 * only so often: to tell the user the order that was meant, never to go on with it.
 */

#include "chain_private.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "key.h"
#include "log.h"

/* Tries beyond the regular ones, seconds each. */
#define SEARCH_MAX 8
#define NONE (-1)

/* A layer's own. */
struct passphrase {
	struct secret *secret; /* NULL: the layer below has the same header, and so the same key */
	char *file; /* what it was read from; NULL with it */
};

struct keys {
	const struct chain_options *o;
	struct chain *c;
	struct passphrase *p; /* one per layer */
	int n; /* layers */
	int tries_left;
};

struct key_place chain_place(const struct chain_options *o, const struct chain *c, unsigned int i)
{
	const struct layer_info *info = layer_info(c->layers[i].layer);

	/* A name that means a key goes on meaning it. */
	if (i == 0 && o->known)
		info = o->known;
	return (struct key_place){ .pool = info->pool,
				   .nspace = info->nspace,
				   .image = info->image,
				   .snap = info->snap,
				   .cookie = o->cookie ? o->cookie : "",
				   .fsid = o->fsid ? o->fsid : "",
				   .layer = i + 1 };
}

/* The layer whose passphrase is the layer's own: itself, unless it shares that of the one below. */
static int own_file(const struct keys *k, unsigned int layer)
{
	int i = (int)layer;

	while (i > 0 && !k->p[i].secret)
		i--;
	return i;
}

static bool is_same(const struct keys *k, int a, int b)
{
	return a == b || secret_equal(k->p[a].secret, k->p[b].secret);
}

/* One header is unlocked once. */
static bool is_header_of_below(const struct keys *k, unsigned int i)
{
	return i > 0 && k->c->layers[i - 1].is_inherited;
}

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
		log_notice(layer_info(l->layer)->spec,
			   "the passphrase in %s fits without its final newline, as rbd before "
			   "Reef read it",
			   source);
	return r;
}

const char *chain_source(const struct chain_options *o, unsigned int i)
{
	const struct option_list *files = o->passphrase_files;

	return files->items[i < files->n ? i : files->n - 1];
}

/* Of source i; the last one goes on. 0 without any. */
static uint64_t part(const struct option_list *list, unsigned int i)
{
	if (!list || list->n == 0)
		return 0;
	return strtoull(list->items[i < list->n ? i : list->n - 1], NULL, 10);
}

struct key_options chain_key_options(const struct chain_options *o, unsigned int i)
{
	const struct option_list *files = o->passphrase_files;
	unsigned int source = i < files->n ? i : files->n - 1;
	struct key_options ret = o->keys;

	ret.offset_bytes = part(o->keyfile_offsets, source);
	ret.size_bytes = (size_t)part(o->keyfile_sizes, source);
	return ret;
}

/* The same part, as far as the options go. */
static bool is_same_part(const struct key_options *a, const struct key_options *b)
{
	return a->offset_bytes == b->offset_bytes && a->size_bytes == b->size_bytes;
}

/* ---- which file would have been right ---- */

static bool was_tried(const struct keys *k, const int *tried, int n, int file)
{
	for (int i = 0; i < n; i++)
		if (is_same(k, tried[i], file))
			return true;
	return false;
}

/*
 * The file that opens layer i, its own first unless that is known to be wrong. NONE: none does,
 * or the tries are used up.
 */
static int find_file(struct keys *k, unsigned int i, bool is_own_wrong)
{
	int *tried = calloc((size_t)k->n + 1, sizeof(*tried)), n = 0, ret = NONE;

	if (!tried)
		return NONE;
	tried[0] = own_file(k, i);
	n = is_own_wrong ? 1 : 0;
	for (int step = 0; ret == NONE && step < k->n; step++) {
		int file = (own_file(k, i) + step) % k->n;
		struct chain_layer scratch = k->c->layers[i];
		struct secret *key = NULL;
		struct fault f = { 0 };

		if (!k->p[file].secret || was_tried(k, tried, n, file))
			continue;
		if (k->tries_left-- <= 0)
			break;
		tried[n++] = file;
		if (chain_try_passphrase(k->o, &scratch, k->p[file].secret, k->p[file].file, &key,
					 &f) == 0)
			ret = file;
		key = secret_free(key);
	}
	free(tried);
	return ret;
}

/* fits[j] for all layers from the failing one on; those below were opened by their own. */
static void search(struct keys *k, unsigned int failing, int *fits)
{
	k->tries_left = SEARCH_MAX;
	for (unsigned int j = 0; j < k->c->n; j++) {
		if (!k->c->layers[j].header)
			fits[j] = NONE;
		else if (j < failing)
			fits[j] = own_file(k, j);
		else if (is_header_of_below(k, j) && fits[j - 1] != NONE)
			fits[j] = fits[j - 1];
		else if (j > failing && fits[failing] == NONE && !k->o->note)
			fits[j] = NONE; /* there is no order to tell */
		else
			fits[j] = find_file(k, j, j == failing);
	}
}

/* "a, b, c", if there is a file for every layer. */
static bool name_order(const struct keys *k, const int *fits, char *buf, size_t len)
{
	size_t at = 0;

	for (unsigned int j = 0; j < k->c->n; j++) {
		if (!k->c->layers[j].is_encrypted)
			continue;
		if (fits[j] == NONE)
			return false;
		at += (size_t)snprintf(buf + at, len - at, "%s%s", at ? ", " : "",
				       k->p[fits[j]].file);
		if (at >= len)
			return false;
	}
	return true;
}

/* The layer below i that has another header and was given the same passphrase, or NONE. */
static int shared_with(const struct keys *k, unsigned int i)
{
	if (i >= k->o->passphrase_files->n)
		return NONE;
	for (unsigned int j = 0; j < i; j++)
		if (k->c->layers[j].header && is_same(k, own_file(k, j), own_file(k, i)) &&
		    memcmp(k->c->layers[j].luks.digest, k->c->layers[i].luks.digest,
			   sizeof(k->c->layers[i].luks.digest)) != 0)
			return (int)j;
	return NONE;
}

/* How whoever has the passphrase finds out what is wrong with it. */
static void hint_source(const struct keys *k, const char *source, struct fault *f)
{
	if (key_repeat(source) == KEY_ASKS)
		fault_hint(f, "type it again, with an eye on the keyboard's layout");
	else if (k->o->newline == NEWLINE_KEEP)
		fault_hint(f, "--passphrase-newline=auto also tries it without a final newline");
	else if (key_is_file(source))
		fault_hint(f, "the file is used byte for byte; check it with 'cryptsetup open "
			      "--test-passphrase --key-file'");
	else
		fault_hint(f, "what the source gives is used byte for byte; check it with "
			      "'cryptsetup open --test-passphrase --key-file -'");
}

static int explain_wrong(const struct keys *k, unsigned int i, const int *fits, struct fault *f)
{
	const struct chain_options *o = k->o;
	const struct chain_layer *l = &k->c->layers[i];
	const char *file = k->p[own_file(k, i)].file, *name = layer_info(l->layer)->spec;
	int twin = shared_with(k, i);
	char order[400];

	fault_clear(f);
	if (twin != NONE)
		(void)fault_set(
			f, EXIT_PASSPHRASE, -EPERM,
			"layer %u: %s (luks%d): No key available with the passphrase in %s, "
			"which is that of layer %d",
			i + 1, name, l->luks.version, file, twin + 1);
	else
		(void)fault_set(f, EXIT_PASSPHRASE, -EPERM,
				"layer %u: %s (luks%d): No key available with the passphrase in %s",
				i + 1, name, l->luks.version, file);
	if (fits[i] != NONE && name_order(k, fits, order, sizeof(order)))
		fault_hint(f, "the files fit in this order: %s", order);
	else if (fits[i] != NONE)
		fault_hint(f, "%s opens it; give the files in the order of the layers",
			   k->p[fits[i]].file);
	else if (twin != NONE)
		fault_hint(f, "layers %d and %u have different keys: give each its own file",
			   twin + 1, i + 1);
	else if (i >= o->passphrase_files->n)
		fault_hint(f, "the last passphrase goes on for the layers above it; give one "
			      "encryption-passphrase-file per layer, the image's own first");
	else if (o->passphrase_files->n > 1 && k->tries_left > 0)
		fault_hint(f, "none of the passphrase files opens it");
	else
		hint_source(k, file, f);
	return -EPERM;
}

/* Layer i did not open. In a survey the layers above are told of as well. */
static int give_up(struct keys *k, unsigned int i, struct fault *f)
{
	int *fits = calloc(k->c->n, sizeof(*fits)), r = 0;

	if (!fits)
		return fault_set(f, EXIT_MEMORY, -ENOMEM, "no memory for the layers");
	search(k, i, fits);
	if (!k->o->note)
		r = explain_wrong(k, i, fits, f);
	for (unsigned int j = i; k->o->note && j < k->c->n; j++) {
		struct chain_layer *l = &k->c->layers[j];

		if (!l->header)
			continue;
		if (fits[j] != NONE && !l->file)
			l->file = strdup(k->p[fits[j]].file);
		if (fits[j] == NONE || !is_same(k, fits[j], own_file(k, j)))
			(void)chain_note(k->o, explain_wrong(k, j, fits, f), f);
	}
	free(fits);
	return r;
}

/* ---- the regular way ---- */

/* Whoever mistyped the passphrase of layer i is asked again; -EPERM when that is enough. */
static int ask_again(const struct keys *k, unsigned int i, struct secret **ret, struct fault *f)
{
	const struct key_place place = chain_place(k->o, k->c, i);
	const struct key_options how = chain_key_options(k->o, i);
	const char *source = k->p[i].file;
	int r = -EPERM;

	/* One that was passed in was asked for by somebody else. */
	if (key_repeat(source) != KEY_ASKS ||
	    (k->o->passphrase_fds && i < k->o->passphrase_files->n && k->o->passphrase_fds[i] >= 0))
		return r;
	for (unsigned int n = 1; r == -EPERM && n < k->o->tries; n++) {
		struct secret *again = NULL;

		fault_clear(f);
		log_notice(layer_info(k->c->layers[i].layer)->spec,
			   "layer %u: that passphrase does not fit", i + 1);
		r = key_read(source, &place, &how, &again, f);
		if (r < 0)
			return r;
		(void)secret_free(k->p[i].secret);
		k->p[i].secret = again;
		r = chain_try_passphrase(k->o, &k->c->layers[i], again, source, ret, f);
	}
	return r;
}

static int unlock_layer(const struct keys *k, unsigned int i, struct fault *f)
{
	struct chain_layer *l = &k->c->layers[i];
	int file = own_file(k, i);
	struct secret *key = NULL;
	int r;

	if (!k->p[i].secret) {
		l->keyslot = k->c->layers[i - 1].keyslot;
		r = secret_copy(xts_key(k->c->xts[i - 1]), &key);
	} else {
		r = chain_try_passphrase(k->o, l, k->p[file].secret, k->p[file].file, &key, f);
		if (r == -EPERM)
			r = ask_again(k, i, &key, f);
	}
	if (r == -EPERM)
		return r;
	if (r == 0)
		r = xts_new_take(k->o->engine, &key, l->luks.sector_size, &k->c->xts[i]);
	key = secret_free(key);
	if (r == 0)
		l->file = strdup(k->p[file].file);
	if (r == 0 && xts_note(k->c->xts[i]))
		log_warning(layer_info(l->layer)->spec, "encryption engine %s is used: %s",
			    xts_engine(k->c->xts[i]), xts_note(k->c->xts[i]));
	if (r < 0) {
		(void)fault_set(f, r == -ENOMEM ? EXIT_MEMORY : EXIT_HEADER, r,
				"the volume key cannot be used: %s", strerror(-r));
		fault_prefix(f, "layer %u: %s", i + 1, layer_info(l->layer)->spec);
	}
	return r;
}

/*
 * The passphrase of layer i, once all below have theirs. What is named twice is read once: it may
 * be a pipe.
 */
static int read_passphrase(const struct keys *k, unsigned int i, struct fault *f)
{
	const struct key_place place = chain_place(k->o, k->c, i);
	const struct key_options how = chain_key_options(k->o, i);
	struct passphrase *p = k->p;
	int passed = k->o->passphrase_fds && i < k->o->passphrase_files->n ? k->o->passphrase_fds[i]
									   : -1;
	int r;

	/* Nobody gave a source for this layer, and the one below has it opened. */
	if (is_header_of_below(k, i) && i >= k->o->passphrase_files->n)
		return 0;
	r = key_resolve(chain_source(k->o, i), &place, &p[i].file, f);
	if (r == 0 && passed >= 0)
		r = key_read_passed(passed, p[i].file, &place, &k->o->keys, &p[i].secret, f);
	for (unsigned int j = i; r == 0 && !p[i].secret && j-- > 0;) {
		const struct key_options other = chain_key_options(k->o, j);

		if (!p[j].file || strcmp(p[j].file, p[i].file) != 0 || !is_same_part(&how, &other))
			continue;
		if (is_header_of_below(k, i) && j == i - 1)
			return 0;
		if (!p[j].secret)
			continue;
		r = secret_copy(p[j].secret, &p[i].secret);
		if (r < 0)
			(void)fault_set(f, EXIT_MEMORY, r, "no memory for a passphrase");
	}
	if (r == 0 && !p[i].secret)
		r = key_read(p[i].file, &place, &how, &p[i].secret, f);
	return r;
}

/* *ret_all: every layer has its key, which in a survey need not be. */
static int unlock_layers(struct keys *k, bool *ret_all, struct fault *f)
{
	int r = 0;

	*ret_all = true;
	/* All of them before the first is tried, which costs seconds. */
	for (unsigned int i = 0; r == 0 && i < k->c->n; i++) {
		if (!k->c->layers[i].header)
			continue;
		r = read_passphrase(k, i, f);
		*ret_all = *ret_all && r == 0;
		r = chain_note(k->o, r, f);
	}
	for (unsigned int i = 0; r == 0 && *ret_all && i < k->c->n; i++) {
		if (!k->c->layers[i].header)
			continue;
		r = unlock_layer(k, i, f);
		if (r < 0)
			*ret_all = false;
		r = r == -EPERM ? give_up(k, i, f) : chain_note(k->o, r, f);
	}
	return r;
}

int chain_unlock(const struct chain_options *o, struct chain *c, struct fault *f)
{
	struct keys k = { .o = o, .c = c, .n = (int)c->n };
	bool has_all = false;
	int r = 0;

	if (o->passphrase_files->n == 0)
		return 0;
	k.p = calloc(c->n, sizeof(*k.p));
	c->xts = calloc(c->n, sizeof(*c->xts));
	if (!k.p || !c->xts)
		r = fault_set(f, EXIT_MEMORY, -ENOMEM, "no memory for keys");
	else
		r = unlock_layers(&k, &has_all, f);
	for (int i = 0; k.p && i < k.n; i++) {
		k.p[i].secret = secret_free(k.p[i].secret);
		free(k.p[i].file);
	}
	free(k.p);
	if (!has_all) {
		for (unsigned int i = 0; c->xts && i < c->n; i++)
			(void)xts_free(c->xts[i]);
		free(c->xts);
		c->xts = NULL;
	}
	return r;
}
