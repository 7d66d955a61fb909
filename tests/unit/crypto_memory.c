// SPDX-License-Identifier: GPL-2.0-or-later
// Copyright (C) 2026 the rbdcrypt-nbd authors

/*
 * crypto/ without memory: each allocation fails once in its turn, those inside
 * OpenSSL included where keys are made. The result is an error and never a crash.
 * Where headers are read only our own allocations fail: json-c 0.16 itself does
 * not survive a name that it cannot copy. Run it under valgrind to see that
 * nothing stays allocated.
 */

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <errno.h>
#include <fcntl.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "luks.h"
#include "sanitized.h"
#include "secret.h"
#include "xts.h"

static long fails_at = -1; /* the allocation that fails; below zero: none */
static long calls;
static bool only_ours; /* not those of libraries */

#if !IS_SANITIZED
/* glibc's own, under the names it offers to replacements. */
void *__libc_malloc(size_t len);
void *__libc_calloc(size_t n, size_t len);
void *__libc_realloc(void *p, size_t len);

/* Of this program's code. */
extern char __executable_start, etext;

static bool fails_now(const void *caller)
{
	const char *c = caller;

	if (only_ours && (c < &__executable_start || c >= &etext))
		return false;
	return calls++ == fails_at;
}

void *malloc(size_t len)
{
	return fails_now(__builtin_return_address(0)) ? NULL : __libc_malloc(len);
}

void *calloc(size_t n, size_t len)
{
	return fails_now(__builtin_return_address(0)) ? NULL : __libc_calloc(n, len);
}

void *realloc(void *p, size_t len)
{
	return fails_now(__builtin_return_address(0)) ? NULL : __libc_realloc(p, len);
}
#endif

/* Lets every allocation of fn fail in turn, until it works. Returns how many there were. */
static long sweep(int (*fn)(void *arg), void *arg)
{
	/* What OpenSSL sets up once for the process fails for good if it fails. */
	assert_int_equal(fn(arg), 0);
	for (long i = 0;; i++) {
		int r;

		calls = 0;
		fails_at = i;
		r = fn(arg);
		fails_at = -1;
		if (calls <= i) {
			assert_int_equal(r, 0);
			return i;
		}
		/* Libraries do without some of it (a cache, a message). */
		if (r != 0 && r != -ENOMEM && r != -EIO && r != -EBADMSG)
			fail_msg("allocation %ld: %d", i, r);
	}
}

/* ---- headers ---- */

struct image {
	int fd;
	uint64_t size;
};

static int image_read(void *arg, uint64_t off, void *buf, size_t len)
{
	const struct image *image = arg;

	return pread(image->fd, buf, len, (off_t)off) == (ssize_t)len ? 0 : -EIO;
}

static int load(void *arg)
{
	struct image *image = arg;
	struct luks_header *h = NULL;
	struct luks_limits limits;
	struct fault f = { 0 };
	int r;

	luks_limits_default(&limits);
	r = luks_header_load(image_read, image, image->size, 0, &limits, &h, &f);
	if (r < 0) {
		assert_null(h);
		assert_int_equal(f.error, r);
	}
	luks_header_free(h);
	return r;
}

static void headers_load_or_say_why(void **state)
{
	static const char *const scripts[] = { "good-luks1", "good-luks2", "good-luks2-rbdl",
					       "good-luks2-first-copy-damaged" };

	if (IS_SANITIZED)
		skip();
	for (size_t i = 0; i < sizeof(scripts) / sizeof(scripts[0]); i++) {
		char path[] = "/tmp/rbdcrypt-memory-XXXXXX", command[256];
		int fd = mkstemp(path);
		struct image image;
		struct stat st;

		assert_true(fd >= 0);
		snprintf(command, sizeof(command), "python3 -B tests/evil/%s.py %s >/dev/null",
			 scripts[i], path);
		assert_int_equal(system(command), 0);
		assert_int_equal(fstat(fd, &st), 0);
		unlink(path);
		image.fd = fd;
		image.size = (uint64_t)st.st_size;
		only_ours = true;
		assert_true(sweep(load, &image) >= 3);
		only_ours = false;
		close(fd);
	}
}

/* ---- keys ---- */

static int make_xts(void *arg)
{
	struct secret *key = NULL, *copy = NULL;
	struct xts *x = NULL;
	int r;

	r = secret_new(64, &key);
	if (r < 0)
		return r;
	for (int i = 0; i < 64; i++)
		secret_data(key)[i] = (unsigned char)i;
	r = secret_copy(key, &copy);
	if (r == 0)
		r = xts_new_take(XTS_AUTO, &key, 512, &x);
	/* Whoever has it, it is freed once. */
	assert_true((r == 0) == (key == NULL));
	xts_free(x);
	secret_free(key);
	secret_free(copy);
	return r;
}

static void keys_are_made_or_refused(void **state)
{
	if (IS_SANITIZED)
		skip();
	assert_true(sweep(make_xts, NULL) > 5);
}

static int read_pipe(void *arg)
{
	static const char bytes[10000];
	struct secret *s = NULL;
	int fds[2], r;

	if (pipe(fds) < 0)
		return -EIO;
	assert_int_equal(write(fds[1], bytes, sizeof(bytes)), sizeof(bytes));
	close(fds[1]);
	r = secret_read_fd(fds[0], SECRET_MAX, NULL, NULL, &s);
	close(fds[0]);
	assert_true((r == 0) == (s != NULL));
	secret_free(s);
	return r;
}

static void passphrases_are_read_or_refused(void **state)
{
	if (IS_SANITIZED)
		skip();
	assert_true(sweep(read_pipe, NULL) >= 2);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(headers_load_or_say_why),
		cmocka_unit_test(keys_are_made_or_refused),
		cmocka_unit_test(passphrases_are_read_or_refused),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
