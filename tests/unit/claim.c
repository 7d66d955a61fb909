/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Copyright (C) 2026 the rbdcrypt-nbd authors */

/* Which clients of dead owners have to be shut out before an image is written, by real state files.
 */

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "../../daemon/claim.h"
#include "state_dir.h"

#define DEAD "10.0.0.1:0/1"
#define OTHER "10.0.0.1:0/2"

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

/* The file of an owner that is gone. */
static void leave(const char *image_id, enum volume_status status, const char *client)
{
	struct volume_state v;

	fill_image(&v, image_id);
	v.status = status;
	strcpy(v.client, client);
	(void)state_release(claim(image_id, &v), /* is_removed */ false);
}

static const char *dead_client_of(const char *image_id)
{
	static struct volume_state mine;

	fill_image(&mine, image_id);
	strcpy(mine.dead_client, "a leftover");
	claim_dead_client(dir, &mine);
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

int main(void)
{
	const struct CMUnitTest tests[] = {
#define T(test) cmocka_unit_test_setup_teardown(test, setup, teardown)
		T(the_client_of_a_dead_owner_is_to_be_shut_out),
		T(one_that_ended_in_order_is_not),
		T(nor_is_one_that_lives_for_another_volume),
		T(each_volume_of_a_dead_daemon_shuts_its_client_out),
		T(who_died_before_it_was_done_passes_it_on),
		T(readers_shut_nobody_out),
#undef T
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
