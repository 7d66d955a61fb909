/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Copyright (C) 2026 the rbdcrypt-nbd authors */

#ifndef SYSTEMD_TAB_H
#define SYSTEMD_TAB_H

#include <stdbool.h>
#include <stdio.h>

#include "fault.h"
#include "image.h"

/*
 * rbdcrypttab(5): one volume per line. One thread; a struct tab owns its entries and their text.
 */

struct tab_entry {
	char *name; /* of the unit's instance */
	char *spec; /* as written */
	struct image_spec image; /* the pool is always there, but for a file */
	char **keys; /* as for --encryption-passphrase-file; child first */
	unsigned int n_keys;
	char *options; /* for -o, still escaped; "" if none */
	char *device; /* "/dev/nbd3" from the options, or NULL */
	char *awaited; /* the first key's file, without specifiers; NULL unless is_waiting */
	char *key_mount; /* a folder that must be a mount point, or NULL */
	char *start_timeout; /* as in systemd.time(7), or NULL */
	bool is_manual; /* noauto */
	bool is_optional; /* nofail */
	bool is_waiting; /* key-wait: started when its key appears */
	const char *file; /* where it stands: the caller's text */
	unsigned int line;
};

/* A line that is left out. Another line may have the same name and be an entry. */
struct tab_refusal {
	char *name; /* a valid one */
	char *message; /* what was told */
	const char *file; /* where it stands: the caller's text */
};

struct tab {
	struct tab_entry *entries;
	unsigned int n;
	struct tab_refusal *refusals; /* of the lines that have a name */
	unsigned int n_refusals;
	unsigned int n_refused; /* lines that told was called for */
};

/* Gets to know each refused line: "FILE:LINE: what is wrong; what is expected". */
typedef void (*tab_told_fn)(void *arg, const char *message);

/*
 * Adds the lines of in to t, which the caller zeroed once. A line that is wrong, or that asks for
 * what an earlier one has (name, image, device), is told and left out; the others are taken. file:
 * its name, which must outlive t. 0, -ENOMEM or -EIO.
 */
int tab_read(struct tab *t, FILE *in, const char *file, tab_told_fn told, void *arg);

void tab_done(struct tab *t);

#endif
