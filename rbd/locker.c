/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Copyright (C) 2026 the rbdcrypt-nbd authors */

/*
 * Other holders of an image's lock. Called by the thread that wants the lock, while it starts
 * or in owner.c; the calls run on threads of limit.c, and what a late one still touches is
 * freed when it comes back.
 *
 * A locker is alive while a watcher of the same address and cookie exists. Taking a living one
 * for dead would shoot him, so every doubt counts as alive.
 */

#include "locker.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "cls.h"
#include "fence.h"
#include "handle.h"
#include "limit.h"
#include "osd.h"

#define LOCK_NAME "rbd_lock"
#define AUTO_COOKIE "auto "

bool locker_is_automatic(const struct locker *l)
{
	size_t n = strlen(AUTO_COOKIE);

	return !l->is_shared && strcmp(l->tag, CLS_TAG_HEADER) == 0 &&
	       strncmp(l->cookie, AUTO_COOKIE, n) == 0 && l->cookie[n] != '\0' &&
	       strspn(l->cookie + n, "0123456789") == strlen(l->cookie + n);
}

bool locker_is_same(const struct locker *a, const struct locker *b)
{
	return strcmp(a->client, b->client) == 0 && strcmp(a->cookie, b->cookie) == 0 &&
	       strcmp(a->address, b->address) == 0 && strcmp(a->tag, b->tag) == 0;
}

/* ---- who holds it ---- */

struct find_call {
	struct cluster *cluster; /* one reference */
	rados_ioctx_t io; /* owned */
	char object[128];
	struct locker found;
};

static void find_free(void *arg)
{
	struct find_call *c = arg;

	if (c->io)
		rados_ioctx_destroy(c->io);
	cluster_unref(c->cluster);
	free(c);
}

/*
 * The lists are of strings that each end in a NUL; an exclusive lock has one of each. What does not
 * fit is an error: cut short, a living locker could look like a dead one.
 */
static int find_run(void *arg)
{
	struct find_call *c = arg;
	struct locker *l = &c->found;
	size_t tag_len = sizeof(l->tag), client_len = sizeof(l->client),
	       cookie_len = sizeof(l->cookie), address_len = sizeof(l->address);
	int is_exclusive = 0;
	ssize_t n = rados_list_lockers(c->io, c->object, LOCK_NAME, &is_exclusive, l->tag, &tag_len,
				       l->client, &client_len, l->cookie, &cookie_len, l->address,
				       &address_len);

	if (n < 0)
		return (int)n;
	if (n == 0)
		return -ENOENT;
	l->is_shared = !is_exclusive;
	l->tag[sizeof(l->tag) - 1] = l->client[sizeof(l->client) - 1] = '\0';
	l->cookie[sizeof(l->cookie) - 1] = l->address[sizeof(l->address) - 1] = '\0';
	return 0;
}

int locker_find(const struct locker_place *p, struct locker *ret)
{
	struct find_call *c = calloc(1, sizeof(*c));
	bool is_late = false;
	int r;

	if (!c)
		return -ENOMEM;
	c->cluster = cluster_ref(p->cluster);
	(void)snprintf(c->object, sizeof(c->object), "rbd_header.%s", p->image_id);
	r = cluster_ioctx(p->cluster, p->pool_id, p->nspace, &c->io);
	if (r == 0)
		r = limit_call(p->timeout_s, find_run, find_free, c, &is_late);
	if (is_late)
		return r;
	if (r == 0)
		*ret = c->found;
	find_free(c);
	return r;
}

/* ---- whether he is alive ---- */

struct alive_call {
	char address[128], cookie[64];
	int is_alive;
};

static int look_for_watcher(struct handle *h, void *data)
{
	struct alive_call *c = data;
	rbd_image_watcher_t *watchers = NULL;
	size_t n = 8;
	int r;

	do {
		free(watchers);
		watchers = calloc(n, sizeof(*watchers));
		if (!watchers)
			return -ENOMEM;
		r = rbd_watchers_list(h->image, watchers, &n);
	} while (r == -ERANGE);
	for (size_t i = 0; r >= 0 && i < n; i++) {
		char cookie[64];

		(void)snprintf(cookie, sizeof(cookie), AUTO_COOKIE "%llu",
			       (unsigned long long)watchers[i].cookie);
		if (strcmp(cookie, c->cookie) == 0 &&
		    strcmp(bare_address(watchers[i].addr), c->address) == 0)
			c->is_alive = 1;
	}
	if (r >= 0)
		rbd_watchers_list_cleanup(watchers, n);
	free(watchers);
	return r < 0 ? r : 0;
}

int locker_is_alive(const struct locker_place *p, const struct locker *l)
{
	struct place place = { .pool_id = p->pool_id,
			       .nspace = p->nspace,
			       .image_id = p->image_id,
			       .snap_id = UINT64_MAX };
	struct alive_call c = { 0 };
	struct handle *h;
	struct fault f = { 0 };
	int r = handle_open(p->cluster, &place, p->image_id, p->timeout_s, /* i */ NULL, &h, &f);

	if (r < 0)
		return r;
	(void)snprintf(c.address, sizeof(c.address), "%s", bare_address(l->address));
	(void)snprintf(c.cookie, sizeof(c.cookie), "%s", l->cookie);
	r = handle_call(h, p->timeout_s, look_for_watcher, &c, sizeof(c));
	h = handle_close(h, p->timeout_s);
	return r < 0 ? r : c.is_alive;
}

/* ---- out of the way ---- */

/* The number of "client.4123"; 0 for anything else. */
static uint64_t client_number(const char *client)
{
	unsigned long long n = 0;
	int end = 0;

	if (sscanf(client, "client.%llu%n", &n, &end) != 1 || client[end] != '\0')
		return 0;
	return n;
}

int locker_break(const struct locker_place *p, const struct locker *l, uint64_t own_client)
{
	const char *address = bare_address(l->address);
	struct patience patience = patience_for(p->timeout_s, NULL);
	uint64_t client = client_number(l->client);
	char object[128];
	rados_write_op_t op;
	int r;

	/* An address without a nonce would be that of every client of the host. */
	if (client == 0 || client == own_client || !strchr(address, '/'))
		return -EINVAL;
	r = cluster_fence(p->cluster, address, p->timeout_s, /* i */ NULL);
	if (r < 0)
		return r;
	(void)snprintf(object, sizeof(object), "rbd_header.%s", p->image_id);
	op = rados_create_write_op();
	cls_break_lock(op, (int64_t)client, l->cookie);
	r = osd_write(p->io, object, op, &patience);
	return r == -ENOENT ? 0 : r;
}
