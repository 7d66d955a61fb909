/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Copyright (C) 2026 the rbdcrypt-nbd authors */

#ifndef DAEMON_RESUME_H
#define DAEMON_RESUME_H

#include <stdbool.h>

#include "options.h"

/*
 * Whether o->spec is still mapped to a device whose daemon is gone. Then *ret is true, and o names
 * that device and its cookie, for attach. What the state file says is checked there again. Looks
 * at the run directory and at sysfs only. 0, or -errno with the fault.
 */
int resume_find(struct options *o, const char *run_dir, bool *ret, struct fault *f);

#endif
