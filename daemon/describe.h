/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Copyright (C) 2026 the rbdcrypt-nbd authors */

#ifndef DAEMON_DESCRIBE_H
#define DAEMON_DESCRIBE_H

#include "chain.h"
#include "state.h"

/*
 * What the state file says of an image and its layers: fills a fresh ret, VOLUME_STARTING,
 * read-only if it is a snapshot. The chain is open, the cluster connected. ret is the caller's, to
 * be given to volume_state_done().
 */
void describe_image(const struct chain_options *o, const struct chain *c, struct volume_state *ret);

#endif
