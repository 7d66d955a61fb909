/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Copyright (C) 2026 the rbdcrypt-nbd authors */

/* Opening clusters, layers and the librbd store, with a librbd that fails on demand. */

#include "image_fixture.h"

#include "clock.h"

/* Opens everything that there is, on a clone. */
static int open_everything(struct fault *f)
{
	const struct store_options o = { .is_exclusive = true, .timeout_s = 60 };
	struct layer *parent = NULL;
	int r;

	fake.has_parent = true;
	r = new_cluster(60, f);
	if (r == 0)
		r = open_layer("img@snap", 60, f);
	fx.layer = layer_close(fx.layer);
	fake.has_parent = true;
	if (r == 0)
		r = open_layer("img", 60, f);
	if (r == 0)
		r = open_store(&o, f);
	fake.has_parent = true;
	if (r == 0)
		r = layer_open_parent(fx.layer, &parent, f);
	layer_close(parent);
	return r;
}

static void every_failure_of_opening_is_told_and_undone(void **state)
{
	const char *const names[] = {
		"rados_create2",
		"rados_conf_read_file",
		"rados_conf_set",
		"rados_connect",
		"rados_ioctx_create",
		"rados_ioctx_create2",
		"rados_ioctx_get_pool_name",
		"rbd_open_read_only",
		"rbd_open_by_id",
		"rbd_open_by_id_read_only",
		"rbd_snap_set",
		"rbd_snap_set_by_id",
		"rbd_get_old_format",
		"rbd_get_id",
		"rbd_get_name",
		"rbd_snap_get_id",
		"rbd_snap_get_name",
		"rbd_stat",
		"rbd_get_stripe_unit",
		"rbd_get_stripe_count",
		"rbd_get_features",
		"rbd_get_overlap",
		"rbd_get_parent",
		"rbd_config_image_list",
		"rbd_lock_acquire",
		"rbd_update_watch",
	};
	const int errors[] = { -EIO, -EPERM, -ENOENT, -ETIMEDOUT, -ENOMEM, -ESHUTDOWN, -ENOSYS };

	(void)state;
	close_all();
	for (unsigned int i = 0; i < sizeof(names) / sizeof(names[0]); i++)
		for (unsigned int e = 0; e < sizeof(errors) / sizeof(errors[0]); e++) {
			struct fault f = { 0 };
			int r;

			/* Both mean something else to these. */
			if (errors[e] == -ENOENT && (strcmp(names[i], "rbd_get_parent") == 0 ||
						     strcmp(names[i], "rados_conf_read_file") == 0))
				continue;
			fake_reset();
			make_fail(names[i], errors[e], 0);
			r = open_everything(&f);
			if (r >= 0 || !f.message[0] || f.status == EXIT_OK)
				fail_msg("%s, %d: %d '%s'", names[i], errors[e], r, f.message);
			make_fail("", 0, 0);
			close_all();
			expect_all_closed();
			assert_int_equal(fake.watches, 0);
		}
}

static void a_machine_that_has_no_more_is_no_damaged_key(void **state)
{
	const int errors[] = { -EMFILE, -ENFILE, -ENOMEM };

	(void)state;
	close_all();
	for (unsigned int i = 0; i < sizeof(errors) / sizeof(errors[0]); i++) {
		struct fault f = { 0 };

		make_fail("rados_connect", errors[i], 0);
		assert_int_equal(new_cluster(60, &f), errors[i]);
		assert_int_equal(f.status, EXIT_MEMORY);
		assert_string_equal(f.hint, "");
		fx.cluster = cluster_free(fx.cluster);
	}
}

static void slow_calls_are_given_up_and_undone_later(void **state)
{
	const char *const names[] = { "rbd_open_read_only", "rbd_stat" };

	(void)state;
	for (unsigned int i = 0; i < 2; i++) {
		struct fault f = { 0 };

		make_fail(names[i], 0, 4);
		assert_int_equal(open_layer("img", 1, &f), -ETIMEDOUT);
		assert_int_equal(f.status, EXIT_TIMED_OUT);
		make_fail("", 0, 0);
	}
	close_all();
	expect_all_closed();
}

