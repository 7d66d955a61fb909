/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Copyright (C) 2026 the rbdcrypt-nbd authors */

#ifndef DAEMON_UNIX_SOCKET_H
#define DAEMON_UNIX_SOCKET_H

#include <sys/types.h>

/*
 * A stream socket that listens at path, never open to more than mode and group ((gid_t)-1: as it
 * comes) say. What a dead server left there is replaced. The descriptor (non-blocking, closed by
 * exec), or -EADDRINUSE when a server listens there, -EEXIST when something else is in the way,
 * -ENAMETOOLONG, -errno. Any thread.
 */
int unix_socket_listen(const char *path, mode_t mode, gid_t group, int backlog);

#endif
