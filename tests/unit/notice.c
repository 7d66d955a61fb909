/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Copyright (C) 2026 the rbdcrypt-nbd authors */

/* What clients of an image tell one another: bytes, and what an owner answers. */

#include "../../rbd/notice.h"

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <string.h>

#include "fake_osd.h"

#include <cmocka.h>

#define GID "3910000000000000 "
#define HANDLE "4093d0a8c97f0000 "
#define CLIENT GID HANDLE
#define ASYNC CLIENT "0700000000000000 "
#define KIND "0101 04000000 00000000 "

static int decode(const char *hex, struct notice *ret)
{
	unsigned char buf[256];

	return notice_decode(buf, from_hex(hex, buf, sizeof(buf)), ret);
}

static void expect_client(const char *hex, uint32_t op)
{
	struct notice n = { .op = 99 };

	assert_int_equal(decode(hex, &n), 0);
	assert_int_equal(n.op, op);
	assert_int_equal(n.client.gid, 0x1039);
	assert_true(n.client.handle == 0x7fc9a8d09340);
}

static void every_message_says_who(void **state)
{
	expect_client("0701 14000000 00000000" CLIENT, NOTICE_ACQUIRED_LOCK);
	expect_client("0701 14000000 01000000" CLIENT, NOTICE_RELEASED_LOCK);
	expect_client("0701 15000000 02000000" CLIENT "00", NOTICE_REQUEST_LOCK);
	expect_client("0701 2c000000 04000000" ASYNC "0100000000000000 0200000000000000",
		      NOTICE_ASYNC_PROGRESS);
	expect_client("0701 20000000 05000000" ASYNC "00000000", NOTICE_ASYNC_COMPLETE);
	expect_client("0701 1c000000 06000000" ASYNC, NOTICE_FLATTEN);
	expect_client("0701 33000000 08000000 01000000 61" KIND ASYNC "0000000000000000",
		      NOTICE_SNAP_CREATE);
	expect_client("0701 2b000000 09000000 01000000 61" KIND ASYNC, NOTICE_SNAP_REMOVE);
	expect_client("0701 1c000000 0a000000" ASYNC, NOTICE_REBUILD_OBJECT_MAP);
	expect_client("0701 33000000 0b000000 0400000000000000 01000000 61" KIND ASYNC,
		      NOTICE_SNAP_RENAME);
	expect_client("0701 2b000000 0c000000 01000000 61" KIND ASYNC, NOTICE_SNAP_PROTECT);
	expect_client("0701 2b000000 0d000000 01000000 61" KIND ASYNC, NOTICE_SNAP_UNPROTECT);
	expect_client("0701 21000000 0e000000 01000000 61" ASYNC, NOTICE_RENAME);
	expect_client("0701 1c000000 10000000" ASYNC, NOTICE_MIGRATE);
	expect_client("0701 24000000 11000000" ASYNC "0010000000000000", NOTICE_SPARSIFY);
	expect_client("0701 1c000000 12000000" ASYNC, NOTICE_QUIESCE);
	expect_client("0701 1c000000 13000000" ASYNC, NOTICE_UNQUIESCE);
	expect_client("0701 22000000 14000000 01000000 6b 00" ASYNC, NOTICE_METADATA_UPDATE);
	expect_client("0701 27000000 14000000 01000000 6b 01 01000000 76" ASYNC,
		      NOTICE_METADATA_UPDATE);
}

static void a_resize_says_how_large(void **state)
{
	struct notice n;

	/* As captured from a peer that resized to 56 MiB. */
	expect_client("0701 25000000 07000000 0000800300000000" ASYNC "00", NOTICE_RESIZE);
	assert_int_equal(decode("0701 25000000 07000000 0000800300000000" ASYNC "00", &n), 0);
	assert_int_equal(n.size, 56 << 20);
}

static void a_change_of_features_says_which(void **state)
{
	struct notice n;

	assert_int_equal(decode("0701 25000000 0f000000 1800000000000000 01" ASYNC, &n), 0);
	assert_int_equal(n.op, NOTICE_UPDATE_FEATURES);
	assert_int_equal(n.features, 0x18);
	assert_true(n.is_enable);
	assert_int_equal(n.client.gid, 0x1039);
}

static void an_empty_message_is_a_header_update(void **state)
{
	struct notice n = { .op = 99 };

	assert_int_equal(notice_decode(NULL, 0, &n), 0);
	assert_int_equal(n.op, NOTICE_HEADER_UPDATE);
	assert_int_equal(decode("0701 04000000 03000000", &n), 0);
	assert_int_equal(n.op, NOTICE_HEADER_UPDATE);
}

