// SPDX-License-Identifier: GPL-2.0-or-later
// Copyright (C) 2026 the rbdcrypt-nbd authors

/*
 * Headers that cryptsetup really made: what we read out of them, and that the
 * unlock gives the volume key that cryptsetup itself says it is. Needs the
 * cryptsetup program, but no root and no device mapper.
 */

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "luks.h"

#define MIB ((uint64_t)1 << 20)
#define IMAGE "image"
#define FIRST "first.key"
#define SECOND "second.key"
#define VOLUME "volume.key"

#if defined(__has_feature)
#define IS_SANITIZED (__has_feature(address_sanitizer) || __has_feature(thread_sanitizer))
#elif defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
#define IS_SANITIZED 1
#else
#define IS_SANITIZED 0
#endif

static const char plain_pass[] = "correct horse";
static const char odd_pass[] = "nul\0and\nnewline\n";

/* ---- files; every test runs in a folder of its own ---- */

static int enter_folder(void **state)
{
	char *folder = strdup("/tmp/rbdcrypt-luks-XXXXXX");

	*state = folder;
	return folder && mkdtemp(folder) && chdir(folder) == 0 ? 0 : -1;
}

static int leave_folder(void **state)
{
	static const char *const files[] = { IMAGE, FIRST, SECOND, VOLUME, "lock", "log" };
	char *folder = *state;
	int r;

	for (size_t i = 0; i < sizeof(files) / sizeof(files[0]); i++)
		(void)unlink(files[i]);
	r = chdir("/") == 0 && rmdir(folder) == 0 ? 0 : -1;
	free(folder);
	return r;
}

static void write_file(const char *name, const void *bytes, size_t len)
{
	int fd = open(name, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);

	assert_true(fd >= 0);
	assert_int_equal(write(fd, bytes, len), (ssize_t)len);
	close(fd);
}

static void make_image(uint64_t size)
{
	write_file(IMAGE, "", 0);
	assert_int_equal(truncate(IMAGE, (off_t)size), 0);
	write_file(FIRST, plain_pass, sizeof(plain_pass) - 1);
	write_file(SECOND, odd_pass, sizeof(odd_pass) - 1);
}

static void run(const char *fmt, ...) __attribute__((format(printf, 1, 2)));
static void run(const char *fmt, ...)
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

/* ---- the code under test ---- */

static int image_read(void *arg, uint64_t off, void *buf, size_t len)
{
	return pread(*(int *)arg, buf, len, (off_t)off) == (ssize_t)len ? 0 : -EIO;
}

static int load(uint64_t stripe_period, struct luks_header **ret, struct fault *f)
{
	struct luks_limits limits;
	struct stat st;
	int fd = open(IMAGE, O_RDONLY | O_CLOEXEC);
	int r;

	assert_true(fd >= 0);
	assert_int_equal(fstat(fd, &st), 0);
	luks_limits_default(&limits);
	r = luks_header_load(image_read, &fd, (uint64_t)st.st_size, stripe_period, &limits, ret, f);
	close(fd);
	return r;
}

static struct luks_header *loaded(void)
{
	struct luks_header *h = NULL;
	struct fault f = { 0 };

	if (load(0, &h, &f) < 0)
		fail_msg("%s", f.message);
	return h;
}

static struct secret *secret_of(const void *bytes, size_t len)
{
	struct secret *s;

	assert_int_equal(secret_new(len, &s), 0);
	memcpy(secret_data(s), bytes, len);
	return s;
}

static struct secret *plain(void)
{
	return secret_of(plain_pass, sizeof(plain_pass) - 1);
}

static struct secret *odd(void)
{
	return secret_of(odd_pass, sizeof(odd_pass) - 1);
}

/* Takes the passphrase. Returns what luks_unlock() did; *ret_key is NULL unless 0. */
static int unlock_with(const struct luks_header *h, struct secret *passphrase,
		       const struct luks_limits *limits, struct secret **ret_key, int *ret_slot,
		       struct fault *f)
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

