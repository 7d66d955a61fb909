/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Copyright (C) 2026 the rbdcrypt-nbd authors */

/* What users call a volume. */

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "../../daemon/operand.h"

/* What operand is called, or the error. */
static int name_of(const char *operand, char *buf, size_t len)
{
	struct options o = { .spec = IMAGE_SPEC_INIT };
	struct fault f = { 0 };
	int r;

	o.operand = strdup(operand);
	assert_non_null(o.operand);
	r = operand_name(&o, buf, len, &f);
	assert_int_equal(f.error, r);
	free(o.operand);
	return r;
}

static void expect(const char *operand, const char *name)
{
	char buf[256];

	assert_int_equal(name_of(operand, buf, sizeof(buf)), 0);
	assert_string_equal(buf, name);
}

static void names_stay_as_they_are(void **state)
{
	expect("rbd/vol@snap", "rbd/vol@snap");
	expect("/dev/nbd0", "/dev/nbd0");
	expect("100%", "100%");
}

static void the_address_that_serve_prints_is_its_sockets(void **state)
{
	char buf[256];

	expect("nbd+unix:///?socket=/run/vol.sock", "/run/vol.sock");
	expect("nbd+unix:///?socket=/a%20b%25%C3%A9", "/a b%\xc3\xa9");
	assert_int_equal(name_of("nbd+unix:///?socket=/a%2", buf, sizeof(buf)), -EINVAL);
	assert_int_equal(name_of("nbd+unix:///?socket=/a%zz", buf, sizeof(buf)), -EINVAL);
	assert_int_equal(name_of("nbd+unix:///?socket=/a%00b", buf, sizeof(buf)), -EINVAL);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(names_stay_as_they_are),
		cmocka_unit_test(the_address_that_serve_prints_is_its_sockets),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
