/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Copyright (C) 2026 the rbdcrypt-nbd authors */

/*
 * object-map-tool COMMAND IMAGE-ID [ARGUMENT]...: what the engine does to an image's header and
 * object maps, in pool rbd of the cluster that CEPH_CONF names, for others to judge.
 *
 *   facts ID             prints the header's facts
 *   take ID              takes the map, prints whether it is believed, gives it back
 *   work ID SEED N       N rounds of 32 objects that are written or removed; prints what exists
 *   copyup ID OBJECT     copies an object up into head and snapshots, and writes to it
 *   forget ID OBJECT     writes an object that no map is told of
 *   shut-out ID          is blocklisted, and says what a change came to then
 */

#include <errno.h>
#include <inttypes.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "../../include/store.h"
#include "../../rbd/object_map.h"

#define COOKIE "auto 4242"
#define BATCH 32u

static rados_t cluster;
static rados_ioctx_t io, data_io; /* the second has the snapshots that are to stay as they are */
static struct image_facts facts;
static struct object_map *map;
static const char *id;

static void check(int r, const char *what)
{
	if (r >= 0)
		return;
	(void)fprintf(stderr, "object-map-tool: %s: %s\n", what, strerror(-r));
	exit(1);
}

static rados_t connect_cluster(void)
{
	const char *conf = getenv("CEPH_CONF");
	rados_t c;

	check(rados_create(&c, "admin"), "rados_create");
	check(rados_conf_read_file(c, conf), "configuration");
	check(rados_connect(c), "connect");
	return c;
}

/* ---- waiting for changes ---- */

static struct {
	pthread_mutex_t lock;
	pthread_cond_t changed;
	unsigned int pending;
	int error;
} waits = { .lock = PTHREAD_MUTEX_INITIALIZER, .changed = PTHREAD_COND_INITIALIZER };

static void on_done(struct map_wait *w)
{
	(void)pthread_mutex_lock(&waits.lock);
	if (w->result < 0)
		waits.error = w->result;
	waits.pending--;
	(void)pthread_cond_signal(&waits.changed);
	(void)pthread_mutex_unlock(&waits.lock);
}

static void begin(struct map_wait *w)
{
	memset(w, 0, sizeof(*w));
	w->done = on_done;
	(void)pthread_mutex_lock(&waits.lock);
	waits.pending++;
	(void)pthread_mutex_unlock(&waits.lock);
}

static void set(struct map_wait *w, uint64_t object, enum object_state to, int current)
{
	begin(w);
	if (object_map_set(map, w, object, to, current) == STORE_DONE)
		on_done(w);
}

static int wait_all(void)
{
	int r;

	(void)pthread_mutex_lock(&waits.lock);
	while (waits.pending)
		(void)pthread_cond_wait(&waits.changed, &waits.lock);
	r = waits.error;
	waits.error = 0;
	(void)pthread_mutex_unlock(&waits.lock);
	return r;
}

/* ---- locks ---- */

static void on_header(void (*step)(rados_write_op_t op))
{
	struct patience p = patience_for(30, NULL);
	rados_write_op_t op = rados_create_write_op();
	char name[128];

	(void)snprintf(name, sizeof(name), "rbd_header.%s", id);
	step(op);
	check(osd_write(io, name, op, &p), "the header's lock");
}

static void step_lock(rados_write_op_t op)
{
	cls_lock(op, COOKIE, CLS_TAG_HEADER);
}

static void step_unlock(rados_write_op_t op)
{
	cls_unlock(op, COOKIE);
}

static void take(void)
{
	struct patience p = patience_for(30, NULL);
	struct layout layout = { .stripe_count = 1 };

	on_header(step_lock);
	check(facts_read(io, id, &p, &facts), "facts");
	check(rados_ioctx_selfmanaged_snap_set_write_ctx(data_io, facts.snap_seq, facts.snaps,
							 (int)facts.n_snaps),
	      "snapshots");
	layout.object_size = layout.stripe_unit = 1ull << facts.order;
	check(object_map_new(io, id, "the image", &layout, &map), "object_map_new");
	check(object_map_take(map, &facts, COOKIE, &p), "object_map_take");
}

static void give(void)
{
	struct patience p = patience_for(30, NULL);

	check(object_map_give(map, &p), "object_map_give");
	map = object_map_free(map);
	facts_done(&facts);
	on_header(step_unlock);
}

/* ---- objects ---- */

static void name_object(char name[128], uint64_t object)
{
	(void)snprintf(name, 128, "rbd_data.%s.%016" PRIx64, id, object);
}

static void write_object(uint64_t object)
{
	char name[128];

	name_object(name, object);
	check(rados_write(data_io, name, "data", 4, 0), name);
}

static void remove_object(uint64_t object)
{
	char name[128];
	int r;

	name_object(name, object);
	r = rados_remove(data_io, name);
	check(r == -ENOENT ? 0 : r, name);
}

