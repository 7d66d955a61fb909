/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Copyright (C) 2026 the rbdcrypt-nbd authors */

/* What becomes of the pieces of a read: each with the key of its layer, and no more than is seen.
 */

#include "../../daemon/volume.h"

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#define LEN 32768u
#define START 65536u

struct fixture {
	struct volume v;
	struct xts *keys[3]; /* sectors of 512 and 4096 bytes; the third layer is plaintext */
	struct store_io io;
	unsigned char buf[LEN], plain[LEN];
};

static int setup(void **state)
{
	struct fixture *fx = calloc(1, sizeof(*fx));

	assert_non_null(fx);
	for (unsigned int i = 0; i < 2; i++) {
		struct secret *key;

		assert_int_equal(secret_new(64, &key), 0);
		for (unsigned int j = 0; j < 64; j++)
			secret_data(key)[j] = (unsigned char)(j * 3 + i);
		assert_int_equal(xts_new_take(XTS_AUTO, &key, i == 0 ? 512 : 4096, &fx->keys[i]),
				 0);
	}
	fx->v.xts = fx->keys;
	fx->v.n_layers = 3;
	fx->v.is_encrypted = true;
	fx->v.sector = 4096;
	for (unsigned int i = 0; i < LEN; i++)
		fx->plain[i] = (unsigned char)(i / 7 + 1);
	*state = fx;
	return 0;
}

static int teardown(void **state)
{
	struct fixture *fx = *state;

	store_io_reset(&fx->io);
	xts_free(fx->keys[0]);
	xts_free(fx->keys[1]);
	free(fx);
	return 0;
}

/* The piece that begins where the last one ended, len bytes; held of them are in the buffer. */
static void add(struct fixture *fx, uint64_t len, uint64_t held, uint16_t layer)
{
	struct store_extent *last = fx->io.n_extents ? &fx->io.extents[fx->io.n_extents - 1] : NULL;
	uint64_t at = last ? last->dev_off + last->len : START;

	assert_int_equal(store_io_add(&fx->io, at, len, layer, false), 0);
	if (layer == STORE_LAYER_ZERO)
		return;
	memcpy(fx->buf + (at - START), fx->plain + (at - START), held);
	if (fx->keys[layer])
		assert_int_equal(xts_encrypt(fx->keys[layer], fx->buf + (at - START), held, at), 0);
}

static int decrypt(struct fixture *fx, uint64_t from, uint64_t to)
{
	return volume_decrypt(&fx->v, &fx->io, fx->buf + from, START + from, START + to);
}

static void each_piece_has_its_own_key(void **state)
{
	struct fixture *fx = *state;

	add(fx, 8192, 8192, 0);
	add(fx, 8192, 8192, 1);
	add(fx, 8192, 8192, STORE_LAYER_ZERO);
	add(fx, 8192, 8192, 2);
	assert_int_equal(decrypt(fx, 0, LEN), 0);
	memset(fx->plain + 16384, 0, 8192);
	assert_memory_equal(fx->buf, fx->plain, LEN);
}

/* The overlap ends inside a sector, and the workers' shares inside the piece. */
static void a_sector_that_is_seen_in_part_is_zeros_behind_it(void **state)
{
	const uint64_t seen[] = { 1, 511, 512, 513, 4095, 4096, 4097, 12287, 20000 };

	for (uint16_t layer = 0; layer < 2; layer++)
		for (unsigned int i = 0; i < sizeof(seen) / sizeof(seen[0]); i++) {
			struct fixture *fx = *state;
			uint64_t sector = xts_sector_size(fx->keys[layer]);
			unsigned char want[LEN] = { 0 };

			store_io_reset(&fx->io);
			memset(fx->buf, 0, LEN);
			add(fx, seen[i], (seen[i] + sector - 1) / sector * sector, layer);
			add(fx, LEN - seen[i], 0, STORE_LAYER_ZERO);
			for (uint64_t at = 0; at < LEN; at += 8192)
				assert_int_equal(decrypt(fx, at, at + 8192), 0);
			memcpy(want, fx->plain, seen[i]);
			assert_memory_equal(fx->buf, want, LEN);
		}
}

static void a_part_of_the_read_can_be_asked_for(void **state)
{
	struct fixture *fx = *state;

	add(fx, LEN, LEN, 1);
	assert_int_equal(decrypt(fx, 8192, 12288), 0);
	assert_memory_equal(fx->buf + 8192, fx->plain + 8192, 4096);
	assert_memory_not_equal(fx->buf + 12288, fx->plain + 12288, 4096);
	assert_memory_not_equal(fx->buf, fx->plain, 4096);
}

static void a_piece_that_begins_inside_a_sector_is_an_error(void **state)
{
	struct fixture *fx = *state;

	add(fx, 512, 512, 0);
	assert_int_equal(store_io_add(&fx->io, START + 512, 4096, 1, false), 0);
	assert_int_equal(decrypt(fx, 0, 8192), -EINVAL);
}

#define test(f) cmocka_unit_test_setup_teardown(f, setup, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		test(each_piece_has_its_own_key),
		test(a_sector_that_is_seen_in_part_is_zeros_behind_it),
		test(a_part_of_the_read_can_be_asked_for),
		test(a_piece_that_begins_inside_a_sector_is_an_error),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
