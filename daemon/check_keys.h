/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Copyright (C) 2026 the rbdcrypt-nbd authors */

#ifndef DAEMON_CHECK_KEYS_H
#define DAEMON_CHECK_KEYS_H

#include "fault.h"
#include "options.h"

/*
 * The command "check-keys": whether volumes could be opened again, now. Prints all layers, and
 * fails with the first that might not (EXIT_SAFEGUARD). Main thread.
 */
int check_keys_run(struct options *o, struct fault *f);

#endif
