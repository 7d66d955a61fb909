/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Copyright (C) 2026 the rbdcrypt-nbd authors */

/*
 * Clients that must not write any more: blocklisted by their address, at which the OSDs also
 * forget what they watched. Called by commands and the threads that start a volume or hold a lock,
 * never by IO.
 */

#include "fence.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "cluster.h"
#include "limit.h"

const char *bare_address(const char *address)
{
	const char *colon = strchr(address, ':');
	size_t len = colon ? (size_t)(colon - address) : 0;

	/* An IPv4 address has a dot before its first colon, an IPv6 address a bracket. */
	if (!colon || memchr(address, '.', len) || memchr(address, '[', len))
		return address;
	return colon + 1;
}

struct fence_call {
	struct cluster *cluster; /* one reference */
	char address[128];
};

static int fence_run(void *arg)
{
	struct fence_call *c = arg;
	int r = rados_blocklist_add(cluster_rados(c->cluster), c->address, 0);

	/* Operations carry the epoch of our map, and an OSD that is behind it catches up first. */
	return r < 0 ? r : rados_wait_for_latest_osdmap(cluster_rados(c->cluster));
}

static void fence_free(void *arg)
{
	struct fence_call *c = arg;

	cluster_unref(c->cluster);
	free(c);
}

int cluster_fence(struct cluster *cluster, const char *address, unsigned int timeout_s,
		  const struct interrupt *i)
{
	struct fence_call *c;
	char own[128];
	bool is_late = false;
	int r = cluster_address(cluster, own, sizeof(own));

	address = bare_address(address);
	/* Without a nonce it would be every client of the host. */
	if (r < 0 || strcmp(own, address) == 0 || !strchr(address, '/') ||
	    strlen(address) >= sizeof(c->address))
		return r < 0 ? r : -EINVAL;
	c = calloc(1, sizeof(*c));
	if (!c)
		return -ENOMEM;
	c->cluster = cluster_ref(cluster);
	(void)snprintf(c->address, sizeof(c->address), "%s", address);
	r = limit_call_unless(i, timeout_s, fence_run, fence_free, c, &is_late);
	if (!is_late)
		fence_free(c);
	return r;
}

int cluster_address(struct cluster *c, char *buf, size_t len)
{
	char *addresses = NULL;
	int r = rados_getaddrs(cluster_rados(c), &addresses);

	if (r < 0)
		return r;
	r = strlen(bare_address(addresses)) < len ? 0 : -ERANGE;
	if (r == 0)
		(void)snprintf(buf, len, "%s", bare_address(addresses));
	rados_buffer_free(addresses);
	return r;
}
