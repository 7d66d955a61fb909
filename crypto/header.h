/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Copyright (C) 2026 the rbdcrypt-nbd authors */

#ifndef RBDCRYPT_CRYPTO_HEADER_H
#define RBDCRYPT_CRYPTO_HEADER_H

#include <openssl/evp.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "luks.h"

/*
 * Shared inside crypto/: what the parsers of the two versions find out about a
 * header, and what they use to judge it. All of it is for one thread at a time.
 */

#define HEADER_MAX_KEYSLOTS 32 /* LUKS2; LUKS1 has 8 */
#define HEADER_MAX_AREAS (HEADER_MAX_KEYSLOTS)
#define HEADER_STRIPES 4000u /* of the anti-forensic splitter; nobody writes another number */

/* Bytes of the private copy; whatever lies between regions is zero there. */
struct header_region {
	uint64_t off; /* bytes from the image's start */
	size_t len;
	unsigned char *bytes; /* owned */
};

struct luks_header {
	struct luks_info info;
	/* The most that any keyslot asks for; 0 without Argon2. */
	uint32_t argon2_memory_kib;
	uint32_t argon2_lanes;
	unsigned int n_regions;
	struct header_region regions[1 + HEADER_MAX_AREAS];
};

/* Key material of one keyslot. */
struct header_area {
	unsigned int keyslot;
	uint64_t off, len; /* bytes; as the header says */
	uint64_t used; /* the first bytes of it, which a keyslot really fills */
	bool is_wanted; /* it can hold the volume key */
};

/* What one header, or one copy of it, says. */
struct header_facts {
	int version;
	char uuid[41];
	uint64_t header_len; /* bytes before the keyslot areas may begin */
	uint64_t areas_end; /* bytes; keyslot areas lie below */
	uint64_t data_offset; /* bytes */
	uint32_t sector_size; /* bytes */
	uint32_t key_bytes;
	uint32_t argon2_memory_kib, argon2_lanes;
	unsigned int n_areas;
	struct header_area areas[HEADER_MAX_AREAS];
};

/* Where the bytes come from, and the digest of all that was read. */
struct header_source {
	luks_read_fn read;
	void *arg;
	uint64_t raw_size;
	EVP_MD_CTX *digest;
};

/* Reads, with the range checked. -EINVAL: beyond the image's end. Else what read said. */
int header_read(const struct header_source *src, uint64_t off, void *buf, size_t len);
/* Counts bytes, as stored, into the header's digest. 0 or -ENOMEM. */
int header_digest(const struct header_source *src, const void *bytes, size_t len);
/* The explanation for what header_read() returned. Returns the error, which is never -ENODATA. */
int header_read_fault(struct fault *f, int error);

/* "damaged" and "not allowed"; return the error they record. */
int header_damaged(struct fault *f, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
int header_refused(struct fault *f, const char *fmt, ...) __attribute__((format(printf, 2, 3)));

/* ---- header_check.c: judgements both versions share; 0 or -errno with the fault filled ---- */

/* what: "keyslot 3" or "digest 0". */
int header_check_pbkdf2(const struct luks_limits *limits, const char *what, uint64_t iterations,
			struct fault *f);
int header_check_argon2(const struct luks_limits *limits, const char *what, uint64_t time,
			uint64_t memory_kib, uint64_t lanes, struct fault *f);
int header_check_hash(const char *what, const char *hash, struct fault *f);
int header_check_key_bytes(uint64_t key_bytes, struct fault *f);
/* 40 bytes of a header, copied as a string if they are printable text. */
int header_check_uuid(const unsigned char uuid[40], char ret[41], struct fault *f);
/* The keyslot areas among each other and with the rest of the header. */
int header_check_areas(const struct header_facts *facts, struct fault *f);
/* The data area and the image. -EINVAL. */
int header_check_fit(const struct header_facts *facts, uint64_t raw_size, uint64_t stripe_period,
		     struct fault *f);

/* ---- luks1.c ---- */

#define LUKS1_HEADER_BYTES 1024u /* what is read: the header and the rest of its last sector */
int luks1_judge(const unsigned char bytes[LUKS1_HEADER_BYTES], const struct luks_limits *limits,
		struct header_facts *ret, struct fault *f);

/* ---- luks2.c ---- */

/*
 * Reads both copies, judges every valid one, and returns the facts of the newest
 * and its bytes: ret_bytes (owned by the caller, ret->header_len long) holds it
 * twice, as a flawless first and second copy with LUKS magics.
 */
int luks2_load(const struct header_source *src, const struct luks_limits *limits,
	       struct header_facts *ret, unsigned char **ret_bytes, struct fault *f);
/*
 * Where there is no magic at the start: whether a whole second copy says that
 * there once was. *ret_off is its offset in bytes, or 0. 0 or what read said.
 */
int luks2_find_second(const struct header_source *src, uint64_t *ret_off);

/* ---- luks2_json.c ---- */

/* json: the NUL-terminated metadata of a copy that is header_bytes long. Fills what JSON knows. */
int luks2_judge(const char *json, uint64_t header_bytes, const struct luks_limits *limits,
		struct header_facts *ret, struct fault *f);

/* ---- magics ---- */

#define MAGIC_BYTES 6
#define MAGIC_LUKS "LUKS\xba\xbe"
#define MAGIC_RBDL "RBDL\xba\xbe" /* formatted while the image had a parent */
#define MAGIC_SKUL "SKUL\xba\xbe" /* second copy, LUKS2 */
#define MAGIC_LDBR "LDBR\xba\xbe"

static inline uint32_t header_be32(const unsigned char *p)
{
	return (uint32_t)p[0] << 24 | (uint32_t)p[1] << 16 | (uint32_t)p[2] << 8 | p[3];
}

static inline uint16_t header_be16(const unsigned char *p)
{
	return (uint16_t)(p[0] << 8 | p[1]);
}

static inline uint64_t header_be64(const unsigned char *p)
{
	return (uint64_t)header_be32(p) << 32 | header_be32(p + 4);
}

static inline uint64_t header_round_up(uint64_t n, uint64_t unit)
{
	return (n + unit - 1) / unit * unit;
}

#endif
