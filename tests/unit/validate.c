/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Copyright (C) 2026 the rbdcrypt-nbd authors */

/* The door: which requests pass, and what the others are told. */

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "../../daemon/request.h"
#include "../../daemon/validate.h"

#define SIZE (100ull << 20)
#define ALL                                                                                        \
	(WIRE_FLAG_HAS_FLAGS | WIRE_FLAG_SEND_FLUSH | WIRE_FLAG_SEND_FUA | WIRE_FLAG_SEND_TRIM |   \
	 WIRE_FLAG_SEND_WRITE_ZEROES | WIRE_FLAG_SEND_FAST_ZERO)

static int judge_for(struct volume *v, struct wire_session s, uint16_t type, uint16_t flags,
		     uint64_t off, uint32_t len)
{
	const struct wire_request w = { .type = type, .flags = flags, .offset = off, .len = len };

	atomic_store(&v->size, SIZE);
	return validate_request(v, &s, &w);
}

static int judge(uint16_t type, uint16_t flags, uint64_t off, uint32_t len)
{
	struct volume v = { .sector = 4096 };
	struct wire_session s = { .flags = ALL, .has_structured = true, .has_status = true };

	return judge_for(&v, s, type, flags, off, len);
}

static void each_command_takes_its_own_flags_only(void **state)
{
	static const struct {
		uint16_t type, flags;
	} legal[] = {
		{ WIRE_READ, WIRE_CMD_FUA | WIRE_CMD_DF },
		{ WIRE_WRITE, WIRE_CMD_FUA },
		{ WIRE_FLUSH, WIRE_CMD_FUA },
		{ WIRE_TRIM, WIRE_CMD_FUA },
		{ WIRE_WRITE_ZEROES, WIRE_CMD_FUA | WIRE_CMD_NO_HOLE | WIRE_CMD_FAST_ZERO },
		{ WIRE_BLOCK_STATUS, WIRE_CMD_FUA | WIRE_CMD_REQ_ONE },
	};

	for (unsigned int i = 0; i < sizeof(legal) / sizeof(legal[0]); i++) {
		uint32_t len = legal[i].type == WIRE_FLUSH ? 0 : 1;

		for (uint32_t flags = 0; flags <= UINT16_MAX; flags++)
			assert_int_equal(judge(legal[i].type, (uint16_t)flags, 0, len),
					 flags & ~(uint32_t)legal[i].flags ? -EINVAL : 0);
	}
}

static void what_was_not_announced_is_refused(void **state)
{
	struct volume v = { .sector = 1 };
	struct wire_session bare = { .flags = WIRE_FLAG_HAS_FLAGS };

	assert_int_equal(judge_for(&v, bare, WIRE_READ, 0, 0, 1), 0);
	assert_int_equal(judge_for(&v, bare, WIRE_READ, WIRE_CMD_FUA, 0, 1), -EINVAL);
	assert_int_equal(judge_for(&v, bare, WIRE_READ, WIRE_CMD_DF, 0, 1), -EINVAL);
	assert_int_equal(judge_for(&v, bare, WIRE_WRITE, WIRE_CMD_FUA, 0, 1), -EINVAL);
	assert_int_equal(judge_for(&v, bare, WIRE_TRIM, 0, 0, 1), -EINVAL);
	assert_int_equal(judge_for(&v, bare, WIRE_WRITE_ZEROES, 0, 0, 1), -EINVAL);
	assert_int_equal(judge_for(&v, bare, WIRE_BLOCK_STATUS, 0, 0, 1), -EINVAL);
	for (uint32_t type = WIRE_BLOCK_STATUS + 1; type <= UINT16_MAX; type++)
		assert_int_equal(judge((uint16_t)type, 0, 0, 1), -EINVAL);
	assert_int_equal(judge(WIRE_CACHE, 0, 0, 1), -EINVAL);
	assert_int_equal(judge(WIRE_DISC, 0, 0, 1), -EINVAL);
}

