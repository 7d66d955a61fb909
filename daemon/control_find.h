/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Copyright (C) 2026 the rbdcrypt-nbd authors */

#ifndef DAEMON_CONTROL_FIND_H
#define DAEMON_CONTROL_FIND_H

#include "control.h"
#include "host.h"

/* The parameter "name" of a call, which it must have. 0, or -errno with the fault. */
int control_get_name(struct control_call *call, const char **ret, struct fault *f);

/*
 * Which volume of this daemon a client means by name; NULL and 0: none of ours. 0, or -errno with
 * the fault. Control thread.
 */
int control_find(struct host *h, const char *run_dir, const char *name, struct host_volume **ret,
		 struct fault *f);

#endif
