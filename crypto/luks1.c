// SPDX-License-Identifier: GPL-2.0-or-later
// Copyright (C) 2026 the rbdcrypt-nbd authors

/*
 * The LUKS1 header: 592 bytes, big-endian, one copy, no checksum.
 *
 *	  0  magic, 6 bytes; version, 16 bit
 *	  8  cipher name, mode, hash: text of at most 31 bytes each
 *	104  payload offset in 512-byte sectors; key length in bytes
 *	112  digest of the volume key (20), its salt (32), its iterations
 *	168  UUID, 40 bytes
 *	208  8 keyslots of 48 bytes: state, iterations, salt (32),
 *	     offset of the key material in 512-byte sectors, stripes
 *
 * Pure function over bytes that may hold anything.
 */

#include "header.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

#define AT_CIPHER 8
#define AT_MODE 40
#define AT_HASH 72
#define NAME_BYTES 32
#define AT_PAYLOAD 104
#define AT_KEY_BYTES 108
#define AT_DIGEST_ITERATIONS 164
#define AT_UUID 168
#define AT_KEYSLOTS 208

#define KEYSLOTS 8u
#define KEYSLOT_BYTES 48u
#define KEYSLOT_ACTIVE 0x00ac71f3u
#define KEYSLOT_DISABLED 0x0000deadu

#define SECTOR 512u

static int read_name(const unsigned char *bytes, const char *what, char ret[NAME_BYTES],
		     struct fault *f)
{
	if (!memchr(bytes, 0, NAME_BYTES))
		return header_damaged(f, "the %s is not text", what);
	(void)snprintf(ret, NAME_BYTES, "%s", (const char *)bytes);
	return 0;
}

static int judge_cipher(const unsigned char *bytes, struct fault *f)
{
	char cipher[NAME_BYTES], mode[NAME_BYTES], hash[NAME_BYTES];
	int r;

	r = read_name(bytes + AT_CIPHER, "cipher", cipher, f);
	if (r == 0)
		r = read_name(bytes + AT_MODE, "cipher mode", mode, f);
	if (r == 0)
		r = read_name(bytes + AT_HASH, "hash", hash, f);
	if (r < 0)
		return r;
	if (strcmp(cipher, "aes") != 0 || strcmp(mode, "xts-plain64") != 0)
		return header_refused(f, "the cipher %s-%s (aes-xts-plain64 is)", cipher, mode);
	return header_check_hash("the header", hash, f);
}

static int judge_keyslot(const unsigned char *slot, unsigned int number,
			 const struct luks_limits *limits, struct header_facts *facts,
			 struct fault *f)
{
	const uint32_t state = header_be32(slot);
	struct header_area *area;
	char what[32];
	int r;

	if (state == KEYSLOT_DISABLED)
		return 0;
	(void)snprintf(what, sizeof(what), "keyslot %u", number);
	if (state != KEYSLOT_ACTIVE)
		return header_damaged(f, "%s is neither in use nor free", what);
	r = header_check_pbkdf2(limits, what, header_be32(slot + 4), f);
	if (r < 0)
		return r;
	if (header_be32(slot + 44) != HEADER_STRIPES)
		return header_refused(f, "%s has %u stripes (%u are)", what, header_be32(slot + 44),
				      HEADER_STRIPES);

	area = &facts->areas[facts->n_areas++];
	area->keyslot = number;
	area->off = (uint64_t)header_be32(slot + 40) * SECTOR;
	area->len = header_round_up((uint64_t)facts->key_bytes * HEADER_STRIPES, SECTOR);
	area->used = area->len;
	area->is_wanted = true;
	return 0;
}

int luks1_judge(const unsigned char bytes[LUKS1_HEADER_BYTES], const struct luks_limits *limits,
		struct header_facts *ret, struct fault *f)
{
	struct header_facts facts = { .version = 1, .sector_size = SECTOR };
	int r;

	r = judge_cipher(bytes, f);
	if (r == 0)
		r = header_check_key_bytes(header_be32(bytes + AT_KEY_BYTES), f);
	if (r == 0)
		r = header_check_pbkdf2(limits, "the key digest",
					header_be32(bytes + AT_DIGEST_ITERATIONS), f);
	if (r == 0)
		r = header_check_uuid(bytes + AT_UUID, facts.uuid, f);
	if (r < 0)
		return r;
	facts.key_bytes = header_be32(bytes + AT_KEY_BYTES);
	facts.data_offset = (uint64_t)header_be32(bytes + AT_PAYLOAD) * SECTOR;
	facts.header_len = LUKS1_HEADER_BYTES;
	/* Offset 0 means that header and data are apart, which an image cannot be. */
	if (facts.data_offset < LUKS1_HEADER_BYTES)
		return fault_set(f, EXIT_HEADER, -EINVAL,
				 "the data area begins at %llu, inside the header",
				 (unsigned long long)facts.data_offset);
	facts.areas_end = facts.data_offset;

	for (unsigned int i = 0; i < KEYSLOTS; i++) {
		r = judge_keyslot(bytes + AT_KEYSLOTS + (size_t)i * KEYSLOT_BYTES, i, limits,
				  &facts, f);
		if (r < 0)
			return r;
	}
	r = header_check_areas(&facts, f);
	if (r < 0)
		return r;
	*ret = facts;
	return 0;
}
