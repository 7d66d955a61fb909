/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Copyright (C) 2026 the rbdcrypt-nbd authors */

#ifndef DAEMON_DEVICE_H
#define DAEMON_DEVICE_H

#include <stdbool.h>

#include "fault.h"
#include "handover.h"
#include "loop.h"
#include "nbdctl.h"
#include "volume.h"

/*
 * A volume as /dev/nbdX: the sockets, the netlink side, and keeping both alive. The volume's
 * thread only.
 */
struct device;

struct device_options {
	struct volume *volume;
	struct loop *loop;
	int index; /* -1: the kernel chooses; must be given to attach */
	bool is_attach; /* the kernel has it already: new sockets for dead ones */
	unsigned int connections;
	/* is_attach: sockets that the kernel has already, one per connection or -1; NULL: none.
	 * Those that were taken become -1, the others stay the caller's. */
	int *sockets;
	int io_timeout_s; /* -1: kernel default */
	int reattach_timeout_s;
	const char *cookie;
	unsigned int nbds_max, max_part;
	bool waits_for_udev;
	const struct interrupt *interrupt; /* of waiting, or NULL; outlives the device */
	/* The device was disconnected by somebody else, and all its requests are answered. */
	void (*gone)(void *arg);
	void *gone_arg;
};

/* Connects or attaches, and reads back what the kernel took. On failure nothing is left. */
int device_start(const struct device_options *o, struct device **ret, struct fault *f);

/*
 * Waits until udev has seen the device and its partitions, and replaces sockets meanwhile; from
 * then on the loop does, and tells who is gone. EXIT_TIMED_OUT, also when interrupted.
 */
int device_settle(struct device *d, struct fault *f);

int device_index(const struct device *d);
unsigned int device_connections(const struct device *d);

/* Tells the kernel the volume's new size. Freezes its queue until what is in flight is done. */
int device_resize(struct device *d, struct fault *f);

/*
 * Before device_stop(), when somebody else is to go on with the sockets: connections stop between
 * two requests, everything that was answered becomes durable, and the sockets go to the store of h
 * with a note as of handover_give(). How many did; those that did not are device_stop()'s, and so
 * are all after -errno. Waits some seconds for the store.
 */
int device_hand_over(struct device *d, struct handover *h, char *note);

/*
 * Ends the connections (what was read is answered) and frees. disconnect: the kernel's device too;
 * else it stays and its requests wait for an attach. NULL is fine. Returns NULL.
 */
struct device *device_stop(struct device *d, bool disconnect);

#endif
