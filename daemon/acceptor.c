/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Copyright (C) 2026 the rbdcrypt-nbd authors */

/*
 * What the listener of a volume and the control socket do in the same way, on the thread of their
 * loop. A client that cannot be accepted stays in the socket's queue, and the socket stays
 * readable: without a pause the loop would turn as fast as it can until somebody leaves. Owns the
 * socket and a timer.
 */

#include "acceptor.h"

#include <errno.h>
#include <stddef.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "log.h"

#define PAUSE_MS 500

static bool is_shortage(int error)
{
	return error == EMFILE || error == ENFILE || error == ENOBUFS || error == ENOMEM;
}

static void on_listening(struct watch *w)
{
	struct acceptor *a = (struct acceptor *)((char *)w - offsetof(struct acceptor, listening));
	int fd = accept4(w->fd, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);
	int error = errno;

	if (fd >= 0) {
		a->is_short = false;
		a->came(a, fd);
		return;
	}
	/* EAGAIN and what a client did to itself meanwhile are nobody's business. */
	if (!is_shortage(error))
		return;
	if (!a->is_short)
		log_warning(a->subject, "clients have to wait: %s", strerror(error));
	a->is_short = true;
	loop_want(a->loop, w, false, false);
	timer_set(a->pause.fd, PAUSE_MS);
}

static void on_pause_over(struct watch *w)
{
	struct acceptor *a = (struct acceptor *)((char *)w - offsetof(struct acceptor, pause));

	timer_clear(w->fd);
	loop_want(a->loop, &a->listening, true, false);
}

void acceptor_init(struct acceptor *a)
{
	memset(a, 0, sizeof(*a));
	a->listening.fd = a->pause.fd = -1;
}

int acceptor_start(struct acceptor *a, int fd)
{
	int r = loop_watch(a->loop, &a->pause, timer_new(), on_pause_over);

	if (r == 0)
		r = loop_watch(a->loop, &a->listening, fd, on_listening);
	if (r < 0) {
		a->listening.fd = -1;
		acceptor_stop(a);
	}
	return r;
}

void acceptor_stop(struct acceptor *a)
{
	struct watch *watches[] = { &a->listening, &a->pause };

	for (size_t i = 0; i < 2; i++) {
		if (watches[i]->fd < 0)
			continue;
		loop_remove(a->loop, watches[i]);
		(void)close(watches[i]->fd);
		watches[i]->fd = -1;
	}
}
