/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Copyright (C) 2026 the rbdcrypt-nbd authors */

#ifndef RBD_FENCE_H
#define RBD_FENCE_H

/*
 * An address without the protocol before it: lockers are listed as v1:10.0.0.1:0/123, watchers
 * as 10.0.0.1:0/123. Pure.
 */
const char *bare_address(const char *address);

#endif