static void what_older_ones_do_not_say_is_nobody(void **state)
{
	struct notice n;

	/* A snapshot without its kind, and without who. */
	assert_int_equal(decode("0501 09000000 08000000 01000000 61", &n), 0);
	assert_int_equal(n.op, NOTICE_SNAP_CREATE);
	assert_int_equal(n.client.gid, 0);
	assert_int_equal(decode("0101 04000000 02000000", &n), 0);
	assert_int_equal(n.op, NOTICE_REQUEST_LOCK);
	assert_int_equal(n.client.gid, 0);
	expect_client("0201 14000000 02000000" CLIENT, NOTICE_REQUEST_LOCK);
}

static void newer_ones_are_understood_as_far_as_known(void **state)
{
	struct notice n;

	expect_client("0801 17000000 02000000" CLIENT "00 aabb", NOTICE_REQUEST_LOCK);
	assert_int_equal(decode("0801 05000000 15000000 aa", &n), 0);
	assert_int_equal(n.op, 21);
	assert_string_equal(notice_name(n.op), "operation");
	assert_string_equal(notice_name(NOTICE_SNAP_CREATE), "snap create");
	assert_string_equal(notice_name(NOTICE_METADATA_UPDATE), "metadata change");
}

/* Every message, cut anywhere, with a length that says so, and with one that does not. */
static void damaged_messages_are_refused(void **state)
{
	static const char *const messages[] = {
		"0701 14000000 02000000" CLIENT,
		"0701 1c000000 07000000 0000800300000000" CLIENT,
		"0701 1d000000 0f000000 1800000000000000 01" CLIENT,
		"0701 23000000 08000000 01000000 61" KIND CLIENT,
		"0701 2b000000 0b000000 0400000000000000 01000000 61" KIND CLIENT,
		"0701 1f000000 14000000 01000000 6b 01 01000000 76" CLIENT,
		"0701 19000000 0e000000 01000000 61" CLIENT,
	};
	unsigned char buf[128];
	struct notice n = { .op = 99 };

	for (unsigned int i = 0; i < sizeof(messages) / sizeof(messages[0]); i++) {
		size_t len = from_hex(messages[i], buf, sizeof(buf));

		assert_int_equal(notice_decode(buf, len, &n), 0);
		n.op = 99;
		for (size_t cut = 1; cut < len; cut++)
			assert_int_equal(notice_decode(buf, cut, &n), -EBADMSG);
		for (size_t cut = 6; cut < len; cut++) {
			buf[2] = (unsigned char)(cut - 6);
			assert_int_equal(notice_decode(buf, cut, &n), -EBADMSG);
		}
		assert_int_equal(n.op, 99);
	}
	/* One that cannot be read by us, and a name that is longer than all. */
	assert_int_equal(decode("0908 04000000 03000000", &n), -EBADMSG);
	assert_int_equal(decode("0701 2b000000 09000000 ffffffff 61" KIND ASYNC, &n), -EBADMSG);
}

static void our_messages_have_their_bytes(void **state)
{
	struct client_id us = { .gid = 0x1039, .handle = 0x7fc9a8d09340 };
	unsigned char buf[NOTICE_MAX], golden[64];
	size_t len = from_hex("0201 14000000 02000000" CLIENT, golden, sizeof(golden));

	assert_int_equal(notice_encode(NOTICE_REQUEST_LOCK, &us, buf), len);
	assert_memory_equal(buf, golden, len);
	golden[6] = 1;
	assert_int_equal(notice_encode(NOTICE_RELEASED_LOCK, &us, buf), len);
	assert_memory_equal(buf, golden, len);
	len = from_hex("0101 04000000 e2ffffff", golden, sizeof(golden));
	assert_int_equal(notice_encode_result(-EROFS, buf), len);
	assert_memory_equal(buf, golden, len);
}

/* ---- acks ---- */

static int result_of(const char *hex)
{
	unsigned char buf[256];

	return notice_decode_result((char *)buf, from_hex(hex, buf, sizeof(buf)));
}

#define EMPTY CLIENT "00000000 "
#define GRANTED CLIENT "0a000000 0101 04000000 00000000 "
#define REFUSED CLIENT "0a000000 0101 04000000 e2ffffff "

static void the_owners_answer_is_found_among_the_others(void **state)
{
	assert_int_equal(result_of("03000000" EMPTY GRANTED EMPTY "00000000"), 0);
	assert_int_equal(result_of("02000000" EMPTY REFUSED "00000000"), -EROFS);
	/* Somebody else did not answer. */
	assert_int_equal(result_of("01000000" REFUSED "01000000" CLIENT), -EROFS);
}

