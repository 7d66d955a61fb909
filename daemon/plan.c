/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Copyright (C) 2026 the rbdcrypt-nbd authors */

/*
 * A chain on paper: its layers, the passphrases that it needs, what stands in the way. Called by
 * dry_run.c, on the command's thread. Opens and tries nothing: that was the survey.
 */

#include "plan.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "output.h"

void plan_done(struct plan *p)
{
	free(p->refusals);
	p->refusals = NULL;
	p->n_refusals = 0;
}

int plan_refuse(struct plan *p, const struct fault *f)
{
	struct fault *more = reallocarray(p->refusals, p->n_refusals + 1, sizeof(*more));

	if (!more)
		return -ENOMEM;
	p->refusals = more;
	more[p->n_refusals++] = *f;
	return 0;
}

static uint64_t size_of(const struct plan *p, unsigned int i)
{
	const struct chain_layer *l = &p->chain->layers[i];
	uint64_t raw = layer_info(l->layer)->raw_size;
	uint64_t header = l->is_encrypted && !p->is_raw ? l->luks.data_offset : 0;

	return raw > header ? raw - header : 0;
}

/* What of its parent it shows: Reef's rule. (spec: librbd-encryption 4.2) */
static uint64_t overlap_of(const struct plan *p, unsigned int i)
{
	const struct chain_layer *l = &p->chain->layers[i];
	uint64_t raw = layer_info(l->layer)->raw_overlap, above;
	uint64_t header = l->is_encrypted && !p->is_raw ? l->luks.data_offset : 0;

	if (i + 1 >= p->chain->n)
		return 0;
	above = size_of(p, i + 1);
	raw = raw > header ? raw - header : 0;
	return raw < above ? raw : above;
}

void plan_judge(struct plan *p)
{
	const struct chain *c = p->chain;

	p->size = c->n > 0 ? size_of(p, 0) : 0;
	if (c->n > 0 && layer_info(c->layers[0].layer)->is_file)
		p->store = "file";
	else
		p->store = chain_needs_rados(p->chain_options, c, p->is_read_only) ? "rados"
										   : "librbd";
	p->n_passphrases = 0;
	/* The last one that is given goes on for those above: they need none of their own. */
	for (unsigned int i = 0; i < c->n && (c->layers[i].header || c->layers[i].is_damaged); i++)
		if (i == 0 || !c->layers[i - 1].is_inherited)
			p->n_passphrases = i + 1;
}

/* ---- words ---- */

static const char *format_of(const struct chain_layer *l)
{
	if (l->is_damaged)
		return "damaged";
	if (!l->is_encrypted)
		return "plaintext";
	return l->luks.version == 1 ? "luks1" : "luks2";
}

/* The file that the i-th layer would be tried with, by the rules. */
static const char *file_given(const struct plan *p, unsigned int i)
{
	const struct option_list *files = p->chain_options->passphrase_files;

	if (files->n == 0 || (!p->chain->layers[i].header && !p->chain->layers[i].is_damaged))
		return NULL;
	return files->items[i < files->n ? i : files->n - 1];
}

static const char *state_of(const struct plan *p, unsigned int i)
{
	const struct chain_layer *l = &p->chain->layers[i];

	if (!l->header)
		return l->is_damaged ? "unknown" : "no key needed";
	if (!p->is_key_tested)
		return "not tried";
	if (!l->file)
		return "none of the files opens it";
	return file_given(p, i) && strcmp(file_given(p, i), l->file) == 0 ? "opened"
									  : "another file opens it";
}

static const char *verdict_of(const struct plan *p)
{
	if (p->n_refusals > 0)
		return "refused";
	return p->is_key_tested || p->is_raw ? "would work" : "nothing stands in the way";
}

/* ---- for people ---- */

static void put_layer(FILE *out, const struct plan *p, unsigned int i)
{
	const struct chain_layer *l = &p->chain->layers[i];
	const struct layer_info *info = layer_info(l->layer);

	fprintf(out, "  %u ", i + 1);
	output_text(out, info->spec);
	fprintf(out, "\n    %s", format_of(l));
	if (l->is_inherited)
		fprintf(out, ", inherited from layer %u", i + 2);
	if (l->is_encrypted)
		fprintf(out, ", %u-bit key, %u-byte sectors, data at %" PRIu64,
			l->luks.key_bytes * 8, l->luks.sector_size, l->luks.data_offset);
	if (l->luks.is_clone_magic)
		fprintf(out, ", formatted as a clone");
	if (l->is_encrypted && p->is_raw)
		fprintf(out, ", served raw");
	fprintf(out, "\n    size %" PRIu64 ", raw %" PRIu64, size_of(p, i), info->raw_size);
	if (i + 1 < p->chain->n)
		fprintf(out, ", sees %" PRIu64 " of its parent", overlap_of(p, i));
	fputc('\n', out);
}

