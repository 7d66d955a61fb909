// SPDX-License-Identifier: GPL-2.0-or-later
// Copyright (C) 2026 the rbdcrypt-nbd authors

/*
 * Headers that other programs really made: what we read out of them, and that the
 * unlock gives the volume key that cryptsetup itself says it is. Needs the
 * cryptsetup program, but no root and no device mapper.
 */

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "luks_file.h"

#define MIB ((uint64_t)1 << 20)

static void opens(struct secret *passphrase, const char *keyfile, int slot)
{
	struct luks_header *h = luks_file_loaded();
	struct luks_limits limits;
	struct fault f = { 0 };
	struct secret *key;
	int ret_slot = -1;

	luks_limits_default(&limits);
	if (luks_file_unlock(h, passphrase, &limits, &key, &ret_slot, &f) < 0)
		fail_msg("%s", f.message);
	assert_int_equal(ret_slot, slot);
	assert_int_equal(secret_len(key), luks_header_info(h)->key_bytes);
	luks_file_check_key(key, keyfile);
	secret_free(key);
	luks_header_free(h);
}

static void is_refused(struct secret *passphrase)
{
	struct luks_header *h = luks_file_loaded();
	struct luks_limits limits;
	struct fault f = { 0 };
	struct secret *key;

	luks_limits_default(&limits);
	assert_int_equal(luks_file_unlock(h, passphrase, &limits, &key, NULL, &f), -EPERM);
	assert_int_equal(f.status, EXIT_PASSPHRASE);
	luks_header_free(h);
}

/* Puts Ceph's magics over the image, as "rbd encryption format" does on a clone. */
static void make_clone_magic(int version)
{
	luks_file_patch(0, "RBDL", 4);
	if (version == 2)
		luks_file_patch(16384, "LDBR", 4);
}

static void luks1_of_either_key_length_opens(void **state)
{
	static const unsigned int bits[] = { 256, 512 };

	for (size_t i = 0; i < 2; i++) {
		struct luks_header *h;

		luks_file_make(8 * MIB);
		luks_file_run("cryptsetup luksFormat -q --type luks1 " LUKS_FILE_FAST1
			      "--key-size %u --key-file " LUKS_FILE_FIRST " " LUKS_FILE,
			      bits[i]);
		h = luks_file_loaded();
		assert_int_equal(luks_header_info(h)->version, 1);
		assert_int_equal(luks_header_info(h)->key_bytes, bits[i] / 8);
		assert_int_equal(luks_header_info(h)->sector_size, 512);
		assert_int_equal(luks_header_info(h)->keyslots, 1);
		assert_false(luks_header_info(h)->is_clone_magic);
		luks_header_free(h);
		opens(luks_file_pass(), LUKS_FILE_FIRST, 0);
		is_refused(luks_file_odd_pass());
	}
}

static void luks2_of_every_size_opens(void **state)
{
	static const unsigned int bits[] = { 256, 512 }, sectors[] = { 512, 1024, 2048, 4096 };

	for (size_t i = 0; i < 8; i++) {
		struct luks_header *h;

		luks_file_make(20 * MIB);
		luks_file_run("cryptsetup luksFormat -q --type luks2 " LUKS_FILE_FAST2
			      "--key-size %u --sector-size %u --key-file " LUKS_FILE_FIRST
			      " " LUKS_FILE,
			      bits[i / 4], sectors[i % 4]);
		h = luks_file_loaded();
		assert_int_equal(luks_header_info(h)->version, 2);
		assert_int_equal(luks_header_info(h)->data_offset, 16 * MIB);
		assert_int_equal(luks_header_info(h)->key_bytes, bits[i / 4] / 8);
		assert_int_equal(luks_header_info(h)->sector_size, sectors[i % 4]);
		luks_header_free(h);
		opens(luks_file_pass(), LUKS_FILE_FIRST, 0);
	}
	is_refused(luks_file_odd_pass());
}

static void argon2_with_threads_opens(void **state)
{
	static const char *const kinds[] = { "argon2i", "argon2id" };

	for (size_t i = 0; i < 2; i++) {
		luks_file_make(20 * MIB);
		luks_file_run("cryptsetup luksFormat -q --type luks2 --pbkdf %s " LUKS_FILE_ARGON2
			      "--key-file " LUKS_FILE_FIRST " " LUKS_FILE,
			      kinds[i]);
		opens(luks_file_pass(), LUKS_FILE_FIRST, 0);
		is_refused(luks_file_odd_pass());
	}
}

