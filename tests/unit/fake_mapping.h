/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Copyright (C) 2026 the rbdcrypt-nbd authors */

#ifndef TESTS_FAKE_MAPPING_H
#define TESTS_FAKE_MAPPING_H

/*
 * A host over mappings that start, fail, hang and end as they are told to. It lives on a control
 * thread, as in a daemon; what a test asks of it is done there. Included once, by a test program.
 */

#include <errno.h>
#include <pthread.h>
#include <semaphore.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <unistd.h>

#include <cmocka.h>

#include "../../daemon/clusters.h"
#include "../../daemon/host.h"
#include "../../daemon/setup.h"
#include "leftovers.h"
#include "rig.h"

#define N 40
#define PATIENCE_MS 30000
/* Nobody ended it. */
#define NO_END (-1)

struct mapping {
	struct mapping_options o;
	struct volume_state state;
	struct watch poke; /* what its loop has to do */
};

/* The image file:/i, and what becomes of it. */
struct image {
	/* Set before it is added: */
	int cluster_error, error;
	bool is_gone_at_once;
	atomic_bool heeds_interruption, holds_start, holds_stop;
	/* Seen: */
	atomic_uint n_starts, n_started, n_stops, n_announced, n_ended;
	atomic_int end; /* enum mapping_end */
	atomic_bool was_interrupted; /* when its start was done */
	atomic_int poke_fd; /* an event of its loop, from its start on */
	atomic_uint n_poked;
	struct mapping_options seen;
	char request[64], resumed[64];
	struct host_volume_service service; /* as it was when it was announced */
	struct fault fault; /* as it was when it had ended; error 0: none */
	unsigned int n_left; /* volumes of the host at that time */
};

static struct {
	struct loop *loop;
	struct host *host;
	struct watch ask;
	pthread_t thread;
	sem_t done;
	void (*what)(void *arg);
	void *arg;
	struct image images[N];
	struct host_volume *volumes[N]; /* until each has ended; the control thread's */
	int add_next; /* by who is told of an end; -1: none */
	atomic_int n_held; /* holds on clusters */
	atomic_bool was_early; /* the clusters were freed while one was held */
	int fds, threads; /* before */
} t;

/* ---- what is below the host ---- */

static inline struct image *image_of(const struct image_spec *spec)
{
	int i = atoi(spec->image + 1);

	if (i < 0 || i >= N)
		abort();
	return &t.images[i];
}

static inline void hold(const atomic_bool *is_held)
{
	while (atomic_load(is_held))
		(void)usleep(500);
}

int clusters_new(struct clusters **ret)
{
	*ret = (struct clusters *)&t;
	return 0;
}

struct clusters *clusters_free(struct clusters *c)
{
	if (c && atomic_load(&t.n_held) != 0)
		atomic_store(&t.was_early, true);
	return NULL;
}

void clusters_retire(struct clusters *c, const struct cluster *cluster)
{
	(void)c;
	(void)cluster;
}

struct cluster *clusters_put(struct clusters *c, struct cluster *cluster)
{
	if (cluster)
		atomic_fetch_sub(&t.n_held, 1);
	return NULL;
}

int setup_cluster(struct options *o, struct clusters *clusters, const struct interrupt *interrupt,
		  struct cluster **ret, struct fault *f)
{
	struct image *i = image_of(&o->spec);

	/* As the real one: what was got has to be given back, even so. */
	*ret = (struct cluster *)i;
	atomic_fetch_add(&t.n_held, 1);
	return i->cluster_error < 0 ? fault_set(f, EXIT_CLUSTER, i->cluster_error, "no cluster")
				    : 0;
}

static inline void on_poke(struct watch *w)
{
	struct mapping *m = (struct mapping *)((char *)w - offsetof(struct mapping, poke));

	event_clear(w->fd);
	atomic_fetch_add(&image_of(m->o.spec)->n_poked, 1);
}

