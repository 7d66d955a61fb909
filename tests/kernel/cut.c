/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Copyright (C) 2026 the rbdcrypt-nbd authors */

/*
 * cut PID [N]: shuts down N (default: all) of the process's unnamed stream sockets, the ones that
 * it shares with the kernel's nbd driver; which ones is chance. Prints how many there were.
 *
 * cut PID hold SECONDS: keeps them all open instead, also when the process has ended.
 */

#include <dirent.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

#define SOCKETS_MAX 256

static int is_pair(int fd)
{
	struct sockaddr_un mine, peer;
	socklen_t mine_len = sizeof(mine), peer_len = sizeof(peer), type_len = sizeof(int);
	int type;

	return getsockopt(fd, SOL_SOCKET, SO_TYPE, &type, &type_len) == 0 && type == SOCK_STREAM &&
	       getsockname(fd, (struct sockaddr *)&mine, &mine_len) == 0 &&
	       mine.sun_family == AF_UNIX && mine_len == sizeof(sa_family_t) &&
	       getpeername(fd, (struct sockaddr *)&peer, &peer_len) == 0 &&
	       peer_len == sizeof(sa_family_t);
}

int main(int argc, char **argv)
{
	int pid = argc > 1 ? atoi(argv[1]) : 0, n = 0, pairs[SOCKETS_MAX];
	int pidfd = (int)syscall(SYS_pidfd_open, pid, 0);
	bool is_held = argc > 3 && strcmp(argv[2], "hold") == 0;
	int wanted = argc > 2 ? atoi(argv[2]) : SOCKETS_MAX;
	struct dirent *entry;
	char path[64];
	DIR *dir;

	(void)snprintf(path, sizeof(path), "/proc/%d/fd", pid);
	dir = opendir(path);
	if (pidfd < 0 || !dir) {
		perror(path);
		return 1;
	}
	while ((entry = readdir(dir)) && n < SOCKETS_MAX) {
		int fd = (int)syscall(SYS_pidfd_getfd, pidfd, atoi(entry->d_name), 0);

		if (entry->d_name[0] != '.' && fd >= 0 && is_pair(fd))
			pairs[n++] = fd;
		else if (fd >= 0)
			(void)close(fd);
	}
	(void)closedir(dir);
	(void)printf("%d\n", n);
	if (is_held) {
		(void)fflush(stdout);
		(void)sleep((unsigned int)atoi(argv[3]));
		return 0;
	}
	srand((unsigned int)time(NULL) ^ (unsigned int)getpid());
	for (int left = n; left > 0 && wanted > 0; left--, wanted--) {
		int i = rand() % left;

		(void)shutdown(pairs[i], SHUT_RDWR);
		pairs[i] = pairs[left - 1];
	}
	return 0;
}
