/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Copyright (C) 2026 the rbdcrypt-nbd authors */

#ifndef DAEMON_TEXT_H
#define DAEMON_TEXT_H

#include <string.h>

/* As much of from as fits into to (len bytes, at least 1), always ended. */
static inline void text_copy(char *to, size_t len, const char *from)
{
	if (!memccpy(to, from, '\0', len))
		to[len - 1] = '\0';
}

#endif
