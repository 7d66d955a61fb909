/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Copyright (C) 2026 the rbdcrypt-nbd authors */

/* What dead owners leave to the next, by real state files: which image it was, and which clients
 * have to be shut out before it is written. */

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "../../daemon/claim.h"
#include "state_dir.h"

#define DEAD "10.0.0.1:0/1"
#define OTHER "10.0.0.1:0/2"
#define THIRD "10.0.0.1:0/3"

static void fill_image(struct volume_state *v, const char *image_id)
{
	volume_state_init(v);
	v->status = VOLUME_MAPPED;
	strcpy(v->pool, "rbd");
	strcpy(v->image, image_id);
	strcpy(v->fsid, "c0ffee00-1111-2222-3333-444444444444");
	strcpy(v->image_id, image_id);
	v->pool_id = 2;
}

/* The file of an owner that is gone, of one of several mappings of an image. */
static void leave_as(const char *key, const char *image_id, enum volume_status status,
		     const char *client)
{
	struct volume_state v;

	fill_image(&v, image_id);
	v.status = status;
	strcpy(v.client, client);
	(void)state_release(claim(key, &v), /* is_removed */ false);
}

static void leave(const char *image_id, enum volume_status status, const char *client)
{
	leave_as(image_id, image_id, status, client);
}

static const char *dead_client_of(const char *image_id)
{
	static struct volume_state mine;

	fill_image(&mine, image_id);
	strcpy(mine.dead_client, "a leftover");
	(void)claim_dead_client(dir, &mine);
	return mine.dead_client;
}

static void the_client_of_a_dead_owner_is_to_be_shut_out(void **state)
{
	leave("a", VOLUME_MAPPED, DEAD);
	leave("b", VOLUME_SERVING, OTHER);
	leave("c", VOLUME_STARTING, OTHER);
	assert_string_equal(dead_client_of("a"), DEAD);
	assert_string_equal(dead_client_of("b"), OTHER);
	assert_string_equal(dead_client_of("c"), OTHER);
	assert_string_equal(dead_client_of("d"), "");
}

static void one_that_ended_in_order_is_not(void **state)
{
	leave("a", VOLUME_DETACHED, DEAD);
	leave("b", VOLUME_MAPPED, "");
	assert_string_equal(dead_client_of("a"), "");
	assert_string_equal(dead_client_of("b"), "");
}

static void nor_is_one_that_lives_for_another_volume(void **state)
{
	struct volume_state v;
	struct state *s;

	leave("a", VOLUME_MAPPED, DEAD);
	fill_image(&v, "b");
	strcpy(v.client, DEAD);
	s = claim("b", &v);
	assert_string_equal(dead_client_of("a"), "");
	(void)state_release(s, true);
	assert_string_equal(dead_client_of("a"), DEAD);
}

/* The volumes of a daemon that was killed start together, and the first is not done when the second
 * looks. */
static void each_volume_of_a_dead_daemon_shuts_its_client_out(void **state)
{
	struct volume_state v;
	struct state *s;

	leave("a", VOLUME_MAPPED, DEAD);
	leave("b", VOLUME_MAPPED, DEAD);
	fill_image(&v, "a");
	v.status = VOLUME_STARTING;
	claim_dead_client(dir, &v);
	assert_string_equal(v.dead_client, DEAD);
	s = claim("a", &v);
	assert_string_equal(dead_client_of("b"), DEAD);
	(void)state_release(s, true);
}

static void who_died_before_it_was_done_passes_it_on(void **state)
{
	struct volume_state v;

	leave("a", VOLUME_MAPPED, DEAD);
	fill_image(&v, "a");
	v.status = VOLUME_STARTING;
	claim_dead_client(dir, &v);
	(void)state_release(claim("a", &v), false);
	assert_string_equal(dead_client_of("a"), DEAD);
	/* And so does one that gave the device back. */
	v.status = VOLUME_DETACHED;
	(void)state_release(claim("a", &v), false);
	assert_string_equal(dead_client_of("a"), DEAD);
}

static void readers_shut_nobody_out(void **state)
{
	struct volume_state v;

	leave("a", VOLUME_MAPPED, DEAD);
	fill_image(&v, "a");
	v.is_read_only = true;
	claim_dead_client(dir, &v);
	assert_string_equal(v.dead_client, "");
}

/* ---- whose state file is gone ---- */

/* As unmap does, after an owner was killed. */
static void unmap_dead(const char *key)
{
	assert_int_equal(claim_remove_dead(dir, key), 0);
}

static unsigned int n_files(const char *suffix)
{
	DIR *d = opendir(dir);
	struct dirent *e;
	unsigned int n = 0;

	while ((e = readdir(d)))
		n += strstr(e->d_name, suffix) != NULL;
	(void)closedir(d);
	return n;
}

