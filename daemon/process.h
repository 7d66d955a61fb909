/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Copyright (C) 2026 the rbdcrypt-nbd authors */

#ifndef DAEMON_PROCESS_H
#define DAEMON_PROCESS_H

#include <signal.h>
#include <stdbool.h>

#include "interrupt.h"

/*
 * What the process is to its surroundings: the fork, readiness, signals, memory.
 */

/*
 * Before any thread. Parent: waits until the child is ready or has ended, passes SIGINT and SIGTERM
 * on to it, and exits with its status; it does not return. Child: returns 0 with *ret_ready_fd for
 * process_ready(). -errno.
 */
int process_fork(int *ret_ready_fd);

/*
 * The child is in service: lets the parent exit with 0 and gives up standard input, output and
 * error. -EPIPE: the parent is gone, nobody knows of this service. Another -errno: they cannot be
 * given up, and the parent was told nothing.
 */
int process_ready(int ready_fd);

/*
 * Before any thread: SIGTERM, SIGINT and SIGHUP are held back for process_signal_fd(), SIGPIPE and
 * SIGXFSZ are ignored, the allocator's waste is bounded for hundreds of volumes, and descriptors
 * are allowed for as many, where the system lets it.
 */
int process_setup(void);
/* A descriptor that is readable when one of them came; -errno. */
int process_signal_fd(void);
/* The next of them, 0: none. */
int process_next_signal(int fd);

/*
 * While a command has to put something back before it ends, a terminal or a program that it has
 * started: SIGTERM, SIGINT and SIGHUP are held back, and raise interrupt. From process_release() on
 * they do what they would have done; it may not return. In place until then.
 */
struct process_hold {
	sigset_t held, before;
	struct interrupt interrupt;
};
void process_hold(struct process_hold *h);
void process_release(const struct process_hold *h);

/*
 * This process writes to a block device that the kernel may need written to free memory: its
 * threads must not wait for such memory themselves. Inherited by threads made later. 0 or -errno
 * (no privilege). That takes CAP_SYS_RESOURCE, which is given up afterwards.
 */
int process_set_io_flusher(void);

#endif
