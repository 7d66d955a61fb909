/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Copyright (C) 2026 the rbdcrypt-nbd authors */

/* The methods that mean a volume which is there: which one, what becomes of it, and what is said.
 */

#include "../../daemon/control_methods.h"

#include "fake_host.h"

/* A volume of this daemon that serves, and whose state file says so. */
static struct host_volume *start_serving(const char *image, int device, struct state **ret)
{
	struct host_volume *v;
	struct volume_state state;
	char parameters[128];

	(void)snprintf(parameters, sizeof(parameters),
		       "{\"spec\":\"rbd/%s\",\"options\":[\"socket=/%s.s\"]}", image, image);
	if (device >= 0)
		(void)snprintf(parameters, sizeof(parameters), "{\"spec\":\"rbd/%s\"}", image);
	call(device >= 0 ? MAP : SERVE, parameters);
	v = assert_added(device >= 0 ? MAPPING_MAP : MAPPING_SERVE);
	volume_state_init(&state);
	strcpy(state.pool, "rbd");
	(void)snprintf(state.image, sizeof(state.image), "%s", image);
	state.device = device;
	state.status = device >= 0 ? VOLUME_MAPPED : VOLUME_SERVING;
	if (device < 0)
		(void)snprintf(state.socket, sizeof(state.socket), "/%s.s", image);
	*ret = claim(v->spec, &state);
	assert_true(serve(v, device, state.socket));
	return v;
}

static void a_name_that_is_none_is_refused(void **state)
{
	static const char *const methods[] = { UNMAP, DETACH, STATUS };
	static const char *const bad[] = { "{\"name\":7}", "{\"name\":\"\"}", "{\"name\":[\"a\"]}",
					   "{\"name\":\"/dev/nbd0\\u0000\"}" };
	char too_long[4100];

	for (size_t m = 0; m < 3; m++)
		for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
			call(methods[m], bad[i]);
			assert_failed(EXIT_USAGE, -EINVAL, "\"name\"");
		}
	(void)snprintf(too_long, sizeof(too_long), "{\"name\":\"%04001d\"}", 0);
	for (size_t m = 0; m < 3; m++) {
		call(methods[m], too_long);
		assert_failed(EXIT_USAGE, -EINVAL, "too long");
	}
	/* They cannot do without one. */
	for (size_t m = 0; m < 2; m++) {
		call(methods[m], "{}");
		assert_failed(EXIT_USAGE, -EINVAL, "must be a text");
		call(methods[m], "{\"name\":null}");
		assert_failed(EXIT_USAGE, -EINVAL, "must be a text");
	}
	assert_int_equal(t.n_children, 0);
}

/* The device is opened by a child alone, which says how it went. */
static void a_device_is_unmapped_by_a_child(void **state)
{
	const struct fault why = { .status = EXIT_BUSY, .error = -EBUSY, .message = "in use" };
	struct state *file;
	struct host_volume *v = start_serving("vol", 3, &file);

	for (int fails = 1; fails >= 0; fails--) {
		call(UNMAP, "{\"name\":\"/dev/nbd3\",\"timeout\":7,\"is_unknown\":1}");
		assert_int_equal(t.call.n_answers, 0);
		assert_non_null(t.child);
		assert_string_equal(t.child->name, "/dev/nbd3");
		assert_int_equal(t.child->o.timeout_s, 7);
		assert_false(t.child->o.is_check || t.child->o.is_forced);
		t.child->o.done(t.child->o.arg, fails ? &why : NULL);
		assert_null(t.child);
		if (fails)
			assert_failed(EXIT_BUSY, -EBUSY, "in use");
	}
	assert_shape(CONTROL_INTERFACE, "Unmap");
	call(UNMAP, "{\"name\":\"nbd3\",\"force\":true}");
	assert_true(t.child->o.is_forced);
	assert_int_equal(t.child->o.timeout_s, -1);
	t.child->o.done(t.child->o.arg, NULL);
	/* It sees itself that its device is gone. */
	assert_int_equal(v->n_stops, 0);
	(void)state_release(file, true);
}

