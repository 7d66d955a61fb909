/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Copyright (C) 2026 the rbdcrypt-nbd authors */

#ifndef DAEMON_VALIDATE_H
#define DAEMON_VALIDATE_H

#include "volume.h"
#include "wire.h"

/*
 * Everything that is checked about a request: command known and announced, flags legal for it,
 * range inside the device, size, read-only. 0, or the -errno that is its answer. Pure; any thread.
 * Whatever passes may be trusted from then on.
 */
int validate_request(const struct volume *v, const struct wire_session *s,
		     const struct wire_request *w);

#endif
