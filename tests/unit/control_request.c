/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Copyright (C) 2026 the rbdcrypt-nbd authors */

/* Requests for volumes: what is read back of what was written, and what is refused to whom. */

#include "../../daemon/control_request.h"

#include <errno.h>
#include <fcntl.h>
#include <json-c/json_tokener.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

/* What came with the message: so many descriptors, each to be had once. */
static unsigned int n_passed;
static int passed[4];

static int take(void *arg, unsigned int i)
{
	int fd = i < n_passed ? passed[i] : -1;

	if (fd >= 0)
		passed[i] = -1;
	return fd < 0 ? -EBADF : fd;
}

static void pass(unsigned int n)
{
	n_passed = n;
	for (unsigned int i = 0; i < n; i++)
		passed[i] = open("/dev/null", O_RDONLY | O_CLOEXEC);
}

static int leave(void **state)
{
	for (unsigned int i = 0; i < n_passed; i++)
		if (passed[i] >= 0)
			(void)close(passed[i]);
	n_passed = 0;
	return 0;
}

static int read_text(const char *text, enum command command, bool is_trusted, struct options **ret,
		     struct fault *f)
{
	struct json_object *o = json_tokener_parse(text);
	int r;

	assert_non_null(o);
	r = control_request_read(o, command, is_trusted, take, NULL, ret, f);
	json_object_put(o);
	return r;
}

static struct options *done(struct options *o)
{
	options_done(o);
	free(o);
	return NULL;
}

/* ---- there and back ---- */

static void a_command_line_comes_through(void **state)
{
	static const char *const words[] = {
		"rbdcrypt-nbd",
		"--read-only",
		"--block-size=4096",
		"--conf",
		"/etc/x.conf",
		"--mon-host=10.0.0.1",
		"--encryption-passphrase-file",
		"/k/one",
		"--encryption-passphrase-file",
		"fd:7",
	};
	static const char *const command[] = { "", "map", "rbd/ns/img@snap" };
	char *argv[sizeof(words) / sizeof(words[0])];
	static const unsigned int keys[] = { 1 };
	struct options typed = { 0 }, *read = NULL;
	struct fault f = { 0 };
	struct json_object *o;

	for (size_t i = 0; i < sizeof(words) / sizeof(words[0]); i++)
		argv[i] = (char *)(uintptr_t)words[i];
	assert_int_equal(options_parse(sizeof(words) / sizeof(words[0]), argv, &typed, &f), 0);
	assert_int_equal(options_positionals(&typed, 3, command, &f), 0);
	o = control_request_write(&typed, keys, 1);
	assert_non_null(o);
	pass(1);
	assert_int_equal(control_request_read(o, COMMAND_MAP, true, take, NULL, &read, &f), 0);
	json_object_put(o);
	assert_string_equal(read->operand, "rbd/ns/img@snap");
	assert_string_equal(read->spec.nspace, "ns");
	assert_true(read->is_read_only);
	assert_int_equal(read->block_size, 4096);
	assert_string_equal(read->conf, "/etc/x.conf");
	assert_int_equal(read->ceph_argc, 2);
	assert_string_equal(read->ceph_argv[1], "--mon-host=10.0.0.1");
	assert_int_equal(read->passphrase_files.n, 2);
	assert_int_equal(read->n_key_fds, 2);
	assert_int_equal(read->key_fds[0], -1);
	/* The descriptor is the options' now, and closed with them. */
	assert_true(read->key_fds[1] >= 0);
	assert_int_equal(passed[0], -1);
	passed[0] = read->key_fds[1];
	(void)done(read);
	assert_int_equal(fcntl(passed[0], F_GETFD), -1);
	passed[0] = -1;
	options_done(&typed);
}

static void assert_has_key(bool expected, const char *word, const char *args)
{
	const char *argv[] = { "", word };
	struct options o = { .ceph_argc = word ? 2 : 1, .ceph_argv = argv };

	if (args)
		assert_int_equal(setenv("CEPH_ARGS", args, 1), 0);
	if (control_request_has_key(&o) != expected)
		fail_msg("'%s', CEPH_ARGS '%s'", word ? word : "", args ? args : "");
	assert_int_equal(unsetenv("CEPH_ARGS"), 0);
}

