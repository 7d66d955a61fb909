/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Copyright (C) 2026 the rbdcrypt-nbd authors */

/* The run directory: files that should not be there, and directories that cannot be used. */

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <fcntl.h>
#include <signal.h>
#include <sys/resource.h>
#include <sys/stat.h>

#include "../../daemon/state_file.h"
#include "state_dir.h"

static void a_failed_update_leaves_the_old_file(void **state)
{
	struct rlimit old, none = { 0 };
	struct volume_state v;
	struct state_list l;
	struct state *s, *t = NULL;

	fill(&v);
	s = claim("k", &v);
	assert_int_equal(getrlimit(RLIMIT_FSIZE, &old), 0);
	none.rlim_max = old.rlim_max;
	signal(SIGXFSZ, SIG_IGN);
	assert_int_equal(setrlimit(RLIMIT_FSIZE, &none), 0);
	v.size = 1;
	assert_int_equal(state_update(s, &v), -EFBIG);
	assert_int_equal(state_claim(dir, "other", &v, &t, &f), -EFBIG);
	assert_int_equal(setrlimit(RLIMIT_FSIZE, &old), 0);
	assert_int_equal(f.status, EXIT_MEMORY);
	get_list(&l);
	assert_int_equal(l.n, 1);
	assert_true(l.volumes[0].size == UINT64_MAX - 1);
	assert_int_equal(l.volumes[0].status, VOLUME_MAPPED);
	state_list_done(&l);
	state_release(s, true);
}

static void damaged_files_are_named_and_skipped(void **state)
{
	static const char *const bad[] = {
		"",
		"{",
		"[]",
		"{} x",
		"{\"key\":\"bad\"}",
		"{\"key\":\"bad\",\"state\":\"dead\"}",
		"{\"key\":\"bad\",\"state\":7}",
		"{\"key\":\"\",\"state\":\"mapped\"}",
		"{\"key\":\"elsewhere\",\"state\":\"mapped\"}",
		"{\"key\":\"bad\",\"state\":\"mapped\",\"id\":\"1\"}",
		"{\"key\":\"bad\",\"state\":\"mapped\",\"id\":4294967296}",
		"{\"key\":\"bad\",\"state\":\"mapped\",\"size\":-1}",
		"{\"key\":\"bad\",\"state\":\"mapped\",\"block_size\":4294967296}",
		"{\"key\":\"bad\",\"state\":\"mapped\",\"read_only\":1}",
		"{\"key\":\"bad\",\"state\":\"mapped\",\"device\":\"/dev/sda\"}",
		"{\"key\":\"bad\",\"state\":\"mapped\",\"device\":\"/dev/nbd1p1\"}",
		"{\"key\":\"bad\",\"state\":\"mapped\",\"device\":\"/dev/nbd-1\"}",
		"{\"key\":\"bad\",\"state\":\"mapped\",\"device\":1}",
		"{\"key\":\"bad\",\"state\":\"mapped\",\"snap\":1}",
		"{\"key\":\"bad\",\"state\":\"mapped\",\"snap_id\":-1}",
		"{\"key\":\"bad\",\"state\":\"mapped\",\"pool\":\"a\\u0000b\"}",
		"{\"key\":\"bad\",\"state\":\"mapped\",\"layers\":1}",
		"{\"key\":\"bad\",\"state\":\"mapped\",\"layers\":[1]}",
		"{\"key\":\"bad\",\"state\":\"mapped\",\"layers\":[{},{\"key_bits\":\"x\"}]}",
		"{\"key\":\"bad\",\"state\":\"mapped\",\"layers\":[[[[[[[[[[[]]]]]]]]]]]}",
		"{\"key\":\"bad\",\"state\":\"mapped\",\"kernel\":[]}",
		"{\"key\":\"bad\",\"state\":\"mapped\",\"kernel\":{\"size\":\"x\"}}",
	};
	struct volume_state v;
	struct state_list l;
	struct state *s;

	fill(&v);
	s = claim("good", &v);
	for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
		make_file("bad.json", bad[i]);
		get_list(&l);
		assert_int_equal(l.n, 1);
		assert_string_equal(l.volumes[0].key, "good");
		assert_int_equal(l.n_damaged, 1);
		assert_memory_equal(l.damaged, "bad.json: ", 10);
		state_list_done(&l);
	}
	state_release(s, true);
	/* a dead owner's damaged file does not keep the name from others */
	s = claim("bad", &v);
	state_release(s, true);
}

