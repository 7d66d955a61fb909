/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Copyright (C) 2026 the rbdcrypt-nbd authors */

#ifndef DAEMON_GUARD_H
#define DAEMON_GUARD_H

#include "chain.h"
#include "loop.h"
#include "state.h"
#include "xts.h"

/*
 * Watches over the keys of a volume that is in use: checks them now and then (key_check.h), writes
 * what it finds into the volume's state, and logs what changes. The volume's thread only.
 */
struct guard;

struct guard_options {
	struct loop *loop;
	const char *run_dir;
	const char *spec; /* for the log; outlives the guard, as all below */
	const struct chain_options *chain_options;
	struct xts *const *xts; /* of the volume; NULL: nothing is encrypted */
	struct volume_state *state; /* its layers' keys are written */
	int interval_s; /* between checks; 0: none by itself */
	/* The state has changed. */
	void (*changed)(void *arg);
	/* Somebody wants to see the state as it is now; guard_looked() must follow. */
	void (*look)(void *arg);
	void *arg; /* of both */
};

/* c: the chain as it was opened; not kept. EXIT_MEMORY, with -errno. */
int guard_start(const struct guard_options *o, const struct chain *c, struct guard **ret,
		struct fault *f);
/* Waits for a check under way. NULL is fine. Returns NULL. */
struct guard *guard_stop(struct guard *g);

/* The state is as it is now: whoever waits for that is told. */
void guard_looked(struct guard *g);

/* The first layer that could not be opened again, in words; "" while all is well. */
const char *guard_health(const struct guard *g);

#endif
