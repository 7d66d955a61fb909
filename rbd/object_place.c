/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Copyright (C) 2026 the rbdcrypt-nbd authors */

/*
 * The objects behind an image, for the stores that go past librbd: the data pool may be another
 * than the image's, and the prefix is Ceph's choice.
 */

#include "object_place.h"

#include <inttypes.h>
#include <stdio.h>

int object_place_read(struct handle *h, struct object_place *ret)
{
	int r = rbd_get_block_name_prefix(h->image, ret->prefix, sizeof(ret->prefix));

	if (r < 0)
		return r;
	ret->pool_id = rbd_get_data_pool_id(h->image);
	return ret->pool_id < 0 ? (int)ret->pool_id : 0;
}

void object_name(const struct object_place *p, uint64_t object, char name[OBJECT_NAME_MAX])
{
	(void)snprintf(name, OBJECT_NAME_MAX, "%s.%016" PRIx64, p->prefix, object);
}
