/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Copyright (C) 2026 the rbdcrypt-nbd authors */

#ifndef RBDCRYPT_TESTS_UNIT_LUKS_FILE_H
#define RBDCRYPT_TESTS_UNIT_LUKS_FILE_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "luks.h"

/*
 * A LUKS image in a file, made by the cryptsetup program, for tests that run in a
 * folder of their own. What goes wrong fails the test.
 */
#define LUKS_FILE "image"
#define LUKS_FILE_FIRST "first.key" /* LUKS_FILE_PASS */
#define LUKS_FILE_SECOND "second.key" /* LUKS_FILE_ODD_PASS */
#define LUKS_FILE_LOCK "lock" /* free for the test's use */

#define LUKS_FILE_PASS "correct horse"
#define LUKS_FILE_ODD_PASS "nul\0and\nnewline\n"

/* Options of luksFormat and luksAddKey that make them fast. */
#define LUKS_FILE_FAST1 "--pbkdf-force-iterations 1000 "
#define LUKS_FILE_FAST2 "--pbkdf pbkdf2 --pbkdf-force-iterations 1000 "
#define LUKS_FILE_ARGON2 "--pbkdf-memory 8192 --pbkdf-parallel 4 --pbkdf-force-iterations 4 "

#define VOLUME "volume.key"

/* Set-up and teardown: an empty folder, and its end. */
static inline int luks_file_enter(void **state)
{
	char *folder = strdup("/tmp/rbdcrypt-luks-XXXXXX");

	*state = folder;
	return folder && mkdtemp(folder) && chdir(folder) == 0 ? 0 : -1;
}

static inline int luks_file_leave(void **state)
{
	static const char *const files[] = { LUKS_FILE, LUKS_FILE_FIRST, LUKS_FILE_SECOND,
					     VOLUME,	LUKS_FILE_LOCK,	 "log" };
	char *folder = *state;
	int r;

	for (size_t i = 0; i < sizeof(files) / sizeof(files[0]); i++)
		(void)unlink(files[i]);
	r = chdir("/") == 0 && rmdir(folder) == 0 ? 0 : -1;
	free(folder);
	return r;
}

static inline void luks_file_write(const char *name, const void *bytes, size_t len)
{
	int fd = open(name, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);

	assert_true(fd >= 0);
	assert_int_equal(write(fd, bytes, len), (ssize_t)len);
	close(fd);
}

/* An empty image of that many bytes, and the two key files. */
static inline void luks_file_make(uint64_t size)
{
	luks_file_write(LUKS_FILE, "", 0);
	assert_int_equal(truncate(LUKS_FILE, (off_t)size), 0);
	luks_file_write(LUKS_FILE_FIRST, LUKS_FILE_PASS, sizeof(LUKS_FILE_PASS) - 1);
	luks_file_write(LUKS_FILE_SECOND, LUKS_FILE_ODD_PASS, sizeof(LUKS_FILE_ODD_PASS) - 1);
}

/* A shell command; its output is shown when it fails. */
static inline void luks_file_run(const char *fmt, ...) __attribute__((format(printf, 1, 2)));
static inline void luks_file_run(const char *fmt, ...)
{
	char command[1024], whole[1100];
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(command, sizeof(command), fmt, ap);
	va_end(ap);
	snprintf(whole, sizeof(whole),
		 "PATH=$PATH:/usr/sbin:/sbin; %s >log 2>&1 || { cat log; false; }", command);
	if (system(whole) != 0)
		fail_msg("%s", command);
}

/* Overwrites a part of the image. */
static inline void luks_file_patch(uint64_t off, const void *bytes, size_t len)
{
	int fd = open(LUKS_FILE, O_WRONLY | O_CLOEXEC);

	assert_true(fd >= 0);
	assert_int_equal(pwrite(fd, bytes, len, (off_t)off), (ssize_t)len);
	close(fd);
}

/* For luks_header_load(); arg is an int *, the descriptor. */
static inline int luks_file_read(void *arg, uint64_t off, void *buf, size_t len)
{
	return pread(*(int *)arg, buf, len, (off_t)off) == (ssize_t)len ? 0 : -EIO;
}

static inline int luks_file_load(uint64_t stripe_period, struct luks_header **ret, struct fault *f)
{
	struct luks_limits limits;
	struct stat st;
	int fd = open(LUKS_FILE, O_RDONLY | O_CLOEXEC);
	int r;

	assert_true(fd >= 0);
	assert_int_equal(fstat(fd, &st), 0);
	luks_limits_default(&limits);
	r = luks_header_load(luks_file_read, &fd, (uint64_t)st.st_size, stripe_period, &limits, ret,
			     f);
	close(fd);
	return r;
}

/* Must load. */
static inline struct luks_header *luks_file_loaded(void)
{
	struct luks_header *h = NULL;
	struct fault f = { 0 };

	if (luks_file_load(0, &h, &f) < 0)
		fail_msg("%s", f.message);
	return h;
}

/* Secrets, owned by the caller. */
static inline struct secret *luks_file_secret(const void *bytes, size_t len)
{
	struct secret *s;

	assert_int_equal(secret_new(len, &s), 0);
	memcpy(secret_data(s), bytes, len);
	return s;
}

static inline struct secret *luks_file_pass(void)
{
	return luks_file_secret(LUKS_FILE_PASS, sizeof(LUKS_FILE_PASS) - 1);
}

static inline struct secret *luks_file_odd_pass(void)
{
	return luks_file_secret(LUKS_FILE_ODD_PASS, sizeof(LUKS_FILE_ODD_PASS) - 1);
}

/* luks_unlock(), which takes the passphrase, and the rules for what it leaves. */
static inline int luks_file_unlock(const struct luks_header *h, struct secret *passphrase,
				   const struct luks_limits *limits, struct secret **ret_key,
				   int *ret_slot, struct fault *f)
{
	int r;

	*ret_key = NULL;
	r = luks_unlock(h, passphrase, limits, ret_key, ret_slot, f);
	secret_free(passphrase);
	if (r < 0) {
		assert_null(*ret_key);
		assert_int_equal(f->error, r);
		assert_int_not_equal(f->message[0], 0);
	}
	return r;
}

/* The key must be the volume key as cryptsetup says, opened with keyfile. */
static inline void luks_file_check_key(const struct secret *key, const char *keyfile)
{
	struct secret *expected;
	int fd;

	(void)unlink(VOLUME);
	luks_file_run("cryptsetup luksDump -q --dump-volume-key --volume-key-file " VOLUME
		      " --key-file %s " LUKS_FILE,
		      keyfile);
	fd = open(VOLUME, O_RDONLY | O_CLOEXEC);
	assert_true(fd >= 0);
	assert_int_equal(secret_read_fd(fd, 64, NULL, NULL, &expected), 0);
	close(fd);
	assert_true(secret_equal(key, expected));
	secret_free(expected);
}

#endif
