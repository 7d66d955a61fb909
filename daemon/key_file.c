/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Copyright (C) 2026 the rbdcrypt-nbd authors */

/*
 * Passphrases in files and behind descriptors. A file that others can read is no secret and is
 * refused; others are those who are neither its owner, nor root, nor in a group of ours. The mode
 * of the file alone does not tell: one of mode 0644 in a folder of mode 0700 is out of their reach.
 * Descriptors are not judged, since whoever opened them could read them.
 */

#include "key_kind.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define GROUPS_MAX 65536

/* Root's, or one that this process is in. */
static bool is_our_group(gid_t gid)
{
	int n = getgroups(0, NULL);
	gid_t *groups;
	bool is_ours = gid == 0 || gid == getegid();

	if (is_ours || n <= 0 || n > GROUPS_MAX)
		return is_ours;
	groups = calloc((size_t)n, sizeof(*groups));
	n = groups ? getgroups(n, groups) : 0;
	for (int i = 0; i < n; i++)
		is_ours = is_ours || groups[i] == gid;
	free(groups);
	return is_ours;
}

/* Whether somebody else has the right; others and group are the bits that give it. */
static bool is_given_away(const struct stat *st, mode_t others, mode_t group)
{
	return st->st_mode & others || (st->st_mode & group && !is_our_group(st->st_gid));
}

/* Whether others can walk to it: through every folder above it. What cannot be seen, they can. */
static bool is_within_reach(int fd)
{
	char name[32], path[PATH_MAX];
	struct stat st;
	ssize_t n;
	char *slash;

	(void)snprintf(name, sizeof(name), "/proc/self/fd/%d", fd);
	n = readlink(name, path, sizeof(path) - 1);
	if (n <= 0 || path[0] != '/')
		return true;
	path[n] = '\0';
	while ((slash = strrchr(path, '/')) && slash != path) {
		*slash = '\0';
		if (stat(path, &st) == 0 && !is_given_away(&st, S_IXOTH, S_IXGRP))
			return false;
	}
	return true;
}

static int check_mode(const struct key_request *q, int fd, struct fault *f)
{
	struct stat st;

	if (fstat(fd, &st) < 0)
		return -errno;
	if (q->o->is_insecure_allowed || !S_ISREG(st.st_mode) ||
	    !is_given_away(&st, S_IROTH, S_IRGRP) || !is_within_reach(fd))
		return 0;
	(void)fault_set(f, EXIT_PASSPHRASE, -EPERM,
			"passphrase file %s has mode %04o: others can read it", q->source,
			(unsigned int)(st.st_mode & 07777));
	fault_hint(f, "chmod 600 %s, or --allow-insecure-permissions", q->source);
	return -EPERM;
}

int key_file_check(const struct key_request *q, struct fault *f)
{
	struct stat st;
	int fd, r;

	if (access(q->text, R_OK) < 0 || stat(q->text, &st) < 0)
		return -errno;
	if (S_ISDIR(st.st_mode))
		return -EISDIR;
	/* Whoever writes to a fifo, and some devices, would notice. */
	if (!S_ISREG(st.st_mode))
		return 0;
	fd = open(q->text, O_RDONLY | O_CLOEXEC | O_NOCTTY | O_NONBLOCK);
	if (fd < 0)
		return -errno;
	r = check_mode(q, fd, f);
	(void)close(fd);
	return r;
}

int key_file_read(const struct key_request *q, struct secret **ret, struct fault *f)
{
	/* Not to wait in open() for a fifo's writer: the deadline counts from key_wait() on. */
	int fd = open(q->text, O_RDONLY | O_CLOEXEC | O_NOCTTY | O_NONBLOCK);
	struct stat st;
	int r;

	if (fd < 0) {
		r = -errno;
		/* So is what has no device behind it. */
		if (r == -ENXIO && stat(q->text, &st) == 0 && S_ISSOCK(st.st_mode))
			return key_socket_read(q, ret, f);
		return r;
	}
	r = check_mode(q, fd, f);
	if (r == 0)
		r = key_read_fd(q, fd, ret);
	(void)close(fd);
	return r;
}

int key_stdin_read(const struct key_request *q, struct secret **ret, struct fault *f)
{
	(void)f;
	return key_read_fd(q, STDIN_FILENO, ret);
}

int key_fd_read(const struct key_request *q, struct secret **ret, struct fault *f)
{
	char *end;
	unsigned long n;
	int flags, r;

	errno = 0;
	n = strtoul(q->text, &end, 10);
	if (q->text[0] < '0' || q->text[0] > '9' || *end || errno || n > INT_MAX) {
		(void)fault_set(f, EXIT_USAGE, -EINVAL, "%s: '%s' is no descriptor", q->source,
				q->text);
		fault_hint(f, "for example fd:3 with 3</etc/vol.key");
		return -EINVAL;
	}
	flags = fcntl((int)n, F_GETFD);
	/* What closes itself on exec() was opened here; it was not given to us. */
	if (flags < 0 || flags & FD_CLOEXEC) {
		(void)fault_set(f, EXIT_USAGE, -EBADF, "%s: no such descriptor was passed",
				q->source);
		fault_hint(f, "for example fd:3 with 3</etc/vol.key");
		return -EBADF;
	}
	r = key_read_fd(q, (int)n, ret);
	/* Nobody else needs it; but the standard ones keep their numbers. */
	if (n > STDERR_FILENO)
		(void)close((int)n);
	return r;
}
