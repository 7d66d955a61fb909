/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Copyright (C) 2026 the rbdcrypt-nbd authors */

#ifndef DAEMON_RESUME_H
#define DAEMON_RESUME_H

#include "options.h"

/*
 * Whether o->spec is still mapped to a device whose daemon is gone. Then *ret is its key in the run
 * directory, the caller's to free, and o names that device and its cookie, for attach; else NULL.
 * What the state file says is checked there again. Looks at the run directory and at sysfs only. 0,
 * or -errno with the fault.
 */
int resume_find(struct options *o, const char *run_dir, char **ret, struct fault *f);

#endif
