/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Copyright (C) 2026 the rbdcrypt-nbd authors */

/*
 * What a layered image may become while it is mapped: after each time the lock was taken and each
 * change of the header, writes are planned for what the image is now, or stopped with a reason.
 */

#include "../../rbd/layer.h"
#include "../../rbd/rados.h"

#include <errno.h>
#include <rbd/librbd.h>
#include <setjmp.h>
#include <stdarg.h>

#include "fake_osd.h"

#include <cmocka.h>

#define MIB (1u << 20)
#define HEADER_LEN 256u

static struct owner_ops ops; /* what the owner would call */
static struct rados_store *rs;
static unsigned char header[HEADER_LEN]; /* of the image */
static bool has_header; /* in an object of its own */
static char *header_to;
static size_t *header_len;
static struct {
	uint64_t seq;
	int n;
} written_with;

/* ---- the world ---- */

int owner_start(const struct owner_options *o, struct owner **ret, struct fault *f)
{
	(void)ret;
	(void)f;
	ops = o->ops;
	return 0;
}

struct owner *owner_stop(struct owner *o)
{
	assert_null(o);
	return NULL;
}

int rados_ioctx_selfmanaged_snap_set_write_ctx(rados_ioctx_t io, rados_snap_t seq,
					       rados_snap_t *snaps, int n)
{
	(void)io;
	(void)snaps;
	written_with.seq = seq;
	written_with.n = n;
	return 0;
}

void rados_read_op_read(rados_read_op_t op, uint64_t off, size_t len, char *buf, size_t *ret_len,
			int *error)
{
	(void)op;
	(void)error;
	assert_int_equal(off, 0);
	assert_int_equal(len, HEADER_LEN);
	header_to = buf;
	header_len = ret_len;
}

static int answer_header(struct fake_call *call)
{
	assert_string_equal(call->object, "prefix.0000000000000000");
	if (!has_header)
		return -ENOENT;
	memcpy(header_to, header, HEADER_LEN);
	*header_len = HEADER_LEN;
	return 0;
}

static void set_header(const char *magic, unsigned char version, unsigned char uuid)
{
	has_header = true;
	memset(header, 0, sizeof(header));
	memcpy(header, magic, 4);
	header[7] = version;
	header[168] = uuid;
}

/* ---- an image ---- */

static struct image_facts facts_of(void)
{
	return (struct image_facts){ .size = 16 * MIB,
				     .order = 20,
				     .features = RBD_FEATURE_EXCLUSIVE_LOCK,
				     .has_parent = true,
				     .parent_pool = 3,
				     .parent_id = "20",
				     .parent_snap = 4,
				     .raw_overlap = 10 * MIB };
}

static void open_image(bool has_lock)
{
	/* Only asked for a handle, which nobody here looks at. */
	static uint64_t cluster[64];
	static struct layer child;
	struct rados_layer layers[1] = { { .layer = &child } };
	struct store_options o = { .is_without_lock = !has_lock };
	struct fault f = { 0 };

	fake_reset();
	osd.answer = answer_header;
	child.info = (struct layer_info){ .spec = "rbd/child", .image_id = "10", .pool_id = 3 };
	child.info.features = has_lock ? RBD_FEATURE_EXCLUSIVE_LOCK : 0;
	rs = calloc(1, sizeof(*rs) + 2 * sizeof(rs->layers[0]));
	assert_non_null(rs);
	rs->n = 2;
	rs->parent = (struct rados_parent){ .pool = 3, .snap = 4, .id = "20" };
	rs->cluster = (struct cluster *)cluster;
	rs->base.is_encrypted = true;
	rs->base.data_offset = 2 * MIB;
	(void)snprintf(rs->nspace, sizeof(rs->nspace), "ns");
	(void)snprintf(child.info.nspace, sizeof(child.info.nspace), "ns");
	for (unsigned int i = 0; i < 2; i++) {
		rs->layers[i].layout = (struct layout){ .object_size = MIB,
							.stripe_unit = MIB,
							.stripe_count = 1 };
		rs->layers[i].place.pool_id = 3;
	}
	(void)snprintf(rs->layers[0].place.prefix, sizeof(rs->layers[0].place.prefix), "prefix");
	rs->layers[0].data_offset = 2 * MIB;
	rs->layers[1].data_offset = MIB;
	rs->layers[1].raw_size = 8 * MIB;
	set_header("RBDL", 2, 'u');
	assert_int_equal(rados_writer_open(rs, rs->cluster, layers, &o, &f), 0);
}

static void close_image(void)
{
	rados_writer_close(rs);
	free(rs);
	assert_int_equal(osd.n_ops, 0);
	assert_int_equal(osd.n_completions, 0);
	assert_int_equal(osd.n_ioctx, 0);
}

static int take(const struct image_facts *f, char why[256])
{
	struct patience p = patience_for(60, NULL);

	why[0] = '\0';
	return ops.take(ops.arg, f, "auto 7", &p, why, 256);
}

static void expect_plan(const struct image_facts *f, uint64_t overlap)
{
	char why[256];

	assert_int_equal(take(f, why), 0);
	assert_string_equal(why, "");
	assert_int_equal(rs->writer->plan.raw_size, f->size);
	assert_int_equal(rs->writer->plan.overlap, overlap);
	assert_int_equal(atomic_load(&rs->layers[0].overlap), overlap);
	assert_int_equal(atomic_load(&rs->raw_size), f->size);
	assert_int_equal(written_with.seq, f->snap_seq);
	assert_int_equal(written_with.n, f->n_snaps);
}

