/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Copyright (C) 2026 the rbdcrypt-nbd authors */

/*
 * The safeguard against taking away a volume that nobody could open again. A check opens the chain
 * anew, as a start would, so what it finds is what the next start will find: layers, headers,
 * passphrases, keys. The key it arrives at is compared with the one in use. It is the same image
 * that is opened, by its id: one that was renamed has lost nothing, and what has its name now is no
 * proof.
 *
 * Two threads: the volume's own asks and is told; the checker works on its own copy of the results
 * and hands them over with its end. Between its start and that moment nothing else touches them.
 */

#include "key_check.h"

#include <errno.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "errand.h"
#include "path.h"
#include "text.h"

struct loaded {
	bool is_encrypted, is_inherited;
	struct luks_info luks;
	char spec[512];
};

struct key_check {
	struct key_check_options o;
	struct chain_options chain; /* o.chain's, with our own way to be interrupted, and */
	struct interrupt interrupt;
	struct layer_info image; /* as it was; its name may lead elsewhere by now */
	struct image_spec spec; /* the image, if it is a file, by a path */
	char *path; /* that still leads there when the daemon has left the folder */
	struct loaded *loaded; /* n of them, as all below; the checker's while it runs */
	struct xts *const *xts;
	struct key_check_layer *layers, *found; /* what is known; the checker's */
	unsigned int n;
	struct errand errand;
	bool is_accepting;
	atomic_bool is_stopping;
};

static bool is_stopping(void *arg)
{
	return atomic_load(&((struct key_check *)arg)->is_stopping);
}

const char *key_health_name(enum key_health h)
{
	switch (h) {
	case KEY_NONE:
		return "none";
	case KEY_OK:
		return "ok";
	case KEY_ONCE_ONLY:
		return "once";
	case KEY_FAILED:
		return "failed";
	}
	return "";
}

/* Not when it was opened because the layer below has the same header, and that was open. */
static bool has_source(const struct key_check *k, unsigned int i)
{
	return i < k->chain.passphrase_files->n || i == 0 || !k->loaded[i - 1].is_inherited;
}

/* ---- one layer; on the checker ---- */

static void set(struct key_check_layer *l, enum key_health health, const char *reason)
{
	l->health = health;
	l->can_be_accepted = l->is_header = false;
	text_copy(l->reason, sizeof(l->reason), reason);
}

static void set_changed(struct key_check_layer *l, const char *reason)
{
	set(l, KEY_FAILED, reason);
	l->is_header = true;
}

static void set_fault(struct key_check_layer *l, const struct fault *f)
{
	set(l, KEY_FAILED, f->message[0] ? f->message : strerror(-f->error));
}

/* The key that layer i can be opened with now, from its resolved source. */
static int find_key(struct key_check *k, struct chain *c, unsigned int i, const char *source,
		    struct secret **ret, struct fault *f)
{
	const struct key_place place = chain_place(&k->chain, c, i);
	struct secret *passphrase = NULL;
	const struct key_options how = chain_key_options(&k->chain, i);
	int r = key_read(source, &place, &how, &passphrase, f);

	if (r == 0) {
		r = chain_try_passphrase(&k->chain, &c->layers[i], passphrase, source, ret, f);
		if (r == -EPERM)
			fault_prefix(f, "%s", source);
	}
	(void)secret_free(passphrase);
	return r;
}

/* A clone that was flattened by others has the magic of an image without a parent. */
static bool is_same_but_for_magic(const struct luks_info *was, const struct luks_info *is)
{
	return was->is_clone_magic && !is->is_clone_magic && strcmp(was->uuid, is->uuid) == 0;
}

/* The header's bytes are others; the key fits. Whether it may stay so. */
static void check_changed(struct key_check *k, const struct chain_layer *now, unsigned int i)
{
	struct loaded *was = &k->loaded[i];
	struct key_check_layer *l = &k->found[i];

	if (now->luks.data_offset != was->luks.data_offset ||
	    now->luks.sector_size != was->luks.sector_size) {
		set_changed(l, "the header was replaced: it has the same key, but another data "
			       "offset or sector size");
		return;
	}
	if (!k->is_accepting && !is_same_but_for_magic(&was->luks, &now->luks)) {
		set_changed(
			l,
			"the header has changed since it was loaded; it opens, with the same key");
		l->can_be_accepted = true;
		return;
	}
	was->luks = now->luks;
	set(l, KEY_OK, "");
}

