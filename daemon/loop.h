/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Copyright (C) 2026 the rbdcrypt-nbd authors */

#ifndef DAEMON_LOOP_H
#define DAEMON_LOOP_H

#include <stdbool.h>

/*
 * The event loop of the control thread, and of each volume: signals, sockets, timers, and what
 * other threads signal through an eventfd. IO never passes through here. One thread at a time, but
 * for the event of an eventfd.
 */
struct loop;

struct watch {
	/*
	 * Called by the loop when fd can be read, or what loop_want() said, or when its other end
	 * is gone. May remove this watch or any other.
	 */
	void (*ready)(struct watch *w);
	int fd; /* the owner's, stays open until loop_remove() */
	bool is_added;
};

int loop_new(struct loop **ret);
struct loop *loop_free(struct loop *l);

/* Asks for ready when w->fd has input. 0 or -errno. */
int loop_add(struct loop *l, struct watch *w);
/* The same with a new fd, which is w's from then on; or -errno in its place, which is returned. */
int loop_watch(struct loop *l, struct watch *w, int fd, void (*ready)(struct watch *w));
/* From now on for input, for room for output, for both, or for neither. */
void loop_want(struct loop *l, struct watch *w, bool input, bool output);
/* Harmless when it is not in. ready is not called any more. */
void loop_remove(struct loop *l, struct watch *w);

/* Until loop_quit(). 0 or -errno. */
int loop_run(struct loop *l);
/* The same, or until nothing has happened for quiet_ms: then LOOP_QUIET, and it can run again. */
int loop_run_until_quiet(struct loop *l, int quiet_ms);
#define LOOP_QUIET 1
void loop_quit(struct loop *l);
/* Can be read when loop_run() would have something to do; the loop's own. */
int loop_fd(const struct loop *l);

/* ---- an event: any thread raises it, the loop's thread sees it once ---- */
int event_new(void); /* the fd, or -errno */
void event_raise(int fd); /* any thread */
void event_clear(int fd);

/* ---- a timer: readable once the time has come ---- */
int timer_new(void); /* the fd, or -errno */
void timer_set(int fd, unsigned int ms); /* 0: off */
void timer_clear(int fd);

#endif