/* The volume key as cryptsetup says, opened with keyfile. */
static void assert_volume_key(const struct secret *key, const char *keyfile)
{
	struct secret *expected;
	int fd;

	(void)unlink(VOLUME);
	run("cryptsetup luksDump -q --dump-volume-key --volume-key-file " VOLUME
	    " --key-file %s " IMAGE,
	    keyfile);
	fd = open(VOLUME, O_RDONLY | O_CLOEXEC);
	assert_true(fd >= 0);
	assert_int_equal(secret_read_fd(fd, 64, &expected), 0);
	close(fd);
	assert_true(secret_equal(key, expected));
	secret_free(expected);
}

static void opens(struct secret *passphrase, const char *keyfile, int slot)
{
	struct luks_header *h = loaded();
	struct luks_limits limits;
	struct fault f = { 0 };
	struct secret *key;
	int ret_slot = -1;

	luks_limits_default(&limits);
	if (unlock_with(h, passphrase, &limits, &key, &ret_slot, &f) < 0)
		fail_msg("%s", f.message);
	assert_int_equal(ret_slot, slot);
	assert_int_equal(secret_len(key), luks_header_info(h)->key_bytes);
	assert_volume_key(key, keyfile);
	secret_free(key);
	luks_header_free(h);
}

static void is_refused(struct secret *passphrase)
{
	struct luks_header *h = loaded();
	struct luks_limits limits;
	struct fault f = { 0 };
	struct secret *key;

	luks_limits_default(&limits);
	assert_int_equal(unlock_with(h, passphrase, &limits, &key, NULL, &f), -EPERM);
	assert_int_equal(f.status, EXIT_PASSPHRASE);
	luks_header_free(h);
}

/* Puts Ceph's magics over the image, as "rbd encryption format" does on a clone. */
static void make_clone_magic(int version)
{
	int fd = open(IMAGE, O_WRONLY | O_CLOEXEC);

	assert_true(fd >= 0);
	assert_int_equal(pwrite(fd, "RBDL", 4, 0), 4);
	if (version == 2)
		assert_int_equal(pwrite(fd, "LDBR", 4, 16384), 4);
	close(fd);
}

#define FAST_PBKDF2 "--pbkdf pbkdf2 --pbkdf-force-iterations 1000 "
#define FAST1 "--pbkdf-force-iterations 1000 "
#define FAST_ARGON2 "--pbkdf-memory 8192 --pbkdf-parallel 4 --pbkdf-force-iterations 4 "

/* ---- claims ---- */

static void luks1_of_either_key_length_opens(void **state)
{
	static const unsigned int bits[] = { 256, 512 };

	for (size_t i = 0; i < 2; i++) {
		struct luks_header *h;

		make_image(8 * MIB);
		run("cryptsetup luksFormat -q --type luks1 " FAST1 "--key-size %u --key-file " FIRST
		    " " IMAGE,
		    bits[i]);
		h = loaded();
		assert_int_equal(luks_header_info(h)->version, 1);
		assert_int_equal(luks_header_info(h)->key_bytes, bits[i] / 8);
		assert_int_equal(luks_header_info(h)->sector_size, 512);
		assert_int_equal(luks_header_info(h)->keyslots, 1);
		assert_false(luks_header_info(h)->is_clone_magic);
		luks_header_free(h);
		opens(plain(), FIRST, 0);
		is_refused(odd());
	}
}

