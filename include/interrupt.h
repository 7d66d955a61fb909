/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Copyright (C) 2026 the rbdcrypt-nbd authors */

#ifndef RBDCRYPT_INTERRUPT_H
#define RBDCRYPT_INTERRUPT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

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

/* Of left_ms, which may be over: as many as poll() is to wait before the next look. */
static inline int interrupt_slice(const struct interrupt *i, int64_t left_ms)
{
	if (left_ms <= 0)
		return 0;
	return (int)(i && left_ms > INTERRUPT_SLICE_MS ? INTERRUPT_SLICE_MS : left_ms);
}

#endif
