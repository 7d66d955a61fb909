/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Copyright (C) 2026 the rbdcrypt-nbd authors */

#ifndef SYSTEMD_UNIT_TEXT_H
#define SYSTEMD_UNIT_TEXT_H

#include <stddef.h>
#include <stdio.h>

/* How text becomes part of a unit file or a unit's name. Pure, any thread. */

/* text as one word of an Exec line (systemd.service(5), COMMAND LINES). */
void unit_put_argument(FILE *out, const char *text);

/* text as one word of another list, such as RequiresMountsFor=. */
void unit_put_word(FILE *out, const char *text);

/* text as the whole value of a setting that is not cut into words, such as PathExists=. */
void unit_put_value(FILE *out, const char *text);

/*
 * "dev-rbdcrypt-rbd-vol" for "/dev/rbdcrypt/rbd/vol": the name of a path's unit without its suffix
 * (systemd.unit(5), STRING ESCAPING). -ENAMETOOLONG, or -EINVAL for the root or a relative path.
 */
int unit_escape_path(const char *path, char *buf, size_t len);

#endif
