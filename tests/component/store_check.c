/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Copyright (C) 2026 the rbdcrypt-nbd authors */

/*
 * Drives a store, given by a spec, from outside the daemon: for the scripts in tests/ceph
 * and, without arguments, on files of its own in memory and on disk.
 *
 *   store_check [OPTION]... check SPEC   random IO against a model, then reopen and compare
 *   store_check [OPTION]... bench SPEC   4 KiB random reads; prints operations per second
 *   store_check [OPTION]... trim SPEC    discards everything, or the first 4 GiB
 *   store_check [OPTION]... zero SPEC    the same with zero
 *   store_check [OPTION]... info SPEC    facts of each layer of the chain
 *   store_check [OPTION]... hold SPEC    prints "open", the lock and each change until stdin ends
 *   store_check [OPTION]... connect      only connects
 *
 * Exits with the fault's status and prints "MESSAGE | HINT" on stderr.
 */

#include "checker.h"
#include "image.h"

#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <inttypes.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

struct options {
	struct cluster_options cluster;
	struct store_options store;
	unsigned int ops, depth, seconds;
	uint64_t seed;
};

/* ---- opening ---- */

struct target {
	struct cluster *cluster;
	struct layer *layer;
	struct store *store;
};

static int target_open(const char *text, const struct options *o, struct target *t, struct fault *f)
{
	struct image_spec spec = IMAGE_SPEC_INIT;
	int argc, r;

	r = image_spec_parse(text, &spec, f);
	if (r < 0)
		return r;
	if (!spec.is_file) {
		r = cluster_new(&o->cluster, &argc, &t->cluster, f);
		if (r == 0)
			r = cluster_connect(t->cluster, NULL, f);
	}
	if (r == 0)
		r = layer_open(t->cluster, &spec, o->store.timeout_s, NULL, &t->layer, f);
	if (r == 0)
		r = spec.is_file ? store_open_file(t->layer, &o->store, &t->store, f)
				 : store_open_librbd(t->cluster, t->layer, &o->store, &t->store, f);
	image_spec_done(&spec);
	return r;
}

static void target_close(struct target *t)
{
	store_close(t->store);
	layer_close(t->layer);
	cluster_free(t->cluster);
	*t = (struct target){ 0 };
}

static uint64_t device_size(const struct target *t)
{
	return layer_info(t->layer)->raw_size - t->store->data_offset;
}

/* ---- the commands ---- */

static int cmd_check(const char *spec, const struct options *o, struct fault *f)
{
	struct target t = { 0 };
	struct checker *c;
	int r = target_open(spec, o, &t, f);

	if (r < 0) {
		target_close(&t);
		return r;
	}
	c = checker_new(t.store, device_size(&t), o->depth, o->seed);
	checker_load(c);
	checker_run(c, o->ops);
	target_close(&t);
	r = target_open(spec, o, &t, f);
	if (r == 0) {
		checker_compare(c, t.store);
		checker_print(c, spec);
	}
	target_close(&t);
	checker_free(c);
	return r;
}

static int cmd_bench(const char *spec, const struct options *o, struct fault *f)
{
	struct target t = { 0 };
	struct checker *c;
	int r = target_open(spec, o, &t, f);

	if (r == 0) {
		c = checker_new(t.store, device_size(&t), o->depth, o->seed);
		printf("%.0f\n", checker_bench(c, o->seconds));
		checker_free(c);
	}
	target_close(&t);
	return r;
}

/* One request, as large as NBD's largest. */
static int cmd_once(const char *spec, const struct options *o, bool is_zero, struct fault *f)
{
	struct target t = { 0 };
	struct checker *c;
	uint64_t len;
	int r = target_open(spec, o, &t, f);

	if (r == 0) {
		len = device_size(&t) / CHECKER_BLOCK * CHECKER_BLOCK;
		if (len > UINT32_MAX)
			len = UINT32_MAX / CHECKER_BLOCK * CHECKER_BLOCK;
		c = checker_new(t.store, CHECKER_BLOCK, 1, 1);
		checker_clear(c, len, is_zero);
		checker_free(c);
	}
	target_close(&t);
	return r;
}

