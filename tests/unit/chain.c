/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Copyright (C) 2026 the rbdcrypt-nbd authors */

/*
 * Where passphrases meet headers, on an image in a file. The walk up a hierarchy needs Ceph and is
 * tested in tests/ceph and tests/bad; what is decided about one is tested here on layers by hand.
 */

#include "luks_file.h"

#include "../../daemon/chain.h"
#include "../../rbd/layer.h"

#include <sys/syscall.h>

#define SIZE (20u << 20)

/* ---- the kernel, which fails when it is told to ---- */

static int read_error;

ssize_t pread(int fd, void *buf, size_t len, off_t off)
{
	if (!read_error)
		return syscall(SYS_pread64, fd, buf, len, off);
	errno = read_error;
	return -1;
}

/* ---- claims ---- */

struct setup {
	char *files[3], *formats[2];
	struct option_list file_list, format_list;
	struct image_spec spec;
	struct chain_options o;
};

static void set_up(struct setup *s, enum newline_policy newline, const char *file,
		   const char *format)
{
	memset(s, 0, sizeof(*s));
	s->spec = (struct image_spec)IMAGE_SPEC_INIT;
	s->spec.is_file = true;
	s->spec.image = (char *)(uintptr_t)LUKS_FILE;
	s->files[0] = s->files[1] = (char *)(uintptr_t)file;
	s->formats[0] = (char *)(uintptr_t)format;
	s->file_list = (struct option_list){ .items = s->files, .n = file ? 1 : 0 };
	s->format_list = (struct option_list){ .items = s->formats, .n = format ? 1 : 0 };
	s->o = (struct chain_options){ .spec = &s->spec,
				       .passphrase_files = &s->file_list,
				       .formats = &s->format_list,
				       .newline = newline };
	luks_limits_default(&s->o.limits);
}

static void format_image(const char *options)
{
	luks_file_make(SIZE);
	luks_file_run("cryptsetup luksFormat -q %s --key-file " LUKS_FILE_FIRST " " LUKS_FILE,
		      options);
}
#define LUKS2 "--type luks2 " LUKS_FILE_FAST2
#define LUKS1 "--type luks1 " LUKS_FILE_FAST1

static void opens_with_the_key_of_its_header(void **state)
{
	struct setup s;
	struct chain c = { 0 };
	struct fault f = { 0 };

	format_image(LUKS2 "--sector-size 4096");
	set_up(&s, NEWLINE_AUTO, LUKS_FILE_FIRST, "luks2");
	assert_int_equal(chain_open(&s.o, &c, &f), 0);
	assert_int_equal(c.n, 1);
	assert_true(c.layers[0].is_encrypted);
	assert_null(c.xts);
	assert_int_equal(chain_data_offset(&c), 16 << 20);
	assert_int_equal(chain_unlock(&s.o, &c, &f), 0);
	assert_int_equal(xts_sector_size(c.xts[0]), 4096);
	luks_file_check_key(xts_key(c.xts[0]), LUKS_FILE_FIRST);
	assert_false(chain_needs_rados(&s.o, &c, false));
	assert_int_equal(c.layers[0].keyslot, 0);
	chain_done(&c);
	chain_done(&c);
}

/* A failure has its status and words, and keeps nothing. */
static void expect_refusal(const struct setup *s, int error, enum exit_status status,
			   const char *words)
{
	struct chain c = { 0 };
	struct fault f = { 0 };
	int r = chain_open(&s->o, &c, &f);

	if (r == 0) {
		r = chain_unlock(&s->o, &c, &f);
		assert_null(c.xts);
		chain_done(&c);
	}
	assert_int_equal(r, error);
	assert_int_equal(f.error, error);
	assert_int_equal(f.status, status);
	if (!strstr(f.message, words))
		fail_msg("%s", f.message);
	assert_null(c.layers);
}

