/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Copyright (C) 2026 the rbdcrypt-nbd authors */

/*
 * The JSON form of a volume's state. It hides json-c's object tree from the state files
 * (state.c) and gives the same tree to the output commands (list.c). Tables name
 * each field once, for both directions. What is read comes from a file that another version
 * of this program or anybody with root may have written, so every value is checked
 * for type, range and length, and nothing is asserted. Any thread; owns nothing.
 */

#include "state_json.h"

#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* More than any chain that Ceph allows; bounds what a file can make us allocate. */
#define LAYERS_MAX 1024
#define DEPTH_MAX 8

enum field_type { FIELD_TEXT, FIELD_BOOL, FIELD_INT, FIELD_UINT, FIELD_I64, FIELD_U64 };

struct field {
	const char *key;
	enum field_type type;
	size_t offset, size;
};

#define FIELD(s, key, type, member)                                                                \
	{                                                                                          \
		key, type, offsetof(struct s, member), sizeof(((struct s *)0)->member)             \
	}

#define V(key, type, member) FIELD(volume_state, key, type, member)
/* rbd-nbd's keys come first; "snap" and "device" are made by hand. */
static const struct field head_fields[] = {
	V("id", FIELD_INT, pid),
	V("pool", FIELD_TEXT, pool),
	V("namespace", FIELD_TEXT, nspace),
	V("image", FIELD_TEXT, image),
};
static const struct field volume_fields[] = {
	V("cookie", FIELD_TEXT, cookie),
	V("key", FIELD_TEXT, key),
	V("pid_namespace", FIELD_U64, pid_namespace),
	V("hosted", FIELD_BOOL, is_hosted),
	V("file", FIELD_TEXT, file),
	V("socket", FIELD_TEXT, socket),
	V("fsid", FIELD_TEXT, fsid),
	V("conf", FIELD_TEXT, conf),
	V("user", FIELD_TEXT, user),
	V("mon_host", FIELD_TEXT, mons),
	V("pool_id", FIELD_I64, pool_id),
	V("image_id", FIELD_TEXT, image_id),
	V("size", FIELD_U64, size),
	V("raw_size", FIELD_U64, raw_size),
	V("data_offset", FIELD_U64, data_offset),
	V("block_size", FIELD_UINT, block_size),
	V("read_only", FIELD_BOOL, is_read_only),
	V("exclusive", FIELD_BOOL, is_exclusive),
	V("trim", FIELD_BOOL, is_trim_offered),
	V("connections", FIELD_UINT, connections),
	V("io_timeout", FIELD_INT, io_timeout_s),
	V("reattach_timeout", FIELD_INT, reattach_timeout_s),
	V("started", FIELD_U64, started),
	V("named", FIELD_U64, named),
	V("store", FIELD_TEXT, store),
	V("engine", FIELD_TEXT, engine),
	V("lock", FIELD_TEXT, lock),
	V("lock_owner", FIELD_TEXT, lock_owner),
	V("lock_reason", FIELD_TEXT, lock_reason),
	V("lock_seen", FIELD_U64, lock_seen),
	V("client", FIELD_TEXT, client),
	V("predecessor", FIELD_TEXT, dead_client),
	V("inline_threshold", FIELD_U64, inline_threshold),
	V("health", FIELD_TEXT, health),
	V("handed_over", FIELD_TEXT, handed_over),
};
#undef V

#define L(key, type, member) FIELD(layer_state, key, type, member)
static const struct field layer_fields[] = {
	L("spec", FIELD_TEXT, spec),
	L("format", FIELD_TEXT, format),
	L("cipher", FIELD_TEXT, cipher),
	L("uuid", FIELD_TEXT, uuid),
	L("raw_size", FIELD_U64, raw_size),
	L("data_offset", FIELD_U64, data_offset),
	L("sector_size", FIELD_UINT, sector_size),
	L("key_bits", FIELD_UINT, key_bits),
	L("clone_magic", FIELD_BOOL, is_clone_magic),
	L("inherited", FIELD_BOOL, is_inherited),
	L("key", FIELD_TEXT, key_health),
	L("key_source", FIELD_TEXT, key_source),
	L("key_reason", FIELD_TEXT, key_reason),
	L("key_checked", FIELD_U64, key_checked),
};
#undef L

