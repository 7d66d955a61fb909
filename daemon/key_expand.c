/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Copyright (C) 2026 the rbdcrypt-nbd authors */

/*
 * Specifiers: one line of configuration serves every volume when the source of its key is written
 * with %p, %i and so on. The values are names that users of the cluster choose, so none may lead a
 * path to another folder, and none can become two words of a command. Pure text; any thread.
 */

#include "key_kind.h"

#include <ctype.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* A source is a path or a command line. */
#define SOURCE_MAX 16384

struct text {
	FILE *out;
	char *bytes;
	size_t len;
};

static int text_open(struct text *t)
{
	t->bytes = NULL;
	t->out = open_memstream(&t->bytes, &t->len);
	return t->out ? 0 : -ENOMEM;
}

/* Everything written, or NULL when there was no memory for it. */
static char *text_close(struct text *t)
{
	bool is_bad = ferror(t->out) != 0;

	if (fclose(t->out) != 0 || is_bad) {
		free(t->bytes);
		return NULL;
	}
	return t->bytes;
}

/* The last part of a file's path; the name of anything else. */
static const char *base_name(const char *image)
{
	const char *slash = strrchr(image, '/');

	return slash ? slash + 1 : image;
}

static bool is_dots(const char *s, size_t len)
{
	return (len == 1 && s[0] == '.') || (len == 2 && s[0] == '.' && s[1] == '.');
}

/* No part of it is "." or "..". A cookie is several names with slashes between. */
static bool stays_inside(const char *value, bool may_have_slashes)
{
	while (value) {
		const char *slash = strchr(value, '/');
		size_t len = slash ? (size_t)(slash - value) : strlen(value);

		if (is_dots(value, len) || (slash && !may_have_slashes))
			return false;
		value = slash ? slash + 1 : NULL;
	}
	return true;
}

static const char *value_of(char specifier, const struct key_place *p, char number[16])
{
	switch (specifier) {
	case 'p':
		return p->pool;
	case 'n':
		return p->nspace;
	case 'i':
		return base_name(p->image);
	case 's':
		return p->snap;
	case 'c':
		return p->cookie;
	case 'f':
		return p->fsid;
	case 'l':
		(void)snprintf(number, 16, "%u", p->layer);
		return number;
	case '%':
		return "%";
	default:
		return NULL;
	}
}

/* Writes the value of the specifier at s, which is behind the percent sign. */
static int put_specifier(FILE *out, char s, const struct key_place *p, struct fault *f)
{
	char number[16];
	const char *value = value_of(s, p, number);

	if (!value) {
		if (s)
			(void)fault_set(f, EXIT_USAGE, -EINVAL, "%%%c is no specifier", s);
		else
			(void)fault_set(f, EXIT_USAGE, -EINVAL, "it ends with a percent sign");
		fault_hint(f, "%%p pool, %%n namespace, %%i image, %%s snapshot, %%c cookie, %%f "
			      "cluster, %%l layer; %%%% is a percent sign");
		return -EINVAL;
	}
	if (!stays_inside(value, s == 'c')) {
		(void)fault_set(f, EXIT_USAGE, -EINVAL, "'%s' cannot stand for %%%c", value, s);
		fault_hint(f, "write the source without %%%c", s);
		return -EINVAL;
	}
	return fputs(value, out) < 0 ? -ENOMEM : 0;
}

int key_expand(const char *text, const struct key_place *place, char **ret, struct fault *f)
{
	struct text t;
	int r;

	if (strlen(text) > SOURCE_MAX)
		return fault_set(f, EXIT_USAGE, -EINVAL, "longer than %d bytes", SOURCE_MAX);
	r = text_open(&t);
	if (r < 0)
		return r;
	for (; r == 0 && *text; text++) {
		if (*text != '%')
			r = fputc(*text, t.out) == EOF ? -ENOMEM : 0;
		else
			r = put_specifier(t.out, text[1], place, f);
		if (r == 0 && *text == '%')
			text++;
	}
	if (!text_close(&t))
		return r < 0 ? r : -ENOMEM;
	if (r < 0)
		free(t.bytes);
	else
		*ret = t.bytes;
	return r;
}
