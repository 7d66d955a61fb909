/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Copyright (C) 2026 the rbdcrypt-nbd authors */

#ifndef DAEMON_WATCHDOG_H
#define DAEMON_WATCHDOG_H

#include "loop.h"

/*
 * Tells systemd that the control loop still turns (WatchdogSec=), for as long as it does. Control
 * thread only.
 */
struct watchdog {
	struct watch timer; /* fd -1: nobody asked for it */
	unsigned int period_ms;
};

/* 0, also when nobody wants to know; -errno. */
int watchdog_start(struct watchdog *w, struct loop *l);
/* One that never started, but is zeroed with timer.fd -1, is fine. */
void watchdog_stop(struct watchdog *w, struct loop *l);

#endif
