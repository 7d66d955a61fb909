/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Copyright (C) 2026 the rbdcrypt-nbd authors */

/*
 * From text to a method call. The text is a stranger's: it is counted before anything is made of
 * it, because an object of two bytes is a kilobyte of memory. Owns what json-c made of it.
 */

#include "control_message.h"

#include <errno.h>
#include <json-c/json_tokener.h>
#include <string.h>

#include "text.h"

#define DEPTH_MAX 16
/* Members and elements, about; a volume with all options and passphrases has a few hundred. */
#define VALUES_MAX 2048

static size_t count_values(const char *text, size_t len)
{
	bool is_in_string = false;
	size_t n = 0;

	for (size_t i = 0; i < len; i++) {
		if (text[i] == '"')
			is_in_string = !is_in_string;
		else if (is_in_string)
			i += text[i] == '\\';
		else
			n += text[i] == ',' || text[i] == '[' || text[i] == '{';
	}
	return n;
}

static int parse(const char *text, size_t len, struct json_object **ret)
{
	struct json_tokener *t = json_tokener_new_ex(DEPTH_MAX);
	int r = 0;

	if (!t)
		return -ENOMEM;
	json_tokener_set_flags(t, JSON_TOKENER_STRICT | JSON_TOKENER_VALIDATE_UTF8);
	/* With the zero byte, so that a number at the end is seen to be whole. */
	*ret = json_tokener_parse_ex(t, text, (int)len + 1);
	if (json_tokener_get_error(t) != json_tokener_success ||
	    json_tokener_get_parse_end(t) < len)
		r = -EBADMSG;
	json_tokener_free(t);
	return r;
}

/* -EBADMSG: it is there, and neither true nor false. */
static int get_bool(struct json_object *o, const char *key, bool *ret)
{
	struct json_object *value = NULL;

	(void)json_object_object_get_ex(o, key, &value);
	if (value && !json_object_is_type(value, json_type_boolean))
		return -EBADMSG;
	*ret = json_object_get_boolean(value);
	return 0;
}

/* Checks the envelope of m->json. */
static int open_envelope(struct control_message *m)
{
	struct json_object *method, *parameters;
	bool is_upgrade;
	const char *name;
	size_t len;

	if (!json_object_is_type(m->json, json_type_object) ||
	    !json_object_object_get_ex(m->json, "method", &method) ||
	    !json_object_is_type(method, json_type_string))
		return -EBADMSG;
	name = json_object_get_string(method);
	len = (size_t)json_object_get_string_len(method);
	if (len >= sizeof(m->method) || strlen(name) != len)
		return -EBADMSG;
	text_copy(m->method, sizeof(m->method), name);
	if (get_bool(m->json, "oneway", &m->is_oneway) < 0 ||
	    get_bool(m->json, "upgrade", &is_upgrade) < 0)
		return -EBADMSG;
	if (!json_object_object_get_ex(m->json, "parameters", &parameters) || !parameters) {
		parameters = json_object_new_object();
		if (!parameters || json_object_object_add(m->json, "parameters", parameters) < 0) {
			json_object_put(parameters);
			return -ENOMEM;
		}
	}
	if (!json_object_is_type(parameters, json_type_object) || is_upgrade)
		return -EBADMSG;
	m->parameters = parameters;
	return 0;
}

int control_message_open(const char *text, size_t len, struct control_message *ret)
{
	struct control_message m = { 0 };
	int r = count_values(text, len) > VALUES_MAX ? -EBADMSG : parse(text, len, &m.json);

	if (r == 0)
		r = open_envelope(&m);
	if (r < 0)
		control_message_done(&m);
	else
		*ret = m;
	return r;
}

void control_message_done(struct control_message *m)
{
	json_object_put(m->json);
	m->json = m->parameters = NULL;
}
