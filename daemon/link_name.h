/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Copyright (C) 2026 the rbdcrypt-nbd authors */

#ifndef DAEMON_LINK_NAME_H
#define DAEMON_LINK_NAME_H

#include <stddef.h>
#include <stdint.h>

#include "state.h"

/*
 * The stable names of a volume below /dev/rbdcrypt. Any thread. What udev would not take
 * into a name is written as \xNN, as udev's own links have it, so two volumes never get one name;
 * nor do a volume and another one's partition, which has "-partN" behind its name.
 */

/*
 * "POOL/[NAMESPACE/]IMAGE[@SNAP]", escaped, of at most len - 1 bytes. nspace and snap may be NULL
 * or empty; a snapshot without a name is "@NUMBER", and snap_id UINT64_MAX is none.
 * -ENAMETOOLONG, or -EINVAL without a pool or image.
 */
int link_of_image(const char *pool, const char *nspace, const char *image, const char *snap,
		  uint64_t snap_id, char *buf, size_t len);

/* "by-cookie/COOKIE", escaped. -ENAMETOOLONG, or -EINVAL when it is empty. */
int link_of_cookie(const char *cookie, char *buf, size_t len);

/* text as one part of a path, or as a property's value. -ENAMETOOLONG. */
int link_escape(const char *text, char *buf, size_t len);

#define LINKS_MAX 2 /* by image, by cookie */
#define LINK_LEN 4200
/*
 * Which of its names are there now and lead to the volume's device; dev is "/dev", and has no links
 * in its own path. How many.
 */
unsigned int link_find(const char *dev, const struct volume_state *v,
		       char ret[LINKS_MAX][LINK_LEN]);

#endif
