/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Copyright (C) 2026 the rbdcrypt-nbd authors */

#ifndef DAEMON_CLUSTERS_H
#define DAEMON_CLUSTERS_H

#include "fault.h"
#include "image.h"
#include "interrupt.h"

/*
 * The connections of a daemon: volumes that ask for the same cluster as the same user with the same
 * words share one. Any thread.
 */
struct clusters;

int clusters_new(struct clusters **ret);
/* Nothing may be held any more. NULL is fine. Returns NULL. */
struct clusters *clusters_free(struct clusters *c);

/*
 * The connection that o asks for, connected; held until clusters_put(). Blocking, bounded by
 * o->timeout_s and by i, or NULL: who asks for one that another thread is making waits for that,
 * and makes one when that thread was interrupted. As cluster_new() and cluster_connect(), but that
 * o->argv stays as it is.
 */
int clusters_get(struct clusters *c, const struct cluster_options *o, const struct interrupt *i,
		 struct cluster **ret, struct fault *f);

/*
 * The cluster shuts this client out: whoever asks from now on gets another connection. Those who
 * hold it keep it. NULL is fine.
 */
void clusters_retire(struct clusters *c, const struct cluster *cluster);

/* Blocking when it was the last hold. NULL is fine. Returns NULL. */
struct cluster *clusters_put(struct clusters *c, struct cluster *cluster);

#endif
