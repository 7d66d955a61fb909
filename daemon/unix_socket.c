/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Copyright (C) 2026 the rbdcrypt-nbd authors */

/* Sockets with a name in the filesystem: of a volume that is served, and of a daemon. */

#include "unix_socket.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <sys/file.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include "text.h"

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

/* What bind() has just made. */
static void note_name(const char *path, struct unix_socket_name *ret)
{
	struct stat st;

	if (lstat(path, &st) < 0 || !S_ISSOCK(st.st_mode) || st.st_uid != geteuid())
		return;
	text_copy(ret->path, sizeof(ret->path), path);
	ret->dev = st.st_dev;
	ret->ino = st.st_ino;
}

static void remove_name(const struct unix_socket_name *name)
{
	struct stat st;

	if (name->path[0] && lstat(name->path, &st) == 0 && st.st_dev == name->dev &&
	    st.st_ino == name->ino)
		(void)unlink(name->path);
}

/* Linux gives the file the socket's own mode, so nobody can be faster; the umask is all threads'.
 */
static int bind_at(int fd, const struct sockaddr_un *a, const struct unix_socket_access *access,
		   int backlog, struct unix_socket_name *ret)
{
	int r;

	if (fchmod(fd, 0600) < 0 || bind(fd, (const struct sockaddr *)a, sizeof(*a)) < 0)
		return -errno;
	note_name(a->sun_path, ret);
	r = set_access(a->sun_path, access);
	if (r == 0 && listen(fd, backlog) < 0)
		r = -errno;
	if (r < 0)
		remove_name(ret);
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
		   int backlog, struct unix_socket_name *ret)
{
	int r = look_for_dead(a);

	/* It may have ended, and removed it, in the meantime. */
	if (r == 0 && unlink(a->sun_path) < 0 && errno != ENOENT)
		r = -errno;
	return r < 0 ? r : bind_at(fd, a, access, backlog, ret);
}

/* A turn takes moments. Who holds the folder for longer is none of us. */
#define TURN_MS 2000
#define TURN_STEP_MS 5

/*
 * The turn to make a socket in the folder of path, or to remove one: else two of us, at the same
 * moment, could each find that nobody listens there, and one take the other's name away. To be
 * closed; -1 without a turn, which is no reason not to serve.
 */
static int take_turn(const char *path)
{
	const char *slash = strrchr(path, '/');
	char dir[sizeof(((struct sockaddr_un *)0)->sun_path) + 1] = ".";
	int fd;

	if (slash)
		(void)snprintf(dir, sizeof(dir), "%.*s", (int)(slash - path) + 1, path);
	fd = open(dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	for (int ms = 0; fd >= 0 && flock(fd, LOCK_EX | LOCK_NB) < 0; ms += TURN_STEP_MS) {
		if (errno != EWOULDBLOCK || ms >= TURN_MS) {
			(void)close(fd);
			return -1;
		}
		(void)poll(NULL, 0, TURN_STEP_MS);
	}
	return fd;
}

int unix_socket_listen(const char *path, const struct unix_socket_access *access, int backlog,
		       struct unix_socket_name *ret)
{
	struct sockaddr_un a = { .sun_family = AF_UNIX };
	struct unix_socket_name name = { .path = "" };
	struct stat st;
	int fd, turn, r;

	if (strlen(path) >= sizeof(a.sun_path))
		return -ENAMETOOLONG;
	(void)strcpy(a.sun_path, path);
	fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	if (fd < 0)
		return -errno;
	turn = take_turn(path);
	r = bind_at(fd, &a, access, backlog, &name);
	if (r == -EADDRINUSE && lstat(path, &st) == 0 && !S_ISSOCK(st.st_mode))
		r = -EEXIST;
	if (r == -EADDRINUSE)
		r = replace(fd, &a, access, backlog, &name);
	if (turn >= 0)
		(void)close(turn);
	if (r < 0) {
		(void)close(fd);
		return r;
	}
	*ret = name;
	return fd;
}

void unix_socket_remove(struct unix_socket_name *name)
{
	int turn = name->path[0] ? take_turn(name->path) : -1;

	remove_name(name);
	name->path[0] = '\0';
	if (turn >= 0)
		(void)close(turn);
}