static void what_does_not_fit_is_explained(void **state)
{
	struct setup s;

	format_image(LUKS1);
	set_up(&s, NEWLINE_AUTO, LUKS_FILE_SECOND, NULL);
	expect_refusal(&s, -EPERM, EXIT_PASSPHRASE,
		       "No key available with the passphrase in second");
	set_up(&s, NEWLINE_AUTO, LUKS_FILE_FIRST, "luks2");
	expect_refusal(&s, -EINVAL, EXIT_HEADER, "is luks1, but encryption-format=luks2");
	set_up(&s, NEWLINE_AUTO, "missing", NULL);
	expect_refusal(&s, -ENOENT, EXIT_PASSPHRASE, "missing");
	set_up(&s, NEWLINE_AUTO, LUKS_FILE_FIRST, NULL);
	s.file_list.n = 2;
	expect_refusal(&s, -EINVAL, EXIT_USAGE, "2 passphrase files were given, but");
	luks_file_make(SIZE);
	set_up(&s, NEWLINE_AUTO, LUKS_FILE_FIRST, NULL);
	expect_refusal(&s, -EINVAL, EXIT_HEADER, "has no LUKS header");
	assert_int_equal(unlink(LUKS_FILE), 0);
	expect_refusal(&s, -ENOENT, EXIT_NOT_FOUND, LUKS_FILE);
}

static int try_newline(enum newline_policy newline)
{
	struct setup s;
	struct chain c = { 0 };
	struct fault f = { 0 };
	int r;

	set_up(&s, newline, LUKS_FILE_FIRST, NULL);
	assert_int_equal(chain_open(&s.o, &c, &f), 0);
	r = chain_unlock(&s.o, &c, &f);
	if (r == 0)
		assert_non_null(c.xts);
	chain_done(&c);
	return r;
}

static void a_final_newline_is_tried_as_the_policy_says(void **state)
{
	format_image(LUKS2);
	/* Made without it, given with it. */
	luks_file_write(LUKS_FILE_FIRST, LUKS_FILE_PASS "\n", sizeof(LUKS_FILE_PASS));
	assert_int_equal(try_newline(NEWLINE_AUTO), 0);
	assert_int_equal(try_newline(NEWLINE_STRIP), 0);
	assert_int_equal(try_newline(NEWLINE_KEEP), -EPERM);
	/* Made with it. */
	luks_file_run("cryptsetup luksFormat -q " LUKS2 "--key-file " LUKS_FILE_FIRST
		      " " LUKS_FILE);
	assert_int_equal(try_newline(NEWLINE_AUTO), 0);
	assert_int_equal(try_newline(NEWLINE_STRIP), -EPERM);
	assert_int_equal(try_newline(NEWLINE_KEEP), 0);
}

static void without_passphrases_the_raw_image_is_meant(void **state)
{
	struct setup s;
	struct chain c = { 0 };
	struct fault f = { 0 };

	format_image(LUKS1);
	set_up(&s, NEWLINE_AUTO, NULL, NULL);
	assert_int_equal(chain_open(&s.o, &c, &f), 0);
	assert_true(c.has_raw_header);
	assert_false(c.layers[0].is_encrypted);
	assert_int_equal(chain_data_offset(&c), 0);
	assert_int_equal(chain_unlock(&s.o, &c, &f), 0);
	assert_null(c.xts);
	assert_false(chain_needs_rados(&s.o, &c, false));
	chain_done(&c);
	luks_file_make(SIZE);
	assert_int_equal(chain_open(&s.o, &c, &f), 0);
	assert_false(c.has_raw_header);
	chain_done(&c);
	/* Too small for any header. */
	assert_int_equal(truncate(LUKS_FILE, 512), 0);
	assert_int_equal(chain_open(&s.o, &c, &f), 0);
	assert_false(c.has_raw_header);
	chain_done(&c);
}

/* Or an encrypted image would become a raw one that can be written. */
static void what_cannot_be_read_has_no_missing_header(void **state)
{
	struct setup s;

	(void)state;
	format_image(LUKS2);
	for (unsigned int i = 0; i < 2; i++) {
		set_up(&s, NEWLINE_AUTO, i == 0 ? NULL : LUKS_FILE_FIRST, NULL);
		read_error = EIO;
		expect_refusal(&s, -EIO, EXIT_CLUSTER, "cannot");
		/* To readers of headers it would say that there is none. */
		read_error = ENODATA;
		expect_refusal(&s, i == 0 ? -ENODATA : -EIO, EXIT_CLUSTER, "cannot");
		read_error = 0;
	}
	set_up(&s, NEWLINE_AUTO, NULL, NULL);
	read_error = ETIMEDOUT;
	expect_refusal(&s, -ETIMEDOUT, EXIT_TIMED_OUT, "its first bytes cannot be read");
	read_error = 0;
}

