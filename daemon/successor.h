/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Copyright (C) 2026 the rbdcrypt-nbd authors */

#ifndef DAEMON_SUCCESSOR_H
#define DAEMON_SUCCESSOR_H

#include "host.h"
#include "loop.h"

/*
 * The volumes that an earlier daemon of this host left, on purpose or not, and that this one goes
 * on with. Control thread only.
 */
struct successor;

struct successor_options {
	struct loop *loop;
	struct host *host;
	const char *run_dir; /* outlives it */
	struct handover *handover; /* outlives it; or NULL */
};

/* 0 or -errno. */
int successor_new(const struct successor_options *o, struct successor **ret);
struct successor *successor_free(struct successor *r);

/* Starts what is left and not under way; at once also what has failed before. */
void successor_try(struct successor *r);

/* For struct host_options; of any volume. */
void successor_ended(struct successor *r, const struct host_volume *v);

#endif
