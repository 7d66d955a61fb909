/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Copyright (C) 2026 the rbdcrypt-nbd authors */

#ifndef RBDCRYPT_NBDCTL_H
#define RBDCRYPT_NBDCTL_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "fault.h"
#include "interrupt.h"

/*
 * The kernel's nbd driver: generic netlink (libnl), sysfs, and udev's view of the device. A
 * volume's thread or command line only: RECONFIGURE with a size waits for in-flight requests, so it
 * must never be called from a thread that serves IO. (spec: rbd-nbd-and-kernel 4)
 */
struct nbdctl;

struct nbdctl_device {
	uint64_t size; /* bytes */
	uint32_t block_size; /* 512..4096; 0 leaves it (RECONFIGURE) */
	uint16_t server_flags; /* WIRE_FLAG_*; CONNECT only */
	int io_timeout_s; /* -1: do not send (kernel default); 0: never abort, warn only */
	int dead_conn_timeout_s; /* -1: do not send */
	const char *cookie; /* backend identifier, or NULL */
	const int *sockets; /* kernel's ends; stay owned by the caller */
	unsigned int n_sockets;
};

/*
 * Opens a socket and resolves the family. -ENOENT: EXIT_KERNEL, with the module's name in the hint.
 * -EPERM: EXIT_PASSPHRASE.
 */
int nbdctl_open(struct nbdctl **ret, struct fault *f);
struct nbdctl *nbdctl_close(struct nbdctl *n);

/* Loads the module with modprobe when /sys/module/nbd is missing. nbds_max, max_part: 0 leaves the
 * default. EXIT_KERNEL. */
int nbdctl_load_module(unsigned int nbds_max, unsigned int max_part, struct fault *f);

/* index -1: the kernel chooses. EXIT_BUSY for a used index, EXIT_NOT_FOUND for an impossible one.
 */
int nbdctl_connect(struct nbdctl *n, int index, const struct nbdctl_device *d, int *ret_index,
		   struct fault *f);
/*
 * size 0: leave the size. Sockets fill dead slots only; with no dead slot they are ignored and this
 * succeeds, so shut the old socket down first and see that requests arrive on the new one.
 * EXIT_NOT_FOUND for a wrong cookie or an unconnected device.
 */
int nbdctl_reconfigure(struct nbdctl *n, int index, const struct nbdctl_device *d, struct fault *f);
/*
 * Fails what is in flight: sync first. 0 also when it was not connected. The
 * device is free for the next CONNECT when nobody has it open any more; udev looks at it once more,
 * so follow with nbd_udev_settle(), and see is_connected.
 * EXIT_NOT_FOUND when there is no such device.
 */
int nbdctl_disconnect(struct nbdctl *n, int index, struct fault *f);

/* Joins the multicast group and returns a non-blocking fd to poll. It stays n's. -errno. */
int nbdctl_event_fd(struct nbdctl *n, struct fault *f);
/*
 * Reads what is there; calls link_dead for each LINK_DEAD (of anybody's device, and once per
 * socket). 0 or -errno; -ENOBUFS: some were lost, look at every socket.
 */
int nbdctl_read_events(struct nbdctl *n, void (*link_dead)(void *arg, int index), void *arg);

/* ---- sysfs ---- */

struct nbd_sysfs {
	bool is_connected; /* pid file present: from CONNECT until the last opener left */
	int pid; /* who connected; 0 unknown */
	uint64_t size; /* bytes */
	bool is_read_only;
	uint32_t logical_block, physical_block; /* bytes */
	bool has_write_cache; /* write_cache is "write back" */
	bool has_fua;
	uint64_t discard_max, write_zeroes_max; /* bytes; 0 not offered */
	uint32_t max_hw_kib;
	char cookie[512]; /* "backend", empty if none */
};
/* -ENODEV when there is no such device. */
int nbd_sysfs_read(int index, struct nbd_sysfs *ret);
/* "/dev/nbd3", "nbd3" or "3" to 3; -EINVAL otherwise. */
int nbd_index_parse(const char *text, int *ret);
/*
 * Names who uses the device or a partition of it: mount point, swap, holder (dm, md), or who has it
 * open; udev and this process do not count. -EBUSY with who filled ("mounted on /mnt"), 0 when
 * free, -ENODEV, -errno.
 */
int nbd_in_use(int index, char *who, size_t len);
/* Writes back what the kernel holds for it, filesystems included. 0, -ENODEV or -errno. */
int nbd_sync(int index);
/* What is not to wait until a waiting has an end: called when fd can be read. */
struct nbd_meanwhile {
	int fd;
	void (*ready)(void *arg);
	void *arg;
	const struct interrupt *interrupt; /* of the waiting itself, or NULL */
};

/*
 * Triggers a synthetic "change" event and waits until udev has processed it, for this device (and
 * the node exists) and then for each of its partitions. Without udev running: only until the node
 * exists. -ETIMEDOUT, -EINTR. m may be NULL.
 */
int nbd_udev_settle(int index, int timeout_ms, const struct nbd_meanwhile *m);

#endif
