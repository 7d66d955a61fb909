/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Copyright (C) 2026 the rbdcrypt-nbd authors */

/* The facts of an image, from answers that are right, odd, damaged and absent. */

#include "../../rbd/facts.h"

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>

#include "../../rbd/cls.h"
#include "fake_osd.h"

#include <cmocka.h>

#define SIZE "16 0000004000000000"
#define FEATURES "3d00000000000000 0500000000000000"
#define FLAGS "0100000000000000"
#define SNAPS "0500000000000000 02000000 0500000000000000 0400000000000000"
#define OVERLAP "01 0000002000000000"
/* Pool 3, namespace "ns", image "10a", snapshot 4. */
#define PARENT "0101 1d000000 0300000000000000 02000000 6e73 03000000 313061 0400000000000000"

static struct {
	const char *method, *hex; /* answered otherwise */
	size_t cut; /* bytes that are missing of it */
	int error; /* of the whole */
	bool is_kept; /* no answer yet */
	unsigned int many_snaps;
} say;

static const char *usual(const struct fake_step *s)
{
	static const char *const answers[][2] = {
		{ "get_size", SIZE },
		{ "get_features", FEATURES },
		{ "get_flags", FLAGS },
		{ "get_snapcontext", SNAPS },
		{ "parent_overlap_get", OVERLAP },
		{ "parent_get", PARENT },
	};

	for (unsigned int i = 0; i < 6; i++)
		if (strcmp(answers[i][0], s->method) == 0)
			return answers[i][1];
	fail_msg("method %s", s->method);
	return NULL;
}

/* What each method wants to have: which snapshot, and who asks. */
static void check_input(const struct fake_step *s)
{
	unsigned char golden[16];
	const char *hex = strcmp(s->method, "get_snapcontext") == 0 ||
					  strcmp(s->method, "parent_get") == 0
				  ? ""
			  : strcmp(s->method, "get_features") == 0 ? "feffffffffffffff 00"
								   : "feffffffffffffff";
	size_t len = from_hex(hex, golden, sizeof(golden));

	assert_string_equal(s->cls, "rbd");
	assert_int_equal(s->in_len, len);
	assert_memory_equal(s->in, golden, len);
}

static void answer_many(struct fake_step *s)
{
	size_t len = 12 + 8 * (size_t)say.many_snaps;
	unsigned char *reply = calloc(1, len);
	uint64_t id = say.many_snaps;
	uint32_t n = say.many_snaps;

	memcpy(reply, &id, 8);
	memcpy(reply + 8, &n, 4);
	for (uint32_t i = 0; i < n; i++, id--)
		memcpy(reply + 12 + 8 * (size_t)i, &id, 8);
	fake_output(s, reply, len);
	free(reply);
}

static int answer(struct fake_call *call)
{
	assert_string_equal(call->object, "rbd_header.1039");
	assert_int_equal(call->op.n, 6);
	if (say.is_kept)
		return FAKE_HOLD;
	for (unsigned int i = 0; say.error == 0 && i < call->op.n; i++) {
		struct fake_step *s = &call->op.steps[i];
		bool is_said = say.method && strcmp(say.method, s->method) == 0;
		unsigned char reply[512];
		size_t len = from_hex(is_said && say.hex ? say.hex : usual(s), reply,
				      sizeof(reply));

		check_input(s);
		if (say.many_snaps && strcmp(s->method, "get_snapcontext") == 0)
			answer_many(s);
		else
			fake_output(s, reply, len - (is_said ? say.cut : 0));
	}
	return say.error;
}

static int setup(void **state)
{
	fake_reset();
	memset(&say, 0, sizeof(say));
	osd.answer = answer;
	return 0;
}

static int teardown(void **state)
{
	assert_int_equal(osd.n_ops, 0);
	assert_int_equal(osd.n_completions, 0);
	return 0;
}

static int read_facts(struct image_facts *f)
{
	struct patience p = patience_for(60, NULL);

	return facts_read(NULL, "1039", &p, f);
}

static int read_with(const char *method, const char *hex, struct image_facts *f)
{
	say.method = method;
	say.hex = hex;
	return read_facts(f);
}

static void expect_damaged(const char *method, const char *hex)
{
	struct image_facts f = { .size = 99 };

	assert_int_equal(read_with(method, hex, &f), -EBADMSG);
	assert_int_equal(f.size, 99);
	say.hex = NULL;
}

static void the_header_is_read_in_one_operation(void **state)
{
	struct image_facts f;

	assert_int_equal(read_facts(&f), 0);
	assert_int_equal(osd.n_sent, 1);
	assert_int_equal(f.size, 1 << 30);
	assert_int_equal(f.order, 22);
	assert_int_equal(f.features, 0x3d);
	assert_int_equal(f.incompatible, 5);
	assert_int_equal(f.flags, CLS_FLAG_OBJECT_MAP_INVALID);
	assert_int_equal(f.snap_seq, 5);
	assert_int_equal(f.n_snaps, 2);
	assert_int_equal(f.snaps[0], 5);
	assert_int_equal(f.snaps[1], 4);
	assert_true(f.has_parent);
	assert_int_equal(f.parent_pool, 3);
	assert_string_equal(f.parent_nspace, "ns");
	assert_string_equal(f.parent_id, "10a");
	assert_int_equal(f.parent_snap, 4);
	assert_int_equal(f.raw_overlap, 1 << 29);
	facts_done(&f);
	assert_null(f.snaps);
	facts_done(&f);
}

