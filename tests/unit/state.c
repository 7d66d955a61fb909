/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Copyright (C) 2026 the rbdcrypt-nbd authors */

/* The run directory: who lives, who is dead, and what is in the files. */

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "../../daemon/state.h"
#include "../../daemon/state_file.h"

static char dir[64];
static struct fault f;

static int setup(void **state)
{
	strcpy(dir, "/tmp/rbdcrypt-state-XXXXXX");
	fault_clear(&f);
	return mkdtemp(dir) ? 0 : -1;
}

static const char *path_of(const char *name)
{
	static char path[512];

	snprintf(path, sizeof(path), "%s/%s", dir, name);
	return path;
}

static int teardown(void **state)
{
	DIR *d = opendir(dir);
	struct dirent *e;

	while (d && (e = readdir(d)))
		if (strcmp(e->d_name, ".") != 0 && strcmp(e->d_name, "..") != 0)
			remove(path_of(e->d_name));
	if (d)
		closedir(d);
	return rmdir(dir);
}

static void make_file(const char *name, const char *text)
{
	FILE *out = fopen(path_of(name), "w");

	assert_non_null(out);
	fputs(text, out);
	fclose(out);
}

static struct layer_state layers[2] = {
	{ .spec = "rbd/img",
	  .format = "luks2",
	  .cipher = "aes-xts-plain64",
	  .uuid = "0f0e0d0c-0b0a-4908-8706-050403020100",
	  .raw_size = UINT64_C(20) << 40,
	  .data_offset = 16 << 20,
	  .sector_size = 4096,
	  .key_bits = 512,
	  .is_clone_magic = true },
	{ .spec = "rbd/golden@v1", .format = "none", .raw_size = 4096, .is_inherited = true },
};

static void fill(struct volume_state *v)
{
	volume_state_init(v);
	v->status = VOLUME_MAPPED;
	strcpy(v->pool, "rbd");
	strcpy(v->nspace, "ns");
	strcpy(v->image, "img \"quoted\" <&> \xc3\xa9");
	strcpy(v->snap, "s1");
	strcpy(v->fsid, "c0ffee00-1111-2222-3333-444444444444");
	strcpy(v->image_id, "10ab");
	v->pool_id = 2;
	v->device = 3;
	strcpy(v->socket, "/run/x.sock");
	strcpy(v->cookie, "a cookie");
	v->size = UINT64_MAX - 1;
	v->raw_size = UINT64_MAX;
	v->data_offset = 16 << 20;
	v->block_size = 4096;
	v->is_read_only = v->is_exclusive = v->is_trim_offered = true;
	v->connections = 4;
	v->io_timeout_s = 0;
	v->reattach_timeout_s = 300;
	v->started = 1700000000;
	strcpy(v->store, "librbd");
	strcpy(v->engine, "openssl");
	strcpy(v->lock, "owner");
	v->inline_threshold = 16384;
	strcpy(v->health, "the header has changed");
	v->kernel.size = 1 << 20;
	v->kernel.is_read_only = true;
	v->kernel.logical_block = 512;
	v->kernel.physical_block = 4096;
	v->kernel.has_write_cache = true;
	v->kernel.has_fua = true;
	v->kernel.discard_max = UINT64_C(4) << 30;
	v->kernel.write_zeroes_max = 5;
	v->kernel.max_hw_kib = 32768;
	v->layers = layers;
	v->n_layers = 2;
}

static struct state *claim(const char *key, const struct volume_state *v)
{
	struct state *s = NULL;

	assert_int_equal(state_claim(dir, key, v, &s, &f), 0);
	assert_non_null(s);
	return s;
}

static void get_list(struct state_list *l)
{
	assert_int_equal(state_list(dir, l, &f), 0);
}

/* A child that claims, tells, and lives until the pipe is closed. */
struct owner {
	pid_t pid;
	int stop;
};

