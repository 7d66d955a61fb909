// SPDX-License-Identifier: GPL-2.0-or-later
// Copyright (C) 2026 the rbdcrypt-nbd authors

/*
 * From the first bytes of an image to a judged, private copy of its LUKS header.
 *
 * Whoever could write to the image wrote the header, so nothing in it is believed:
 * sizes are bounded before they are read, and only what our allow-list knows
 * passes. The copy made here, with the magics that Ceph changes put back, is the
 * very one that luks_unlock() hands to libcryptsetup. What is read is small: the
 * metadata and the keyslots in use, not the megabytes reserved around them.
 *
 * Called while a volume starts, from one thread; blocking in the caller's read
 * function.
 */

#include "header.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "log.h"

#define PROBE_BYTES 4096u
#define CIPHER_ALLOWED "aes-xts-plain64"

int luks_format_parse(const char *text, enum luks_format *ret)
{
	static const enum luks_format all[] = { LUKS_FORMAT_ANY, LUKS_FORMAT_LUKS1,
						LUKS_FORMAT_LUKS2 };

	for (size_t i = 0; i < sizeof(all) / sizeof(all[0]); i++)
		if (strcmp(text, luks_format_name(all[i])) == 0) {
			*ret = all[i];
			return 0;
		}
	return -EINVAL;
}

const char *luks_format_name(enum luks_format format)
{
	switch (format) {
	case LUKS_FORMAT_ANY:
		return "luks";
	case LUKS_FORMAT_LUKS1:
		return "luks1";
	case LUKS_FORMAT_LUKS2:
		return "luks2";
	}
	return "luks";
}

void luks_limits_default(struct luks_limits *ret)
{
	*ret = (struct luks_limits){
		/* Two seconds of a fast machine are about 7 million; this is below a minute. */
		.pbkdf2_iterations = 50000000,
		/* Formatting picks 4 and trades memory for time on small machines. */
		.argon2_time = 64,
		/* The largest cryptsetup writes, which itself stops at 1 GiB by default. */
		.argon2_memory_kib = 4u << 20,
		/* cryptsetup writes at most 4. */
		.argon2_lanes = 16,
		/* Eight keyslots of a slow machine's LUKS1, tried in vain. */
		.unlock_timeout_s = 120,
		.turnstile = NULL,
	};
}

int header_damaged(struct fault *f, const char *fmt, ...)
{
	char text[256];
	va_list ap;

	va_start(ap, fmt);
	(void)vsnprintf(text, sizeof(text), fmt, ap);
	va_end(ap);
	return fault_set(f, EXIT_HEADER, -EBADMSG, "damaged: %s", text);
}

int header_refused(struct fault *f, const char *fmt, ...)
{
	char text[256];
	va_list ap;

	va_start(ap, fmt);
	(void)vsnprintf(text, sizeof(text), fmt, ap);
	va_end(ap);
	return fault_set(f, EXIT_HEADER, -ENOTSUP, "not supported: %s", text);
}

int header_read(const struct header_source *src, uint64_t off, void *buf, size_t len)
{
	if (len > src->raw_size || off > src->raw_size - len)
		return -EINVAL;
	return src->read(src->arg, off, buf, len);
}

int header_digest(const struct header_source *src, const void *bytes, size_t len)
{
	return EVP_DigestUpdate(src->digest, bytes, len) == 1 ? 0 : -ENOMEM;
}

static int no_memory(struct fault *f)
{
	return fault_set(f, EXIT_MEMORY, -ENOMEM, "not enough memory");
}

int header_read_fault(struct fault *f, int error)
{
	/* To our caller that would say that there is no header, and so no encryption. */
	if (error == -ENODATA)
		error = -EIO;
	if (error == -ENOMEM)
		return no_memory(f);
	if (error == -EINVAL)
		return fault_set(f, EXIT_HEADER, error, "the image ends inside its header");
	if (error == -EINTR)
		return fault_set(f, EXIT_TIMED_OUT, error, "interrupted while it was read");
	return fault_set(f, error == -ETIMEDOUT ? EXIT_TIMED_OUT : EXIT_CLUSTER, error,
			 "cannot read it from the image: %s", strerror(-error));
}

struct luks_header *luks_header_free(struct luks_header *h)
{
	if (!h)
		return NULL;
	for (unsigned int i = 0; i < h->n_regions; i++)
		free(h->regions[i].bytes);
	free(h);
	return NULL;
}

static void luks_header_freep(struct luks_header **h)
{
	luks_header_free(*h);
}

const struct luks_info *luks_header_info(const struct luks_header *h)
{
	return &h->info;
}

/* Appends a region and moves the caller's bytes into it. */
static void add_region_take(struct luks_header *h, uint64_t off, size_t len, unsigned char **bytes)
{
	h->regions[h->n_regions++] = (struct header_region){ off, len, *bytes };
	*bytes = NULL;
}

static int read_area(const struct header_source *src, const struct header_area *area,
		     struct luks_header *h, struct fault *f)
{
	unsigned char *bytes = malloc(area->used);
	int r;

	if (!bytes)
		return no_memory(f);
	r = header_read(src, area->off, bytes, area->used);
	if (r < 0) {
		free(bytes);
		return header_read_fault(f, r);
	}
	r = header_digest(src, bytes, area->used);
	add_region_take(h, area->off, area->used, &bytes);
	return r < 0 ? no_memory(f) : 0;
}

