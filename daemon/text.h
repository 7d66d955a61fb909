/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Copyright (C) 2026 the rbdcrypt-nbd authors */

#ifndef DAEMON_TEXT_H
#define DAEMON_TEXT_H

#include <stdint.h>
#include <string.h>

/* FNV-1a; only tells texts apart that are too long for where they go. */
static inline uint64_t text_hash(const char *text)
{
	uint64_t h = UINT64_C(0xcbf29ce484222325);

	for (; *text; text++)
		h = (h ^ (unsigned char)*text) * UINT64_C(0x100000001b3);
	return h;
}

/* As much of from as fits into to (len bytes, at least 1), always ended. */
static inline void text_copy(char *to, size_t len, const char *from)
{
	if (!memccpy(to, from, '\0', len))
		to[len - 1] = '\0';
}

#endif