static bool is_time(void *arg)
{
	return clock_ms() >= *(int64_t *)arg;
}

/* Whoever waits for a cluster that does not answer can be told to stop; with a time limit and
 * without one. */
static void slow_calls_are_left_by_who_is_told_to_stop(void **state)
{
	static const struct {
		const char *name;
		unsigned int timeout_s;
		bool is_of_store;
	} slow[] = {
		{ "rbd_open_read_only", 60, false },
		{ "rbd_open_read_only", 0, false },
		{ "rbd_stat", 60, false },
		{ "rbd_open_by_id", 60, true },
		{ "rbd_stat", 60, true },
		{ "rbd_update_watch", 60, true },
	};
	const struct store_options o = { .timeout_s = 60 };

	(void)state;
	for (unsigned int i = 0; i < sizeof(slow) / sizeof(slow[0]); i++) {
		int64_t start = clock_ms(), then = INT64_MAX;
		const struct interrupt interrupt = { is_time, &then };
		struct fault f = { 0 };
		int r;

		if (slow[i].is_of_store)
			assert_int_equal(open_layer_unless("img", 60, &interrupt, &f), 0);
		then = start + 300;
		make_fail(slow[i].name, 0, 4);
		r = slow[i].is_of_store
			    ? open_store(&o, &f)
			    : open_layer_unless("img", slow[i].timeout_s, &interrupt, &f);
		assert_int_equal(r, -EINTR);
		assert_int_equal(f.status, EXIT_TIMED_OUT);
		assert_non_null(strstr(f.message, "interrupted"));
		assert_true(clock_ms() - start < 3500);
		make_fail("", 0, 0);
		fx.layer = layer_close(fx.layer);
	}
	close_all();
	expect_all_closed();
	/* What the library has of a late watch. */
	free(fake.watch_arg);
}

/* Of the file, or NULL, and then of the client. */
static void expect_limits(const char *file_ops, const char *file_bytes, const char *ops,
			  const char *bytes)
{
	struct fault f = { 0 };

	close_all();
	fake_reset();
	fake.file_inflight_ops = file_ops;
	fake.file_inflight_bytes = file_bytes;
	assert_int_equal(new_cluster(60, &f), 0);
	assert_string_equal(fake.inflight_ops, ops);
	assert_string_equal(fake.inflight_bytes, bytes);
}

static void limits_of_cephs_client_are_lifted_unless_somebody_set_them(void **state)
{
	(void)state;
	expect_limits(NULL, NULL, "0", "0");
	expect_limits("24576", NULL, "24576", "0");
	expect_limits(NULL, "1073741824", "0", "1073741824");
}

static void slow_connection_is_given_up_and_undone_later(void **state)
{
	struct fault f = { 0 };

	(void)state;
	close_all();
	make_fail("rados_connect", 0, 5);
	assert_int_equal(new_cluster(1, &f), -ETIMEDOUT);
	assert_int_equal(f.status, EXIT_CLUSTER);
	close_all();
	expect_all_closed();
}

static void a_slow_watch_leaves_its_context_behind(void **state)
{
	const struct store_options o = { .timeout_s = 1 };
	struct fault f = { 0 };

	(void)state;
	assert_int_equal(open_layer("img", 60, &f), 0);
	make_fail("rbd_update_watch", 0, 4);
	assert_int_equal(open_store(&o, &f), -ETIMEDOUT);
	close_all();
	expect_all_closed();
	/* The library calls back after all. */
	fake.watch(fake.watch_arg);
	free(fake.watch_arg);
}

static void slow_close_does_not_wait(void **state)
{
	const struct store_options o = { .timeout_s = 1 };
	int64_t start;

	(void)state;
	must_open(&o);
	make_fail("rbd_close", 0, 5);
	start = clock_ms();
	store_close(fx.store);
	fx.store = NULL;
	assert_true(clock_ms() - start < 4500);
	make_fail("", 0, 0);
}

