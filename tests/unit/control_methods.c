/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Copyright (C) 2026 the rbdcrypt-nbd authors */

/* The methods: which there are, who may call them, and those that start a volume. */

#include "../../daemon/control_methods.h"

#include "fake_host.h"

/* ---- which method ---- */

static void each_method_that_is_described_is_there(void **state)
{
	static const char *const interfaces[] = { "org.varlink.service", CONTROL_INTERFACE };
	unsigned int n = 0;

	for (size_t i = 0; i < 2; i++)
		for (const char *at = describe(interfaces[i]); (at = strstr(at, "\nmethod "));) {
			char name[64], method[128];

			at += strlen("\nmethod ");
			(void)snprintf(name, sizeof(name), "%.*s", (int)strcspn(at, "("), at);
			(void)snprintf(method, sizeof(method), "%s.%s", interfaces[i], name);
			call(method, "{}");
			assert_true(!t.call.error[0] || strcmp(t.call.error, CONTROL_FAILED) == 0 ||
				    strcmp(t.call.error, "org.varlink.service.InvalidParameter") ==
					    0);
			n++;
		}
	assert_int_equal(n, 9);
}

static void a_method_that_is_not_there_is_named(void **state)
{
	static const char *const methods[] = { CONTROL_INTERFACE ".Nothing",
					       CONTROL_INTERFACE ".map", CONTROL_INTERFACE ".",
					       "org.varlink.service.GetInf",
					       "org.varlink.service.GetInfos" };

	for (size_t i = 0; i < sizeof(methods) / sizeof(methods[0]); i++) {
		call(methods[i], "{}");
		assert_answer("{\"method\":\"%s\"}", methods[i]);
		assert_string_equal(t.call.error, "org.varlink.service.MethodNotFound");
	}
}

static void an_interface_that_is_not_there_is_named(void **state)
{
	static const struct {
		const char *method, *interface;
	} calls[] = {
		{ "", "" },
		{ "Map", "Map" },
		{ ".Map", "" },
		{ "org.rbdcrypt.Map", "org.rbdcrypt" },
		{ "org.rbdcrypt.Hosts.Map", "org.rbdcrypt.Hosts" },
		{ CONTROL_INTERFACE ".Map.More", CONTROL_INTERFACE ".Map" },
		{ CONTROL_INTERFACE, "org.rbdcrypt" },
	};

	for (size_t i = 0; i < sizeof(calls) / sizeof(calls[0]); i++) {
		call(calls[i].method, "{}");
		assert_answer("{\"interface\":\"%s\"}", calls[i].interface);
		assert_string_equal(t.call.error, "org.varlink.service.InterfaceNotFound");
	}
}

static void only_interfaces_are_described(void **state)
{
	static const char *const bad[] = { "{}", "{\"interface\":null}", "{\"interface\":7}",
					   "{\"interface\":[\"org.rbdcrypt.Host\"]}" };

	for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
		call("org.varlink.service.GetInterfaceDescription", bad[i]);
		assert_answer("{\"parameter\":\"interface\"}");
		assert_string_equal(t.call.error, "org.varlink.service.InvalidParameter");
	}
	call("org.varlink.service.GetInterfaceDescription", "{\"interface\":\"org.rbdcrypt\"}");
	assert_answer("{\"interface\":\"org.rbdcrypt\"}");
	assert_string_equal(t.call.error, "org.varlink.service.InterfaceNotFound");
	assert_memory_equal(describe("org.varlink.service"), "interface org.varlink.service\n", 30);
	assert_string_equal(describe(CONTROL_INTERFACE), control_interface);
}

static void the_service_says_what_it_is(void **state)
{
	call("org.varlink.service.GetInfo", "{}");
	assert_shape("org.varlink.service", "GetInfo");
	assert_string_equal(text_of("version"), VERSION);
	assert_string_equal(
		json_object_to_json_string_ext(member("interfaces"), JSON_C_TO_STRING_PLAIN),
		"[\"org.varlink.service\",\"org.rbdcrypt.Host\"]");
}

/* ---- Map, Attach, Serve ---- */

static void a_start_is_answered_when_it_serves(void **state)
{
	struct host_volume *v;

	call(MAP, "{\"spec\":\"rbd/vol\",\"is_unknown\":1}");
	v = assert_added(MAPPING_MAP);
	assert_int_equal(t.call.n_answers, 0);
	assert_true(serve(v, 3, ""));
	assert_shape(CONTROL_INTERFACE, "Map");
	assert_answer("{\"device\":\"/dev/nbd3\",\"cookie\":\"cookie 3\"}");
	/* Its end is nobody's affair any more. */
	assert_false(end(v, EXIT_OK, 0));
	assert_int_equal(t.call.n_answers, 1);

	call(ATTACH, "{\"spec\":\"rbd/vol\",\"options\":[\"device=/dev/nbd4\"]}");
	v = assert_added(MAPPING_ATTACH);
	assert_string_equal(v->options->device, "/dev/nbd4");
	assert_true(serve(v, 4, ""));
	assert_shape(CONTROL_INTERFACE, "Attach");

	call(SERVE, "{\"spec\":\"rbd/vol\",\"options\":[\"socket=/s\"]}");
	v = assert_added(MAPPING_SERVE);
	assert_true(serve(v, -1, "/s"));
	assert_shape(CONTROL_INTERFACE, "Serve");
	assert_answer("{\"socket\":\"/s\"}");
}

