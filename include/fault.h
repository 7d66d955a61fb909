/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Copyright (C) 2026 the rbdcrypt-nbd authors */

#ifndef RBDCRYPT_FAULT_H
#define RBDCRYPT_FAULT_H

#include <stdio.h>

/*
 * The explanation that travels with an errno to the user: what failed, where,
 * why, and what to do. Leaves fill it, main() or the control socket shows it,
 * once. A function that takes a fault fills it exactly when it fails.
 */

enum exit_status {
	EXIT_OK = 0,
	EXIT_USAGE = 1,
	EXIT_PASSPHRASE = 2, /* wrong passphrase, or no permission */
	EXIT_MEMORY = 3, /* or no descriptor */
	EXIT_NOT_FOUND = 4, /* image, snapshot or device wrong or missing */
	EXIT_BUSY = 5, /* already mapped, or in use */
	EXIT_TIMED_OUT = 6,
	EXIT_SAFEGUARD = 7, /* refused because data or a key would be lost */
	EXIT_KERNEL = 8, /* no nbd driver, or it lacks what we need */
	EXIT_CLUSTER = 9, /* cluster unreachable, or its configuration is bad */
	EXIT_HEADER = 10, /* encryption header missing, damaged or not allowed */
	EXIT_LOCKED = 11, /* another client holds the image's lock */
	EXIT_LAYERED = 12, /* a chain of layers that this release cannot serve */
};

struct fault {
	enum exit_status status;
	int error; /* negative errno */
	char message[1024]; /* one line, subject first, no final dot or newline */
	char hint[512]; /* what to do, or empty */
};

/*
 * What a negative errno says by itself, whatever was tried: a permission is missing; memory,
 * descriptors or room for files have run out. Else otherwise.
 */
enum exit_status fault_status(int error, enum exit_status otherwise);

/*
 * Records the explanation and returns error, so that a leaf can write
 * "return fault_set(f, EXIT_HEADER, -EBADMSG, ...)". error is a negative errno.
 * The first explanation wins: later calls on a filled fault only return error.
 * f may be NULL. Newlines and control characters in arguments are replaced.
 */
int fault_set(struct fault *f, enum exit_status status, int error, const char *fmt, ...)
	__attribute__((format(printf, 4, 5)));

/* Sets the remedy, if none is set yet. f may be NULL. */
void fault_hint(struct fault *f, const char *fmt, ...) __attribute__((format(printf, 2, 3)));

/* Puts "prefix: " before the message: the caller's subject ("layer 1: rbd/golden@v1"). */
void fault_prefix(struct fault *f, const char *fmt, ...) __attribute__((format(printf, 2, 3)));

/* Empties it for another attempt. */
void fault_clear(struct fault *f);

/*
 * "rbdcrypt-nbd: MESSAGE", and "hint: HINT" on a second line if there is one. The system's words
 * for the errno are added where the message does not say them. A program called "rbd-nbd" says that
 * instead. For the top of a command.
 */
void fault_print(FILE *out, const struct fault *f);

#endif
