/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Copyright (C) 2026 the rbdcrypt-nbd authors */

#ifndef DAEMON_UNMAP_H
#define DAEMON_UNMAP_H

#include "fault.h"
#include "options.h"

/*
 * unmap: takes the device away and returns when it and its daemon are gone. Refuses one in use
 * (EXIT_BUSY, naming who) unless forced, and writes back what the kernel holds first. A volume
 * served on a socket is stopped. 0 or -errno.
 */
int unmap_run(struct options *o, struct fault *f);

/* detach: ends the daemon; the device stays and its requests wait. Returns when the daemon is gone.
 * 0 or -errno. */
int detach_run(struct options *o, struct fault *f);

/*
 * Only what unmap asks first: whether the volume's keys are safe (guard_ask()). As unmap_run().
 */
int unmap_check(struct options *o, struct fault *f);

#endif