#define K(key, type, member) FIELD(nbd_sysfs, key, type, member)
static const struct field kernel_fields[] = {
	K("size", FIELD_U64, size),
	K("read_only", FIELD_BOOL, is_read_only),
	K("logical_block", FIELD_UINT, logical_block),
	K("physical_block", FIELD_UINT, physical_block),
	K("write_cache", FIELD_BOOL, has_write_cache),
	K("fua", FIELD_BOOL, has_fua),
	K("discard_max", FIELD_U64, discard_max),
	K("write_zeroes_max", FIELD_U64, write_zeroes_max),
	K("max_hw_kib", FIELD_UINT, max_hw_kib),
};
#undef K
#define COUNT(a) (sizeof(a) / sizeof((a)[0]))

static void put_object(struct json_object **o)
{
	json_object_put(*o);
}
#define cleanup_json __attribute__((cleanup(put_object)))

/* ---- to JSON ---- */

/* Takes value, NULL included: that is how json-c reports that memory ran out. */
static int add(struct json_object *o, const char *key, struct json_object *value)
{
	if (value && json_object_object_add(o, key, value) == 0)
		return 0;
	json_object_put(value);
	return -ENOMEM;
}

static struct json_object *field_to_json(const struct field *f, const void *at)
{
	switch (f->type) {
	case FIELD_TEXT:
		return json_object_new_string(at);
	case FIELD_BOOL:
		return json_object_new_boolean(*(const bool *)at);
	case FIELD_INT:
		return json_object_new_int(*(const int *)at);
	case FIELD_UINT:
		return json_object_new_uint64(*(const unsigned int *)at);
	case FIELD_I64:
		return json_object_new_int64(*(const int64_t *)at);
	case FIELD_U64:
		return json_object_new_uint64(*(const uint64_t *)at);
	}
	return NULL;
}

static int add_fields(struct json_object *o, const struct field *fields, size_t n, const void *base)
{
	for (size_t i = 0; i < n; i++) {
		const void *at = (const char *)base + fields[i].offset;
		int r = add(o, fields[i].key, field_to_json(&fields[i], at));

		if (r)
			return r;
	}
	return 0;
}

static int add_names(struct json_object *o, const struct volume_state *v)
{
	char snap[300], device[32] = "";
	int r;

	if (!v->snap[0] && v->snap_id != UINT64_MAX)
		(void)snprintf(snap, sizeof(snap), "@%llu", (unsigned long long)v->snap_id);
	else
		(void)snprintf(snap, sizeof(snap), "%s", v->snap);
	if (v->device >= 0)
		(void)snprintf(device, sizeof(device), "/dev/nbd%d", v->device);
	r = add(o, "snap", json_object_new_string(snap));
	if (!r)
		r = add(o, "device", json_object_new_string(device));
	return r;
}

static int add_layers(struct json_object *o, const struct volume_state *v)
{
	struct json_object *array = json_object_new_array();
	int r = add(o, "layers", array);

	for (unsigned int i = 0; !r && i < v->n_layers; i++) {
		struct json_object *layer = json_object_new_object();

		if (!layer || json_object_array_add(array, layer)) {
			json_object_put(layer);
			return -ENOMEM;
		}
		r = add_fields(layer, layer_fields, COUNT(layer_fields), &v->layers[i]);
	}
	return r;
}

static int fill_object(struct json_object *o, const struct volume_state *v)
{
	char spec[VOLUME_SPEC_LEN];
	int r = add_fields(o, head_fields, COUNT(head_fields), v);

	if (!r)
		r = add_names(o, v);
	/* the cookie is the seventh of rbd-nbd's keys */
	if (!r)
		r = add_fields(o, volume_fields, 1, v);
	volume_state_spec(v, spec, sizeof(spec));
	if (!r)
		r = add(o, "state", json_object_new_string(volume_status_name(v->status)));
	if (!r)
		r = add(o, "spec", json_object_new_string(spec));
	if (!r && v->snap_id != UINT64_MAX)
		r = add(o, "snap_id", json_object_new_uint64(v->snap_id));
	if (!r)
		r = add_fields(o, volume_fields + 1, COUNT(volume_fields) - 1, v);
	if (!r && v->request)
		r = add(o, "request", json_object_new_string(v->request));
	if (!r)
		r = add_layers(o, v);
	if (!r && v->kernel.size) {
		struct json_object *kernel = json_object_new_object();

		r = add(o, "kernel", kernel);
		if (!r)
			r = add_fields(kernel, kernel_fields, COUNT(kernel_fields), &v->kernel);
	}
	return r;
}

