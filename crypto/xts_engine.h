/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Copyright (C) 2026 the rbdcrypt-nbd authors */

#ifndef RBDCRYPT_XTS_ENGINE_H
#define RBDCRYPT_XTS_ENGINE_H

#include <stddef.h>
#include <stdint.h>

#include "secret.h"
#include "xts.h"

/*
 * The seam inside crypto/ between "which sectors with which tweak" (xts.c) and
 * the arithmetic. An engine knows nothing of the zero rule and is handed only
 * checked arguments: whole sectors, of a size xts.c allows.
 */
enum xts_direction { XTS_ENCRYPT, XTS_DECRYPT };

struct xts_engine {
	const char *name;
	/*
	 * key: 32 or 64 bytes, halves differ, owned by the caller, outlives the
	 * state. 0, -ENOMEM or -EIO.
	 */
	int (*open)(const struct secret *key, void **ret_state);
	/* No crypt() may be under way. Wipes every copy of the key. */
	void (*close)(void *state);
	/*
	 * n_sectors sectors in place, the first one with tweak sector512, the next
	 * with sector512 + sector_size / 512, and so on. Any thread, any number at
	 * once. 0, -ENOMEM or -EIO; buf is undefined after an error.
	 */
	int (*crypt)(void *state, enum xts_direction direction, unsigned char *buf,
		     size_t n_sectors, uint32_t sector_size, uint64_t sector512);
};

/* OpenSSL's EVP: everywhere, and the measure for others. */
extern const struct xts_engine xts_engine_openssl;

/*
 * The engine of a choice on this processor; AUTO is the fastest. NULL where the
 * processor, or what this was built for, cannot run it. Any thread.
 */
const struct xts_engine *xts_engine_of(enum xts_choice choice);

/*
 * As xts_new_take(), with exactly this engine: proven by known answers, compared
 * with no other, and never replaced. Also for tests.
 */
int xts_new_with_take(const struct xts_engine *engine, struct secret **key, uint32_t sector_size,
		      struct xts **ret);

/*
 * As xts_new_take(): engine, if it does everything exactly as OpenSSL; else (also if
 * it is NULL) OpenSSL with a note about it. Also for tests.
 */
int xts_new_compared_take(const struct xts_engine *engine, struct secret **key,
			  uint32_t sector_size, struct xts **ret);

/* note: a constant, see xts_note(). */
void xts_set_note(struct xts *x, const char *note);

#endif
