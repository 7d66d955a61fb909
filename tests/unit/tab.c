/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Copyright (C) 2026 the rbdcrypt-nbd authors */

#include "../../systemd/tab.h"

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "../../daemon/link_name.h"
#include "../../systemd/unit_text.h"

/* ---- lines ---- */

static char last[2048];

static void told(void *arg, const char *message)
{
	(void)arg;
	(void)snprintf(last, sizeof(last), "%s", message);
}

static void read_bytes(struct tab *t, const char *text, size_t len)
{
	FILE *in = fmemopen((void *)(uintptr_t)text, len, "r");

	memset(t, 0, sizeof(*t));
	last[0] = 0;
	assert_non_null(in);
	assert_int_equal(tab_read(t, in, "tab", told, NULL), 0);
	(void)fclose(in);
}

static void read_text(struct tab *t, const char *text)
{
	read_bytes(t, text, strlen(text));
}

static void every_field_is_read(void **state)
{
	struct tab t;
	const struct tab_entry *e;

	(void)state;
	read_text(&t,
		  "# comment\n\n  db\trbd/ns/my\\040db@s  /a\\040b/k,/p\\,q,cred:x \t"
		  "id=vm,nofail,noauto,key-mount=/a\\040b,start-timeout=90s,_netdev,device=nbd3,"
		  "mon-host=1\\,2\n");
	assert_int_equal(t.n, 1);
	assert_int_equal(t.n_refused, 0);
	e = &t.entries[0];
	assert_string_equal(e->name, "db");
	assert_string_equal(e->spec, "rbd/ns/my db@s");
	assert_string_equal(e->image.snap, "s");
	assert_int_equal(e->n_keys, 3);
	assert_string_equal(e->keys[0], "/a b/k");
	assert_string_equal(e->keys[1], "/p,q");
	assert_string_equal(e->keys[2], "cred:x");
	assert_string_equal(e->options, "id=vm,device=nbd3,mon-host=1\\,2");
	assert_string_equal(e->key_mount, "/a b");
	assert_string_equal(e->start_timeout, "90s");
	assert_true(e->is_optional && e->is_manual);
	assert_false(e->is_waiting);
	assert_int_equal(e->line, 3);
	tab_done(&t);
}

static void file_to_wait_for_has_a_name(void **state)
{
	struct tab t;

	(void)state;
	read_text(&t, "a rbd/ns/x@s /k/%p/%n/%i/%s/%l%%c key-wait\n"
		      "b vol /k/%p-%n%i,/%c key-wait\n"
		      "c file:/d/img /k/%i key-wait\n"
		      "d rbd/d /%c\n");
	assert_int_equal(t.n, 4);
	assert_string_equal(t.entries[0].awaited, "/k/rbd/ns/x/s/1%c");
	assert_string_equal(t.entries[1].awaited, "/k/rbd-vol");
	assert_string_equal(t.entries[2].awaited, "/k/img");
	assert_null(t.entries[3].awaited);
	tab_done(&t);
}

static void short_line_has_defaults(void **state)
{
	struct tab t;

	(void)state;
	read_text(&t, "a x -");
	assert_int_equal(t.n, 1);
	assert_string_equal(t.entries[0].spec, "rbd/x");
	assert_int_equal(t.entries[0].n_keys, 0);
	assert_string_equal(t.entries[0].options, "");
	assert_false(t.entries[0].is_optional || t.entries[0].is_manual);
	tab_done(&t);
}