static void no_owners_answer_is_a_timeout(void **state)
{
	assert_int_equal(result_of("02000000" EMPTY EMPTY "00000000"), -ETIMEDOUT);
	assert_int_equal(result_of("00000000 01000000" CLIENT), -ETIMEDOUT);
	assert_int_equal(notice_decode_result(NULL, 0), -ETIMEDOUT);
}

static void answers_that_make_no_sense_are_refused(void **state)
{
	unsigned char buf[256];
	size_t len = from_hex("02000000" EMPTY REFUSED, buf, sizeof(buf));

	/* Two owners. */
	assert_int_equal(result_of("02000000" GRANTED REFUSED "00000000"), -EBADMSG);
	/* An ack that is no answer, one that is no error, one of a version we do not know. */
	assert_int_equal(result_of("01000000" CLIENT "01000000 00 00000000"), -EBADMSG);
	assert_int_equal(result_of("01000000" CLIENT "0a000000 0101 04000000 01000000 00000000"),
			 -EBADMSG);
	assert_int_equal(result_of("01000000" CLIENT "0a000000 0302 04000000 00000000 00000000"),
			 -EBADMSG);
	/* Absurdly many. */
	assert_int_equal(result_of("ffffffff" EMPTY), -EBADMSG);
	for (size_t cut = 1; cut < len; cut++)
		assert_int_equal(notice_decode_result((char *)buf, cut), -EBADMSG);
}

/* ---- policy ---- */

#define GIB (1ull << 30)

static struct notice_view view(bool is_guarded, bool is_layered)
{
	return (struct notice_view){
		.us = { .gid = 1, .handle = 11 },
		.is_owner = true,
		.is_guarded = is_guarded,
		.is_layered = is_layered,
		.raw_size = GIB,
	};
}

static struct notice from_peer(uint32_t op)
{
	return (struct notice){ .op = op, .client = { .gid = 2, .handle = 22 } };
}

static void expect_answer(const struct notice *n, const struct notice_view *v, int result,
			  unsigned int todo)
{
	struct notice_answer a = { .has_result = false };

	notice_answer(n, v, &a);
	assert_true(a.has_result);
	assert_int_equal(a.result, result);
	assert_int_equal(a.todo, todo);
	/* What is logged says what to do. */
	assert_int_equal(a.remedy != NULL, (a.todo & NOTICE_DO_LOG) != 0);
}

static void expect_empty(const struct notice *n, const struct notice_view *v, unsigned int todo)
{
	struct notice_answer a = { .has_result = true };

	notice_answer(n, v, &a);
	assert_false(a.has_result);
	assert_int_equal(a.todo, todo);
}

/* In each of the four kinds of mapping: who may do it by himself is remembered where we hand over.
 */
static void expect_let(const struct notice *n, bool is_layered)
{
	struct notice_view v = view(true, is_layered);

	expect_answer(n, &v, -EOPNOTSUPP, NOTICE_DO_GRANT);
	v = view(false, is_layered);
	expect_answer(n, &v, -EOPNOTSUPP, 0);
}

static void expect_refused(const struct notice *n, bool is_layered)
{
	for (int is_guarded = 0; is_guarded < 2; is_guarded++) {
		struct notice_view v = view(is_guarded, is_layered);

		expect_answer(n, &v, -EPERM, NOTICE_DO_LOG);
	}
}

static void the_lock_is_for_who_was_let(void **state)
{
	struct notice n = from_peer(NOTICE_REQUEST_LOCK);
	struct notice_view v = view(true, true);

	expect_answer(&n, &v, -EROFS, 0);
	v.is_granted = true;
	expect_answer(&n, &v, 0, NOTICE_DO_RELEASE);
	v.is_guarded = false;
	expect_answer(&n, &v, -EROFS, 0);
}

static void maintenance_that_is_right_in_any_view_is_let(void **state)
{
	static const enum notice_op ops[] = {
		NOTICE_SNAP_CREATE,  NOTICE_SNAP_REMOVE,	NOTICE_SNAP_RENAME,
		NOTICE_SNAP_PROTECT, NOTICE_SNAP_UNPROTECT,	NOTICE_METADATA_UPDATE,
		NOTICE_RENAME,	     NOTICE_REBUILD_OBJECT_MAP, NOTICE_SPARSIFY,
	};

	for (unsigned int i = 0; i < sizeof(ops) / sizeof(ops[0]); i++) {
		struct notice n = from_peer(ops[i]);

		expect_let(&n, true);
		expect_let(&n, false);
	}
}

static void a_layered_image_is_flattened_by_nobody_else(void **state)
{
	struct notice n = from_peer(NOTICE_FLATTEN);

	expect_refused(&n, true);
	expect_let(&n, false);
}

