/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Copyright (C) 2026 the rbdcrypt-nbd authors */

#ifndef DAEMON_SERVICE_H
#define DAEMON_SERVICE_H

#include "fault.h"
#include "options.h"

/*
 * The daemon command: one process for the volumes of a host, in the foreground, until SIGTERM. Main
 * thread, before any other. 0 or -errno with the fault.
 */
int service_run(struct options *o, struct fault *f);

#endif
