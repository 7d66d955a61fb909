/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Copyright (C) 2026 the rbdcrypt-nbd authors */

/* What users call a volume. */

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

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

static void an_empty_name_is_not_all_volumes(void **state)
{
	char buf[256];

	assert_int_equal(name_of("", buf, sizeof(buf)), -EINVAL);
}

/* In a folder that is removed at the end. */
static void a_socket_is_known_by_its_whole_path(void **state)
{
	struct sockaddr_un address = { .sun_family = AF_UNIX, .sun_path = "s" };
	char dir[] = "/tmp/operand-XXXXXX", whole[64];
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);

	assert_non_null(mkdtemp(dir));
	assert_int_equal(chdir(dir), 0);
	assert_int_equal(bind(fd, (struct sockaddr *)&address, sizeof(address)), 0);
	assert_true(snprintf(whole, sizeof(whole), "%s/s", dir) > 0);
	expect("s", whole);
	expect("./s", whole);
	expect(".//./s", whole);
	expect(whole, whole);
	expect("./there-is-none", "./there-is-none");
	assert_int_equal(unlink("s"), 0);
	assert_int_equal(chdir("/"), 0);
	assert_int_equal(rmdir(dir), 0);
	(void)close(fd);
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
		cmocka_unit_test(an_empty_name_is_not_all_volumes),
		cmocka_unit_test(a_socket_is_known_by_its_whole_path),
		cmocka_unit_test(the_address_that_serve_prints_is_its_sockets),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