/* A word is no truth value: "false" would be true. */
static void what_is_not_clearly_said_forces_nothing(void **state)
{
	static const char *const bad[] = { "\"force\":\"false\"", "\"force\":\"true\"",
					   "\"force\":1",	  "\"force\":[]",
					   "\"timeout\":\"30\"",  "\"timeout\":true",
					   "\"timeout\":{}",	  "\"timeout\":1.5",
					   "\"timeout\":-1" };
	static const char *const names[] = { "/dev/nbd3", "/other.s", "another's" };
	struct state *files[2];
	struct host_volume *socket;

	(void)start_serving("vol", 3, &files[0]);
	socket = start_serving("other", -1, &files[1]);
	for (size_t n = 0; n < 3; n++)
		for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
			char parameters[128];

			(void)snprintf(parameters, sizeof(parameters), "{\"name\":\"%s\",%s}",
				       names[n], bad[i]);
			call(UNMAP, parameters);
			assert_failed(EXIT_USAGE, -EINVAL, "must be");
		}
	assert_int_equal(t.n_children, 0);
	assert_int_equal(socket->n_stops, 0);
	(void)state_release(files[0], true);
	(void)state_release(files[1], true);
}

static void what_is_not_ours_is_unmapped_by_a_child_too(void **state)
{
	call(UNMAP, "{\"name\":\"another's\",\"force\":false,\"timeout\":null}");
	assert_string_equal(t.child->name, "another's");
	assert_false(t.child->o.is_check || t.child->o.is_forced);
	assert_int_equal(t.child->o.timeout_s, -1);
	t.child->o.done(t.child->o.arg, NULL);
	assert_answer("{}");
	assert_string_equal(t.call.error, "");
	t.child_error = -EAGAIN;
	call(UNMAP, "{\"name\":\"another's\"}");
	assert_failed(EXIT_MEMORY, -EAGAIN, "no child");
}

/* What is in the run directory, but not of this daemon. */
static void leave(const char *image, int device, bool is_hosted, const char *cookie)
{
	struct volume_state s;

	volume_state_init(&s);
	strcpy(s.pool, "rbd");
	(void)snprintf(s.image, sizeof(s.image), "%s", image);
	(void)snprintf(s.cookie, sizeof(s.cookie), "%s", cookie);
	s.device = device;
	s.is_hosted = is_hosted;
	s.status = VOLUME_MAPPED;
	(void)state_release(claim(image, &s), /* is_removed */ false);
}

static void the_group_may_not_unmap_what_is_not_ours(void **state)
{
	static const char *const names[] = { "/dev/nbd5", "rbd/own", "nbd6" };

	leave("own", 5, false, "");
	for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++) {
		char parameters[64];

		(void)snprintf(parameters, sizeof(parameters), "{\"name\":\"%s\",\"force\":true}",
			       names[i]);
		t.call.is_from_group = true;
		call(UNMAP, parameters);
		if (i == 2)
			assert_failed(EXIT_NOT_FOUND, -ENOENT, "not mapped");
		else
			assert_failed(EXIT_PASSPHRASE, -EPERM, "only root");
	}
	assert_int_equal(t.n_children, 0);
	/* What an earlier daemon served waits for this one, whatever its cookie looks like. */
	leave("left", 7, true, "/dev/nbd6");
	t.call.is_from_group = true;
	call(UNMAP, "{\"name\":\"/dev/nbd6\"}");
	assert_string_equal(t.child->name, "/dev/nbd7");
	t.child->o.done(t.child->o.arg, NULL);
	assert_answer("{}");
}

static void a_socket_goes_when_its_keys_are_safe(void **state)
{
	const struct fault why = { .status = EXIT_SAFEGUARD, .error = -EPERM, .message = "lost" };
	struct state *file;
	struct host_volume *v = start_serving("vol", -1, &file);

	call(UNMAP, "{\"name\":\"/vol.s\"}");
	assert_true(t.child->o.is_check);
	t.child->o.done(t.child->o.arg, &why);
	assert_failed(EXIT_SAFEGUARD, -EPERM, "lost");
	assert_int_equal(v->n_stops, 0);
	call(UNMAP, "{\"name\":\"rbd/vol\"}");
	t.child->o.done(t.child->o.arg, NULL);
	assert_null(t.child);
	assert_int_equal(v->n_stops, 1);
	assert_int_equal(v->how, HOST_DISCONNECT);
	/* It is said when it is so. */
	assert_int_equal(t.call.n_answers, 0);
	(void)state_release(file, true);
	assert_true(end(v, EXIT_OK, 0));
	assert_answer("{}");
	assert_string_equal(t.call.error, "");
}

static void by_force_a_socket_goes_at_once(void **state)
{
	struct state *file;
	struct host_volume *v = start_serving("vol", -1, &file);

	call(UNMAP, "{\"name\":\"/vol.s\",\"force\":true}");
	assert_int_equal(t.n_children, 0);
	assert_int_equal(v->how, HOST_DISCONNECT);
	(void)state_release(file, true);
	assert_true(end(v, EXIT_OK, 0));
	assert_answer("{}");
}

