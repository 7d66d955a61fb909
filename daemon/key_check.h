/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Copyright (C) 2026 the rbdcrypt-nbd authors */

#ifndef DAEMON_KEY_CHECK_H
#define DAEMON_KEY_CHECK_H

#include <stdbool.h>

#include "chain.h"
#include "fault.h"
#include "loop.h"
#include "state.h"
#include "xts.h"

/*
 * Whether a volume that is in use could be opened again: the passphrase of each layer is still
 * where it came from, still opens the layer's header, and gives the key that the volume works with.
 * While the volume is in use its data can be saved whatever is lost; afterwards it cannot. Calls:
 * the volume's thread. The work is done on a thread of its own, since deriving keys takes seconds.
 */
struct key_check;

struct key_check_options {
	/* As the volume was opened; everything in it outlives the check. */
	const struct chain_options *chain;
	struct loop *loop;
	/* One check has ended; key_check_result() has it. On the loop's thread. */
	void (*done)(void *arg);
	void *arg;
};

/*
 * c: the chain as it was opened; its headers are remembered and its keys (c->xts) used until the
 * end, by reference. 0 or -errno.
 */
int key_check_new(const struct key_check_options *o, const struct chain *c, struct xts *const *xts,
		  struct key_check **ret);
/* Waits for a check that is under way. NULL is fine. Returns NULL. */
struct key_check *key_check_free(struct key_check *k);

/*
 * Begins one, unless one is under way already; done follows either way. is_accepting: a header that
 * was changed and still opens with the same key is the one to expect from now on. 0 or -errno.
 */
int key_check_start(struct key_check *k, bool is_accepting);

enum key_health {
	KEY_NONE, /* the layer needs none of its own */
	KEY_OK, /* the source gave it, when it was asked last */
	KEY_ONCE_ONLY, /* it opened the layer; the source cannot be asked again */
	KEY_FAILED, /* the layer could not be opened again */
};
/* "none", "ok", "once", "failed" */
const char *key_health_name(enum key_health h);

/* What is known of a layer; layers that the chain had when it was opened. */
struct key_check_layer {
	enum key_health health;
	char source[256]; /* as far as it fits */
	char reason[256]; /* why it is not KEY_OK; or "" */
	uint64_t checked; /* seconds since 1970 */
	bool is_header; /* it failed because its header is another, or gone */
	bool can_be_accepted; /* only the header is another, and still good */
};
const struct key_check_layer *key_check_layer(const struct key_check *k, unsigned int i);

/* EXIT_SAFEGUARD with the first layer that failed, and how to save the data; or 0. */
int key_check_result(const struct key_check *k, struct fault *f);

#endif
