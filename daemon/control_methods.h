/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Copyright (C) 2026 the rbdcrypt-nbd authors */

#ifndef DAEMON_CONTROL_METHODS_H
#define DAEMON_CONTROL_METHODS_H

#include "control.h"
#include "host.h"

/*
 * What a daemon does when it is asked on its control socket: rbdcrypt-nbd-control(7). Control
 * thread only.
 */
struct methods;

struct methods_options {
	struct loop *loop;
	struct host *host;
	const char *run_dir; /* outlives the methods */
	void (*reload)(void *arg);
	void *arg;
};

/* 0 or -ENOMEM. */
int methods_new(const struct methods_options *o, struct methods **ret);
/* Calls under way are forgotten. NULL is fine. Returns NULL. */
struct methods *methods_free(struct methods *m);

/* For struct control_options; arg is the struct methods. */
void methods_called(void *arg, struct control_call *call);
void methods_abandoned(void *arg, struct control_call *call);

/* For struct host_options: false when nobody waited for it. */
bool methods_serving(struct methods *m, struct host_volume *v);
bool methods_ended(struct methods *m, struct host_volume *v);

#endif