/* As a socket does: with the daemon the key goes. */
static void a_device_is_left_behind_when_its_keys_are_safe(void **state)
{
	const struct fault why = { .status = EXIT_SAFEGUARD, .error = -EPERM, .message = "lost" };
	struct state *file;
	struct host_volume *v = start_serving("vol", 3, &file);

	call(DETACH, "{\"name\":\"rbd/vol\",\"force\":false}");
	assert_string_equal(t.child->name, "/dev/nbd3");
	assert_true(t.child->o.is_check);
	t.child->o.done(t.child->o.arg, &why);
	assert_failed(EXIT_SAFEGUARD, -EPERM, "lost");
	assert_int_equal(v->n_stops, 0);
	/* Nobody waits for its end now. */
	assert_false(methods_ended(t.methods, v));
	call(DETACH, "{\"name\":\"/dev/nbd3\"}");
	assert_true(t.child->o.is_check);
	assert_int_equal(v->n_stops, 0);
	t.child->o.done(t.child->o.arg, NULL);
	assert_null(t.child);
	assert_int_equal(v->n_stops, 1);
	assert_int_equal(v->how, HOST_DETACH);
	assert_int_equal(t.call.n_answers, 0);
	(void)state_release(file, true);
	assert_true(end(v, EXIT_OK, 0));
	assert_answer("{}");
	assert_string_equal(t.call.error, "");
}

static void one_that_ends_already_is_not_looked_at(void **state)
{
	struct state *file;
	struct host_volume *v = start_serving("vol", 3, &file);

	v->phase = HOST_STOPPING;
	call(DETACH, "{\"name\":\"/dev/nbd3\"}");
	assert_int_equal(t.n_children, 0);
	assert_int_equal(v->how, HOST_DETACH);
	(void)state_release(file, true);
	assert_true(end(v, EXIT_OK, 0));
	assert_answer("{}");
	assert_string_equal(t.call.error, "");
}

static void one_that_ends_while_its_keys_are_looked_at_is_gone_all_the_same(void **state)
{
	for (int is_device = 0; is_device < 2; is_device++) {
		struct state *file;
		struct host_volume *v = start_serving("vol", is_device ? 3 : -1, &file);

		call(is_device ? DETACH : UNMAP, "{\"name\":\"rbd/vol\"}");
		assert_true(t.child->o.is_check);
		(void)state_release(file, true);
		assert_true(end(v, EXIT_OK, 0));
		assert_answer("{}");
		assert_string_equal(t.call.error, "");
		assert_null(t.child);
	}
}

/* Going away does not take it back, and does not force it. */
static void an_end_goes_on_without_its_client(void **state)
{
	const struct fault why = { .status = EXIT_SAFEGUARD, .error = -EPERM, .message = "lost" };

	for (int is_device = 0; is_device < 2; is_device++) {
		const char *method = is_device ? DETACH : UNMAP;
		struct state *file;
		struct host_volume *v = start_serving("vol", is_device ? 3 : -1, &file);

		call(method, "{\"name\":\"rbd/vol\"}");
		methods_abandoned(t.methods, &t.call);
		t.child->o.done(t.child->o.arg, &why);
		assert_int_equal(v->n_stops, 0);
		call(method, "{\"name\":\"rbd/vol\"}");
		methods_abandoned(t.methods, &t.call);
		assert_int_equal(v->n_stops, 0);
		t.child->o.done(t.child->o.arg, NULL);
		assert_int_equal(v->how, is_device ? HOST_DETACH : HOST_DISCONNECT);
		(void)state_release(file, true);
		assert_true(end(v, EXIT_OK, 0));
		assert_int_equal(t.call.n_answers, 0);
	}
}

/* A map that another client waits for. */
static struct host_volume *start_by(struct control_call *client)
{
	close_call();
	*client = (struct control_call){ .method = MAP, .fds = { -1, -1 } };
	client->parameters = json_tokener_parse("{\"spec\":\"rbd/vol\"}");
	methods_called(t.methods, client);
	return assert_added(MAPPING_MAP);
}

static void drop_call(struct control_call *client)
{
	json_object_put(client->parameters);
	json_object_put(client->answer);
}

