/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Copyright (C) 2026 the rbdcrypt-nbd authors */

/*
 * Which images must not be served, why, and the command that mends it. Settings of Ceph count
 * wherever they were made: for the image, for its pool or for everybody. Called by the thread that
 * opens a volume; owns nothing.
 */

#include "layer.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* ---- settings ---- */

static bool ends_in(const char *s, const char *end)
{
	size_t len = strlen(s), n = strlen(end);

	return len >= n && strcmp(s + len - n, end) == 0;
}

/* rbd_qos_iops_limit, rbd_qos_read_bps_limit, ...: 0 is none. */
static bool is_limit(const rbd_config_option_t *o)
{
	return strncmp(o->name, "rbd_qos_", 8) == 0 && ends_in(o->name, "_limit") &&
	       strcmp(o->value, "0") != 0;
}

static void note_setting(const rbd_config_option_t *o, struct layer_settings *ret)
{
	if (strcmp(o->name, "rbd_clone_copy_on_read") == 0) {
		ret->is_copying_on_read = strcmp(o->value, "true") == 0;
		ret->copy_on_read_source = o->source;
	} else if (strcmp(o->name, "rbd_plugins") == 0) {
		(void)snprintf(ret->plugins, sizeof(ret->plugins), "%s", o->value);
		ret->plugins_source = o->source;
	} else if (strcmp(o->name, "rbd_persistent_cache_mode") == 0) {
		(void)snprintf(ret->cache_mode, sizeof(ret->cache_mode), "%s", o->value);
		ret->cache_mode_source = o->source;
	} else if (strcmp(o->name, "rbd_cache_policy") == 0) {
		(void)snprintf(ret->cache_policy, sizeof(ret->cache_policy), "%s", o->value);
		ret->cache_policy_source = o->source;
	} else if (strcmp(o->name, "rbd_cache") == 0) {
		ret->has_cache = strcmp(o->value, "false") != 0;
	} else if (is_limit(o) || (strcmp(o->name, "rbd_read_from_replica_policy") == 0 &&
				   strcmp(o->value, "default") != 0)) {
		ret->has_read_policy = true;
	}
}

int layer_settings_read(struct handle *h, struct layer_settings *ret)
{
	rbd_config_option_t *options = NULL;
	int n = 0, r = rbd_config_image_list(h->image, NULL, &n);

	while (r == -ERANGE) {
		free(options);
		options = calloc((size_t)n, sizeof(*options));
		if (!options)
			return -ENOMEM;
		r = rbd_config_image_list(h->image, options, &n);
	}
	if (r >= 0 && options) {
		for (int i = 0; i < n; i++)
			note_setting(&options[i], ret);
		rbd_config_image_list_cleanup(options, n);
	}
	free(options);
	return r < 0 ? r : 0;
}

static void hint_setting(const struct layer_info *info, const char *name,
			 rbd_config_source_t source, struct fault *f)
{
	char image[4608];

	layer_image_spec(info, image, sizeof(image));
	switch (source) {
	case RBD_CONFIG_SOURCE_IMAGE:
		fault_hint(f, "it is set for the image: rbd config image rm %s %s", image, name);
		break;
	case RBD_CONFIG_SOURCE_POOL:
		fault_hint(f, "it is set for the pool: rbd config pool rm %s %s", info->pool, name);
		break;
	case RBD_CONFIG_SOURCE_CONFIG:
		fault_hint(f,
			   "take it out of ceph.conf, CEPH_ARGS or the command line, or where "
			   "'ceph config dump' shows it: ceph config rm client %s",
			   name);
		break;
	}
}

/* before, the image, after */
static void hint_image(const struct layer_info *info, struct fault *f, const char *before,
		       const char *after)
{
	char image[4608];

	layer_image_spec(info, image, sizeof(image));
	fault_hint(f, "%s %s%s", before, image, after);
}

/* ---- one function per reason ---- */

typedef bool (*refusal_fn)(const struct layer *l, struct fault *f);

static bool is_old_format(const struct layer *l, struct fault *f)
{
	if (!l->is_old_format)
		return false;
	fault_set(f, EXIT_SAFEGUARD, -ENOTSUP, "%s: image format 1 is not supported", l->info.spec);
	hint_image(&l->info, f, "convert it: rbd migration prepare", ", then execute and commit");
	return true;
}

