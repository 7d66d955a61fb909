/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Copyright (C) 2026 the rbdcrypt-nbd authors */

/*
 * librados and librbd in 64 KiB of memory, for one test program: these definitions come
 * before the libraries'. Any function can be made to fail, or to be slow, by its name. What
 * is opened is counted, so that a test can see that all of it was closed.
 */

#ifndef FAKE_LIBRBD_H
#define FAKE_LIBRBD_H

#include <errno.h>
#include <pthread.h>
#include <rados/librados.h>
#include <rbd/librbd.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define FAKE_SIZE 65536u
#define FAKE_OBJECT 8192u

struct fake_extent {
	uint64_t off;
	size_t len;
};

static struct {
	/* Late calls look at these when the test is elsewhere. */
	pthread_mutex_t lock;
	char failing[64]; /* lock; "" for none */
	int error; /* lock */
	unsigned int sleep_s; /* lock; it is slow as well, or only slow if error is 0 */
	atomic_uint n_slow; /* calls that have begun to be */
	/* What is open. */
	atomic_int clusters, ioctxs, images, watches, completions, lists;
	atomic_uint aios; /* submitted */
	atomic_uint flushes; /* that were waited for */
	/* What it is. */
	unsigned char bytes[FAKE_SIZE];
	uint64_t size;
	uint64_t features;
	uint64_t stripe_count;
	uint64_t object_size;
	uint64_t overlap; /* with the parent */
	uint8_t is_old;
	bool has_parent;
	int is_owner;
	const char *owner; /* of the lock, NULL: nobody */
	const char *cache, *cache_policy, *plugins, *cache_mode, *copy_on_read, *limit, *replica;
	rbd_config_source_t source; /* of all settings */
	bool has_id; /* the image is there, whether it can be opened or not */
	bool may_not_write; /* only read-only opens succeed */
	bool has_no_namespace;
	size_t short_by; /* of each read */
	bool is_holding; /* changes and reads stay under way until fake_go_on() */
	void *held[64];
	unsigned int n_held;
	const char *inflight_ops,
		*inflight_bytes; /* of Ceph's client, before and behind the file */
	const char *file_inflight_ops, *file_inflight_bytes; /* NULL: not in the file */
	struct fake_extent extents[8];
	unsigned int n_extents;
	int last_zero_flags;
	uint64_t last_off, last_len;
	void (*watch)(void *arg);
	void *watch_arg;
} fake;

static void fake_reset(void)
{
	memset(&fake, 0, sizeof(fake));
	pthread_mutex_init(&fake.lock, NULL);
	fake.size = FAKE_SIZE;
	fake.features = RBD_FEATURES_DEFAULT;
	fake.stripe_count = 1;
	fake.object_size = FAKE_OBJECT;
	fake.overlap = FAKE_SIZE / 2;
	fake.inflight_ops = "1024";
	fake.inflight_bytes = "104857600";
	fake.cache = "false";
	fake.cache_policy = "writethrough";
	fake.plugins = "";
	fake.cache_mode = "disabled";
	fake.copy_on_read = "false";
	fake.limit = "0";
	fake.replica = "default";
}

/* From now on name fails with error, after sleep_s. "": nothing does. */
static inline void make_fail(const char *name, int error, unsigned int sleep_s)
{
	pthread_mutex_lock(&fake.lock);
	(void)snprintf(fake.failing, sizeof(fake.failing), "%s", name);
	fake.error = error;
	fake.sleep_s = sleep_s;
	pthread_mutex_unlock(&fake.lock);
}

static int strike(const char *name)
{
	unsigned int sleep_s = 0;
	int r = 0;

	pthread_mutex_lock(&fake.lock);
	if (strcmp(fake.failing, name) == 0) {
		r = fake.error;
		sleep_s = fake.sleep_s;
	}
	pthread_mutex_unlock(&fake.lock);
	if (sleep_s) {
		atomic_fetch_add(&fake.n_slow, 1);
		(void)sleep(sleep_s);
	}
	return r;
}

#define STRIKE()                                                                                   \
	do {                                                                                       \
		int strike_r = strike(__func__);                                                   \
		if (strike_r < 0)                                                                  \
			return strike_r;                                                           \
	} while (0)

/* ---- librados ---- */

int rados_create2(rados_t *ret, const char *const cluster, const char *const name, uint64_t flags)
{
	STRIKE();
	*ret = &fake;
	fake.clusters++;
	return 0;
}

