/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Copyright (C) 2026 the rbdcrypt-nbd authors */

/* The explanation of a failure: what is kept, what is shown. */

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "fault.h"

static void assert_printed(const struct fault *f, const char *expected)
{
	char *text = NULL;
	size_t len = 0;
	FILE *out = open_memstream(&text, &len);

	assert_non_null(out);
	fault_print(out, f);
	fclose(out);
	assert_string_equal(text, expected);
	free(text);
}

static void set_returns_the_error_and_fills(void **state)
{
	struct fault f = { 0 };

	assert_int_equal(fault_set(&f, EXIT_BUSY, -EBUSY, "%s: in use", "/dev/nbd0"), -EBUSY);
	assert_int_equal(f.status, EXIT_BUSY);
	assert_int_equal(f.error, -EBUSY);
	assert_string_equal(f.message, "/dev/nbd0: in use");
}

static void first_explanation_wins(void **state)
{
	struct fault f = { 0 };

	(void)fault_set(&f, EXIT_BUSY, -EBUSY, "first");
	assert_int_equal(fault_set(&f, EXIT_USAGE, -EINVAL, "second"), -EINVAL);
	assert_string_equal(f.message, "first");
	assert_int_equal(f.status, EXIT_BUSY);
	fault_hint(&f, "do %s", "this");
	fault_hint(&f, "do that");
	assert_string_equal(f.hint, "do this");
}

/* "é" is two bytes; one of both messages is cut between them. */
static void what_is_cut_ends_with_a_whole_character(void **state)
{
	char text[2 * sizeof(((struct fault *)0)->message)];

	for (size_t i = 0; i + 2 < sizeof(text); i += 2)
		memcpy(text + i, "\xc3\xa9", 3);
	for (int before = 0; before < 2; before++) {
		struct fault f = { 0 };
		size_t len;

		(void)fault_set(&f, EXIT_USAGE, -EINVAL, "%.*s%s", before, "x", text);
		fault_hint(&f, "%.*s%s", before, "x", text);
		len = strlen(f.message);
		assert_true(len >= sizeof(f.message) - 3);
		assert_int_equal((unsigned char)f.message[len - 1], 0xa9);
		assert_int_equal((unsigned char)f.hint[strlen(f.hint) - 1], 0xa9);
	}
}

static void no_fault_to_fill_is_fine(void **state)
{
	assert_int_equal(fault_set(NULL, EXIT_BUSY, -EBUSY, "x"), -EBUSY);
	fault_hint(NULL, "x");
	fault_prefix(NULL, "x");
	fault_clear(NULL);
}

static void prefix_goes_in_front(void **state)
{
	struct fault f = { 0 };

	(void)fault_set(&f, EXIT_HEADER, -EBADMSG, "damaged");
	fault_prefix(&f, "layer %d", 1);
	assert_string_equal(f.message, "layer 1: damaged");
}

static void a_long_message_is_cut_not_overrun(void **state)
{
	struct fault f = { 0 };
	char name[2000];

	memset(name, 'a', sizeof(name) - 1);
	name[sizeof(name) - 1] = 0;
	(void)fault_set(&f, EXIT_NOT_FOUND, -ENOENT, "%s", name);
	assert_int_equal(strlen(f.message), sizeof(f.message) - 1);
	fault_prefix(&f, "%s", name);
	assert_int_equal(strlen(f.message), sizeof(f.message) - 1);
	fault_hint(&f, "%s", name);
	assert_int_equal(strlen(f.hint), sizeof(f.hint) - 1);
}

static void control_characters_do_not_reach_the_terminal(void **state)
{
	struct fault f = { 0 };

	(void)fault_set(&f, EXIT_NOT_FOUND, -ENOENT, "a\nb\033[2J");
	fault_hint(&f, "c\td");
	assert_printed(&f, "rbdcrypt-nbd: a?b?[2J\nhint: c?d\n");
}

