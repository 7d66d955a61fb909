/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Copyright (C) 2026 the rbdcrypt-nbd authors */

/*
 * A service that is restarted finds its device where its last run left it. Main thread, before
 * the cluster is there, so the image is known by its name only; attach compares the rest.
 */

#include "resume.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "nbdctl.h"
#include "state.h"

static bool is_waiting(const struct volume_state *v)
{
	struct nbd_sysfs kernel;

	if (volume_is_alive(v) || v->device < 0 || nbd_sysfs_read(v->device, &kernel) < 0)
		return false;
	return kernel.is_connected && (!kernel.cookie[0] || !strcmp(kernel.cookie, v->cookie));
}

/* "3" names an image here, never a device. */
static bool is_named(const struct volume_state *v, const char *name)
{
	char spec[VOLUME_SPEC_LEN];
	size_t len, n = strlen(name);

	volume_state_spec(v, spec, sizeof(spec));
	len = strlen(spec);
	return len >= n && !strcmp(spec + len - n, name) &&
	       (len == n || (!strchr(name, '/') && spec[len - n - 1] == '/'));
}

static int set_device(struct options *o, const struct volume_state *v)
{
	char device[32], *text, *cookie = o->cookie ? NULL : strdup(v->cookie);

	(void)snprintf(device, sizeof(device), "/dev/nbd%d", v->device);
	text = strdup(device);
	if (!text || (!o->cookie && !cookie)) {
		free(text);
		free(cookie);
		return -ENOMEM;
	}
	free(o->device);
	o->device = text;
	if (cookie)
		o->cookie = cookie;
	return 0;
}

int resume_find(struct options *o, const char *run_dir, char **ret, struct fault *f)
{
	const struct volume_state *v;
	struct state_list l;
	char name[4096];
	int r = state_list(run_dir, &l, f);

	if (r < 0)
		return r;
	image_spec_format(&o->spec, name, sizeof(name));
	/* None of that name, or several: map says what is wrong with that. */
	*ret = NULL;
	if (state_find(&l, name, &v, NULL) == 0 && is_named(v, name) && is_waiting(v)) {
		*ret = strdup(v->key);
		if (!*ret || set_device(o, v) < 0)
			r = fault_set(f, EXIT_MEMORY, -ENOMEM, "no memory for the device's name");
	}
	state_list_done(&l);
	return r;
}
