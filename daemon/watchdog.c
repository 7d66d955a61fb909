/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Copyright (C) 2026 the rbdcrypt-nbd authors */

/*
 * The control loop's sign of life. It comes from the loop itself, not from a thread of its own, so
 * a loop that is stuck is seen. Volumes have loops of their own, which may rightly wait for a
 * cluster that is away, and so they do not count.
 */

#include "watchdog.h"

#include <errno.h>
#include <stddef.h>
#include <stdint.h>
#include <systemd/sd-daemon.h>
#include <unistd.h>

/* Signs of life per period; one may come late. */
#define SIGNS 3

static void on_timer(struct watch *timer)
{
	struct watchdog *w = (struct watchdog *)((char *)timer - offsetof(struct watchdog, timer));

	timer_clear(timer->fd);
	(void)sd_notify(0, "WATCHDOG=1");
	timer_set(timer->fd, w->period_ms);
}

int watchdog_start(struct watchdog *w, struct loop *l)
{
	uint64_t usec = 0;
	int r = sd_watchdog_enabled(0, &usec);

	w->timer.fd = -1;
	if (r <= 0)
		return r;
	w->period_ms = usec / 1000 / SIGNS > 0 ? (unsigned int)(usec / 1000 / SIGNS) : 1;
	r = loop_watch(l, &w->timer, timer_new(), on_timer);
	if (r == 0)
		timer_set(w->timer.fd, w->period_ms);
	return r;
}

void watchdog_stop(struct watchdog *w, struct loop *l)
{
	if (w->timer.fd < 0)
		return;
	loop_remove(l, &w->timer);
	(void)close(w->timer.fd);
	w->timer.fd = -1;
}