static void a_layered_image_only_grows(void **state)
{
	struct notice n = from_peer(NOTICE_RESIZE);

	n.size = GIB;
	expect_let(&n, true);
	expect_let(&n, false);
	n.size = 2 * GIB;
	expect_let(&n, true);
	n.size = GIB - 1;
	expect_refused(&n, true);
	expect_let(&n, false);
}

static void features_that_we_stand_on_stay(void **state)
{
	struct notice n = from_peer(NOTICE_UPDATE_FEATURES);

	for (int is_enable = 0; is_enable < 2; is_enable++) {
		n.is_enable = is_enable;
		n.features = 8 | 16;
		expect_let(&n, true);
		n.features = 4;
		expect_refused(&n, true);
		n.features = 64 | 16;
		expect_refused(&n, false);
	}
}

static void what_nobody_may_do_is_refused(void **state)
{
	struct notice n = from_peer(NOTICE_MIGRATE);

	expect_refused(&n, true);
	expect_refused(&n, false);
	n.op = 21;
	expect_refused(&n, true);
	n.op = UINT32_MAX;
	expect_refused(&n, false);
}

static void quiescing_is_not_supported_and_grants_nothing(void **state)
{
	struct notice_view v = view(true, true);
	struct notice n = from_peer(NOTICE_QUIESCE);

	expect_answer(&n, &v, -EOPNOTSUPP, 0);
	n.op = NOTICE_UNQUIESCE;
	expect_answer(&n, &v, -EOPNOTSUPP, 0);
}

static void who_does_not_own_says_nothing(void **state)
{
	struct notice_view v = view(true, true);

	v.is_owner = false;
	v.is_granted = true;
	for (uint32_t op = 0; op < 25; op++) {
		struct notice n = from_peer(op);

		expect_empty(&n, &v,
			     op == NOTICE_HEADER_UPDATE	  ? NOTICE_DO_REFRESH
			     : op == NOTICE_ACQUIRED_LOCK ? NOTICE_DO_ACQUIRED
			     : op == NOTICE_RELEASED_LOCK ? NOTICE_DO_RELEASED
							  : 0);
	}
}

static void news_need_no_answer(void **state)
{
	struct notice_view v = view(true, true);
	struct notice n = from_peer(NOTICE_HEADER_UPDATE);

	expect_empty(&n, &v, NOTICE_DO_REFRESH);
	n.op = NOTICE_ASYNC_PROGRESS;
	expect_empty(&n, &v, 0);
	n.op = NOTICE_ASYNC_COMPLETE;
	expect_empty(&n, &v, 0);
	n.op = NOTICE_ACQUIRED_LOCK;
	expect_empty(&n, &v, NOTICE_DO_ACQUIRED);
	n.op = NOTICE_RELEASED_LOCK;
	expect_empty(&n, &v, NOTICE_DO_RELEASED);
}

static void our_own_words_are_no_news(void **state)
{
	struct notice_view v = view(true, true);

	for (uint32_t op = 0; op < 25; op++) {
		struct notice n = from_peer(op);

		n.client = v.us;
		expect_empty(&n, &v, op == NOTICE_HEADER_UPDATE ? NOTICE_DO_REFRESH : 0);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(every_message_says_who),
		cmocka_unit_test(a_resize_says_how_large),
		cmocka_unit_test(a_change_of_features_says_which),
		cmocka_unit_test(an_empty_message_is_a_header_update),
		cmocka_unit_test(what_older_ones_do_not_say_is_nobody),
		cmocka_unit_test(newer_ones_are_understood_as_far_as_known),
		cmocka_unit_test(damaged_messages_are_refused),
		cmocka_unit_test(our_messages_have_their_bytes),
		cmocka_unit_test(the_owners_answer_is_found_among_the_others),
		cmocka_unit_test(no_owners_answer_is_a_timeout),
		cmocka_unit_test(answers_that_make_no_sense_are_refused),
		cmocka_unit_test(the_lock_is_for_who_was_let),
		cmocka_unit_test(maintenance_that_is_right_in_any_view_is_let),
		cmocka_unit_test(a_layered_image_is_flattened_by_nobody_else),
		cmocka_unit_test(a_layered_image_only_grows),
		cmocka_unit_test(features_that_we_stand_on_stay),
		cmocka_unit_test(what_nobody_may_do_is_refused),
		cmocka_unit_test(quiescing_is_not_supported_and_grants_nothing),
		cmocka_unit_test(who_does_not_own_says_nothing),
		cmocka_unit_test(news_need_no_answer),
		cmocka_unit_test(our_own_words_are_no_news),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
