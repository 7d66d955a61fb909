/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Copyright (C) 2026 the rbdcrypt-nbd authors */

#ifndef RBD_OBJECT_PLACE_H
#define RBD_OBJECT_PLACE_H

#include <stdint.h>

#include "handle.h"

/* Where an image's data is, and what its objects are called. */
struct object_place {
	int64_t pool_id; /* of the data */
	char prefix[128]; /* of the objects' names */
};

/* For a limited call. 0 or -errno. */
int object_place_read(struct handle *h, struct object_place *ret);

#define OBJECT_NAME_MAX (sizeof(((struct object_place *)0)->prefix) + 20)
void object_name(const struct object_place *p, uint64_t object, char name[OBJECT_NAME_MAX]);

#endif