static void check_key(struct key_check *k, struct chain *c, unsigned int i, const char *source,
		      bool is_same)
{
	struct key_check_layer *l = &k->found[i];
	struct secret *key = NULL;
	struct fault f = { 0 };
	int r = find_key(k, c, i, source, &key, &f);

	if (r < 0)
		set_fault(l, &f);
	else if (!secret_equal(key, xts_key(k->xts[i])))
		set_changed(l, "the header opens, but with another key than the data has: it was "
			       "replaced");
	else if (!is_same)
		check_changed(k, &c->layers[i], i);
	else
		set(l, KEY_OK, "");
	(void)secret_free(key);
}

/* Where the passphrase of layer i comes from; the caller frees it. */
static int resolve(const struct key_check *k, const struct chain *c, unsigned int i, char **ret,
		   struct fault *f)
{
	const struct key_place place = chain_place(&k->chain, c, i);

	return key_resolve(chain_source(&k->chain, i), &place, ret, f);
}

static void check_source(struct key_check *k, struct chain *c, unsigned int i, bool is_same)
{
	struct key_check_layer *l = &k->found[i];
	struct fault f = { 0 };
	char *source;
	enum key_repeat repeat;

	if (resolve(k, c, i, &source, &f) < 0) {
		set_fault(l, &f);
		return;
	}
	text_copy(l->source, sizeof(l->source), source);
	repeat = key_repeat(source);
	if (repeat == KEY_REPEATS)
		check_key(k, c, i, source, is_same);
	else if (!is_same)
		set_changed(l, "the header has changed since it was loaded, and its passphrase "
			       "cannot be read again");
	else
		set(l, KEY_ONCE_ONLY,
		    repeat == KEY_ASKS ? "it is typed; only whoever knows it can tell"
				       : "its source could be read only once");
	free(source);
}

static void check_layer(struct key_check *k, struct chain *c, unsigned int i)
{
	const struct loaded *was = &k->loaded[i];
	struct key_check_layer *l = &k->found[i];
	bool is_same;

	l->checked = (uint64_t)time(NULL);
	if (!was->is_encrypted) {
		set(l, KEY_NONE, "");
		return;
	}
	/* A flattened clone has no use for its parents any more. */
	if (i >= c->n) {
		set(l, KEY_NONE, "it is no layer of the image any more");
		return;
	}
	if (!c->layers[i].is_encrypted) {
		set_changed(l, "the header is gone");
		return;
	}
	is_same = memcmp(was->luks.digest, c->layers[i].luks.digest, sizeof(was->luks.digest)) == 0;
	if (!has_source(k, i)) {
		if (is_same)
			set(l, KEY_NONE, "it has the header of the layer below");
		else
			set_changed(l, "the header has changed since it was loaded");
		return;
	}
	check_source(k, c, i, is_same);
}

static void check(void *arg)
{
	struct key_check *k = arg;
	struct chain c = { 0 };
	struct fault f = { 0 };
	int r = chain_open(&k->chain, &c, &f);

	for (unsigned int i = 0; i < k->n; i++) {
		if (r == 0) {
			check_layer(k, &c, i);
		} else if (k->loaded[i].is_encrypted) {
			set_fault(&k->found[i], &f);
			k->found[i].checked = (uint64_t)time(NULL);
		}
	}
	chain_done(&c);
}

/* ---- on the volume's thread ---- */

static void on_ended(void *arg)
{
	struct key_check *k = arg;

	memcpy(k->layers, k->found, k->n * sizeof(*k->layers));
	k->o.done(k->o.arg);
}

int key_check_start(struct key_check *k, bool is_accepting)
{
	if (k->errand.is_running)
		return 0;
	k->is_accepting = is_accepting;
	memcpy(k->found, k->layers, k->n * sizeof(*k->found));
	return errand_start(&k->errand);
}

