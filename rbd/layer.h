/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Copyright (C) 2026 the rbdcrypt-nbd authors */

#ifndef RBD_LAYER_H
#define RBD_LAYER_H

#include "cluster.h"
#include "file.h"
#include "handle.h"
#include "image.h"

/* One layer: a file, or an image that is open read-only. Not thread-safe. */
struct layer {
	struct layer_info info;
	unsigned int timeout_s;
	struct cluster *cluster; /* one reference; NULL for a file */
	struct handle *handle; /* one reference; NULL for a file */
	struct file file; /* fd -1 for an image */
};

/* Whether file is what the layer was opened from. */
bool layer_is_file(const struct layer *l, const struct file *file);

#endif
