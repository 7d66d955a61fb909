/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Copyright (C) 2026 the rbdcrypt-nbd authors */

#ifndef RBDCRYPT_CRYPTO_UNLOCK_H
#define RBDCRYPT_CRYPTO_UNLOCK_H

#include <stdint.h>

/*
 * What luks_unlock() and the process it starts say to each other over a stream
 * socket, both being the same program on the same machine:
 *
 *	parent: request, passphrase bytes
 *	child:  reply with is_turn (its turn has come, the work begins)
 *	child:  reply, and key_bytes bytes of volume key when result is 0
 *
 * The child is trusted with nothing: the parent bounds and checks every field.
 */
#define UNLOCK_ARGV0 "rbdcrypt-nbd-unlock"

/* The child's file descriptors. 1 and 2 are /dev/null. */
#define UNLOCK_FD_PARENT 0
#define UNLOCK_FD_HEADER 3
#define UNLOCK_FD_TURNSTILE 4 /* if has_turnstile */

struct unlock_request {
	uint32_t passphrase_len;
	int32_t parent; /* process id: a child without it ends */
	int32_t version; /* of LUKS */
	uint32_t cpu_s; /* processor time it may take, 0: no limit */
	uint32_t argon2_memory_kib, argon2_lanes; /* what the header asks for */
	int32_t has_turnstile;
};

struct unlock_reply {
	int32_t is_turn;
	int32_t result; /* 0 or -errno */
	int32_t is_loaded; /* libcryptsetup took the header: the fields below are meant */
	int32_t keyslot;
	uint32_t key_bytes;
	uint32_t sector_size; /* bytes */
	uint64_t data_offset; /* bytes */
	char cipher[32], mode[32], uuid[41];
	char text[200]; /* the library's last complaint */
};

#endif
