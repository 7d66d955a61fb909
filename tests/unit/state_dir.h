/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Copyright (C) 2026 the rbdcrypt-nbd authors */

#ifndef TESTS_STATE_DIR_H
#define TESTS_STATE_DIR_H

/*
 * A run directory of its own for each test, volumes to put into it, and owners that are
 * processes, so that they can die. Included once, by a test program, after cmocka.h.
 */

#include <dirent.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "../../daemon/state.h"

static char dir[64];
static struct fault f;

static inline int setup(void **state)
{
	strcpy(dir, "/tmp/rbdcrypt-state-XXXXXX");
	fault_clear(&f);
	return mkdtemp(dir) ? 0 : -1;
}

static inline const char *path_of(const char *name)
{
	static char path[512];

	snprintf(path, sizeof(path), "%s/%s", dir, name);
	return path;
}

static inline int teardown(void **state)
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

static inline void make_file(const char *name, const char *text)
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

static inline void fill(struct volume_state *v)
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

static inline struct state *claim(const char *key, const struct volume_state *v)
{
	struct state *s = NULL;

	assert_int_equal(state_claim(dir, key, v, &s, &f), 0);
	assert_non_null(s);
	return s;
}

static inline void get_list(struct state_list *l)
{
	assert_int_equal(state_list(dir, l, &f), 0);
}

/* A child that claims, tells, and lives until the pipe is closed. */
struct owner {
	pid_t pid;
	int stop;
};

static inline void start_owner(struct owner *o, const struct volume_state *v, const char *key)
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

static inline void stop_owner(struct owner *o)
{
	close(o->stop);
	assert_int_equal(waitpid(o->pid, NULL, 0), o->pid);
}

#endif