static void luks2_of_every_size_opens(void **state)
{
	static const unsigned int bits[] = { 256, 512 }, sectors[] = { 512, 1024, 2048, 4096 };

	for (size_t i = 0; i < 8; i++) {
		struct luks_header *h;

		make_image(20 * MIB);
		run("cryptsetup luksFormat -q --type luks2 " FAST_PBKDF2
		    "--key-size %u --sector-size %u --key-file " FIRST " " IMAGE,
		    bits[i / 4], sectors[i % 4]);
		h = loaded();
		assert_int_equal(luks_header_info(h)->version, 2);
		assert_int_equal(luks_header_info(h)->data_offset, 16 * MIB);
		assert_int_equal(luks_header_info(h)->key_bytes, bits[i / 4] / 8);
		assert_int_equal(luks_header_info(h)->sector_size, sectors[i % 4]);
		luks_header_free(h);
		opens(plain(), FIRST, 0);
	}
	is_refused(odd());
}

static void argon2_with_threads_opens(void **state)
{
	static const char *const kinds[] = { "argon2i", "argon2id" };

	for (size_t i = 0; i < 2; i++) {
		make_image(20 * MIB);
		run("cryptsetup luksFormat -q --type luks2 --pbkdf %s " FAST_ARGON2
		    "--key-file " FIRST " " IMAGE,
		    kinds[i]);
		opens(plain(), FIRST, 0);
		is_refused(odd());
	}
}

static void any_keyslot_and_any_byte_in_a_passphrase(void **state)
{
	static const char *const types[] = { "luks1", "luks2" };

	for (size_t i = 0; i < 2; i++) {
		const char *cost = i ? FAST_PBKDF2 : FAST1;

		make_image(20 * MIB);
		run("cryptsetup luksFormat -q --type %s %s --key-file " FIRST " " IMAGE, types[i],
		    cost);
		run("cryptsetup luksAddKey -q %s --key-slot 7 --key-file " FIRST " " IMAGE
		    " " SECOND,
		    cost);
		opens(plain(), FIRST, 0);
		opens(odd(), SECOND, 7);
		/* The bytes before the NUL, and those before the last newline, are not it. */
		is_refused(secret_of(odd_pass, 3));
		is_refused(secret_of(odd_pass, sizeof(odd_pass) - 2));
		run("cryptsetup luksKillSlot -q --key-file " SECOND " " IMAGE " 0");
		opens(odd(), SECOND, 7);
		is_refused(plain());
	}
}

static void passphrase_larger_than_a_socket_buffer(void **state)
{
	const size_t len = 2 << 20;
	char *bytes = malloc(len);

	for (size_t i = 0; i < len; i++)
		bytes[i] = (char)(i * 7);
	make_image(20 * MIB);
	write_file(FIRST, bytes, len);
	run("cryptsetup luksFormat -q --type luks2 " FAST_PBKDF2 "--key-file " FIRST " " IMAGE);
	opens(secret_of(bytes, len), FIRST, 0);
	is_refused(secret_of(bytes, len - 1));
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
		make_image(20 * MIB);
		run("cryptsetup luksFormat -q --type %s %s --key-file " FIRST " " IMAGE, types[i],
		    i ? FAST_PBKDF2 : FAST1);
		h = loaded();
		make_clone_magic(i + 1);
		clone = loaded();
		assert_true(luks_header_info(clone)->is_clone_magic);
		assert_false(luks_header_info(h)->is_clone_magic);
		assert_string_equal(luks_header_info(clone)->uuid, luks_header_info(h)->uuid);
		assert_memory_not_equal(luks_header_info(clone)->digest,
					luks_header_info(h)->digest, 32);
		assert_int_equal(unlock_with(h, plain(), &limits, &key, NULL, &f), 0);
		assert_int_equal(unlock_with(clone, plain(), &limits, &again, NULL, &f), 0);
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
		int fd;

		luks_limits_default(&limits);
		make_image(20 * MIB);
		run("cryptsetup luksFormat -q --type luks2 " FAST_PBKDF2 "--key-file " FIRST
		    " " IMAGE);
		fd = open(IMAGE, O_WRONLY | O_CLOEXEC);
		assert_int_equal(pwrite(fd, "XXXX", 4, places[i]), 4);
		close(fd);
		h = loaded();
		if (unlock_with(h, plain(), &limits, &key, NULL, &f) < 0)
			fail_msg("%s", f.message);
		assert_volume_key(key, FIRST);
		secret_free(key);
		luks_header_free(h);
	}
}

