/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Copyright (C) 2026 the rbdcrypt-nbd authors */

/*
 * One connection per cluster and user, made by the first volume that wants it and ended by the last
 * that lets it go; both on that volume's thread, outside the mutex, because both can take long.
 * When the first is told to stop meanwhile, one of those who wait for it begins anew. Two wishes
 * are the same when all that Ceph is told is the same, word for word: what the words mean, only
 * Ceph knows.
 */

#include "clusters.h"

#include <errno.h>
#include <pthread.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#include "clock.h"

struct entry {
	struct entry *next;
	struct cluster_options wish; /* with copies of its texts */
	/* Guarded by the mutex: */
	unsigned int holds; /* those who wait for it included */
	bool is_settled; /* connected, or failed */
	bool is_given_up; /* failed, because who made it was interrupted */
	bool is_retired; /* nobody new gets it */
	struct cluster *cluster; /* NULL: failed */
	struct fault fault;
};

struct clusters {
	pthread_mutex_t mutex;
	pthread_cond_t settled;
	struct entry *entries; /* guarded by mutex; those that are held or being made */
};

int clusters_new(struct clusters **ret)
{
	struct clusters *c = calloc(1, sizeof(*c));

	if (!c)
		return -ENOMEM;
	(void)pthread_mutex_init(&c->mutex, NULL);
	clock_cond_init(&c->settled);
	*ret = c;
	return 0;
}

struct clusters *clusters_free(struct clusters *c)
{
	if (!c)
		return NULL;
	(void)pthread_cond_destroy(&c->settled);
	(void)pthread_mutex_destroy(&c->mutex);
	free(c);
	return NULL;
}

/* ---- a wish ---- */

static bool is_same_text(const char *a, const char *b)
{
	return a && b ? strcmp(a, b) == 0 : a == b;
}

static bool is_same_wish(const struct cluster_options *a, const struct cluster_options *b)
{
	if (!is_same_text(a->conf, b->conf) || !is_same_text(a->cluster, b->cluster) ||
	    !is_same_text(a->name, b->name) || !is_same_text(a->args, b->args) ||
	    a->timeout_s != b->timeout_s || a->argc != b->argc)
		return false;
	for (int i = 1; i < a->argc; i++)
		if (!is_same_text(a->argv[i], b->argv[i]))
			return false;
	return true;
}

static void free_text(const char *text)
{
	free((void *)(uintptr_t)text);
}

static void free_entry(struct entry *e)
{
	for (int i = 0; e->wish.argv && i < e->wish.argc; i++)
		free_text(e->wish.argv[i]);
	free(e->wish.argv);
	free_text(e->wish.conf);
	free_text(e->wish.cluster);
	free_text(e->wish.name);
	free_text(e->wish.args);
	free(e);
}

static const char *copy_text(const char *text, bool *is_failed)
{
	const char *copy = text ? strdup(text) : NULL;

	*is_failed = *is_failed || (text && !copy);
	return copy;
}

static struct entry *new_entry(const struct cluster_options *o)
{
	struct entry *e = calloc(1, sizeof(*e));
	bool is_failed = false;

	if (!e)
		return NULL;
	e->wish.timeout_s = o->timeout_s;
	e->wish.conf = copy_text(o->conf, &is_failed);
	e->wish.cluster = copy_text(o->cluster, &is_failed);
	e->wish.name = copy_text(o->name, &is_failed);
	e->wish.args = copy_text(o->args, &is_failed);
	e->wish.argv = calloc((size_t)o->argc + 1, sizeof(*e->wish.argv));
	e->wish.argc = e->wish.argv ? o->argc : 0;
	for (int i = 0; i < e->wish.argc; i++)
		e->wish.argv[i] = copy_text(o->argv[i], &is_failed);
	if (is_failed || !e->wish.argv) {
		free_entry(e);
		return NULL;
	}
	e->holds = 1;
	return e;
}

/* ---- holding ---- */

static void unlink_entry(struct clusters *c, struct entry *e)
{
	struct entry **link = &c->entries;

	while (*link && *link != e)
		link = &(*link)->next;
	if (*link)
		*link = e->next;
}

/* Our own command line was asked this before; words that came from elsewhere were not. */
static int check_rest(const struct cluster_options *o, int rest, struct fault *f)
{
	for (int i = 1; i < rest; i++)
		if (o->argv[i][0] == '-')
			return fault_set(f, EXIT_USAGE, -EINVAL, "%s: Ceph knows no such option",
					 o->argv[i]);
	return 0;
}

/* Ceph takes words out of the array that it is given: a copy. */
static int open_cluster(const struct entry *e, const struct interrupt *i, struct cluster **ret,
			struct fault *f)
{
	struct cluster_options o = e->wish;
	struct cluster *cluster = NULL;
	int rest, r;

