/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Copyright (C) 2026 the rbdcrypt-nbd authors */

#ifndef RBD_CLUSTER_H
#define RBD_CLUSTER_H

#include <rados/librados.h>

#include "image.h"

/*
 * A reference keeps the connection up: calls that ran out of time hold one until they
 * come back. cluster_free() drops the first. Any thread.
 */
struct cluster *cluster_ref(struct cluster *c);
struct cluster *cluster_unref(struct cluster *c);
rados_t cluster_rados(struct cluster *c);

/*
 * A context for the objects of a pool, by its id, in a namespace ("": none); the caller destroys
 * it. -ENOENT: no such pool. Any thread.
 */
int cluster_ioctx(struct cluster *c, int64_t pool_id, const char *nspace, rados_ioctx_t *ret);

/*
 * Records what an errno of librados or librbd means for the user: status from the number,
 * "subject: doing: why". Returns error.
 */
int cluster_fault(struct fault *f, int error, const char *subject, const char *doing);

#endif
