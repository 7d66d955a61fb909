/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Copyright (C) 2026 the rbdcrypt-nbd authors */

/* Sockets with a name in the filesystem: of a volume that is served, and of a daemon. */

#include "unix_socket.h"

#include <errno.h>
#include <fcntl.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

/* A service may be forbidden to ask, even for nothing. */
static bool is_given_away(const struct unix_socket_access *access)
{
	return access->owner != (uid_t)-1 || access->group != (gid_t)-1;
}

/*
 * Where others may write to the folder, the name may lead elsewhere by now. So it is looked at
 * once, what is found must be a socket of ours, and that is changed, whatever the name does.
 */
static int set_access(const char *path, const struct unix_socket_access *access)
{
	int fd = open(path, O_PATH | O_NOFOLLOW | O_CLOEXEC), r = 0;
	char self[64];
	struct stat st;

	if (fd < 0)
		return -errno;
	(void)snprintf(self, sizeof(self), "/proc/self/fd/%d", fd);
	if (fstat(fd, &st) < 0)
		r = -errno;
	else if (!S_ISSOCK(st.st_mode) || st.st_uid != geteuid())
		r = -ESTALE;
	/* Nobody listens yet, so the order opens nothing; who has given it away may not change it.
	 */
	else if (chmod(self, access->mode) < 0 ||
		 (is_given_away(access) &&
		  fchownat(fd, "", access->owner, access->group, AT_EMPTY_PATH) < 0))
		r = -errno;
	(void)close(fd);
	return r;
}

/* Linux gives the file the socket's own mode, so nobody can be faster; the umask is all threads'.
 */
static int bind_at(int fd, const struct sockaddr_un *a, const struct unix_socket_access *access,
		   int backlog)
{
	int r;

	if (fchmod(fd, 0600) < 0 || bind(fd, (const struct sockaddr *)a, sizeof(*a)) < 0)
		return -errno;
	r = set_access(a->sun_path, access);
	if (r == 0 && listen(fd, backlog) < 0)
		r = -errno;
	if (r < 0)
		(void)unlink(a->sun_path);
	return r;
}

/*
 * 0 when nobody listens there any more, which is so only if the kernel says it: who may not ask, or
 * has no descriptor left to ask with, would take the name away from a living server. -EADDRINUSE
 * when somebody does.
 */
static int look_for_dead(const struct sockaddr_un *a)
{
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0), r;

	if (fd < 0)
		return -errno;
	r = connect(fd, (const struct sockaddr *)a, sizeof(*a)) < 0 ? -errno : 0;
	(void)close(fd);
	if (r == -ECONNREFUSED || r == -ENOENT)
		return 0;
	/* Its queue is full, or it is of another type. */
	return r == 0 || r == -EAGAIN || r == -EPROTOTYPE ? -EADDRINUSE : r;
}

/* What one that was killed left behind. */
static int replace(int fd, const struct sockaddr_un *a, const struct unix_socket_access *access,
		   int backlog)
{
	int r = look_for_dead(a);

	/* It may have ended, and removed it, in the meantime. */
	if (r == 0 && unlink(a->sun_path) < 0 && errno != ENOENT)
		r = -errno;
	return r < 0 ? r : bind_at(fd, a, access, backlog);
}

int unix_socket_listen(const char *path, const struct unix_socket_access *access, int backlog)
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
	r = bind_at(fd, &a, access, backlog);
	if (r == -EADDRINUSE && lstat(path, &st) == 0 && !S_ISSOCK(st.st_mode))
		r = -EEXIST;
	if (r == -EADDRINUSE)
		r = replace(fd, &a, access, backlog);
	if (r < 0) {
		(void)close(fd);
		return r;
	}
	return fd;
}
