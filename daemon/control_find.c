/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Copyright (C) 2026 the rbdcrypt-nbd authors */

/*
 * From a name to a volume of this daemon. What a name means, the state files say; which volume that
 * is, the host. One that is starting has no name but its image's yet, unless a predecessor served
 * it on a socket.
 */

#include "control_find.h"

#include <errno.h>
#include <string.h>

#include "lookup.h"
#include "state.h"

int control_get_name(struct control_call *call, const char **ret, struct fault *f)
{
	struct json_object *value;
	const char *name;

	if (!json_object_object_get_ex(control_parameters(call), "name", &value) ||
	    !json_object_is_type(value, json_type_string))
		return fault_set(f, EXIT_USAGE, -EINVAL, "\"name\" must be a text");
	name = json_object_get_string(value);
	if (!name[0] || strlen(name) != (size_t)json_object_get_string_len(value) ||
	    strlen(name) > 4000)
		return fault_set(f, EXIT_USAGE, -EINVAL, "\"name\" is empty or too long");
	*ret = name;
	return 0;
}

struct search {
	const char *spec, *key;
	bool has_device; /* of the key's volume */
	struct host_volume *found;
};

static void compare(void *arg, struct host_volume *v)
{
	struct search *s = arg;
	const char *resumed = host_volume_resumed(v);

	if (host_volume_phase(v) == HOST_STARTING) {
		if ((s->spec && strcmp(host_volume_spec(v), s->spec) == 0) ||
		    (s->key && resumed && !s->has_device && strcmp(resumed, s->key) == 0))
			s->found = v;
	} else if (s->key && strcmp(host_volume_service(v)->key, s->key) == 0) {
		s->found = v;
	}
}

int control_find(struct host *h, const char *run_dir, const char *name, struct host_volume **ret,
		 struct fault *f)
{
	const struct volume_state *state;
	struct search s = { .spec = name };
	struct state_list l;
	int r;

	host_for_each(h, compare, &s);
	*ret = s.found;
	if (s.found)
		return 0;
	r = state_list(run_dir, &l, f);
	if (r < 0)
		return r;
	if (lookup_name(&l, name, &state, NULL) == 0 && volume_is_alive(state)) {
		s.spec = NULL;
		s.key = state->key;
		s.has_device = state->device >= 0;
		host_for_each(h, compare, &s);
	}
	state_list_done(&l);
	*ret = s.found;
	return 0;
}
