/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Copyright (C) 2026 the rbdcrypt-nbd authors */

#ifndef RBD_LAYER_H
#define RBD_LAYER_H

#include "cluster.h"
#include "file.h"
#include "handle.h"
#include "image.h"

/* What Ceph is configured to do with the image, and by whom. */
struct layer_settings {
	bool is_copying_on_read, has_cache;
	bool has_read_policy; /* limits, or a choice of replicas */
	rbd_config_source_t copy_on_read_source, plugins_source, cache_mode_source,
		cache_policy_source;
	char plugins[256];
	char cache_mode[32];
	char cache_policy[32]; /* counts with has_cache only */
};

/* One layer: a file, or an image that is open read-only. Not thread-safe. */
struct layer {
	struct layer_info info;
	unsigned int timeout_s;
	const struct interrupt *interrupt; /* or NULL; outlives it */
	struct cluster *cluster; /* one reference; NULL for a file */
	struct handle *handle; /* one reference; NULL for a file */
	struct file file; /* fd -1 for an image */
	bool is_old_format;
	bool is_any; /* opened whatever it is, and so are its parents */
	struct layer_settings settings; /* of the image itself; empty for parents */
};

/* For a limited call. 0 or -errno. */
int layer_settings_read(struct handle *h, struct layer_settings *ret);

/* Whether file is what the layer was opened from. */
bool layer_is_file(const struct layer *l, const struct file *file);

#endif