static void wrong_line_is_told_and_others_are_taken(void **state)
{
	/* The line, and what is said about it besides its number and what is expected. */
	static const char *const lines[][2] = {
		{ "only two", "too few fields" },
		{ "a rbd/a - x y", "too many fields" },
		{ "-a rbd/a -", "name '-a'" },
		{ "a/b rbd/a -", "name 'a/b'" },
		{ "a rbd//a -", "namespace's name is empty" },
		{ "a file:a -", "absolute path" },
		{ "a rbd/a key", "key file 'key'" },
		{ "a rbd/a /k,", "key file ''" },
		{ "a rbd/a - read-only,format=xml", "option format" },
		{ "a rbd/a - help", "option help" },
		{ "a rbd/a - force", "option force" },
		{ "a rbd/a - dry_run", "option dry_run" },
		{ "a rbd/a - cookie", "cookie=TEXT" },
		{ "a rbd/a - snap=x", "option snap" },
		{ "a rbd/a - --read-only", "without dashes" },
		{ "a rbd/a - x-systemd.requires=x.service", "option x-systemd.requires" },
		{ "a rbd/a - #comment", "option #comment" },
		{ "a rbd/a - id=vm,\\", "option \\" },
		{ "a rbd/a - keyring='/a,b'", "option b'" },
		{ "a rbd/a - 3a=b", "option 3a" },
		{ "a rbd/a - run_dir=/x", "option run_dir" },
		{ "a rbd/a - key-mount=keys", "key-mount=/" },
		{ "a rbd/a - start-timeout=a;b", "start-timeout" },
		{ "a rbd/a - key-wait", "key-wait" },
		{ "a rbd/a cred:x key-wait", "key-wait" },
		{ "a rbd/a /%c key-wait", "without %c" },
		{ "a rbd/a /%%%f key-wait", "without %c" },
		{ "a rbd/a /%x key-wait", "%x is no specifier" },
		{ "a rbd/a /% key-wait", "percent sign" },
		{ "a rbd/a\\040 /%i key-wait", "neither a blank" },
		{ "a rbd/a /k\\012x", "control character" },
		{ "a rbd/a\\303 /k", "not UTF-8" },
		{ "a rbd/a /k key-mount=/m\\134", "key-mount" },
		{ "a rbd/a /k\\134 key-wait", "key-wait" },
		{ "a rbd/a /k\\040 key-wait", "key-wait" },
		{ "first rbd/a -", "same name as in tab:1" },
		{ "a rbd/first -", "same image as in tab:1" },
		{ "a first -", "same image as in tab:1" },
		{ "a rbd/a - device=/dev/nbd7", "same device as in tab:1" },
	};

	(void)state;
	for (unsigned int i = 0; i < sizeof(lines) / sizeof(lines[0]); i++) {
		char text[256];
		struct tab t;

		(void)snprintf(text, sizeof(text),
			       "first rbd/first - device=nbd7\n%s\nlast rbd/last -\n", lines[i][0]);
		read_text(&t, text);
		assert_int_equal(t.n, 2);
		assert_int_equal(t.n_refused, 1);
		assert_string_equal(t.entries[1].name, "last");
		assert_int_equal(strncmp(last, "tab:2: ", 7), 0);
		if (!strstr(last, lines[i][1]) || !strstr(last, "expected"))
			fail_msg("'%s': %s", lines[i][0], last);
		tab_done(&t);
	}
}

static void nul_byte_is_refused(void **state)
{
	static const char text[] = "a rbd/a\0 -\nb rbd/b -\n";
	struct tab t;

	(void)state;
	read_bytes(&t, text, sizeof(text) - 1);
	assert_int_equal(t.n, 1);
	assert_string_equal(t.entries[0].name, "b");
	assert_non_null(strstr(last, "NUL"));
	tab_done(&t);
}

/* ---- names ---- */

static void expect_link(const char *pool, const char *nspace, const char *image, const char *snap,
			uint64_t id, const char *wanted)
{
	char link[256];

	assert_int_equal(link_of_image(pool, nspace, image, snap, id, link, sizeof(link)), 0);
	assert_string_equal(link, wanted);
}

static void links_are_escaped_and_never_alike(void **state)
{
	char link[64];

	(void)state;
	expect_link("rbd", NULL, "vol", NULL, UINT64_MAX, "rbd/vol");
	expect_link("rbd", "", "vol", "", UINT64_MAX, "rbd/vol");
	expect_link("rbd", "ns", "vol", "s", 7, "rbd/ns/vol@s");
	expect_link("rbd", NULL, "vol", NULL, 7, "rbd/vol@7");
	expect_link("a@b", NULL, "c d/e", NULL, UINT64_MAX, "a@b/c\\x20d\\x2fe");
	expect_link("rbd", NULL, "vol@s", NULL, UINT64_MAX, "rbd/vol\\x40s");
	expect_link("..", NULL, ".", NULL, UINT64_MAX, "\\x2e./\\x2e");
	expect_link("by-cookie", NULL, "x", NULL, UINT64_MAX, "\\x62y-cookie/x");
	expect_link("p", NULL, "\xc3\xa9\\x", NULL, UINT64_MAX, "p/\\xc3\\xa9\\x5cx");
	expect_link("rbd-part1", "ns-part1", "vol-part1", NULL, UINT64_MAX,
		    "rbd-part1/ns-part1/vol\\x2dpart1");
	expect_link("rbd", NULL, "vol-part1", "s-part12", UINT64_MAX, "rbd/vol-part1@s\\x2dpart12");
	expect_link("rbd", NULL, "vol-part1", NULL, 7, "rbd/vol-part1@7");
	expect_link("rbd", NULL, "a-part1-part", NULL, UINT64_MAX, "rbd/a-part1-part");
	expect_link("rbd", NULL, "a-parts", NULL, UINT64_MAX, "rbd/a-parts");
	assert_int_equal(link_of_cookie("x-part1", link, sizeof(link)), 0);
	assert_string_equal(link, "by-cookie/x\\x2dpart1");
	assert_int_equal(link_of_cookie("a/1/b", link, sizeof(link)), 0);
	assert_string_equal(link, "by-cookie/a\\x2f1\\x2fb");
	assert_int_equal(link_of_cookie("", link, sizeof(link)), -EINVAL);
	assert_int_equal(link_of_image(NULL, NULL, "x", NULL, 0, link, sizeof(link)), -EINVAL);
	assert_int_equal(link_of_image("rbd", NULL, "vol", NULL, UINT64_MAX, link, 8), 0);
	assert_int_equal(link_of_image("rbd", NULL, "vol", NULL, UINT64_MAX, link, 7),
			 -ENAMETOOLONG);
}

