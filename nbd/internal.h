/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Copyright (C) 2026 the rbdcrypt-nbd authors */

#ifndef RBDCRYPT_NBD_INTERNAL_H
#define RBDCRYPT_NBD_INTERNAL_H

#include <stdbool.h>
#include <sys/types.h>

#include "nbdctl.h"

/*
 * What the files of this folder share about the kernel's devices. Each function
 * takes the roots of the file trees it looks at, so that tests can give their own.
 */

/* Directory descriptors are O_PATH or O_RDONLY, and stay the caller's. */

/* ---- sysfs.c ---- */

#define SYSFS_BLOCK "/sys/block"

/* As nbd_sysfs_read(), below an open /sys/block. */
int sysfs_read_at(int block_fd, int index, struct nbd_sysfs *ret);
/*
 * One attribute without its final newline; path is relative to dir_fd. 0, -ENOENT, -EOVERFLOW when
 * it does not fit, or -errno.
 */
int sysfs_text_at(int dir_fd, const char *path, char *buf, size_t len);
/* The "major:minor" in an attribute. */
int sysfs_devno_at(int dir_fd, const char *path, dev_t *ret);
/* /sys/block/nbdX. -ENODEV when there is no such device. Returns a descriptor for the caller. */
int sysfs_open_device(int block_fd, int index);

/* ---- node.c ---- */

/*
 * Opens dev_dir/nbdX and makes sure that it is the block device with this number: -ENXIO when it is
 * another. flags as for open(), O_CLOEXEC is added. Returns a descriptor for the caller.
 */
int node_open(const char *dev_dir, int index, dev_t devno, int flags);

/* ---- inuse.c ---- */

struct inuse_roots {
	int block_fd;
	const char *proc; /* "/proc" */
	const char *dev; /* "/dev" */
};
int inuse_at(const struct inuse_roots *roots, int index, char *who, size_t len);

/* ---- udev.c ---- */

struct udev_roots {
	int block_fd;
	const char *control; /* exists while udevd runs */
	const char *dev; /* "/dev" */
};
int udev_settle_at(const struct udev_roots *roots, int index, int timeout_ms,
		   const struct nbd_meanwhile *m);

/* ---- module.c ---- */

struct module_roots {
	const char *sys_module; /* "/sys/module/nbd" */
	const char *const *modprobe; /* where to look for it, ends with NULL */
};
int module_load_at(const struct module_roots *roots, unsigned int nbds_max, unsigned int max_part,
		   struct fault *f);

/* ---- refuse.c: each fills f and returns its error; messages lack the device's name ---- */

/* What the kernel answered: 0 or its -errno, and its explanation or "". */
struct verdict {
	int error;
	char text[256];
};

/*
 * 0, or what is wrong with a request that the kernel would take and then misbehave on, or
 * refuse without saying why.
 */
int refuse_device(const struct nbdctl_device *d, bool is_connect, struct fault *f);
/* block_fd: see above. index: what the user asked for, or -1. */
int refuse_connect(int block_fd, int index, const struct verdict *v, struct fault *f);
int refuse_reconfigure(int block_fd, int index, const char *cookie, const struct verdict *v,
		       struct fault *f);
int refuse_disconnect(const struct verdict *v, struct fault *f);
/* The question did not reach the kernel, or its answer did not reach us. */
int refuse_unasked(struct fault *f, int error);

/* ---- nbdctl.c ---- */

/* As nbdctl_open(); explains refusals with what it finds below block_fd, which it takes over. */
int nbdctl_open_at_take(int *block_fd, struct nbdctl **ret, struct fault *f);

#endif
