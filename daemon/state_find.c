/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Copyright (C) 2026 the rbdcrypt-nbd authors */

/*
 * From what a user types to one volume of the list. Pure, any thread; reads no
 * configuration, so that unmap works where the cluster's is missing.
 */

#include "state.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

/* As typed with --snap-id, for a snapshot whose name we know; "" for anything else. */
static void spec_by_number(const struct volume_state *v, char *buf, size_t len)
{
	struct volume_state nameless = *v;

	buf[0] = 0;
	if (v->snap_id == UINT64_MAX)
		return;
	nameless.snap[0] = 0;
	volume_state_spec(&nameless, buf, len);
}

/* What follows the pool, if the pool may be guessed: never a file's, never a namespace's. */
static const char *without_pool(const struct volume_state *v, const char *spec)
{
	const char *image = v->file[0] || v->nspace[0] ? NULL : strchr(spec, '/');

	return image ? image + 1 : "";
}

/* "pid:N", of a living owner whom we would call the same. */
static bool is_owner(const struct volume_state *v, const char *name)
{
	char text[32];

	(void)snprintf(text, sizeof(text), "pid:%d", v->pid);
	return volume_is_alive(v) && v->pid_namespace == state_pid_namespace() &&
	       !strcmp(text, name);
}

static bool is_called(const struct volume_state *v, const char *name)
{
	char spec[VOLUME_SPEC_LEN], by_number[VOLUME_SPEC_LEN];
	int index;

	volume_state_spec(v, spec, sizeof(spec));
	spec_by_number(v, by_number, sizeof(by_number));
	return (v->device >= 0 && nbd_index_parse(name, &index) == 0 && index == v->device) ||
	       !strcmp(v->socket, name) || !strcmp(v->cookie, name) || !strcmp(spec, name) ||
	       !strcmp(by_number, name) || !strcmp(without_pool(v, spec), name) ||
	       !strcmp(without_pool(v, by_number), name) || is_owner(v, name);
}

static int not_unique(const struct state_list *l, const char *name, struct fault *f)
{
	char names[768] = "";
	size_t len = 0;

	for (unsigned int i = 0; i < l->n && len < sizeof(names); i++) {
		const struct volume_state *v = &l->volumes[i];
		char spec[1024];
		int n;

		if (!is_called(v, name))
			continue;
		volume_state_spec(v, spec, sizeof(spec));
		if (v->device >= 0)
			n = snprintf(names + len, sizeof(names) - len, "%s%s on /dev/nbd%d",
				     len ? ", " : "", spec, v->device);
		else
			n = snprintf(names + len, sizeof(names) - len, "%s%s on %s",
				     len ? ", " : "", spec, v->socket[0] ? v->socket : "no device");
		len += n > 0 ? (size_t)n : 0;
	}
	(void)fault_set(f, EXIT_USAGE, -ENOTUNIQ, "%s: could be %s", name, names);
	fault_hint(f, "name the device, or the socket");
	return -ENOTUNIQ;
}

int state_find(const struct state_list *l, const char *name, const struct volume_state **ret,
	       struct fault *f)
{
	const struct volume_state *found = NULL;

	/*
	 * No way to name one is surer than another: an image may be called as a device is, "nbd1",
	 * and a cookie as an image.
	 */
	for (unsigned int i = 0; name[0] && i < l->n; i++) {
		if (!is_called(&l->volumes[i], name))
			continue;
		if (found)
			return not_unique(l, name, f);
		found = &l->volumes[i];
	}
	if (found) {
		*ret = found;
		return 0;
	}
	(void)fault_set(f, EXIT_NOT_FOUND, -ENOENT, "%s is not mapped", name);
	fault_hint(f, "rbdcrypt-nbd list --all shows what is there");
	return -ENOENT;
}
