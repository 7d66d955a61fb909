/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Copyright (C) 2026 the rbdcrypt-nbd authors */

/*
 * A device belongs to its image until it is unmapped, also while no daemon serves it. Giving it
 * another image would put one filesystem's blocks into another, so every doubt is a refusal.
 */

#include "claim.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "nbdctl.h"

void claim_identity(const struct volume_state *s, char *buf, size_t len)
{
	if (s->file[0])
		(void)snprintf(buf, len, "file:%s", s->file);
	else if (s->snap_id == UINT64_MAX)
		(void)snprintf(buf, len, "%s/%lld/%s", s->fsid, (long long)s->pool_id, s->image_id);
	else
		(void)snprintf(buf, len, "%s/%lld/%s@%llu", s->fsid, (long long)s->pool_id,
			       s->image_id, (unsigned long long)s->snap_id);
}

static int check_leftover(const struct volume_state *old, const char *spec, struct fault *f)
{
	struct nbd_sysfs kernel;

	if (old->device < 0 || nbd_sysfs_read(old->device, &kernel) < 0 || !kernel.is_connected ||
	    (kernel.cookie[0] && strcmp(kernel.cookie, old->cookie) != 0))
		return 0;
	(void)fault_set(f, EXIT_BUSY, -EBUSY,
			"%s is still mapped to /dev/nbd%d, whose daemon is gone", spec,
			old->device);
	fault_hint(f,
		   "rbdcrypt-nbd attach --device /dev/nbd%d %s, or rbdcrypt-nbd unmap /dev/nbd%d",
		   old->device, spec, old->device);
	return -EBUSY;
}

int claim_check_map(const char *run_dir, const char *key, const char *spec, struct fault *f)
{
	struct state_list l;
	int r = state_list(run_dir, &l, f);

	if (r < 0)
		return r;
	for (unsigned int i = 0; r == 0 && i < l.n; i++)
		if (strcmp(l.volumes[i].key, key) == 0 && !volume_is_alive(&l.volumes[i]))
			r = check_leftover(&l.volumes[i], spec, f);
	state_list_done(&l);
	return r;
}

static int refuse_cookie(int index, const char *had, const char *cookie, struct fault *f)
{
	(void)fault_set(f, EXIT_NOT_FOUND, -EINVAL,
			"/dev/nbd%d was mapped with cookie '%s', not '%s'", index, had, cookie);
	fault_hint(f, "attach the image that was mapped, with the cookie it was mapped with");
	return -EINVAL;
}

static int check_kernel(int index, const char *cookie, const char *spec, struct fault *f)
{
	struct nbd_sysfs kernel;
	int r = nbd_sysfs_read(index, &kernel);

	if (r < 0 || !kernel.is_connected) {
		(void)fault_set(f, EXIT_NOT_FOUND, -ENODEV, "/dev/nbd%d is not mapped", index);
		fault_hint(f, "rbdcrypt-nbd map %s", spec);
		return -ENODEV;
	}
	if (kernel.cookie[0] && strcmp(kernel.cookie, cookie) != 0)
		return refuse_cookie(index, kernel.cookie, cookie, f);
	return 0;
}

int claim_check_attach(const char *run_dir, int index, const char *cookie, const char *spec,
		       unsigned int *ret_connections, struct fault *f)
{
	struct state_list l;
	int r;

	if (index < 0) {
		(void)fault_set(f, EXIT_USAGE, -EINVAL, "attach needs --device");
		fault_hint(f, "the device that %s was mapped to, for example --device /dev/nbd0",
			   spec);
		return -EINVAL;
	}
	r = state_list(run_dir, &l, f);
	if (r < 0)
		return r;
	for (unsigned int i = 0; r == 0 && i < l.n; i++) {
		const struct volume_state *v = &l.volumes[i];

		if (v->device != index)
			continue;
		if (volume_is_alive(v))
			r = fault_set(f, EXIT_BUSY, -EBUSY,
				      "/dev/nbd%d is served by process %d already", index, v->pid);
		else if (v->cookie[0] && strcmp(v->cookie, cookie) != 0)
			r = refuse_cookie(index, v->cookie, cookie, f);
		else if (v->connections > 0)
			*ret_connections = v->connections;
	}
	state_list_done(&l);
	return r < 0 ? r : check_kernel(index, cookie, spec, f);
}

void claim_forget(const char *run_dir, int index)
{
	struct state_list l;

	if (state_list(run_dir, &l, NULL) < 0)
		return;
	for (unsigned int i = 0; i < l.n; i++)
		if (l.volumes[i].device == index && !volume_is_alive(&l.volumes[i]))
			(void)state_remove(run_dir, l.volumes[i].key);
	state_list_done(&l);
}