void rados_shutdown(rados_t cluster)
{
	fake.clusters--;
}

int rados_conf_read_file(rados_t cluster, const char *path)
{
	STRIKE();
	if (fake.file_inflight_ops)
		fake.inflight_ops = fake.file_inflight_ops;
	if (fake.file_inflight_bytes)
		fake.inflight_bytes = fake.file_inflight_bytes;
	return 0;
}

int rados_conf_parse_argv_remainder(rados_t cluster, int argc, const char **argv, const char **rest)
{
	STRIKE();
	for (int i = 0; i < argc; i++)
		rest[i] = argv[i];
	return 0;
}

int rados_conf_set(rados_t cluster, const char *option, const char *value)
{
	STRIKE();
	if (strcmp(option, "objecter_inflight_ops") == 0)
		fake.inflight_ops = value;
	if (strcmp(option, "objecter_inflight_op_bytes") == 0)
		fake.inflight_bytes = value;
	return 0;
}

int rados_conf_get(rados_t cluster, const char *option, char *buf, size_t len)
{
	STRIKE();
	(void)snprintf(buf, len, "%s",
		       strcmp(option, "rbd_default_pool") == 0		   ? "rbd"
		       : strcmp(option, "objecter_inflight_ops") == 0	   ? fake.inflight_ops
		       : strcmp(option, "objecter_inflight_op_bytes") == 0 ? fake.inflight_bytes
									   : "some");
	return 0;
}

int rados_connect(rados_t cluster)
{
	STRIKE();
	return 0;
}

int rados_ioctx_create(rados_t cluster, const char *pool, rados_ioctx_t *ret)
{
	STRIKE();
	*ret = &fake;
	fake.ioctxs++;
	return 0;
}

int rados_ioctx_create2(rados_t cluster, int64_t id, rados_ioctx_t *ret)
{
	STRIKE();
	*ret = &fake;
	fake.ioctxs++;
	return 0;
}

void rados_ioctx_destroy(rados_ioctx_t io)
{
	fake.ioctxs--;
}

void rados_ioctx_set_namespace(rados_ioctx_t io, const char *nspace)
{
}

int64_t rados_ioctx_get_id(rados_ioctx_t io)
{
	return 7;
}

int rados_ioctx_get_pool_name(rados_ioctx_t io, char *buf, unsigned len)
{
	STRIKE();
	(void)snprintf(buf, len, "rbd");
	return 0;
}

int rados_stat(rados_ioctx_t io, const char *object, uint64_t *size, time_t *changed)
{
	return fake.has_id ? 0 : -ENOENT;
}

/* ---- opening ---- */

static int fake_open(rbd_image_t *ret)
{
	*ret = &fake;
	fake.images++;
	return 0;
}

int rbd_open(rados_ioctx_t io, const char *name, rbd_image_t *ret, const char *snap)
{
	STRIKE();
	return fake_open(ret);
}

int rbd_open_read_only(rados_ioctx_t io, const char *name, rbd_image_t *ret, const char *snap)
{
	STRIKE();
	return fake_open(ret);
}

int rbd_open_by_id(rados_ioctx_t io, const char *id, rbd_image_t *ret, const char *snap)
{
	STRIKE();
	return fake.may_not_write ? -EPERM : fake_open(ret);
}

int rbd_open_by_id_read_only(rados_ioctx_t io, const char *id, rbd_image_t *ret, const char *snap)
{
	STRIKE();
	return fake_open(ret);
}

int rbd_close(rbd_image_t image)
{
	(void)strike(__func__);
	fake.images--;
	return 0;
}

int rbd_snap_set(rbd_image_t image, const char *name)
{
	STRIKE();
	return 0;
}

int rbd_snap_set_by_id(rbd_image_t image, uint64_t id)
{
	STRIKE();
	return 0;
}

int rbd_namespace_exists(rados_ioctx_t io, const char *name, bool *ret)
{
	STRIKE();
	*ret = !fake.has_no_namespace;
	return 0;
}

/* ---- facts ---- */

int rbd_get_old_format(rbd_image_t image, uint8_t *ret)
{
	STRIKE();
	*ret = fake.is_old;
	return 0;
}

int rbd_get_id(rbd_image_t image, char *buf, size_t len)
{
	STRIKE();
	(void)snprintf(buf, len, "1234");
	return 0;
}

int rbd_get_name(rbd_image_t image, char *buf, size_t *len)
{
	STRIKE();
	(void)snprintf(buf, *len, "img");
	return 0;
}

