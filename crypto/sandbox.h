/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Copyright (C) 2026 the rbdcrypt-nbd authors */

#ifndef RBDCRYPT_CRYPTO_SANDBOX_H
#define RBDCRYPT_CRYPTO_SANDBOX_H

#include <stdint.h>

struct sandbox_limits {
	uint64_t memory_bytes; /* beyond what the process has already mapped */
	uint32_t cpu_s; /* 0: no limit */
};

/*
 * Locks this process in, for good: it can compute, start threads, read files and
 * talk over the descriptors it has, and nothing else; any other system call kills
 * it. Single-threaded process only. 0 or -errno, then the process is half-way in
 * and must end.
 */
int sandbox_enter(const struct sandbox_limits *limits);

#endif