/* The chain was opened a moment ago: what its sources gave then is what is known. */
static void remember(struct key_check *k, const struct chain *c)
{
	struct fault f = { 0 };
	char *source;

	for (unsigned int i = 0; i < k->n; i++) {
		const struct chain_layer *from = &c->layers[i];
		struct key_check_layer *l = &k->layers[i];

		k->loaded[i].is_encrypted = from->is_encrypted;
		k->loaded[i].is_inherited = from->is_inherited;
		k->loaded[i].luks = from->luks;
		text_copy(k->loaded[i].spec, sizeof(k->loaded[i].spec),
			  layer_info(from->layer)->spec);
		if (!from->is_encrypted || !has_source(k, i))
			continue;
		/* It was there a moment ago; a source that is gone again is for the first check. */
		if (resolve(k, c, i, &source, &f) < 0)
			continue;
		text_copy(l->source, sizeof(l->source), source);
		l->health = key_repeat(source) == KEY_REPEATS ? KEY_OK : KEY_ONCE_ONLY;
		l->checked = (uint64_t)time(NULL);
		free(source);
	}
}

int key_check_new(const struct key_check_options *o, const struct chain *c, struct xts *const *xts,
		  struct key_check **ret)
{
	struct key_check *k = calloc(1, sizeof(*k));
	int r = -ENOMEM;

	if (!k)
		return r;
	k->o = *o;
	k->chain = *o->chain;
	/* The source itself is what is checked. */
	k->chain.passphrase_fds = NULL;
	k->interrupt = (struct interrupt){ is_stopping, k };
	chain_options_interrupt(&k->chain, &k->interrupt);
	k->xts = xts;
	k->n = c->n;
	k->errand.run = check;
	k->errand.ended = on_ended;
	k->errand.arg = k;
	k->errand.name = "keys";
	if (k->chain.spec->is_file) {
		k->path = strdup(k->chain.spec->image);
		r = k->path ? path_make_absolute(&k->path) : -ENOMEM;
		if (r < 0)
			goto fail;
		k->spec = *k->chain.spec;
		k->spec.image = k->path;
		k->chain.spec = &k->spec;
	} else {
		k->image = k->chain.known ? *k->chain.known : *layer_info(c->layers[0].layer);
		k->chain.known = &k->image;
	}
	r = -ENOMEM;
	k->loaded = calloc(c->n, sizeof(*k->loaded));
	k->layers = calloc(c->n, sizeof(*k->layers));
	k->found = calloc(c->n, sizeof(*k->found));
	if (k->loaded && k->layers && k->found)
		r = errand_init(&k->errand, o->loop);
	if (r < 0)
		goto fail;
	remember(k, c);
	*ret = k;
	return 0;
fail:
	(void)key_check_free(k);
	return r;
}

struct key_check *key_check_free(struct key_check *k)
{
	if (!k)
		return NULL;
	atomic_store(&k->is_stopping, true);
	errand_done(&k->errand);
	free(k->path);
	free(k->loaded);
	free(k->layers);
	free(k->found);
	free(k);
	return NULL;
}

const struct key_check_layer *key_check_layer(const struct key_check *k, unsigned int i)
{
	return &k->layers[i];
}

int key_check_result(const struct key_check *k, struct fault *f)
{
	for (unsigned int i = 0; i < k->n; i++) {
		if (k->layers[i].health != KEY_FAILED)
			continue;
		(void)fault_set(f, EXIT_SAFEGUARD, -EKEYREJECTED,
				"layer %u: %s might not open again: %s", i + 1, k->loaded[i].spec,
				k->layers[i].reason);
		if (k->layers[i].can_be_accepted)
			fault_hint(f,
				   "if you have changed its passphrases, that is why: rbdcrypt-nbd "
				   "check-keys --accept-header; else make a copy of the data "
				   "while it is in use. --force does not look");
		fault_hint(f, "while it is in use its data can be read: put the passphrase or the "
			      "header back, or copy the data to another image, before it is "
			      "unmapped; --force does not look");
		return -EKEYREJECTED;
	}
	return 0;
}
