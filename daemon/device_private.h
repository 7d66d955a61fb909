/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Copyright (C) 2026 the rbdcrypt-nbd authors */

#ifndef DAEMON_DEVICE_PRIVATE_H
#define DAEMON_DEVICE_PRIVATE_H

#include <stdint.h>

#include "conn.h"
#include "device.h"

/* What device.c and device_sockets.c share. */

struct slot {
	struct conn *conn; /* NULL: dead, waits for the next try */
	int64_t since_ms;
};

struct device {
	struct device_options o;
	char *cookie;
	struct nbdctl *ctl;
	int index;
	struct slot *slots;
	unsigned int n_slots;
	struct conn **lingering; /* of dead sockets, with requests in flight */
	unsigned int n_lingering;
	unsigned int retry_ms;
	bool is_starting; /* nobody is told yet that it is gone */
	bool is_going; /* the kernel said DISC */
	/* Of the three watches: a connection ended; time to try again; LINK_DEAD. */
	struct loop *loop;
	struct watch ended, retry, events;
	struct watch keeper; /* that loop, in the one of the options */
};

/* What does not change while it is connected; no sockets, size or flags. */
void device_describe(const struct device *d, struct nbdctl_device *n);

/* ---- its sockets ---- */

/* Memory for n of them. 0 or -ENOMEM. */
int device_sockets_new(struct device *d, unsigned int n);
/*
 * Begins to replace those that die, and no longer does: in the loop of the options, and, as long as
 * that does not run, whenever device_sockets_look() is called, which returns at once.
 */
int device_sockets_keep(struct device *d, struct fault *f);
void device_sockets_look(void *device);
void device_sockets_forsake(struct device *d);
/*
 * Goes on with those of the options, and gives the kernel new ones for the others. The kernel may
 * not have noticed yet that it needs some: then until it has taken one, or for some seconds.
 */
int device_sockets_start(struct device *d, struct fault *f);
/*
 * Waits until everything that was read is answered, and frees what device_sockets_new() made. After
 * device_sockets_forsake().
 */
void device_sockets_free(struct device *d);

#endif