static void a_long_text_is_refused_not_cut(void **state)
{
	char text[1024];
	struct state_list l;
	size_t n;

	n = (size_t)sprintf(text, "{\"key\":\"bad\",\"state\":\"mapped\",\"pool\":\"");
	memset(text + n, 'a', 128);
	strcpy(text + n + 128, "\"}");
	make_file("bad.json", text);
	get_list(&l);
	assert_int_equal(l.n, 0);
	assert_string_equal(l.damaged, "bad.json: pool");
	state_list_done(&l);
}

static void what_is_not_a_state_file_is_not_read(void **state)
{
	struct state_list l;
	FILE *out;

	assert_int_equal(mkfifo(path_of("fifo.json"), 0600), 0);
	assert_int_equal(mkdir(path_of("dir.json"), 0700), 0);
	assert_int_equal(symlink("/etc/passwd", path_of("link.json")), 0);
	make_file("note.txt", "x");
	make_file(".json", "x");
	get_list(&l);
	assert_int_equal(l.n, 0);
	assert_int_equal(l.n_damaged, 3);
	state_list_done(&l);
	out = fopen(path_of("long.json"), "w");
	for (int i = 0; i < (1 << 20) + 1; i++)
		fputc(' ', out);
	fclose(out);
	remove(path_of("fifo.json"));
	remove(path_of("dir.json"));
	remove(path_of("link.json"));
	get_list(&l);
	assert_string_equal(l.damaged, "long.json: too long");
	state_list_done(&l);
}

static void unknown_keys_of_a_later_version_are_tolerated(void **state)
{
	struct state_list l;

	make_file("k.json", "{\"key\":\"k\",\"state\":\"serving\",\"flux\":{\"a\":[1,2]},"
			    "\"layers\":[{\"spec\":\"rbd/a\",\"colour\":\"blue\"}]}\n \n");
	get_list(&l);
	assert_int_equal(l.n_damaged, 0);
	assert_int_equal(l.n, 1);
	assert_int_equal(l.volumes[0].device, -1);
	assert_int_equal(l.volumes[0].io_timeout_s, -1);
	assert_string_equal(l.volumes[0].layers[0].spec, "rbd/a");
	state_list_done(&l);
}

static void a_damaged_file_with_a_live_owner_is_busy(void **state)
{
	struct volume_state v;
	struct state *t = NULL;
	int fd;

	fill(&v);
	make_file("k.json", "garbage");
	fd = open(path_of("k.json"), O_RDWR | O_CLOEXEC);
	assert_int_equal(state_file_lock(fd), 0);
	assert_int_equal(state_claim(dir, "k", &v, &t, &f), -EBUSY);
	assert_non_null(strstr(f.message, "damaged"));
	close(fd);
}

static void the_list_is_sorted_by_device_then_spec(void **state)
{
	struct volume_state v;
	struct state *s[4];
	struct state_list l;

	volume_state_init(&v);
	strcpy(v.pool, "rbd");
	strcpy(v.image, "b");
	s[0] = claim("1", &v);
	strcpy(v.image, "a");
	s[1] = claim("2", &v);
	v.device = 11;
	s[2] = claim("3", &v);
	v.device = 2;
	s[3] = claim("4", &v);
	get_list(&l);
	assert_int_equal(l.n, 4);
	assert_string_equal(l.volumes[0].key, "4");
	assert_string_equal(l.volumes[1].key, "3");
	assert_string_equal(l.volumes[2].key, "2");
	assert_string_equal(l.volumes[3].key, "1");
	state_list_done(&l);
	for (int i = 0; i < 4; i++)
		state_release(s[i], true);
}