int rbd_snap_get_id(rbd_image_t image, const char *name, uint64_t *ret)
{
	STRIKE();
	*ret = 3;
	return 0;
}

int rbd_snap_get_name(rbd_image_t image, uint64_t id, char *buf, size_t *len)
{
	STRIKE();
	(void)snprintf(buf, *len, "snap");
	return 0;
}

int rbd_stat(rbd_image_t image, rbd_image_info_t *ret, size_t len)
{
	STRIKE();
	memset(ret, 0, len);
	ret->size = fake.size;
	ret->obj_size = fake.object_size;
	return 0;
}

int rbd_get_size(rbd_image_t image, uint64_t *ret)
{
	STRIKE();
	*ret = fake.size;
	return 0;
}

int rbd_get_stripe_unit(rbd_image_t image, uint64_t *ret)
{
	STRIKE();
	*ret = fake.stripe_count > 1 ? 4096 : fake.object_size;
	return 0;
}

int rbd_get_stripe_count(rbd_image_t image, uint64_t *ret)
{
	STRIKE();
	*ret = fake.stripe_count;
	return 0;
}

int rbd_get_features(rbd_image_t image, uint64_t *ret)
{
	STRIKE();
	*ret = fake.features;
	return 0;
}

int rbd_get_overlap(rbd_image_t image, uint64_t *ret)
{
	STRIKE();
	*ret = fake.overlap;
	return 0;
}

int rbd_get_parent(rbd_image_t image, rbd_linked_image_spec_t *ret, rbd_snap_spec_t *ret_snap)
{
	STRIKE();
	if (!fake.has_parent)
		return -ENOENT;
	fake.has_parent = false; /* it has none itself */
	fake.lists += 2;
	*ret = (rbd_linked_image_spec_t){ .pool_id = 7,
					  .pool_name = strdup("rbd"),
					  .pool_namespace = strdup("ns"),
					  .image_id = strdup("99"),
					  .image_name = strdup("golden") };
	*ret_snap = (rbd_snap_spec_t){ .id = 3, .name = strdup("v1") };
	return 0;
}

void rbd_linked_image_spec_cleanup(rbd_linked_image_spec_t *s)
{
	fake.lists--;
	free(s->pool_name);
	free(s->pool_namespace);
	free(s->image_id);
	free(s->image_name);
}

void rbd_snap_spec_cleanup(rbd_snap_spec_t *s)
{
	fake.lists--;
	free(s->name);
}

int rbd_config_image_list(rbd_image_t image, rbd_config_option_t *ret, int *n)
{
	STRIKE();
	const char *const options[][2] = { { "rbd_qos_read_iops_limit", fake.limit },
					   { "rbd_read_from_replica_policy", fake.replica },
					   { "rbd_cache", fake.cache },
					   { "rbd_cache_policy", fake.cache_policy },
					   { "rbd_plugins", fake.plugins },
					   { "rbd_persistent_cache_mode", fake.cache_mode },
					   { "rbd_clone_copy_on_read", fake.copy_on_read } };
	const int count = sizeof(options) / sizeof(options[0]);

	if (*n < count) {
		*n = count;
		return -ERANGE;
	}
	*n = count;
	for (int i = 0; i < count; i++)
		ret[i] = (rbd_config_option_t){ .name = strdup(options[i][0]),
						.value = strdup(options[i][1]),
						.source = fake.source };
	fake.lists++;
	return 0;
}

void rbd_config_image_list_cleanup(rbd_config_option_t *list, int n)
{
	fake.lists--;
	for (int i = 0; i < n; i++) {
		free(list[i].name);
		free(list[i].value);
	}
}

/* ---- lock and watches ---- */

int rbd_lock_acquire(rbd_image_t image, rbd_lock_mode_t mode)
{
	STRIKE();
	fake.is_owner = 1;
	return 0;
}

int rbd_is_exclusive_lock_owner(rbd_image_t image, int *ret)
{
	STRIKE();
	*ret = fake.is_owner;
	return 0;
}

int rbd_lock_get_owners(rbd_image_t image, rbd_lock_mode_t *mode, char **owners, size_t *n)
{
	STRIKE();
	if (!fake.owner)
		return -ENOENT;
	owners[0] = strdup(fake.owner);
	*n = 1;
	return 0;
}

void rbd_lock_get_owners_cleanup(char **owners, size_t n)
{
	while (n > 0)
		free(owners[--n]);
}

