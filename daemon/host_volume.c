/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Copyright (C) 2026 the rbdcrypt-nbd authors */

/*
 * The thread of a volume runs the volume's own control loop: everything of mapping.c, device.c and
 * listener.c happens on it. It owns the options, the loop and the hold on the connection. The rest
 * of the daemon sees a phase, which goes one way, and what was written before the phase that
 * publishes it.
 *
 * Most volumes have nothing to do for their control loop most of the time, and a thread would only
 * take memory. So after a quiet while it ends, and the control thread watches the loop instead, and
 * starts another that goes on with it. There is never more than one.
 */

#include "host_volume.h"

#include <errno.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "claim.h"
#include "event_about.h"
#include "log.h"
#include "loop.h"
#include "setup.h"
#include "state.h"
#include "text.h"

/* Long enough that who connects again and again does not start a thread each time. */
#define QUIET_MS 5000

struct host_volume {
	struct host_volume_options o;
	struct options *options;
	char *request, *resumed; /* or NULL; the texts of o */
	char spec[VOLUME_SPEC_LEN];
	pthread_t thread; /* the control thread's, and */
	bool has_thread; /* whether there is one to be joined */
	struct watch stop; /* its event is raised by host_volume_stop() */
	atomic_int how; /* enum host_stop */
	struct interrupt interrupt; /* of its start */
	atomic_bool is_quiet; /* the thread has ended and left its loop to be watched */
	atomic_int phase; /* enum host_phase; publishes what follows */
	struct host_volume_service service;
	struct fault fault;
	/* The thread's own: */
	struct loop *loop;
	struct cluster *cluster;
	struct mapping *mapping;
};

static void set_phase(struct host_volume *v, enum host_phase phase)
{
	atomic_store(&v->phase, phase);
	event_raise(v->o.changed_fd);
}

static void on_stop(struct watch *w)
{
	struct host_volume *v =
		(struct host_volume *)((char *)w - offsetof(struct host_volume, stop));

	event_clear(w->fd);
	loop_quit(v->loop);
}

static void on_gone(void *arg)
{
	struct host_volume *v = arg;

	loop_quit(v->loop);
}

static bool is_interrupted(void *arg)
{
	struct host_volume *v = arg;

	return atomic_load(&v->how) != HOST_KEEP;
}

/* ---- start ---- */

static int start_loop(struct host_volume *v, struct fault *f)
{
	int r = loop_new(&v->loop);

	if (r == 0) {
		v->stop.ready = on_stop;
		r = loop_add(v->loop, &v->stop);
	}
	return r < 0 ? fault_set(f, EXIT_MEMORY, r, "cannot start the volume: %s", strerror(-r))
		     : 0;
}

static int start(struct host_volume *v, struct fault *f)
{
	struct mapping_options m = { .kind = v->o.kind,
				     .options = v->options,
				     .spec = &v->options->spec,
				     .run_dir = v->o.run_dir,
				     .pool = v->o.pool,
				     .calibration = v->o.calibration,
				     .serial = v->o.serial,
				     .is_hosted = v->o.is_hosted,
				     .listen_fd = v->o.listen_fd,
				     .handover = v->o.handover,
				     .request = v->request,
				     .resumed = v->resumed,
				     .interrupt = &v->interrupt,
				     .gone = on_gone,
				     .arg = v };
	int r = start_loop(v, f);

	if (r == 0)
		r = setup_cluster(v->options, v->o.clusters, &v->interrupt, &v->cluster, f);
	if (r < 0)
		return r;
	m.loop = v->loop;
	m.cluster = v->cluster;
	r = mapping_start(&m, &v->mapping, f);
	/* Blocklisted, perhaps for the sake of another volume's lock. */
	if (r == -ESHUTDOWN) {
		clusters_retire(v->o.clusters, v->cluster);
		fault_hint(f, "the next start connects to the cluster anew: try again");
	}
	return r;
}

static void describe(struct host_volume *v)
{
	const struct volume_state *s = mapping_state(v->mapping);

	v->service.device = s->device;
	if (s->device >= 0)
		text_copy(v->service.cookie, sizeof(v->service.cookie), s->kernel.cookie);
	text_copy(v->service.socket, sizeof(v->service.socket), s->socket);
	text_copy(v->service.key, sizeof(v->service.key), s->key);
}

/* ---- the thread ---- */

/* Whoever was not asked to stop has lost its device already. */
static enum mapping_end end_of(enum host_stop how)
{
	switch (how) {
	case HOST_LEAVE:
		return MAPPING_LEAVE;
	case HOST_KEEP:
	case HOST_DETACH:
		return MAPPING_DETACH;
	case HOST_DISCONNECT:
		break;
	}
	return MAPPING_DISCONNECT;
}

static void finish(struct host_volume *v)
{
	if (v->loop)
		loop_remove(v->loop, &v->stop);
	v->loop = loop_free(v->loop);
	v->cluster = clusters_put(v->o.clusters, v->cluster);
	set_phase(v, HOST_ENDED);
}

/* Serves, until there is nothing to do for a while, or to the end. */
static void go_on(struct host_volume *v)
{
	int r = loop_run_until_quiet(v->loop, QUIET_MS);

	if (r == LOOP_QUIET) {
		atomic_store(&v->is_quiet, true);
		event_raise(v->o.changed_fd);
		return;
	}
	if (r < 0)
		log_error(v->spec, "the control loop failed: %s", strerror(-r));
	set_phase(v, HOST_STOPPING);
	v->mapping = mapping_stop(v->mapping, end_of((enum host_stop)atomic_load(&v->how)));
	finish(v);
}