	o.argv = calloc((size_t)o.argc + 1, sizeof(*o.argv));
	if (!o.argv)
		return fault_set(f, EXIT_MEMORY, -ENOMEM, "no memory for a connection");
	memcpy(o.argv, e->wish.argv, (size_t)o.argc * sizeof(*o.argv));
	r = cluster_new(&o, &rest, &cluster, f);
	if (r == 0)
		r = check_rest(&o, rest, f);
	if (r == 0)
		r = cluster_connect(cluster, i, f);
	free(o.argv);
	if (r < 0) {
		(void)cluster_free(cluster);
		return r;
	}
	*ret = cluster;
	return 0;
}

/* With the mutex. */
static void let_go(struct entry *e)
{
	if (--e->holds == 0)
		free_entry(e);
}

/*
 * With the mutex; waits until somebody else has settled it, and answers for it. *ret_again: who
 * made it was interrupted, and we are not.
 */
static int share(struct clusters *c, struct entry *e, const struct interrupt *i,
		 struct cluster **ret, bool *ret_again, struct fault *f)
{
	int r;

	e->holds++;
	while (!e->is_settled && !interrupt_is_raised(i)) {
		const struct timespec next = clock_at(clock_ms() + INTERRUPT_SLICE_MS);

		if (i)
			(void)pthread_cond_timedwait(&c->settled, &c->mutex, &next);
		else
			(void)pthread_cond_wait(&c->settled, &c->mutex);
	}
	if (e->cluster) {
		*ret = e->cluster;
		return 0;
	}
	if (!e->is_settled) {
		r = fault_set(f, EXIT_TIMED_OUT, -EINTR, "cluster: interrupted while connecting");
	} else {
		*ret_again = e->is_given_up && !interrupt_is_raised(i);
		r = e->fault.error;
		if (f && !*ret_again)
			*f = e->fault;
	}
	let_go(e);
	return r;
}

static int make(struct clusters *c, struct entry *e, const struct interrupt *i,
		struct cluster **ret, struct fault *f)
{
	struct cluster *cluster = NULL;
	struct fault fault = { 0 };
	int r = open_cluster(e, i, &cluster, &fault);

	(void)pthread_mutex_lock(&c->mutex);
	e->cluster = cluster;
	e->fault = fault;
	e->is_settled = true;
	e->is_given_up = r == -EINTR && interrupt_is_raised(i);
	if (r < 0) {
		unlink_entry(c, e);
		let_go(e);
	}
	(void)pthread_cond_broadcast(&c->settled);
	(void)pthread_mutex_unlock(&c->mutex);
	if (r == 0)
		*ret = cluster;
	else if (f)
		*f = fault;
	return r;
}

static int get(struct clusters *c, const struct cluster_options *o, const struct interrupt *i,
	       struct cluster **ret, bool *ret_again, struct fault *f)
{
	struct entry *e;
	int r;

	*ret_again = false;
	(void)pthread_mutex_lock(&c->mutex);
	for (e = c->entries; e; e = e->next)
		if (!e->is_retired && is_same_wish(&e->wish, o))
			break;
	if (e) {
		r = share(c, e, i, ret, ret_again, f);
		(void)pthread_mutex_unlock(&c->mutex);
		return r;
	}
	e = new_entry(o);
	if (e) {
		e->next = c->entries;
		c->entries = e;
	}
	(void)pthread_mutex_unlock(&c->mutex);
	return e ? make(c, e, i, ret, f)
		 : fault_set(f, EXIT_MEMORY, -ENOMEM, "no memory for a connection");
}

int clusters_get(struct clusters *c, const struct cluster_options *o, const struct interrupt *i,
		 struct cluster **ret, struct fault *f)
{
	bool is_again;
	int r;

	do
		r = get(c, o, i, ret, &is_again, f);
	while (is_again);
	return r;
}

void clusters_retire(struct clusters *c, const struct cluster *cluster)
{
	(void)pthread_mutex_lock(&c->mutex);
	for (struct entry *e = c->entries; e; e = e->next)
		if (cluster && e->cluster == cluster)
			e->is_retired = true;
	(void)pthread_mutex_unlock(&c->mutex);
}

struct cluster *clusters_put(struct clusters *c, struct cluster *cluster)
{
	struct entry *e;
	bool is_last;

	if (!cluster)
		return NULL;
	(void)pthread_mutex_lock(&c->mutex);
	for (e = c->entries; e->cluster != cluster;)
		e = e->next;
	is_last = --e->holds == 0;
	if (is_last)
		unlink_entry(c, e);
	(void)pthread_mutex_unlock(&c->mutex);
	if (is_last) {
		(void)cluster_free(cluster);
		free_entry(e);
	}
	return NULL;
}
