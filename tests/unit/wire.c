/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Copyright (C) 2026 the rbdcrypt-nbd authors */

/*
 * The transmission headers against bytes written down from the protocol text, not
 * from our encoder.
 */

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "wire.h"

static void a_request_is_read_field_by_field(void **state)
{
	static const unsigned char bytes[WIRE_REQUEST_BYTES] = {
		0x25, 0x60, 0x95, 0x13, /* magic */
		0x00, 0x01, /* FUA */
		0x00, 0x06, /* WRITE_ZEROES */
		0x80, 0x01, 0x02, 0x03, 0x04, 0x05, 0x06, 0x07, /* cookie */
		0x00, 0x00, 0x00, 0x10, 0x00, 0x00, 0x02, 0x00, /* offset */
		0xff, 0xff, 0xfe, 0x00, /* length */
	};
	struct wire_request r;

	assert_int_equal(wire_request_decode(bytes, &r), 0);
	assert_int_equal(r.flags, WIRE_CMD_FUA);
	assert_int_equal(r.type, WIRE_WRITE_ZEROES);
	assert_int_equal(r.cookie, 0x8001020304050607ull);
	assert_int_equal(r.offset, 0x1000000200ull);
	assert_int_equal(r.len, 0xfffffe00u);
}

static void an_unknown_command_is_not_the_decoder_s_business(void **state)
{
	unsigned char bytes[WIRE_REQUEST_BYTES] = {
		0x25, 0x60, 0x95, 0x13, 0xff, 0xff, 0x12, 0x34
	};
	struct wire_request r;

	assert_int_equal(wire_request_decode(bytes, &r), 0);
	assert_int_equal(r.flags, 0xffff);
	assert_int_equal(r.type, 0x1234);
}

static void a_wrong_magic_is_refused_and_nothing_is_written(void **state)
{
	unsigned char bytes[WIRE_REQUEST_BYTES];
	unsigned int i;

	for (i = 0; i < 4; i++) {
		struct wire_request r = { .len = 77 };

		memcpy(bytes, "\x25\x60\x95\x13", 4);
		bytes[i] ^= 1;
		assert_int_equal(wire_request_decode(bytes, &r), -EPROTO);
		assert_int_equal(r.len, 77);
	}
}

static void errors_go_out_as_the_protocol_numbers_them(void **state)
{
	static const struct {
		int error;
		uint32_t code;
	} table[] = {
		{ 0, 0 },	   { -EPERM, 1 },      { -EROFS, 1 },	 { -EIO, 5 },
		{ -ENOMEM, 12 },   { -EINVAL, 22 },    { -ENOSPC, 28 },	 { -EDQUOT, 28 },
		{ -EFBIG, 28 },	   { -EOVERFLOW, 75 }, { -ENOTSUP, 95 }, { -ESHUTDOWN, 108 },
		{ -ETIMEDOUT, 5 }, { -ENOENT, 5 },     { -108 - 1, 5 },	 { -ECANCELED, 5 },
		{ EINVAL, 5 },
	};
	unsigned int i;

	for (i = 0; i < sizeof(table) / sizeof(table[0]); i++)
		assert_int_equal(wire_error(table[i].error), table[i].code);
}

static void no_error_becomes_success(void **state)
{
	int e;

	for (e = 1; e < 4096; e++) {
		assert_int_not_equal(wire_error(-e), 0);
		assert_int_not_equal(wire_error(e), 0);
	}
}

#define assert_bytes(buf, n, text)                                                                 \
	do {                                                                                       \
		assert_int_equal(n, sizeof(text) - 1);                                             \
		assert_memory_equal(buf, text, sizeof(text) - 1);                                  \
	} while (0)

static void replies_are_what_the_protocol_shows(void **state)
{
	unsigned char buf[WIRE_REPLY_MAX];
	size_t n;

	n = wire_simple_reply(buf, 0x0102030405060708ull, 0);
	assert_bytes(buf, n, "\x67\x44\x66\x98\0\0\0\0\1\2\3\4\5\6\7\x08");
	n = wire_simple_reply(buf, 0x0102030405060708ull, -ENOSPC);
	assert_bytes(buf, n, "\x67\x44\x66\x98\0\0\0\x1c\1\2\3\4\5\6\7\x08");
	n = wire_data_chunk(buf, 0x0102030405060708ull, 0x1122334455667788ull, 0x200);
	assert_bytes(buf, n,
		     "\x66\x8e\x33\xef\0\1\0\1\1\2\3\4\5\6\7\x08\0\0\2\x08"
		     "\x11\x22\x33\x44\x55\x66\x77\x88");
	n = wire_none_chunk(buf, 0x0102030405060708ull);
	assert_bytes(buf, n, "\x66\x8e\x33\xef\0\1\0\0\1\2\3\4\5\6\7\x08\0\0\0\0");
	n = wire_error_chunk(buf, 0x0102030405060708ull, -EINVAL);
	assert_bytes(buf, n, "\x66\x8e\x33\xef\0\1\x80\1\1\2\3\4\5\6\7\x08\0\0\0\6\0\0\0\x16\0\0");
	n = wire_status_chunk(buf, 0x0102030405060708ull, 7, 2);
	assert_bytes(buf, n, "\x66\x8e\x33\xef\0\1\0\5\1\2\3\4\5\6\7\x08\0\0\0\x14\0\0\0\7");
	wire_status_descriptor(buf, 0x10000, WIRE_STATE_HOLE | WIRE_STATE_ZERO);
	assert_bytes(buf, (size_t)8, "\0\1\0\0\0\0\0\3");
}

static void a_read_of_nothing_has_no_data_chunk(void **state)
{
	unsigned char buf[WIRE_REPLY_MAX];
	size_t n = wire_data_chunk(buf, 1, 4096, 0);

	assert_bytes(buf, n, "\x66\x8e\x33\xef\0\1\0\0\0\0\0\0\0\0\0\1\0\0\0\0");
}

static void the_largest_read_fits_its_length_field(void **state)
{
	unsigned char buf[WIRE_REPLY_MAX];

	wire_data_chunk(buf, 1, 0, WIRE_MAX_PAYLOAD);
	assert_memory_equal(buf + 16, "\x02\0\0\x08", 4);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_request_is_read_field_by_field),
		cmocka_unit_test(an_unknown_command_is_not_the_decoder_s_business),
		cmocka_unit_test(a_wrong_magic_is_refused_and_nothing_is_written),
		cmocka_unit_test(errors_go_out_as_the_protocol_numbers_them),
		cmocka_unit_test(no_error_becomes_success),
		cmocka_unit_test(replies_are_what_the_protocol_shows),
		cmocka_unit_test(a_read_of_nothing_has_no_data_chunk),
		cmocka_unit_test(the_largest_read_fits_its_length_field),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
