/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Copyright (C) 2026 the rbdcrypt-nbd authors */

/*
 * systemd reads a unit file with a grammar of its own: "%" begins a specifier everywhere, "$" a
 * variable in Exec lines, and where a value is a list of words, quotes and C escapes count. Called
 * by the generator; owns nothing, any thread.
 */

#include "unit_text.h"

#include <errno.h>
#include <stdint.h>
#include <string.h>

#include "../daemon/utf8.h"

/* Without DEL, and what Unicode calls no character. */
static bool is_taken(uint32_t c)
{
	return c >= 0x20 && c != 0x7f && (c < 0xfdd0 || c > 0xfdef) && (c & 0xfffe) != 0xfffe;
}

bool unit_can_hold(const char *text)
{
	while (*text) {
		uint32_t c;
		unsigned int n = utf8_character(text, &c);

		if (n == 0 || !is_taken(c))
			return false;
		text += n;
	}
	return true;
}

bool unit_can_end(const char *text)
{
	size_t n = strlen(text);

	return n > 0 && text[n - 1] != '\\' && text[n - 1] != ' ';
}

static void put_quoted(FILE *out, const char *text, const char *doubled)
{
	fputc('"', out);
	for (; *text; text++) {
		if (strchr("\"\\", *text))
			fputc('\\', out);
		else if (strchr(doubled, *text))
			fputc(*text, out);
		fputc(*text, out);
	}
	fputc('"', out);
}

void unit_put_argument(FILE *out, const char *text)
{
	put_quoted(out, text, "%$");
}

void unit_put_word(FILE *out, const char *text)
{
	put_quoted(out, text, "%");
}

void unit_put_value(FILE *out, const char *text)
{
	for (; *text; text++) {
		if (*text == '%')
			fputc('%', out);
		fputc(*text, out);
	}
}

int unit_escape_path(const char *path, char *buf, size_t len)
{
	static const char plain[] = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"
				    "0123456789:_.";
	size_t n = 0;

	if (*path != '/')
		return -EINVAL;
	path += strspn(path, "/");
	if (!*path)
		return -EINVAL;
	while (*path) {
		if (n + 5 > len)
			return -ENAMETOOLONG;
		if (*path == '/') {
			path += strspn(path, "/");
			if (*path)
				buf[n++] = '-';
			continue;
		}
		if (strchr(plain, *path) && !(*path == '.' && n == 0))
			buf[n++] = *path;
		else
			n += (size_t)snprintf(buf + n, 5, "\\x%02x", (unsigned char)*path);
		path++;
	}
	buf[n] = 0;
	return 0;
}
