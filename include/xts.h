/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Copyright (C) 2026 the rbdcrypt-nbd authors */

#ifndef RBDCRYPT_XTS_H
#define RBDCRYPT_XTS_H

#include <stddef.h>
#include <stdint.h>

#include "secret.h"

/*
 * AES-XTS over whole sectors, in place, exactly as dm-crypt's aes-xts-plain64,
 * QEMU's LUKS driver and librbd do it: each sector is one data unit, its tweak
 * is the little-endian 64-bit number of 512-byte units from the start of the
 * data area to the sector (also when the sector is larger than 512 bytes),
 * followed by eight zero bytes. (spec: librbd-encryption 3)
 */
struct xts;

/* Who does the arithmetic. AUTO: the fastest that this processor can run. */
enum xts_choice { XTS_AUTO, XTS_OPENSSL, XTS_AESNI, XTS_VAES256, XTS_VAES512 };

/* The names of them, in that order; those but AUTO's are what xts_engine() says. */
#define XTS_CHOICES "auto|openssl|aesni|vaes256|vaes512"

/*
 * Takes the volume key (on success; after a failure *key is still the caller's):
 * 32 bytes (AES-128-XTS) or 64 (AES-256-XTS); -EINVAL for
 * another length, or for two equal key halves. sector_size: 512, 1024, 2048 or
 * 4096, else -EINVAL. Proves itself against known answers before it returns;
 * -EIO when the answers are wrong.
 *
 * An engine other than OpenSSL is also compared with that, with this key and random
 * sectors. Where one differs, or the processor cannot run it, OpenSSL serves in its
 * place, and xts_note() says so.
 */
int xts_new_take(enum xts_choice choice, struct secret **key, uint32_t sector_size,
		 struct xts **ret);

/* No call may be under way. NULL is fine. Returns NULL. */
struct xts *xts_free(struct xts *x);

uint32_t xts_sector_size(const struct xts *x);

/* The key it was made with, for comparing layers. Stays owned by x. */
const struct secret *xts_key(const struct xts *x);

/*
 * Any thread, any number at once. dev_off is the byte offset of buf in the data
 * area; dev_off and len must be multiples of the sector size (-EINVAL
 * otherwise). On -EIO or -ENOMEM the contents of buf are undefined and must not
 * be used.
 */
int xts_encrypt(struct xts *x, void *buf, size_t len, uint64_t dev_off);

/*
 * As above, with the zero rule: a sector whose ciphertext is all zero bytes was
 * never written or has been discarded, and stays zeros. (spec: librbd-encryption 5.1)
 */
int xts_decrypt(struct xts *x, void *buf, size_t len, uint64_t dev_off);

/* The name of the engine in use, for status ("openssl"). */
const char *xts_engine(const struct xts *x);

/* Why it is not the one that was chosen, for the log; NULL if it is. A constant. */
const char *xts_note(const struct xts *x);

#endif
