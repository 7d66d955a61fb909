/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Copyright (C) 2026 the rbdcrypt-nbd authors */

#include "image.h"

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

static void expect(const char *text, const char *pool, const char *nspace, const char *image,
		   const char *snap)
{
	struct image_spec s = IMAGE_SPEC_INIT;
	struct fault f = { 0 };

	assert_int_equal(image_spec_parse(text, &s, &f), 0);
	assert_string_equal(s.pool ? s.pool : "", pool);
	assert_string_equal(s.nspace ? s.nspace : "", nspace);
	assert_string_equal(s.image, image);
	assert_string_equal(s.snap ? s.snap : "", snap);
	assert_false(s.is_file);
	assert_true(s.snap_id == UINT64_MAX);
	image_spec_done(&s);
}

static void expect_refused(const char *text, const char *why)
{
	struct image_spec s = IMAGE_SPEC_INIT;
	struct fault f = { 0 };

	assert_int_equal(image_spec_parse(text, &s, &f), -EINVAL);
	assert_int_equal(f.status, EXIT_USAGE);
	assert_non_null(strstr(f.message, why));
	assert_true(f.hint[0]);
	assert_null(s.image);
}

static void all_forms_are_read(void **state)
{
	(void)state;
	expect("img", "", "", "img", "");
	expect("img@s", "", "", "img", "s");
	expect("rbd/img", "rbd", "", "img", "");
	expect("rbd/img@s", "rbd", "", "img", "s");
	expect("rbd/ns/img", "rbd", "ns", "img", "");
	expect("rbd/ns/img@s", "rbd", "ns", "img", "s");
}

static void odd_names_are_read_as_rbd_reads_them(void **state)
{
	(void)state;
	expect("rbd/my image.1:2=3,4", "rbd", "", "my image.1:2=3,4", "");
	expect("p@ol/img", "p@ol", "", "img", "");
	expect("rbd/img@a@b", "rbd", "", "img", "a@b");
	expect("rbd/img@a/b", "rbd", "", "img", "a/b");
	expect("rbd/ns/a/b", "rbd", "ns", "a/b", "");
	expect("rbd/b\303\244r", "rbd", "", "b\303\244r", "");
	expect("rbd/file:x", "rbd", "", "file:x", "");
}

static void empty_names_are_refused(void **state)
{
	(void)state;
	expect_refused(NULL, "no image");
	expect_refused("", "no image");
	expect_refused("/img", "pool's name is empty");
	expect_refused("rbd//img", "namespace's name is empty");
	expect_refused("rbd/", "image's name is empty");
	expect_refused("rbd/ns/", "image's name is empty");
	expect_refused("rbd/@s", "image's name is empty");
	expect_refused("@s", "image's name is empty");
	expect_refused("rbd/img@", "snapshot's name is empty");
	expect_refused("file:", "path is empty");
}

static void long_names_are_refused(void **state)
{
	char text[6000];

	(void)state;
	memset(text, 'x', sizeof(text));
	text[sizeof(text) - 1] = '\0';
	expect_refused(text, "image's name is too long");
	memcpy(text, "file:", 5);
	expect_refused(text, "path is too long");
	memset(text, 'x', 5);
	text[200] = '/';
	text[202] = '\0';
	expect_refused(text, "pool's name is too long");
	text[1] = '/';
	text[202] = 'i';
	text[203] = '\0';
	expect_refused(text, "namespace's name is too long");
	text[1] = '@';
	memset(text + 2, 's', 400);
	text[402] = '\0';
	expect_refused(text, "snapshot's name is too long");
}

static void files_are_paths(void **state)
{
	struct image_spec s = IMAGE_SPEC_INIT;
	struct fault f = { 0 };
	char text[64];

	(void)state;
	assert_int_equal(image_spec_parse("file:/a/b@c", &s, &f), 0);
	assert_true(s.is_file);
	assert_string_equal(s.image, "/a/b@c");
	image_spec_format(&s, text, sizeof(text));
	assert_string_equal(text, "file:/a/b@c");
	image_spec_done(&s);
	assert_null(s.image);
}

/* As the options leave it: each field may be set already. */
static struct image_spec options(const char *pool, const char *nspace, const char *image,
				 const char *snap)
{
	return (struct image_spec){ .pool = pool ? strdup(pool) : NULL,
				    .nspace = nspace ? strdup(nspace) : NULL,
				    .image = image ? strdup(image) : NULL,
				    .snap = snap ? strdup(snap) : NULL,
				    .snap_id = UINT64_MAX };
}

static void options_fill_what_text_leaves_out(void **state)
{
	struct image_spec s = options("p", "n", NULL, "s");
	struct fault f = { 0 };
	char text[64];

	(void)state;
	assert_int_equal(image_spec_parse("img", &s, &f), 0);
	image_spec_format(&s, text, sizeof(text));
	assert_string_equal(text, "p/n/img@s");
	image_spec_done(&s);

	s = options(NULL, NULL, "im/g@1", NULL);
	assert_int_equal(image_spec_parse(NULL, &s, &f), 0);
	assert_string_equal(s.image, "im/g@1");
	image_spec_done(&s);
}

static void expect_conflict(struct image_spec s, const char *text, const char *why)
{
	struct fault f = { 0 };

	assert_int_equal(image_spec_parse(text, &s, &f), -EINVAL);
	assert_non_null(strstr(f.message, why));
	image_spec_done(&s);
}

static void both_text_and_option_is_refused(void **state)
{
	struct image_spec by_id = IMAGE_SPEC_INIT;

	(void)state;
	expect_conflict(options("p", NULL, NULL, NULL), "q/img", "pool is given twice");
	expect_conflict(options(NULL, "n", NULL, NULL), "q/m/img", "namespace is given twice");
	expect_conflict(options(NULL, NULL, "i", NULL), "img", "image is given twice");
	expect_conflict(options(NULL, NULL, NULL, "s"), "img@t", "snapshot is given twice");
	expect_conflict(options("p", NULL, NULL, NULL), "file:/x", "a file has no pool");
	by_id.snap_id = 4;
	expect_conflict(by_id, "img@s", "both by name and by id");
	expect_conflict(by_id, "file:/x", "a file has no pool");
}

static void refused_spec_keeps_the_options(void **state)
{
	struct image_spec s = options("p", NULL, NULL, NULL);
	struct fault f = { 0 };

	(void)state;
	assert_int_equal(image_spec_parse("q/img", &s, &f), -EINVAL);
	assert_string_equal(s.pool, "p");
	image_spec_done(&s);
	image_spec_done(NULL);
}

static void snapshot_ids_are_shown(void **state)
{
	struct image_spec s = IMAGE_SPEC_INIT;
	struct fault f = { 0 };
	char text[64], tiny[6];

	(void)state;
	s.snap_id = 42;
	assert_int_equal(image_spec_parse("rbd/img", &s, &f), 0);
	image_spec_format(&s, text, sizeof(text));
	assert_string_equal(text, "rbd/img@42");
	image_spec_format(&s, tiny, sizeof(tiny));
	assert_string_equal(tiny, "rbd/i");
	image_spec_done(&s);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(all_forms_are_read),
		cmocka_unit_test(odd_names_are_read_as_rbd_reads_them),
		cmocka_unit_test(empty_names_are_refused),
		cmocka_unit_test(long_names_are_refused),
		cmocka_unit_test(files_are_paths),
		cmocka_unit_test(options_fill_what_text_leaves_out),
		cmocka_unit_test(both_text_and_option_is_refused),
		cmocka_unit_test(refused_spec_keeps_the_options),
		cmocka_unit_test(snapshot_ids_are_shown),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
