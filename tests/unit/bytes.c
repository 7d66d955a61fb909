/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Copyright (C) 2026 the rbdcrypt-nbd authors */

/* Ceph's encoding, both ways, and all that can be wrong with what others send. */

#include "../../rbd/bytes.h"

#include <setjmp.h>
#include <stdarg.h>
#include <string.h>

#include <cmocka.h>

static void numbers_are_little_endian(void **state)
{
	static const unsigned char golden[] = { 0x12, 0x78, 0x56, 0x34, 0x12, 0xef, 0xcd, 0xab,
						0x89, 0x67, 0x45, 0x23, 0x01, 2,    0,	  0,
						0,    'h',  'i',  0,	0,    0,    0,	  0xff };
	struct bytes_in i = { .at = golden, .end = golden + sizeof(golden) };
	unsigned char buf[64];
	struct bytes_out o = { .buf = buf, .cap = sizeof(buf) };
	char text[3];

	put_u8(&o, 0x12);
	put_u32(&o, 0x12345678);
	put_u64(&o, 0x0123456789abcdef);
	put_string(&o, "hi");
	put_string(&o, "");
	put_u8(&o, 0xff);
	assert_false(o.is_full);
	assert_int_equal(o.len, sizeof(golden));
	assert_memory_equal(buf, golden, sizeof(golden));

	assert_int_equal(get_u8(&i), 0x12);
	assert_int_equal(get_u32(&i), 0x12345678);
	assert_true(get_u64(&i) == 0x0123456789abcdef);
	get_string(&i, text, sizeof(text));
	assert_string_equal(text, "hi");
	get_string(&i, text, sizeof(text));
	assert_string_equal(text, "");
	assert_int_equal(get_u8(&i), 0xff);
	assert_false(i.is_short);
}

static void what_does_not_fit_is_noted_and_not_written(void **state)
{
	unsigned char buf[8] = { 0 };
	struct bytes_out o = { .buf = buf, .cap = 7 };
	size_t start;

	put_u32(&o, 1);
	put_u32(&o, 2);
	assert_true(o.is_full);
	assert_int_equal(o.len, 4);
	/* Nor does what would fit go behind it. */
	put_u8(&o, 3);
	assert_int_equal(o.len, 4);
	assert_int_equal(buf[4], 0);

	o = (struct bytes_out){ .buf = buf, .cap = 7 };
	start = put_begin(&o, 1, 1);
	put_u32(&o, 9);
	put_end(&o, start);
	assert_true(o.is_full);
}

static void what_is_not_there_is_noted_and_zero(void **state)
{
	static const unsigned char three[] = { 1, 2, 3 };
	struct bytes_in i = { .at = three, .end = three + sizeof(three) };

	assert_int_equal(get_u32(&i), 0);
	assert_true(i.is_short);
	/* From then on nothing is. */
	assert_int_equal(get_u8(&i), 0);
	i = (struct bytes_in){ .at = three, .end = three + sizeof(three) };
	get_skip(&i, 3);
	assert_false(i.is_short);
	get_skip(&i, 1);
	assert_true(i.is_short);
}

static bool string_is_bad(const void *data, size_t len, size_t room)
{
	struct bytes_in i = { .at = data, .end = (const unsigned char *)data + len };
	char buf[16] = "before";

	get_string(&i, buf, room);
	assert_string_equal(i.is_short ? buf : "", "");
	return i.is_short;
}

static void strings_that_make_no_sense_are_refused(void **state)
{
	static const unsigned char text[] = { 3, 0, 0, 0, 'a', 'b', 'c', 'd' };
	static const unsigned char nul[] = { 3, 0, 0, 0, 'a', 0, 'c' };
	static const unsigned char huge[] = { 0xff, 0xff, 0xff, 0xff, 'a' };

	assert_false(string_is_bad(text, 8, 4));
	assert_true(string_is_bad(text, 8, 3));
	assert_true(string_is_bad(text, 6, 16));
	assert_true(string_is_bad(text, 2, 16));
	assert_true(string_is_bad(nul, sizeof(nul), 16));
	assert_true(string_is_bad(huge, sizeof(huge), 16));
}

static void structures_have_their_length(void **state)
{
	static const unsigned char golden[] = { 2, 1, 9, 0, 0, 0, 7, 1, 1, 2, 0, 0, 0, 8, 9 };
	unsigned char buf[32];
	struct bytes_out o = { .buf = buf, .cap = sizeof(buf) };
	size_t outer = put_begin(&o, 2, 1), inner;

	put_u8(&o, 7);
	inner = put_begin(&o, 1, 1);
	put_u8(&o, 8);
	put_u8(&o, 9);
	put_end(&o, inner);
	put_end(&o, outer);
	assert_int_equal(o.len, sizeof(golden));
	assert_memory_equal(buf, golden, sizeof(golden));
}

static void structures_of_newer_versions_are_read_as_far_as_known(void **state)
{
	static const unsigned char data[] = { 9, 1, 5, 0, 0, 0, 42, 1, 2, 3, 4, 77 };
	struct bytes_in i = { .at = data, .end = data + sizeof(data) }, rest;

	assert_int_equal(get_begin(&i, 1, &rest), 9);
	assert_int_equal(get_u8(&i), 42);
	get_end(&i, &rest);
	assert_int_equal(get_u8(&i), 77);
	assert_false(i.is_short);
	/* It does not reach behind itself. */
	i = (struct bytes_in){ .at = data, .end = data + sizeof(data) };
	(void)get_begin(&i, 1, &rest);
	(void)get_u32(&i);
	(void)get_u32(&i);
	assert_true(i.is_short);
}

static void structures_that_make_no_sense_are_refused(void **state)
{
	static const unsigned char too_new[] = { 9, 2, 1, 0, 0, 0, 42 };
	static const unsigned char too_long[] = { 1, 1, 2, 0, 0, 0, 42 };
	static const unsigned char cut[] = { 1, 1, 2, 0 };
	struct bytes_in i = { .at = too_new, .end = too_new + sizeof(too_new) }, rest;

	(void)get_begin(&i, 1, &rest);
	assert_true(i.is_short);
	i = (struct bytes_in){ .at = too_long, .end = too_long + sizeof(too_long) };
	(void)get_begin(&i, 1, &rest);
	assert_true(i.is_short);
	i = (struct bytes_in){ .at = cut, .end = cut + sizeof(cut) };
	(void)get_begin(&i, 1, &rest);
	get_end(&i, &rest);
	assert_int_equal(get_u8(&i), 0);
	assert_true(i.is_short);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(numbers_are_little_endian),
		cmocka_unit_test(what_does_not_fit_is_noted_and_not_written),
		cmocka_unit_test(what_is_not_there_is_noted_and_zero),
		cmocka_unit_test(strings_that_make_no_sense_are_refused),
		cmocka_unit_test(structures_have_their_length),
		cmocka_unit_test(structures_of_newer_versions_are_read_as_far_as_known),
		cmocka_unit_test(structures_that_make_no_sense_are_refused),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
