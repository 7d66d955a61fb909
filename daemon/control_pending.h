/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Copyright (C) 2026 the rbdcrypt-nbd authors */

#ifndef DAEMON_CONTROL_PENDING_H
#define DAEMON_CONTROL_PENDING_H

#include "control_methods.h"

/*
 * Calls that take their time, each noted with the volume it waits for and what it waits for, and
 * answered when the host says so. For the methods' own files. Control thread.
 */

struct pending {
	struct pending *next;
	struct methods *methods;
	struct control_call *call; /* NULL: its client has gone */
	struct host_volume *volume; /* it waits for, or NULL */
	bool is_start; /* waits until it serves; else until it has ended */
	enum host_stop how; /* it ends once child has found its keys safe */
	struct unmap_child *child; /* it waits for, or NULL */
	int timeout_s; /* for its volume to end; -1: the command's */
	struct watch patience; /* while it waits for that; fd -1: not yet */
};

struct methods {
	struct methods_options o;
	struct pending *pending;
};

/* NULL: no memory. */
struct pending *pending_new(struct methods *m, struct control_call *call);
/* It waits for nothing any more, answered or not. */
void pending_forget(struct pending *p);

/* What answers are made of. */
void control_add_text(struct json_object *o, const char *key, const char *text);
void control_fail(struct control_call *call, const struct fault *f);
void control_succeed(struct control_call *call);

#endif
