/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Copyright (C) 2026 the rbdcrypt-nbd authors */

/* Main thread of the commands that look for a volume. */

#include "operand.h"

#include <ctype.h>
#include <errno.h>
#include <limits.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "image.h"
#include "path.h"
#include "text.h"

#define FILE_PREFIX "file:"
/* What "serve" prints. */
#define SOCKET_PREFIX "nbd+unix:///?socket="

static bool is_split(const struct image_spec *s)
{
	return s->pool || s->nspace || s->image || s->snap || s->snap_id != UINT64_MAX;
}

static bool is_socket(const char *path)
{
	struct stat st;

	return stat(path, &st) == 0 && S_ISSOCK(st.st_mode);
}

/* The path in a URI of output_socket(), in place; -EINVAL: it is none. */
static int path_of_uri(char *s)
{
	char *to = s;

	for (const char *p = s + strlen(SOCKET_PREFIX); *p; p++) {
		unsigned int c;

		if (*p != '%') {
			*to++ = *p;
			continue;
		}
		if (!isxdigit((unsigned char)p[1]) || !isxdigit((unsigned char)p[2]) ||
		    sscanf(p + 1, "%2x", &c) != 1 || c == 0)
			return -EINVAL;
		*to++ = (char)c;
		p += 2;
	}
	*to = '\0';
	return 0;
}

int operand_name(struct options *o, char *buf, size_t len, struct fault *f)
{
	char path[PATH_MAX];
	int r;

	buf[0] = '\0';
	if (is_split(&o->spec)) {
		r = image_spec_parse(o->operand, &o->spec, f);
		if (r < 0)
			return r;
		image_spec_format(&o->spec, buf, len);
		return 0;
	}
	if (!o->operand)
		return 0;
	if (!o->operand[0]) {
		fault_hint(f, "rbdcrypt-nbd list --all shows what is there");
		return fault_set(f, EXIT_USAGE, -EINVAL, "the name of the volume is empty");
	}
	if (strncmp(o->operand, SOCKET_PREFIX, strlen(SOCKET_PREFIX)) == 0 &&
	    path_of_uri(o->operand) < 0)
		return fault_set(f, EXIT_USAGE, -EINVAL, "%s: no such address", o->operand);
	text_copy(buf, len, o->operand);
	if (strncmp(buf, FILE_PREFIX, strlen(FILE_PREFIX)) == 0) {
		if (realpath(o->operand + strlen(FILE_PREFIX), path))
			(void)snprintf(buf, len, FILE_PREFIX "%s", path);
	} else if (is_socket(o->operand)) {
		r = path_make_absolute(&o->operand);
		if (r < 0)
			return path_fault(r, f);
		text_copy(buf, len, o->operand);
	}
	return 0;
}