static bool is_journaling(const struct layer *l, struct fault *f)
{
	if (!(l->info.features & RBD_FEATURE_JOURNALING))
		return false;
	fault_set(f, EXIT_SAFEGUARD, -ENOTSUP, "%s: the journaling feature is not supported",
		  l->info.spec);
	hint_image(&l->info, f, "disable it: rbd feature disable", " journaling");
	return true;
}

static bool is_migrating(const struct layer *l, struct fault *f)
{
	if (!(l->info.features & RBD_FEATURE_MIGRATING))
		return false;
	fault_set(f, EXIT_SAFEGUARD, -ENOTSUP, "%s: a migration is in progress", l->info.spec);
	hint_image(&l->info, f, "end it first: rbd migration execute and commit (or abort)", "");
	return true;
}

static bool is_cache_dirty(const struct layer *l, struct fault *f)
{
	if (!(l->info.features & RBD_FEATURE_DIRTY_CACHE))
		return false;
	fault_set(f, EXIT_SAFEGUARD, -ENOTSUP,
		  "%s: a persistent cache on some host holds data that is not in the image",
		  l->info.spec);
	hint_image(&l->info, f, "flush it there: rbd persistent-cache flush", "");
	return true;
}

static bool has_plugins(const struct layer *l, struct fault *f)
{
	if (!l->settings.plugins[0])
		return false;
	fault_set(f, EXIT_SAFEGUARD, -ENOTSUP,
		  "%s: rbd_plugins (%s) would put caches between us and the image", l->info.spec,
		  l->settings.plugins);
	hint_setting(&l->info, "rbd_plugins", l->settings.plugins_source, f);
	return true;
}

static bool has_persistent_cache(const struct layer *l, struct fault *f)
{
	const char *mode = l->settings.cache_mode;

	if (!mode[0] || strcmp(mode, "disabled") == 0)
		return false;
	fault_set(f, EXIT_SAFEGUARD, -ENOTSUP,
		  "%s: rbd_persistent_cache_mode (%s) keeps written data on the hosts",
		  l->info.spec, mode);
	hint_setting(&l->info, "rbd_persistent_cache_mode", l->settings.cache_mode_source, f);
	return true;
}

/* The kernel counts on what was answered, also after a daemon that died. */
static bool has_volatile_cache(const struct layer *l, struct fault *f)
{
	const char *policy = l->settings.cache_policy;

	if (!l->settings.has_cache || !policy[0] || strcmp(policy, "writethrough") == 0)
		return false;
	fault_set(f, EXIT_SAFEGUARD, -ENOTSUP,
		  "%s: rbd_cache with rbd_cache_policy (%s) keeps written data in the daemon's "
		  "memory, and loses it when that dies",
		  l->info.spec, policy);
	hint_setting(&l->info, "rbd_cache_policy", l->settings.cache_policy_source, f);
	return true;
}

static const refusal_fn refusals[] = {
	is_old_format, is_journaling,	     is_migrating,	 is_cache_dirty,
	has_plugins,   has_persistent_cache, has_volatile_cache,
};

int layer_refusal(const struct layer *l, unsigned int *at, struct fault *f)
{
	while (*at < sizeof(refusals) / sizeof(refusals[0]))
		if (refusals[(*at)++](l, f))
			return -ENOTSUP;
	return 0;
}

int layer_check_copy_on_read(const struct layer *l, struct fault *f)
{
	if (!l->settings.is_copying_on_read)
		return 0;
	fault_set(f, EXIT_SAFEGUARD, -ENOTSUP,
		  "%s: with rbd_clone_copy_on_read, clients without the keys would copy the "
		  "parent's ciphertext into the clone",
		  l->info.spec);
	hint_setting(&l->info, "rbd_clone_copy_on_read", l->settings.copy_on_read_source, f);
	return -ENOTSUP;
}

int layer_check_exclusive_lock(const struct layer *l, struct fault *f)
{
	if (l->info.features & RBD_FEATURE_EXCLUSIVE_LOCK)
		return 0;
	fault_set(f, EXIT_SAFEGUARD, -ENOTSUP,
		  "%s has no exclusive-lock feature: nothing would keep a second writer out",
		  l->info.spec);
	hint_image(&l->info, f, "rbd feature enable",
		   " exclusive-lock; or map it with --read-only, or with "
		   "--without-exclusive-lock if you keep others out yourself");
	return -ENOTSUP;
}