static void whoever_was_unmapped_is_still_to_be_shut_out(void **state)
{
	struct volume_state v;

	leave("a", VOLUME_MAPPED, DEAD);
	leave("b", VOLUME_MAPPED, OTHER);
	unmap_dead("a");
	assert_int_equal(n_files(".json"), 1);
	assert_string_equal(dead_client_of("a"), DEAD);
	assert_string_equal(dead_client_of("b"), OTHER);
	/* Until somebody has done it. */
	fill_image(&v, "a");
	/* A start that fails has nothing to give back. */
	assert_false(claim_dead_client(dir, &v));
	claim_client_fenced(dir, &v, DEAD);
	assert_string_equal(v.dead_client, "");
	assert_string_equal(dead_client_of("a"), "");
	assert_int_equal(n_files(".client"), 0);
}

static void the_next_one_on_a_device_forgets_nobody(void **state)
{
	struct volume_state v;

	fill_image(&v, "a");
	strcpy(v.client, DEAD);
	v.device = 3;
	(void)state_release(claim("a", &v), false);
	claim_forget(dir, 3);
	assert_int_equal(n_files(".json"), 0);
	assert_string_equal(dead_client_of("a"), DEAD);
	/* Again: it is known already. */
	(void)state_release(claim("a", &v), false);
	claim_forget(dir, 3);
	assert_string_equal(dead_client_of("a"), DEAD);
	assert_int_equal(n_files(".client"), 1);
}

static void who_left_nobody_leaves_no_file(void **state)
{
	leave("a", VOLUME_DETACHED, DEAD);
	leave("b", VOLUME_MAPPED, "");
	unmap_dead("a");
	unmap_dead("b");
	assert_int_equal(n_files(".client") + n_files(".json"), 0);
}

static void of_several_all_are_to_be_shut_out(void **state)
{
	struct volume_state v;

	leave_as("a#1", "a", VOLUME_MAPPED, DEAD);
	leave_as("a#2", "a", VOLUME_MAPPED, OTHER);
	leave_as("a#3", "a", VOLUME_MAPPED, DEAD);
	leave_as("a#4", "a", VOLUME_MAPPED, THIRD);
	unmap_dead("a#4");
	fill_image(&v, "a");
	strcpy(v.key, "a");
	assert_false(claim_dead_client(dir, &v));
	assert_string_equal(v.dead_client, DEAD " " OTHER " " THIRD);
	claim_client_fenced(dir, &v, DEAD);
	claim_client_fenced(dir, &v, OTHER);
	assert_string_equal(v.dead_client, THIRD);
	claim_client_fenced(dir, &v, THIRD);
	assert_string_equal(v.dead_client, "");
	assert_int_equal(n_files(".client"), 0);
}

/* What its own file said, a start that fails has to say again, of all of them. */
static void all_of_several_are_passed_on(void **state)
{
	struct volume_state v;

	leave("a", VOLUME_MAPPED, DEAD);
	leave_as("a#2", "a", VOLUME_MAPPED, OTHER);
	fill_image(&v, "a");
	strcpy(v.key, "a");
	assert_true(claim_dead_client(dir, &v));
	(void)state_release(claim("a", &v), false);
	unmap_dead("a");
	unmap_dead("a#2");
	assert_string_equal(dead_client_of("b"), "");
	assert_int_equal(strlen(dead_client_of("a")), strlen(DEAD " " OTHER));
}

/* A reader's file is never another's. What somebody waits for, or has to know, is kept. */
static void what_nobody_needs_is_tidied_away(void **state)
{
	struct volume_state v;
	struct state *s;

	leave_as("a#1", "a", VOLUME_SERVING, "");
	leave_as("a#2", "a", VOLUME_STARTING, "");
	leave_as("a#3", "a", VOLUME_SERVING, DEAD);
	fill_image(&v, "b");
	v.is_hosted = true;
	v.request = (char[]){ "{}" };
	(void)state_release(claim("b", &v), false);
	fill_image(&v, "c");
	v.device = 3;
	(void)state_release(claim("c", &v), false);
	fill_image(&v, "d");
	s = claim("d", &v);
	claim_tidy(dir);
	assert_int_equal(n_files(".json"), 4);
	assert_int_equal(n_files("a%231") + n_files("a%232"), 0);
	(void)state_release(s, true);
}

/* ---- which image it was ---- */

static void leave_volume(const char *key, const char *image_id, int device, const char *cookie)
{
	struct volume_state v;

	fill_image(&v, image_id);
	strcpy(v.image, "its name");
	v.device = device;
	strcpy(v.cookie, cookie);
	if (device < 0)
		strcpy(v.socket, "/run/a");
	(void)state_release(claim(key, &v), /* is_removed */ false);
}

