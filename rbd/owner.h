/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Copyright (C) 2026 the rbdcrypt-nbd authors */

#ifndef RBD_OWNER_H
#define RBD_OWNER_H

#include <stdbool.h>
#include <stdint.h>

#include "cluster.h"
#include "facts.h"
#include "gate.h"
#include "store.h"

/*
 * The right to write an image: its watch and its exclusive lock, held from map to unmap as the
 * kernel's client does, and given away only for maintenance that cannot go wrong, or never. The
 * gate is open exactly while we have that right and know the image as it is. (spec: rados-engine
 * 3, 5, 6)
 */
struct owner;

struct owner_ops {
	/*
	 * The lock is ours, f is what the image now is, and nobody is inside the gate: plan for it.
	 * cookie is that of the lock. 0, or -errno and in why what happened and what to do: then
	 * nothing is written any more.
	 */
	int (*take)(void *arg, const struct image_facts *f, const char *cookie,
		    const struct patience *p, char *why, size_t len);
	/* Nobody is inside the gate, and the lock is about to be given back. */
	void (*give)(void *arg, const struct patience *p);
	/* State or size may have changed. Must only signal. */
	void (*changed)(void *arg);
	void *arg;
};

struct owner_options {
	struct cluster *cluster;
	struct gate *gate; /* outlives the owner */
	const char *spec; /* for messages */
	const char *pool, *image; /* their names, for messages */
	const char *image_id;
	int64_t pool_id; /* of the metadata */
	const char *nspace;
	bool is_guarded; /* hand the lock over for maintenance that others ask for */
	bool is_layered; /* flatten and shrinking by others would do harm */
	bool has_lock; /* the image has the feature; else only watch, and drain for changes */
	unsigned int timeout_s; /* for starting, and for each call of stopping; 0: for ever */
	struct owner_ops ops;
};

/*
 * Watches, takes the lock from a dead owner or one who lets go, calls take, opens the gate.
 * Blocking. EXIT_LOCKED when another keeps the lock. The thread that carries on is the owner's.
 */
int owner_start(const struct owner_options *o, struct owner **ret, struct fault *f);
/* Nothing may be inside the gate, or come to it. Gives back lock and watch. Returns NULL. */
struct owner *owner_stop(struct owner *o);

/* An operation of ours came back with -EBLOCKLISTED: another was put in our place. Any thread. */
void owner_is_fenced(struct owner *o);

/* "owner", "none" (not now), "lost", "-" (no such feature). Any thread. */
const char *owner_lock_state(struct owner *o);
/* The same with who has it, asked of the cluster if it is not we. Any thread that may wait. */
void owner_lock(struct owner *o, struct store_lock *ret);
/* What is wrong, empty while all is well. Any thread. */
void owner_health(struct owner *o, char *buf, size_t len);

#endif
