/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Copyright (C) 2026 the rbdcrypt-nbd authors */

#ifndef RBDCRYPT_STATE_FILE_H
#define RBDCRYPT_STATE_FILE_H

#include <stdbool.h>
#include <stddef.h>

#include "state.h"

/*
 * One locked file in the run directory: its name, its lock, reading and replacing it. For state.c
 * only. Paths are relative to an open directory.
 */
#define STATE_NAME_BYTES 224

/* "rbd%2Fimg.json"; any key gives a name that fits a directory. */
void state_file_name(const char *key, char name[STATE_NAME_BYTES]);

/* Whether a directory entry is a state file, by its name. */
bool state_file_is_named(const char *name);

/*
 * What the file says and whether a live owner holds it. -ENOENT; -EBADMSG with why (a constant) for
 * one that is not a state file, ret_alive is set then too; -errno. ret may be NULL.
 */
int state_file_read(int dir_fd, const char *name, struct volume_state *ret, bool *ret_alive,
		    const char **why);

/*
 * Puts a new file under the name, locked from before it has it; the descriptor holds the lock.
 * -errno, and the old file is untouched.
 */
int state_file_replace(int dir_fd, const char *name, const struct volume_state *v, int *ret_fd);

/* Removes it, and before it the files that stand beside it (state_beside()). 0 or -errno. */
int state_file_unlink(int dir_fd, const char *name);

/* Removes temporary files that a dead writer left. */
void state_file_clean(int dir_fd);

/* A write lock on the whole file. -EAGAIN when somebody has it. */
int state_file_lock(int fd);

#endif