struct json_object *state_to_json(const struct volume_state *v)
{
	struct json_object *o = json_object_new_object();

	if (o && fill_object(o, v)) {
		json_object_put(o);
		return NULL;
	}
	return o;
}

/* ---- from JSON ---- */

static int text_from_json(struct json_object *value, char *buf, size_t size)
{
	const char *text = json_object_get_string(value);
	size_t len = (size_t)json_object_get_string_len(value);

	if (!json_object_is_type(value, json_type_string) || len >= size || strlen(text) != len)
		return -EBADMSG;
	memcpy(buf, text, len + 1);
	return 0;
}

static int integer_from_json(struct json_object *value, int64_t min, uint64_t max, uint64_t *ret)
{
	int64_t n;

	if (!json_object_is_type(value, json_type_int))
		return -EBADMSG;
	n = json_object_get_int64(value);
	if (n < 0) {
		if (n < min)
			return -EBADMSG;
		*ret = (uint64_t)n;
		return 0;
	}
	/* json-c gives INT64_MAX for what is larger; the other call knows better */
	*ret = json_object_get_uint64(value);
	return *ret > max ? -EBADMSG : 0;
}

static int field_from_json(const struct field *f, struct json_object *value, void *at)
{
	uint64_t n = 0;
	int r;

	switch (f->type) {
	case FIELD_TEXT:
		return text_from_json(value, at, f->size);
	case FIELD_BOOL:
		if (!json_object_is_type(value, json_type_boolean))
			return -EBADMSG;
		*(bool *)at = json_object_get_boolean(value);
		return 0;
	case FIELD_INT:
		r = integer_from_json(value, INT_MIN, INT_MAX, &n);
		if (!r)
			*(int *)at = (int)(int64_t)n;
		return r;
	case FIELD_UINT:
		r = integer_from_json(value, 0, UINT_MAX, &n);
		if (!r)
			*(unsigned int *)at = (unsigned int)n;
		return r;
	case FIELD_I64:
		r = integer_from_json(value, INT64_MIN, INT64_MAX, &n);
		if (!r)
			*(int64_t *)at = (int64_t)n;
		return r;
	case FIELD_U64:
		r = integer_from_json(value, 0, UINT64_MAX, &n);
		if (!r)
			*(uint64_t *)at = n;
		return r;
	}
	return -EBADMSG;
}

static int read_fields(struct json_object *o, const struct field *fields, size_t n, void *base,
		       const char **why)
{
	for (size_t i = 0; i < n; i++) {
		struct json_object *value;

		if (!json_object_object_get_ex(o, fields[i].key, &value))
			continue;
		if (field_from_json(&fields[i], value, (char *)base + fields[i].offset)) {
			*why = fields[i].key;
			return -EBADMSG;
		}
	}
	return 0;
}

static int read_status(struct json_object *o, struct volume_state *v)
{
	struct json_object *value;
	char name[16];

	if (!json_object_object_get_ex(o, "state", &value) ||
	    text_from_json(value, name, sizeof(name)))
		return -EBADMSG;
	/* "dead" is not among them: a file cannot say that of its owner */
	for (int s = VOLUME_STARTING; s <= VOLUME_DETACHED; s++) {
		if (strcmp(name, volume_status_name((enum volume_status)s)) != 0)
			continue;
		v->status = (enum volume_status)s;
		return 0;
	}
	return -EBADMSG;
}

static int read_device(struct json_object *o, struct volume_state *v)
{
	struct json_object *value;
	char text[32], again[32];

	if (!json_object_object_get_ex(o, "device", &value))
		return 0;
	if (text_from_json(value, text, sizeof(text)))
		return -EBADMSG;
	if (!text[0])
		return 0;
	if (sscanf(text, "/dev/nbd%9d", &v->device) != 1)
		return -EBADMSG;
	(void)snprintf(again, sizeof(again), "/dev/nbd%d", v->device);
	return v->device < 0 || strcmp(text, again) != 0 ? -EBADMSG : 0;
}