static void any_keyslot_and_any_byte_in_a_passphrase(void **state)
{
	static const char *const types[] = { "luks1", "luks2" };

	for (size_t i = 0; i < 2; i++) {
		const char *cost = i ? LUKS_FILE_FAST2 : LUKS_FILE_FAST1;

		luks_file_make(20 * MIB);
		luks_file_run("cryptsetup luksFormat -q --type %s %s --key-file " LUKS_FILE_FIRST
			      " " LUKS_FILE,
			      types[i], cost);
		luks_file_run("cryptsetup luksAddKey -q %s --key-slot 7 --key-file " LUKS_FILE_FIRST
			      " " LUKS_FILE " " LUKS_FILE_SECOND,
			      cost);
		opens(luks_file_pass(), LUKS_FILE_FIRST, 0);
		opens(luks_file_odd_pass(), LUKS_FILE_SECOND, 7);
		/* The bytes before the NUL, and those before the last newline, are not it. */
		is_refused(luks_file_secret(LUKS_FILE_ODD_PASS, 3));
		is_refused(luks_file_secret(LUKS_FILE_ODD_PASS, sizeof(LUKS_FILE_ODD_PASS) - 2));
		luks_file_run("cryptsetup luksKillSlot -q --key-file " LUKS_FILE_SECOND
			      " " LUKS_FILE " 0");
		opens(luks_file_odd_pass(), LUKS_FILE_SECOND, 7);
		is_refused(luks_file_pass());
	}
}

static void passphrase_larger_than_a_socket_buffer(void **state)
{
	const size_t len = 2 << 20;
	char *bytes = malloc(len);

	for (size_t i = 0; i < len; i++)
		bytes[i] = (char)(i * 7);
	luks_file_make(20 * MIB);
	luks_file_write(LUKS_FILE_FIRST, bytes, len);
	luks_file_run("cryptsetup luksFormat -q --type luks2 " LUKS_FILE_FAST2
		      "--key-file " LUKS_FILE_FIRST " " LUKS_FILE);
	opens(luks_file_secret(bytes, len), LUKS_FILE_FIRST, 0);
	is_refused(luks_file_secret(bytes, len - 1));
	free(bytes);
}

static void clone_magics_are_understood_and_digested_as_stored(void **state)
{
	static const char *const types[] = { "luks1", "luks2" };

	for (int i = 0; i < 2; i++) {
		struct luks_header *h, *clone;
		struct luks_limits limits;
		struct fault f = { 0 };
		struct secret *key, *again;

		luks_limits_default(&limits);
		luks_file_make(20 * MIB);
		luks_file_run("cryptsetup luksFormat -q --type %s %s --key-file " LUKS_FILE_FIRST
			      " " LUKS_FILE,
			      types[i], i ? LUKS_FILE_FAST2 : LUKS_FILE_FAST1);
		h = luks_file_loaded();
		make_clone_magic(i + 1);
		clone = luks_file_loaded();
		assert_true(luks_header_info(clone)->is_clone_magic);
		assert_false(luks_header_info(h)->is_clone_magic);
		assert_string_equal(luks_header_info(clone)->uuid, luks_header_info(h)->uuid);
		assert_memory_not_equal(luks_header_info(clone)->digest,
					luks_header_info(h)->digest, 32);
		assert_int_equal(luks_file_unlock(h, luks_file_pass(), &limits, &key, NULL, &f), 0);
		assert_int_equal(
			luks_file_unlock(clone, luks_file_pass(), &limits, &again, NULL, &f), 0);
		assert_true(secret_equal(key, again));
		secret_free(key);
		secret_free(again);
		luks_header_free(h);
		luks_header_free(clone);
	}
}

static void one_damaged_copy_still_opens(void **state)
{
	static const off_t places[] = { 5000, 16384 + 5000, 16384 };

	for (size_t i = 0; i < 3; i++) {
		struct luks_header *h;
		struct luks_limits limits;
		struct fault f = { 0 };
		struct secret *key;

		luks_limits_default(&limits);
		luks_file_make(20 * MIB);
		luks_file_run("cryptsetup luksFormat -q --type luks2 " LUKS_FILE_FAST2
			      "--key-file " LUKS_FILE_FIRST " " LUKS_FILE);
		luks_file_patch((uint64_t)places[i], "XXXX", 4);
		h = luks_file_loaded();
		if (luks_file_unlock(h, luks_file_pass(), &limits, &key, NULL, &f) < 0)
			fail_msg("%s", f.message);
		luks_file_check_key(key, LUKS_FILE_FIRST);
		secret_free(key);
		luks_header_free(h);
	}
}

