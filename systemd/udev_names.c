/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Copyright (C) 2026 the rbdcrypt-nbd authors */

/*
 * rbdcrypt-udev: what our udev rules ask about a device, "rbdcrypt-udev nbd3". It prints
 * properties (udev(7), IMPORT{program}) for a device that a living daemon of ours serves or one
 * that waits for attach, and fails for all others. Files of the run directory and of sysfs are all
 * it reads: it must answer at once, with or without a cluster.
 *
 * A state file may be older than the device: the cookie that the kernel keeps decides.
 *
 * One thread; started by a udev worker as root, or by hand.
 */

#include <errno.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>

#include "../daemon/state.h"
#include "../daemon/link_name.h"

/* Kernels before 5.14 keep no cookie. */
static bool is_cookie_right(const struct volume_state *v, const struct nbd_sysfs *kernel)
{
	return kernel->cookie[0] ? !strcmp(kernel->cookie, v->cookie) : volume_is_alive(v);
}

/* The owner says so before the device appears; a dead one's word counts if the cookie agrees. */
static const struct volume_state *find(const struct state_list *l, int index,
				       const struct nbd_sysfs *kernel)
{
	for (unsigned int i = 0; i < l->n; i++) {
		const struct volume_state *v = &l->volumes[i];

		if (v->device == index && is_cookie_right(v, kernel))
			return v;
	}
	return NULL;
}

static bool is_same_image(const struct volume_state *a, const struct volume_state *b)
{
	return !strcmp(a->fsid, b->fsid) && a->pool_id == b->pool_id &&
	       !strcmp(a->image_id, b->image_id) && a->snap_id == b->snap_id;
}

static bool has_device(const struct volume_state *v)
{
	struct nbd_sysfs kernel;

	return v->device >= 0 && nbd_sysfs_read(v->device, &kernel) == 0 && kernel.is_connected &&
	       is_cookie_right(v, &kernel);
}

/*
 * An image may be renamed while it is mapped, and another be mapped by its name since. "later": v
 * is that one; "earlier": there is one. Else "", as nearly always.
 */
static const char *named(const struct state_list *l, const struct volume_state *v)
{
	char spec[1024], other[1024];
	const char *ret = "";

	volume_state_spec(v, spec, sizeof(spec));
	for (unsigned int i = 0; i < l->n; i++) {
		const struct volume_state *o = &l->volumes[i];

		volume_state_spec(o, other, sizeof(other));
		if (o == v || strcmp(spec, other) != 0 || is_same_image(o, v) || !has_device(o))
			continue;
		if (o->named > v->named)
			return "earlier";
		if (o->named < v->named)
			ret = "later";
	}
	return ret;
}

static void put(const char *key, const char *value)
{
	char escaped[4 * 1024 + 1];

	if (value[0] && link_escape(value, escaped, sizeof(escaped)) == 0)
		(void)printf("%s=%s\n", key, escaped);
}

static void print(const struct state_list *l, const struct volume_state *v)
{
	const char *format = v->n_layers ? v->layers[0].format : "";
	char link[4096], spec[1024];

	volume_state_spec(v, spec, sizeof(spec));
	put("RBDCRYPT_SPEC", spec);
	put("RBDCRYPT_POOL", v->pool);
	put("RBDCRYPT_NAMESPACE", v->nspace);
	put("RBDCRYPT_IMAGE", v->image);
	put("RBDCRYPT_SNAP", v->snap);
	put("RBDCRYPT_FORMAT", format[0] ? format : "none");
	put("RBDCRYPT_NAMED", named(l, v));
	(void)printf("RBDCRYPT_READ_ONLY=%d\n", v->is_read_only);
	if (!v->file[0] && link_of_image(v->pool, v->nspace, v->image, v->snap, v->snap_id, link,
					 sizeof(link)) == 0)
		(void)printf("RBDCRYPT_LINK=%s\n", link);
	if (link_of_cookie(v->cookie, link, sizeof(link)) == 0)
		(void)printf("RBDCRYPT_COOKIE_LINK=%s\n", link);
}

int main(int argc, char **argv)
{
	const struct volume_state *v = NULL;
	struct nbd_sysfs kernel;
	struct state_list l;
	struct fault f = { 0 };
	char run_dir[4096];
	int index, r;

	if (argc != 2 || nbd_index_parse(argv[1], &index) < 0) {
		(void)fprintf(stderr, "usage: rbdcrypt-udev nbdN\n");
		return EXIT_USAGE;
	}
	r = nbd_sysfs_read(index, &kernel);
	if (r < 0 || !kernel.is_connected)
		return EXIT_NOT_FOUND;
	r = state_run_dir(NULL, run_dir, sizeof(run_dir), &f);
	if (r == 0)
		r = state_list(run_dir, &l, &f);
	if (r < 0) {
		fault_print(stderr, &f);
		return f.status;
	}
	v = find(&l, index, &kernel);
	if (v)
		print(&l, v);
	state_list_done(&l);
	if (!v)
		return EXIT_NOT_FOUND;
	return fflush(stdout) == 0 ? EXIT_OK : EXIT_USAGE;
}
