/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Copyright (C) 2026 the rbdcrypt-nbd authors */

#ifndef RBDCRYPT_LUKS_H
#define RBDCRYPT_LUKS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "fault.h"
#include "interrupt.h"
#include "secret.h"

/*
 * LUKS1 and LUKS2 headers: from bytes to a volume key. One private copy of the
 * header is read, judged by our own allow-list, and that same copy is given to
 * libcryptsetup, in a child process with limits. Nothing here writes anywhere
 * but to that copy. Blocking; not for IO threads.
 */
enum luks_format { LUKS_FORMAT_ANY, LUKS_FORMAT_LUKS1, LUKS_FORMAT_LUKS2 };

/* "luks", "luks1" or "luks2". -EINVAL for anything else. */
int luks_format_parse(const char *text, enum luks_format *ret);
const char *luks_format_name(enum luks_format format);

/* What a header may cost us; a header that asks for more is refused with the option's name. */
struct luks_limits {
	uint64_t pbkdf2_iterations; /* per keyslot and for the digest */
	uint32_t argon2_time; /* passes */
	uint32_t argon2_memory_kib;
	uint32_t argon2_lanes;
	/* Wall clock for one unlock attempt, and before it as long again in line; 0: none. */
	unsigned int unlock_timeout_s;
	const char *turnstile; /* file that unlocks take turns on (flock), or NULL */
	const struct interrupt *interrupt; /* of waiting for the process of an unlock, or NULL */
};
void luks_limits_default(struct luks_limits *ret);

struct luks_info {
	int version; /* 1 or 2 */
	bool is_clone_magic; /* "RBDL": formatted while it had a parent */
	uint64_t data_offset; /* bytes from the image's start to the data area */
	uint32_t sector_size; /* bytes */
	uint32_t key_bytes; /* 32 or 64 */
	unsigned int keyslots; /* in use */
	char uuid[41];
	char cipher[32]; /* "aes-xts-plain64" */
	unsigned char digest[32]; /* SHA-256 of the header area read, as stored */
};

struct luks_header;

/* Reads len bytes at off of the raw image. 0 or -errno. Short is an error. */
typedef int (*luks_read_fn)(void *arg, uint64_t off, void *buf, size_t len);

/*
 * Reads as much header as the header itself says it has (bounded), and judges
 * it. raw_size in bytes. stripe_period in bytes, 0 to skip the check that the
 * data offset is a multiple of it.
 *   -ENODATA  no LUKS magic: plaintext as far as we can tell (fault not filled)
 *   -EBADMSG  damaged                      EXIT_HEADER
 *   -ENOTSUP  well-formed, but not allowed EXIT_HEADER
 *   -EINVAL   does not fit the image       EXIT_HEADER
 *   other     what read said; -EIO for -ENODATA
 */
int luks_header_load(luks_read_fn read, void *arg, uint64_t raw_size, uint64_t stripe_period,
		     const struct luks_limits *limits, struct luks_header **ret, struct fault *f);
struct luks_header *luks_header_free(struct luks_header *h);
const struct luks_info *luks_header_info(const struct luks_header *h);

/*
 * Tries the passphrase on every keyslot. -EPERM: none opened (fault filled with
 * EXIT_PASSPHRASE). -ETIMEDOUT, -EINTR, -ENOMEM, -EIO: the unlock itself failed,
 * with the reason in the fault. The volume key is checked against the header's digest
 * by libcryptsetup. ret_keyslot may be NULL. Needs /proc and /dev/null. Any
 * thread, but it must live until the call returns; any number at once.
 */
int luks_unlock(const struct luks_header *h, const struct secret *passphrase,
		const struct luks_limits *limits, struct secret **ret_key, int *ret_keyslot,
		struct fault *f);

/*
 * The child's side of luks_unlock(). main() must call it first of all: when this
 * process was started as the unlock child it does its work and does not return.
 */
void luks_unlock_child_main(int argc, char **argv);

#endif
