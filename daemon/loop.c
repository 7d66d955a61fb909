/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Copyright (C) 2026 the rbdcrypt-nbd authors */

/*
 * epoll, kept as small as it can be. Events are taken one at a time, so that a watch
 * removed by another's ready can never be called afterwards.
 */

#include "loop.h"

#include <errno.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/timerfd.h>
#include <unistd.h>

struct loop {
	int fd;
	bool is_quitting;
};

int loop_new(struct loop **ret)
{
	struct loop *l = calloc(1, sizeof(*l));
	int r;

	if (!l)
		return -ENOMEM;
	l->fd = epoll_create1(EPOLL_CLOEXEC);
	if (l->fd < 0) {
		r = -errno;
		free(l);
		return r;
	}
	*ret = l;
	return 0;
}

struct loop *loop_free(struct loop *l)
{
	if (!l)
		return NULL;
	(void)close(l->fd);
	free(l);
	return NULL;
}

int loop_add(struct loop *l, struct watch *w)
{
	struct epoll_event e = { .events = EPOLLIN, .data.ptr = w };

	if (epoll_ctl(l->fd, EPOLL_CTL_ADD, w->fd, &e) < 0)
		return -errno;
	w->is_added = true;
	return 0;
}

int loop_watch(struct loop *l, struct watch *w, int fd, void (*ready)(struct watch *w))
{
	if (fd < 0)
		return fd;
	w->fd = fd;
	w->ready = ready;
	return loop_add(l, w);
}

void loop_want(struct loop *l, struct watch *w, bool input, bool output)
{
	struct epoll_event e = { .events = (input ? (uint32_t)EPOLLIN : 0) |
					   (output ? (uint32_t)EPOLLOUT : 0),
				 .data.ptr = w };

	/* What is in can be changed. */
	(void)epoll_ctl(l->fd, EPOLL_CTL_MOD, w->fd, &e);
}

void loop_remove(struct loop *l, struct watch *w)
{
	if (!w->is_added)
		return;
	(void)epoll_ctl(l->fd, EPOLL_CTL_DEL, w->fd, NULL);
	w->is_added = false;
}

int loop_run_until_quiet(struct loop *l, int quiet_ms)
{
	while (!l->is_quitting) {
		struct epoll_event e;
		struct watch *w;
		int n = epoll_wait(l->fd, &e, 1, quiet_ms);

		if (n < 0 && errno != EINTR)
			return -errno;
		if (n == 0)
			return LOOP_QUIET;
		if (n < 0)
			continue;
		w = e.data.ptr;
		w->ready(w);
	}
	return 0;
}

int loop_run(struct loop *l)
{
	return loop_run_until_quiet(l, -1);
}

void loop_quit(struct loop *l)
{
	l->is_quitting = true;
}

int loop_fd(const struct loop *l)
{
	return l->fd;
}

int event_new(void)
{
	int fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);

	return fd < 0 ? -errno : fd;
}

void event_raise(int fd)
{
	uint64_t one = 1;

	/* Fails only when the counter is full: then it is raised already. */
	(void)!write(fd, &one, sizeof(one));
}

void event_clear(int fd)
{
	uint64_t n;

	(void)!read(fd, &n, sizeof(n));
}

int timer_new(void)
{
	int fd = timerfd_create(CLOCK_MONOTONIC, TFD_CLOEXEC | TFD_NONBLOCK);

	return fd < 0 ? -errno : fd;
}

void timer_set(int fd, unsigned int ms)
{
	struct itimerspec t = { .it_value = { ms / 1000, (long)(ms % 1000) * 1000000 } };

	(void)timerfd_settime(fd, 0, &t, NULL);
}

void timer_clear(int fd)
{
	event_clear(fd);
}
