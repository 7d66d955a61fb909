/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Copyright (C) 2026 the rbdcrypt-nbd authors */

#ifndef DAEMON_CALIBRATE_H
#define DAEMON_CALIBRATE_H

#include <stddef.h>

#include "pool.h"
#include "xts.h"

/*
 * The size from which sharing a request with a worker pays here: half of its AES has
 * to take twice as long as waking the worker. Measured, about ten milliseconds. Bytes, a multiple
 * of 4096; SIZE_MAX when it never pays (one processor). x is used on memory of our own only.
 */
size_t calibrate_threshold(struct pool *p, struct xts *x);

#endif
