/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Copyright (C) 2026 the rbdcrypt-nbd authors */

#ifndef RBDCRYPT_LIST_H
#define RBDCRYPT_LIST_H

#include <stdbool.h>
#include <stdio.h>

#include "options.h"
#include "state.h"

/*
 * What "list" and "status" print. list without --all is rbd-nbd's list-mapped and nothing
 * else: devices that a living daemon serves. Scripts rely on that: ceph-csi takes any row
 * with its image for a device that works and would never attach a dead one again.
 */
struct list_options {
	enum output_format format;
	bool is_pretty;
	bool is_all; /* also sockets, and devices whose daemon is gone */
};

typedef int (*list_sysfs_fn)(int index, struct nbd_sysfs *ret);

/*
 * Drops volumes that are gone although a dead owner's file is left: those without a device, and
 * those whose device carries another cookie by now or none at all. read_sysfs: nbd_sysfs_read.
 */
void list_drop_stale(struct state_list *l, list_sysfs_fn read_sysfs);

/* 0; -ENOMEM, or -EIO when out cannot be written. */
int list_print(FILE *out, const struct state_list *l, const struct list_options *o);

/* The volumes v[0] to v[n - 1] in full; XML and JSON have the same shape as list's. As above. */
int status_print(FILE *out, const struct volume_state *v, unsigned int n,
		 const struct list_options *o);

#endif
