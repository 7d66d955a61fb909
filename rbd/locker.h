/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Copyright (C) 2026 the rbdcrypt-nbd authors */

#ifndef RBD_LOCKER_H
#define RBD_LOCKER_H

#include <stdbool.h>
#include <stdint.h>

#include "cluster.h"

/*
 * Who holds the header lock of an image, whether he is alive, and how a dead one is put out
 * of the way: blocklisted first, so that nothing of his can land later. Blocking, each call at
 * most timeout_s; never on an IO thread. (spec: rados-engine 2.1, 3.2)
 */
struct locker {
	char client[64]; /* "client.4123" */
	char cookie[64];
	char address[128]; /* as Ceph prints it */
	char tag[32];
	bool is_shared;
};

struct locker_place {
	struct cluster *cluster;
	rados_ioctx_t io; /* metadata pool and namespace */
	int64_t pool_id;
	const char *nspace;
	const char *image_id;
	unsigned int timeout_s;
};

/* 0 and who; -ENOENT: nobody; -errno. */
int locker_find(const struct locker_place *p, struct locker *ret);
/* Whether librbd, the kernel or we took it: others are people, whom nobody overrules. */
bool locker_is_automatic(const struct locker *l);
bool locker_is_same(const struct locker *a, const struct locker *b);
/* 1: he still watches the image. 0: he does not. -errno: not known, which is not dead. */
int locker_is_alive(const struct locker_place *p, const struct locker *l);
/*
 * For one found dead in two looks: blocklists him, waits until every OSD that we will write to
 * must have heard of it, and takes the lock from him. 0, -errno; -EINVAL where the address is
 * that of own_client or makes no sense.
 */
int locker_break(const struct locker_place *p, const struct locker *l, uint64_t own_client);

#endif
