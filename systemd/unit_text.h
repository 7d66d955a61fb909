/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Copyright (C) 2026 the rbdcrypt-nbd authors */

#ifndef SYSTEMD_UNIT_TEXT_H
#define SYSTEMD_UNIT_TEXT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdio.h>

/* How text becomes part of a unit file or a unit's name. Pure, any thread. */

/*
 * Whether a unit file can hold text: systemd ignores lines that are not valid UTF-8, and a control
 * character may end one. The functions below are for text that can be held.
 */
bool unit_can_hold(const char *text);

/*
 * Whether text can also be the end of a line: a blank would be lost there, and a backslash make the
 * next line part of this one. For unit_put_value().
 */
bool unit_can_end(const char *text);

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