static void the_key_of_a_ceph_user_is_seen(void **state)
{
	assert_has_key(true, "--key", NULL);
	assert_has_key(true, "--key=AQ==", NULL);
	assert_has_key(true, NULL, "--key=AQ==");
	assert_has_key(true, NULL, "--id x --key AQ==");
	assert_has_key(true, NULL, "--keyring=/k\t--key=AQ==");
	assert_has_key(false, NULL, NULL);
	assert_has_key(false, "--keyring=/k", "--keyring /k --keyfile=/f --id x--key=y");
}

static void the_key_of_a_ceph_user_is_not_written_down(void **state)
{
	char operand[] = "a";
	struct options o = { .operand = operand };
	struct json_object *json, *args;

	assert_int_equal(setenv("CEPH_ARGS", "--id x --key=AQ==", 1), 0);
	json = control_request_write(&o, NULL, 0);
	assert_non_null(json);
	assert_null(strstr(json_object_to_json_string(json), "AQ=="));
	json_object_put(json);
	assert_int_equal(setenv("CEPH_ARGS", "--id x", 1), 0);
	json = control_request_write(&o, NULL, 0);
	assert_true(json_object_object_get_ex(json, "ceph_args", &args));
	assert_string_equal(json_object_get_string(args), "--id x");
	json_object_put(json);
	assert_int_equal(unsetenv("CEPH_ARGS"), 0);
}

/* ---- refusals ---- */

struct refusal {
	const char *request, *says;
};

static void expect_refused(const struct refusal *r, bool is_trusted, enum exit_status status)
{
	struct options *o = NULL;
	struct fault f = { 0 };
	int e;

	pass(2);
	e = read_text(r->request, COMMAND_MAP, is_trusted, &o, &f);
	if (e >= 0 || o || f.status != status || !strstr(f.message, r->says))
		fail_msg("%s: %d, status %d, '%s'", r->request, e, (int)f.status, f.message);
	(void)leave(NULL);
}

static void what_is_badly_said_is_refused(void **state)
{
	static const struct refusal refusals[] = {
		{ "{}", "" },
		{ "{\"spec\":\"\"}", "no text" },
		{ "{\"spec\":\"a\\u0000b\"}", "no text" },
		{ "{\"spec\":[\"a\"]}", "no text" },
		{ "{\"spec\":\"a\",\"options\":{}}", "no array" },
		{ "{\"spec\":\"a\",\"options\":[7]}", "no text" },
		{ "{\"spec\":\"a\",\"options\":[\"\"]}", "unknown option" },
		{ "{\"spec\":\"a\",\"options\":[\"read-only\\u0000\"]}", "no text" },
		{ "{\"spec\":\"a\",\"options\":[\"block-size=7\"]}", "block-size" },
		{ "{\"spec\":\"a\",\"options\":[\"run-dir=/x\"]}", "cannot be given" },
		/* Whoever asked for it would find the volume mapped. */
		{ "{\"spec\":\"a\",\"options\":[\"dry-run\"]}", "cannot be given" },
		{ "{\"spec\":\"a\",\"options\":[\"encryption-passphrase-file=/x\"]}",
		  "cannot be given" },
		{ "{\"spec\":\"a\",\"options\":[\"conf=x\"]}", "absolute" },
		{ "{\"spec\":\"a\",\"ceph\":[\"--key\",\"AQ==\"]}", "as text" },
		{ "{\"spec\":\"a\",\"ceph\":[\"--\",\"map\"]}", "no word" },
		{ "{\"spec\":\"a\",\"ceph\":[null]}", "no text" },
		{ "{\"spec\":\"a\",\"ceph\":[\"--help\"]}", "words for Ceph" },
		{ "{\"spec\":\"a\",\"ceph\":[\"--log-file=/x\"]}", "words for Ceph" },
		{ "{\"spec\":\"a\",\"ceph\":[\"-d\"]}", "words for Ceph" },
		{ "{\"spec\":\"a\",\"keys\":[{\"fd\":0}],"
		  "\"ceph\":[\"--encryption-passphrase-file=/x\"]}",
		  "words for Ceph" },
		{ "{\"spec\":\"a\",\"ceph_args\":7}", "no text" },
		{ "{\"spec\":\"a\",\"ceph_args\":\"--id x --key=AQ==\"}", "as text" },
		{ "{\"spec\":\"a\",\"ceph_args\":\"--key AQ==\"}", "as text" },
		{ "{\"spec\":\"a\",\"keys\":[7]}", "no object" },
		{ "{\"spec\":\"a\",\"keys\":[{\"source\":\"\"}]}", "neither" },
		{ "{\"spec\":\"a\",\"keys\":[{\"source\":\"-\"}]}", "descriptor" },
		{ "{\"spec\":\"a\",\"keys\":[{\"fd\":-1}]}", "small number" },
		{ "{\"spec\":\"a\",\"keys\":[{\"fd\":64}]}", "small number" },
		{ "{\"spec\":\"a\",\"keys\":[{\"fd\":99999999999999999999}]}", "small number" },
		{ "{\"spec\":\"a\",\"keys\":[{\"fd\":0.5}]}", "small number" },
		{ "{\"spec\":\"a\",\"keys\":[{\"fd\":2}]}", "did not come" },
		{ "{\"spec\":\"a\",\"keys\":[{\"fd\":1},{\"fd\":1}]}", "did not come" },
		{ "{\"spec\":\"file:relative\"}", "absolute" },
	};

	for (size_t i = 0; i < sizeof(refusals) / sizeof(refusals[0]); i++)
		expect_refused(&refusals[i], true, EXIT_USAGE);
}