static int cmd_trim(const char *spec, const struct options *o, struct fault *f)
{
	return cmd_once(spec, o, false, f);
}

static int cmd_zero(const char *spec, const struct options *o, struct fault *f)
{
	return cmd_once(spec, o, true, f);
}

static void print_layer(const struct layer_info *info)
{
	printf("%s: size %" PRIu64 " overlap %" PRIu64 " object %" PRIu64 " period %" PRIu64
	       " id '%s' snap '%s' features %#" PRIx64 "\n",
	       info->spec, info->raw_size, info->raw_overlap, info->object_size,
	       info->stripe_period, info->image_id, info->snap, info->features);
}

static int cmd_info(const char *text, const struct options *o, struct fault *f)
{
	struct image_spec spec = IMAGE_SPEC_INIT;
	struct target t = { 0 };
	struct layer *parent;
	unsigned char first[4];
	int argc, r;

	r = image_spec_parse(text, &spec, f);
	if (r == 0 && !spec.is_file)
		r = cluster_new(&o->cluster, &argc, &t.cluster, f);
	if (r == 0 && !spec.is_file)
		r = cluster_connect(t.cluster, NULL, f);
	if (r == 0)
		r = layer_open(t.cluster, &spec, o->store.timeout_s, NULL, &t.layer, f);
	while (r == 0) {
		print_layer(layer_info(t.layer));
		r = layer_read(t.layer, 0, first, sizeof(first));
		if (r < 0)
			break;
		r = layer_open_parent(t.layer, &parent, f);
		if (r < 0)
			break;
		layer_close(t.layer);
		t.layer = parent;
	}
	target_close(&t);
	image_spec_done(&spec);
	return r == -ENOENT && !f->message[0] ? 0 : r;
}

static void tell_change(void *arg)
{
	uint64_t one = 1;

	(void)!write(*(int *)arg, &one, sizeof(one));
}

static const char *lock_state(struct store *s)
{
	static struct store_lock lock;

	store_lock(s, &lock);
	return lock.state;
}

static int cmd_hold(const char *spec, const struct options *o, struct fault *f)
{
	struct target t = { 0 };
	uint64_t size, n;
	int fd = eventfd(0, EFD_CLOEXEC);
	struct pollfd fds[2] = { { .fd = STDIN_FILENO, .events = POLLIN },
				 { .fd = fd, .events = POLLIN } };
	int r = target_open(spec, o, &t, f);

	if (r == 0) {
		store_on_change(t.store, tell_change, &fd);
		printf("open lock=%s writethrough=%d atomic=%d\n", lock_state(t.store),
		       t.store->is_writethrough, t.store->has_atomic_sectors);
		fflush(stdout);
	}
	while (r == 0 && poll(fds, 2, -1) > 0 && !fds[0].revents) {
		(void)!read(fd, &n, sizeof(n));
		r = t.store->ops->raw_size(t.store, &size);
		printf("changed size=%" PRIu64 " lock=%s\n", r < 0 ? 0 : size, lock_state(t.store));
		fflush(stdout);
	}
	target_close(&t);
	(void)close(fd);
	return r;
}

static int cmd_connect(const char *spec, const struct options *o, struct fault *f)
{
	struct cluster *c = NULL;
	char text[128] = "";
	int argc = 0, r = cluster_new(&o->cluster, &argc, &c, f);

	(void)spec;
	if (r == 0)
		r = cluster_connect(c, NULL, f);
	if (r == 0)
		r = cluster_fsid(c, text, sizeof(text));
	if (r == 0)
		printf("fsid %s left %d\n", text, argc);
	cluster_free(c);
	return r;
}

