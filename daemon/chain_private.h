/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Copyright (C) 2026 the rbdcrypt-nbd authors */

#ifndef DAEMON_CHAIN_PRIVATE_H
#define DAEMON_CHAIN_PRIVATE_H

#include "chain.h"

/* Shared by the two passes over a chain. */

/*
 * A failure (r < 0, f filled) that a survey only notes: then f is empty again and 0 is returned.
 * Else r.
 */
int chain_note(const struct chain_options *o, int r, struct fault *f);

#endif