static void who_is_not_root_names_no_file(void **state)
{
	static const struct refusal refusals[] = {
		{ "{\"spec\":\"file:/etc/hostname\"}", "only root" },
		{ "{\"spec\":\"a\",\"options\":[\"conf=/x\"]}", "only root" },
		{ "{\"spec\":\"a\",\"options\":[\"socket=/x\"]}", "only root" },
		{ "{\"spec\":\"a\",\"options\":[\"cluster=../../tmp/x\"]}", "only root" },
		{ "{\"spec\":\"a\",\"options\":[\"cluster=x\"]}", "only root" },
		{ "{\"spec\":\"a\",\"options\":[\"id=x\"]}", "only root" },
		{ "{\"spec\":\"a\",\"options\":[\"user=x\"]}", "only root" },
		{ "{\"spec\":\"a\",\"options\":[\"name=client.x\"]}", "only root" },
		{ "{\"spec\":\"a\",\"ceph\":[\"--keyring=/x\"]}", "only root" },
		{ "{\"spec\":\"a\",\"ceph_args\":\"--id x\"}", "only root" },
		{ "{\"spec\":\"a\",\"keys\":[{\"source\":\"/etc/shadow\"}]}", "open descriptor" },
		{ "{\"spec\":\"a\",\"keys\":[{\"source\":\"exec:/bin/x\"}]}", "open descriptor" },
	};
	struct options *o = NULL;
	struct fault f = { 0 };

	for (size_t i = 0; i < sizeof(refusals) / sizeof(refusals[0]); i++)
		expect_refused(&refusals[i], false, EXIT_PASSPHRASE);
	/* What the descriptor was opened from is not read again with root's eyes. */
	pass(1);
	assert_int_equal(read_text("{\"spec\":\"a\",\"keys\":[{\"source\":\"/k\",\"fd\":0}]}",
				   COMMAND_MAP, false, &o, &f),
			 0);
	assert_string_equal(o->passphrase_files.items[0], "-");
	o = done(o);
}

/* Nor is a passphrase used that root keeps for the image, now or after a restart. */
static void who_is_not_root_has_no_default(void **state)
{
	static const char *const requests[] = {
		"{\"spec\":\"a\"}",
		"{\"spec\":\"a\",\"keys\":[]}",
		"{\"spec\":\"a\",\"keys\":[{\"source\":\"none\"}]}",
	};
	static const struct refusal refusal = {
		"{\"spec\":\"a\",\"keys\":[{\"source\":\"default:\"}]}", "open descriptor"
	};
	struct options *o = NULL;
	struct fault f = { 0 };

	for (size_t i = 0; i < sizeof(requests) / sizeof(requests[0]); i++) {
		struct json_object *written;

		assert_int_equal(read_text(requests[i], COMMAND_MAP, false, &o, &f), 0);
		written = control_request_write(o, NULL, 0);
		o = done(o);
		assert_int_equal(
			control_request_read(written, COMMAND_MAP, true, take, NULL, &o, &f), 0);
		json_object_put(written);
		assert_int_equal(o->passphrase_files.n, 1);
		assert_string_equal(o->passphrase_files.items[0], "none");
		o = done(o);
	}
	expect_refused(&refusal, false, EXIT_PASSPHRASE);
	/* Root has. */
	assert_int_equal(read_text(requests[0], COMMAND_MAP, true, &o, &f), 0);
	assert_int_equal(o->passphrase_files.n, 0);
	o = done(o);
}

