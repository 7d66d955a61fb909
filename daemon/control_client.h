/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Copyright (C) 2026 the rbdcrypt-nbd authors */

#ifndef DAEMON_CONTROL_CLIENT_H
#define DAEMON_CONTROL_CLIENT_H

#include "fault.h"
#include "options.h"
#include "state.h"

/*
 * The commands' end of the control socket. Blocking. Main thread of a command.
 */

/*
 * map, attach and serve by the daemon of run_dir, and what they print. -ENOENT and no fault:
 * no daemon listens, or the options ask for a process of its own. o may have paths made absolute.
 */
int client_start(struct options *o, const char *run_dir, struct fault *f);

/* unmap and detach of v, which the daemon of run_dir serves. */
int client_stop(const struct options *o, const char *run_dir, const struct volume_state *v,
		struct fault *f);

/*
 * The same of one that the run directory knows nothing of yet, by the name of its image. -ENOENT:
 * nor does the daemon, or there is none that we may ask and that answers.
 */
int client_stop_starting(const struct options *o, const char *run_dir, const char *name,
			 struct fault *f);

#endif
