// SPDX-License-Identifier: GPL-2.0-or-later
// Copyright (C) 2026 the rbdcrypt-nbd authors

/*
 * The metadata of a LUKS2 header, judged. The JSON holds five objects:
 *
 *	config    sizes of the two areas, flags, requirements
 *	segments  what lies where on the device: exactly one here, "0", to its end
 *	keyslots  how a passphrase becomes the volume key
 *	digests   which keyslots and segments belong together, and a proof of the key
 *	tokens    external ways to unlock; not used by us
 *
 * In the objects that decide about the data, a member we do not know is a refusal:
 * it may change what the bytes mean. Numbers beyond 32 bit are written as strings
 * and are parsed exactly. Pure functions over a text that may be anything.
 */

#include "header.h"

#include <errno.h>
#include <json-c/json.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define MAX_DEPTH 16 /* five levels are used, and tokens may hold anything */
#define KEYSLOTS_AREA_MAX ((uint64_t)128 << 20) /* the format's own limit, bytes */
#define ALIGNMENT 4096u /* of areas, bytes */

/* ---- reading members; all of them say what is missing ---- */

static int member(struct json_object *o, const char *in, const char *key, enum json_type type,
		  struct json_object **ret, struct fault *f)
{
	struct json_object *value;

	if (!json_object_object_get_ex(o, key, &value) || !json_object_is_type(value, type))
		return header_damaged(f, "%s: \"%s\" is missing or not of type %s", in, key,
				      json_type_to_name(type));
	*ret = value;
	return 0;
}

static int text_member(struct json_object *o, const char *in, const char *key, const char **ret,
		       struct fault *f)
{
	struct json_object *value;
	int r;

	r = member(o, in, key, json_type_string, &value, f);
	if (r < 0)
		return r;
	/* A NUL inside would show us one string and the next reader another. */
	if (strlen(json_object_get_string(value)) != (size_t)json_object_get_string_len(value))
		return header_damaged(f, "%s: \"%s\" holds a NUL", in, key);
	*ret = json_object_get_string(value);
	return 0;
}

/* An int member that must be one of 0..INT64_MAX; what is larger saturates there. */
static int number_member(struct json_object *o, const char *in, const char *key, uint64_t *ret,
			 struct fault *f)
{
	struct json_object *value;
	int64_t n;
	int r;

	r = member(o, in, key, json_type_int, &value, f);
	if (r < 0)
		return r;
	n = json_object_get_int64(value);
	if (n < 0)
		return header_damaged(f, "%s: \"%s\" is negative", in, key);
	*ret = (uint64_t)n;
	return 0;
}

/* A number written as a string: decimal digits and nothing else, in one way only. */
static bool parse_u64(const char *text, uint64_t *ret)
{
	uint64_t n = 0;

	if (!*text || (text[0] == '0' && text[1]))
		return false;
	for (; *text; text++) {
		if (*text < '0' || *text > '9')
			return false;
		if (__builtin_mul_overflow(n, 10u, &n) ||
		    __builtin_add_overflow(n, (uint64_t)(*text - '0'), &n))
			return false;
	}
	*ret = n;
	return true;
}

static int size_member(struct json_object *o, const char *in, const char *key, uint64_t *ret,
		       struct fault *f)
{
	const char *text;
	int r;

	r = text_member(o, in, key, &text, f);
	if (r < 0)
		return r;
	if (!parse_u64(text, ret))
		return header_damaged(f, "%s: \"%s\" is not a number", in, key);
	return 0;
}

/* Refuses members that are not in the NULL-terminated list. */
static int only_members(struct json_object *o, const char *in, const char *const *known,
			struct fault *f)
{
	json_object_object_foreach(o, key, value)
	{
		const char *const *k = known;

		(void)value;
		while (*k && strcmp(*k, key) != 0)
			k++;
		if (!*k)
			return header_refused(f, "%s has the unknown member \"%.32s\"", in, key);
	}
	return 0;
}

