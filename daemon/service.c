/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Copyright (C) 2026 the rbdcrypt-nbd authors */

/*
 * The host's daemon: the control thread with its loop, the control socket and the volumes. It never
 * forks into the background: whoever wants that is an init system, and is told by sd_notify when
 * the socket is there.
 *
 * At the end, volumes leave their devices in the kernel. A volume whose cluster does not answer
 * cannot, and must not hold the others: after some time the process ends without it, as if it had
 * been killed.
 */

#include "service.h"

#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <systemd/sd-daemon.h>
#include <unistd.h>

#include "control.h"
#include "control_methods.h"
#include "handover.h"
#include "host.h"
#include "log.h"
#include "loop.h"
#include "path.h"
#include "peers.h"
#include "process.h"
#include "successor.h"
#include "secret.h"
#include "state.h"
#include "watchdog.h"

/* For all volumes to finish what is in flight. */
#define STOP_MS 30000

struct service {
	const struct options *options;
	char run_dir[4096];
	int listen_fd; /* the control socket, if it was passed, or -1 */
	struct handover *handover;
	struct loop *loop;
	struct host *host;
	struct methods *methods;
	struct control *control;
	struct successor *successor;
	struct watch signals, deadline;
	struct watchdog watchdog;
	bool is_stopping;
};

/* ---- events ---- */

static void tell_status(const struct service *s)
{
	unsigned int n = host_n_volumes(s->host);

	(void)sd_notifyf(0, "STATUS=%s%u volume%s", s->is_stopping ? "stopping, " : "", n,
			 n == 1 ? "" : "s");
}

static void on_serving(void *arg, struct host_volume *v)
{
	struct service *s = arg;

	host_volume_log_serving(v);
	(void)methods_serving(s->methods, v);
	tell_status(s);
}

static void on_ended(void *arg, struct host_volume *v)
{
	struct service *s = arg;

	/* What a predecessor left is tried again, and says so itself. */
	if (!host_volume_fault(v) || !host_volume_resumed(v))
		host_volume_log_end(v);
	(void)methods_ended(s->methods, v);
	if (!s->is_stopping)
		successor_ended(s->successor, v);
	/* It is counted no more. */
	tell_status(s);
	if (s->is_stopping && host_n_volumes(s->host) == 0)
		loop_quit(s->loop);
}

static void reload(void *arg)
{
	struct service *s = arg;

	if (s->is_stopping)
		return;
	(void)sd_notify(0, "RELOADING=1");
	if (s->options->log_file && log_open_file(s->options->log_file) < 0)
		log_warning(NULL, "cannot open log file %s again", s->options->log_file);
	/* What waits for a key may have been helped. */
	successor_try(s->successor);
	(void)sd_notify(0, "READY=1");
}

static void on_deadline(struct watch *w)
{
	struct service *s = (struct service *)((char *)w - offsetof(struct service, deadline));

	timer_clear(w->fd);
	log_error(NULL, "%u volumes cannot finish what is in flight; ending without them",
		  host_n_volumes(s->host));
	/* Nothing of theirs can be freed. To the kernel and to the cluster they have died. */
	_exit(EXIT_TIMED_OUT);
}

static void stop(struct service *s)
{
	if (s->is_stopping)
		return;
	s->is_stopping = true;
	(void)sd_notify(0, "STOPPING=1");
	tell_status(s);
	/* Nobody new. */
	s->control = control_free(s->control);
	s->successor = successor_free(s->successor);
	host_stop(s->host, HOST_LEAVE);
	timer_set(s->deadline.fd, STOP_MS);
	if (host_n_volumes(s->host) == 0)
		loop_quit(s->loop);
}

static void on_signal(struct watch *w)
{
	struct service *s = (struct service *)((char *)w - offsetof(struct service, signals));
	int number = process_next_signal(w->fd);

	if (number == SIGHUP)
		reload(s);
	else if (number == SIGTERM || number == SIGINT)
		stop(s);
}

/* ---- start ---- */

