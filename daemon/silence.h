/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Copyright (C) 2026 the rbdcrypt-nbd authors */

#ifndef DAEMON_SILENCE_H
#define DAEMON_SILENCE_H

#include <stdbool.h>

#include "fault.h"

/*
 * When commands take a daemon for one that hangs, or was stopped. What it was asked for may take as
 * long as it does: meanwhile, whoever waits has it asked now and then, on another connection, for
 * something that costs it nothing. Threads of commands.
 */

/* Between the looks of who waits. */
#define SILENCE_LOOK_S 10
/*
 * Without any answer. One that ends takes nobody's calls any more, for up to 30 seconds in which it
 * finishes what is in flight; all others answer within moments.
 */
#define SILENCE_S 45

/* Until there is something to be read, also an end. 0; -ETIMEDOUT after seconds; -errno. */
int silence_wait(int fd, int seconds);

/* The same for as long as is_answering(path), which takes up to SILENCE_S itself. */
int silence_outwait(int fd, bool (*is_answering)(const char *path), const char *path);

/* Connecting and sending wait as long: a queue that is full is never emptied. 0 or -errno. */
int silence_limit_send(int fd);

/* Sets f to EXIT_TIMED_OUT. who: "rbd/vol: its daemon". pid 0: not known. Returns -ETIMEDOUT. */
int silence_fault(struct fault *f, const char *who, int pid);

#endif