static void put_passphrase(FILE *out, const struct plan *p, unsigned int i)
{
	const struct chain_layer *l = &p->chain->layers[i];
	const char *file = file_given(p, i);

	fprintf(out, "  %u ", i + 1);
	output_text(out, layer_info(l->layer)->spec);
	fprintf(out, ": ");
	output_text(out, file ? file : "no file given");
	if (i >= p->chain_options->passphrase_files->n && file)
		fprintf(out, " (the last one goes on)");
	fprintf(out, ", %s", state_of(p, i));
	if (p->is_key_tested && l->file && file && strcmp(l->file, file) != 0) {
		fprintf(out, ": ");
		output_text(out, l->file);
	}
	fputc('\n', out);
}

void plan_print(FILE *out, const struct plan *p)
{
	fprintf(out, "layers: %u\n", p->chain->n);
	for (unsigned int i = 0; i < p->chain->n; i++)
		put_layer(out, p, i);
	fprintf(out, "passphrases: %u\n", p->n_passphrases);
	for (unsigned int i = 0; i < p->chain->n; i++)
		if (p->chain->layers[i].header || p->chain->layers[i].is_damaged)
			put_passphrase(out, p, i);
	if (p->chain->n > 0)
		fprintf(out, "store: %s, %s, %" PRIu64 " bytes\n", p->store,
			p->is_read_only ? "read-only" : "read and write", p->size);
	for (unsigned int i = 0; i < p->n_refusals; i++) {
		fprintf(out, "refused (%d): ", p->refusals[i].status);
		output_text(out, p->refusals[i].message);
		fputc('\n', out);
		if (p->refusals[i].hint[0]) {
			fprintf(out, "  hint: ");
			output_text(out, p->refusals[i].hint);
			fputc('\n', out);
		}
	}
	fprintf(out, "verdict: %s\n", verdict_of(p));
}

/* ---- for programs ---- */

/* Takes value; NULL, for want of memory, is remembered in *is_short. */
static void add(struct json_object *o, const char *key, struct json_object *value, bool *is_short)
{
	if (value && o && json_object_object_add(o, key, value) == 0)
		return;
	json_object_put(value);
	*is_short = true;
}

static struct json_object *append(struct json_object *array, bool *is_short)
{
	struct json_object *o = json_object_new_object();

	if (o && array && json_object_array_add(array, o) == 0)
		return o;
	json_object_put(o);
	*is_short = true;
	return NULL;
}

static struct json_object *text(const char *s)
{
	return json_object_new_string(s ? s : "");
}

static void add_layer(struct json_object *array, const struct plan *p, unsigned int i,
		      bool *is_short)
{
	const struct chain_layer *l = &p->chain->layers[i];
	const struct layer_info *info = layer_info(l->layer);
	struct json_object *o = append(array, is_short);

	add(o, "layer", json_object_new_uint64(i + 1), is_short);
	add(o, "spec", text(info->spec), is_short);
	add(o, "format", text(format_of(l)), is_short);
	add(o, "inherited", json_object_new_boolean(l->is_inherited), is_short);
	add(o, "clone_magic", json_object_new_boolean(l->luks.is_clone_magic), is_short);
	add(o, "uuid", text(l->luks.uuid), is_short);
	add(o, "key_bits", json_object_new_uint64(l->luks.key_bytes * 8), is_short);
	add(o, "sector_size", json_object_new_uint64(l->luks.sector_size), is_short);
	add(o, "data_offset", json_object_new_uint64(l->luks.data_offset), is_short);
	add(o, "raw_size", json_object_new_uint64(info->raw_size), is_short);
	add(o, "size", json_object_new_uint64(size_of(p, i)), is_short);
	add(o, "raw_overlap", json_object_new_uint64(info->raw_overlap), is_short);
	add(o, "overlap", json_object_new_uint64(overlap_of(p, i)), is_short);
	add(o, "passphrase_file", text(file_given(p, i)), is_short);
	add(o, "opened_by", text(l->file), is_short);
}

static void add_refusal(struct json_object *array, const struct fault *f, bool *is_short)
{
	struct json_object *o = append(array, is_short);

	add(o, "status", json_object_new_int(f->status), is_short);
	add(o, "message", text(f->message), is_short);
	add(o, "hint", text(f->hint), is_short);
}

struct json_object *plan_to_json(const struct plan *p)
{
	struct json_object *o = json_object_new_object(), *layers = json_object_new_array(),
			   *refusals = json_object_new_array();
	bool is_short = !o;

	for (unsigned int i = 0; i < p->chain->n; i++)
		add_layer(layers, p, i, &is_short);
	for (unsigned int i = 0; i < p->n_refusals; i++)
		add_refusal(refusals, &p->refusals[i], &is_short);
	add(o, "layers", layers, &is_short);
	add(o, "passphrases", json_object_new_uint64(p->n_passphrases), &is_short);
	add(o, "keys_tested", json_object_new_boolean(p->is_key_tested), &is_short);
	add(o, "store", text(p->store), &is_short);
	add(o, "read_only", json_object_new_boolean(p->is_read_only), &is_short);
	add(o, "size", json_object_new_uint64(p->size), &is_short);
	add(o, "refusals", refusals, &is_short);
	add(o, "verdict", text(verdict_of(p)), &is_short);
	if (!is_short)
		return o;
	json_object_put(o);
	return NULL;
}