static void larger_metadata_and_other_offsets_open(void **state)
{
	make_image(80 * MIB);
	run("cryptsetup luksFormat -q --type luks2 " FAST_PBKDF2
	    "--luks2-metadata-size 4m --luks2-keyslots-size 8m --key-file " FIRST " " IMAGE);
	opens(plain(), FIRST, 0);
	run("cryptsetup luksFormat -q --type luks2 " FAST_PBKDF2 "--align-payload 131072"
	    " --key-file " FIRST " " IMAGE);
	opens(plain(), FIRST, 0);
}

static void stripe_period_is_demanded_when_given(void **state)
{
	struct luks_header *h = NULL;
	struct fault f = { 0 };

	make_image(20 * MIB);
	run("cryptsetup luksFormat -q --type luks1 " FAST1 "--key-file " FIRST " " IMAGE);
	assert_int_equal(load(4 * MIB, &h, &f), -EINVAL);
	assert_int_equal(f.status, EXIT_HEADER);
	assert_non_null(strstr(f.message, "stripe period 4194304"));
	assert_int_equal(load(2 * MIB, &h, NULL), 0);
	luks_header_free(h);
}

static void reencryption_under_way_is_refused(void **state)
{
	struct luks_header *h = NULL;
	struct fault f = { 0 };

	make_image(40 * MIB);
	run("cryptsetup luksFormat -q --type luks2 " FAST_PBKDF2 "--key-file " FIRST " " IMAGE);
	run("cryptsetup reencrypt -q --init-only --force-offline-reencrypt " FAST_PBKDF2
	    "--key-file " FIRST " " IMAGE);
	assert_int_equal(load(0, &h, &f), -ENOTSUP);
	assert_int_equal(f.status, EXIT_HEADER);
	assert_non_null(strstr(f.message, "reencrypt"));
}

/* An image that is different each time it is read. */
static int changing_read(void *arg, uint64_t off, void *buf, size_t len)
{
	int r = image_read(arg, off, buf, len);

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

	make_image(20 * MIB);
	run("cryptsetup luksFormat -q --type luks2 " FAST_PBKDF2 "--key-file " FIRST " " IMAGE);
	fd = open(IMAGE, O_RDONLY | O_CLOEXEC);
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
		make_image(0);
		run("qemu-img create -q -f luks --object secret,id=s,file=" FIRST
		    " -o key-secret=s,iter-time=10,cipher-alg=%s " IMAGE " 4M",
		    algorithms[i]);
		opens(plain(), FIRST, 0);
		is_refused(odd());
	}
}