static void start_owner(struct owner *o, const struct volume_state *v, const char *key)
{
	int ready[2], stop[2];
	char c;

	assert_int_equal(pipe(ready), 0);
	assert_int_equal(pipe(stop), 0);
	o->pid = fork();
	if (o->pid == 0) {
		struct state *s;

		close(stop[1]);
		if (state_claim(dir, key, v, &s, NULL))
			_exit(1);
		if (write(ready[1], "x", 1) != 1)
			_exit(1);
		(void)!read(stop[0], &c, 1);
		_exit(0);
	}
	close(ready[1]);
	close(stop[0]);
	assert_int_equal(read(ready[0], &c, 1), 1);
	close(ready[0]);
	o->stop = stop[1];
}

static void stop_owner(struct owner *o)
{
	close(o->stop);
	assert_int_equal(waitpid(o->pid, NULL, 0), o->pid);
}

static void what_was_claimed_is_listed_in_full(void **state)
{
	struct volume_state v;
	struct state_list l;
	struct state *s;

	fill(&v);
	s = claim("rbd/ns/img@s1", &v);
	get_list(&l);
	assert_int_equal(l.n, 1);
	assert_int_equal(l.n_damaged, 0);
	assert_int_equal(l.volumes[0].pid, getpid());
	assert_string_equal(l.volumes[0].key, "rbd/ns/img@s1");
	/* everything else is as it was said */
	v.pid = getpid();
	strcpy(v.key, "rbd/ns/img@s1");
	assert_int_equal(l.volumes[0].n_layers, 2);
	assert_memory_equal(l.volumes[0].layers, layers, sizeof(layers));
	free(l.volumes[0].layers);
	l.volumes[0].layers = layers;
	assert_string_equal(l.volumes[0].image, v.image);
	assert_true(l.volumes[0].size == v.size && l.volumes[0].raw_size == v.raw_size);
	assert_int_equal(memcmp(&l.volumes[0], &v, sizeof(v)), 0);
	l.volumes[0].layers = NULL;
	state_list_done(&l);
	state_release(s, true);
	get_list(&l);
	assert_int_equal(l.n, 0);
	state_list_done(&l);
}

static void a_snapshot_by_number_comes_back_as_one(void **state)
{
	struct volume_state v;
	struct state_list l;
	struct state *s;

	volume_state_init(&v);
	strcpy(v.pool, "rbd");
	strcpy(v.image, "img");
	v.snap_id = 7;
	s = claim("k", &v);
	get_list(&l);
	assert_true(l.volumes[0].snap_id == 7);
	assert_string_equal(l.volumes[0].snap, "");
	state_list_done(&l);
	strcpy(v.snap, "name");
	assert_int_equal(state_update(s, &v), 0);
	get_list(&l);
	assert_true(l.volumes[0].snap_id == 7);
	assert_string_equal(l.volumes[0].snap, "name");
	state_list_done(&l);
	state_release(s, true);
}

static void a_live_owner_keeps_its_name(void **state)
{
	struct volume_state v, other;
	struct state *s, *t = NULL;
	char expected[128];
	struct owner o;

	volume_state_init(&v);
	strcpy(v.pool, "rbd");
	strcpy(v.image, "img");
	other = v;
	start_owner(&o, &v, "k");
	assert_int_equal(state_claim(dir, "k", &other, &t, &f), -EBUSY);
	assert_int_equal(f.status, EXIT_BUSY);
	snprintf(expected, sizeof(expected), "rbd/img: already being started by process %d", o.pid);
	assert_string_equal(f.message, expected);
	assert_null(t);
	s = claim("other", &other);
	state_release(s, true);
	stop_owner(&o);

	v.device = 3;
	strcpy(v.socket, "/s");
	start_owner(&o, &v, "k");
	fault_clear(&f);
	assert_int_equal(state_claim(dir, "k", &other, &t, &f), -EBUSY);
	snprintf(expected, sizeof(expected), "rbd/img: already mapped to /dev/nbd3 by process %d",
		 o.pid);
	assert_string_equal(f.message, expected);
	stop_owner(&o);

	v.device = -1;
	start_owner(&o, &v, "k");
	fault_clear(&f);
	assert_int_equal(state_claim(dir, "k", &other, &t, &f), -EBUSY);
	snprintf(expected, sizeof(expected), "rbd/img: already served on /s by process %d", o.pid);
	assert_string_equal(f.message, expected);
	stop_owner(&o);
}

