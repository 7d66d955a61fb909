/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Copyright (C) 2026 the rbdcrypt-nbd authors */

#ifndef DAEMON_MAPPING_H
#define DAEMON_MAPPING_H

#include <stdbool.h>

#include "calibration.h"
#include "fault.h"
#include "handover.h"
#include "image.h"
#include "interrupt.h"
#include "loop.h"
#include "options.h"
#include "pool.h"
#include "state.h"

/*
 * One volume in service, from its image to its device or socket: the start list and the stop list.
 * One thread only, that of the loop.
 */
struct mapping;

/* What becomes of a device in the kernel. */
enum mapping_end {
	MAPPING_LEAVE, /* it stays, if possible with its sockets, for the daemon's successor */
	MAPPING_DETACH, /* it stays, for attach only */
	MAPPING_DISCONNECT, /* it goes */
};

enum mapping_kind { MAPPING_MAP, MAPPING_ATTACH, MAPPING_SERVE };

struct mapping_options {
	enum mapping_kind kind;
	const struct options *options; /* outlives the mapping */
	struct image_spec *spec; /* the pool filled in; outlives the mapping */
	struct cluster *cluster; /* connected; NULL for a file */
	const char *run_dir; /* outlives the mapping */
	struct loop *loop;
	struct pool *pool;
	struct calibration *calibration;
	unsigned int serial; /* unlike that of any other mapping of this process */
	bool is_hosted; /* by the host's daemon */
	const char *request; /* for the state file, see there; NULL: none */
	/* The key of what a predecessor left, or NULL; a start that fails leaves it again. */
	const char *resumed;
	int listen_fd; /* SERVE: a socket that was passed, or -1 */
	struct handover *handover; /* outlives the mapping; or NULL */
	/* Of the start, when the user wants it to end; outlives the mapping. */
	const struct interrupt *interrupt;
	/* The device was unmapped, or the single client left: nothing is left to do but
	 * mapping_stop(). */
	void (*gone)(void *arg);
	void *arg;
};

/* Blocking, seconds. On failure everything that was begun has been undone. */
int mapping_start(const struct mapping_options *o, struct mapping **ret, struct fault *f);

/* As it is now; valid until the next call into the mapping. */
const struct volume_state *mapping_state(const struct mapping *m);

/*
 * Finishes what is in flight, then ends. A device that is still connected and stays is remembered
 * as detached. NULL is fine. Returns NULL.
 */
struct mapping *mapping_stop(struct mapping *m, enum mapping_end end);

#endif
