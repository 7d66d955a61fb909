/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Copyright (C) 2026 the rbdcrypt-nbd authors */

#ifndef DAEMON_PLAN_H
#define DAEMON_PLAN_H

#include <json-c/json.h>
#include <stdio.h>

#include "chain.h"

/*
 * What a map or serve would do, and all that would be refused: for --dry-run. One thread.
 */
struct plan {
	const struct chain_options *chain_options;
	const struct chain *chain; /* a survey; may have no layer */
	bool is_key_tested; /* the passphrases were tried */
	bool is_read_only;
	bool is_raw; /* no passphrase was given */
	uint64_t size; /* bytes of the device, before it is cut to whole blocks; 0: none */
	/* How many passphrases the chain needs if its keys have different ones; the last goes on.
	 */
	unsigned int n_passphrases;
	const char *store; /* "librbd", "rados" or "file" */
	struct fault *refusals; /* in the order in which a start would meet them; owned */
	unsigned int n_refusals;
};

/* The first passphrases that are needed, the sizes and the store. Pure. */
void plan_judge(struct plan *p);
/* Adds a refusal. 0 or -ENOMEM. */
int plan_refuse(struct plan *p, const struct fault *f);
void plan_done(struct plan *p);

/* For people. */
void plan_print(FILE *out, const struct plan *p);
/* The same as an object, the caller's; NULL without memory. */
struct json_object *plan_to_json(const struct plan *p);

#endif
