/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Copyright (C) 2026 the rbdcrypt-nbd authors */

#ifndef DAEMON_DRY_RUN_H
#define DAEMON_DRY_RUN_H

#include "fault.h"
#include "options.h"

/*
 * map and serve with --dry-run: opens the layers for reading, tries the passphrases if asked to,
 * and prints what would happen; changes nothing. Main thread. 0 if nothing stands in the way; else
 * the first refusal, with the exit status that the command would have had.
 */
int dry_run(struct options *o, struct fault *f);

#endif
