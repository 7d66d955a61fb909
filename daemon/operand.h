/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Copyright (C) 2026 the rbdcrypt-nbd authors */

#ifndef DAEMON_OPERAND_H
#define DAEMON_OPERAND_H

#include <stddef.h>

#include "fault.h"
#include "options.h"

/*
 * What the user called a volume, as state_find() wants it: the operand, or the spec that it makes
 * together with --pool, --image and the like; the path of a file or socket without detours, also
 * where the address of the socket was given. Empty when nothing was named. Once per struct options.
 * 0 or -EINVAL (EXIT_USAGE).
 */
int operand_name(struct options *o, char *buf, size_t len, struct fault *f);

#endif