/* A socket that was to come back, and is not wanted any more. */
static void forget_resumed(const struct host_volume *v)
{
	int r;

	if (!v->resumed || v->o.kind != MAPPING_SERVE || atomic_load(&v->how) != HOST_DISCONNECT)
		return;
	r = claim_remove_dead(v->o.run_dir, v->resumed);
	if (r < 0)
		log_error(v->spec, "its state file cannot be removed: %s", strerror(-r));
}

static void *first_main(void *arg)
{
	struct host_volume *v = arg;

	if (start(v, &v->fault) < 0) {
		forget_resumed(v);
		finish(v);
		return NULL;
	}
	describe(v);
	set_phase(v, HOST_SERVING);
	go_on(v);
	return NULL;
}

static void *next_main(void *arg)
{
	go_on(arg);
	return NULL;
}

static int start_thread(struct host_volume *v, void *(*main)(void *))
{
	int r = -pthread_create(&v->thread, NULL, main, v);

	if (r < 0)
		return r;
	v->has_thread = true;
	(void)pthread_setname_np(v->thread, "volume");
	return 0;
}

static void join(struct host_volume *v)
{
	if (v->has_thread)
		(void)pthread_join(v->thread, NULL);
	v->has_thread = false;
}

int host_volume_quiet_fd(struct host_volume *v)
{
	if (!atomic_load(&v->is_quiet))
		return -1;
	join(v);
	return loop_fd(v->loop);
}

int host_volume_wake(struct host_volume *v)
{
	int r;

	if (!atomic_exchange(&v->is_quiet, false))
		return 0;
	join(v);
	r = start_thread(v, next_main);
	if (r < 0)
		atomic_store(&v->is_quiet, true);
	return r;
}

int host_volume_new_take(const struct host_volume_options *o, struct options **options,
			 struct host_volume **ret)
{
	struct host_volume *v = calloc(1, sizeof(*v));
	int r;

	if (!v)
		return -ENOMEM;
	v->o = *o;
	v->options = *options;
	v->service.device = -1;
	v->interrupt = (struct interrupt){ is_interrupted, v };
	v->request = o->request ? strdup(o->request) : NULL;
	v->resumed = o->resumed ? strdup(o->resumed) : NULL;
	r = -ENOMEM;
	if ((o->request && !v->request) || (o->resumed && !v->resumed))
		goto fail;
	image_spec_format(&v->options->spec, v->spec, sizeof(v->spec));
	r = event_new();
	if (r < 0)
		goto fail;
	v->stop.fd = r;
	r = start_thread(v, first_main);
	if (r < 0) {
		(void)close(v->stop.fd);
		goto fail;
	}
	*options = NULL;
	*ret = v;
	return 0;
fail:
	free(v->request);
	free(v->resumed);
	free(v);
	return r;
}

/* ---- seen from outside ---- */

enum host_phase host_volume_phase(const struct host_volume *v)
{
	return (enum host_phase)atomic_load(&v->phase);
}

void host_volume_stop(struct host_volume *v, enum host_stop how)
{
	int keep = HOST_KEEP;

	(void)atomic_compare_exchange_strong(&v->how, &keep, how);
	event_raise(v->stop.fd);
}

const char *host_volume_spec(const struct host_volume *v)
{
	return v->spec;
}

const struct options *host_volume_options(const struct host_volume *v)
{
	return v->options;
}

const char *host_volume_resumed(const struct host_volume *v)
{
	return v->resumed;
}

const struct host_volume_service *host_volume_service(const struct host_volume *v)
{
	return &v->service;
}

const struct fault *host_volume_fault(const struct host_volume *v)
{
	return v->fault.error ? &v->fault : NULL;
}

/* By the image's whole name: its pool, if nobody gave one, is known by now. spec has the name. */
static struct event_about about(const struct host_volume *v, char *spec, size_t len)
{
	image_spec_format(&v->options->spec, spec, len);
	return event_about_image(spec, &v->options->spec, v->service.device);
}

void host_volume_log_serving(const struct host_volume *v)
{
	char spec[VOLUME_SPEC_LEN];
	const struct event_about a = about(v, spec, sizeof(spec));

	if (v->service.device >= 0)
		event_log(EVENT_SERVED, &a, "serves /dev/nbd%d", v->service.device);
	else
		event_log(EVENT_SERVED, &a, "serves %s", v->service.socket);
}

void host_volume_log_end(const struct host_volume *v)
{
	char spec[VOLUME_SPEC_LEN];
	struct event_about a = about(v, spec, sizeof(spec));

	if (!v->fault.error) {
		event_log(EVENT_ENDED, &a, "ended");
		return;
	}
	a.fault = &v->fault;
	event_log(EVENT_START_FAILED, &a, "cannot be served: %s", v->fault.message);
}

struct host_volume *host_volume_free(struct host_volume *v)
{
	if (!v)
		return NULL;
	/* Without memory for a thread, this one has to do. */
	if (host_volume_wake(v) < 0)
		go_on(v);
	join(v);
	(void)close(v->stop.fd);
	options_done(v->options);
	free(v->options);
	free(v->request);
	free(v->resumed);
	free(v);
	return NULL;
}
