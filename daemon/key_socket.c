/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Copyright (C) 2026 the rbdcrypt-nbd authors */

/*
 * Passphrases from a service behind a unix socket, as crypttab has them: connect, read to the end.
 * The name of our end tells the service what is asked for:
 *
 *	NUL, a random number, "/rbdcrypt-nbd/", layer, "/", pool/[namespace/]image[@snap]
 *
 * in the abstract namespace, cut where a socket's name ends. Anchor: crypttab(5), "key file is an
 * AF_UNIX socket".
 */

#include "key_kind.h"

#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <sys/random.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

#define RETRY_MS 20

/* The first byte stays zero: abstract. */
static socklen_t our_name(const struct key_place *p, struct sockaddr_un *ret)
{
	uint64_t random = 0;
	int n;

	memset(ret, 0, sizeof(*ret));
	ret->sun_family = AF_UNIX;
	/* Only to be unlike the others'. */
	if (getrandom(&random, sizeof(random), GRND_NONBLOCK) != (ssize_t)sizeof(random))
		random = (uint64_t)getpid();
	n = snprintf(ret->sun_path + 1, sizeof(ret->sun_path) - 1,
		     "%016llx/rbdcrypt-nbd/%u/%s%s%s%s%s%s%s", (unsigned long long)random, p->layer,
		     p->pool, p->pool[0] ? "/" : "", p->nspace, p->nspace[0] ? "/" : "", p->image,
		     p->snap[0] ? "@" : "", p->snap);
	if (n < 0 || (size_t)n > sizeof(ret->sun_path) - 2)
		n = sizeof(ret->sun_path) - 2;
	return (socklen_t)(offsetof(struct sockaddr_un, sun_path) + 1 + (size_t)n);
}

/* A full queue of connections is worth waiting for. */
static int connect_until(const struct key_request *q, int fd, const struct sockaddr_un *to)
{
	const struct timespec pause = { .tv_nsec = RETRY_MS * 1000000L };
	int r;

	while (connect(fd, (const struct sockaddr *)to, sizeof(*to)) < 0) {
		if (errno != EAGAIN && errno != EINTR)
			return -errno;
		(void)nanosleep(&pause, NULL);
		r = key_is_late(q);
		if (r < 0)
			return r;
	}
	return 0;
}

int key_socket_read(const struct key_request *q, struct secret **ret, struct fault *f)
{
	struct sockaddr_un to = { .sun_family = AF_UNIX }, from;
	socklen_t from_len = our_name(q->place, &from);
	int fd, r;

	if (strlen(q->text) >= sizeof(to.sun_path) || !q->text[0]) {
		(void)fault_set(f, EXIT_USAGE, -EINVAL, "%s: a socket's path has 1 to %zu bytes",
				q->source, sizeof(to.sun_path) - 1);
		return -EINVAL;
	}
	(void)memcpy(to.sun_path, q->text, strlen(q->text));
	fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	if (fd < 0)
		return -errno;
	r = bind(fd, (const struct sockaddr *)&from, from_len) < 0 ? -errno : 0;
	if (r == 0)
		r = connect_until(q, fd, &to);
	if (r == 0)
		r = key_read_fd(q, fd, ret);
	(void)close(fd);
	return r;
}

int key_socket_check(const struct key_request *q, struct fault *f)
{
	(void)f;
	return access(q->text, W_OK) < 0 ? -errno : 0;
}
