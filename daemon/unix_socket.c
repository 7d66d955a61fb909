/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Copyright (C) 2026 the rbdcrypt-nbd authors */

/* Sockets with a name in the filesystem: of a volume that is served, and of a daemon. */

#include "unix_socket.h"

#include <errno.h>
#include <stdbool.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

/* Whether somebody listens there. */
static bool is_alive(const struct sockaddr_un *a)
{
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	bool yes = fd >= 0 &&
		   (connect(fd, (const struct sockaddr *)a, sizeof(*a)) == 0 || errno == EAGAIN);

	if (fd >= 0)
		(void)close(fd);
	return yes;
}

/* Linux gives the file the socket's own mode, so nobody can be faster; the umask is all threads'.
 */
static int bind_at(int fd, const struct sockaddr_un *a, mode_t mode, gid_t group, int backlog)
{
	if (fchmod(fd, 0600) < 0 || bind(fd, (const struct sockaddr *)a, sizeof(*a)) < 0)
		return -errno;
	if ((group != (gid_t)-1 && chown(a->sun_path, (uid_t)-1, group) < 0) ||
	    chmod(a->sun_path, mode) < 0 || listen(fd, backlog) < 0) {
		int r = -errno;

		(void)unlink(a->sun_path);
		return r;
	}
	return 0;
}

int unix_socket_listen(const char *path, mode_t mode, gid_t group, int backlog)
{
	struct sockaddr_un a = { .sun_family = AF_UNIX };
	struct stat st;
	int fd, r;

	if (strlen(path) >= sizeof(a.sun_path))
		return -ENAMETOOLONG;
	(void)strcpy(a.sun_path, path);
	fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	if (fd < 0)
		return -errno;
	r = bind_at(fd, &a, mode, group, backlog);
	if (r == -EADDRINUSE && lstat(path, &st) == 0 && !S_ISSOCK(st.st_mode))
		r = -EEXIST;
	/* Left behind by one that was killed. */
	if (r == -EADDRINUSE && !is_alive(&a) && unlink(path) == 0)
		r = bind_at(fd, &a, mode, group, backlog);
	if (r < 0) {
		(void)close(fd);
		return r;
	}
	return fd;
}
