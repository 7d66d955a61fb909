/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Copyright (C) 2026 the rbdcrypt-nbd authors */

/*
 * A list of volumes and one event that all of them raise. The daemon of a single volume and the one
 * that a whole host lives with are both this.
 */

#include "host.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "log.h"

/* A volume that could get no thread tries again. */
#define AGAIN_MS 1000

struct member {
	struct member *next;
	struct host *host;
	struct host_volume *volume;
	struct watch quiet; /* in the loop while the volume has no thread */
	bool is_waking; /* it needs one and could get none */
	bool is_announced; /* serving was called */
};

struct host {
	struct host_options o;
	struct clusters *clusters;
	struct pool *pool;
	struct calibration *calibration;
	struct member *members;
	unsigned int n, serial;
	struct watch changed, again;
};

static void wake(struct member *m)
{
	int r = host_volume_wake(m->volume);

	if (r < 0 && !m->is_waking)
		log_error(host_volume_spec(m->volume), "no thread for its control loop: %s",
			  strerror(-r));
	m->is_waking = r < 0;
	if (r < 0)
		timer_set(m->host->again.fd, AGAIN_MS);
}

static void on_needs_thread(struct watch *w)
{
	struct member *m = (struct member *)((char *)w - offsetof(struct member, quiet));

	loop_remove(m->host->o.loop, w);
	wake(m);
}

static void on_again(struct watch *w)
{
	struct host *h = (struct host *)((char *)w - offsetof(struct host, again));

	timer_clear(w->fd);
	for (struct member *m = h->members; m; m = m->next)
		if (m->is_waking)
			wake(m);
}

static void watch_if_quiet(struct member *m)
{
	int fd = m->quiet.is_added || m->is_waking ? -1 : host_volume_quiet_fd(m->volume);

	if (fd < 0)
		return;
	m->quiet.fd = fd;
	m->quiet.ready = on_needs_thread;
	if (loop_add(m->host->o.loop, &m->quiet) < 0)
		wake(m);
}

static void on_changed(struct watch *w)
{
	struct host *h = (struct host *)((char *)w - offsetof(struct host, changed));
	struct member **link = &h->members;

	event_clear(w->fd);
	while (*link) {
		struct member *m = *link;
		enum host_phase phase = host_volume_phase(m->volume);

		if (phase != HOST_STARTING && phase != HOST_ENDED && !m->is_announced) {
			m->is_announced = true;
			h->o.serving(h->o.arg, m->volume);
		}
		if (phase != HOST_ENDED) {
			watch_if_quiet(m);
			link = &m->next;
			continue;
		}
		*link = m->next;
		h->n--;
		h->o.ended(h->o.arg, m->volume);
		(void)host_volume_free(m->volume);
		free(m);
	}
}

int host_new(const struct host_options *o, struct host **ret)
{
	struct host *h = calloc(1, sizeof(*h));
	int r;

	if (!h)
		return -ENOMEM;
	h->o = *o;
	h->changed.fd = h->again.fd = -1;
	r = clusters_new(&h->clusters);
	if (r == 0)
		r = pool_new(o->workers, &h->pool);
	if (r == 0)
		r = calibration_new(h->pool, &h->calibration);
	if (r == 0)
		r = loop_watch(o->loop, &h->changed, event_new(), on_changed);
	if (r == 0)
		r = loop_watch(o->loop, &h->again, timer_new(), on_again);
	if (r < 0) {
		(void)host_free(h);
		return r;
	}
	*ret = h;
	return 0;
}

int host_add_take(struct host *h, const struct host_add *add, struct options **options,
		  struct host_volume **ret)
{
	struct host_volume_options o = { .kind = add->kind,
					 .run_dir = h->o.run_dir,
					 .clusters = h->clusters,
					 .pool = h->pool,
					 .calibration = h->calibration,
					 .serial = ++h->serial,
					 .is_hosted = h->o.is_hosted,
					 .listen_fd = add->listen_fd,
					 .handover = h->o.handover,
					 .request = add->request,
					 .resumed = add->resumed,
					 .changed_fd = h->changed.fd };
	struct member *m = calloc(1, sizeof(*m));
	int r = m ? host_volume_new_take(&o, options, &m->volume) : -ENOMEM;

	if (r < 0) {
		free(m);
		return r;
	}
	m->host = h;
	m->next = h->members;
	h->members = m;
	h->n++;
	if (ret)
		*ret = m->volume;
	return 0;
}

unsigned int host_n_volumes(const struct host *h)
{
	return h->n;
}

void host_for_each(struct host *h, void (*each)(void *arg, struct host_volume *v), void *arg)
{
	for (struct member *m = h->members; m; m = m->next)
		each(arg, m->volume);
}

void host_stop(struct host *h, enum host_stop how)
{
	for (struct member *m = h->members; m; m = m->next)
		host_volume_stop(m->volume, how);
}

struct host *host_free(struct host *h)
{
	if (!h)
		return NULL;
	loop_remove(h->o.loop, &h->changed);
	loop_remove(h->o.loop, &h->again);
	host_stop(h, HOST_LEAVE);
	/* All at once. */
	for (struct member *m = h->members; m; m = m->next) {
		loop_remove(h->o.loop, &m->quiet);
		(void)host_volume_wake(m->volume);
	}
	while (h->members) {
		struct member *m = h->members;

		h->members = m->next;
		(void)host_volume_free(m->volume);
		free(m);
	}
	if (h->changed.fd >= 0)
		(void)close(h->changed.fd);
	if (h->again.fd >= 0)
		(void)close(h->again.fd);
	h->calibration = calibration_free(h->calibration);
	h->pool = pool_free(h->pool);
	h->clusters = clusters_free(h->clusters);
	free(h);
	return NULL;
}