/* facts passed every check; bytes (moved) are the metadata region. */
static int complete_take(struct luks_header *h, const struct header_source *src,
			 const struct header_facts *facts, unsigned char **bytes, struct fault *f)
{
	struct luks_info *info = &h->info;
	int r;

	add_region_take(h, 0, facts->header_len, bytes);
	for (unsigned int i = 0; i < facts->n_areas; i++) {
		if (!facts->areas[i].is_wanted)
			continue;
		r = read_area(src, &facts->areas[i], h, f);
		if (r < 0)
			return r;
		info->keyslots++;
	}
	info->version = facts->version;
	info->data_offset = facts->data_offset;
	info->sector_size = facts->sector_size;
	info->key_bytes = facts->key_bytes;
	memcpy(info->uuid, facts->uuid, sizeof(info->uuid));
	(void)snprintf(info->cipher, sizeof(info->cipher), "%s", CIPHER_ALLOWED);
	h->argon2_memory_kib = facts->argon2_memory_kib;
	h->argon2_lanes = facts->argon2_lanes;
	return EVP_DigestFinal_ex(src->digest, info->digest, NULL) == 1 ? 0 : no_memory(f);
}

static int load_luks1(const struct header_source *src, const unsigned char *probe, size_t probed,
		      const struct luks_limits *limits, struct header_facts *ret,
		      unsigned char **ret_bytes, struct fault *f)
{
	unsigned char *bytes;
	int r;

	if (probed < LUKS1_HEADER_BYTES)
		return header_read_fault(f, -EINVAL);
	r = luks1_judge(probe, limits, ret, f);
	if (r < 0)
		return r;
	r = header_digest(src, probe, LUKS1_HEADER_BYTES);
	bytes = malloc(LUKS1_HEADER_BYTES);
	if (r < 0 || !bytes) {
		free(bytes);
		return no_memory(f);
	}
	memcpy(bytes, probe, LUKS1_HEADER_BYTES);
	memcpy(bytes, MAGIC_LUKS, MAGIC_BYTES);
	*ret_bytes = bytes;
	return 0;
}

/* Whether the start of an image without magic is the start of a plain image. */
static int load_nothing(const struct header_source *src, struct fault *f)
{
	uint64_t second_off;
	int r;

	r = luks2_find_second(src, &second_off);
	if (r < 0)
		return header_read_fault(f, r);
	if (!second_off)
		return -ENODATA;
	fault_hint(f,
		   "if the image is encrypted, repair it with cryptsetup; if it is not, erase the"
		   " 4096 bytes at offset %llu",
		   (unsigned long long)second_off);
	return header_damaged(f, "the first copy is gone, but the second one is whole");
}

/* probe: the first bytes of the image, at most PROBE_BYTES. */
static int load_probed(struct luks_header *h, const struct header_source *src,
		       const unsigned char *probe, size_t probed, uint64_t stripe_period,
		       const struct luks_limits *limits, struct fault *f)
{
	struct header_facts facts = { 0 };
	unsigned char *bytes = NULL;
	unsigned int version;
	int r;

	if (probed < MAGIC_BYTES + 2)
		return -ENODATA;
	h->info.is_clone_magic = memcmp(probe, MAGIC_RBDL, MAGIC_BYTES) == 0;
	if (!h->info.is_clone_magic && memcmp(probe, MAGIC_LUKS, MAGIC_BYTES) != 0)
		return load_nothing(src, f);

	version = header_be16(probe + MAGIC_BYTES);
	if (version == 1)
		r = load_luks1(src, probe, probed, limits, &facts, &bytes, f);
	else if (version == 2)
		r = luks2_load(src, limits, &facts, &bytes, f);
	else
		return header_refused(f, "LUKS version %u", version);
	if (r == 0)
		r = header_check_fit(&facts, src->raw_size, stripe_period, f);
	if (r == 0)
		r = complete_take(h, src, &facts, &bytes, f);
	free(bytes);
	return r;
}

static void digest_freep(EVP_MD_CTX **d)
{
	EVP_MD_CTX_free(*d);
}

int luks_header_load(luks_read_fn read, void *arg, uint64_t raw_size, uint64_t stripe_period,
		     const struct luks_limits *limits, struct luks_header **ret, struct fault *f)
{
	struct luks_header *h __attribute__((cleanup(luks_header_freep))) = calloc(1, sizeof(*h));
	EVP_MD_CTX *digest __attribute__((cleanup(digest_freep))) = EVP_MD_CTX_new();
	const size_t probed = raw_size < PROBE_BYTES ? raw_size : PROBE_BYTES;
	struct header_source src = { read, arg, raw_size, digest };
	unsigned char probe[PROBE_BYTES];
	int r;

	if (!h || !digest || EVP_DigestInit_ex(digest, EVP_sha256(), NULL) != 1)
		r = no_memory(f);
	else {
		r = probed ? header_read(&src, 0, probe, probed) : 0;
		if (r < 0)
			r = header_read_fault(f, r);
		else
			r = load_probed(h, &src, probe, probed, stripe_period, limits, f);
	}
	if (r == -ENODATA)
		return r;
	if (r < 0) {
		fault_prefix(f, "encryption header");
		return r;
	}
	log_debug(NULL,
		  "LUKS%d header: uuid %s, data at %llu, %u-byte sectors, %u-byte key, %u keyslots",
		  h->info.version, h->info.uuid, (unsigned long long)h->info.data_offset,
		  h->info.sector_size, h->info.key_bytes, h->info.keyslots);
	*ret = h;
	h = NULL;
	return 0;
}
