/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Copyright (C) 2026 the rbdcrypt-nbd authors */

#ifndef DAEMON_CLAIM_H
#define DAEMON_CLAIM_H

#include <stdbool.h>
#include <stddef.h>

#include "fault.h"
#include "image.h"
#include "state.h"

/*
 * Whether an image and a device may be taken: what the run directory and the kernel know of them.
 * The volume's thread, and commands.
 */

/*
 * The same text for every mapping of an image (or of a snapshot of it), so that attach can tell a
 * wrong one. The default cookie, and no longer than one. Anybody may see it.
 */
#define CLAIM_IDENTITY_LEN 512
void claim_identity(const struct volume_state *s, char *buf, size_t len);

/*
 * map, serve: EXIT_BUSY when mine would be a second writer of the image; one is also a device whose
 * daemon is gone, because the kernel may hold writes for it.
 */
int claim_check_start(const char *run_dir, const struct volume_state *mine, const char *spec,
		      struct fault *f);

/*
 * attach: the device of mine must be set up in the kernel, served by nobody, and have been mapped
 * with the cookie of mine, from the same image as far as that is known, and writable only if mine
 * is. Its block size must be that of mine, unless that is 0. Fills in the block size, the number of
 * connections if it is known, and what the last owner handed over, unless the kernel has to be told
 * of other timeouts.
 */
int claim_check_attach(const char *run_dir, struct volume_state *mine, const char *spec,
		       struct fault *f);

/*
 * A socket whose daemon is gone, and that is made again: mine, of the same key, has to be the same
 * image, with the same header. Its clients come back by themselves, and see no difference.
 */
int claim_check_socket(const char *run_dir, const struct volume_state *mine, struct fault *f);

/*
 * Which image or snapshot the volume of that key had, whose owner is gone: by its ids, for
 * layer_open_again(), and with the names that it was mapped by. False: there is none, or it is a
 * file.
 */
bool claim_image_left(const char *run_dir, const char *key, struct layer_info *ret);

/* Whether there is a state file of that key; its owner may live or not. */
bool claim_is_left(const char *run_dir, const char *key);

/*
 * Who has the device, for messages: "rbd/vol is mapped to it", or who has it open; "" when nobody
 * is seen.
 */
void claim_who_has(const char *run_dir, int index, char *buf, size_t len);

/*
 * Removes the state file of key, whose owner died. Whom it leaves, the next to write the image
 * still has to shut out, and will find. -EBUSY if it lives; -errno, and the file stays.
 */
int claim_remove_dead(const char *run_dir, const char *key);

/* The device is ours now: what dead owners left behind about it goes, as above. */
void claim_forget(const char *run_dir, int index);

/*
 * Removes what dead owners left that is of no use to anybody. Readers, and whoever else shares an
 * image, have files of their own, which no other start would take over.
 */
void claim_tidy(const char *run_dir);

/*
 * Fills in the dead_client of mine: the addresses of the clients that wrote the same image for
 * owners that died, and that nobody has shut out yet; "" where none is known. Whether the state
 * file of mine's key says so of one, too, which mine has to go on saying.
 */
bool claim_dead_client(const char *run_dir, struct volume_state *mine);

/* client, the first of them, is shut out. */
void claim_client_fenced(const char *run_dir, struct volume_state *mine, const char *client);

#endif