static void missing_things_are_named(void **state)
{
	const struct {
		const char *failing, *text, *message;
	} cases[] = {
		{ "rados_ioctx_create", "p/img", "no pool 'p'" },
		{ "rbd_open_read_only", "img", "no image 'img'" },
		{ "rbd_snap_set", "img@s", "no snapshot 's'" },
	};
	struct image_spec by_id = IMAGE_SPEC_INIT;
	struct fault f = { 0 };

	(void)state;
	for (unsigned int i = 0; i < 3; i++) {
		fault_clear(&f);
		make_fail(cases[i].failing, -ENOENT, 0);
		assert_int_equal(open_layer(cases[i].text, 60, &f), -ENOENT);
		assert_int_equal(f.status, EXIT_NOT_FOUND);
		assert_non_null(strstr(f.message, cases[i].message));
	}
	fault_clear(&f);
	make_fail("rbd_open_read_only", -ENOENT, 0);
	fake.has_no_namespace = true;
	assert_int_equal(open_layer("p/n/img", 60, &f), -ENOENT);
	assert_non_null(strstr(f.message, "no namespace 'n'"));
	fault_clear(&f);
	fake.has_no_namespace = false;
	fake.has_id = true;
	assert_int_equal(open_layer("img", 60, &f), -ENOENT);
	assert_non_null(strstr(f.message, "rbd/img: its parent"));
	fault_clear(&f);
	make_fail("rbd_snap_set_by_id", -ENOENT, 0);
	by_id.snap_id = 12;
	assert_int_equal(image_spec_parse("img", &by_id, &f), 0);
	assert_int_equal(layer_open(fx.cluster, &by_id, 60, NULL, &fx.layer, &f), -ENOENT);
	assert_non_null(strstr(f.message, "no snapshot with id 12"));
	image_spec_done(&by_id);
}

static void expect_refused(const char *message)
{
	struct fault f = { 0 };

	assert_int_equal(open_layer("img", 60, &f), -ENOTSUP);
	assert_int_equal(f.status, EXIT_SAFEGUARD);
	assert_non_null(strstr(f.message, message));
	assert_true(f.hint[0]);
}

static void what_cannot_be_served_is_refused(void **state)
{
	(void)state;
	fake.features = RBD_FEATURES_DEFAULT | RBD_FEATURE_JOURNALING;
	expect_refused("journaling");
	fake.features = RBD_FEATURES_DEFAULT | RBD_FEATURE_MIGRATING;
	expect_refused("migration");
	fake.features = RBD_FEATURES_DEFAULT | RBD_FEATURE_DIRTY_CACHE;
	expect_refused("persistent cache");
	fake.is_old = 1;
	expect_refused("format 1");
}

static void settings_are_refused_and_the_hint_says_whose_they_are(void **state)
{
	const char *const whose[] = { "ceph config rm client rbd_plugins",
				      "rbd config pool rm rbd rbd_plugins",
				      "rbd config image rm rbd/img rbd_plugins" };
	struct fault f = { 0 };

	(void)state;
	fake.plugins = "pwl_cache";
	for (int i = 0; i < 3; i++) {
		fault_clear(&f);
		fake.source = (rbd_config_source_t)i;
		assert_int_equal(open_layer("img", 60, &f), -ENOTSUP);
		assert_int_equal(f.status, EXIT_SAFEGUARD);
		assert_non_null(strstr(f.message, "pwl_cache"));
		assert_non_null(strstr(f.hint, whose[i]));
	}
	fake.plugins = "";
	fake.cache_mode = "rwl";
	expect_refused("rbd_persistent_cache_mode (rwl)");
}

static void a_cache_that_answers_too_early_is_refused(void **state)
{
	(void)state;
	fake.cache_policy = "writearound";
	must_open(&(const struct store_options){ .timeout_s = 60 });
	store_close(fx.store);
	fx.store = NULL;
	fx.layer = layer_close(fx.layer);
	fake.cache = "true";
	expect_refused("rbd_cache_policy (writearound)");
}

