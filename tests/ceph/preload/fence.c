/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Copyright (C) 2026 the rbdcrypt-nbd authors */

/*
 * A library that is loaded before librados, for fence.sh. NO_BLOCKLIST: the monitors do not answer
 * who wants a client blocklisted. DIE_AT_LISTEN: the process is killed as soon as it has a socket
 * that clients can connect to.
 */

#include <dlfcn.h>
#include <errno.h>
#include <rados/librados.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <unistd.h>

int rados_blocklist_add(rados_t cluster, char *address, uint32_t expire_s)
{
	int (*add)(rados_t, char *, uint32_t) =
		(int (*)(rados_t, char *, uint32_t))dlsym(RTLD_NEXT, "rados_blocklist_add");

	return getenv("NO_BLOCKLIST") ? -ETIMEDOUT : add(cluster, address, expire_s);
}

int listen(int fd, int backlog)
{
	int (*real)(int, int) = (int (*)(int, int))dlsym(RTLD_NEXT, "listen");
	int r = real(fd, backlog);

	if (r == 0 && getenv("DIE_AT_LISTEN"))
		(void)kill(getpid(), SIGKILL);
	return r;
}
