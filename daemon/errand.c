/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Copyright (C) 2026 the rbdcrypt-nbd authors */

/*
 * A thread that runs one function and raises an event. It hides that from those who have something
 * to wait for: guard of the keys, question for the lock. Owns the thread and the event.
 */

#include "errand.h"

#include <stddef.h>
#include <unistd.h>

static void *run(void *arg)
{
	struct errand *e = arg;

	e->run(e->arg);
	event_raise(e->over.fd);
	return NULL;
}

static void on_over(struct watch *w)
{
	struct errand *e = (struct errand *)((char *)w - offsetof(struct errand, over));

	event_clear(w->fd);
	(void)pthread_join(e->thread, NULL);
	e->is_running = false;
	e->ended(e->arg);
}

int errand_init(struct errand *e, struct loop *loop)
{
	int fd = event_new(), r = loop_watch(loop, &e->over, fd, on_over);

	if (r < 0) {
		if (fd >= 0)
			(void)close(fd);
		return r;
	}
	e->loop = loop;
	return 0;
}

int errand_start(struct errand *e)
{
	int r;

	if (e->is_running)
		return 0;
	r = -pthread_create(&e->thread, NULL, run, e);
	if (r == 0) {
		(void)pthread_setname_np(e->thread, e->name);
		e->is_running = true;
	}
	return r;
}

void errand_done(struct errand *e)
{
	if (!e->loop)
		return;
	if (e->is_running)
		(void)pthread_join(e->thread, NULL);
	e->is_running = false;
	loop_remove(e->loop, &e->over);
	(void)close(e->over.fd);
	e->loop = NULL;
}
