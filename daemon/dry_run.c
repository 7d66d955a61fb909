/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Copyright (C) 2026 the rbdcrypt-nbd authors */

/*
 * The start list of a volume (mapping.c) up to its store, as a survey: with the same functions, so
 * that it says what a start would say, but not ending at the first refusal. Main thread of a
 * command; owns its connection and the chain.
 */

#include "dry_run.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "claim.h"
#include "describe.h"
#include "key.h"
#include "output.h"
#include "log.h"
#include "plan.h"
#include "process.h"
#include "secret.h"
#include "setup.h"
#include "state.h"
#include "text.h"

struct dry_run {
	struct options *options;
	struct chain_options chain_options;
	struct chain chain;
	struct plan plan;
	struct setup_sources sources;
	char cookie[512], fsid[40]; /* for sources that name them */
	char run_dir[4096], turnstile[4200];
	bool is_short; /* of memory for what was noted */
};

static void on_refusal(void *arg, const struct fault *f)
{
	struct dry_run *d = arg;

	if (plan_refuse(&d->plan, f) < 0)
		d->is_short = true;
}

/* What a step refused is noted, and the next step is tried. */
static void note(struct dry_run *d, int r, struct fault *f)
{
	if (r >= 0)
		return;
	on_refusal(d, f);
	fault_clear(f);
}

/* What can be said of the sources without asking anybody for a passphrase. */
static void check_sources(struct dry_run *d, struct fault *f)
{
	const struct option_list *list = &d->sources.list;

	for (unsigned int i = 0; i < d->chain.n && i < list->n; i++) {
		const struct key_place place = chain_place(&d->chain_options, &d->chain, i);
		const struct key_options how = chain_key_options(&d->chain_options, i);
		char *resolved = NULL;
		int r = key_resolve(list->items[i], &place, &resolved, f);

		if (r == 0)
			r = key_check(resolved, &how, f);
		free(resolved);
		note(d, r, f);
	}
}

/* Who has the image, as state_claim() would find. */
static int check_taken(struct dry_run *d, const struct volume_state *mine, const char *spec,
		       struct fault *f)
{
	struct state_list l;
	char id[CLAIM_IDENTITY_LEN];
	int r = state_list(d->run_dir, &l, f);

	if (r < 0)
		return r;
	claim_identity(mine, id, sizeof(id));
	for (unsigned int i = 0; r == 0 && i < l.n; i++) {
		const struct volume_state *v = &l.volumes[i];

		if (!volume_is_alive(v) || strcmp(v->key, id) != 0)
			continue;
		if (v->device >= 0)
			r = fault_set(f, EXIT_BUSY, -EBUSY, "%s is already mapped to /dev/nbd%d",
				      spec, v->device);
		else
			r = fault_set(f, EXIT_BUSY, -EBUSY, "%s is already served, on %s", spec,
				      v->socket[0] ? v->socket : "a socket that was passed");
		fault_hint(f, "unmap it first, or map it with --read-only");
	}
	state_list_done(&l);
	return r;
}

static void check_claim(struct dry_run *d, struct fault *f)
{
	struct volume_state state;
	char spec[512];

	describe_image(&d->chain_options, &d->chain, &state);
	state.is_read_only = d->plan.is_read_only;
	text_copy(d->fsid, sizeof(d->fsid), state.fsid);
	if (d->options->cookie)
		text_copy(d->cookie, sizeof(d->cookie), d->options->cookie);
	else
		claim_identity(&state, d->cookie, sizeof(d->cookie));
	image_spec_format(&d->options->spec, spec, sizeof(spec));
	if (!d->options->is_new)
		note(d, claim_check_start(d->run_dir, &state, spec, f), f);
	if (!d->options->is_new && !d->plan.is_read_only)
		note(d, check_taken(d, &state, spec, f), f);
	volume_state_done(&state);
}

/* Whether there are those who are to be let in. */
static void check_access(struct dry_run *d, struct fault *f)
{
	struct unix_socket_access access;
	struct peers *peers = NULL;

	note(d, setup_access(d->options, &peers, &access, f), f);
	(void)peers_free(peers);
}