static void an_image_without_parent_or_snapshots_is_no_error(void **state)
{
	struct image_facts f;

	assert_int_equal(read_with("parent_overlap_get", "00", &f), 0);
	facts_done(&f);
	assert_false(f.has_parent);
	assert_int_equal(f.raw_overlap, 0);
	/* What a snapshot still has is not the head's. */
	assert_int_equal(f.parent_pool, -1);
	assert_string_equal(f.parent_id, "");
	assert_int_equal(read_with("parent_get",
				   "0101 18000000 ffffffffffffffff 00000000 00000000 "
				   "feffffffffffffff",
				   &f),
			 0);
	facts_done(&f);
	assert_false(f.has_parent);
	assert_int_equal(f.raw_overlap, 0);
	/* The newest snapshot was removed: the sequence stays. */
	assert_int_equal(read_with("get_snapcontext", "0500000000000000 00000000", &f), 0);
	assert_int_equal(f.snap_seq, 5);
	assert_int_equal(f.n_snaps, 0);
	facts_done(&f);
}

static void newer_answers_are_read_as_far_as_known(void **state)
{
	struct image_facts f;

	assert_int_equal(read_with("parent_get",
				   "0201 1f000000 0300000000000000 02000000 6e73 03000000 313061 "
				   "0400000000000000 aabb",
				   &f),
			 0);
	facts_done(&f);
	assert_string_equal(f.parent_id, "10a");
	assert_int_equal(read_with("get_size", SIZE "aa", &f), 0);
	facts_done(&f);
}

static void answers_that_are_cut_are_refused(void **state)
{
	static const char *const methods[][2] = {
		{ "get_size", SIZE },
		{ "get_features", FEATURES },
		{ "get_flags", FLAGS },
		{ "get_snapcontext", SNAPS },
		{ "parent_overlap_get", OVERLAP },
		{ "parent_get", PARENT },
	};

	for (unsigned int i = 0; i < 6; i++) {
		unsigned char buf[512];
		size_t len = from_hex(methods[i][1], buf, sizeof(buf));

		for (say.cut = 1; say.cut <= len; say.cut++)
			expect_damaged(methods[i][0], NULL);
	}
}

static void answers_that_make_no_sense_are_refused(void **state)
{
	/* Objects of 2 KiB and of 2 GiB. */
	expect_damaged("get_size", "0b 0000004000000000");
	expect_damaged("get_size", "1f 0000004000000000");
	/* Snapshots that are newer than the newest, out of order, the same, and absurdly many. */
	expect_damaged("get_snapcontext", "0300000000000000 01000000 0400000000000000");
	expect_damaged("get_snapcontext",
		       "0500000000000000 02000000 0400000000000000 0500000000000000");
	expect_damaged("get_snapcontext",
		       "0500000000000000 02000000 0400000000000000 0400000000000000");
	expect_damaged("get_snapcontext", "0500000000000000 ffffffff 0400000000000000");
	expect_damaged("get_snapcontext", "ffffffffffffffff 00000000");
	/* A parent without id, and one with a longer name than an image has. */
	expect_damaged("parent_get",
		       "0101 18000000 0300000000000000 00000000 00000000 0400000000000000");
	expect_damaged("parent_get",
		       "0101 58000000 0300000000000000 00000000 40000000"
		       "61616161616161616161616161616161 61616161616161616161616161616161"
		       "61616161616161616161616161616161 61616161616161616161616161616161"
		       "0400000000000000");
	expect_damaged("parent_get", "0202 1d000000 0300000000000000 02000000 6e73 03000000 313061 "
				     "0400000000000000");
}

static void many_snapshots_are_asked_for_again(void **state)
{
	struct image_facts f;

	say.many_snaps = 10000;
	assert_int_equal(read_facts(&f), 0);
	assert_int_equal(osd.n_sent, 2);
	assert_int_equal(f.n_snaps, 10000);
	assert_int_equal(f.snaps[9999], 1);
	facts_done(&f);
	/* But not for ever. */
	say.many_snaps = 1000000;
	assert_int_equal(read_facts(&f), -ERANGE);
}

static void the_clusters_errors_are_told(void **state)
{
	struct image_facts f;

	say.error = -ENOENT;
	assert_int_equal(read_facts(&f), -ENOENT);
	say.error = -ESHUTDOWN;
	assert_int_equal(read_facts(&f), -ESHUTDOWN);
	osd.send_error = -EROFS;
	assert_int_equal(read_facts(&f), -EROFS);
}

static void a_late_answer_finds_its_memory(void **state)
{
	struct patience p = { .deadline_ms = 1 };
	struct image_facts f;

	say.is_kept = true;
	assert_int_equal(facts_read(NULL, "1039", &p, &f), -ETIMEDOUT);
	fake_output(&osd.sent->op.steps[0], "late", 4);
	fake_answer(0, 0);
}

static void a_name_that_is_no_image_id_is_refused(void **state)
{
	struct patience p = patience_for(60, NULL);
	struct image_facts f;
	char id[200];

	memset(id, '1', sizeof(id));
	id[sizeof(id) - 1] = '\0';
	assert_int_equal(facts_read(NULL, id, &p, &f), -ENAMETOOLONG);
}

#define test(f) cmocka_unit_test_setup_teardown(f, setup, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		test(the_header_is_read_in_one_operation),
		test(an_image_without_parent_or_snapshots_is_no_error),
		test(newer_answers_are_read_as_far_as_known),
		test(answers_that_are_cut_are_refused),
		test(answers_that_make_no_sense_are_refused),
		test(many_snapshots_are_asked_for_again),
		test(the_clusters_errors_are_told),
		test(a_late_answer_finds_its_memory),
		test(a_name_that_is_no_image_id_is_refused),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
