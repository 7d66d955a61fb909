/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Copyright (C) 2026 the rbdcrypt-nbd authors */

#include "utf8.h"

unsigned int utf8_character(const char *p, uint32_t *ret)
{
	static const uint32_t least[] = { 0, 0x80, 0x800, 0x10000 };
	unsigned char first = (unsigned char)*p;
	unsigned int more = first < 0x80	     ? 0
			    : (first & 0xe0) == 0xc0 ? 1
			    : (first & 0xf0) == 0xe0 ? 2
			    : (first & 0xf8) == 0xf0 ? 3
						     : 4;
	uint32_t c;

	if (more > 3)
		return 0;
	c = more ? first & (0x3fu >> more) : first;
	for (unsigned int i = 1; i <= more; i++) {
		if (((unsigned char)p[i] & 0xc0) != 0x80)
			return 0;
		c = c << 6 | ((unsigned char)p[i] & 0x3f);
	}
	/* Longer than it need be, or a surrogate. */
	if (c < least[more] || c > 0x10ffff || (c & ~0x7ffu) == 0xd800)
		return 0;
	*ret = c;
	return more + 1;
}

bool utf8_is_valid(const char *text)
{
	unsigned int n = 0;
	uint32_t c;

	while (*text && (n = utf8_character(text, &c)) > 0)
		text += n;
	return !*text;
}

void utf8_clean(char *text)
{
	while (*text) {
		uint32_t c;
		unsigned int n = utf8_character(text, &c);

		if (n == 0)
			*text = '?';
		text += n > 0 ? n : 1;
	}
}
