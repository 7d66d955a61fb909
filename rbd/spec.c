/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Copyright (C) 2026 the rbdcrypt-nbd authors */

/*
 * The name of an image, as users of the rbd tool write it. Pure text: no connection, no
 * file is touched. Called while options are read, from the main thread, and by the
 * control socket.
 *
 * The reading follows the rbd tool's relaxed one, which it uses for images that exist:
 * the pool is what stands before the first "/", the namespace what stands before the
 * second one (unless an "@" comes before that), the snapshot everything after the first
 * "@" of the rest. So "a@b/c" is image c in pool "a@b", "a/b@c/d" is snapshot "c/d" of
 * image b, and "a/b/c/d" is image "c/d". What that tool takes for a strange image name
 * but is a slip of the pen ("pool//image") is refused here.
 */

#include "image.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define FILE_PREFIX "file:"

void image_spec_done(struct image_spec *s)
{
	if (!s)
		return;
	free(s->pool);
	free(s->nspace);
	free(s->image);
	free(s->snap);
	*s = (struct image_spec)IMAGE_SPEC_INIT;
}

static bool is_set(const char *s)
{
	return s && s[0];
}

static int refuse(struct fault *f, const char *text, const char *why)
{
	/* The reason must still be there when the text is very long. */
	fault_set(f, EXIT_USAGE, -EINVAL, "image spec '%.256s': %s", text ? text : "", why);
	fault_hint(f, "write [POOL/[NAMESPACE/]]IMAGE[@SNAP] or file:PATH");
	return -EINVAL;
}

/* The parts of text, as pointers into it; p NULL where text is silent. */
struct part {
	const char *p;
	size_t len;
};
struct parts {
	struct part pool, nspace, image, snap;
};

static int split(const char *text, struct parts *ret, struct fault *f)
{
	struct parts parts = { 0 };
	const char *rest = text, *slash = strchr(text, '/'), *at;

	if (slash == text)
		return refuse(f, text, "the pool's name is empty");
	if (slash) {
		parts.pool = (struct part){ text, (size_t)(slash - text) };
		rest = slash + 1;
		slash = strchr(rest, '/');
		at = strchr(rest, '@');
		if (slash == rest)
			return refuse(f, text, "the namespace's name is empty");
		if (slash && (!at || slash < at)) {
			parts.nspace = (struct part){ rest, (size_t)(slash - rest) };
			rest = slash + 1;
		}
	}
	at = strchr(rest, '@');
	parts.image = (struct part){ rest, at ? (size_t)(at - rest) : strlen(rest) };
	if (at)
		parts.snap = (struct part){ at + 1, strlen(at + 1) };
	if (parts.image.len == 0)
		return refuse(f, text, "the image's name is empty");
	if (at && parts.snap.len == 0)
		return refuse(f, text, "the snapshot's name is empty");
	*ret = parts;
	return 0;
}

/* The value of one field: from the text or from the options, not from both. */
static int choose(const char *text, const struct part *part, const char *option, const char *name,
		  char **ret, struct fault *f)
{
	char why[64];
	char *value = NULL;

	if (part->p && is_set(option)) {
		(void)snprintf(why, sizeof(why), "the %s is given twice, here and as an option",
			       name);
		return refuse(f, text, why);
	}
	if (part->p)
		value = strndup(part->p, part->len);
	else if (is_set(option))
		value = strdup(option);
	if (!value && (part->p || is_set(option)))
		return fault_set(f, EXIT_MEMORY, -ENOMEM, "out of memory");
	*ret = value;
	return 0;
}

/* Longer names than a layer_info holds cannot exist: RBD's own limits are below. */
static int check_lengths(const char *text, const struct image_spec *s, struct fault *f)
{
	const struct layer_info *info = NULL;

	if (s->pool && strlen(s->pool) >= sizeof(info->pool))
		return refuse(f, text, "the pool's name is too long");
	if (s->nspace && strlen(s->nspace) >= sizeof(info->nspace))
		return refuse(f, text, "the namespace's name is too long");
	if (strlen(s->image) >= sizeof(info->image))
		return refuse(f, text,
			      s->is_file ? "the path is too long" : "the image's name is too long");
	if (s->snap && strlen(s->snap) >= sizeof(info->snap))
		return refuse(f, text, "the snapshot's name is too long");
	return 0;
}

static int parse_file(const char *text, struct image_spec *ret, struct fault *f)
{
	struct image_spec s = IMAGE_SPEC_INIT;
	int r;

	if (is_set(ret->pool) || is_set(ret->nspace) || is_set(ret->image) || is_set(ret->snap) ||
	    ret->snap_id != UINT64_MAX)
		return refuse(f, text, "a file has no pool, namespace, image or snapshot");
	if (!text[strlen(FILE_PREFIX)])
		return refuse(f, text, "the path is empty");
	s.is_file = true;
	s.image = strdup(text + strlen(FILE_PREFIX));
	if (!s.image)
		return fault_set(f, EXIT_MEMORY, -ENOMEM, "out of memory");
	r = check_lengths(text, &s, f);
	if (r < 0) {
		image_spec_done(&s);
		return r;
	}
	image_spec_done(ret);
	*ret = s;
	return 0;
}

static int parse_image(const char *text, const struct image_spec *options, struct image_spec *ret,
		       struct fault *f)
{
	struct parts parts = { 0 };
	int r;

	if (text && text[0]) {
		r = split(text, &parts, f);
		if (r < 0)
			return r;
	} else if (!is_set(options->image)) {
		return refuse(f, text, "no image is named");
	}
	if ((parts.snap.p || is_set(options->snap)) && options->snap_id != UINT64_MAX)
		return refuse(f, text, "the snapshot is given both by name and by id");
	ret->snap_id = options->snap_id;
	r = choose(text, &parts.pool, options->pool, "pool", &ret->pool, f);
	if (r == 0)
		r = choose(text, &parts.nspace, options->nspace, "namespace", &ret->nspace, f);
	if (r == 0)
		r = choose(text, &parts.image, options->image, "image", &ret->image, f);
	if (r == 0)
		r = choose(text, &parts.snap, options->snap, "snapshot", &ret->snap, f);
	return r < 0 ? r : check_lengths(text, ret, f);
}

int image_spec_parse(const char *text, struct image_spec *ret, struct fault *f)
{
	struct image_spec s = IMAGE_SPEC_INIT;
	int r;

	if (text && strncmp(text, FILE_PREFIX, strlen(FILE_PREFIX)) == 0)
		return parse_file(text, ret, f);
	r = parse_image(text, ret, &s, f);
	if (r < 0) {
		image_spec_done(&s);
		return r;
	}
	image_spec_done(ret);
	*ret = s;
	return 0;
}

void image_spec_format(const struct image_spec *s, char *buf, size_t len)
{
	char by_id[32] = "";

	if (s->is_file) {
		(void)snprintf(buf, len, FILE_PREFIX "%s", s->image);
		return;
	}
	if (s->snap_id != UINT64_MAX && !is_set(s->snap))
		(void)snprintf(by_id, sizeof(by_id), "%" PRIu64, s->snap_id);
	(void)snprintf(buf, len, "%s%s%s%s%s%s%s%s", is_set(s->pool) ? s->pool : "",
		       is_set(s->pool) ? "/" : "", is_set(s->nspace) ? s->nspace : "",
		       is_set(s->nspace) ? "/" : "", s->image ? s->image : "",
		       is_set(s->snap) || by_id[0] ? "@" : "", is_set(s->snap) ? s->snap : "",
		       by_id);
}