static void a_dead_owner_is_told_by_the_lock_and_taken_over(void **state)
{
	struct volume_state v;
	struct state_list l;
	struct state *s;
	struct owner o;

	fill(&v);
	start_owner(&o, &v, "k");
	get_list(&l);
	assert_int_equal(l.volumes[0].status, VOLUME_MAPPED);
	assert_int_equal(l.volumes[0].pid, o.pid);
	state_list_done(&l);
	kill(o.pid, SIGKILL);
	stop_owner(&o);
	get_list(&l);
	assert_int_equal(l.n, 1);
	assert_int_equal(l.volumes[0].status, VOLUME_DEAD);
	assert_false(volume_is_alive(&l.volumes[0]));
	state_list_done(&l);
	s = claim("k", &v);
	get_list(&l);
	assert_int_equal(l.n, 1);
	assert_int_equal(l.volumes[0].status, VOLUME_MAPPED);
	state_list_done(&l);
	state_release(s, true);
}

static void a_detached_volume_is_not_dead(void **state)
{
	struct volume_state v;
	struct state_list l;
	struct state *s;

	fill(&v);
	s = claim("k", &v);
	v.status = VOLUME_DETACHED;
	assert_int_equal(state_update(s, &v), 0);
	state_release(s, false);
	get_list(&l);
	assert_int_equal(l.volumes[0].status, VOLUME_DETACHED);
	assert_false(volume_is_alive(&l.volumes[0]));
	state_list_done(&l);
}

static void a_claim_lives_on_in_a_forked_child(void **state)
{
	struct volume_state v;
	struct state_list l;
	struct state *s;
	int stop[2];
	pid_t child;
	char c;

	fill(&v);
	s = claim("k", &v);
	assert_int_equal(pipe(stop), 0);
	child = fork();
	if (child == 0) {
		close(stop[1]);
		(void)!read(stop[0], &c, 1);
		_exit(0);
	}
	close(stop[0]);
	state_release(s, false);
	get_list(&l);
	assert_int_equal(l.volumes[0].status, VOLUME_MAPPED);
	state_list_done(&l);
	close(stop[1]);
	waitpid(child, NULL, 0);
	get_list(&l);
	assert_int_equal(l.volumes[0].status, VOLUME_DEAD);
	state_list_done(&l);
}

/* Readers must never find the name free, unlocked or half written while its owner updates. */
static void updates_leave_no_gap(void **state)
{
	struct volume_state v;
	struct state *s, *t = NULL;
	int n = 0, status;
	pid_t child;

	fill(&v);
	s = claim("k", &v);
	child = fork();
	if (child == 0) {
		for (int i = 0; i < 1000; i++) {
			struct state_list l;

			if (state_list(dir, &l, NULL) || l.n != 1 || l.n_damaged ||
			    l.volumes[0].status != VOLUME_MAPPED)
				_exit(1);
			if (i % 100 == 0 && state_claim(dir, "k", &v, &t, NULL) != -EBUSY)
				_exit(2);
			state_list_done(&l);
		}
		_exit(0);
	}
	while (waitpid(child, &status, WNOHANG) == 0) {
		v.size = (uint64_t)n++;
		assert_int_equal(state_update(s, &v), 0);
	}
	assert_int_equal(status, 0);
	assert_true(n > 10);
	state_release(s, true);
}

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
	assert_int_equal(f.status, EXIT_PASSPHRASE);
	get_list(&l);
	assert_int_equal(l.n, 1);
	assert_true(l.volumes[0].size == UINT64_MAX - 1);
	assert_int_equal(l.volumes[0].status, VOLUME_MAPPED);
	state_list_done(&l);
	state_release(s, true);
}