static void copy_on_read_is_told_to_who_asks(void **state)
{
	struct fault f = { 0 };

	(void)state;
	must_open(&(const struct store_options){ .timeout_s = 60 });
	assert_int_equal(layer_check_copy_on_read(fx.layer, &f), 0);
	store_close(fx.store);
	fx.store = NULL;
	fx.layer = layer_close(fx.layer);
	fake.copy_on_read = "true";
	fake.source = RBD_CONFIG_SOURCE_IMAGE;
	assert_int_equal(open_layer("img", 60, &f), 0);
	assert_int_equal(layer_check_copy_on_read(fx.layer, &f), -ENOTSUP);
	assert_int_equal(f.status, EXIT_SAFEGUARD);
	assert_non_null(strstr(f.hint, "rbd config image rm rbd/img rbd_clone_copy_on_read"));
}

static void every_reason_can_be_asked_for(void **state)
{
	struct image_spec spec = IMAGE_SPEC_INIT;
	unsigned int at = 0, n = 0;
	struct fault f = { 0 };

	(void)state;
	fake.features = RBD_FEATURES_DEFAULT | RBD_FEATURE_JOURNALING | RBD_FEATURE_MIGRATING |
			RBD_FEATURE_DIRTY_CACHE;
	fake.plugins = "pwl_cache";
	fake.cache_mode = "ssd";
	fake.cache = "true";
	fake.cache_policy = "writeback";
	assert_int_equal(image_spec_parse("rbd/img@s", &spec, &f), 0);
	assert_int_equal(layer_open_any(fx.cluster, &spec, 60, NULL, &fx.layer, &f), 0);
	for (; layer_refusal(fx.layer, &at, &f) < 0; n++) {
		/* No command changes a snapshot. */
		assert_non_null(strstr(f.message, "rbd/img@s: "));
		assert_null(strstr(f.hint, "@s"));
		fault_clear(&f);
	}
	assert_int_equal(n, 6);
	fx.layer = layer_close(fx.layer);
	/* Of the first format nothing more is asked. */
	fake.is_old = 1;
	assert_int_equal(layer_open_any(fx.cluster, &spec, 60, NULL, &fx.layer, &f), 0);
	at = 0;
	assert_int_equal(layer_refusal(fx.layer, &at, &f), -ENOTSUP);
	assert_non_null(strstr(f.message, "format 1"));
	assert_int_equal(layer_info(fx.layer)->raw_size, FAKE_SIZE);
	image_spec_done(&spec);
}

static void a_cache_means_no_writethrough(void **state)
{
	const struct store_options o = { .timeout_s = 60 };

	(void)state;
	fake.cache = "true";
	must_open(&o);
	assert_false(fx.store->is_writethrough);
	assert_false(fx.store->has_atomic_sectors);
	store_close(fx.store);
	layer_close(fx.layer);
	fake.cache = "false";
	must_open(&o);
	assert_true(fx.store->is_writethrough);
	assert_true(fx.store->has_atomic_sectors);
	assert_int_equal(fx.store->optimal_io, FAKE_OBJECT);
}

static void sectors_across_objects_are_not_atomic(void **state)
{
	const struct store_options o = { .timeout_s = 60, .data_offset = 512 };

	(void)state;
	must_open(&o);
	assert_false(fx.store->has_atomic_sectors);
}

static void who_may_not_write_still_reads(void **state)
{
	const struct store_options rw = { .timeout_s = 60 };
	const struct store_options ro = { .timeout_s = 60, .is_read_only = true };
	struct fault f = { 0 };

	(void)state;
	fake.may_not_write = true;
	assert_int_equal(open_layer("img", 60, &f), 0);
	assert_int_equal(open_store(&rw, &f), -EPERM);
	assert_int_equal(f.status, EXIT_PASSPHRASE);
	assert_int_equal(open_store(&ro, &f), 0);
	assert_int_equal(fake.watches, 0);
}