static void nothing_beyond_the_end_passes(void **state)
{
	static const uint16_t types[] = { WIRE_READ, WIRE_WRITE, WIRE_TRIM, WIRE_WRITE_ZEROES,
					  WIRE_BLOCK_STATUS };

	for (unsigned int i = 0; i < sizeof(types) / sizeof(types[0]); i++) {
		int error = types[i] == WIRE_READ || types[i] == WIRE_BLOCK_STATUS ? -EINVAL
										   : -ENOSPC;

		assert_int_equal(judge(types[i], 0, SIZE - 1, 1), 0);
		assert_int_equal(judge(types[i], 0, SIZE - 1, 2), error);
		assert_int_equal(judge(types[i], 0, SIZE, 1), error);
		assert_int_equal(judge(types[i], 0, UINT64_MAX, 1), error);
		/* offset + length wraps to a small number. */
		assert_int_equal(judge(types[i], 0, UINT64_MAX - 99, 200), error);
		assert_int_equal(judge(types[i], 0, 1, UINT32_MAX), error);
		assert_int_equal(judge(types[i], 0, 0, 0), -EINVAL);
	}
}

static void payloads_are_limited_and_ranges_without_one_are_not(void **state)
{
	assert_int_equal(judge(WIRE_READ, 0, 0, WIRE_MAX_PAYLOAD), 0);
	assert_int_equal(judge(WIRE_WRITE, 0, 7, WIRE_MAX_PAYLOAD), 0);
	assert_int_equal(judge(WIRE_READ, 0, 0, WIRE_MAX_PAYLOAD + 1), -EOVERFLOW);
	assert_int_equal(judge(WIRE_WRITE, 0, 0, WIRE_MAX_PAYLOAD + 1), -EINVAL);
	assert_int_equal(judge(WIRE_WRITE_ZEROES, 0, 0, SIZE), 0);
	assert_int_equal(judge(WIRE_TRIM, 0, 0, SIZE), 0);
}

static void a_read_only_device_says_so_first(void **state)
{
	struct volume v = { .is_read_only = true };
	struct wire_session s = { .flags = WIRE_FLAG_HAS_FLAGS };

	assert_int_equal(judge_for(&v, s, WIRE_WRITE, WIRE_CMD_FUA, SIZE, 1), -EPERM);
	assert_int_equal(judge_for(&v, s, WIRE_TRIM, 0, 0, 0), -EPERM);
	assert_int_equal(judge_for(&v, s, WIRE_WRITE_ZEROES, 0, 0, 1), -EPERM);
	assert_int_equal(judge_for(&v, s, WIRE_READ, 0, 0, 1), 0);
	assert_int_equal(judge_for(&v, s, WIRE_FLUSH, 0, 0, 0), 0);
	assert_int_equal(judge_for(&v, s, WIRE_FLUSH, 0, 1, 0), -EINVAL);
	assert_int_equal(judge_for(&v, s, WIRE_FLUSH, 0, 0, 1), -EINVAL);
}

/* Whatever passes has its memory: a window of whole sectors, and two more where it has edges. */
static void what_passes_fits_in_the_largest_buffer(void **state)
{
	static const uint32_t sectors[] = { 1, 512, 1024, 2048, 4096 };

	for (unsigned int i = 0; i < 5; i++) {
		struct volume v = { .sector = sectors[i], .is_encrypted = sectors[i] > 1 };

		for (unsigned int n = 0; n < 3; n++) {
			uint64_t off = n ? 4095 + n : 0;
			const struct wire_request write = { .type = WIRE_WRITE,
							    .offset = off,
							    .len = WIRE_MAX_PAYLOAD };
			const struct wire_request zero = { .type = WIRE_WRITE_ZEROES,
							   .offset = off,
							   .len = SIZE - 8192 };
			struct wire_request read = write;

			read.type = WIRE_READ;
			assert_in_range(request_memory(&v, &read), WIRE_MAX_PAYLOAD,
					BUFFERS_LARGEST);
			assert_in_range(request_memory(&v, &write), WIRE_MAX_PAYLOAD,
					BUFFERS_LARGEST);
			assert_in_range(request_memory(&v, &zero), 0, 1 << 20);
		}
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(each_command_takes_its_own_flags_only),
		cmocka_unit_test(what_was_not_announced_is_refused),
		cmocka_unit_test(nothing_beyond_the_end_passes),
		cmocka_unit_test(payloads_are_limited_and_ranges_without_one_are_not),
		cmocka_unit_test(a_read_only_device_says_so_first),
		cmocka_unit_test(what_passes_fits_in_the_largest_buffer),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