static void clear_makes_room_for_another(void **state)
{
	struct fault f = { 0 };

	(void)fault_set(&f, EXIT_BUSY, -EBUSY, "first");
	fault_hint(&f, "hint");
	fault_clear(&f);
	(void)fault_set(&f, EXIT_USAGE, -EINVAL, "second");
	assert_printed(&f, "rbdcrypt-nbd: second\n");
}

static void the_systems_words_are_added_where_they_say_more(void **state)
{
	struct fault f = { 0 };

	(void)fault_set(&f, EXIT_CLUSTER, -EIO, "rbd/a: cannot read the header");
	assert_printed(&f, "rbdcrypt-nbd: rbd/a: cannot read the header: Input/output error\n");
	fault_clear(&f);
	(void)fault_set(&f, EXIT_CLUSTER, -EIO, "rbd/a: input/output error");
	assert_printed(&f, "rbdcrypt-nbd: rbd/a: input/output error\n");
	fault_clear(&f);
	(void)fault_set(&f, EXIT_PASSPHRASE, -EPERM, "rbd/a: wrong passphrase");
	assert_printed(&f, "rbdcrypt-nbd: rbd/a: wrong passphrase\n");
}

static void what_an_errno_says_by_itself_decides_the_status(void **state)
{
	assert_int_equal(fault_status(-EACCES, EXIT_NOT_FOUND), EXIT_PASSPHRASE);
	assert_int_equal(fault_status(-EPERM, EXIT_NOT_FOUND), EXIT_PASSPHRASE);
	assert_int_equal(fault_status(-EROFS, EXIT_USAGE), EXIT_PASSPHRASE);
	assert_int_equal(fault_status(-ENOMEM, EXIT_HEADER), EXIT_MEMORY);
	assert_int_equal(fault_status(-EMFILE, EXIT_HEADER), EXIT_MEMORY);
	assert_int_equal(fault_status(-ENFILE, EXIT_NOT_FOUND), EXIT_MEMORY);
	assert_int_equal(fault_status(-ENOSPC, EXIT_PASSPHRASE), EXIT_MEMORY);
	assert_int_equal(fault_status(-EDQUOT, EXIT_PASSPHRASE), EXIT_MEMORY);
	assert_int_equal(fault_status(-EFBIG, EXIT_HEADER), EXIT_MEMORY);
	assert_int_equal(fault_status(-ENOENT, EXIT_NOT_FOUND), EXIT_NOT_FOUND);
	assert_int_equal(fault_status(-EIO, EXIT_CLUSTER), EXIT_CLUSTER);
}

static void a_failure_without_explanation_still_says_something(void **state)
{
	struct fault f = { .error = -ENOMEM };

	assert_printed(&f, "rbdcrypt-nbd: failed: Cannot allocate memory\n");
	f.error = 0;
	assert_printed(&f, "rbdcrypt-nbd: failed: no reason given\n");
}

static void a_program_called_rbd_nbd_says_so(void **state)
{
	char *name = program_invocation_short_name, other[] = "rbd-nbd";
	struct fault f = { 0 };

	fault_set(&f, EXIT_NOT_FOUND, -ENOENT, "rbd/disk is not mapped");
	assert_printed(&f, "rbdcrypt-nbd: rbd/disk is not mapped\n");
	program_invocation_short_name = other;
	assert_printed(&f, "rbd-nbd: rbd/disk is not mapped\n");
	program_invocation_short_name = name;
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(set_returns_the_error_and_fills),
		cmocka_unit_test(first_explanation_wins),
		cmocka_unit_test(what_is_cut_ends_with_a_whole_character),
		cmocka_unit_test(no_fault_to_fill_is_fine),
		cmocka_unit_test(prefix_goes_in_front),
		cmocka_unit_test(a_long_message_is_cut_not_overrun),
		cmocka_unit_test(control_characters_do_not_reach_the_terminal),
		cmocka_unit_test(clear_makes_room_for_another),
		cmocka_unit_test(the_systems_words_are_added_where_they_say_more),
		cmocka_unit_test(what_an_errno_says_by_itself_decides_the_status),
		cmocka_unit_test(a_failure_without_explanation_still_says_something),
		cmocka_unit_test(a_program_called_rbd_nbd_says_so),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
