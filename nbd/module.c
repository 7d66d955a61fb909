/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Copyright (C) 2026 the rbdcrypt-nbd authors */

/*
 * Makes sure that the kernel has its nbd driver, by running modprobe as an
 * administrator would (its configuration and its blacklists count). Command line
 * only, before threads matter; waits for the child it starts.
 */

#include "internal.h"

#include <errno.h>
#include <fcntl.h>
#include <spawn.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "log.h"
#include "scope.h"

/* How the child starts: no standard streams of ours but a pipe for what it complains about. */
static int start(const char *path, const char *const argv[], int stderr_fd, pid_t *ret)
{
	static const char *const env[] = { "PATH=/sbin:/usr/sbin:/bin:/usr/bin", NULL };
	posix_spawn_file_actions_t actions;
	posix_spawnattr_t attr;
	sigset_t none, all;
	int r;

	r = posix_spawn_file_actions_init(&actions);
	if (r != 0)
		return -r;
	r = posix_spawnattr_init(&attr);
	if (r != 0) {
		posix_spawn_file_actions_destroy(&actions);
		return -r;
	}
	/* We block signals for our signalfd; the child must not inherit that. */
	sigemptyset(&none);
	sigfillset(&all);
	if ((r = posix_spawn_file_actions_addopen(&actions, 0, "/dev/null", O_RDONLY, 0)) == 0 &&
	    (r = posix_spawn_file_actions_addopen(&actions, 1, "/dev/null", O_WRONLY, 0)) == 0 &&
	    (r = posix_spawn_file_actions_adddup2(&actions, stderr_fd, 2)) == 0 &&
	    (r = posix_spawnattr_setsigmask(&attr, &none)) == 0 &&
	    (r = posix_spawnattr_setsigdefault(&attr, &all)) == 0 &&
	    (r = posix_spawnattr_setflags(&attr, POSIX_SPAWN_SETSIGMASK | POSIX_SPAWN_SETSIGDEF)) ==
		    0)
		/* The prototype lacks const for historical reasons; nothing is written to. */
		r = posix_spawn(ret, path, &actions, &attr, (char *const *)(uintptr_t)argv,
				(char *const *)(uintptr_t)env);
	posix_spawnattr_destroy(&attr);
	posix_spawn_file_actions_destroy(&actions);
	return -r;
}

/* Keeps the beginning of what comes, reads to the end, and makes one line of it. */
static void drain(int fd, char *buf, size_t len)
{
	char more[512];
	size_t got = 0;
	ssize_t n;

	while ((n = read(fd, more, sizeof(more))) != 0) {
		size_t room = len - 1 - got;

		if (n < 0) {
			if (errno == EINTR)
				continue;
			break;
		}
		if ((size_t)n < room)
			room = (size_t)n;
		memcpy(buf + got, more, room);
		got += room;
	}
	buf[got] = 0;
	buf[strcspn(buf, "\n")] = 0;
}

/* 0 when it exited with 0. What it complained about goes to buf in any case. */
static int run(const char *path, const char *const argv[], char *buf, size_t len)
{
	int fds[2], status, r;
	pid_t pid;

	buf[0] = 0;
	if (pipe2(fds, O_CLOEXEC) < 0)
		return -errno;
	r = start(path, argv, fds[1], &pid);
	close(fds[1]);
	if (r == 0)
		drain(fds[0], buf, len);
	close(fds[0]);
	if (r < 0)
		return r;
	while (waitpid(pid, &status, 0) < 0)
		if (errno != EINTR)
			return -errno;
	return WIFEXITED(status) && WEXITSTATUS(status) == 0 ? 0 : -ECHILD;
}

int module_load_at(const struct module_roots *roots, unsigned int nbds_max, unsigned int max_part,
		   struct fault *f)
{
	char nbds_text[32], part_text[32], complaint[256];
	const char *argv[5] = { "modprobe", "nbd" };
	unsigned int argc = 2, i;
	int r = -ENOENT;

	if (access(roots->sys_module, F_OK) == 0)
		return 0;
	if (nbds_max > 0) {
		(void)snprintf(nbds_text, sizeof(nbds_text), "nbds_max=%u", nbds_max);
		argv[argc++] = nbds_text;
	}
	if (max_part > 0) {
		(void)snprintf(part_text, sizeof(part_text), "max_part=%u", max_part);
		argv[argc++] = part_text;
	}
	for (i = 0; roots->modprobe[i] && r == -ENOENT; i++)
		r = run(roots->modprobe[i], argv, complaint, sizeof(complaint));
	if (r == -ENOENT)
		fault_set(f, EXIT_KERNEL, r,
			  "kernel module nbd is not loaded, and there is no modprobe");
	else if (r < 0 && complaint[0])
		fault_set(f, EXIT_KERNEL, r, "kernel module nbd cannot be loaded: %s", complaint);
	else if (r < 0)
		fault_set(f, EXIT_KERNEL, r, "kernel module nbd cannot be loaded: modprobe failed");
	/* A dry-run or an "install" line in its configuration can make modprobe succeed idly. */
	else if (access(roots->sys_module, F_OK) < 0)
		r = fault_set(f, EXIT_KERNEL, -ENODEV,
			      "kernel module nbd is still not there after modprobe");
	if (r < 0)
		fault_hint(f,
			   "run this on a kernel that has the nbd driver (CONFIG_BLK_DEV_NBD), or "
			   "use \"serve\", which needs none");
	log_debug(NULL, "modprobe nbd: %d", r);
	return r;
}

int nbdctl_load_module(unsigned int nbds_max, unsigned int max_part, struct fault *f)
{
	static const char *const modprobe[] = { "/sbin/modprobe", "/usr/sbin/modprobe",
						"/bin/modprobe", "/usr/bin/modprobe", NULL };
	static const struct module_roots roots = { "/sys/module/nbd", modprobe };

	return module_load_at(&roots, nbds_max, max_part, f);
}