static void a_missing_directory_is_an_empty_list_and_made_by_claim(void **state)
{
	struct volume_state v;
	struct state_list l;
	struct state *s;
	char sub[128];
	struct stat st;
	mode_t old;

	snprintf(sub, sizeof(sub), "%s/sub", dir);
	assert_int_equal(state_list(sub, &l, &f), 0);
	assert_int_equal(l.n, 0);
	state_list_done(&l);
	fill(&v);
	old = umask(077);
	assert_int_equal(state_claim(sub, "k", &v, &s, &f), 0);
	umask(old);
	assert_int_equal(stat(sub, &st), 0);
	assert_int_equal(st.st_mode & 07777, 0755);
	strcat(sub, "/k.json");
	assert_int_equal(stat(sub, &st), 0);
	assert_int_equal(st.st_mode & 07777, 0644);
	state_release(s, true);
	*strrchr(sub, '/') = 0;
	strcat(sub, "/.lock");
	assert_int_equal(unlink(sub), 0);
}

static void a_directory_that_cannot_be_used_is_refused(void **state)
{
	struct volume_state v;
	struct state *s = NULL;
	struct state_list l;
	char path[128];

	fill(&v);
	snprintf(path, sizeof(path), "%s/a/b", dir);
	assert_int_equal(state_claim(path, "k", &v, &s, &f), -ENOENT);
	assert_int_equal(f.status, EXIT_NOT_FOUND);
	fault_clear(&f);
	make_file("file", "");
	snprintf(path, sizeof(path), "%s/file", dir);
	assert_int_equal(state_claim(path, "k", &v, &s, &f), -ENOTDIR);
	fault_clear(&f);
	assert_int_equal(state_list(path, &l, &f), -ENOTDIR);
	fault_clear(&f);
	assert_int_equal(chmod(dir, 0777), 0);
	assert_int_equal(state_claim(dir, "k", &v, &s, &f), -EPERM);
	assert_int_equal(f.status, EXIT_PASSPHRASE);
	assert_null(s);
}

static void a_key_must_fit(void **state)
{
	struct volume_state v;
	struct state *s = NULL;
	char key[641];

	fill(&v);
	assert_int_equal(state_claim(dir, "", &v, &s, &f), -ENAMETOOLONG);
	memset(key, 'k', sizeof(key) - 1);
	key[640] = 0;
	assert_int_equal(state_claim(dir, key, &v, &s, &f), -ENAMETOOLONG);
	key[639] = 0;
	s = claim(key, &v);
	state_release(s, true);
}

static void any_key_makes_a_safe_and_distinct_file_name(void **state)
{
	char name[STATE_NAME_BYTES], other[STATE_NAME_BYTES], key[640];

	state_file_name("rbd/ns/img@s.1", name);
	assert_string_equal(name, "rbd%2Fns%2Fimg@s.1.json");
	state_file_name("../..", name);
	assert_string_equal(name, "%2E.%2F...json");
	state_file_name(".json", name);
	assert_true(state_file_is_named(name));
	memset(key, '/', sizeof(key) - 1);
	key[639] = 0;
	state_file_name(key, name);
	assert_true(strlen(name) < STATE_NAME_BYTES);
	assert_true(state_file_is_named(name));
	key[638] = 'x';
	state_file_name(key, other);
	assert_string_not_equal(name, other);
}

