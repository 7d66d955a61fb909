/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Copyright (C) 2026 the rbdcrypt-nbd authors */

/*
 * The daemon of one volume: a host with one guest, which ends when that ends. The order matters in
 * two places: the fork comes before the first thread and the first secret, and "ready" is said only
 * after the user has been told the device.
 */

#include "run.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <systemd/sd-daemon.h>
#include <unistd.h>

#include "handover.h"
#include "host.h"
#include "key.h"
#include "log.h"
#include "loop.h"
#include "output.h"
#include "path.h"
#include "process.h"
#include "resume.h"
#include "secret.h"
#include "state.h"
#include "watchdog.h"

struct run {
	struct options *options; /* until the volume has them */
	char *log_file; /* or NULL */
	enum mapping_kind kind;
	char run_dir[4096];
	char *resumed; /* the key of what an earlier run left, or NULL */
	int ready_fd; /* of the waiting parent, -1 in the foreground */
	int listen_fd;
	struct handover *handover; /* of a device that is a service by itself, else NULL */
	struct loop *loop;
	struct host *host;
	struct watch signals;
	struct watchdog watchdog;
	bool is_announced, is_interrupted;
	bool is_logged; /* messages go where somebody may look for them, not to a terminal */
	struct fault fault; /* why the command failed */
};

/* The daemon leaves the folder it was started in. */
static int check_paths(struct options *o, struct fault *f)
{
	int r = path_make_absolute(&o->socket);

	if (r == 0)
		r = path_make_absolute(&o->run_dir);
	if (r == 0)
		r = path_make_absolute(&o->log_file);
	for (unsigned int i = 0; r == 0 && i < o->passphrase_files.n; i++)
		r = key_make_absolute(&o->passphrase_files.items[i]);
	return path_fault(r, f);
}

static bool is_open_to(int mode, int fd)
{
	int flags = fcntl(fd, F_GETFL);

	return flags >= 0 && ((flags & O_ACCMODE) == mode || (flags & O_ACCMODE) == O_RDWR);
}

