/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Copyright (C) 2026 the rbdcrypt-nbd authors */

#ifndef DAEMON_HOST_H
#define DAEMON_HOST_H

#include <stdbool.h>

#include "host_volume.h"
#include "loop.h"

/*
 * The volumes of a daemon, one or many, and what they share: the workers and the connections.
 * Control thread only.
 */
struct host;

struct host_options {
	struct loop *loop;
	const char *run_dir; /* outlives the host */
	unsigned int workers; /* 0: one per processor */
	bool is_hosted; /* it is the host's daemon, not that of one volume */
	struct handover *handover; /* outlives the host; or NULL */
	/* A volume can be used now; at most once. */
	void (*serving)(void *arg, struct host_volume *v);
	/* It has ended, or could not start; it is freed when this returns. */
	void (*ended)(void *arg, struct host_volume *v);
	void *arg; /* of both */
};

/* 0 or -errno. */
int host_new(const struct host_options *o, struct host **ret);

/* What is particular to a volume; texts as in struct host_volume_options. */
struct host_add {
	enum mapping_kind kind;
	int listen_fd;
	const char *request, *resumed;
};

/* Starts a volume; takes the options on success. 0 or -errno. */
int host_add_take(struct host *h, const struct host_add *add, struct options **options,
		  struct host_volume **ret);

unsigned int host_n_volumes(const struct host *h);
/* Each one that has not ended; arg is each's. */
void host_for_each(struct host *h, void (*each)(void *arg, struct host_volume *v), void *arg);
/* Asks all volumes to end. */
void host_stop(struct host *h, enum host_stop how);

/* Volumes that are left are asked to leave, and waited for. NULL is fine. Returns NULL. */
struct host *host_free(struct host *h);

#endif
