/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Copyright (C) 2026 the rbdcrypt-nbd authors */

#ifndef DAEMON_HOST_VOLUME_H
#define DAEMON_HOST_VOLUME_H

#include <stdbool.h>

#include "calibration.h"
#include "clusters.h"
#include "fault.h"
#include "mapping.h"
#include "options.h"
#include "pool.h"

/*
 * A volume of a daemon, with a thread of its own that starts it, keeps its device or socket alive,
 * and stops it. What blocks there, a cluster that does not answer or a passphrase that takes its
 * time, blocks this volume and no other. While there is nothing to do it has no thread.
 */
struct host_volume;

enum host_phase {
	HOST_STARTING,
	HOST_SERVING, /* its device or socket can be used */
	HOST_STOPPING, /* after it served */
	HOST_ENDED, /* nothing of it is left but its fault */
};

enum host_stop {
	HOST_KEEP, /* not to be stopped */
	HOST_LEAVE, /* a device stays in the kernel, if possible with its sockets, for our successor
		     */
	HOST_DETACH, /* it stays and waits for attach */
	HOST_DISCONNECT, /* it goes */
};

struct host_volume_options {
	enum mapping_kind kind;
	const char *run_dir; /* outlives the volume */
	struct clusters *clusters;
	struct pool *pool;
	struct calibration *calibration;
	unsigned int serial;
	bool is_hosted; /* by the host's daemon */
	int listen_fd; /* SERVE: a socket that was passed, or -1 */
	struct handover *handover; /* outlives the volume; or NULL */
	const char *request; /* for the state file; NULL: none */
	const char *resumed; /* key of the state file of a predecessor that it continues, or NULL */
	int changed_fd; /* an event that is raised with every change of phase, and at quiet times */
};

/* Takes the options (complete but for the pool) on success. Texts are copied. 0 or -errno. */
int host_volume_new_take(const struct host_volume_options *o, struct options **options,
			 struct host_volume **ret);

/* Any thread. */
enum host_phase host_volume_phase(const struct host_volume *v);

/* Asks for the end; the first to ask says how. Returns at once. Any thread. */
void host_volume_stop(struct host_volume *v, enum host_stop how);

/*
 * While it has no thread: what can be read once it needs one again, and then host_volume_wake() is
 * to be called. Else -1. The descriptor stays the volume's, and is open until then. Control thread.
 */
int host_volume_quiet_fd(struct host_volume *v);
/* 0, also when it has one; or -errno: try again later. Control thread. */
int host_volume_wake(struct host_volume *v);

/* Its image, for messages. */
const char *host_volume_spec(const struct host_volume *v);
const struct options *host_volume_options(const struct host_volume *v);

/* The key that it was resumed from, or NULL. */
const char *host_volume_resumed(const struct host_volume *v);

/* What its users are told; from HOST_SERVING on. */
struct host_volume_service {
	int device; /* N of /dev/nbdN, -1: none */
	char cookie[512]; /* as the kernel has it, or "" */
	char socket[108]; /* or "" */
	char key[640]; /* of its state file */
};
const struct host_volume_service *host_volume_service(const struct host_volume *v);

/* Once it has ended: why it could not start; NULL when it could. */
const struct fault *host_volume_fault(const struct host_volume *v);

/* Tells the log that it serves; that it has ended, or why it could not start. */
void host_volume_log_serving(const struct host_volume *v);
void host_volume_log_end(const struct host_volume *v);

/*
 * Waits for its thread, or is it: HOST_ENDED comes first, so its end was asked for. Control thread.
 * NULL is fine. Returns NULL.
 */
struct host_volume *host_volume_free(struct host_volume *v);

#endif
