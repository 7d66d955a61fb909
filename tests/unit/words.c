/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Copyright (C) 2026 the rbdcrypt-nbd authors */

#include "../../rbd/words.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

static void nothing_is_no_words(void **state)
{
	struct words w;

	(void)state;
	assert_int_equal(words_parse(NULL, &w), 0);
	assert_int_equal(w.n, 1);
	assert_null(w.conf);
	words_done(&w);
	assert_int_equal(words_parse("   ", &w), 0);
	assert_int_equal(w.n, 1);
	words_done(&w);
}

static void early_words_are_taken_out(void **state)
{
	struct words w;

	(void)state;
	assert_int_equal(words_parse("--conf /a -x --cluster=c2 --name client.n  1", &w), 0);
	assert_string_equal(w.conf, "/a");
	assert_string_equal(w.cluster, "c2");
	assert_string_equal(w.name, "client.n");
	assert_int_equal(w.n, 3);
	assert_string_equal(w.v[1], "-x");
	assert_string_equal(w.v[2], "1");
	words_done(&w);
}

static void ids_are_clients(void **state)
{
	const char *const texts[] = { "--id vm", "--id=vm", "-i vm", "--user vm" };
	struct words w;

	(void)state;
	for (unsigned int i = 0; i < 4; i++) {
		assert_int_equal(words_parse(texts[i], &w), 0);
		assert_string_equal(w.name, "client.vm");
		assert_int_equal(w.n, 1);
		words_done(&w);
	}
}

static void a_word_without_its_value_stays(void **state)
{
	struct words w;

	(void)state;
	assert_int_equal(words_parse("--mon-host a --conf", &w), 0);
	assert_null(w.conf);
	assert_int_equal(w.n, 4);
	words_done(&w);
}

static void the_last_value_counts(void **state)
{
	struct words w;

	(void)state;
	assert_int_equal(words_parse("--keyfile=/a -x -K /b --keyfile", &w), 0);
	assert_string_equal(words_value(w.n, w.v, "--keyfile", "-K"), "/b");
	assert_null(words_value(w.n, w.v, "--keyring", "-k"));
	words_done(&w);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(nothing_is_no_words),
		cmocka_unit_test(early_words_are_taken_out),
		cmocka_unit_test(ids_are_clients),
		cmocka_unit_test(a_word_without_its_value_stays),
		cmocka_unit_test(the_last_value_counts),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