static int start_host(struct service *s, struct fault *f)
{
	struct host_options h = { .run_dir = s->run_dir,
				  .workers = s->options->workers,
				  .is_hosted = true,
				  .handover = s->handover,
				  .serving = on_serving,
				  .ended = on_ended,
				  .arg = s };
	struct successor_options successor = { .run_dir = s->run_dir, .handover = s->handover };
	struct methods_options m = { .run_dir = s->run_dir, .reload = reload, .arg = s };
	int r = loop_new(&s->loop);

	if (r == 0)
		r = loop_watch(s->loop, &s->signals, process_signal_fd(), on_signal);
	if (r == 0)
		r = loop_watch(s->loop, &s->deadline, timer_new(), on_deadline);
	if (r == 0)
		r = watchdog_start(&s->watchdog, s->loop);
	h.loop = s->loop;
	if (r == 0)
		r = host_new(&h, &s->host);
	m.loop = s->loop;
	m.host = s->host;
	successor.loop = s->loop;
	successor.host = s->host;
	if (r == 0)
		r = methods_new(&m, &s->methods);
	if (r == 0)
		r = successor_new(&successor, &s->successor);
	return r < 0 ? fault_set(f, EXIT_MEMORY, r, "cannot start the daemon: %s", strerror(-r))
		     : 0;
}

static int start_control(struct service *s, struct fault *f)
{
	struct control_options c = { .loop = s->loop,
				     .run_dir = s->run_dir,
				     .fd = s->listen_fd,
				     .group = (gid_t)-1,
				     .called = methods_called,
				     .abandoned = methods_abandoned,
				     .arg = s->methods };
	const char *group = s->options->control_group;
	int r = group ? peers_find_group("--control-group", group, &c.group, f) : 0;

	return r < 0 ? r : control_new(&c, &s->control, f);
}

static int settle(struct service *s, struct fault *f)
{
	const struct options *o = s->options;
	int r;

	log_set_level(o->is_debug ? LOG_LEVEL_DEBUG : (enum log_level)o->log_level);
	r = process_setup();
	if (r < 0)
		return fault_set(f, EXIT_MEMORY, r, "cannot start the daemon: %s", strerror(-r));
	if (o->log_file && (r = log_open_file(o->log_file)) < 0)
		return fault_set(f, fault_status(r, EXIT_USAGE), r, "cannot write log file %s: %s",
				 o->log_file, strerror(-r));
	if (process_set_io_flusher() < 0)
		log_debug(NULL, "not an IO flusher: no privilege");
	r = secret_protect_process();
	return r < 0 ? fault_set(f, EXIT_MEMORY, r, "cannot keep secrets out of core dumps: %s",
				 strerror(-r))
		     : 0;
}

static void finish(struct service *s)
{
	s->control = control_free(s->control);
	s->successor = successor_free(s->successor);
	s->methods = methods_free(s->methods);
	s->host = host_free(s->host);
	watchdog_stop(&s->watchdog, s->loop);
	if (s->loop) {
		loop_remove(s->loop, &s->signals);
		loop_remove(s->loop, &s->deadline);
	}
	if (s->signals.fd >= 0)
		(void)close(s->signals.fd);
	if (s->deadline.fd >= 0)
		(void)close(s->deadline.fd);
	s->loop = loop_free(s->loop);
}

static int serve(struct service *s, struct fault *f)
{
	int r = start_host(s, f);

	if (r == 0)
		r = start_control(s, f);
	if (r == 0) {
		/* Standard error stays for those who started us by hand. */
		if (s->options->log_file || (getenv("NOTIFY_SOCKET") && !s->options->is_debug))
			log_to_background();
		(void)sd_notify(0, "READY=1");
		successor_try(s->successor);
		tell_status(s);
		r = loop_run(s->loop);
		if (r < 0)
			(void)fault_set(f, EXIT_KERNEL, r, "the control loop failed: %s",
					strerror(-r));
	}
	finish(s);
	return r;
}

int service_run(struct options *o, struct fault *f)
{
	struct service s = { .options = o };
	int r = path_make_absolute(&o->log_file);

	s.signals.fd = s.deadline.fd = s.watchdog.timer.fd = -1;
	if (r < 0)
		return path_fault(r, f);
	r = handover_new(CONTROL_NAME, &s.listen_fd, &s.handover);
	if (r < 0)
		return fault_set(f, EXIT_MEMORY, r, "cannot start the daemon: %s", strerror(-r));
	r = path_make_absolute(&o->run_dir);
	if (r == 0)
		r = state_run_dir(o->run_dir, s.run_dir, sizeof(s.run_dir), f);
	if (r == 0)
		r = state_make_run_dir(s.run_dir, f);
	if (r == 0)
		r = settle(&s, f);
	if (r == 0)
		r = serve(&s, f);
	s.handover = handover_free(s.handover);
	return r;
}
