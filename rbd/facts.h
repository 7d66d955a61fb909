/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Copyright (C) 2026 the rbdcrypt-nbd authors */

#ifndef RBD_FACTS_H
#define RBD_FACTS_H

#include <stdbool.h>
#include <stdint.h>

#include "osd.h"

/*
 * What an image's header says of the head, read in one operation and so of one moment:
 * the truth that writes are planned by. (spec: rados-engine 2.2)
 */
struct image_facts {
	uint64_t size; /* bytes, raw */
	uint8_t order; /* log2 of the object size */
	uint64_t features, incompatible;
	uint64_t flags; /* CLS_FLAG_... */
	uint64_t snap_seq;
	uint32_t n_snaps;
	uint64_t *snaps; /* owned; newest first */
	bool has_parent;
	int64_t parent_pool;
	char parent_nspace[128];
	char parent_id[64];
	uint64_t parent_snap;
	uint64_t raw_overlap; /* bytes; 0 without parent */
};

/*
 * Blocking, as long as p has patience; io is the metadata pool and namespace. 0, -errno of the
 * cluster, -EBADMSG. facts_done() the result. An image without parent is no error.
 */
int facts_read(rados_ioctx_t io, const char *image_id, const struct patience *p,
	       struct image_facts *ret);
void facts_done(struct image_facts *f);

#endif
