// SPDX-License-Identifier: GPL-2.0-or-later
// Copyright (C) 2026 the rbdcrypt-nbd authors

/*
 * Every script in tests/evil makes one header and says what must become of it.
 * Each is one test here, named after the script; then each image is read again
 * with the reads failing one after the other.
 */

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "luks.h"

#define FOLDER "tests/evil"
#define SHARED "luks_image.py"
#define MAX_SCRIPTS 512

struct image {
	int fd;
	int fails_at; /* the read that fails, counted from 0; below zero: none */
	int reads;
};

static int image_read(void *arg, uint64_t off, void *buf, size_t len)
{
	struct image *image = arg;

	if (image->reads++ == image->fails_at)
		return -EIO;
	return pread(image->fd, buf, len, (off_t)off) == (ssize_t)len ? 0 : -ENXIO;
}

/* Runs a script; returns its image (its name is gone already) and its verdict. */
static int run_script(const char *name, char *verdict, size_t len)
{
	char path[] = "/tmp/rbdcrypt-evil-XXXXXX", command[512];
	int fd = mkstemp(path);
	FILE *f;

	assert_true(fd >= 0);
	snprintf(command, sizeof(command), "python3 -B %s/%s %s", FOLDER, name, path);
	f = popen(command, "re");
	assert_non_null(f);
	assert_non_null(fgets(verdict, (int)len, f));
	assert_int_equal(pclose(f), 0);
	verdict[strcspn(verdict, "\n")] = 0;
	/* The script wrote to the name, not to our descriptor. */
	close(fd);
	fd = open(path, O_RDONLY | O_CLOEXEC);
	assert_true(fd >= 0);
	unlink(path);
	return fd;
}

static int errno_by_name(const char *name)
{
	if (strcmp(name, "OK") == 0)
		return 0;
	if (strcmp(name, "EBADMSG") == 0)
		return -EBADMSG;
	if (strcmp(name, "ENOTSUP") == 0)
		return -ENOTSUP;
	if (strcmp(name, "EINVAL") == 0)
		return -EINVAL;
	fail_msg("a script expects %s", name);
	return 1;
}

static int load(struct image *image, struct luks_header **ret, struct fault *f)
{
	struct luks_limits limits;
	struct stat st;

	luks_limits_default(&limits);
	assert_int_equal(fstat(image->fd, &st), 0);
	image->reads = 0;
	return luks_header_load(image_read, image, (uint64_t)st.st_size, 0, &limits, ret, f);
}

static void every_read_may_fail(struct image *image)
{
	const int reads = image->reads;

	for (int i = 0; i < reads; i++) {
		struct luks_header *h = NULL;
		struct fault f = { 0 };

		image->fails_at = i;
		assert_int_equal(load(image, &h, &f), -EIO);
		assert_null(h);
		assert_int_equal(f.status, EXIT_CLUSTER);
		assert_int_equal(f.error, -EIO);
	}
}

static void verdict_holds(void **state)
{
	const char *name = *state;
	struct luks_header *h = NULL;
	struct fault f = { 0 };
	struct image image;
	char verdict[256];
	char *words;
	int expected, r;

	image.fd = run_script(name, verdict, sizeof(verdict));
	image.fails_at = -1;
	words = strchr(verdict, ' ');
	if (words)
		*words++ = 0;
	expected = errno_by_name(verdict);

	r = load(&image, &h, &f);
	if (r < 0 && getenv("SHOW"))
		print_message("%s | %s\n", f.message, f.hint);
	assert_int_equal(r, expected);
	if (expected == 0) {
		const struct luks_info *info = luks_header_info(h);

		assert_true(info->key_bytes == 32 || info->key_bytes == 64);
		assert_true(info->keyslots >= 1);
		assert_string_equal(info->cipher, "aes-xts-plain64");
		assert_string_equal(info->uuid, "d93a3a9b-1e54-415c-80de-72e8c19c614f");
		assert_int_equal(f.message[0], 0);
	} else {
		assert_null(h);
		assert_int_equal(f.status, EXIT_HEADER);
		assert_int_equal(f.error, expected);
		assert_ptr_equal(strstr(f.message, "encryption header: "), f.message);
		if (!words || !strstr(f.message, words))
			fail_msg("\"%s\" is not in \"%s\"", words ? words : "", f.message);
	}
	luks_header_free(h);
	every_read_may_fail(&image);
	close(image.fd);
}

static int is_script(const struct dirent *d)
{
	size_t len = strlen(d->d_name);

	return len > 3 && strcmp(d->d_name + len - 3, ".py") == 0 && strcmp(d->d_name, SHARED) != 0;
}

int main(void)
{
	static struct CMUnitTest tests[MAX_SCRIPTS];
	struct dirent **scripts;
	int n = scandir(FOLDER, &scripts, is_script, alphasort);
	int r;

	if (n <= 0 || n > MAX_SCRIPTS) {
		fprintf(stderr, "%s: no scripts, or too many; run me in the source folder\n",
			FOLDER);
		return 1;
	}
	for (int i = 0; i < n; i++) {
		tests[i].name = scripts[i]->d_name;
		tests[i].test_func = verdict_holds;
		tests[i].initial_state = scripts[i]->d_name;
	}
	r = _cmocka_run_group_tests("luks_evil", tests, (size_t)n, NULL, NULL);
	for (int i = 0; i < n; i++)
		free(scripts[i]);
	free(scripts);
	return r;
}
