/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Copyright (C) 2026 the rbdcrypt-nbd authors */

/* Which bytes are UTF-8, and what becomes of the others. */

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include "../../daemon/utf8.h"

static void characters_of_all_lengths_are_taken(void **state)
{
	static const struct {
		const char *text;
		uint32_t character;
	} good[] = {
		{ "a", 'a' },
		{ "\x7f", 0x7f },
		{ "\xc2\x80", 0x80 },
		{ "\xdf\xbf", 0x7ff },
		{ "\xe0\xa0\x80", 0x800 },
		{ "\xed\x9f\xbf", 0xd7ff },
		{ "\xee\x80\x80", 0xe000 },
		{ "\xef\xbf\xbf", 0xffff },
		{ "\xf0\x90\x80\x80", 0x10000 },
		{ "\xf4\x8f\xbf\xbf", 0x10ffff },
	};

	for (size_t i = 0; i < sizeof(good) / sizeof(good[0]); i++) {
		uint32_t c = 0;

		assert_int_equal(utf8_character(good[i].text, &c), strlen(good[i].text));
		assert_int_equal(c, good[i].character);
		assert_true(utf8_is_valid(good[i].text));
	}
	assert_true(utf8_is_valid(""));
}

/* Half a character, a byte that begins none, one that is too long, a surrogate, beyond the last. */
static void other_bytes_become_question_marks(void **state)
{
	static const char *const bad[][2] = {
		{ "caf\xe9", "caf?" },
		{ "caf\xe9 au lait", "caf? au lait" },
		{ "\xc3", "?" },
		{ "\xc3\xa9\xc3", "\xc3\xa9?" },
		{ "\xe2\x82", "??" },
		{ "\x80x", "?x" },
		{ "\xc0\xaf", "??" },
		{ "\xe0\x9f\xbf", "???" },
		{ "\xed\xa0\x80", "???" },
		{ "\xf4\x90\x80\x80", "????" },
		{ "\xff\xc3\xa4\xfe", "?\xc3\xa4?" },
	};

	for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
		char text[32];

		assert_false(utf8_is_valid(bad[i][0]));
		(void)snprintf(text, sizeof(text), "%s", bad[i][0]);
		utf8_clean(text);
		assert_string_equal(text, bad[i][1]);
		assert_true(utf8_is_valid(text));
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(characters_of_all_lengths_are_taken),
		cmocka_unit_test(other_bytes_become_question_marks),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
