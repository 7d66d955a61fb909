/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Copyright (C) 2026 the rbdcrypt-nbd authors */

#ifndef DAEMON_HANDOVER_H
#define DAEMON_HANDOVER_H

#include <stdbool.h>
#include <stddef.h>

/*
 * Our ends of the kernel's sockets, on their way from one process to the next through the
 * descriptor store of the service manager. A process has one of these or none; NULL, where there is
 * no service manager, gives and takes nothing.
 */
struct handover;

/* The note of 64 sockets, the most that --connections allows: numbers of 20 digits and blanks. */
#define HANDOVER_NOTE_BYTES 1408

/*
 * What the service manager passed to this process: sockets of devices, which wait here to be taken,
 * and one named listen_name (NULL: none is), the caller's in *ret_listen_fd, or -1. Whatever else
 * there is is not ours: it is closed, and the store told to forget it. Changes the environment:
 * before the first thread. 0 or -ENOMEM.
 */
int handover_new(const char *listen_name, int *ret_listen_fd, struct handover **ret);

/*
 * Gives the sockets fds[0..n-1] of /dev/nbd<device> to the store; one below 0 is left out. They
 * stay open here, and nobody may read from them or write to them any more. Returns when the service
 * manager has them. note, of HANDOVER_NOTE_BYTES, then tells them from all others, for
 * handover_take(). How many were given; -EOPNOTSUPP without a store; -errno: they may be there or
 * not, and no note was written. Any thread; waits for the service manager.
 */
int handover_give(struct handover *h, int device, const int *fds, unsigned int n, char *note);

/*
 * Takes the sockets of the device that the note names and that are alive: ret_fds[i] is the
 * caller's, or -1. All others of that device are closed. In the store none is left when this
 * returns: else the kernel would not see it when this process dies. How many were taken; with n 0
 * none are. Any thread; waits for the service manager.
 */
unsigned int handover_take(struct handover *h, int device, const char *note, unsigned int n,
			   int *ret_fds);

/*
 * Closes the sockets of devices that nobody here is going to serve, and has the store forget them.
 * is_wanted may be NULL: none is. Control thread.
 */
void handover_sweep(struct handover *h, bool (*is_wanted)(void *arg, int device), void *arg);

/* Whether sockets wait to be taken. Any thread. */
bool handover_is_waiting(struct handover *h);

/*
 * Closes what was not taken; it stays in the store, for the next process. NULL is fine. Returns
 * NULL.
 */
struct handover *handover_free(struct handover *h);

#endif
