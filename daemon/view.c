/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Copyright (C) 2026 the rbdcrypt-nbd authors */

/*
 * What commands and the control socket say of a volume, in the same words. A state file cannot have
 * all of it: udev makes names after it was written, and the dead write nothing. Owns nothing.
 */

#include "view.h"

#include "link_name.h"
#include "state_json.h"

/* Takes value. */
static bool add(struct json_object *o, const char *key, struct json_object *value)
{
	if (value && json_object_object_add(o, key, value) == 0)
		return true;
	json_object_put(value);
	return false;
}

static struct json_object *links_to_json(const struct volume_state *v)
{
	struct json_object *array = json_object_new_array();
	char links[LINKS_MAX][LINK_LEN];
	unsigned int n = link_find("/dev", v, links);

	for (unsigned int i = 0; array && i < n; i++) {
		struct json_object *link = json_object_new_string(links[i]);

		if (link && json_object_array_add(array, link) == 0)
			continue;
		json_object_put(link);
		json_object_put(array);
		return NULL;
	}
	return array;
}

struct json_object *view_to_json(const struct volume_state *v)
{
	struct json_object *o = state_to_json(v);

	/*
	 * A process that is gone has no number: it may be another's by now. And no limit is no
	 * number that other languages have in 64 bits, of which one is the sign.
	 */
	if (o && add(o, "links", links_to_json(v)) &&
	    (volume_is_alive(v) || add(o, "id", json_object_new_int(0))) &&
	    (v->inline_threshold != SIZE_MAX ||
	     add(o, "inline_threshold", json_object_new_int(-1))))
		return o;
	json_object_put(o);
	return NULL;
}