/* Between the reading of a header and its use somebody may think about a passphrase. */
static void a_header_that_is_another_one_by_now_is_noticed(void **state)
{
	struct setup s;
	struct chain c = { 0 };
	struct fault f = { 0 };

	(void)state;
	format_image(LUKS2);
	set_up(&s, NEWLINE_AUTO, LUKS_FILE_FIRST, NULL);
	assert_int_equal(chain_open(&s.o, &c, &f), 0);
	assert_int_equal(chain_check_headers(&s.o, &c, &f), 0);
	luks_file_run("cryptsetup luksFormat -q " LUKS2 "--key-file " LUKS_FILE_FIRST
		      " " LUKS_FILE);
	assert_int_equal(chain_check_headers(&s.o, &c, &f), -ESTALE);
	assert_int_equal(f.status, EXIT_SAFEGUARD);
	assert_non_null(strstr(f.message, "layer 1: file:"));
	fault_clear(&f);
	luks_file_make(SIZE);
	assert_int_equal(chain_check_headers(&s.o, &c, &f), -ESTALE);
	chain_done(&c);
}

/* ---- layers by hand ---- */

static struct xts *key_of(unsigned char first)
{
	unsigned char bytes[64];
	struct secret *key;
	struct xts *x = NULL;

	for (unsigned int i = 0; i < sizeof(bytes); i++)
		bytes[i] = (unsigned char)(first + i);
	key = luks_file_secret(bytes, sizeof(bytes));
	assert_int_equal(xts_new_take(XTS_AUTO, &key, 4096, &x), 0);
	return x;
}

/* n layers with the same key, as an image with 4 MiB objects and its heirs would be. */
static void make_heirs(struct setup *s, struct chain *c, unsigned int n)
{
	struct fault f = { 0 };

	c->layers = calloc(n, sizeof(*c->layers));
	assert_non_null(c->layers);
	c->n = n;
	for (unsigned int i = 0; i < n; i++) {
		struct chain_layer *l = &c->layers[i];

		assert_int_equal(layer_open(NULL, &s->spec, 0, NULL, &l->layer, &f), 0);
		l->layer->info.raw_size = SIZE;
		l->layer->info.raw_overlap = i + 1 < n ? SIZE : 0;
		l->layer->info.object_size = l->layer->info.stripe_period = 4 << 20;
		l->layer->info.features = IMAGE_FEATURE_EXCLUSIVE_LOCK;
		l->is_encrypted = true;
		l->luks.data_offset = 4 << 20;
		l->luks.sector_size = 4096;
	}
}

/* Copied up from further than one layer away, holes would be noise to others. */
static void heirs_of_heirs_are_written_by_ourselves(void **state)
{
	struct setup s;
	struct chain c = { 0 };
	struct layer_info *child;

	luks_file_make(SIZE);
	set_up(&s, NEWLINE_AUTO, LUKS_FILE_FIRST, NULL);
	make_heirs(&s, &c, 3);
	child = &c.layers[0].layer->info;
	assert_true(chain_needs_rados(&s.o, &c, false));
	assert_false(chain_needs_rados(&s.o, &c, true));
	s.o.store = STORE_LIBRBD;
	assert_false(chain_needs_rados(&s.o, &c, false));
	s.o.store = STORE_AUTO;
	/* But where that would be refused, librbd does it. */
	child->features = 0;
	assert_false(chain_needs_rados(&s.o, &c, false));
	s.o.is_without_lock = true;
	assert_true(chain_needs_rados(&s.o, &c, false));
	child->stripe_period *= 2;
	assert_false(chain_needs_rados(&s.o, &c, false));
	child->stripe_period = child->object_size;
	for (unsigned int i = 0; i < 3; i++)
		c.layers[i].luks.data_offset = 2 << 20;
	assert_false(chain_needs_rados(&s.o, &c, false));
	chain_done(&c);
}

