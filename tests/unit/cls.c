/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Copyright (C) 2026 the rbdcrypt-nbd authors */

/* The bytes that object class methods get and give. */

#include "../../rbd/cls.h"

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>

#include "fake_osd.h"

#include <cmocka.h>

static void expect(struct fake_op *op, const char *cls, const char *method, const char *hex)
{
	unsigned char golden[256];
	size_t len = from_hex(hex, golden, sizeof(golden));

	assert_int_equal(op->n, 1);
	assert_string_equal(op->steps[0].cls, cls);
	assert_string_equal(op->steps[0].method, method);
	assert_int_equal(op->steps[0].in_len, len);
	assert_memory_equal(op->steps[0].in, golden, len);
	rados_release_write_op(op);
}

#define NAME "08000000 7262645f6c6f636b "
#define COOKIE "06000000 6175746f2037 "
#define TAG "08000000 696e7465726e616c "

static void lock_methods_have_their_bytes(void **state)
{
	rados_write_op_t op = rados_create_write_op();

	cls_lock(op, "auto 7", CLS_TAG_HEADER);
	expect(op, "lock", "lock",
	       "0101 30000000" NAME "01" COOKIE TAG "00000000 00000000 00000000 00");
	op = rados_create_write_op();
	cls_lock(op, "", "");
	expect(op, "lock", "lock",
	       "0101 22000000" NAME "01 00000000 00000000 00000000 00000000 00000000 00");
	op = rados_create_write_op();
	cls_unlock(op, "auto 7");
	expect(op, "lock", "unlock", "0101 16000000" NAME COOKIE);
	op = rados_create_write_op();
	cls_break_lock(op, 4123, "auto 7");
	expect(op, "lock", "break_lock", "0101 1f000000" NAME "08 1b10000000000000" COOKIE);
	op = rados_create_write_op();
	cls_set_cookie(op, "auto 7", CLS_TAG_HEADER, "auto 8");
	expect(op, "lock", "set_cookie",
	       "0101 2d000000" NAME "01" COOKIE TAG "06000000 6175746f2038");
	op = rados_create_write_op();
	cls_assert_locked(op, "auto 7", CLS_TAG_HEADER);
	expect(op, "lock", "assert_locked", "0101 23000000" NAME "01" COOKIE TAG);
}

static void a_cookie_that_is_too_long_is_refused_by_the_class(void **state)
{
	rados_write_op_t op = rados_create_write_op();
	char cookie[2000];

	memset(cookie, 'x', sizeof(cookie));
	cookie[sizeof(cookie) - 1] = '\0';
	cls_unlock(op, cookie);
	expect(op, "lock", "unlock", "");
}

static void rbd_methods_have_their_bytes(void **state)
{
	rados_write_op_t op = rados_create_write_op();

	cls_object_map_update(op, 5, 7, OBJECT_EXISTS, CLS_ANY_STATE);
	expect(op, "rbd", "object_map_update", "0500000000000000 0700000000000000 01 00");
	op = rados_create_write_op();
	cls_object_map_update(op, 5, 6, OBJECT_NONE, OBJECT_PENDING);
	expect(op, "rbd", "object_map_update", "0500000000000000 0600000000000000 00 01 02");
	op = rados_create_write_op();
	cls_set_flags(op, 3, 3, CLS_NOSNAP);
	expect(op, "rbd", "set_flags", "0300000000000000 0300000000000000 feffffffffffffff");
	op = rados_create_write_op();
	cls_copyup(op, "data", 4);
	expect(op, "rbd", "copyup", "64617461");
	op = rados_create_write_op();
	cls_copyup(op, "", 0);
	expect(op, "rbd", "copyup", "");
}

static void who_holds_a_lock_is_asked(void **state)
{
	rados_read_op_t op = rados_create_read_op();
	char reply[16];
	size_t len;
	int error;

	cls_lock_info(op, reply, sizeof(reply), &len, &error);
	expect(op, "lock", "get_info", "0101 0c000000" NAME);
}

/* client.4153 with "auto 7", as Ceph 16 gave it. */
#define INFO                                                                                       \
	"0101 5f000000 01000000 0101 13000000 08 3910000000000000" COOKIE                          \
	"0101 2f000000 0000000000000000 01 0101 1c000000 01000000 419dcfe1 10000000"               \
	"020000007f000001000000000000000000000000"                                                 \
	"01" TAG

