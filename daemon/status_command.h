/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Copyright (C) 2026 the rbdcrypt-nbd authors */

#ifndef DAEMON_STATUS_COMMAND_H
#define DAEMON_STATUS_COMMAND_H

#include "fault.h"
#include "options.h"

/*
 * The command "status": what is known of volumes. Their daemons are asked to look at the cluster
 * first, but nobody is waited for longer than a second. Main thread.
 */
int status_run(struct options *o, struct fault *f);

#endif