static bool array_has(struct json_object *array, const char *text)
{
	for (size_t i = 0; i < json_object_array_length(array); i++) {
		struct json_object *o = json_object_array_get_idx(array, i);

		if (json_object_is_type(o, json_type_string) &&
		    strcmp(json_object_get_string(o), text) == 0)
			return true;
	}
	return false;
}

/* ---- config ---- */

static int judge_requirements(struct json_object *config, struct fault *f)
{
	struct json_object *requirements, *mandatory;
	const char *name;

	if (!json_object_object_get_ex(config, "requirements", &requirements))
		return 0;
	if (!json_object_is_type(requirements, json_type_object))
		return header_damaged(f, "config: \"requirements\" is not an object");
	if (!json_object_object_get_ex(requirements, "mandatory", &mandatory))
		return 0;
	if (!json_object_is_type(mandatory, json_type_array))
		return header_damaged(f, "config: \"mandatory\" is not an array");
	if (json_object_array_length(mandatory) == 0)
		return 0;
	name = json_object_get_string(json_object_array_get_idx(mandatory, 0));
	if (name && strstr(name, "reencrypt"))
		fault_hint(f, "let cryptsetup finish the reencryption first");
	return header_refused(f, "the requirement %.64s", name ? name : "null");
}

static int judge_config(struct json_object *root, uint64_t header_bytes, struct header_facts *facts,
			struct fault *f)
{
	uint64_t json_bytes, keyslots_bytes;
	struct json_object *config;
	int r;

	r = member(root, "JSON", "config", json_type_object, &config, f);
	if (r == 0)
		r = judge_requirements(config, f);
	if (r == 0)
		r = size_member(config, "config", "json_size", &json_bytes, f);
	if (r == 0)
		r = size_member(config, "config", "keyslots_size", &keyslots_bytes, f);
	if (r < 0)
		return r;
	if (json_bytes != header_bytes - 4096)
		return header_damaged(f, "config: \"json_size\" does not match the header");
	if (keyslots_bytes > KEYSLOTS_AREA_MAX || keyslots_bytes % ALIGNMENT)
		return header_damaged(f, "config: \"keyslots_size\" is impossible");
	facts->header_len = 2 * header_bytes;
	facts->areas_end = facts->header_len + keyslots_bytes;
	return 0;
}

/* ---- segments ---- */

static int judge_cipher(const char *in, const char *cipher, struct fault *f)
{
	if (strcmp(cipher, "aes-xts-plain64") != 0)
		return header_refused(f, "%s: the cipher %.64s (aes-xts-plain64 is)", in, cipher);
	return 0;
}

static int judge_segment_size(struct json_object *segment, struct fault *f)
{
	const char *size;
	int r;

	r = text_member(segment, "segment 0", "size", &size, f);
	if (r < 0)
		return r;
	if (strcmp(size, "dynamic") != 0)
		return header_refused(f, "segment 0 has the fixed size %.32s", size);
	return 0;
}

static int judge_segment_flags(struct json_object *segment, struct fault *f)
{
	struct json_object *flags;

	if (!json_object_object_get_ex(segment, "flags", &flags))
		return 0;
	if (!json_object_is_type(flags, json_type_array))
		return header_damaged(f, "segment 0: \"flags\" is not an array");
	if (json_object_array_length(flags))
		return header_refused(f, "segment 0 has flags");
	return 0;
}