static void what_was_served_is_known_by_its_ids(void **state)
{
	struct layer_info i;

	leave_volume("a", "id a", -1, "");
	leave_volume("b", "id b", 3, "cookie b");
	leave_volume("c", "id c", 4, "cookie c");
	assert_true(claim_image_left(dir, "a", &i));
	assert_string_equal(i.image_id, "id a");
	assert_string_equal(i.image, "its name");
	assert_string_equal(i.spec, "rbd/its name");
	assert_int_equal(i.pool_id, 2);
	assert_true(i.snap_id == UINT64_MAX);
	assert_true(claim_image_left(dir, "c", &i));
	assert_string_equal(i.image_id, "id c");
	assert_false(claim_image_left(dir, "d", &i));
}

static void fill_header(struct volume_state *v, const char *uuid)
{
	static struct layer_state layer;

	strcpy(layer.format, "luks2");
	(void)snprintf(layer.uuid, sizeof(layer.uuid), "%s", uuid);
	v->layers = &layer;
	v->n_layers = 1;
}

static void leave_socket(const char *image_id, const char *uuid)
{
	struct volume_state v;

	fill_image(&v, image_id);
	fill_header(&v, uuid);
	strcpy(v.socket, "/run/a");
	(void)state_release(claim("a", &v), /* is_removed */ false);
}

static int check_socket(const char *image_id, const char *uuid)
{
	struct volume_state mine;

	fill_image(&mine, image_id);
	fill_header(&mine, uuid);
	strcpy(mine.key, "a");
	fault_clear(&f);
	return claim_check_socket(dir, &mine, &f);
}

static void clients_of_a_socket_get_no_other_bytes(void **state)
{
	assert_int_equal(check_socket("a", "1"), 0);
	leave_socket("a", "1");
	assert_int_equal(check_socket("a", "1"), 0);
	assert_int_equal(check_socket("b", "1"), -EINVAL);
	assert_int_equal(f.status, EXIT_NOT_FOUND);
	assert_non_null(strstr(f.message, "/run/a served another image"));
	assert_int_equal(check_socket("a", "2"), -EINVAL);
	assert_int_equal(f.status, EXIT_SAFEGUARD);
}

/* Half a file, of one that died while it wrote it, or of somebody else. */
static void files_that_say_nothing_are_passed_over(void **state)
{
	make_file("x.client", "c0ffee00-1111-2222-3333-444444444444/2/a\n" DEAD);
	make_file("y.client", "");
	make_file("z.client", "c0ffee00-1111-2222-3333-444444444444/2/ab\n" DEAD "\n");
	assert_string_equal(dead_client_of("a"), "");
	assert_string_equal(dead_client_of("ab"), DEAD);
}

/* Which of two files it is may be the last letter of a long path. */
static void long_paths_are_told_apart(void **state)
{
	static struct volume_state one, other;
	char id[CLAIM_IDENTITY_LEN], other_id[CLAIM_IDENTITY_LEN];

	volume_state_init(&one);
	memset(one.file, 'd', 1000);
	other = one;
	claim_identity(&one, id, sizeof(id));
	claim_identity(&other, other_id, sizeof(other_id));
	assert_string_equal(id, other_id);
	assert_int_equal(strlen(id), sizeof(id) - 1);
	other.file[999] = 'e';
	claim_identity(&other, other_id, sizeof(other_id));
	assert_string_not_equal(id, other_id);
	strcpy(one.file, "/disk");
	claim_identity(&one, id, sizeof(id));
	assert_string_equal(id, "file:/disk");
}

int main(void)
{
	const struct CMUnitTest tests[] = {
#define T(test) cmocka_unit_test_setup_teardown(test, setup, teardown)
		T(long_paths_are_told_apart),
		T(the_client_of_a_dead_owner_is_to_be_shut_out),
		T(one_that_ended_in_order_is_not),
		T(nor_is_one_that_lives_for_another_volume),
		T(each_volume_of_a_dead_daemon_shuts_its_client_out),
		T(who_died_before_it_was_done_passes_it_on),
		T(readers_shut_nobody_out),
		T(whoever_was_unmapped_is_still_to_be_shut_out),
		T(the_next_one_on_a_device_forgets_nobody),
		T(who_left_nobody_leaves_no_file),
		T(of_several_all_are_to_be_shut_out),
		T(all_of_several_are_passed_on),
		T(what_nobody_needs_is_tidied_away),
		T(what_was_served_is_known_by_its_ids),
		T(clients_of_a_socket_get_no_other_bytes),
		T(files_that_say_nothing_are_passed_over),
#undef T
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