static void one_that_starts_is_known_by_its_image_and_interrupted(void **state)
{
	struct control_call first;
	struct host_volume *v = start_by(&first);

	call(DETACH, "{\"name\":\"rbd/vol\"}");
	assert_failed(EXIT_USAGE, -EINVAL, "no device to leave behind");
	assert_int_equal(v->n_stops, 0);
	call(UNMAP, "{\"name\":\"rbd/vol\"}");
	assert_int_equal(t.n_children, 0);
	assert_int_equal(v->how, HOST_DISCONNECT);
	assert_int_equal(t.call.n_answers, 0);
	drop_call(&first);
}

/* Between two looks at it, a start has ended: its device is not taken away unseen, by keys alone.
 */
static void one_that_has_a_device_by_now_is_unmapped_by_a_child(void **state)
{
	for (unsigned int looks = 1; looks <= 4; looks++) {
		struct control_call first;
		struct host_volume *v = start_by(&first);

		v->service.device = 3;
		v->looks_until_it_serves = looks;
		call(UNMAP, "{\"name\":\"rbd/vol\"}");
		if (t.child) {
			assert_false(t.child->o.is_check);
			t.child->o.done(t.child->o.arg, NULL);
			assert_int_equal(v->n_stops, 0);
		} else {
			assert_int_equal(v->n_stops, 1);
		}
		v->looks_until_it_serves = 0;
		(void)end(v, EXIT_OK, 0);
		drop_call(&first);
	}
	assert_true(t.n_children > 0);
}

/* To whom it was to start it failed, to whom it was to go it went. */
static void each_who_waits_is_told_what_it_is_to_him(void **state)
{
	struct control_call first;
	struct host_volume *v = start_by(&first);

	call(UNMAP, "{\"name\":\"rbd/vol\"}");
	assert_true(end(v, EXIT_TIMED_OUT, -EINTR));
	assert_answer("{}");
	assert_string_equal(t.call.error, "");
	assert_int_equal(first.n_answers, 1);
	assert_string_equal(first.error, CONTROL_FAILED);
	drop_call(&first);
}

static void only_a_device_of_ours_is_left_behind(void **state)
{
	struct state *files[2];
	struct host_volume *device = start_serving("vol", 3, &files[0]);
	struct host_volume *socket = start_serving("other", -1, &files[1]);

	call(DETACH, "{\"name\":\"/dev/nbd4\"}");
	assert_failed(EXIT_NOT_FOUND, -ENOENT, "not served by this daemon");
	call(DETACH, "{\"name\":\"/other.s\"}");
	assert_failed(EXIT_USAGE, -EINVAL, "no device");
	assert_int_equal(socket->n_stops, 0);
	call(DETACH, "{\"name\":\"/dev/nbd3\",\"force\":true}");
	assert_int_equal(device->n_stops, 1);
	assert_int_equal(device->how, HOST_DETACH);
	assert_int_equal(t.call.n_answers, 0);
	(void)state_release(files[0], true);
	assert_true(end(device, EXIT_OK, 0));
	assert_shape(CONTROL_INTERFACE, "Detach");
	(void)state_release(files[1], true);
}

/* ---- Status ---- */

static unsigned int n_volumes(void)
{
	assert_shape(CONTROL_INTERFACE, "Status");
	return (unsigned int)json_object_array_length(member("volumes"));
}

static void all_volumes_are_shown_or_the_one_that_is_meant(void **state)
{
	struct state *files[2];

	call(STATUS, "{}");
	assert_int_equal(n_volumes(), 0);
	(void)start_serving("vol", 3, &files[0]);
	(void)start_serving("other", -1, &files[1]);
	call(STATUS, "{\"name\":null}");
	assert_int_equal(n_volumes(), 2);
	call(STATUS, "{\"name\":\"/other.s\"}");
	assert_int_equal(n_volumes(), 1);
	assert_string_equal(json_object_get_string(json_object_object_get(
				    json_object_array_get_idx(member("volumes"), 0), "image")),
			    "other");
	call(STATUS, "{\"name\":\"nothing\"}");
	assert_failed(EXIT_NOT_FOUND, -ENOENT, "nothing is not mapped");
	(void)state_release(files[0], true);
	(void)state_release(files[1], true);
}