static int judge_segment(struct json_object *segment, struct header_facts *facts, struct fault *f)
{
	static const char *const known[] = { "type",	   "offset",	  "size",  "iv_tweak",
					     "encryption", "sector_size", "flags", NULL };
	const char *type, *cipher;
	uint64_t sector_size, tweak;
	struct json_object *ignored;
	int r;

	r = text_member(segment, "segment 0", "type", &type, f);
	if (r < 0)
		return r;
	if (strcmp(type, "crypt") != 0)
		return header_refused(f, "segment 0 is of type %.32s", type);
	if (json_object_object_get_ex(segment, "integrity", &ignored))
		return header_refused(f, "segment 0 has integrity protection");
	r = only_members(segment, "segment 0", known, f);
	if (r == 0)
		r = judge_segment_flags(segment, f);
	if (r == 0)
		r = size_member(segment, "segment 0", "offset", &facts->data_offset, f);
	if (r == 0)
		r = judge_segment_size(segment, f);
	if (r == 0)
		r = size_member(segment, "segment 0", "iv_tweak", &tweak, f);
	if (r == 0)
		r = text_member(segment, "segment 0", "encryption", &cipher, f);
	if (r == 0)
		r = judge_cipher("segment 0", cipher, f);
	if (r == 0)
		r = number_member(segment, "segment 0", "sector_size", &sector_size, f);
	if (r < 0)
		return r;
	if (tweak != 0)
		return header_refused(f, "segment 0 has its sector numbers shifted by %llu",
				      (unsigned long long)tweak);
	if (sector_size < 512 || sector_size > 4096 || (sector_size & (sector_size - 1)))
		return header_refused(f, "sectors of %llu bytes (512 to 4096 are)",
				      (unsigned long long)sector_size);
	facts->sector_size = (uint32_t)sector_size;
	return 0;
}

static int judge_segments(struct json_object *root, struct header_facts *facts, struct fault *f)
{
	struct json_object *segments, *segment;
	int r;

	r = member(root, "JSON", "segments", json_type_object, &segments, f);
	if (r < 0)
		return r;
	if (json_object_object_length(segments) != 1)
		return header_refused(f, "%d segments (exactly one is)",
				      json_object_object_length(segments));
	r = member(segments, "segments", "0", json_type_object, &segment, f);
	if (r < 0)
		return r;
	return judge_segment(segment, facts, f);
}

/* ---- digests ---- */

/* *ret_keyslots: the names of the keyslots that hold the key of segment 0. */
static int judge_digests(struct json_object *root, const struct luks_limits *limits,
			 struct json_object **ret_keyslots, struct fault *f)
{
	struct json_object *digests, *bound = NULL;
	int r;

	r = member(root, "JSON", "digests", json_type_object, &digests, f);
	if (r < 0)
		return r;
	json_object_object_foreach(digests, name, digest)
	{
		struct json_object *segments, *keyslots;
		const char *type, *hash;
		uint64_t iterations;
		char what[32];

		(void)snprintf(what, sizeof(what), "digest %.8s", name);
		if (!json_object_is_type(digest, json_type_object))
			return header_damaged(f, "%s is not an object", what);
		r = text_member(digest, what, "type", &type, f);
		if (r == 0 && strcmp(type, "pbkdf2") != 0)
			r = header_refused(f, "%s is of type %.32s", what, type);
		if (r == 0)
			r = text_member(digest, what, "hash", &hash, f);
		if (r == 0)
			r = header_check_hash(what, hash, f);
		if (r == 0)
			r = number_member(digest, what, "iterations", &iterations, f);
		if (r == 0)
			r = header_check_pbkdf2(limits, what, iterations, f);
		if (r == 0)
			r = member(digest, what, "segments", json_type_array, &segments, f);
		if (r == 0)
			r = member(digest, what, "keyslots", json_type_array, &keyslots, f);
		if (r < 0)
			return r;
		if (!array_has(segments, "0"))
			continue;
		if (bound)
			return header_damaged(f, "two digests for one segment");
		bound = keyslots;
	}
	if (!bound)
		return header_damaged(f, "no digest for segment 0");
	*ret_keyslots = bound;
	return 0;
}

/* ---- keyslots ---- */

