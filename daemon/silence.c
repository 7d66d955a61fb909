/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Copyright (C) 2026 the rbdcrypt-nbd authors */

/* For both sockets of a daemon, the control socket and those of its volumes. Owns nothing. */

#include "silence.h"

#include <errno.h>
#include <poll.h>
#include <stdint.h>
#include <stdio.h>
#include <sys/socket.h>
#include <sys/time.h>

#include "clock.h"

int silence_wait(int fd, int seconds)
{
	struct pollfd p = { .fd = fd, .events = POLLIN };
	int64_t end = clock_ms() + (int64_t)seconds * 1000, left = (int64_t)seconds * 1000;
	int r;

	while ((r = poll(&p, 1, left > 0 ? (int)left : 0)) < 0 && errno == EINTR)
		left = end - clock_ms();
	return r < 0 ? -errno : r == 0 ? -ETIMEDOUT : 0;
}

int silence_outwait(int fd, bool (*is_answering)(const char *path), const char *path)
{
	int r;

	do
		r = silence_wait(fd, SILENCE_LOOK_S);
	while (r == -ETIMEDOUT && is_answering(path));
	/* It may have come in the last moment. */
	return r == -ETIMEDOUT ? silence_wait(fd, 0) : r;
}

int silence_limit_send(int fd)
{
	const struct timeval limit = { .tv_sec = SILENCE_S };

	return setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &limit, sizeof(limit)) < 0 ? -errno : 0;
}

int silence_fault(struct fault *f, const char *who, int pid)
{
	char process[32] = "";

	if (pid > 0)
		(void)snprintf(process, sizeof(process), " (process %d)", pid);
	(void)fault_set(f, EXIT_TIMED_OUT, -ETIMEDOUT,
			"%s%s has not answered anything for %d seconds", who, process, SILENCE_S);
	if (pid > 0)
		fault_hint(
			f,
			"if somebody has stopped it, kill -CONT %d; else see its log. list, status "
			"and stats do without it",
			pid);
	return -ETIMEDOUT;
}
