/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Copyright (C) 2026 the rbdcrypt-nbd authors */

#ifndef DAEMON_CHAIN_H
#define DAEMON_CHAIN_H

#include <stdbool.h>

#include "fault.h"
#include "image.h"
#include "key.h"
#include "luks.h"
#include "options.h"
#include "xts.h"

/*
 * The layers of an image, child first, and how each is read: which header, which key, or plaintext.
 * The place where passphrases meet headers; everything after it deals in keys only.
 */
struct chain_layer {
	struct layer *layer; /* open, read-only */
	bool is_encrypted;
	bool is_inherited; /* reads its header through from a parent */
	struct luks_info luks; /* if encrypted */
	struct luks_header *header; /* NULL: plaintext, or damaged */
	bool is_damaged; /* in a survey: it has a header that cannot be used */
	int keyslot;
	char *file; /* the source of the passphrase that opened it; owned; NULL: none */
};

struct chain {
	struct chain_layer *layers;
	unsigned int n; /* without passphrases: 1, the image itself */
	struct xts **
		xts; /* n of them, NULL for plaintext; whole array NULL when nothing is encrypted */
	bool has_raw_header; /* served raw although it carries a LUKS header */
	bool is_raw_clone; /* and that is one of a formatted clone, with its parent below */
};

struct chain_options {
	struct cluster *cluster; /* NULL for a file */
	const struct image_spec *spec; /* complete */
	/* Once it was open: which image that is, whatever it is called by now, and what it was
	 * called then. NULL: spec says. */
	const struct layer_info *known;
	const struct option_list *passphrase_files,
		*formats; /* child first; formats may be empty */
	enum newline_policy newline;
	const int *passphrase_fds; /* to read each from instead, -1: none; NULL: none at all */
	struct key_options keys; /* how the passphrase files are read, but for which part: */
	const struct option_list *keyfile_offsets, *keyfile_sizes;
	unsigned int tries; /* of what somebody types */
	const char *cookie, *fsid; /* of the volume; NULL: none. For chain_unlock(). */
	bool is_strict; /* no plaintext ancestors */
	struct luks_limits limits;
	enum xts_choice engine;
	unsigned int timeout_s;
	/* Of waiting for the cluster, or NULL. Outlives the chain. */
	const struct interrupt *interrupt;
	enum store_choice store;
	bool is_without_lock; /* write without the exclusive-lock feature */
	/*
	 * A survey, when set: what would be refused is told to it, in the order in which a start
	 * would meet it, and the walk goes on as far as it can.
	 */
	void (*note)(void *arg, const struct fault *f);
	void *note_arg;
};

/* What the command line says of it: everything but cluster, spec, known, cookie, fsid and
 * turnstile. */
void chain_options_set(const struct options *o, struct chain_options *ret);
/* Ends whatever a chain waits for: the cluster, a passphrase, an unlock. i outlives the chain. */
void chain_options_interrupt(struct chain_options *c, const struct interrupt *i);

/*
 * Opens the layers, reads and judges their headers, by librbd's rules (spec:
 * librbd-encryption 2.4). Blocking, but free of key derivations. The fault names layer, format and
 * file. On failure nothing is kept.
 */
int chain_open(const struct chain_options *o, struct chain *ret, struct fault *f);

/*
 * Tries the passphrases; seconds each. On failure, which names the order in which they would fit,
 * the chain has no keys; a survey may end without keys too.
 */
int chain_unlock(const struct chain_options *o, struct chain *c, struct fault *f);

/* The source of layer i's passphrase as it was given; there is one when any was given. */
const char *chain_source(const struct chain_options *o, unsigned int i);

/* How the source of layer i's passphrase is read. */
struct key_options chain_key_options(const struct chain_options *o, unsigned int i);

/*
 * Opens layer l with one passphrase, by the policy for final newlines; source is its name. -EPERM
 * when it does not fit. Blocking, seconds. The key is the caller's.
 */
int chain_try_passphrase(const struct chain_options *o, struct chain_layer *l,
			 const struct secret *passphrase, const char *source, struct secret **ret,
			 struct fault *f);

/* What the specifiers of a key source stand for in layer i. Valid as long as both are. */
struct key_place chain_place(const struct chain_options *o, const struct chain *c, unsigned int i);

/*
 * What speaks against serving it raw, for want of passphrases: EXIT_SAFEGUARD for writing to a
 * formatted clone.
 */
int chain_check_raw(const struct chain_options *o, const struct chain *c, bool is_read_only,
		    struct fault *f);

/*
 * Whether the store that the options choose can serve it: EXIT_USAGE for librbd and layers with
 * different keys, EXIT_SAFEGUARD for what writing to those needs.
 */
int chain_check_store(const struct chain_options *o, const struct chain *c, bool is_read_only,
		      struct fault *f);

/*
 * Why the i-th layer and the one above it cannot be served by librbd: "is plaintext under an
 * encrypted clone", or NULL. Without keys by what the headers say.
 */
const char *chain_difference(const struct chain *c, unsigned int i);
/*
 * Whether it will be the rados store: it is asked for, or librbd cannot serve the chain, or not as
 * well.
 */
bool chain_needs_rados(const struct chain_options *o, const struct chain *c, bool is_read_only);

/*
 * The store that this chain needs, or that the options choose; the caller has asked
 * chain_check_store(). The chain need not outlive the store.
 */
int chain_open_store(const struct chain_options *o, const struct chain *c,
		     const struct store_options *so, struct store **ret, struct fault *f);

/*
 * Whether the headers still are what was read, once others can no longer write the image: seconds,
 * or whoever was asked for a passphrase, were in between. Blocking. EXIT_SAFEGUARD if not: what
 * would be written has the key of a header that is gone.
 */
int chain_check_headers(const struct chain_options *o, const struct chain *c, struct fault *f);

/* The data area's start in the image itself, in bytes. */
uint64_t chain_data_offset(const struct chain *c);

/*
 * How many bytes at the end of its parent the i-th layer, not the last, does not see, because its
 * own header is larger and what it shows of the parent was never made shorter. Bytes. Pure. (spec:
 * librbd-encryption 4.2)
 */
uint64_t chain_unseen(const struct chain *c, unsigned int i);

/* A zeroed struct is fine. */
void chain_done(struct chain *c);

#endif