static void release_does_not_remove_anothers_file(void **state)
{
	struct volume_state v;
	struct state_list l;
	struct state *s, *t;

	fill(&v);
	s = claim("k", &v);
	assert_int_equal(unlink(path_of("k.json")), 0); /* an administrator clears up */
	t = claim("k", &v);
	state_release(s, true);
	get_list(&l);
	assert_int_equal(l.n, 1);
	assert_int_equal(l.volumes[0].status, VOLUME_MAPPED);
	state_list_done(&l);
	state_release(t, true);
	state_release(NULL, true);
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

static void only_one_claims_at_a_time(void **state)
{
	struct volume_state v;
	struct state *s = NULL;
	int fd = open(path_of(".lock"), O_RDWR | O_CREAT | O_CLOEXEC, 0600);

	fill(&v);
	assert_int_equal(state_file_lock(fd), 0);
	assert_int_equal(state_claim(dir, "k", &v, &s, &f), -ETIMEDOUT);
	assert_int_equal(f.status, EXIT_TIMED_OUT);
	assert_int_equal(state_remove(dir, "k"), -ETIMEDOUT);
	close(fd);
}

/* Many processes find the same owner dead and want its name: one of them gets it. */
static int race(const struct volume_state *v)
{
	pid_t children[4];
	int start[2], stop[2], won[2], winners = 0;
	char c;

	assert_int_equal(pipe(start) | pipe(stop) | pipe(won), 0);
	for (int i = 0; i < 4; i++) {
		children[i] = fork();
		if (children[i] == 0) {
			struct state *s;

			close(start[1]);
			close(stop[1]);
			(void)!read(start[0], &c, 1);
			c = state_claim(dir, "k", v, &s, NULL) == 0 ? 'w' : 'l';
			(void)!write(won[1], &c, 1);
			(void)!read(stop[0], &c, 1);
			_exit(0);
		}
	}
	close(start[1]);
	for (int i = 0; i < 4; i++) {
		assert_int_equal(read(won[0], &c, 1), 1);
		winners += c == 'w';
	}
	close(stop[1]);
	for (int i = 0; i < 4; i++)
		waitpid(children[i], NULL, 0);
	close(start[0]);
	close(stop[0]);
	close(won[0]);
	close(won[1]);
	return winners;
}

static void a_race_for_a_dead_owners_name_has_one_winner(void **state)
{
	struct volume_state v;

	fill(&v);
	for (int i = 0; i < 50; i++)
		assert_int_equal(race(&v), 1);
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

static long long now_ms(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return t.tv_sec * 1000LL + t.tv_nsec / 1000000;
}

static void waiting_ends_when_the_owner_does(void **state)
{
	struct volume_state v;
	struct state_list l;
	long long begin;
	struct owner o;
	pid_t killer;

	fill(&v);
	start_owner(&o, &v, "k");
	get_list(&l);
	begin = now_ms();
	assert_int_equal(state_wait_gone(dir, &l.volumes[0], 0), -ETIMEDOUT);
	assert_int_equal(state_wait_gone(dir, &l.volumes[0], 60), -ETIMEDOUT);
	assert_true(now_ms() - begin >= 60);
	killer = fork();
	if (killer == 0) {
		usleep(100000);
		kill(o.pid, SIGKILL);
		_exit(0);
	}
	begin = now_ms();
	assert_int_equal(state_wait_gone(dir, &l.volumes[0], 20000), 0);
	/* told by the kernel, not found by looking twice a second */
	assert_true(now_ms() - begin < 400);
	waitpid(killer, NULL, 0);
	stop_owner(&o);
	assert_int_equal(state_wait_gone(dir, &l.volumes[0], 0), 0);
	/* somebody else has the name now: the one we waited for is gone */
	start_owner(&o, &v, "k");
	assert_int_equal(state_wait_gone(dir, &l.volumes[0], 0), 0);
	stop_owner(&o);
	state_list_done(&l);
	assert_int_equal(state_wait_gone("/nonexistent", &v, 0), 0);
}

static void remove_clears_after_the_dead_only(void **state)
{
	struct volume_state v;
	struct state_list l;
	struct owner o;

	fill(&v);
	assert_int_equal(state_remove("/nonexistent", "k"), 0);
	assert_int_equal(state_remove(dir, "k"), 0);
	start_owner(&o, &v, "k");
	assert_int_equal(state_remove(dir, "k"), -EBUSY);
	stop_owner(&o);
	assert_int_equal(state_remove(dir, "k"), 0);
	get_list(&l);
	assert_int_equal(l.n, 0);
	state_list_done(&l);
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

/* ---- state_find ---- */

static void a_name_finds_its_volume(void **state)
{
	struct volume_state v[4];
	struct state_list l = { .volumes = v, .n = 4 };
	const struct volume_state *found;
	static const struct {
		const char *name;
		int index;
	} names[] = {
		{ "/dev/nbd3", 0 }, { "nbd3", 0 },	{ "a cookie", 0 },    { "rbd/ns/a", 0 },
		{ "rbd/b@s", 1 },   { "rbd/b@5", 1 },	{ "b@s", 1 },	      { "rbd/b@9", 2 },
		{ "file:/x/y", 3 }, { "/dev/nbd7", 2 }, { "/dev/nbd10", -1 }, { "b", -1 },
		{ "a", -1 },	    { "ns/a", -1 },	{ "y", -1 },	      { "", -1 },
	};

	for (int i = 0; i < 4; i++) {
		volume_state_init(&v[i]);
		strcpy(v[i].pool, "rbd");
		strcpy(v[i].image, i ? "b" : "a");
	}
	strcpy(v[0].nspace, "ns");
	v[0].device = 3;
	strcpy(v[0].cookie, "a cookie");
	strcpy(v[1].snap, "s");
	v[1].snap_id = 5;
	v[2].snap_id = 9;
	v[2].device = 7;
	strcpy(v[3].file, "/x/y");
	for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++) {
		found = NULL;
		fault_clear(&f);
		if (names[i].index < 0) {
			assert_int_equal(state_find(&l, names[i].name, &found, &f), -ENOENT);
			assert_int_equal(f.status, EXIT_NOT_FOUND);
			assert_non_null(strstr(f.message, "is not mapped"));
		} else {
			assert_int_equal(state_find(&l, names[i].name, &found, &f), 0);
			assert_ptr_equal(found, &v[names[i].index]);
		}
	}
}

static void a_name_that_fits_several_is_refused(void **state)
{
	struct volume_state v[3];
	struct state_list l = { .volumes = v, .n = 3 };
	const struct volume_state *found = NULL;

	for (int i = 0; i < 3; i++) {
		volume_state_init(&v[i]);
		strcpy(v[i].pool, i == 2 ? "other" : "rbd");
		strcpy(v[i].image, "a");
		v[i].device = i;
	}
	v[1].device = -1;
	strcpy(v[1].socket, "/s");
	assert_int_equal(state_find(&l, "rbd/a", &found, &f), -ENOTUNIQ);
	assert_string_equal(f.message, "rbd/a: could be rbd/a on /dev/nbd0, rbd/a on /s");
	fault_clear(&f);
	assert_int_equal(state_find(&l, "a", &found, &f), -ENOTUNIQ);
	assert_int_equal(f.status, EXIT_USAGE);
	assert_null(found);
	assert_int_equal(state_find(&l, "other/a", &found, &f), 0);
	assert_ptr_equal(found, &v[2]);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(what_was_claimed_is_listed_in_full),
		TEST(a_snapshot_by_number_comes_back_as_one),
		TEST(a_live_owner_keeps_its_name),
		TEST(a_dead_owner_is_told_by_the_lock_and_taken_over),
		TEST(a_detached_volume_is_not_dead),
		TEST(a_claim_lives_on_in_a_forked_child),
		TEST(updates_leave_no_gap),
		TEST(a_failed_update_leaves_the_old_file),
		TEST(release_does_not_remove_anothers_file),
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
		TEST(only_one_claims_at_a_time),
		TEST(a_race_for_a_dead_owners_name_has_one_winner),
		TEST(old_leftovers_are_removed_young_and_locked_ones_kept),
		TEST(waiting_ends_when_the_owner_does),
		TEST(remove_clears_after_the_dead_only),
		TEST(the_run_directory_is_chosen_in_order),
		TEST(a_reader_without_privilege_sees_the_same),
		TEST(a_name_finds_its_volume),
		TEST(a_name_that_fits_several_is_refused),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