int rbd_update_watch(rbd_image_t image, uint64_t *ret, rbd_update_callback_t cb, void *arg)
{
	STRIKE();
	fake.watch = cb;
	fake.watch_arg = arg;
	fake.watches++;
	*ret = 5;
	return 0;
}

int rbd_update_unwatch(rbd_image_t image, uint64_t watch)
{
	STRIKE();
	fake.watches--;
	return 0;
}

/* ---- IO: finishes before the call returns, unless fake.is_holding ---- */

struct fake_completion {
	void *arg;
	rbd_callback_t cb;
	ssize_t result;
};

int rbd_aio_create_completion(void *arg, rbd_callback_t cb, rbd_completion_t *ret)
{
	struct fake_completion *c;

	STRIKE();
	c = malloc(sizeof(*c));
	if (!c)
		return -ENOMEM;
	*c = (struct fake_completion){ .arg = arg, .cb = cb };
	fake.completions++;
	*ret = c;
	return 0;
}

void rbd_aio_release(rbd_completion_t c)
{
	fake.completions--;
	free(c);
}

ssize_t rbd_aio_get_return_value(rbd_completion_t c)
{
	return ((struct fake_completion *)c)->result;
}

/* "NAME" fails to be submitted, "NAME done" fails later. */
static int fake_finish(const char *name, rbd_completion_t c, ssize_t result)
{
	struct fake_completion *completion = c;
	char done[64];
	int r;

	(void)snprintf(done, sizeof(done), "%s done", name);
	r = strike(done);
	fake.aios++;
	completion->result = r < 0 ? r : result;
	if (fake.is_holding)
		fake.held[fake.n_held++] = c;
	else
		completion->cb(c, completion->arg);
	return 0;
}

/* The one that is held for the longest time comes to its end. */
static inline void fake_go_on(void)
{
	struct fake_completion *completion = fake.held[0];

	fake.n_held--;
	memmove(fake.held, fake.held + 1, fake.n_held * sizeof(*fake.held));
	completion->cb(completion, completion->arg);
}

int rbd_aio_read(rbd_image_t image, uint64_t off, size_t len, char *buf, rbd_completion_t c)
{
	STRIKE();
	memcpy(buf, fake.bytes + off, len);
	return fake_finish(__func__, c, (ssize_t)(len - fake.short_by));
}

int rbd_aio_write(rbd_image_t image, uint64_t off, size_t len, const char *buf, rbd_completion_t c)
{
	STRIKE();
	fake.last_off = off;
	fake.last_len = len;
	if (off + len <= FAKE_SIZE)
		memcpy(fake.bytes + off, buf, len);
	return fake_finish(__func__, c, 0);
}

static void fake_clear(uint64_t off, uint64_t len)
{
	fake.last_off = off;
	fake.last_len = len;
	if (off + len <= FAKE_SIZE)
		memset(fake.bytes + off, 0, len);
}

int rbd_aio_write_zeroes(rbd_image_t image, uint64_t off, size_t len, rbd_completion_t c,
			 int zero_flags, int op_flags)
{
	STRIKE();
	fake.last_zero_flags = zero_flags;
	fake_clear(off, len);
	return fake_finish(__func__, c, 0);
}

int rbd_aio_discard(rbd_image_t image, uint64_t off, uint64_t len, rbd_completion_t c)
{
	STRIKE();
	fake_clear(off, len);
	return fake_finish(__func__, c, 0);
}

int rbd_aio_flush(rbd_image_t image, rbd_completion_t c)
{
	STRIKE();
	return fake_finish(__func__, c, 0);
}

int rbd_flush(rbd_image_t image)
{
	STRIKE();
	fake.flushes++;
	return 0;
}

ssize_t rbd_read(rbd_image_t image, uint64_t off, size_t len, char *buf)
{
	STRIKE();
	/* Librbd may give less than asked for. */
	if (len > 1000)
		len = 1000;
	if (off >= fake.size)
		return 0;
	memcpy(buf, fake.bytes + off, len);
	return (ssize_t)len;
}

int rbd_diff_iterate2(rbd_image_t image, const char *from, uint64_t off, uint64_t len,
		      uint8_t include_parent, uint8_t whole_object,
		      int (*cb)(uint64_t, size_t, int, void *), void *arg)
{
	STRIKE();
	for (unsigned int i = 0; i < fake.n_extents; i++) {
		int r = cb(fake.extents[i].off, fake.extents[i].len, 1, arg);

		if (r < 0)
			return r;
	}
	return 0;
}

#endif