static void a_start_that_nobody_asked_for_here_is_nobodys(void **state)
{
	struct host_volume *v, other = { .spec = "rbd/vol" };

	call(MAP, "{\"spec\":\"rbd/vol\"}");
	v = assert_added(MAPPING_MAP);
	assert_false(methods_serving(t.methods, &other));
	assert_false(methods_ended(t.methods, &other));
	assert_int_equal(t.call.n_answers, 0);
	assert_true(serve(v, 0, ""));
}

/* Every exit status that a command has comes through as it is. */
static void a_start_that_fails_is_told_as_the_command_would(void **state)
{
	for (int status = EXIT_USAGE; status <= EXIT_LAYERED; status++) {
		call(MAP, "{\"spec\":\"rbd/vol\"}");
		assert_true(end(assert_added(MAPPING_MAP), (enum exit_status)status, -EDOM));
		assert_shape_of_error();
		assert_failed((enum exit_status)status, -EDOM, "it fails");
		assert_string_equal(text_of("hint"), "do something");
	}
}

static void a_start_that_ended_unseen_is_no_success(void **state)
{
	call(MAP, "{\"spec\":\"rbd/vol\"}");
	assert_true(end(assert_added(MAPPING_MAP), EXIT_OK, 0));
	assert_failed(EXIT_TIMED_OUT, -EINTR, "rbd/vol: ended before it could be used");
}

static void a_start_is_taken_back_when_its_client_goes(void **state)
{
	struct host_volume *v;

	call(MAP, "{\"spec\":\"rbd/vol\"}");
	v = assert_added(MAPPING_MAP);
	methods_abandoned(t.methods, &t.call);
	assert_int_equal(v->n_stops, 1);
	assert_int_equal(v->how, HOST_DISCONNECT);
	/* It got there all the same: nobody is told, and it ends. */
	assert_true(serve(v, 3, ""));
	assert_int_equal(t.call.n_answers, 0);
	assert_false(end(v, EXIT_OK, 0));

	call(MAP, "{\"spec\":\"rbd/vol\"}");
	v = assert_added(MAPPING_MAP);
	methods_abandoned(t.methods, &t.call);
	assert_true(end(v, EXIT_TIMED_OUT, -EINTR));
	assert_int_equal(t.call.n_answers, 0);
}

static void what_the_host_cannot_take_is_told(void **state)
{
	t.add_error = -EMFILE;
	call(MAP, "{\"spec\":\"rbd/vol\"}");
	assert_failed(EXIT_MEMORY, -EMFILE, "cannot start a volume");
	assert_null(t.volumes);
	t.add_error = 0;
	call(MAP, "{\"spec\":\"rbd/vol\"}");
	assert_true(serve(assert_added(MAPPING_MAP), 0, ""));
}

/* What is written down for a successor says where the key is, never what it is. */
static void a_start_is_noted_as_it_was_asked(void **state)
{
	struct json_object *noted, *want;

	pass(1);
	call(MAP, "{\"spec\":\"rbd/vol\",\"options\":[\"read-only\"],"
		  "\"keys\":[{\"source\":\"/etc/vol.key\",\"fd\":0}]}");
	noted = json_tokener_parse(assert_added(MAPPING_MAP)->request);
	want = json_tokener_parse("{\"spec\":\"rbd/vol\",\"options\":[\"read-only\"],\"ceph\":[],"
				  "\"keys\":[{\"source\":\"/etc/vol.key\"}]}");
	assert_true(json_object_equal(noted, want));
	json_object_put(noted);
	json_object_put(want);
}

static void a_request_that_is_refused_starts_nothing(void **state)
{
	static const char *const bad[] = {
		"{}",
		"{\"spec\":7}",
		"{\"spec\":\"\"}",
		"{\"spec\":\"rbd/vol\",\"options\":{\"read-only\":true}}",
		"{\"spec\":\"rbd/vol\",\"options\":[\"no-such-thing\"]}",
		"{\"spec\":\"rbd/vol\",\"options\":[\"block-size=7\"]}",
		"{\"spec\":\"rbd/vol\",\"ceph\":\"--id x\"}",
		"{\"spec\":\"rbd/vol\",\"keys\":{\"fd\":0}}",
		"{\"spec\":\"rbd/vol\",\"keys\":[{\"fd\":\"0\"}]}",
		"{\"spec\":\"rbd/vol\",\"keys\":[{\"fd\":0},{\"fd\":2}]}",
		"{\"spec\":\"rbd/vol\",\"keys\":[{\"fd\":0},{\"fd\":0}]}",
		"{\"spec\":\"rbd/vol@\",\"keys\":[{\"fd\":0},{\"fd\":1}]}",
	};
	static const char *const methods[] = { MAP, ATTACH, SERVE };

	for (size_t m = 0; m < 3; m++)
		for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
			pass(2);
			call(methods[m], bad[i]);
			assert_failed(EXIT_USAGE, -EINVAL, "");
			assert_null(t.volumes);
		}
}