static void expect_text(void (*put)(FILE *out, const char *text), const char *text,
			const char *wanted)
{
	char buf[128] = "";
	FILE *out = fmemopen(buf, sizeof(buf), "w");

	put(out, text);
	(void)fclose(out);
	assert_string_equal(buf, wanted);
}

static void units_hold_text_only(void **state)
{
	static const char *const held[] = { "",
					    "a\\ $%\"'",
					    "\xc3\xa9",
					    "\xe2\x82\xac",
					    "\xed\x9f\xbf",
					    "\xf0\x9f\x92\xbe",
					    "\xf4\x8f\xbf\xbd" };
	static const char *const refused[] = {
		"a\nb",
		"\x1f",
		"\x7f",
		"\x80",
		"\xc3",
		"\xc3x",
		"\xc0\xaf",
		"\xe0\x80\xaf",
		"\xe2\x82",
		"\xed\xa0\x80",
		"\xef\xbf\xbe",
		"\xef\xb7\x90",
		"\xf0\x80\x80\xaf",
		"\xf4\x90\x80\x80",
		"\xf8\x88\x80\x80\x80",
	};

	(void)state;
	for (unsigned int i = 0; i < sizeof(held) / sizeof(held[0]); i++)
		if (!unit_can_hold(held[i]))
			fail_msg("%u is refused", i);
	for (unsigned int i = 0; i < sizeof(refused) / sizeof(refused[0]); i++)
		if (unit_can_hold(refused[i]))
			fail_msg("%u is held", i);
	assert_true(unit_can_end("/a b"));
	assert_false(unit_can_end("/a "));
	assert_false(unit_can_end("/a\\"));
}

static void text_is_what_systemd_reads_back(void **state)
{
	(void)state;
	expect_text(unit_put_argument, "a b\"\\$c%d", "\"a b\\\"\\\\$$c%%d\"");
	expect_text(unit_put_word, "a b\"$c%d", "\"a b\\\"$c%%d\"");
	expect_text(unit_put_value, "a b\"%d", "a b\"%%d");
}

static void paths_become_names_of_units(void **state)
{
	static const char *const paths[][2] = {
		{ "/dev/rbdcrypt/rbd/vol", "dev-rbdcrypt-rbd-vol" },
		{ "//srv///a-b/", "srv-a\\x2db" },
		{ "/.a/.b", "\\x2ea-.b" },
		{ "/a\\x20b", "a\\x5cx20b" },
	};
	char buf[64];

	(void)state;
	for (unsigned int i = 0; i < sizeof(paths) / sizeof(paths[0]); i++) {
		assert_int_equal(unit_escape_path(paths[i][0], buf, sizeof(buf)), 0);
		assert_string_equal(buf, paths[i][1]);
	}
	assert_int_equal(unit_escape_path("/", buf, sizeof(buf)), -EINVAL);
	assert_int_equal(unit_escape_path("a", buf, sizeof(buf)), -EINVAL);
	assert_int_equal(unit_escape_path("/abcdef", buf, 8), -ENAMETOOLONG);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(every_field_is_read),
		cmocka_unit_test(file_to_wait_for_has_a_name),
		cmocka_unit_test(short_line_has_defaults),
		cmocka_unit_test(wrong_line_is_told_and_others_are_taken),
		cmocka_unit_test(nul_byte_is_refused),
		cmocka_unit_test(links_are_escaped_and_never_alike),
		cmocka_unit_test(units_hold_text_only),
		cmocka_unit_test(text_is_what_systemd_reads_back),
		cmocka_unit_test(paths_become_names_of_units),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
