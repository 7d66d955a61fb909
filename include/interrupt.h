/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Copyright (C) 2026 the rbdcrypt-nbd authors */

#ifndef RBDCRYPT_INTERRUPT_H
#define RBDCRYPT_INTERRUPT_H

#include <stdbool.h>
#include <stddef.h>

/*
 * Whether somebody who waits is no longer to do so. It is asked now and then, on the thread that
 * waits, and once raised it stays so. By reference; NULL is never raised.
 */
struct interrupt {
	bool (*is_raised)(void *arg);
	void *arg;
};

/* How long whoever waits may sleep between two looks. */
#define INTERRUPT_SLICE_MS 50

static inline bool interrupt_is_raised(const struct interrupt *i)
{
	return i && i->is_raised(i->arg);
}

#endif
