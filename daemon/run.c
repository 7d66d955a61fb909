/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Copyright (C) 2026 the rbdcrypt-nbd authors */

/*
 * The daemon of one volume: a cluster connection, the workers, the control loop, one mapping. The
 * order matters in two places: the fork comes before the first thread and the first secret, and
 * "ready" is said only after the user has been told the device.
 */

#include "run.h"

#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <systemd/sd-daemon.h>
#include <unistd.h>

#include "log.h"
#include "loop.h"
#include "path.h"
#include "pool.h"
#include "process.h"
#include "secret.h"
#include "state.h"

struct run {
	struct options *options;
	enum mapping_kind kind;
	char run_dir[4096];
	int ready_fd; /* of the waiting parent, -1 in the foreground */
	int listen_fd;
	struct cluster *cluster;
	struct loop *loop;
	struct pool *pool;
	struct mapping *mapping;
	struct watch signals;
	bool is_gone;
};

static void on_signal(struct watch *w)
{
	struct run *r = (struct run *)((char *)w - offsetof(struct run, signals));
	int s = process_next_signal(w->fd);

	if (s == SIGHUP && r->options->log_file)
		(void)log_open_file(r->options->log_file);
	else if (s == SIGTERM || s == SIGINT)
		loop_quit(r->loop);
}

static void on_gone(void *arg)
{
	struct run *r = arg;

	r->is_gone = true;
	loop_quit(r->loop);
}

/* The daemon leaves the folder it was started in. */
static int check_paths(struct options *o, struct fault *f)
{
	int r = path_make_absolute(&o->socket);

	if (r == 0)
		r = path_make_absolute(&o->run_dir);
	if (r == 0)
		r = path_make_absolute(&o->log_file);
	return r < 0 ? fault_set(f, EXIT_USAGE, r, "the current folder has no name: %s",
				 strerror(-r))
		     : 0;
}

static int check_options(struct run *r, struct fault *f)
{
	const struct options *o = r->options;

	if (r->kind != MAPPING_SERVE)
		return 0;
	for (unsigned int i = 0; o->is_single && i < o->passphrase_files.n; i++)
		if (strcmp(o->passphrase_files.items[i], "-") == 0)
			return fault_set(f, EXIT_USAGE, -EINVAL,
					 "--single: standard input cannot be both the client and "
					 "the passphrase");
	r->listen_fd = sd_listen_fds(1) > 0 ? SD_LISTEN_FDS_START : -1;
	if ((o->socket != NULL) + o->is_single + (r->listen_fd >= 0) == 1)
		return 0;
	(void)fault_set(f, EXIT_USAGE, -EINVAL,
			"serve needs one of --socket PATH, --single, or a socket from systemd");
	fault_hint(f, "for example: rbdcrypt-nbd serve --socket /run/vm.sock pool/image");
	return -EINVAL;
}

static bool is_background(const struct run *r)
{
	const struct options *o = r->options;

	return !o->is_foreground && !o->is_single && r->listen_fd < 0;
}

static int start_cluster(struct run *r, struct fault *f)
{
	struct options *o = r->options;
	struct cluster_options c = { .conf = o->conf,
				     .cluster = o->cluster,
				     .name = o->name,
				     .argc = o->ceph_argc,
				     .argv = o->ceph_argv,
				     .timeout_s = (unsigned int)o->open_timeout_s };
	char pool[128];
	int rest, e;

	if (o->spec.is_file)
		return 0;
	e = cluster_new(&c, &rest, &r->cluster, f);
	if (e < 0)
		return e;
	if (!o->spec.pool) {
		e = cluster_conf_get(r->cluster, "rbd_default_pool", pool, sizeof(pool));
		o->spec.pool = strdup(e == 0 && pool[0] ? pool : "rbd");
		if (!o->spec.pool)
			return fault_set(f, EXIT_MEMORY, -ENOMEM, "no memory for the pool's name");
	}
	return cluster_connect(r->cluster, f);
}

static int start_process(struct run *r, struct fault *f)
{
	int e = loop_new(&r->loop);

	if (e == 0)
		e = process_signal_fd();
	if (e >= 0) {
		r->signals.fd = e;
		r->signals.ready = on_signal;
		e = loop_add(r->loop, &r->signals);
	}
	if (e == 0)
		e = pool_new(r->options->workers, &r->pool);
	return e < 0 ? fault_set(f, EXIT_MEMORY, e, "cannot start the daemon: %s", strerror(-e))
		     : 0;
}

