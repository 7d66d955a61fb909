/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Copyright (C) 2026 the rbdcrypt-nbd authors */

#ifndef DAEMON_RUN_H
#define DAEMON_RUN_H

#include "fault.h"
#include "mapping.h"
#include "options.h"

/*
 * map, attach and serve: becomes the daemon of one volume, in the background unless told otherwise,
 * and returns when its service has ended. Main thread, before any other. 0 or -errno with the fault
 * filled.
 */
int run_volume(struct options *o, enum mapping_kind kind, struct fault *f);

#endif
