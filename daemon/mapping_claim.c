/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Copyright (C) 2026 the rbdcrypt-nbd authors */

/*
 * The volume's state file: whether it may be had, what it says until the volume is up, and what is
 * left of it when the start fails or the volume ends. The volume's thread.
 */

#include "mapping_private.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "claim.h"
#include "describe.h"
#include "text.h"

/* Readers may be many; a writer is alone, unless the user says otherwise. */
static bool is_alone(const struct mapping *m)
{
	return !m->state.is_read_only && !m->o.options->is_new;
}

void mapping_note_request(struct mapping *m)
{
	if (m->o.request && !m->state.request)
		m->state.request = strdup(m->o.request);
	if (!mapping_has_device(m) && m->o.options->socket)
		text_copy(m->state.socket, sizeof(m->state.socket), m->o.options->socket);
}

int mapping_start_claim(struct mapping *m, struct fault *f)
{
	const struct options *o = m->o.options;
	char id[CLAIM_IDENTITY_LEN], key[640];
	int r = 0;

	describe_image(&m->chain_options, &m->chain, &m->state);
	m->state.is_hosted = m->o.is_hosted;
	if (m->o.resumed)
		mapping_note_request(m);
	m->state.io_timeout_s = o->io_timeout_s;
	m->state.reattach_timeout_s = mapping_has_device(m) ? o->reattach_timeout_s : -1;
	m->state.is_read_only = m->state.is_read_only || o->is_read_only;
	m->state.is_exclusive = o->is_exclusive && !m->state.is_read_only;
	m->state.is_trim_offered = !o->is_notrim && !m->state.is_read_only;
	claim_identity(&m->state, id, sizeof(id));
	text_copy(m->cookie, sizeof(m->cookie), o->cookie ? o->cookie : id);
	if (mapping_has_device(m))
		text_copy(m->state.cookie, sizeof(m->state.cookie), m->cookie);
	if (m->o.kind == MAPPING_ATTACH)
		m->state.device = m->index;
	m->state.block_size = o->block_size;
	if (m->o.resumed)
		text_copy(key, sizeof(key), m->o.resumed);
	else if (!is_alone(m))
		(void)snprintf(key, sizeof(key), "%s#%d.%u", id, (int)getpid(), m->o.serial);
	else
		(void)snprintf(key, sizeof(key), "%s", id);
	text_copy(m->state.key, sizeof(m->state.key), key);
	if (m->o.kind == MAPPING_ATTACH) {
		m->is_after_other = claim_is_left(m->o.run_dir, key);
		r = claim_check_attach(m->o.run_dir, &m->state, m->spec, f);
		/* The file stops saying so before anybody reads from them. */
		text_copy(m->handed_over, sizeof(m->handed_over), m->state.handed_over);
		m->state.handed_over[0] = '\0';
	} else {
		if (m->o.resumed)
			r = claim_check_socket(m->o.run_dir, &m->state, f);
		if (r == 0 && !o->is_new)
			r = claim_check_start(m->o.run_dir, &m->state, m->spec, f);
	}
	/* Ours says so too until it is done, should we die before. */
	if (r == 0)
		m->is_after_dead = claim_dead_client(m->o.run_dir, &m->state);
	if (r == 0)
		r = state_claim(m->o.run_dir, key, &m->state, &m->state_file, f);
	if (r == 0)
		claim_tidy(m->o.run_dir);
	if (r == -EBUSY && m->o.kind != MAPPING_ATTACH)
		fault_hint(f, "unmap it first, or map it with --read-only");
	return r;
}

void mapping_stop_claim(struct mapping *m)
{
	bool is_kept = m->state.status == VOLUME_DETACHED;
	bool is_awaited = m->o.resumed ||
			  (m->o.kind == MAPPING_ATTACH && is_alone(m) && m->is_after_other);
	/* Others that are to be shut out have files of their own. */
	bool is_after_dead = m->is_after_dead && m->state.dead_client[0];

	/*
	 * A start that failed took over what said that somebody waits, or whom the next one has to
	 * shut out, and gives it back.
	 */
	if (m->state_file && (is_awaited || (is_after_dead && is_alone(m))) &&
	    m->state.status == VOLUME_STARTING) {
		/* Without its lock that says: dead, and not to be trusted yet. */
		m->state.status = is_after_dead ? VOLUME_MAPPED : VOLUME_DETACHED;
		text_copy(m->state.handed_over, sizeof(m->state.handed_over), m->handed_over);
		(void)state_update(m->state_file, &m->state);
		is_kept = true;
	}
	m->state_file = state_release(m->state_file, !is_kept);
	volume_state_done(&m->state);
}