static void expect_refusal(const struct image_facts *f, const char *words)
{
	char why[256];

	assert_int_equal(take(f, why), -ECANCELED);
	if (!strstr(why, words))
		fail_msg("\"%s\" is not in: %s", words, why);
}

/* ---- claims ---- */

static void writes_are_planned_for_what_the_image_is_now(void **state)
{
	uint64_t snaps[] = { 9, 5 };
	struct image_facts f = facts_of();

	(void)state;
	open_image(true);
	/* Of 10 MiB two are the header; the parent has seven behind its own. */
	expect_plan(&f, 7 * MIB);
	f.snap_seq = 9;
	f.snaps = snaps;
	f.n_snaps = 2;
	expect_plan(&f, 7 * MIB);
	/* Grown, the parent is not seen any further; shrunk, it is seen less. */
	f.size = 32 * MIB;
	expect_plan(&f, 7 * MIB);
	f.size = f.raw_overlap = 5 * MIB + 512;
	expect_plan(&f, 3 * MIB + 512);
	f.raw_overlap = MIB;
	expect_plan(&f, 0);
	/* Flattened by who had the keys. */
	f.has_parent = false;
	set_header("LUKS", 2, 'u');
	expect_plan(&f, 0);
	close_image();
}

static void an_image_that_is_another_one_is_not_written(void **state)
{
	static const struct {
		uint64_t feature;
		const char *words;
	} features[] = { { RBD_FEATURE_JOURNALING, "journaling" },
			 { RBD_FEATURE_MIGRATING, "migration" },
			 { RBD_FEATURE_NON_PRIMARY, "not primary" },
			 { RBD_FEATURE_DIRTY_CACHE, "persistent cache" } };
	struct image_facts f = facts_of();

	(void)state;
	open_image(true);
	expect_plan(&f, 7 * MIB);
	for (unsigned int i = 0; i < sizeof(features) / sizeof(features[0]); i++) {
		f = facts_of();
		f.features |= features[i].feature;
		expect_refusal(&f, features[i].words);
	}
	f = facts_of();
	f.features = 0;
	expect_refusal(&f, "exclusive-lock feature was disabled");
	f = facts_of();
	f.order = 22;
	expect_refusal(&f, "object size");
	f = facts_of();
	f.size = 2 * MIB;
	expect_refusal(&f, "too small");
	assert_false(atomic_load(&rs->is_parent_lost));
	f = facts_of();
	f.parent_snap = 5;
	expect_refusal(&f, "another parent");
	f = facts_of();
	f.parent_pool = 2;
	expect_refusal(&f, "another parent");
	f = facts_of();
	(void)snprintf(f.parent_id, sizeof(f.parent_id), "21");
	expect_refusal(&f, "another parent");
	/* Nobody keeps for us what the old one has. */
	assert_true(atomic_load(&rs->is_parent_lost));
	/* What was planned before is still what is planned. */
	assert_int_equal(rs->writer->plan.raw_size, 16 * MIB);
	close_image();
}

static void another_header_stops_writes(void **state)
{
	struct image_facts f = facts_of();

	(void)state;
	open_image(true);
	expect_plan(&f, 7 * MIB);
	set_header("RBDL", 2, 'v');
	expect_refusal(&f, "header is another one");
	set_header("RBDL", 1, 'u');
	expect_refusal(&f, "header is another one");
	set_header("RBDL", 2, 'u');
	expect_plan(&f, 7 * MIB);
	/* Flattened by somebody who did not see that it is encrypted. */
	f.has_parent = false;
	expect_refusal(&f, "flattened by a client that had not loaded its encryption");
	close_image();
}

/* Of LUKS1 all that the key depends on has to stay. */
static void a_changed_luks1_header_stops_writes(void **state)
{
	struct image_facts f = facts_of();

	(void)state;
	open_image(true);
	set_header("RBDL", 1, 'u');
	expect_plan(&f, 7 * MIB);
	header[112] = 1;
	expect_refusal(&f, "header is another one");
	close_image();
}

static void an_inherited_header_is_the_parents(void **state)
{
	struct image_facts f = facts_of();

	(void)state;
	open_image(true);
	has_header = false;
	expect_plan(&f, 7 * MIB);
	close_image();
}

/* Enabled by somebody while it is mapped: the map would not know of our writes. */
static void an_object_map_without_our_lock_stops_writes(void **state)
{
	struct image_facts f = facts_of();

	(void)state;
	open_image(false);
	f.features = 0;
	expect_plan(&f, 7 * MIB);
	f.features = RBD_FEATURE_EXCLUSIVE_LOCK;
	expect_plan(&f, 7 * MIB);
	f.features |= RBD_FEATURE_OBJECT_MAP;
	expect_refusal(&f, "object-map feature was enabled");
	close_image();
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(writes_are_planned_for_what_the_image_is_now),
		cmocka_unit_test(an_image_that_is_another_one_is_not_written),
		cmocka_unit_test(another_header_stops_writes),
		cmocka_unit_test(a_changed_luks1_header_stops_writes),
		cmocka_unit_test(an_inherited_header_is_the_parents),
		cmocka_unit_test(an_object_map_without_our_lock_stops_writes),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