static void lockers_are_told(void **state)
{
	unsigned char reply[256];
	struct cls_locker locker;
	size_t len = from_hex(INFO, reply, sizeof(reply));

	assert_int_equal(cls_lock_decode(reply, len, &locker), 0);
	assert_int_equal(locker.client, 4153);
	assert_string_equal(locker.cookie, "auto 7");
	/* Newer releases may add at the end. */
	reply[2] += 4;
	memset(reply + len, 0xaa, 4);
	assert_int_equal(cls_lock_decode(reply, len + 4, &locker), 0);
	len = from_hex("0101 09000000 00000000 00 00000000", reply, sizeof(reply));
	assert_int_equal(cls_lock_decode(reply, len, &locker), -ENOENT);
}

static void damaged_lockers_are_refused(void **state)
{
	unsigned char reply[256];
	struct cls_locker locker = { .client = 99 };
	size_t len = from_hex(INFO, reply, sizeof(reply));

	for (size_t cut = 0; cut < len; cut++)
		assert_int_equal(cls_lock_decode(reply, cut, &locker), -EBADMSG);
	reply[16] = 1; /* a monitor */
	assert_int_equal(cls_lock_decode(reply, len, &locker), -EBADMSG);
	assert_int_equal(locker.client, 99);
}

/* 256 objects, the third exists, and checksums, as a cluster gave it. */
#define MAP_HEADER "0e000000 0101 08000000 0001000000000000"

static void object_maps_are_read(void **state)
{
	unsigned char reply[128] = { 0 };
	const unsigned char *bits;
	size_t len = from_hex(MAP_HEADER "04", reply, sizeof(reply)) + 63;
	uint64_t n;

	assert_int_equal(cls_object_map_decode(reply, len, &n, &bits), 0);
	assert_int_equal(n, 256);
	assert_ptr_equal(bits, reply + 18);
	assert_int_equal(bits[0], 4);
	assert_int_equal(cls_object_map_decode(reply, len + 4, &n, &bits), 0);
	/* Not a multiple of four: the last byte has to be there. */
	reply[11] = 0;
	reply[10] = 5;
	assert_int_equal(cls_object_map_decode(reply, 20, &n, &bits), 0);
	assert_int_equal(n, 5);
	assert_int_equal(cls_object_map_decode(reply, 19, &n, &bits), -EBADMSG);
	/* A longer header is passed over. */
	len = from_hex("10000000 0201 0a000000 0400000000000000 aaaa 1b", reply, sizeof(reply));
	assert_int_equal(cls_object_map_decode(reply, len, &n, &bits), 0);
	assert_int_equal(n, 4);
	assert_int_equal(*bits, 0x1b);
}

static void damaged_object_maps_are_refused(void **state)
{
	unsigned char reply[128] = { 0 };
	const unsigned char *bits = NULL;
	size_t len = from_hex(MAP_HEADER, reply, sizeof(reply)) + 64;
	uint64_t n = 7;

	for (size_t cut = 0; cut < len; cut++)
		assert_int_equal(cls_object_map_decode(reply, cut, &n, &bits), -EBADMSG);
	memset(reply + 10, 0xff, 8); /* so many objects that their bytes do not count any more */
	assert_int_equal(cls_object_map_decode(reply, len, &n, &bits), -EBADMSG);
	(void)from_hex(MAP_HEADER, reply, sizeof(reply));
	reply[5] = 2; /* cannot be read by us */
	assert_int_equal(cls_object_map_decode(reply, len, &n, &bits), -EBADMSG);
	(void)from_hex(MAP_HEADER, reply, sizeof(reply));
	reply[0] = 0x0d; /* a header that ends in its own number */
	assert_int_equal(cls_object_map_decode(reply, len, &n, &bits), -EBADMSG);
	assert_int_equal(n, 7);
	assert_null(bits);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(lock_methods_have_their_bytes),
		cmocka_unit_test(a_cookie_that_is_too_long_is_refused_by_the_class),
		cmocka_unit_test(rbd_methods_have_their_bytes),
		cmocka_unit_test(who_holds_a_lock_is_asked),
		cmocka_unit_test(lockers_are_told),
		cmocka_unit_test(damaged_lockers_are_refused),
		cmocka_unit_test(object_maps_are_read),
		cmocka_unit_test(damaged_object_maps_are_refused),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
