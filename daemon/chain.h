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
	struct luks_header *header;
	int keyslot;
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
	const struct option_list *passphrase_files,
		*formats; /* child first; formats may be empty */
	enum newline_policy newline;
	struct key_options keys; /* how the passphrase files are read */
	const char *cookie, *fsid; /* of the volume; NULL: none. For chain_unlock(). */
	bool is_strict; /* no plaintext ancestors */
	struct luks_limits limits;
	enum xts_choice engine;
	unsigned int timeout_s;
};

/* What the command line says of it: everything but cluster, spec, cookie, fsid and turnstile. */
void chain_options_set(const struct options *o, struct chain_options *ret);

/*
 * Opens the layers, reads and judges their headers, by librbd's rules (spec:
 * librbd-encryption 2.4). Blocking, but free of key derivations. The fault names layer, format and
 * file. On failure nothing is kept.
 */
int chain_open(const struct chain_options *o, struct chain *ret, struct fault *f);

/* Tries the passphrases; seconds each. On failure the chain has no keys. */
int chain_unlock(const struct chain_options *o, struct chain *c, struct fault *f);

/* The source of layer i's passphrase as it was given; there is one when any was given. */
const char *chain_source(const struct chain_options *o, unsigned int i);

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
 * Whether raw IO through librbd is right for it: one layer, or layers that share key, data offset
 * and sector size. Else -ENOTSUP, EXIT_LAYERED, naming the layers.
 */
int chain_check_flat(const struct chain *c, struct fault *f);

/*
 * The store that this chain needs. One that is not flat has to be read-only: the caller has asked
 * chain_check_flat(). The chain need not outlive the store.
 */
int chain_open_store(const struct chain *c, struct cluster *cluster, const struct store_options *o,
		     struct store **ret, struct fault *f);

/* The data area's start in the image itself, in bytes. */
uint64_t chain_data_offset(const struct chain *c);

/* A zeroed struct is fine. */
void chain_done(struct chain *c);

#endif
