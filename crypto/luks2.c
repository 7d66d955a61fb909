// SPDX-License-Identifier: GPL-2.0-or-later
// Copyright (C) 2026 the rbdcrypt-nbd authors

/*
 * The two copies of a LUKS2 header. Each is a binary part of 4096 bytes and a JSON
 * text behind it, hdr_size bytes together; the second copy follows the first:
 *
 *	  0  magic, 6 bytes; version, 16 bit
 *	  8  hdr_size; sequence number
 *	 72  name of the checksum, 32 bytes; salt, 64 bytes
 *	168  UUID, 40 bytes
 *	256  offset of this copy
 *	448  checksum over hdr_size bytes with this field zero, 64 bytes
 *
 * (big-endian). Ceph changes only the magics of an image that was formatted while
 * it had a parent, so checksums are those of the original magics.
 *
 * Every copy with a right checksum is judged: libcryptsetup, or another client
 * after a repair, might take either. The one with the higher sequence number is
 * the truth; the private copy gets it in both places, as cryptsetup's own repair
 * would leave it, so that libcryptsetup has nothing to choose and nothing to mend.
 */

#include "header.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "log.h"

#define BINARY_BYTES 4096u
#define AT_VERSION 6
#define AT_SIZE 8
#define AT_SEQUENCE 16
#define AT_CHECKSUM_NAME 72
#define AT_UUID 168
#define AT_OFFSET 256
#define AT_CHECKSUM 448
#define CHECKSUM_FIELD 64u
#define SHA256_BYTES 32u

/* The format allows these and no others. */
#define SIZE_MIN (16u << 10)
#define SIZE_MAX_ALLOWED (4u << 20)

struct copy {
	const char *name; /* for messages */
	unsigned char *bytes; /* owned; LUKS magic restored; NULL: not valid */
	uint64_t size;
	uint64_t sequence;
	const char *problem; /* why it is not valid */
	struct header_facts facts;
};

static const char no_magic[] = "no magic";

static bool is_allowed_size(uint64_t size)
{
	return size >= SIZE_MIN && size <= SIZE_MAX_ALLOWED && (size & (size - 1)) == 0;
}

/* What is wrong with a binary part that was found at off, or NULL. */
static const char *binary_problem(const unsigned char *b, uint64_t off)
{
	const bool is_first = off == 0;

	if (memcmp(b, is_first ? MAGIC_LUKS : MAGIC_SKUL, MAGIC_BYTES) != 0 &&
	    memcmp(b, is_first ? MAGIC_RBDL : MAGIC_LDBR, MAGIC_BYTES) != 0)
		return no_magic;
	if (header_be16(b + AT_VERSION) != 2)
		return "wrong version";
	if (!is_allowed_size(header_be64(b + AT_SIZE)))
		return "impossible size";
	if (!is_first && header_be64(b + AT_SIZE) != off)
		return "its size does not match its place";
	if (header_be64(b + AT_OFFSET) != off)
		return "made for another place";
	if (strncmp((const char *)b + AT_CHECKSUM_NAME, "sha256", 32) != 0)
		return "unknown checksum";
	return NULL;
}

static int checksum(const unsigned char *bytes, uint64_t size, unsigned char ret[SHA256_BYTES])
{
	static const unsigned char zeros[CHECKSUM_FIELD];
	EVP_MD_CTX *d = EVP_MD_CTX_new();
	const size_t after = AT_CHECKSUM + CHECKSUM_FIELD;
	int r = -ENOMEM;

	if (d && EVP_DigestInit_ex(d, EVP_sha256(), NULL) == 1 &&
	    EVP_DigestUpdate(d, bytes, AT_CHECKSUM) == 1 &&
	    EVP_DigestUpdate(d, zeros, sizeof(zeros)) == 1 &&
	    EVP_DigestUpdate(d, bytes + after, size - after) == 1 &&
	    EVP_DigestFinal_ex(d, ret, NULL) == 1)
		r = 0;
	EVP_MD_CTX_free(d);
	return r;
}

/*
 * Reads the copy at off. A copy that is not valid is no error: c->problem says
 * what is wrong. -EINVAL: it does not fit the image; else -ENOMEM or a read error.
 */
static int copy_read(const struct header_source *src, uint64_t off, struct copy *c)
{
	unsigned char binary[BINARY_BYTES], sum[SHA256_BYTES];
	unsigned char *bytes;
	uint64_t size;
	int r;

	r = header_read(src, off, binary, sizeof(binary));
	if (r < 0)
		return r;
	c->problem = binary_problem(binary, off);
	if (c->problem)
		return 0;
	size = header_be64(binary + AT_SIZE);
	if (size > src->raw_size)
		return -EINVAL;

	bytes = malloc(size);
	if (!bytes)
		return -ENOMEM;
	r = header_read(src, off, bytes, size);
	if (r == 0)
		r = header_digest(src, bytes, size);
	if (r == 0) {
		/* All that was checked above must hold for the bytes that are kept. */
		c->problem = binary_problem(bytes, off);
		if (!c->problem && header_be64(bytes + AT_SIZE) != size)
			c->problem = "it changed while it was read";
		memcpy(bytes, off == 0 ? MAGIC_LUKS : MAGIC_SKUL, MAGIC_BYTES);
		r = checksum(bytes, size, sum);
	}
	if (r < 0) {
		free(bytes);
		return r;
	}
	if (!c->problem && memcmp(sum, bytes + AT_CHECKSUM, SHA256_BYTES) != 0)
		c->problem = "wrong checksum";
	if (c->problem) {
		free(bytes);
		return 0;
	}
	c->bytes = bytes;
	c->size = size;
	c->sequence = header_be64(bytes + AT_SEQUENCE);
	return 0;
}