static int check_options(struct run *r, struct fault *f)
{
	const struct options *o = r->options;

	if (r->kind != MAPPING_SERVE)
		return 0;
	/* What was closed is something else by now, see main.c. */
	if (o->is_single &&
	    (!is_open_to(O_RDONLY, STDIN_FILENO) || !is_open_to(O_WRONLY, STDOUT_FILENO)))
		return fault_set(f, EXIT_USAGE, -EBADF,
				 "--single: standard input and output are not open");
	for (unsigned int i = 0; o->is_single && i < o->passphrase_files.n; i++)
		if (strcmp(o->passphrase_files.items[i], "-") == 0 ||
		    strcmp(o->passphrase_files.items[i], "fd:0") == 0)
			return fault_set(f, EXIT_USAGE, -EINVAL,
					 "--single: standard input cannot be both the client and "
					 "the passphrase");
	r->listen_fd = sd_listen_fds(1) > 0 ? SD_LISTEN_FDS_START : -1;
	if (r->listen_fd >= 0 &&
	    (o->socket_mode != UINT_MAX || o->socket_owner || o->socket_group)) {
		(void)fault_set(f, EXIT_USAGE, -EINVAL,
				"--socket-mode, --socket-owner and --socket-group: the socket was "
				"passed and is somebody else's");
		fault_hint(f, "SocketMode=, SocketUser= and SocketGroup= in its unit say it");
		return -EINVAL;
	}
	if (r->listen_fd >= 0 && (o->socket || o->is_single)) {
		(void)fault_set(f, EXIT_USAGE, -EINVAL, "--%s: a socket was passed already",
				o->socket ? "socket" : "single");
		fault_hint(f, "leave the option out; who started this passed one (LISTEN_FDS)");
		return -EINVAL;
	}
	if (o->socket || o->is_single || r->listen_fd >= 0)
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

/* What scripts read: the device, or where to connect to. */
static int announce(const struct options *o, const struct host_volume_service *s, struct fault *f)
{
	int r;

	if (s->device >= 0 && o->is_cookie_shown && s->cookie[0])
		(void)printf("/dev/nbd%d %s\n", s->device, s->cookie);
	else if (s->device >= 0)
		(void)printf("/dev/nbd%d\n", s->device);
	else if (s->socket[0])
		output_socket(stdout, s->socket);
	r = output_finish(0, f);
	if (r < 0)
		return r;
	(void)sd_notifyf(0, "READY=1\nSTATUS=serving %s", o->operand ?: "");
	return 0;
}

static void on_serving(void *arg, struct host_volume *v)
{
	struct run *r = arg;
	int e;

	/* It has taken what was for it. */
	handover_sweep(r->handover, NULL, NULL);
	/* It is on its way out already. */
	if (r->is_interrupted)
		return;
	e = announce(host_volume_options(v), host_volume_service(v), &r->fault);
	r->is_logged = e == 0 && (r->ready_fd >= 0 ||
				  (getenv("NOTIFY_SOCKET") && !host_volume_options(v)->is_debug));
	if (r->is_logged) {
		log_to_background();
		host_volume_log_serving(v);
	}
	if (e == 0 && r->ready_fd >= 0) {
		e = process_ready(r->ready_fd);
		if (e == -EPIPE)
			(void)fault_set(&r->fault, EXIT_TIMED_OUT, e,
					"nobody waits for the device");
		else if (e < 0)
			(void)fault_set(&r->fault, fault_status(e, EXIT_KERNEL), e,
					"cannot go to the background: %s", strerror(-e));
	}
	r->is_announced = e == 0;
	if (e < 0)
		host_stop(r->host, HOST_DISCONNECT);
}

static void on_ended(void *arg, struct host_volume *v)
{
	struct run *r = arg;
	const struct fault *f = host_volume_fault(v);

	if (r->is_logged)
		host_volume_log_end(v);
	if (f)
		r->fault = *f;
	else if (!r->is_announced)
		(void)fault_set(&r->fault, EXIT_TIMED_OUT, -EINTR, "interrupted");
	loop_quit(r->loop);
}

static void on_signal(struct watch *w)
{
	struct run *r = (struct run *)((char *)w - offsetof(struct run, signals));
	int s = process_next_signal(w->fd);

	if (s == SIGHUP && r->log_file)
		(void)log_open_file(r->log_file);
	if (s != SIGTERM && s != SIGINT)
		return;
	(void)sd_notify(0, "STOPPING=1");
	r->is_interrupted = true;
	host_stop(r->host, r->is_announced ? HOST_LEAVE : HOST_DISCONNECT);
}

static int start(struct run *r, struct fault *f)
{
	struct host_options h = { .run_dir = r->run_dir,
				  .workers = r->options->workers,
				  .handover = r->handover,
				  .serving = on_serving,
				  .ended = on_ended,
				  .arg = r };
	struct host_add add = { .kind = r->kind, .listen_fd = r->listen_fd, .resumed = r->resumed };
	int e = loop_new(&r->loop);

	if (e == 0)
		e = loop_watch(r->loop, &r->signals, process_signal_fd(), on_signal);
	if (e == 0)
		e = watchdog_start(&r->watchdog, r->loop);
	h.loop = r->loop;
	if (e == 0)
		e = host_new(&h, &r->host);
	if (e == 0)
		(void)sd_notifyf(0, "STATUS=opening and unlocking %s", r->options->operand ?: "");
	if (e == 0)
		e = host_add_take(r->host, &add, &r->options, NULL);
	return e < 0 ? fault_set(f, EXIT_MEMORY, e, "cannot start the daemon: %s", strerror(-e))
		     : 0;
}

static int serve(struct run *r, struct fault *f)
{
	int e = start(r, f);

	if (e == 0) {
		e = loop_run(r->loop);
		if (e < 0)
			(void)fault_set(&r->fault, EXIT_KERNEL, e, "the control loop failed: %s",
					strerror(-e));
		if (r->fault.error)
			*f = r->fault;
		e = f->error;
	}
	r->host = host_free(r->host);
	watchdog_stop(&r->watchdog, r->loop);
	if (r->loop)
		loop_remove(r->loop, &r->signals);
	if (r->signals.fd >= 0)
		(void)close(r->signals.fd);
	r->loop = loop_free(r->loop);
	return e;
}

/* What makes this process a daemon; from here on it has a fault to tell whoever waits for it. */
static int settle(struct run *r, struct fault *f)
{
	const struct options *o = r->options;
	int e;

	log_set_level(o->is_debug ? LOG_LEVEL_DEBUG : (enum log_level)o->log_level);
	e = process_setup();
	if (e == 0 && is_background(r))
		e = process_fork(&r->ready_fd);
	if (e == 0 && o->log_file && !(r->log_file = strdup(o->log_file)))
		e = -ENOMEM;
	if (e < 0)
		return fault_set(f, EXIT_MEMORY, e, "cannot start the daemon: %s", strerror(-e));
	if (r->log_file && (e = log_open_file(r->log_file)) < 0)
		return fault_set(f, fault_status(e, EXIT_USAGE), e, "cannot write log file %s: %s",
				 r->log_file, strerror(-e));
	if (r->kind != MAPPING_SERVE && process_set_io_flusher() < 0)
		log_debug(NULL, "not an IO flusher: no privilege");
	e = secret_protect_process();
	return e < 0 ? fault_set(f, EXIT_MEMORY, e, "cannot keep secrets out of core dumps: %s",
				 strerror(-e))
		     : 0;
}

/* Whoever goes into the background is no service, whatever its environment says. */
static int receive(struct run *r, struct fault *f)
{
	int none, e;

	if (r->kind == MAPPING_SERVE || is_background(r))
		return 0;
	e = handover_new(NULL, &none, &r->handover);
	if (e < 0)
		return fault_set(f, EXIT_MEMORY, e, "cannot start the daemon: %s", strerror(-e));
	/* A new device has nothing to do with those of an old one. */
	if (r->kind == MAPPING_MAP)
		handover_sweep(r->handover, NULL, NULL);
	return 0;
}

/*
 * What a restarted service cannot open now, because its key is away, it may be able to open later,
 * and until then the device waits. A passphrase that does not fit will not fit the next time.
 */
static void go_on_waiting(const struct run *r, struct fault *f)
{
	char health[256];

	if (!r->resumed || r->is_announced || f->status != EXIT_PASSPHRASE || f->error == -EPERM)
		return;
	(void)snprintf(health, sizeof(health), "waits: %.240s", f->message);
	state_note_health(r->run_dir, r->resumed, health);
	fault_prefix(f, "the device waits");
	f->status = EXIT_TIMED_OUT;
}

int run_volume(struct options *o, enum mapping_kind kind, struct fault *f)
{
	struct run r = { .kind = kind, .ready_fd = -1, .listen_fd = -1 };
	int e = image_spec_parse(o->operand, &o->spec, f);

	r.signals.fd = r.watchdog.timer.fd = -1;
	if (e < 0)
		return e;
	r.options = malloc(sizeof(*r.options));
	if (!r.options)
		return fault_set(f, EXIT_MEMORY, -ENOMEM, "no memory for the command line");
	*r.options = *o;
	memset(o, 0, sizeof(*o));
	e = check_options(&r, f);
	if (e == 0)
		e = check_paths(r.options, f);
	if (e == 0)
		e = state_run_dir(r.options->run_dir, r.run_dir, sizeof(r.run_dir), f);
	if (e == 0 && kind == MAPPING_MAP && r.options->is_resuming)
		e = resume_find(r.options, r.run_dir, &r.resumed, f);
	if (r.resumed)
		r.kind = MAPPING_ATTACH;
	if (e == 0)
		e = receive(&r, f);
	if (e == 0)
		e = settle(&r, f);
	if (e == 0)
		e = serve(&r, f);
	if (e < 0)
		go_on_waiting(&r, f);
	r.handover = handover_free(r.handover);
	if (r.options)
		options_done(r.options);
	free(r.options);
	free(r.log_file);
	free(r.resumed);
	return e;
}