static void old_leftovers_are_removed_young_and_locked_ones_kept(void **state)
{
	struct timespec old[2] = { { .tv_sec = 1000 }, { .tv_sec = 1000 } };
	struct volume_state v;
	struct state *s;
	int fd;

	fill(&v);
	make_file(".tmp-1-1-1-0", "x");
	make_file(".tmp-2-2-2-0", "x");
	make_file(".tmp-3-3-3-0", "x");
	assert_int_equal(utimensat(AT_FDCWD, path_of(".tmp-1-1-1-0"), old, 0), 0);
	assert_int_equal(utimensat(AT_FDCWD, path_of(".tmp-2-2-2-0"), old, 0), 0);
	fd = open(path_of(".tmp-2-2-2-0"), O_RDWR | O_CLOEXEC);
	assert_int_equal(state_file_lock(fd), 0);
	s = claim("k", &v);
	assert_int_equal(access(path_of(".tmp-1-1-1-0"), F_OK), -1);
	assert_int_equal(access(path_of(".tmp-2-2-2-0"), F_OK), 0);
	assert_int_equal(access(path_of(".tmp-3-3-3-0"), F_OK), 0);
	close(fd);
	state_release(s, true);
}

static void the_run_directory_is_chosen_in_order(void **state)
{
	char buf[64];

	unsetenv("RBDCRYPT_NBD_RUN_DIR");
	assert_int_equal(state_run_dir("/given", buf, sizeof(buf), &f), 0);
	assert_string_equal(buf, "/given");
	setenv("RBDCRYPT_NBD_RUN_DIR", "/env", 1);
	assert_int_equal(state_run_dir(NULL, buf, sizeof(buf), &f), 0);
	assert_string_equal(buf, "/env");
	assert_int_equal(state_run_dir(NULL, buf, 4, &f), -ENAMETOOLONG);
	unsetenv("RBDCRYPT_NBD_RUN_DIR");
	if (geteuid() == 0) {
		assert_int_equal(state_run_dir(NULL, buf, sizeof(buf), &f), 0);
		assert_string_equal(buf, "/run/rbdcrypt-nbd");
		if (seteuid(65534) != 0)
			return;
	}
	setenv("XDG_RUNTIME_DIR", "/run/user/1", 1);
	assert_int_equal(state_run_dir(NULL, buf, sizeof(buf), &f), 0);
	assert_string_equal(buf, "/run/user/1/rbdcrypt-nbd");
	unsetenv("XDG_RUNTIME_DIR");
	fault_clear(&f);
	assert_int_equal(state_run_dir(NULL, buf, sizeof(buf), &f), -ENOENT);
	assert_int_equal(f.status, EXIT_USAGE);
	(void)!seteuid(getuid());
}

static void a_reader_without_privilege_sees_the_same(void **state)
{
	struct volume_state v;
	struct state_list l;
	struct state *s;
	int r;

	if (geteuid() != 0)
		skip();
	fill(&v);
	assert_int_equal(chmod(dir, 0755), 0);
	s = claim("k", &v);
	assert_int_equal(seteuid(65534), 0);
	r = state_list(dir, &l, &f);
	assert_int_equal(seteuid(0), 0);
	assert_int_equal(r, 0);
	assert_int_equal(l.n, 1);
	assert_int_equal(l.volumes[0].status, VOLUME_MAPPED);
	state_list_done(&l);
	state_release(s, true);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(a_failed_update_leaves_the_old_file),
		TEST(damaged_files_are_named_and_skipped),
		TEST(a_long_text_is_refused_not_cut),
		TEST(what_is_not_a_state_file_is_not_read),
		TEST(unknown_keys_of_a_later_version_are_tolerated),
		TEST(a_damaged_file_with_a_live_owner_is_busy),
		TEST(the_list_is_sorted_by_device_then_spec),
		TEST(a_missing_directory_is_an_empty_list_and_made_by_claim),
		TEST(a_directory_that_cannot_be_used_is_refused),
		TEST(a_key_must_fit),
		TEST(any_key_makes_a_safe_and_distinct_file_name),
		TEST(old_leftovers_are_removed_young_and_locked_ones_kept),
		TEST(the_run_directory_is_chosen_in_order),
		TEST(a_reader_without_privilege_sees_the_same),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