/* Looks in every place where a second copy can be. What does not fit the image is not there. */
static int find_second(const struct header_source *src, struct copy *c)
{
	const char *problem = no_magic;

	for (uint64_t off = SIZE_MIN; off <= SIZE_MAX_ALLOWED && !c->bytes; off *= 2) {
		int r = copy_read(src, off, c);

		if (r < 0 && r != -EINVAL)
			return r;
		if (r == 0 && c->problem != no_magic)
			problem = c->problem;
	}
	c->problem = problem;
	return 0;
}

int luks2_find_second(const struct header_source *src, uint64_t *ret_off)
{
	struct copy c = { 0 };
	int r;

	r = find_second(src, &c);
	if (r < 0)
		return r;
	*ret_off = c.bytes ? c.size : 0;
	free(c.bytes);
	return 0;
}

/* The JSON text behind the binary part: one string, and nothing behind it. */
static int find_json(const struct copy *c, const char **ret, struct fault *f)
{
	const unsigned char *json = c->bytes + BINARY_BYTES;
	const size_t room = c->size - BINARY_BYTES;
	const unsigned char *end = memchr(json, 0, room);

	if (!end)
		return header_damaged(f, "the JSON area is not terminated");
	for (const unsigned char *p = end; p < json + room; p++)
		if (*p)
			return header_damaged(f, "something follows the JSON text");
	*ret = (const char *)json;
	return 0;
}

static int copy_judge(struct copy *c, const struct luks_limits *limits, struct fault *f)
{
	const char *json = NULL;
	int r;

	c->facts.version = 2;
	r = header_check_uuid(c->bytes + AT_UUID, c->facts.uuid, f);
	if (r == 0)
		r = find_json(c, &json, f);
	if (r == 0)
		r = luks2_judge(json, c->size, limits, &c->facts, f);
	if (r < 0)
		fault_prefix(f, "%s", c->name);
	return r;
}

/* Two flawless copies out of one. */
static int make_pair(const struct copy *c, unsigned char **ret)
{
	unsigned char *pair = malloc(2 * c->size);
	unsigned char *second = pair + c->size;
	int r = 0;

	if (!pair)
		return -ENOMEM;
	memcpy(pair, c->bytes, c->size);
	memcpy(second, c->bytes, c->size);
	memcpy(pair, MAGIC_LUKS, MAGIC_BYTES);
	memcpy(second, MAGIC_SKUL, MAGIC_BYTES);
	memset(pair + AT_OFFSET, 0, 8);
	for (unsigned int i = 0; i < 8; i++)
		second[AT_OFFSET + i] = (unsigned char)(c->size >> (56 - 8 * i));
	for (unsigned char *p = pair; p <= second && r == 0; p += c->size) {
		memset(p + AT_CHECKSUM, 0, CHECKSUM_FIELD);
		r = checksum(p, c->size, p + AT_CHECKSUM);
	}
	if (r < 0) {
		free(pair);
		return r;
	}
	*ret = pair;
	return 0;
}

/* Reads both. -EINVAL only when the image ends before any valid copy does. */
static int read_copies(const struct header_source *src, struct copy *first, struct copy *second)
{
	bool is_cut = false;
	int r;

	r = copy_read(src, 0, first);
	if (r == -EINVAL)
		is_cut = true;
	else if (r < 0)
		return r;
	if (first->bytes) {
		r = copy_read(src, first->size, second);
		if (r == -EINVAL)
			second->problem = "the image ends inside it";
		else if (r < 0)
			return r;
		return 0;
	}
	r = find_second(src, second);
	if (r < 0)
		return r;
	return is_cut && !second->bytes ? -EINVAL : 0;
}

static void note_problem(const struct copy *c)
{
	if (c->problem)
		log_debug(NULL, "LUKS2 header: %s is ignored: %s", c->name, c->problem);
}

static int judge_copies(struct copy *first, struct copy *second, const struct luks_limits *limits,
			const struct copy **ret_truth, struct fault *f)
{
	int r = 0;

	if (!first->bytes && !second->bytes)
		return header_damaged(f, "first copy: %s; second copy: %s", first->problem,
				      second->problem);
	note_problem(first);
	note_problem(second);
	if (first->bytes)
		r = copy_judge(first, limits, f);
	if (r == 0 && second->bytes)
		r = copy_judge(second, limits, f);
	if (r < 0)
		return r;
	if (first->bytes && (!second->bytes || first->sequence >= second->sequence))
		*ret_truth = first;
	else
		*ret_truth = second;
	return 0;
}

int luks2_load(const struct header_source *src, const struct luks_limits *limits,
	       struct header_facts *ret, unsigned char **ret_bytes, struct fault *f)
{
	struct copy first = { .name = "first copy" }, second = { .name = "second copy" };
	const struct copy *truth = NULL;
	int r;

	r = read_copies(src, &first, &second);
	if (r < 0)
		r = header_read_fault(f, r);
	else
		r = judge_copies(&first, &second, limits, &truth, f);
	if (r == 0) {
		r = make_pair(truth, ret_bytes);
		if (r < 0)
			(void)fault_set(f, EXIT_MEMORY, r, "not enough memory");
		else
			*ret = truth->facts;
	}
	free(first.bytes);
	free(second.bytes);
	return r;
}
