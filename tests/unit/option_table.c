/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Copyright (C) 2026 the rbdcrypt-nbd authors */

/* What somebody may have meant by a word that is none of ours. */

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <string.h>

#include "../../daemon/option_table.h"

static void assert_meant(const char *word, const char *ours)
{
	const char *got = option_nearest(word);

	assert_non_null(got);
	assert_string_equal(got, ours);
	assert_non_null(option_find(got, strlen(got)));
}

static void what_other_programs_call_so_is_meant(void **state)
{
	enum command c;

	assert_meant("key-file", "encryption-passphrase-file");
	assert_meant("key-file=-", "encryption-passphrase-file");
	assert_meant("passphrase-file", "encryption-passphrase-file");
	assert_meant("type=luks2", "encryption-format");
	assert_meant("r", "read-only");
	assert_meant("ro", "read-only");
	assert_meant("sector-size=512", "block-size");
	assert_meant("test-passphrase", "test-keys");
	assert_meant("verbose", "debug");
	assert_string_equal(command_nearest("luksOpen"), "map");
	assert_string_equal(command_nearest("umount"), "unmap");
	assert_string_equal(command_nearest("info"), "status");
	assert_int_equal(command_find(command_nearest("close"), &c), 0);
}

static void else_the_nearest_is_meant(void **state)
{
	assert_meant("readonly", "read-only");
	assert_meant("keyfile-ofset=3", "keyfile-offset");
	assert_meant("kookie", "cookie");
	assert_string_equal(command_nearest("lst"), "list");
	assert_null(option_nearest("zzzzzzzzz"));
	assert_null(option_nearest(""));
	assert_null(command_nearest("frobnicate"));
	assert_null(command_nearest(""));
	assert_null(option_nearest("this-is-a-word-of-more-than-forty-characters-in-all"));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(what_other_programs_call_so_is_meant),
		cmocka_unit_test(else_the_nearest_is_meant),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