static void work_round(bool *exists, uint64_t n_objects)
{
	struct map_wait w[BATCH];
	uint64_t objects[BATCH];
	bool is_write[BATCH];

	for (unsigned int i = 0; i < BATCH; i++) {
		/* No object twice: they lie in slices, and some in a row. */
		uint64_t slice = n_objects / BATCH;

		objects[i] = i * slice + (i % 3 ? 0 : (uint64_t)rand() % slice);
		is_write[i] = rand() % 3 != 0;
		set(&w[i], objects[i], is_write[i] ? OBJECT_EXISTS : OBJECT_PENDING,
		    is_write[i] ? CLS_ANY_STATE : OBJECT_EXISTS);
	}
	check(wait_all(), "change");
	for (unsigned int i = 0; i < BATCH; i++) {
		exists[objects[i]] = is_write[i];
		if (is_write[i])
			write_object(objects[i]);
		else
			remove_object(objects[i]);
	}
	for (unsigned int i = 0; i < BATCH; i++)
		if (!is_write[i])
			set(&w[i], objects[i], OBJECT_NONE, OBJECT_PENDING);
	check(wait_all(), "change");
}

/* What the map knows is what is there. */
static void work(unsigned int seed, unsigned int rounds)
{
	uint64_t n = facts.size >> facts.order;
	bool *exists = calloc(n, sizeof(*exists));

	if (!exists || n < BATCH)
		check(exists ? -EINVAL : -ENOMEM, "work");
	for (uint64_t o = 0; o < n; o++)
		exists[o] = !object_map_is_none(map, o);
	srand(seed);
	for (unsigned int i = 0; i < rounds; i++)
		work_round(exists, n);
	for (uint64_t o = 0; o < n; o++) {
		if (exists[o] == object_map_is_none(map, o))
			check(-EILSEQ, "the map in memory");
		if (exists[o])
			(void)printf("%" PRIu64 "\n", o);
	}
	free(exists);
}

static void copyup(uint64_t object)
{
	rados_write_op_t op = rados_create_write_op();
	struct patience p = patience_for(30, NULL);
	struct map_wait w;
	char name[128];

	set(&w, object, OBJECT_EXISTS, CLS_ANY_STATE);
	check(wait_all(), "change");
	begin(&w);
	if (object_map_copyup(map, &w, object) == STORE_DONE)
		on_done(&w);
	check(wait_all(), "copy-up");
	name_object(name, object);
	cls_copyup(op, "copy", 4);
	check(osd_write(io, name, op, &p), "copyup");
	write_object(object);
}

static void shut_out(void)
{
	rados_t other = connect_cluster();
	char *addrs = NULL;
	struct map_wait w;

	check(rados_getaddrs(cluster, &addrs), "rados_getaddrs");
	check(rados_blocklist_add(other, addrs, 3600), "rados_blocklist_add");
	check(rados_wait_for_latest_osdmap(other), "osdmap");
	check(rados_wait_for_latest_osdmap(cluster), "osdmap");
	set(&w, 1, OBJECT_EXISTS, CLS_ANY_STATE);
	(void)printf("%s\n", strerror(-wait_all()));
	rados_buffer_free(addrs);
	rados_shutdown(other);
}

static void print_facts(void)
{
	struct patience p = patience_for(30, NULL);

	check(facts_read(io, id, &p, &facts), "facts");
	(void)printf("size %" PRIu64 "\norder %u\nfeatures %" PRIu64 "\nflags %" PRIu64 "\n",
		     facts.size, facts.order, facts.features, facts.flags);
	(void)printf("snaps");
	for (uint32_t i = 0; i < facts.n_snaps; i++)
		(void)printf(" %" PRIu64, facts.snaps[i]);
	(void)printf("\n");
	if (facts.has_parent)
		(void)printf("parent %" PRId64 " '%s' %s %" PRIu64 " overlap %" PRIu64 "\n",
			     facts.parent_pool, facts.parent_nspace, facts.parent_id,
			     facts.parent_snap, facts.raw_overlap);
	facts_done(&facts);
}

int main(int argc, char **argv)
{
	const char *command = argc > 2 ? argv[1] : "";
	uint64_t number = argc > 3 ? strtoull(argv[3], NULL, 10) : 0;

	id = argc > 2 ? argv[2] : "";
	cluster = connect_cluster();
	check(rados_ioctx_create(cluster, "rbd", &io), "pool rbd");
	check(rados_ioctx_create(cluster, "rbd", &data_io), "pool rbd");
	if (strcmp(command, "facts") == 0) {
		print_facts();
	} else if (strcmp(command, "forget") == 0) {
		write_object(number);
	} else if (strcmp(command, "shut-out") == 0) {
		take();
		shut_out();
		return 0; /* the lock stays, as a dead owner's does */
	} else {
		take();
		if (strcmp(command, "take") == 0)
			(void)printf("%s\n", object_map_is_none(map, 0) ? "none" : "unknown");
		else if (strcmp(command, "work") == 0 && argc > 4)
			work((unsigned int)number, (unsigned int)strtoul(argv[4], NULL, 10));
		else if (strcmp(command, "copyup") == 0)
			copyup(number);
		else
			check(-EINVAL, "no such command");
		give();
	}
	rados_ioctx_destroy(data_io);
	rados_ioctx_destroy(io);
	rados_shutdown(cluster);
	return 0;
}
