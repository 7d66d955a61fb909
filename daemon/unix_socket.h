/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Copyright (C) 2026 the rbdcrypt-nbd authors */

#ifndef DAEMON_UNIX_SOCKET_H
#define DAEMON_UNIX_SOCKET_H

#include <sys/socket.h>
#include <sys/types.h>
#include <sys/un.h>

/* What the file of a socket says: permissions, and whose it is; (uid_t)-1, (gid_t)-1: as it comes.
 */
struct unix_socket_access {
	mode_t mode;
	uid_t owner;
	gid_t group;
};

/* A socket's file. The path may be somebody else's by now, who has taken it for dead or replaced
 * it.
 */
struct unix_socket_name {
	char path[sizeof(((struct sockaddr_un *)0)->sun_path)]; /* "": none */
	dev_t dev;
	ino_t ino;
};

/*
 * A stream socket that listens at path, at no time open to more than access says. What a dead
 * server left there is replaced. The descriptor (non-blocking, closed by exec), or -EADDRINUSE when
 * a server listens there, -EEXIST when something else is in the way, -ENAMETOOLONG, -errno; then
 * what is there stays, also when there was no asking whether its server lives. Any thread.
 */
int unix_socket_listen(const char *path, const struct unix_socket_access *access, int backlog,
		       struct unix_socket_name *ret);

/*
 * Removes the file if it still is that of the socket, which must be open: so long nobody's file can
 * look like it. Between the look and the removal only one who is none of us can get in. The name is
 * "" then, which is fine, too.
 */
void unix_socket_remove(struct unix_socket_name *name);

#endif
