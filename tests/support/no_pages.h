/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Copyright (C) 2026 the rbdcrypt-nbd authors */

#ifndef TESTS_NO_PAGES_H
#define TESTS_NO_PAGES_H

/*
 * A system that has no pages for anybody, when a test says so. Included once, by a test program.
 */

#include <errno.h>
#include <stdatomic.h>
#include <stddef.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

static atomic_bool is_empty;

int madvise(void *at, size_t len, int advice)
{
	if (advice == MADV_POPULATE_WRITE && atomic_load(&is_empty)) {
		errno = ENOMEM;
		return -1;
	}
	return (int)syscall(SYS_madvise, at, len, advice);
}

#endif