static void larger_metadata_and_other_offsets_open(void **state)
{
	luks_file_make(80 * MIB);
	luks_file_run(
		"cryptsetup luksFormat -q --type luks2 " LUKS_FILE_FAST2
		"--luks2-metadata-size 4m --luks2-keyslots-size 8m --key-file " LUKS_FILE_FIRST
		" " LUKS_FILE);
	opens(luks_file_pass(), LUKS_FILE_FIRST, 0);
	luks_file_run("cryptsetup luksFormat -q --type luks2 " LUKS_FILE_FAST2
		      "--align-payload 131072"
		      " --key-file " LUKS_FILE_FIRST " " LUKS_FILE);
	opens(luks_file_pass(), LUKS_FILE_FIRST, 0);
}

static void stripe_period_is_demanded_when_given(void **state)
{
	struct luks_header *h = NULL;
	struct fault f = { 0 };

	luks_file_make(20 * MIB);
	luks_file_run("cryptsetup luksFormat -q --type luks1 " LUKS_FILE_FAST1
		      "--key-file " LUKS_FILE_FIRST " " LUKS_FILE);
	assert_int_equal(luks_file_load(4 * MIB, &h, &f), -EINVAL);
	assert_int_equal(f.status, EXIT_HEADER);
	assert_non_null(strstr(f.message, "stripe period 4194304"));
	assert_int_equal(luks_file_load(2 * MIB, &h, NULL), 0);
	luks_header_free(h);
}

static void reencryption_under_way_is_refused(void **state)
{
	struct luks_header *h = NULL;
	struct fault f = { 0 };

	luks_file_make(40 * MIB);
	luks_file_run("cryptsetup luksFormat -q --type luks2 " LUKS_FILE_FAST2
		      "--key-file " LUKS_FILE_FIRST " " LUKS_FILE);
	luks_file_run(
		"cryptsetup reencrypt -q --init-only --force-offline-reencrypt " LUKS_FILE_FAST2
		"--key-file " LUKS_FILE_FIRST " " LUKS_FILE);
	assert_int_equal(luks_file_load(0, &h, &f), -ENOTSUP);
	assert_int_equal(f.status, EXIT_HEADER);
	assert_non_null(strstr(f.message, "reencrypt"));
}

/* An image that is different each time it is read. */
static int changing_read(void *arg, uint64_t off, void *buf, size_t len)
{
	int r = luks_file_read(arg, off, buf, len);

	/* The size that the header claims, but only where all of it is read. */
	if (r == 0 && len > 4096)
		((unsigned char *)buf)[13] ^= 0x40;
	return r;
}

static void header_that_changes_under_us_is_damaged(void **state)
{
	struct luks_header *h = NULL;
	struct luks_limits limits;
	struct fault f = { 0 };
	int fd;

	luks_file_make(20 * MIB);
	luks_file_run("cryptsetup luksFormat -q --type luks2 " LUKS_FILE_FAST2
		      "--key-file " LUKS_FILE_FIRST " " LUKS_FILE);
	fd = open(LUKS_FILE, O_RDONLY | O_CLOEXEC);
	luks_limits_default(&limits);
	assert_int_equal(luks_header_load(changing_read, &fd, 20 * MIB, 0, &limits, &h, &f),
			 -EBADMSG);
	close(fd);
	assert_null(h);
	assert_int_equal(f.status, EXIT_HEADER);
}

static void headers_of_qemu_open(void **state)
{
	static const char *const algorithms[] = { "aes-128", "aes-256" };

	if (system("qemu-img --version >/dev/null 2>&1") != 0)
		skip();
	for (int i = 0; i < 2; i++) {
		luks_file_make(0);
		/* On a busy machine it may be "Unable to get accurate CPU usage". */
		luks_file_run(
			"for i in 1 2 3 4 5; do "
			"qemu-img create -q -f luks --object secret,id=s,file=" LUKS_FILE_FIRST
			" -o key-secret=s,iter-time=10,cipher-alg=%s " LUKS_FILE " 4M"
			" && break; done",
			algorithms[i]);
		opens(luks_file_pass(), LUKS_FILE_FIRST, 0);
		is_refused(luks_file_odd_pass());
	}
}

