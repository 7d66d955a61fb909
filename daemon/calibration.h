/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Copyright (C) 2026 the rbdcrypt-nbd authors */

#ifndef DAEMON_CALIBRATION_H
#define DAEMON_CALIBRATION_H

#include <stddef.h>

#include "pool.h"
#include "xts.h"

/*
 * From which size on sharing a request with the workers is worth it: found out once for each kind
 * of encryption, as a host's volumes start by the hundred and would disturb one another's trials.
 * One per pool.
 */
struct calibration;

/* The pool outlives it. 0 or -ENOMEM. */
int calibration_new(struct pool *pool, struct calibration **ret);
/* NULL is fine. Returns NULL. */
struct calibration *calibration_free(struct calibration *c);

/*
 * Bytes, a multiple of 4096, up to which a request stays with its thread: what is larger is
 * finished in three quarters of the time, or less, when workers help. SIZE_MAX with one processor,
 * where none could. Any thread; the first call for an engine, key length and sector size takes some
 * tens of milliseconds, and others wait for it. x is used on memory of our own only.
 */
size_t calibration_threshold(struct calibration *c, struct xts *x);

#endif