/* Files of our own: in memory, and on whatever disk $TMPDIR is. */
static int cmd_self(const char *spec, const struct options *o, struct fault *f)
{
	const char *const dirs[] = { "/dev/shm", getenv("TMPDIR") ? getenv("TMPDIR") : "/tmp" };
	char path[4096], text[4102];
	int fd, r = 0;

	(void)spec;
	for (unsigned int i = 0; r == 0 && i < 2; i++) {
		(void)snprintf(path, sizeof(path), "%s/store_check.XXXXXX", dirs[i]);
		fd = mkostemp(path, O_CLOEXEC);
		if (fd < 0 || ftruncate(fd, 24 << 20) < 0)
			return fault_set(f, EXIT_NOT_FOUND, -errno, "%s: %s", path,
					 strerror(errno));
		(void)close(fd);
		(void)snprintf(text, sizeof(text), "file:%s", path);
		r = cmd_check(text, o, f);
		(void)unlink(path);
	}
	return r;
}

struct command {
	const char *name;
	int (*run)(const char *spec, const struct options *o, struct fault *f);
};
static const struct command commands[] = {
	{ "trim", cmd_trim },	    { "zero", cmd_zero }, { "check", cmd_check },
	{ "bench", cmd_bench },	    { "info", cmd_info }, { "hold", cmd_hold },
	{ "connect", cmd_connect }, { "self", cmd_self },
};

static int parse(int argc, char **argv, struct options *o)
{
	static const struct option known[] = {
		{ "conf", required_argument, NULL, 'c' },
		{ "name", required_argument, NULL, 'n' },
		{ "timeout", required_argument, NULL, 't' },
		{ "read-only", no_argument, NULL, 'r' },
		{ "exclusive", no_argument, NULL, 'x' },
		{ "direct", no_argument, NULL, 'D' },
		{ "encrypted", no_argument, NULL, 'e' },
		{ "data-offset", required_argument, NULL, 'o' },
		{ "ops", required_argument, NULL, 'p' },
		{ "depth", required_argument, NULL, 'd' },
		{ "seconds", required_argument, NULL, 's' },
		{ "seed", required_argument, NULL, 'S' },
		{ 0 },
	};
	int c;

	*o = (struct options){ .ops = 3000, .depth = 16, .seconds = 2, .seed = 1 };
	o->store.timeout_s = o->cluster.timeout_s = 20;
	while ((c = getopt_long(argc, argv, "", known, NULL)) >= 0) {
		uint64_t n = optarg ? strtoull(optarg, NULL, 0) : 0;

		switch (c) {
		case 'c':
			o->cluster.conf = optarg;
			break;
		case 'n':
			o->cluster.name = optarg;
			break;
		case 't':
			o->store.timeout_s = o->cluster.timeout_s = (unsigned int)n;
			break;
		case 'r':
			o->store.is_read_only = true;
			break;
		case 'x':
			o->store.is_exclusive = true;
			break;
		case 'D':
			o->store.has_direct_reads = true;
			break;
		case 'e':
			o->store.is_encrypted = true;
			break;
		case 'o':
			o->store.data_offset = n;
			break;
		case 'p':
			o->ops = (unsigned int)n;
			break;
		case 'd':
			o->depth = (unsigned int)n;
			break;
		case 's':
			o->seconds = (unsigned int)n;
			break;
		case 'S':
			o->seed = n;
			break;
		default:
			return -EINVAL;
		}
	}
	return optind;
}

int main(int argc, char **argv)
{
	const char *words[32] = { argv[0] };
	const char *name = "self", *spec = NULL;
	struct fault f = { 0 };
	struct options o;
	int r, at = parse(argc, argv, &o);

	if (at < 0)
		return EXIT_USAGE;
	if (at < argc)
		name = argv[at++];
	if (at < argc && strcmp(name, "connect") != 0)
		spec = argv[at++];
	/* What is left, after "--", is for Ceph. */
	o.cluster.argc = 1;
	o.cluster.argv = words;
	while (at < argc && o.cluster.argc < 31)
		words[o.cluster.argc++] = argv[at++];
	for (unsigned int i = 0; i < sizeof(commands) / sizeof(commands[0]); i++) {
		if (strcmp(name, commands[i].name) != 0)
			continue;
		r = commands[i].run(spec, &o, &f);
		if (r < 0)
			fprintf(stderr, "store_check: %s | %s\n", f.message, f.hint);
		return r < 0 ? (int)f.status : 0;
	}
	return EXIT_USAGE;
}
