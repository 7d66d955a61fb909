/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Copyright (C) 2026 the rbdcrypt-nbd authors */

#ifndef DAEMON_MAPPING_PRIVATE_H
#define DAEMON_MAPPING_PRIVATE_H

#include "chain.h"
#include "device.h"
#include "errand.h"
#include "guard.h"
#include "listener.h"
#include "mapping.h"
#include "setup.h"
#include "volume.h"

struct mapping {
	struct mapping_options o;
	char spec[512];
	char cookie[512];
	char turnstile[4200];
	int index; /* of the device to use, or -1 */
	struct chain_options chain_options;
	struct layer_info known; /* which image a predecessor served; if chain_options say so */
	struct setup_sources sources;
	struct chain chain; /* until started */
	struct state *state_file;
	struct volume_state state;
	struct store *store; /* until the volume has it */
	struct volume *volume;
	struct device *device;
	struct listener *listener;
	struct peers *peers; /* who may connect to it, or NULL */
	struct unix_socket_access access; /* of its file */
	struct guard *guard;
	char resize_problem[128]; /* "" or what the kernel did not take */
	struct errand lock; /* asks who has the image's lock, for */
	struct store_lock lock_found;
	bool is_lock_asked_again;
	struct watch changed, again; /* the image changed; it is time to look once more */
	bool is_after_dead; /* the state file was that of an owner that died */
	bool is_after_other; /* ATTACH: there was a state file of its key */
	char handed_over[HANDOVER_NOTE_BYTES]; /* to us, and not taken yet; or "" */
	bool is_gone; /* the device was unmapped, the client left */
	bool is_started; /* to the end */
	enum mapping_end end; /* DISCONNECT unless mapping_stop() said otherwise */
};

static inline bool mapping_has_device(const struct mapping *m)
{
	return m->o.kind != MAPPING_SERVE;
}

/* mapping_claim.c */
int mapping_start_claim(struct mapping *m, struct fault *f);
void mapping_stop_claim(struct mapping *m);
/* From when somebody counts on it; a successor asks itself the same. */
void mapping_note_request(struct mapping *m);

/* mapping_blocks.c */
/* Of the volume, and its size with it. EXIT_TIMED_OUT, and no volume: nothing answers. */
int mapping_choose_blocks(struct mapping *m, struct fault *f);

/* mapping_lock.c */
int mapping_start_lock(struct mapping *m, struct fault *f);
void mapping_stop_lock(struct mapping *m);
/* Asks again; the answer is published, and guard_looked() told. arg is the mapping. */
void mapping_look_at_lock(void *arg);

/* mapping_watch.c */
int mapping_start_watch(struct mapping *m, struct fault *f);
void mapping_stop_watch(struct mapping *m);
/* Writes the state file anew. arg is the struct mapping, so that it can be told to others. */
void mapping_publish(void *arg);

#endif