static void layers_know_their_parents(void **state)
{
	struct layer *parent = NULL;
	struct fault f = { 0 };

	(void)state;
	fake.has_parent = true;
	assert_int_equal(open_layer("img", 60, &f), 0);
	assert_true(layer_info(fx.layer)->has_parent);
	assert_int_equal(layer_info(fx.layer)->raw_overlap, FAKE_SIZE / 2);
	assert_string_equal(layer_info(fx.layer)->spec, "rbd/img");
	fake.has_parent = true;
	assert_int_equal(layer_open_parent(fx.layer, &parent, &f), 0);
	assert_string_equal(layer_info(parent)->spec, "rbd/ns/img@snap");
	assert_int_equal(layer_info(parent)->snap_id, 3);
	assert_false(layer_info(parent)->has_parent);
	layer_close(parent);
	/* A parent that is gone is damage, not the end of the chain. */
	fake.has_parent = true;
	make_fail("rbd_open_by_id_read_only", -ENOENT, 0);
	assert_int_equal(layer_open_parent(fx.layer, &parent, &f), -EIO);
}

/* By its id: rbd_open() is not asked, and its name is the one that it has now. */
static void a_layer_is_found_again_whatever_its_name_is(void **state)
{
	struct layer_info was;
	struct layer *again = NULL;
	struct fault f = { 0 };

	(void)state;
	assert_int_equal(open_layer("img", 60, &f), 0);
	was = *layer_info(fx.layer);
	(void)snprintf(was.image, sizeof(was.image), "old");
	make_fail("rbd_open_read_only", -ENOENT, 0);
	assert_int_equal(layer_open_again(fx.cluster, &was, 60, NULL, &again, &f), 0);
	assert_string_equal(layer_info(again)->spec, "rbd/img");
	assert_string_equal(layer_info(again)->image_id, was.image_id);
	layer_close(again);
	make_fail("rbd_open_by_id_read_only", -ENOENT, 0);
	assert_int_equal(layer_open_again(fx.cluster, &was, 60, NULL, &again, &f), -ENOENT);
	assert_int_equal(f.status, EXIT_NOT_FOUND);
}

static void header_reads_are_complete_or_an_error(void **state)
{
	unsigned char buf[5000];
	struct fault f = { 0 };

	(void)state;
	for (unsigned int i = 0; i < FAKE_SIZE; i++)
		fake.bytes[i] = (unsigned char)(i % 251);
	assert_int_equal(open_layer("img", 60, &f), 0);
	assert_int_equal(layer_read(fx.layer, 100, buf, sizeof(buf)), 0);
	assert_memory_equal(buf, fake.bytes + 100, sizeof(buf));
	assert_int_equal(layer_read(fx.layer, FAKE_SIZE - 10, buf, 11), -EIO);
	fake.size = 4096; /* cut short under us */
	assert_int_equal(layer_read(fx.layer, 4096, buf, 10), -EIO);
	make_fail("rbd_read", -ESHUTDOWN, 0);
	assert_int_equal(layer_read(fx.layer, 0, buf, 10), -ESHUTDOWN);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(every_failure_of_opening_is_told_and_undone),
		TEST(a_machine_that_has_no_more_is_no_damaged_key),
		TEST(slow_calls_are_given_up_and_undone_later),
		TEST(slow_calls_are_left_by_who_is_told_to_stop),
		TEST(limits_of_cephs_client_are_lifted_unless_somebody_set_them),
		TEST(slow_connection_is_given_up_and_undone_later),
		TEST(a_slow_watch_leaves_its_context_behind),
		TEST(slow_close_does_not_wait),
		TEST(missing_things_are_named),
		TEST(what_cannot_be_served_is_refused),
		TEST(settings_are_refused_and_the_hint_says_whose_they_are),
		TEST(a_cache_that_answers_too_early_is_refused),
		TEST(copy_on_read_is_told_to_who_asks),
		TEST(every_reason_can_be_asked_for),
		TEST(a_cache_means_no_writethrough),
		TEST(sectors_across_objects_are_not_atomic),
		TEST(who_may_not_write_still_reads),
		TEST(layers_know_their_parents),
		TEST(a_layer_is_found_again_whatever_its_name_is),
		TEST(header_reads_are_complete_or_an_error),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
