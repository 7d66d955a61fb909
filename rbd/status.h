/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Copyright (C) 2026 the rbdcrypt-nbd authors */

#ifndef RBD_STATUS_H
#define RBD_STATUS_H

#include "store.h"

/*
 * Builds the answer of a status call out of the holes a store finds, in ascending order.
 * What no hole covers is data. Holes shrink to whole sectors of the largest size there is,
 * so that none ends inside a sector that holds something.
 */
struct status {
	struct store_io *io;
	uint64_t start, end; /* dev_off */
	uint64_t pos; /* answered so far */
};

void status_begin(struct status *st, struct store_io *io, uint64_t dev_off, uint64_t len);
/* 0, -ENOMEM, or STATUS_FULL: enough pieces, end now. */
#define STATUS_FULL 1
int status_hole(struct status *st, uint64_t from, uint64_t to);
/* The rest is data. 0 or -ENOMEM. */
int status_end(struct status *st);

#endif
