/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Copyright (C) 2026 the rbdcrypt-nbd authors */

#ifndef DAEMON_UNIX_SOCKET_H
#define DAEMON_UNIX_SOCKET_H

#include <sys/types.h>

/* What the file of a socket says: permissions, and whose it is; (uid_t)-1, (gid_t)-1: as it comes.
 */
struct unix_socket_access {
	mode_t mode;
	uid_t owner;
	gid_t group;
};

/*
 * A stream socket that listens at path, at no time open to more than access says. What a dead
 * server left there is replaced. The descriptor (non-blocking, closed by exec), or -EADDRINUSE when
 * a server listens there, -EEXIST when something else is in the way, -ENAMETOOLONG, -errno; then
 * what is there stays, also when there was no asking whether its server lives. Any thread.
 */
int unix_socket_listen(const char *path, const struct unix_socket_access *access, int backlog);

#endif