/* Descriptors that a call took are closed with it, those it did not take are its client's end's. */
static void descriptors_are_the_volumes_or_nobodys(void **state)
{
	struct host_volume *v;
	int fd;

	pass(2);
	fd = t.call.fds[1];
	call(MAP, "{\"spec\":\"rbd/vol\",\"keys\":[{\"fd\":1}]}");
	v = assert_added(MAPPING_MAP);
	assert_int_equal(v->options->n_key_fds, 1);
	assert_int_equal(v->options->key_fds[0], fd);
	assert_int_equal(t.call.fds[1], -1);
	assert_true(t.call.fds[0] >= 0);
	(void)end(v, EXIT_OK, 0);
	assert_int_equal(fcntl(fd, F_GETFD), -1);
	/* Taken, and then refused for another reason. */
	pass(1);
	fd = t.call.fds[0];
	call(SERVE, "{\"spec\":\"rbd/vol\",\"keys\":[{\"fd\":0}]}");
	assert_failed(EXIT_USAGE, -EINVAL, "socket=PATH");
	assert_int_equal(fcntl(fd, F_GETFD), -1);
}

/* ---- who may ---- */

static void the_group_may_not_do_what_only_root_can(void **state)
{
	static const struct {
		const char *method, *parameters;
	} calls[] = {
		{ SERVE, "{\"spec\":\"rbd/vol\",\"keys\":[{\"fd\":0}]}" },
		{ SERVE, "{\"spec\":\"rbd/vol\",\"options\":[\"socket=/s\"]}" },
		{ RELOAD, "{}" },
		{ MAP, "{\"spec\":\"file:/disk\"}" },
		{ MAP, "{\"spec\":\"rbd/vol\",\"options\":[\"conf=/c\"]}" },
		{ MAP, "{\"spec\":\"rbd/vol\",\"options\":[\"cluster=../../c\"]}" },
		{ MAP, "{\"spec\":\"rbd/vol\",\"options\":[\"id=x\"]}" },
		{ MAP, "{\"spec\":\"rbd/vol\",\"options\":[\"user=x\"]}" },
		{ ATTACH, "{\"spec\":\"rbd/vol\",\"options\":[\"name=client.x\"]}" },
		{ MAP, "{\"spec\":\"rbd/vol\",\"ceph\":[\"--id=x\"]}" },
		{ MAP, "{\"spec\":\"rbd/vol\",\"ceph_args\":\"--id x\"}" },
		{ MAP, "{\"spec\":\"rbd/vol\",\"keys\":[{\"source\":\"/etc/shadow\"}]}" },
		{ ATTACH, "{\"spec\":\"file:/disk\",\"options\":[\"device=/dev/nbd0\"]}" },
	};

	for (size_t i = 0; i < sizeof(calls) / sizeof(calls[0]); i++) {
		t.call.is_from_group = true;
		pass(1);
		call(calls[i].method, calls[i].parameters);
		assert_failed(EXIT_PASSPHRASE, -EPERM, "");
	}
	assert_null(t.volumes);
	assert_int_equal(t.n_reloads, 0);
	/* The rest they may. */
	t.call.is_from_group = true;
	pass(1);
	call(MAP, "{\"spec\":\"rbd/vol\",\"keys\":[{\"source\":\"/etc/shadow\",\"fd\":0}]}");
	assert_string_equal(assert_added(MAPPING_MAP)->options->passphrase_files.items[0], "-");
	t.call.is_from_group = true;
	call(STATUS, "{}");
	assert_string_equal(t.call.error, "");
}

static void a_reload_is_done_once(void **state)
{
	call(RELOAD, "{\"is_unknown\":true}");
	assert_shape(CONTROL_INTERFACE, "Reload");
	assert_int_equal(t.n_reloads, 1);
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, start, stop)
	const struct CMUnitTest tests[] = {
		TEST(each_method_that_is_described_is_there),
		TEST(a_method_that_is_not_there_is_named),
		TEST(an_interface_that_is_not_there_is_named),
		TEST(only_interfaces_are_described),
		TEST(the_service_says_what_it_is),
		TEST(a_start_is_answered_when_it_serves),
		TEST(a_start_that_nobody_asked_for_here_is_nobodys),
		TEST(a_start_that_fails_is_told_as_the_command_would),
		TEST(a_start_that_ended_unseen_is_no_success),
		TEST(a_start_is_taken_back_when_its_client_goes),
		TEST(what_the_host_cannot_take_is_told),
		TEST(a_start_is_noted_as_it_was_asked),
		TEST(a_request_that_is_refused_starts_nothing),
		TEST(descriptors_are_the_volumes_or_nobodys),
		TEST(the_group_may_not_do_what_only_root_can),
		TEST(a_reload_is_done_once),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
