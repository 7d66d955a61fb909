/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Copyright (C) 2026 the rbdcrypt-nbd authors */

#ifndef RBDCRYPT_NBD_SCOPE_H
#define RBDCRYPT_NBD_SCOPE_H

#include <dirent.h>
#include <errno.h>
#include <unistd.h>

/* Locals that clean up after themselves. errno survives, so that "return -errno" may follow. */
static inline void scope_close_fd(int *fd)
{
	int saved = errno;

	if (*fd >= 0)
		close(*fd);
	errno = saved;
}
#define scope_fd __attribute__((cleanup(scope_close_fd)))

static inline void scope_close_dir(DIR **dir)
{
	if (*dir)
		closedir(*dir);
}
#define scope_dir __attribute__((cleanup(scope_close_dir)))

#endif
