/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Copyright (C) 2026 the rbdcrypt-nbd authors */

#ifndef RBDCRYPT_LIMIT_H
#define RBDCRYPT_LIMIT_H

#include "interrupt.h"

/*
 * Runs call(arg) for at most timeout_s seconds (0: for ever, in this thread). Returns what
 * it returned, or
 *   -ETIMEDOUT  it is still running: arg is no longer the caller's. When the call comes
 *               back after all, late(arg) runs on its thread, to undo what it did and free.
 *   -EAGAIN     no thread could be started; arg is still the caller's.
 * Both are told from the same numbers in call's own result by *ret_is_late.
 * Until then one thread and what arg holds are out of use: the price of a library whose
 * calls cannot be cancelled.
 */
int limit_call(unsigned int timeout_s, int (*call)(void *arg), void (*late)(void *arg), void *arg,
	       _Bool *ret_is_late);

/*
 * The same, and for no longer than i (or NULL) is not raised: then -EINTR, which means what
 * -ETIMEDOUT means.
 */
int limit_call_unless(const struct interrupt *i, unsigned int timeout_s, int (*call)(void *arg),
		      void (*late)(void *arg), void *arg, _Bool *ret_is_late);

#endif