static void plain_image_is_not_a_header(void **state)
{
	static const uint64_t sizes[] = { 0, 1, 7, 8, 512, 4095, 4096, 16384, 16 * MIB };
	struct luks_header *h = NULL;
	struct fault f = { 0 };

	for (size_t i = 0; i < sizeof(sizes) / sizeof(sizes[0]); i++) {
		make_image(sizes[i]);
		assert_int_equal(load(0, &h, &f), -ENODATA);
		assert_null(h);
		assert_int_equal(f.message[0], 0);
	}
	assert_null(luks_header_free(NULL));
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

/* ---- the machinery of the unlock ---- */

static int count_fds(void)
{
	DIR *d = opendir("/proc/self/fd");
	int n = 0;

	assert_non_null(d);
	while (readdir(d))
		n++;
	closedir(d);
	return n;
}

static void small_luks2(void)
{
	make_image(20 * MIB);
	run("cryptsetup luksFormat -q --type luks2 " FAST_ARGON2 "--key-file " FIRST " " IMAGE);
}

static void nothing_is_left_behind(void **state)
{
	struct luks_limits limits;
	struct luks_header *h;
	int fds;

	small_luks2();
	luks_limits_default(&limits);
	limits.turnstile = "lock";
	h = loaded();
	fds = count_fds();
	for (int i = 0; i < 6; i++) {
		struct fault f = { 0 };
		struct secret *key;

		(void)unlock_with(h, i % 2 ? plain() : odd(), &limits, &key, NULL, &f);
		secret_free(key);
	}
	assert_int_equal(count_fds(), fds);
	assert_int_equal(waitpid(-1, NULL, WNOHANG), -1);
	luks_header_free(h);
}

struct job {
	const struct luks_header *header;
	const char *turnstile;
	int result;
	struct secret *key;
};

static void *unlock_in_thread(void *arg)
{
	struct job *job = arg;
	struct secret *passphrase = NULL;
	struct luks_limits limits;

	luks_limits_default(&limits);
	limits.turnstile = job->turnstile;
	job->result = secret_new(sizeof(plain_pass) - 1, &passphrase);
	if (job->result == 0) {
		memcpy(secret_data(passphrase), plain_pass, sizeof(plain_pass) - 1);
		job->result = luks_unlock(job->header, passphrase, &limits, &job->key, NULL, NULL);
	}
	secret_free(passphrase);
	return NULL;
}

static void several_threads_unlock_at_once(void **state)
{
	enum { N = 4 };
	struct job jobs[N] = { 0 };
	struct luks_header *h;
	pthread_t threads[N];

	small_luks2();
	h = loaded();
	for (int i = 0; i < N; i++) {
		jobs[i].header = h;
		jobs[i].turnstile = i % 2 ? "lock" : NULL;
		assert_int_equal(pthread_create(&threads[i], NULL, unlock_in_thread, &jobs[i]), 0);
	}
	for (int i = 0; i < N; i++)
		assert_int_equal(pthread_join(threads[i], NULL), 0);
	for (int i = 0; i < N; i++) {
		assert_int_equal(jobs[i].result, 0);
		assert_true(secret_equal(jobs[i].key, jobs[0].key));
	}
	for (int i = 0; i < N; i++)
		secret_free(jobs[i].key);
	luks_header_free(h);
}

static void turnstile_in_use_is_waited_for_and_then_times_out(void **state)
{
	struct luks_limits limits;
	struct luks_header *h;
	struct fault f = { 0 };
	struct secret *key;
	int lock;

	small_luks2();
	h = loaded();
	luks_limits_default(&limits);
	limits.unlock_timeout_s = 1;
	limits.turnstile = "lock";
	lock = open("lock", O_RDWR | O_CREAT | O_CLOEXEC, 0600);
	assert_int_equal(flock(lock, LOCK_EX), 0);
	assert_int_equal(unlock_with(h, plain(), &limits, &key, NULL, &f), -ETIMEDOUT);
	assert_int_equal(f.status, EXIT_TIMED_OUT);
	assert_non_null(strstr(f.message, "other unlocks"));
	close(lock);
	limits.unlock_timeout_s = 60;
	fault_clear(&f);
	assert_int_equal(unlock_with(h, plain(), &limits, &key, NULL, &f), 0);
	secret_free(key);
	luks_header_free(h);
}

static void turnstile_that_cannot_be_had_is_no_obstacle(void **state)
{
	static const char *const paths[] = { "missing/lock", "/dev/null/lock", "." };
	struct luks_limits limits;
	struct luks_header *h;

	small_luks2();
	h = loaded();
	luks_limits_default(&limits);
	for (size_t i = 0; i < sizeof(paths) / sizeof(paths[0]); i++) {
		struct fault f = { 0 };
		struct secret *key;

		limits.turnstile = paths[i];
		assert_int_equal(unlock_with(h, plain(), &limits, &key, NULL, &f), 0);
		secret_free(key);
	}
	luks_header_free(h);
}

static void slow_unlock_is_ended_at_its_deadline(void **state)
{
	struct luks_limits limits;
	struct luks_header *h = NULL;
	struct fault f = { 0 };
	struct secret *key;
	uint32_t iterations = 0x02000000; /* some ten seconds of one processor */
	unsigned char be[4] = { iterations >> 24, 0, 0, 0 };
	int fd;

	make_image(8 * MIB);
	run("cryptsetup luksFormat -q --type luks1 " FAST1 "--key-file " FIRST " " IMAGE);
	fd = open(IMAGE, O_WRONLY | O_CLOEXEC);
	assert_int_equal(pwrite(fd, be, 4, 208 + 4), 4);
	close(fd);
	h = loaded();
	luks_limits_default(&limits);
	limits.unlock_timeout_s = 1;
	assert_int_equal(unlock_with(h, plain(), &limits, &key, NULL, &f), -ETIMEDOUT);
	assert_int_equal(f.status, EXIT_TIMED_OUT);
	assert_int_equal(waitpid(-1, NULL, WNOHANG), -1);
	luks_header_free(h);
}

static void too_little_memory_is_said_clearly(void **state)
{
	struct rlimit old, tight;
	struct luks_limits limits;
	struct luks_header *h;
	struct fault f = { 0 };
	struct secret *key;
	int r;

	if (IS_SANITIZED)
		skip();
	make_image(20 * MIB);
	run("cryptsetup luksFormat -q --type luks2 --pbkdf-memory 262144 --pbkdf-parallel 2"
	    " --pbkdf-force-iterations 4 --key-file " FIRST " " IMAGE);
	h = loaded();
	luks_limits_default(&limits);
	assert_int_equal(getrlimit(RLIMIT_AS, &old), 0);
	tight = old;
	tight.rlim_cur = 200 * MIB;
	assert_int_equal(setrlimit(RLIMIT_AS, &tight), 0);
	r = unlock_with(h, plain(), &limits, &key, NULL, &f);
	assert_int_equal(setrlimit(RLIMIT_AS, &old), 0);
	assert_int_equal(r, -ENOMEM);
	assert_int_equal(f.status, EXIT_MEMORY);
	assert_non_null(strstr(f.message, "256 MiB"));
	fault_clear(&f);
	assert_int_equal(unlock_with(h, plain(), &limits, &key, NULL, &f), 0);
	secret_free(key);
	luks_header_free(h);
}

static void header_that_the_library_refuses_is_a_header_error(void **state)
{
	struct luks_limits limits;
	struct luks_header *h = NULL;
	struct fault f = { 0 };
	struct secret *key;
	int fd;

	/* A free keyslot without room: no matter to us, but libcryptsetup insists. */
	make_image(8 * MIB);
	run("cryptsetup luksFormat -q --type luks1 " FAST1 "--key-file " FIRST " " IMAGE);
	fd = open(IMAGE, O_WRONLY | O_CLOEXEC);
	assert_int_equal(pwrite(fd, "\0\0\0\0", 4, 208 + 3 * 48 + 40), 4);
	close(fd);
	h = loaded();
	luks_limits_default(&limits);
	assert_int_equal(unlock_with(h, plain(), &limits, &key, NULL, &f), -EBADMSG);
	assert_int_equal(f.status, EXIT_HEADER);
	assert_non_null(strstr(f.message, "libcryptsetup refuses the header"));
	luks_header_free(h);
}

int main(int argc, char **argv)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, enter_folder, leave_folder)
	const struct CMUnitTest tests[] = {
		/* Before threads and their heaps have taken address space. */
		TEST(too_little_memory_is_said_clearly),
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
		TEST(formats_have_names),
		TEST(nothing_is_left_behind),
		TEST(several_threads_unlock_at_once),
		TEST(turnstile_in_use_is_waited_for_and_then_times_out),
		TEST(turnstile_that_cannot_be_had_is_no_obstacle),
		TEST(slow_unlock_is_ended_at_its_deadline),
		TEST(header_that_the_library_refuses_is_a_header_error),
	};

	luks_unlock_child_main(argc, argv);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