static void a_view_that_ends_in_a_sector_is_read_by_ourselves(void **state)
{
	struct setup s;
	struct chain c = { 0 };

	luks_file_make(SIZE);
	set_up(&s, NEWLINE_AUTO, LUKS_FILE_FIRST, NULL);
	make_heirs(&s, &c, 2);
	assert_false(chain_needs_rados(&s.o, &c, false));
	c.layers[0].layer->info.raw_overlap = SIZE - 512;
	assert_true(chain_needs_rados(&s.o, &c, false));
	assert_true(chain_needs_rados(&s.o, &c, true));
	/* Nor does librbd do it where we would refuse: what it reads and writes there is wrong. */
	c.layers[0].layer->info.features = 0;
	assert_true(chain_needs_rados(&s.o, &c, false));
	assert_string_equal(chain_difference(&c, 0), "ends for its clone inside a sector");
	c.layers[0].luks.sector_size = c.layers[1].luks.sector_size = 512;
	assert_false(chain_needs_rados(&s.o, &c, true));
	/* The parent may be the shorter one. */
	c.layers[1].layer->info.raw_size = SIZE - 700;
	assert_true(chain_needs_rados(&s.o, &c, true));
	/* Nothing but headers is seen. */
	c.layers[0].layer->info.raw_overlap = 700;
	assert_false(chain_needs_rados(&s.o, &c, true));
	chain_done(&c);
}

/* Clone and parent, each with a key (0: plaintext). */
static void make_pair(struct setup *s, struct chain *c, unsigned char child, unsigned char parent)
{
	struct fault f = { 0 };

	c->layers = calloc(2, sizeof(*c->layers));
	c->xts = calloc(2, sizeof(*c->xts));
	assert_true(c->layers && c->xts);
	c->n = 2;
	for (unsigned int i = 0; i < 2; i++) {
		struct chain_layer *l = &c->layers[i];
		unsigned char key = i == 0 ? child : parent;

		assert_int_equal(layer_open(NULL, &s->spec, 0, NULL, &l->layer, &f), 0);
		l->is_encrypted = key != 0;
		l->luks.data_offset = 1 << 20;
		l->luks.sector_size = 4096;
		if (key)
			c->xts[i] = key_of(key);
	}
}

static void expect_flat(unsigned char child, unsigned char parent, uint64_t parent_offset,
			const char *words)
{
	struct setup s;
	struct chain c = { 0 };
	const char *why;

	set_up(&s, NEWLINE_AUTO, LUKS_FILE_FIRST, NULL);
	make_pair(&s, &c, child, parent);
	c.layers[1].luks.data_offset = parent_offset;
	why = chain_difference(&c, 0);
	assert_int_equal(why != NULL, words != NULL);
	if (words)
		assert_non_null(strstr(why, words));
	chain_done(&c);
}

static void a_clone_that_only_inherits_is_flat(void **state)
{
	luks_file_make(SIZE);
	expect_flat(7, 7, 1 << 20, NULL);
	expect_flat(0, 0, 0, NULL);
	expect_flat(7, 8, 1 << 20, "another volume key");
	expect_flat(7, 0, 0, "plaintext under an encrypted clone");
	expect_flat(7, 7, 2 << 20, "another data offset");
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, luks_file_enter, luks_file_leave)

int main(int argc, char **argv)
{
	const struct CMUnitTest tests[] = {
		TEST(opens_with_the_key_of_its_header),
		TEST(what_does_not_fit_is_explained),
		TEST(a_final_newline_is_tried_as_the_policy_says),
		TEST(without_passphrases_the_raw_image_is_meant),
		TEST(what_cannot_be_read_has_no_missing_header),
		TEST(a_header_that_is_another_one_by_now_is_noticed),
		TEST(a_clone_that_only_inherits_is_flat),
		TEST(heirs_of_heirs_are_written_by_ourselves),
		TEST(a_view_that_ends_in_a_sector_is_read_by_ourselves),
	};

	luks_unlock_child_main(argc, argv);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
