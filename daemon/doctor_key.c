/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Copyright (C) 2026 the rbdcrypt-nbd authors */

/*
 * Where a passphrase is kept: a place that is gone after the next boot, that others can read, or
 * that needs the very storage it opens, is found now and not when it is needed. Part of doctor.c;
 * owns nothing. Reads no passphrase of those who would have to ask or run something.
 */

#include "doctor.h"

#include <dirent.h>
#include <linux/magic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <sys/vfs.h>

#include "key.h"
#include "nbdctl.h"
#include "state.h"

#ifndef CEPH_SUPER_MAGIC
#define CEPH_SUPER_MAGIC 0x00c36400
#endif
/* dm on raid on nbd, and so on. */
#define STACK_MAX 8

/* ---- the block devices below a file ---- */

/*
 * The name of the nbd or rbd device that block device path (in /sys) stands on, or is; false when
 * it is none of these.
 */
static bool find_network(const char *path, int depth, char *ret, size_t len)
{
	char slaves[600], next[900];
	const char *name = strrchr(path, '/');
	struct dirent *e;
	bool is_found = false;
	DIR *dir;

	name = name ? name + 1 : path;
	if (strncmp(name, "nbd", 3) == 0 || strncmp(name, "rbd", 3) == 0) {
		(void)snprintf(ret, len, "%s", name);
		return true;
	}
	(void)snprintf(slaves, sizeof(slaves), "%.500s/slaves", path);
	dir = depth < STACK_MAX ? opendir(slaves) : NULL;
	while (dir && !is_found && (e = readdir(dir))) {
		if (e->d_name[0] == '.')
			continue;
		(void)snprintf(next, sizeof(next), "/sys/class/block/%s", e->d_name);
		is_found = find_network(next, depth + 1, ret, len);
	}
	if (dir)
		(void)closedir(dir);
	return is_found;
}

static bool is_on_network(dev_t dev, char *ret, size_t len)
{
	char link[64], *path;
	bool is_found;

	(void)snprintf(link, sizeof(link), "/sys/dev/block/%u:%u", major(dev), minor(dev));
	path = realpath(link, NULL);
	is_found = path && find_network(path, 0, ret, len);
	free(path);
	return is_found;
}

/* Whether the nbd device (or partition) of that name carries the image that is to be opened. */
static bool is_same_image(const struct doctor *d, const char *name, const struct chain *c)
{
	const struct layer_info *i = layer_info(c->layers[0].layer);
	struct state_list l;
	char nbd[32];
	int index;
	bool is_same = false;

	(void)snprintf(nbd, sizeof(nbd), "%.20s", name);
	nbd[strcspn(nbd, "p")] = '\0';
	if (nbd_index_parse(nbd, &index) < 0 || !d->run_dir[0] ||
	    state_list(d->run_dir, &l, NULL) < 0)
		return false;
	for (unsigned int v = 0; v < l.n; v++)
		if (l.volumes[v].device == index && !i->is_file &&
		    l.volumes[v].pool_id == i->pool_id &&
		    strcmp(l.volumes[v].image_id, i->image_id) == 0)
			is_same = true;
	state_list_done(&l);
	return is_same;
}

/* ---- one file ---- */

static void check_place(struct doctor *d, const char *about, const char *path,
			const struct chain *c)
{
	struct statfs fs;
	struct stat st;
	char name[64];

	if (stat(path, &st) < 0 || statfs(path, &fs) < 0 || !S_ISREG(st.st_mode))
		return;
	if (is_on_network(st.st_dev, name, sizeof(name)))
		doctor_note(
			d, is_same_image(d, name, c) ? DOCTOR_FAIL : DOCTOR_WARN, about,
			"keep the passphrase on a local disk, or in a credential",
			is_same_image(d, name, c)
				? "%s lies on the image that it opens (%s)"
				: "%s lies on network storage itself (%s): it may be missing when "
				  "it is needed",
			path, name);
	else if (fs.f_type == CEPH_SUPER_MAGIC)
		doctor_note(d, DOCTOR_WARN, about,
			    "keep it where whoever can read the cluster's disks cannot",
			    "%s lies on CephFS: the key is stored with what it protects", path);
	else if (fs.f_type == TMPFS_MAGIC && strncmp(path, "/run/credentials/", 17) != 0)
		doctor_note(d, DOCTOR_WARN, about,
			    "make sure that something puts it there before the volume is opened",
			    "%s lies in memory and is gone after the next boot", path);
	else
		doctor_note(d, DOCTOR_OK, about, NULL, "%s", path);
}

void doctor_key(struct doctor *d, const struct chain_options *o, const struct chain *c,
		unsigned int i)
{
	const struct key_place place = chain_place(o, c, i);
	const struct key_options how = chain_key_options(o, i);
	struct fault f = { 0 };
	struct secret *s = NULL;
	char about[32], *source = NULL;
	bool is_file;

	(void)snprintf(about, sizeof(about), "key-%u", i + 1);
	if (key_resolve(chain_source(o, i), &place, &source, &f) < 0) {
		doctor_fault(d, about, &f);
		return;
	}
	is_file = source[0] == '/';
	if (key_repeat(source) != KEY_REPEATS)
		doctor_note(d, DOCTOR_WARN, about,
			    "a service that restarts by itself needs one that can be read again",
			    "%s can be had only once, or from a person", source);
	else if ((is_file || strncmp(source, "cred:", 5) == 0) &&
		 key_read(source, &place, &how, &s, &f) < 0)
		doctor_fault(d, about, &f);
	else if (key_check(source, &how, &f) < 0)
		doctor_fault(d, about, &f);
	else if (is_file)
		check_place(d, about, source, c);
	else
		doctor_note(d, DOCTOR_OK, about, NULL, "%s", source);
	(void)secret_free(s);
	free(source);
}