int mapping_start(const struct mapping_options *o, struct mapping **ret, struct fault *f)
{
	struct image *i = image_of(o->spec);
	struct mapping *m = calloc(1, sizeof(*m));
	int n = (int)(i - t.images);

	if (!m)
		abort();
	i->seen = *o;
	(void)snprintf(i->request, sizeof(i->request), "%s", o->request ? o->request : "");
	(void)snprintf(i->resumed, sizeof(i->resumed), "%s", o->resumed ? o->resumed : "");
	atomic_fetch_add(&i->n_starts, 1);
	hold(&i->holds_start);
	while (atomic_load(&i->heeds_interruption) && !interrupt_is_raised(o->interrupt))
		(void)usleep(500);
	atomic_store(&i->was_interrupted, interrupt_is_raised(o->interrupt));
	if (i->error < 0 || atomic_load(&i->heeds_interruption)) {
		free(m);
		return fault_set(f, EXIT_PASSPHRASE, i->error < 0 ? i->error : -EINTR, "image %d",
				 n);
	}
	m->o = *o;
	m->state.device = n % 2 ? -1 : n;
	(void)snprintf(m->state.kernel.cookie, sizeof(m->state.kernel.cookie), "cookie %d", n);
	(void)snprintf(m->state.socket, sizeof(m->state.socket), "/s%d", n);
	(void)snprintf(m->state.key, sizeof(m->state.key), "key %d", n);
	if (i->is_gone_at_once)
		o->gone(o->arg);
	m->poke.fd = event_new();
	m->poke.ready = on_poke;
	if (loop_add(o->loop, &m->poke) < 0)
		abort();
	atomic_store(&i->poke_fd, m->poke.fd);
	atomic_fetch_add(&i->n_started, 1);
	*ret = m;
	return 0;
}

const struct volume_state *mapping_state(const struct mapping *m)
{
	return &m->state;
}

struct mapping *mapping_stop(struct mapping *m, enum mapping_end end)
{
	struct image *i = image_of(m->o.spec);

	atomic_store(&i->end, end);
	atomic_fetch_add(&i->n_stops, 1);
	hold(&i->holds_stop);
	loop_remove(m->o.loop, &m->poke);
	(void)close(m->poke.fd);
	free(m);
	return NULL;
}

/* ---- the control thread ---- */

static inline int index_of(const struct host_volume *v)
{
	int i = 0;

	while (i < N && t.volumes[i] != v)
		i++;
	if (i == N)
		abort();
	return i;
}

static inline void serving(void *arg, struct host_volume *v)
{
	struct image *i = &t.images[index_of(v)];

	i->service = *host_volume_service(v);
	atomic_fetch_add(&i->n_announced, 1);
}

static inline struct options *options_for(int i)
{
	struct options *o = calloc(1, sizeof(*o));
	char text[32];

	(void)snprintf(text, sizeof(text), "file:/%d", i);
	if (!o)
		abort();
	o->spec.snap_id = UINT64_MAX;
	if (image_spec_parse(text, &o->spec, NULL) < 0)
		abort();
	return o;
}

static inline void options_drop(struct options *o)
{
	options_done(o);
	free(o);
}

struct addition {
	int i, result;
	const char *request, *resumed;
	struct options *options; /* after the call */
};

static inline void do_add(void *arg)
{
	struct addition *a = arg;
	struct host_add add = {
		.kind = MAPPING_SERVE, .listen_fd = 77, .request = a->request, .resumed = a->resumed
	};

	a->options = options_for(a->i);
	a->result = host_add_take(t.host, &add, &a->options, &t.volumes[a->i]);
}

static inline void ended(void *arg, struct host_volume *v)
{
	int n = index_of(v);
	struct image *i = &t.images[n];

	if (host_volume_phase(v) != HOST_ENDED)
		abort();
	if (host_volume_fault(v))
		i->fault = *host_volume_fault(v);
	i->n_left = host_n_volumes(t.host);
	t.volumes[n] = NULL;
	if (t.add_next >= 0) {
		struct addition a = { .i = t.add_next };

		t.add_next = -1;
		do_add(&a);
	}
	atomic_fetch_add(&i->n_ended, 1);
}