/* Nor can several be said as if they were one. */
static void a_list_in_disguise_is_refused(void **state)
{
	static const struct refusal refusals[] = {
		{ "{\"spec\":\"a\",\"options\":[\"cookie=a,conf=/x\"]}", "words for Ceph" },
		{ "{\"spec\":\"a\",\"options\":[\"cookie=a,cookie=b\\\\\\\\,keyring=/x\"]}",
		  "words for Ceph" },
		{ "{\"spec\":\"a\",\"options\":[\"read-only,conf=/x\"]}", "unknown option" },
	};

	for (size_t i = 0; i < sizeof(refusals) / sizeof(refusals[0]); i++)
		expect_refused(&refusals[i], false, EXIT_USAGE);
}

static void who_is_not_root_has_no_more_than_his_share(void **state)
{
	static const struct refusal refusals[] = {
		{ "{\"spec\":\"a\",\"options\":[\"nbds_max=1000000\"]}", "only root" },
		{ "{\"spec\":\"a\",\"options\":[\"max-part=255\"]}", "only root" },
		{ "{\"spec\":\"a\",\"options\":[\"queue-memory=1T\"]}", "only root" },
		{ "{\"spec\":\"a\",\"options\":[\"unlock-timeout=0\"]}", "only root" },
		{ "{\"spec\":\"a\",\"options\":[\"luks_argon2_memory_max=4T\"]}", "only root" },
	};

	for (size_t i = 0; i < sizeof(refusals) / sizeof(refusals[0]); i++)
		expect_refused(&refusals[i], false, EXIT_PASSPHRASE);
}

/* ---- faults ---- */

static void a_fault_comes_through(void **state)
{
	struct fault f = { 0 }, again = { 0 };
	struct json_object *o;

	(void)fault_set(&f, EXIT_LOCKED, -EBUSY, "locked by %s", "x");
	fault_hint(&f, "wait");
	o = control_fault_write(&f);
	assert_true(control_fault_read(o, &again));
	assert_int_equal(again.status, EXIT_LOCKED);
	assert_int_equal(again.error, -EBUSY);
	assert_string_equal(again.message, "locked by x");
	assert_string_equal(again.hint, "wait");
	json_object_put(o);
}

/* An answer must never make a failure a success. */
static void what_is_no_fault_is_not_taken_for_one(void **state)
{
	static const char *const bad[] = {
		"{}",
		"{\"status\":0,\"errno\":5,\"message\":\"m\",\"hint\":\"\"}",
		"{\"status\":99,\"errno\":5,\"message\":\"m\",\"hint\":\"\"}",
		"{\"status\":2,\"errno\":0,\"message\":\"m\",\"hint\":\"\"}",
		"{\"status\":2,\"errno\":-5,\"message\":\"m\",\"hint\":\"\"}",
		"{\"status\":2,\"errno\":5,\"message\":7,\"hint\":\"\"}",
		"{\"status\":2,\"errno\":5,\"message\":\"m\"}",
	};

	for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
		struct json_object *o = json_tokener_parse(bad[i]);
		struct fault f = { 0 };

		assert_false(control_fault_read(o, &f));
		assert_int_equal(f.error, 0);
		json_object_put(o);
	}
}

int main(void)
{
#define TEST(name) cmocka_unit_test_teardown(name, leave)
	const struct CMUnitTest tests[] = {
		TEST(a_command_line_comes_through),
		TEST(the_key_of_a_ceph_user_is_seen),
		TEST(the_key_of_a_ceph_user_is_not_written_down),
		TEST(what_is_badly_said_is_refused),
		TEST(who_is_not_root_names_no_file),
		TEST(who_is_not_root_has_no_default),
		TEST(a_list_in_disguise_is_refused),
		TEST(who_is_not_root_has_no_more_than_his_share),
		TEST(a_fault_comes_through),
		TEST(what_is_no_fault_is_not_taken_for_one),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