static int judge_kdf(struct json_object *keyslot, const char *what,
		     const struct luks_limits *limits, struct header_facts *facts, struct fault *f)
{
	uint64_t iterations, time, memory, cpus;
	const char *type, *hash;
	struct json_object *kdf;
	int r;

	r = member(keyslot, what, "kdf", json_type_object, &kdf, f);
	if (r == 0)
		r = text_member(kdf, what, "type", &type, f);
	if (r < 0)
		return r;
	if (strcmp(type, "pbkdf2") == 0) {
		r = text_member(kdf, what, "hash", &hash, f);
		if (r == 0)
			r = header_check_hash(what, hash, f);
		if (r == 0)
			r = number_member(kdf, what, "iterations", &iterations, f);
		return r < 0 ? r : header_check_pbkdf2(limits, what, iterations, f);
	}
	if (strcmp(type, "argon2i") != 0 && strcmp(type, "argon2id") != 0)
		return header_refused(f, "%s: the key derivation %.32s", what, type);
	r = number_member(kdf, what, "time", &time, f);
	if (r == 0)
		r = number_member(kdf, what, "memory", &memory, f);
	if (r == 0)
		r = number_member(kdf, what, "cpus", &cpus, f);
	if (r == 0)
		r = header_check_argon2(limits, what, time, memory, cpus, f);
	if (r < 0)
		return r;
	if (memory > facts->argon2_memory_kib)
		facts->argon2_memory_kib = (uint32_t)memory;
	if (cpus > facts->argon2_lanes)
		facts->argon2_lanes = (uint32_t)cpus;
	return 0;
}

static int judge_af(struct json_object *keyslot, const char *what, struct fault *f)
{
	const char *type, *hash;
	struct json_object *af;
	uint64_t stripes;
	int r;

	r = member(keyslot, what, "af", json_type_object, &af, f);
	if (r == 0)
		r = text_member(af, what, "type", &type, f);
	if (r == 0 && strcmp(type, "luks1") != 0)
		r = header_refused(f, "%s: the splitter %.32s", what, type);
	if (r == 0)
		r = text_member(af, what, "hash", &hash, f);
	if (r == 0)
		r = header_check_hash(what, hash, f);
	if (r == 0)
		r = number_member(af, what, "stripes", &stripes, f);
	if (r == 0 && stripes != HEADER_STRIPES)
		r = header_refused(f, "%s has %llu stripes (%u are)", what,
				   (unsigned long long)stripes, HEADER_STRIPES);
	return r;
}

static int judge_area(struct json_object *keyslot, const char *what, uint64_t key_bytes,
		      struct header_area *area, struct fault *f)
{
	const char *type, *cipher;
	struct json_object *o;
	uint64_t area_key;
	int r;

	r = member(keyslot, what, "area", json_type_object, &o, f);
	if (r == 0)
		r = text_member(o, what, "type", &type, f);
	if (r == 0 && strcmp(type, "raw") != 0)
		r = header_refused(f, "%s: an area of type %.32s", what, type);
	if (r == 0)
		r = text_member(o, what, "encryption", &cipher, f);
	if (r == 0)
		r = judge_cipher(what, cipher, f);
	if (r == 0)
		r = number_member(o, what, "key_size", &area_key, f);
	if (r == 0 && area_key != 32 && area_key != 64)
		r = header_refused(f, "%s: an area key of %llu bytes", what,
				   (unsigned long long)area_key);
	if (r == 0)
		r = size_member(o, what, "offset", &area->off, f);
	if (r == 0)
		r = size_member(o, what, "size", &area->len, f);
	if (r < 0)
		return r;
	if (area->off % ALIGNMENT || area->len % ALIGNMENT)
		return header_damaged(f, "%s: its area is not aligned", what);
	area->used = header_round_up(key_bytes * HEADER_STRIPES, ALIGNMENT);
	return 0;
}

static int judge_keyslot(const char *name, struct json_object *keyslot, struct json_object *bound,
			 const struct luks_limits *limits, struct header_facts *facts,
			 struct fault *f)
{
	static const char *const known[] = { "type", "key_size", "area", "kdf",
					     "af",   "priority", NULL };
	struct header_area *area = &facts->areas[facts->n_areas];
	uint64_t number, key_bytes;
	const char *type;
	char what[32];
	int r;

