/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Copyright (C) 2026 the rbdcrypt-nbd authors */

#ifndef DAEMON_KEY_H
#define DAEMON_KEY_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "fault.h"
#include "interrupt.h"
#include "secret.h"

/*
 * Where passphrases come from. A source is what --encryption-passphrase-file was given:
 *
 *	PATH  -  fd:N  cred:NAME  ask:[PROMPT]  exec:PROGRAM [ARGUMENT]...  unix:PATH
 *	keyring:[%user:]DESCRIPTION  default:  none (alone)
 *
 * Blocking, seconds if need be; any thread that may wait.
 */

/* What the specifiers in a source stand for. Strings outlive the call; "" where there is none. */
struct key_place {
	const char *pool, *nspace, *image, *snap; /* of the layer */
	const char *cookie, *fsid; /* of the volume */
	unsigned int layer; /* from 1, the image itself */
};

struct key_options {
	bool is_insecure_allowed; /* read files that others can read too */
	unsigned int timeout_s; /* for each source; 0: none */
	/* Which part of it, in bytes; size 0: to the end. -EINVAL, EXIT_USAGE, of what has no
	 * parts. */
	uint64_t offset_bytes;
	size_t size_bytes;
	const struct interrupt *interrupt; /* of waiting, or NULL */
};

/* How often the same passphrase can be had from a source. */
enum key_repeat {
	KEY_REPEATS, /* whenever it is wanted */
	KEY_ONCE, /* the bytes are gone with the first reading */
	KEY_ASKS, /* somebody has to type it again */
};

/*
 * The source with its specifiers (%p %n %i %s %c %f %l %%) replaced; the caller frees it. Two equal
 * results are the same passphrase. -EINVAL, EXIT_USAGE: a specifier that does not exist, or a value
 * that would lead a path elsewhere; -ENOENT, EXIT_PASSPHRASE: "default:" without one.
 */
int key_resolve(const char *source, const struct key_place *place, char **ret, struct fault *f);

/*
 * The passphrase of a resolved source, byte for byte, at most 8 MiB. place only tells people and
 * helpers what it is for. Faults are EXIT_PASSPHRASE and name the source, but for EXIT_USAGE (badly
 * written), EXIT_TIMED_OUT (-ETIMEDOUT, -EINTR) and EXIT_MEMORY.
 */
int key_read(const char *resolved, const struct key_place *place, const struct key_options *o,
	     struct secret **ret, struct fault *f);

/* The same from a descriptor that was passed in place of the source, which gives it its name. */
int key_read_passed(int fd, const char *resolved, const struct key_place *place,
		    const struct key_options *o, struct secret **ret, struct fault *f);

/*
 * What can be said of a resolved source without reading it: that its file, socket or program is
 * missing or may not be used. As key_read(); 0 for other sources.
 */
int key_check(const char *resolved, const struct key_options *o, struct fault *f);

enum key_repeat key_repeat(const char *resolved);

/* Whether it is a path, and not something that gives bytes when asked. */
bool key_is_file(const char *resolved);

/* Whether it is "none": no passphrase at all, not even a default one. */
bool key_is_none(const char *source);

/* Paths in it become absolute, because the daemon leaves the folder. 0 or -errno. */
int key_make_absolute(char **source);

/*
 * Whether there is a passphrase for this layer where nobody told us to look: a credential, or a
 * file under the key folders. root is put before those ("" but in tests). -ENOENT when not; the
 * caller frees ret.
 */
int key_default(const char *root, const struct key_place *place, char **ret);

/* Whether a passphrase ends in a newline that an older rbd would not have counted. */
bool key_has_newline(const struct secret *s);

#endif