static inline void on_ask(struct watch *w)
{
	event_clear(w->fd);
	t.what(t.arg);
	(void)sem_post(&t.done);
}

static inline void *control_main(void *arg)
{
	(void)loop_run(t.loop);
	return NULL;
}

/* Has it done on the control thread, and waits until it has been. */
static inline void there(void (*what)(void *arg), void *arg)
{
	t.what = what;
	t.arg = arg;
	event_raise(t.ask.fd);
	while (sem_wait(&t.done) < 0)
		;
}

/* ---- around each test ---- */

/* The one before them may have been seen on its way out. */
static inline bool are_threads_gone(void *arg)
{
	return count_entries("/proc/self/task") <= t.threads;
}

static inline int new_host(void)
{
	struct host_options o = { .loop = t.loop,
				  .run_dir = "/run/dir",
				  .workers = 1,
				  .is_hosted = true,
				  .handover = (struct handover *)&t.add_next,
				  .serving = serving,
				  .ended = ended };

	return host_new(&o, &t.host);
}

static inline void *nothing(void *arg)
{
	return arg;
}

static inline int start(void **state)
{
	pthread_t first;

	memset(&t, 0, sizeof(t));
	/* A sanitizer begins a thread of its own with the first one, and keeps it. */
	if (pthread_create(&first, NULL, nothing, NULL) != 0)
		return -1;
	(void)pthread_join(first, NULL);
	/* What the C library opens once, it keeps. */
	(void)count_fds();
	t.fds = count_fds();
	t.threads = count_entries("/proc/self/task");
	t.add_next = -1;
	for (int i = 0; i < N; i++)
		atomic_store(&t.images[i].end, NO_END);
	if (loop_new(&t.loop) < 0 || new_host() < 0)
		return -1;
	t.ask.fd = event_new();
	t.ask.ready = on_ask;
	return sem_init(&t.done, 0, 0) < 0 || loop_add(t.loop, &t.ask) < 0
		       ? -1
		       : -pthread_create(&t.thread, NULL, control_main, NULL);
}

static inline void end_host(void *arg)
{
	t.host = host_free(t.host);
}

static inline void end_loop(void *arg)
{
	loop_quit(t.loop);
}

static inline int stop(void **state)
{
	for (int i = 0; i < N; i++) {
		atomic_store(&t.images[i].heeds_interruption, false);
		atomic_store(&t.images[i].holds_start, false);
		atomic_store(&t.images[i].holds_stop, false);
	}
	there(end_host, NULL);
	there(end_loop, NULL);
	(void)pthread_join(t.thread, NULL);
	loop_remove(t.loop, &t.ask);
	(void)close(t.ask.fd);
	(void)sem_destroy(&t.done);
	t.loop = loop_free(t.loop);
	return atomic_load(&t.n_held) == 0 && !atomic_load(&t.was_early) && count_fds() == t.fds &&
			       rig_wait(are_threads_gone, NULL, PATIENCE_MS)
		       ? 0
		       : -1;
}

/* ---- what tests ask ---- */

static inline void add(int i)
{
	struct addition a = { .i = i };

	there(do_add, &a);
	assert_int_equal(a.result, 0);
	assert_null(a.options);
}

struct order {
	int i; /* -1: all */
	enum host_stop how;
};

static inline void do_stop(void *arg)
{
	struct order *o = arg;

	if (o->i < 0)
		host_stop(t.host, o->how);
	else if (t.volumes[o->i])
		host_volume_stop(t.volumes[o->i], o->how);
}

static inline void ask_end(int i, enum host_stop how)
{
	struct order o = { i, how };

	there(do_stop, &o);
}

static inline void do_count(void *arg)
{
	*(unsigned int *)arg = host_n_volumes(t.host);
}

static inline unsigned int n_volumes(void)
{
	unsigned int n;

	there(do_count, &n);
	return n;
}

static inline bool is_above_zero(void *arg)
{
	return atomic_load((atomic_uint *)arg) > 0;
}

static inline void wait_for(atomic_uint *what)
{
	assert_true(rig_wait(is_above_zero, what, PATIENCE_MS));
}

#endif