static int read_snap(struct json_object *o, struct volume_state *v)
{
	struct json_object *value;
	int r = 0;

	if (json_object_object_get_ex(o, "snap", &value))
		r = text_from_json(value, v->snap, sizeof(v->snap));
	if (r || !json_object_object_get_ex(o, "snap_id", &value))
		return r;
	/* "@7" is how one without a name is shown */
	if (v->snap[0] == '@')
		v->snap[0] = 0;
	return integer_from_json(value, 0, UINT64_MAX, &v->snap_id);
}

static int read_layers(struct json_object *o, struct volume_state *v, const char **why)
{
	struct json_object *array;
	size_t n;

	if (!json_object_object_get_ex(o, "layers", &array))
		return 0;
	if (!json_object_is_type(array, json_type_array))
		return -EBADMSG;
	n = json_object_array_length(array);
	if (n > LAYERS_MAX)
		return -EBADMSG;
	v->layers = calloc(n + 1, sizeof(*v->layers));
	if (!v->layers)
		return -ENOMEM;
	v->n_layers = (unsigned int)n;
	for (size_t i = 0; i < n; i++) {
		struct json_object *layer = json_object_array_get_idx(array, i);
		int r;

		if (!json_object_is_type(layer, json_type_object))
			return -EBADMSG;
		r = read_fields(layer, layer_fields, COUNT(layer_fields), &v->layers[i], why);
		if (r)
			return r;
	}
	return 0;
}

static int read_request(struct json_object *o, struct volume_state *v)
{
	struct json_object *value;

	if (!json_object_object_get_ex(o, "request", &value))
		return 0;
	if (!json_object_is_type(value, json_type_string))
		return -EBADMSG;
	v->request = strdup(json_object_get_string(value));
	return v->request ? 0 : -ENOMEM;
}

static int read_object(struct json_object *o, struct volume_state *v, const char **why)
{
	struct json_object *kernel;
	int r;

	*why = "not an object";
	if (!json_object_is_type(o, json_type_object))
		return -EBADMSG;
	r = read_fields(o, head_fields, COUNT(head_fields), v, why);
	if (!r)
		r = read_fields(o, volume_fields, COUNT(volume_fields), v, why);
	if (r)
		return r;
	*why = "key";
	if (!v->key[0])
		return -EBADMSG;
	*why = "state";
	if (read_status(o, v))
		return -EBADMSG;
	*why = "device";
	if (read_device(o, v))
		return -EBADMSG;
	*why = "snap";
	if (read_snap(o, v))
		return -EBADMSG;
	*why = "request";
	r = read_request(o, v);
	if (r)
		return r;
	*why = "layers";
	r = read_layers(o, v, why);
	if (r)
		return r;
	*why = "kernel";
	if (!json_object_object_get_ex(o, "kernel", &kernel))
		return 0;
	if (!json_object_is_type(kernel, json_type_object))
		return -EBADMSG;
	return read_fields(kernel, kernel_fields, COUNT(kernel_fields), &v->kernel, why);
}

static int state_from_json(struct json_object *o, struct volume_state *ret, const char **why)
{
	struct volume_state v;
	int r;

	volume_state_init(&v);
	r = read_object(o, &v, why);
	if (r)
		volume_state_done(&v);
	else
		*ret = v;
	return r;
}

int state_from_text(const char *text, size_t len, struct volume_state *ret, const char **why)
{
	struct json_tokener *tokener;
	cleanup_json struct json_object *o = NULL;
	enum json_tokener_error error;
	size_t end;

	*why = "not JSON";
	if (len == 0 || len > INT_MAX)
		return -EBADMSG;
	tokener = json_tokener_new_ex(DEPTH_MAX);
	if (!tokener)
		return -ENOMEM;
	o = json_tokener_parse_ex(tokener, text, (int)len);
	error = json_tokener_get_error(tokener);
	end = json_tokener_get_parse_end(tokener);
	json_tokener_free(tokener);
	if (error != json_tokener_success)
		return -EBADMSG;
	while (end < len && (text[end] == '\n' || text[end] == ' '))
		end++;
	if (end != len)
		return -EBADMSG;
	return state_from_json(o, ret, why);
}
