/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Copyright (C) 2026 the rbdcrypt-nbd authors */

/*
 * The generator orders mounts after names that udev's helper makes later, and "status" tells which
 * of them are there, so all have them from here. udev accepts letters, digits, "#+-.:=@_/", \xNN
 * and valid UTF-8 in a link's name and turns all else into an underscore (udev(7), string_escape);
 * we escape more than it would, so that nothing is turned. Owns nothing, any thread.
 */

#include "link_name.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define BY_COOKIE "by-cookie"

struct out {
	char *p;
	size_t left; /* with room for the NUL */
	int error;
};

static void put(struct out *o, const char *text, size_t n)
{
	if (o->error < 0 || n >= o->left) {
		o->error = -ENAMETOOLONG;
		return;
	}
	memcpy(o->p, text, n);
	o->p += n;
	o->left -= n;
	*o->p = 0;
}

static void put_hex(struct out *o, unsigned char c)
{
	char text[5];

	(void)snprintf(text, sizeof(text), "\\x%02x", c);
	put(o, text, 4);
}

static int is_plain(char c)
{
	return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') ||
	       (c && strchr("#+-.:=_", c));
}

/* The dash of a name that ends as udev lets those of partitions end, or NULL. */
static const char *partition_dash(const char *text)
{
	static const char suffix[] = "-part";
	const char *dash = strrchr(text, '-'), *number;

	if (!dash || strncmp(dash, suffix, strlen(suffix)) != 0)
		return NULL;
	number = dash + strlen(suffix);
	return *number && strspn(number, "0123456789") == strlen(number) ? dash : NULL;
}

/* One part of the path; also: what may stand in it besides; but: where not even that may, or NULL.
 */
static void put_part(struct out *o, const char *text, const char *also, const char *but)
{
	/* "." and ".." lead elsewhere, and a pool may be called as our own folder is. */
	if (!strcmp(text, ".") || !strcmp(text, "..") || !strcmp(text, BY_COOKIE))
		put_hex(o, (unsigned char)*text++);
	for (; *text; text++) {
		if (text != but && (is_plain(*text) || strchr(also, *text)))
			put(o, text, 1);
		else
			put_hex(o, (unsigned char)*text);
	}
}

static struct out start(char *buf, size_t len)
{
	struct out o = { buf, len, len ? 0 : -ENAMETOOLONG };

	if (len)
		buf[0] = 0;
	return o;
}

int link_of_image(const char *pool, const char *nspace, const char *image, const char *snap,
		  uint64_t snap_id, char *buf, size_t len)
{
	struct out o = start(buf, len);
	bool has_snap = (snap && *snap) || snap_id != UINT64_MAX;
	char number[24];

	if (!pool || !*pool || !image || !*image)
		return -EINVAL;
	put_part(&o, pool, "@", NULL);
	put(&o, "/", 1);
	if (nspace && *nspace) {
		put_part(&o, nspace, "@", NULL);
		put(&o, "/", 1);
	}
	/* Here an "@" says that a snapshot follows. */
	put_part(&o, image, "", has_snap ? NULL : partition_dash(image));
	if (snap && *snap) {
		put(&o, "@", 1);
		put_part(&o, snap, "", partition_dash(snap));
	} else if (snap_id != UINT64_MAX) {
		(void)snprintf(number, sizeof(number), "@%" PRIu64, snap_id);
		put(&o, number, strlen(number));
	}
	return o.error;
}

int link_of_cookie(const char *cookie, char *buf, size_t len)
{
	struct out o = start(buf, len);

	if (!*cookie)
		return -EINVAL;
	put(&o, BY_COOKIE "/", sizeof(BY_COOKIE));
	put_part(&o, cookie, "", partition_dash(cookie));
	return o.error;
}

int link_escape(const char *text, char *buf, size_t len)
{
	struct out o = start(buf, len);

	put_part(&o, text, "@/", NULL);
	return o.error;
}

/* Whether it is a link to the device, which is in the same /dev as the links. */
static bool leads_to(const char *path, const char *dev, int index)
{
	char want[4200], *is = realpath(path, NULL);
	bool is_same;

	(void)snprintf(want, sizeof(want), "%s/nbd%d", dev, index);
	is_same = is && strcmp(is, want) == 0;
	free(is);
	return is_same;
}

unsigned int link_find(const char *dev, const struct volume_state *v, char ret[LINKS_MAX][LINK_LEN])
{
	unsigned int n = 0;

	if (v->device < 0)
		return 0;
	for (unsigned int i = 0; i < LINKS_MAX; i++) {
		char name[LINK_LEN - 64];
		int r = i == 0 ? v->file[0] ? -EINVAL
					    : link_of_image(v->pool, v->nspace, v->image, v->snap,
							    v->snap_id, name, sizeof(name))
			       : link_of_cookie(v->cookie, name, sizeof(name));
		int len = r < 0 ? r : snprintf(ret[n], LINK_LEN, "%s/rbdcrypt/%s", dev, name);

		/* Of two devices of one image, the other one may have the name. */
		if (len > 0 && len < LINK_LEN && leads_to(ret[n], dev, v->device))
			n++;
	}
	return n;
}
