/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Copyright (C) 2026 the rbdcrypt-nbd authors */

#ifndef RBD_RADOS_H
#define RBD_RADOS_H

#include <stdatomic.h>

#include <rados/librados.h>

#include "layout.h"
#include "store.h"

/* One layer as IO sees it. Constant while the store is open, but for overlap. */
struct rados_objects {
	rados_ioctx_t io; /* owned: the data pool, namespace and snapshot */
	char prefix[128]; /* of the objects' names */
	struct layout layout;
	uint64_t data_offset; /* bytes */
	uint32_t sector; /* bytes; 1 for plaintext */
	uint64_t raw_size; /* bytes, as opened */
	/* Bytes of the device that are the parent's where this layer has no object. */
	atomic_uint_fast64_t overlap;
};

struct rados_store {
	struct store base;
	struct store *image; /* owned; never reads: knows size, changes and settings of the child */
	unsigned int timeout_s;
	atomic_uint_fast64_t raw_size; /* bytes of the child, as last asked for */
	unsigned int n;
	struct rados_objects layers[];
};

static inline struct rados_store *rados_of(struct store *s)
{
	return (struct rados_store *)s;
}

/* rados_io.c */
int rados_store_read(struct store *s, struct store_io *io, uint64_t dev_off, void *buf, size_t len);

#endif