static void plain_image_is_not_a_header(void **state)
{
	static const uint64_t sizes[] = { 0, 1, 7, 8, 512, 4095, 4096, 16384, 16 * MIB };
	struct luks_header *h = NULL;
	struct fault f = { 0 };

	for (size_t i = 0; i < sizeof(sizes) / sizeof(sizes[0]); i++) {
		luks_file_make(sizes[i]);
		assert_int_equal(luks_file_load(0, &h, &f), -ENODATA);
		assert_null(h);
		assert_int_equal(f.message[0], 0);
	}
	assert_null(luks_header_free(NULL));
}

static int failing_read(void *arg, uint64_t off, void *buf, size_t len)
{
	return *(const int *)arg;
}

/* Above all, no error of the cluster may look like an image without encryption. */
static void errors_of_the_read_are_errors(void **state)
{
	static const int errors[] = { -EIO, -ENODATA, -ETIMEDOUT, -EINTR, -EPERM, -ENOENT };
	struct luks_header *h = NULL;
	struct luks_limits limits;

	luks_limits_default(&limits);
	for (size_t i = 0; i < sizeof(errors) / sizeof(errors[0]); i++) {
		struct fault f = { 0 };
		int error = errors[i];

		assert_int_equal(
			luks_header_load(failing_read, &error, 1 << 20, 0, &limits, &h, &f),
			error == -ENODATA ? -EIO : error);
		assert_int_equal(f.status, error == -ETIMEDOUT || error == -EINTR ? EXIT_TIMED_OUT
										  : EXIT_CLUSTER);
		assert_null(h);
	}
}

/* A hint is typed as it stands. */
static void limits_that_refuse_say_what_would_allow_it(void **state)
{
	static const struct {
		struct luks_limits limits;
		const char *hint;
	} cases[] = {
		{ { 9, 9, 9, 9 }, "allow it with --luks-pbkdf2-iterations-max=" },
		{ { 99999999, 3, 9999, 9 }, "allow it with --luks-argon2-time-max=4" },
		{ { 99999999, 9, 9, 9 }, "allow it with --luks-argon2-memory-max=64K" },
		{ { 99999999, 9, 9999, 1 }, "allow it with --luks-argon2-lanes-max=2" },
	};

	luks_file_make(20 * MIB);
	luks_file_run("cryptsetup luksFormat -q --type luks2 --pbkdf argon2id --pbkdf-memory 64 "
		      "--pbkdf-force-iterations 4 --pbkdf-parallel 2 --key-file " LUKS_FILE_FIRST
		      " " LUKS_FILE);
	for (size_t i = 0; i < sizeof(cases) / sizeof(*cases); i++) {
		struct luks_header *h = NULL;
		struct fault f = { 0 };
		int fd = open(LUKS_FILE, O_RDONLY | O_CLOEXEC);

		assert_int_equal(luks_header_load(luks_file_read, &fd, 20 * MIB, 0,
						  &cases[i].limits, &h, &f),
				 -ENOTSUP);
		assert_non_null(strstr(f.hint, cases[i].hint));
		(void)close(fd);
	}
}

static void formats_have_names(void **state)
{
	static const char *const names[] = { "luks", "luks1", "luks2" };
	enum luks_format format;

	for (size_t i = 0; i < 3; i++) {
		assert_int_equal(luks_format_parse(names[i], &format), 0);
		assert_string_equal(luks_format_name(format), names[i]);
	}
	assert_int_equal(luks_format_parse("luks3", &format), -EINVAL);
	assert_int_equal(luks_format_parse("", &format), -EINVAL);
}

int main(int argc, char **argv)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, luks_file_enter, luks_file_leave)
	const struct CMUnitTest tests[] = {
		TEST(luks1_of_either_key_length_opens),
		TEST(luks2_of_every_size_opens),
		TEST(argon2_with_threads_opens),
		TEST(any_keyslot_and_any_byte_in_a_passphrase),
		TEST(passphrase_larger_than_a_socket_buffer),
		TEST(clone_magics_are_understood_and_digested_as_stored),
		TEST(one_damaged_copy_still_opens),
		TEST(larger_metadata_and_other_offsets_open),
		TEST(stripe_period_is_demanded_when_given),
		TEST(reencryption_under_way_is_refused),
		TEST(header_that_changes_under_us_is_damaged),
		TEST(headers_of_qemu_open),
		TEST(plain_image_is_not_a_header),
		TEST(errors_of_the_read_are_errors),
		TEST(limits_that_refuse_say_what_would_allow_it),
		TEST(formats_have_names),
	};

	luks_unlock_child_main(argc, argv);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