/* One that a predecessor served is known by all of its names. */
static void one_that_comes_back_is_known_by_its_socket(void **state)
{
	struct state *file;
	struct host_volume *v = start_serving("vol", -1, &file);

	v->phase = HOST_STARTING;
	v->service.key[0] = '\0';
	v->resumed = v->spec;
	call(UNMAP, "{\"name\":\"/vol.s\"}");
	assert_int_equal(t.n_children, 0);
	assert_int_equal(v->how, HOST_DISCONNECT);
	(void)state_release(file, true);
	assert_true(end(v, EXIT_TIMED_OUT, -EINTR));
	assert_string_equal(t.call.error, "");
	/* The end of a start takes no device away. */
	v = start_serving("disk", 3, &file);
	v->phase = HOST_STARTING;
	v->service.key[0] = '\0';
	v->resumed = v->spec;
	call(UNMAP, "{\"name\":\"/dev/nbd3\"}");
	assert_non_null(t.child);
	assert_int_equal(v->how, HOST_KEEP);
	t.child->o.done(t.child->o.arg, NULL);
	(void)state_release(file, true);
}

/* ---- one that does not end ---- */

static void one_that_does_not_end_is_waited_for_as_long_as_was_said(void **state)
{
	struct state *file;
	struct host_volume *v = start_serving("vol", -1, &file);

	call(UNMAP, "{\"name\":\"/vol.s\",\"force\":true,\"timeout\":1}");
	assert_int_equal(v->how, HOST_DISCONNECT);
	assert_int_equal(t.call.n_answers, 0);
	run_for(4000);
	assert_failed(EXIT_TIMED_OUT, -ETIMEDOUT, "still served after 1 seconds");
	/* Nobody waits for it any more. */
	(void)state_release(file, true);
	assert_false(end(v, EXIT_OK, 0));
}

static void no_time_at_all_is_a_look(void **state)
{
	struct state *file;
	struct host_volume *v = start_serving("vol", 3, &file);

	call(DETACH, "{\"name\":\"/dev/nbd3\",\"timeout\":0}");
	t.child->o.done(t.child->o.arg, NULL);
	assert_int_equal(v->how, HOST_DETACH);
	run_for(3000);
	assert_failed(EXIT_TIMED_OUT, -ETIMEDOUT, "still served");
	(void)state_release(file, true);
}

static void who_does_not_say_how_long_is_patient(void **state)
{
	struct state *file;
	struct host_volume *v = start_serving("vol", -1, &file);

	call(UNMAP, "{\"name\":\"/vol.s\",\"force\":true}");
	run_for(1500);
	assert_int_equal(t.call.n_answers, 0);
	(void)state_release(file, true);
	assert_true(end(v, EXIT_OK, 0));
	assert_string_equal(t.call.error, "");
}

/* ---- the daemon's end ---- */

static void calls_under_way_are_forgotten_with_the_methods(void **state)
{
	struct state *file;
	struct host_volume *v = start_serving("vol", 3, &file);

	call(UNMAP, "{\"name\":\"/dev/nbd3\"}");
	call(MAP, "{\"spec\":\"rbd/next\"}");
	t.methods = methods_free(t.methods);
	assert_null(t.child);
	assert_int_equal(t.call.n_answers, 0);
	assert_int_equal(v->n_stops, 0);
	(void)state_release(file, true);
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, start, stop)
	const struct CMUnitTest tests[] = {
		TEST(a_name_that_is_none_is_refused),
		TEST(a_device_is_unmapped_by_a_child),
		TEST(what_is_not_clearly_said_forces_nothing),
		TEST(what_is_not_ours_is_unmapped_by_a_child_too),
		TEST(the_group_may_not_unmap_what_is_not_ours),
		TEST(a_socket_goes_when_its_keys_are_safe),
		TEST(by_force_a_socket_goes_at_once),
		TEST(a_device_is_left_behind_when_its_keys_are_safe),
		TEST(one_that_ends_already_is_not_looked_at),
		TEST(one_that_ends_while_its_keys_are_looked_at_is_gone_all_the_same),
		TEST(an_end_goes_on_without_its_client),
		TEST(one_that_starts_is_known_by_its_image_and_interrupted),
		TEST(one_that_has_a_device_by_now_is_unmapped_by_a_child),
		TEST(each_who_waits_is_told_what_it_is_to_him),
		TEST(only_a_device_of_ours_is_left_behind),
		TEST(all_volumes_are_shown_or_the_one_that_is_meant),
		TEST(one_that_comes_back_is_known_by_its_socket),
		TEST(one_that_does_not_end_is_waited_for_as_long_as_was_said),
		TEST(no_time_at_all_is_a_look),
		TEST(who_does_not_say_how_long_is_patient),
		TEST(calls_under_way_are_forgotten_with_the_methods),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