static void survey(struct dry_run *d, struct fault *f)
{
	const struct chain_options *o = &d->chain_options;
	struct plan *p = &d->plan;

	check_access(d, f);
	note(d, setup_open(&d->sources, o, &d->chain, f), f);
	p->is_raw = d->sources.list.n == 0;
	p->is_key_tested = d->options->is_key_tested && !p->is_raw;
	if (d->chain.n == 0)
		return;
	p->is_read_only = d->options->is_read_only ||
			  layer_info(d->chain.layers[0].layer)->snap_id != UINT64_MAX;
	note(d, chain_check_raw(o, &d->chain, p->is_read_only, f), f);
	check_claim(d, f);
	if (p->is_key_tested)
		note(d, chain_unlock(o, &d->chain, f), f);
	else
		check_sources(d, f);
	note(d, chain_check_store(o, &d->chain, p->is_read_only, f), f);
	plan_judge(p);
	if (p->size == 0)
		note(d,
		     fault_set(f, EXIT_NOT_FOUND, -ENODATA, "%s has no room for data",
			       layer_info(d->chain.layers[0].layer)->spec),
		     f);
}

static int print(const struct dry_run *d, struct fault *f)
{
	const struct options *o = d->options;
	struct json_object *object;
	int r = 0;

	if (o->format == OUTPUT_PLAIN) {
		plan_print(stdout, &d->plan);
	} else {
		object = plan_to_json(&d->plan);
		r = object ? output_object(stdout, "plan", object, o->format, o->is_pretty)
			   : -ENOMEM;
		json_object_put(object);
	}
	return output_finish(r, f);
}

static int result(const struct dry_run *d, struct fault *f)
{
	int r = print(d, f);

	if (r < 0)
		return r;
	if (d->is_short)
		return fault_set(f, EXIT_MEMORY, -ENOMEM, "no memory for what would be refused");
	if (d->plan.n_refusals == 0)
		return 0;
	*f = d->plan.refusals[0];
	return f->error;
}

int dry_run(struct options *o, struct fault *f)
{
	struct dry_run d = { .options = o };
	struct process_hold hold;
	struct clusters *clusters = NULL;
	struct cluster *cluster = NULL;
	int r = image_spec_parse(o->operand, &o->spec, f);

	if (r == 0)
		r = state_run_dir(o->run_dir, d.run_dir, sizeof(d.run_dir), f);
	if (r < 0)
		return r;
	log_set_level(o->is_debug ? LOG_LEVEL_DEBUG : (enum log_level)o->log_level);
	r = secret_protect_process();
	if (r == 0)
		r = clusters_new(&clusters);
	if (r < 0)
		return fault_set(f, EXIT_MEMORY, r, "cannot keep secrets out of core dumps: %s",
				 strerror(-r));
	r = setup_cluster(o, clusters, /* i */ NULL, &cluster, f);
	if (r == 0) {
		/* The run directory may not be there yet, and unlocking needs no turn then. */
		(void)snprintf(d.turnstile, sizeof(d.turnstile), "%s/unlock.lock", d.run_dir);
		setup_chain(o, cluster, &o->spec, d.turnstile, &d.sources, &d.chain_options);
		d.chain_options.cookie = d.cookie;
		d.chain_options.fsid = d.fsid;
		d.chain_options.note = on_refusal;
		d.chain_options.note_arg = &d;
		d.plan.chain_options = &d.chain_options;
		d.plan.chain = &d.chain;
		d.plan.is_read_only = o->is_read_only;
		process_hold(&hold);
		chain_options_interrupt(&d.chain_options, &hold.interrupt);
		survey(&d, f);
		process_release(&hold);
		r = result(&d, f);
	}
	chain_done(&d.chain);
	plan_done(&d.plan);
	cluster = clusters_put(clusters, cluster);
	clusters = clusters_free(clusters);
	return r;
}
