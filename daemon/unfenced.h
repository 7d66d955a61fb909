/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Copyright (C) 2026 the rbdcrypt-nbd authors */

#ifndef DAEMON_UNFENCED_H
#define DAEMON_UNFENCED_H

#include <stddef.h>

/*
 * Clients that wrote an image for an owner that died, whose state file is gone since, and whom
 * nobody has shut out yet: a small file each in the run directory, until the image is mapped again
 * here, or the host starts anew. Any thread; no file is changed once it is complete.
 */

#define UNFENCED_SUFFIX ".client"

/* id: the image, by claim_identity(). 0, also when it is known already, or -errno. */
int unfenced_note(const char *run_dir, const char *id, const char *client);
/* It is shut out, from this image. */
void unfenced_forget(const char *run_dir, const char *id, const char *client);
/* All of an image. What cannot be read is left out. */
void unfenced_each(const char *run_dir, const char *id, void (*each)(void *arg, const char *client),
		   void *arg);

#endif
