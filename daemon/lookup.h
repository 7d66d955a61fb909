/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Copyright (C) 2026 the rbdcrypt-nbd authors */

#ifndef DAEMON_LOOKUP_H
#define DAEMON_LOOKUP_H

#include "fault.h"
#include "options.h"
#include "state.h"

/* The volumes that a command is about. Main thread of a command. */
struct lookup {
	char run_dir[4096];
	struct state_list list; /* owned */
	/* What lookup_operand() found: v[0] to v[n - 1], in list. */
	const struct volume_state *v;
	unsigned int n;
	bool is_one; /* the user named it */
};

/*
 * state_find(), where those that are gone are only meant as long as the name fits nothing else: if
 * it fits several volumes, they go from l.
 */
int lookup_name(struct state_list *l, const char *name, const struct volume_state **ret,
		struct fault *f);

/*
 * The run directory and all volumes in it; v and n are all of them. On success lookup_done() must
 * follow. Errors of state_run_dir() and state_list().
 */
int lookup_open(const struct options *o, struct lookup *ret, struct fault *f);

/*
 * The same without volumes that are gone, and v and n only the one that the operand names, if
 * there is an operand. Errors also of operand_name() and state_find(); lookup_done() must not
 * follow them.
 */
int lookup_operand(struct options *o, struct lookup *ret, struct fault *f);

/*
 * What l has found as it is now, read again; l stays as it is. One that the user named and that is
 * gone is none. As lookup_open().
 */
int lookup_again(const struct lookup *l, struct lookup *ret, struct fault *f);

void lookup_done(struct lookup *l);

#endif