static int start(struct run *r, struct fault *f)
{
	struct mapping_options m = { .kind = r->kind,
				     .options = r->options,
				     .spec = &r->options->spec,
				     .run_dir = r->run_dir,
				     .listen_fd = r->listen_fd,
				     .is_interrupted = process_is_interrupted,
				     .gone = on_gone,
				     .gone_arg = r };
	int e = start_process(r, f);

	if (e == 0)
		e = start_cluster(r, f);
	if (e < 0)
		return e;
	m.cluster = r->cluster;
	m.loop = r->loop;
	m.pool = r->pool;
	return mapping_start(&m, &r->mapping, f);
}

/* What scripts read: the device, or where to connect to. */
static int announce(const struct run *r, struct fault *f)
{
	const struct volume_state *s = mapping_state(r->mapping);
	int n = 0;

	if (s->device >= 0 && r->options->is_cookie_shown && s->kernel.cookie[0])
		n = printf("/dev/nbd%d %s\n", s->device, s->kernel.cookie);
	else if (s->device >= 0)
		n = printf("/dev/nbd%d\n", s->device);
	else if (s->socket[0])
		n = printf("nbd+unix:///?socket=%s\n", s->socket);
	if (n < 0 || fflush(stdout) != 0)
		return fault_set(f, EXIT_USAGE, -EPIPE, "standard output cannot be written");
	(void)sd_notifyf(0, "READY=1\nSTATUS=serving %s", r->options->operand ?: "");
	return 0;
}

static void stop(struct run *r, bool disconnect)
{
	r->mapping = mapping_stop(r->mapping, disconnect);
	if (r->loop)
		loop_remove(r->loop, &r->signals);
	if (r->signals.fd >= 0)
		(void)close(r->signals.fd);
	r->pool = pool_free(r->pool);
	r->loop = loop_free(r->loop);
	r->cluster = cluster_free(r->cluster);
}

static int serve(struct run *r, struct fault *f)
{
	int e = start(r, f);

	if (e == 0)
		e = announce(r, f);
	if (e == 0 && process_is_interrupted())
		e = fault_set(f, EXIT_TIMED_OUT, -EINTR, "interrupted");
	if (e == 0 && r->ready_fd >= 0) {
		log_to_background();
		e = process_ready(r->ready_fd);
		if (e < 0)
			(void)fault_set(f, EXIT_TIMED_OUT, e, "nobody waits for the device");
	}
	if (e < 0) {
		stop(r, true);
		return e;
	}
	e = loop_run(r->loop);
	(void)sd_notify(0, "STOPPING=1");
	stop(r, false);
	return e < 0 ? fault_set(f, EXIT_KERNEL, e, "the control loop failed: %s", strerror(-e))
		     : 0;
}

int run_volume(struct options *o, enum mapping_kind kind, struct fault *f)
{
	struct run r = { .options = o, .kind = kind, .ready_fd = -1, .listen_fd = -1 };
	int e = image_spec_parse(o->operand, &o->spec, f);

	r.signals.fd = -1;
	if (e == 0)
		e = check_options(&r, f);
	if (e == 0)
		e = check_paths(o, f);
	if (e == 0)
		e = state_run_dir(o->run_dir, r.run_dir, sizeof(r.run_dir), f);
	if (e < 0)
		return e;
	log_set_level(o->is_debug ? LOG_LEVEL_DEBUG : (enum log_level)o->log_level);
	e = process_setup();
	if (e == 0 && is_background(&r))
		e = process_fork(&r.ready_fd);
	if (e < 0)
		return fault_set(f, EXIT_MEMORY, e, "cannot start the daemon: %s", strerror(-e));
	if (o->log_file && (e = log_open_file(o->log_file)) < 0)
		return fault_set(f, EXIT_USAGE, e, "cannot write log file %s: %s", o->log_file,
				 strerror(-e));
	if (kind != MAPPING_SERVE && process_set_io_flusher() < 0)
		log_debug(NULL, "not an IO flusher: no privilege");
	e = secret_protect_process();
	if (e < 0)
		return fault_set(f, EXIT_MEMORY, e, "cannot keep secrets out of core dumps: %s",
				 strerror(-e));
	return serve(&r, f);
}
