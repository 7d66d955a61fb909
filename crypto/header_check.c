// SPDX-License-Identifier: GPL-2.0-or-later
// Copyright (C) 2026 the rbdcrypt-nbd authors

/*
 * The allow-list that LUKS1 and LUKS2 share, as small judgements: what a header
 * may cost, how its parts must lie, and how it must fit the image. Pure functions;
 * all numbers come from the image and may be anything.
 */

#include "header.h"

#include <ctype.h>
#include <errno.h>
#include <string.h>

/* suffix: what the option has to be told of the unit. */
static int too_expensive(struct fault *f, const char *option, const char *suffix, const char *what,
			 uint64_t asked, const char *unit, uint64_t limit)
{
	fault_hint(f, "if you trust this image, allow it with %s=%llu%s", option,
		   (unsigned long long)asked, suffix);
	return header_refused(f, "%s asks for %llu %s, more than the limit of %llu", what,
			      (unsigned long long)asked, unit, (unsigned long long)limit);
}

int header_check_pbkdf2(const struct luks_limits *limits, const char *what, uint64_t iterations,
			struct fault *f)
{
	if (iterations == 0)
		return header_damaged(f, "%s has no PBKDF2 iterations", what);
	if (iterations > limits->pbkdf2_iterations)
		return too_expensive(f, "--luks-pbkdf2-iterations-max", "", what, iterations,
				     "PBKDF2 iterations", limits->pbkdf2_iterations);
	return 0;
}

int header_check_argon2(const struct luks_limits *limits, const char *what, uint64_t time,
			uint64_t memory_kib, uint64_t lanes, struct fault *f)
{
	if (time == 0 || memory_kib == 0 || lanes == 0)
		return header_damaged(f, "%s has an Argon2 cost of zero", what);
	if (time > limits->argon2_time)
		return too_expensive(f, "--luks-argon2-time-max", "", what, time, "Argon2 passes",
				     limits->argon2_time);
	if (memory_kib > limits->argon2_memory_kib)
		return too_expensive(f, "--luks-argon2-memory-max", "K", what, memory_kib,
				     "KiB of Argon2 memory", limits->argon2_memory_kib);
	if (lanes > limits->argon2_lanes)
		return too_expensive(f, "--luks-argon2-lanes-max", "", what, lanes, "Argon2 lanes",
				     limits->argon2_lanes);
	return 0;
}

int header_check_hash(const char *what, const char *hash, struct fault *f)
{
	static const char *const allowed[] = { "sha1",	   "sha224",   "sha256",   "sha384",
					       "sha512",   "sha3-224", "sha3-256", "sha3-384",
					       "sha3-512", "ripemd160" };

	for (size_t i = 0; i < sizeof(allowed) / sizeof(allowed[0]); i++)
		if (strcmp(hash, allowed[i]) == 0)
			return 0;
	return header_refused(f, "%s uses the hash \"%.32s\"", what, hash);
}

int header_check_key_bytes(uint64_t key_bytes, struct fault *f)
{
	if (key_bytes == 32 || key_bytes == 64)
		return 0;
	return header_refused(f, "a volume key of %llu bytes (32 and 64 are)",
			      (unsigned long long)key_bytes);
}

int header_check_uuid(const unsigned char uuid[40], char ret[41], struct fault *f)
{
	size_t i;

	for (i = 0; i < 40 && uuid[i]; i++) {
		if (!isgraph(uuid[i]))
			return header_damaged(f, "the UUID is not text");
		ret[i] = (char)uuid[i];
	}
	ret[i] = 0;
	return 0;
}

static bool overlap(const struct header_area *a, const struct header_area *b)
{
	return a->off < b->off + b->len && b->off < a->off + a->len;
}

int header_check_areas(const struct header_facts *facts, struct fault *f)
{
	bool is_usable = false;

	for (unsigned int i = 0; i < facts->n_areas; i++) {
		const struct header_area *a = &facts->areas[i];

		if (a->off < facts->header_len || a->off > facts->areas_end ||
		    a->len > facts->areas_end - a->off)
			return header_damaged(f, "keyslot %u lies outside the keyslots area",
					      a->keyslot);
		if (a->used > a->len)
			return header_damaged(f, "keyslot %u is smaller than its key material",
					      a->keyslot);
		for (unsigned int j = 0; j < i; j++)
			if (overlap(a, &facts->areas[j]))
				return header_damaged(f, "keyslots %u and %u overlap",
						      facts->areas[j].keyslot, a->keyslot);
		is_usable |= a->is_wanted;
	}
	if (!is_usable)
		return header_refused(f, "no keyslot in use: nothing can unlock it any more");
	return 0;
}

int header_check_fit(const struct header_facts *facts, uint64_t raw_size, uint64_t stripe_period,
		     struct fault *f)
{
	const unsigned long long off = facts->data_offset;

	if (facts->data_offset < facts->areas_end)
		return fault_set(f, EXIT_HEADER, -EINVAL,
				 "the data area begins at %llu, inside the header", off);
	if (facts->data_offset > raw_size)
		return fault_set(f, EXIT_HEADER, -EINVAL,
				 "the data area begins at %llu, but the image ends at %llu", off,
				 (unsigned long long)raw_size);
	if (facts->data_offset % facts->sector_size)
		return fault_set(f, EXIT_HEADER, -EINVAL,
				 "the data area begins at %llu, inside a sector of %u bytes", off,
				 facts->sector_size);
	if (stripe_period && facts->data_offset % stripe_period) {
		fault_hint(f,
			   "such a header was not made by \"rbd encryption format\"; cryptsetup can"
			   " open the plain device");
		return fault_set(f, EXIT_HEADER, -EINVAL,
				 "the data area begins at %llu, not at a multiple of the image's"
				 " stripe period %llu",
				 off, (unsigned long long)stripe_period);
	}
	return 0;
}