	if (!parse_u64(name, &number) || number >= HEADER_MAX_KEYSLOTS)
		return header_damaged(f, "a keyslot is called \"%.32s\"", name);
	(void)snprintf(what, sizeof(what), "keyslot %u", (unsigned int)number);
	if (!json_object_is_type(keyslot, json_type_object))
		return header_damaged(f, "%s is not an object", what);
	r = text_member(keyslot, what, "type", &type, f);
	if (r == 0 && strcmp(type, "luks2") != 0)
		r = header_refused(f, "%s is of type %.32s", what, type);
	if (r == 0)
		r = only_members(keyslot, what, known, f);
	if (r == 0)
		r = number_member(keyslot, what, "key_size", &key_bytes, f);
	if (r == 0)
		r = header_check_key_bytes(key_bytes, f);
	if (r == 0)
		r = judge_area(keyslot, what, key_bytes, area, f);
	if (r == 0)
		r = judge_kdf(keyslot, what, limits, facts, f);
	if (r == 0)
		r = judge_af(keyslot, what, f);
	if (r < 0)
		return r;

	area->keyslot = (unsigned int)number;
	area->is_wanted = array_has(bound, name);
	if (area->is_wanted) {
		if (facts->key_bytes && facts->key_bytes != key_bytes)
			return header_damaged(f, "keyslots hold keys of different length");
		facts->key_bytes = (uint32_t)key_bytes;
	}
	facts->n_areas++;
	return 0;
}

static int judge_keyslots(struct json_object *root, struct json_object *bound,
			  const struct luks_limits *limits, struct header_facts *facts,
			  struct fault *f)
{
	struct json_object *keyslots;
	int r;

	r = member(root, "JSON", "keyslots", json_type_object, &keyslots, f);
	if (r < 0)
		return r;
	if (json_object_object_length(keyslots) > HEADER_MAX_AREAS)
		return header_damaged(f, "more than %d keyslots", HEADER_MAX_AREAS);
	json_object_object_foreach(keyslots, name, keyslot)
	{
		r = judge_keyslot(name, keyslot, bound, limits, facts, f);
		if (r < 0)
			return r;
	}
	return 0;
}

/* ---- all of it ---- */

static int judge_root(struct json_object *root, uint64_t header_bytes,
		      const struct luks_limits *limits, struct header_facts *facts, struct fault *f)
{
	struct json_object *bound = NULL, *tokens;
	int r;

	r = judge_config(root, header_bytes, facts, f);
	if (r == 0)
		r = member(root, "JSON", "tokens", json_type_object, &tokens, f);
	if (r == 0)
		r = judge_segments(root, facts, f);
	if (r == 0)
		r = judge_digests(root, limits, &bound, f);
	if (r == 0)
		r = judge_keyslots(root, bound, limits, facts, f);
	return r < 0 ? r : header_check_areas(facts, f);
}

int luks2_judge(const char *json, uint64_t header_bytes, const struct luks_limits *limits,
		struct header_facts *ret, struct fault *f)
{
	struct json_tokener *tokener = json_tokener_new_ex(MAX_DEPTH);
	struct header_facts facts = *ret;
	struct json_object *root;
	enum json_tokener_error error;
	int r;

	if (!tokener)
		return fault_set(f, EXIT_MEMORY, -ENOMEM, "not enough memory");
	json_tokener_set_flags(tokener, JSON_TOKENER_STRICT | JSON_TOKENER_VALIDATE_UTF8);
	/* With its NUL: without it the parser would wait for more. */
	root = json_tokener_parse_ex(tokener, json, (int)strlen(json) + 1);
	error = json_tokener_get_error(tokener);
	json_tokener_free(tokener);
	if (error != json_tokener_success)
		r = header_damaged(f, "JSON: %s", json_tokener_error_desc(error));
	else if (!json_object_is_type(root, json_type_object))
		r = header_damaged(f, "JSON: not an object");
	else
		r = judge_root(root, header_bytes, limits, &facts, f);
	json_object_put(root);
	if (r == 0)
		*ret = facts;
	return r;
}
