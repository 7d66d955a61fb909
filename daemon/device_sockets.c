/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Copyright (C) 2026 the rbdcrypt-nbd authors */

/*
 * One socketpair per connection: our end is read by a conn, the other belongs to the kernel. A
 * socket that dies while the device is connected is replaced as soon as its reader has seen it.
 * What was in flight on it comes to its end on the old conn, which lingers until then; the order of
 * writes is kept by their ranges, whichever conn they came by (request.c). So when the store stalls
 * for longer than the kernel's timeout, the kernel kills one socket after the other and always gets
 * new ones, and the requests wait instead of failing.
 *
 * RECONFIGURE says success even when it found no dead slot and dropped our socket; we see that as
 * the new connection closing at once, and try again later and later.
 */

#include "device_private.h"

#include <errno.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "clock.h"

#define RETRY_FIRST_MS 50
#define RETRY_MAX_MS 5000
/* A connection that lived so long was not dropped at the door. */
#define SETTLED_MS 1000

/* More dead sockets than this per slot wait for their requests before they get a successor. */
#define LINGERING_MAX 16

/* The first socket of a device that was there before us. */
#define TAKEN_MS 10000

/* For as long the one who has a free device open is waited for. */
#define OPEN_MS 5000
#define OPEN_STEP_MS 50

int device_sockets_new(struct device *d, unsigned int n)
{
	d->ended.fd = d->retry.fd = d->events.fd = -1;
	d->retry_ms = RETRY_FIRST_MS;
	d->n_slots = n;
	d->slots = calloc(n, sizeof(*d->slots));
	d->lingering = calloc((size_t)n * LINGERING_MAX, sizeof(*d->lingering));
	return d->slots && d->lingering ? 0 : -ENOMEM;
}

static void on_conn_ended(void *arg)
{
	struct device *d = arg;

	event_raise(d->ended.fd);
}

/* A conn on our end of a socketpair, which is taken. */
static int fill_slot_take(struct device *d, struct slot *s, int fd)
{
	struct conn_options o = {
		.volume = d->o.volume,
		.rfd = fd,
		.wfd = fd,
		.is_kernel = true,
		.lost = on_conn_ended,
		.ended = on_conn_ended,
		.ended_arg = d,
	};
	int r = conn_new(&o, &s->conn);

	if (r < 0)
		(void)close(fd);
	s->since_ms = clock_ms();
	return r;
}

/* A conn on a fresh socketpair; the kernel's end in *ret_kernel, to be closed once the kernel has
 * it. */
static int open_slot(struct device *d, struct slot *s, int *ret_kernel)
{
	int pair[2], r;

	if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair) < 0)
		return -errno;
	r = fill_slot_take(d, s, pair[0]);
	if (r < 0) {
		(void)close(pair[1]);
		return r;
	}
	*ret_kernel = pair[1];
	return 0;
}

/*
 * Sockets for the slots without one. *ret_fds, the kernel's ends, are for close_ends(). -errno when
 * not all could be had.
 */
static int open_slots(struct device *d, int **ret_fds, unsigned int *ret_n)
{
	int *fds = calloc(d->n_slots, sizeof(*fds)), r = fds ? 0 : -ENOMEM;

	*ret_fds = fds;
	*ret_n = 0;
	for (unsigned int i = 0; fds && i < d->n_slots; i++) {
		int error;

		if (d->slots[i].conn)
			continue;
		error = open_slot(d, &d->slots[i], &fds[*ret_n]);
		if (error == 0)
			(*ret_n)++;
		else
			r = error;
	}
	return r;
}

static void close_ends(int *fds, unsigned int n)
{
	for (unsigned int i = 0; i < n; i++)
		(void)close(fds[i]);
	free(fds);
}

/* ---- keeping it alive ---- */

/* New sockets for the slots without one. */
static void revive(struct device *d)
{
	struct nbdctl_device n;
	struct fault f = { 0 };
	unsigned int n_fds;
	int *fds, r = open_slots(d, &fds, &n_fds);

	if (n_fds > 0) {
		device_describe(d, &n);
		n.sockets = fds;
		n.n_sockets = n_fds;
		/* Whatever comes of it, our ends see: a socket nobody took closes when we close the
		 * other end. */
		if (nbdctl_reconfigure(d->ctl, d->index, &n, &f) == 0) {
			log_debug(d->o.volume->spec, "offered nbd%d %u new socket%s", d->index,
				  n_fds, n_fds == 1 ? "" : "s");
		} else {
			log_warning(d->o.volume->spec, "nbd%d took no new socket: %s", d->index,
				    f.message);
		}
	}
	close_ends(fds, n_fds);
	if (r < 0)
		timer_set(d->retry.fd, d->retry_ms);
}

static void schedule_retry(struct device *d)
{
	timer_set(d->retry.fd, d->retry_ms);
	d->retry_ms = d->retry_ms * 2 < RETRY_MAX_MS ? d->retry_ms * 2 : RETRY_MAX_MS;
}

/* The device is no longer connected: whoever unmapped it waits for us. */
static bool check_gone(struct device *d)
{
	struct nbd_sysfs s;
	int r = nbd_sysfs_read(d->index, &s);

	if (r == -ENODEV || (r == 0 && !s.is_connected)) {
		d->is_going = true;
		return true;
	}
	/* The number was given to another mapping meanwhile. */
	if (r == 0 && s.cookie[0] && d->cookie && strcmp(s.cookie, d->cookie) != 0) {
		d->is_going = true;
		return true;
	}
	return false;
}

/* Waits until everything that was read is answered. */
static void end_all(struct device *d)
{
	for (unsigned int i = 0; d->slots && i < d->n_slots; i++) {
		if (d->slots[i].conn)
			conn_stop(d->slots[i].conn);
	}
	for (unsigned int i = 0; d->slots && i < d->n_slots; i++)
		d->slots[i].conn = conn_free(d->slots[i].conn);
	while (d->n_lingering > 0)
		(void)conn_free(d->lingering[--d->n_lingering]);
}

static void end_if_gone(struct device *d)
{
	if (!d->is_going && !check_gone(d))
		return;
	/* device_settle() looks again. */
	if (d->is_starting)
		return;
	volume_is_ending(d->o.volume);
	end_all(d);
	d->o.gone(d->o.gone_arg);
}

static void bury(struct device *d)
{
	unsigned int kept = 0;

	for (unsigned int i = 0; i < d->n_lingering; i++) {
		if (conn_ended(d->lingering[i]) == CONN_RUNNING)
			d->lingering[kept++] = d->lingering[i];
		else
			(void)conn_free(d->lingering[i]);
	}
	d->n_lingering = kept;
}

/* Whether the slot has become free. */
static bool vacate(struct device *d, struct slot *s)
{
	enum conn_end end = s->conn ? conn_lost(s->conn) : CONN_RUNNING;

	if (end == CONN_RUNNING)
		return false;
	if (end == CONN_DISCONNECTED)
		d->is_going = true;
	if (conn_ended(s->conn) != CONN_RUNNING)
		(void)conn_free(s->conn);
	else if (d->n_lingering < d->n_slots * LINGERING_MAX)
		d->lingering[d->n_lingering++] = s->conn;
	else
		return false;
	s->conn = NULL;
	if (clock_ms() - s->since_ms > SETTLED_MS) {
		d->retry_ms = RETRY_FIRST_MS;
		if (end != CONN_DISCONNECTED)
			log_warning(d->o.volume->spec,
				    "a socket of nbd%d died; it is being replaced", d->index);
	}
	return true;
}

static void on_ended(struct watch *w)
{
	struct device *d = (struct device *)((char *)w - offsetof(struct device, ended));
	bool is_lost = false;

	event_clear(w->fd);
	bury(d);
	for (unsigned int i = 0; i < d->n_slots; i++)
		is_lost = vacate(d, &d->slots[i]) || is_lost;
	if (d->is_going || (is_lost && check_gone(d))) {
		end_if_gone(d);
		return;
	}
	/* Not at once: the kernel first has to notice that its end is dead. */
	if (is_lost)
		schedule_retry(d);
}

static void on_retry(struct watch *w)
{
	struct device *d = (struct device *)((char *)w - offsetof(struct device, retry));

	timer_clear(w->fd);
	if (check_gone(d))
		end_if_gone(d);
	else
		revive(d);
}

static void on_link_dead(void *arg, int index)
{
	struct device *d = arg;

	if (index == d->index)
		log_debug(d->o.volume->spec, "the kernel reports a dead link of nbd%d", index);
}

/*
 * The reader of a socket that died sees the end of its stream by itself; the event
 * is read so that the queue does not fill, and as a chance to look.
 */
static void on_events(struct watch *w)
{
	struct device *d = (struct device *)((char *)w - offsetof(struct device, events));

	(void)nbdctl_read_events(d->ctl, on_link_dead, d);
}

/* ---- start and stop ---- */

void device_sockets_look(void *device)
{
	struct device *d = device;

	(void)loop_run_until_quiet(d->loop, 0);
}

static void on_keeper(struct watch *w)
{
	device_sockets_look((char *)w - offsetof(struct device, keeper));
}

int device_sockets_keep(struct device *d, struct fault *f)
{
	int r = loop_new(&d->loop);

	if (r == 0)
		r = loop_watch(d->loop, &d->ended, event_new(), on_ended);
	if (r == 0)
		r = loop_watch(d->loop, &d->retry, timer_new(), on_retry);
	if (r == 0)
		r = loop_watch(d->o.loop, &d->keeper, loop_fd(d->loop), on_keeper);
	if (r < 0)
		return fault_set(f, EXIT_MEMORY, r, "cannot watch the connections: %s",
				 strerror(-r));
	r = nbdctl_event_fd(d->ctl, f);
	if (r < 0)
		return r;
	return loop_watch(d->loop, &d->events, r, on_events);
}

/*
 * The kernel refuses a device that anybody has open, and udev opens each for a moment when the
 * driver was loaded or the device unmapped. Without a number it passes over such devices.
 */
static int connect_chosen(struct device *d, const struct nbdctl_device *n, struct fault *f)
{
	int64_t end = clock_ms() + OPEN_MS;
	struct nbd_sysfs s;
	int r;

	for (;;) {
		r = nbdctl_connect(d->ctl, d->o.index, n, &d->index, f);
		if (r != -EBUSY || d->o.index < 0 || clock_ms() >= end ||
		    interrupt_is_raised(d->o.interrupt) || nbd_sysfs_read(d->o.index, &s) < 0 ||
		    s.is_connected)
			return r;
		fault_clear(f);
		(void)poll(NULL, 0, OPEN_STEP_MS);
	}
}

static int connect_new(struct device *d, struct nbdctl_device *n, struct fault *f)
{
	n->size = atomic_load(&d->o.volume->size);
	n->block_size = d->o.volume->block_size;
	n->server_flags = volume_flags(d->o.volume);
	return connect_chosen(d, n, f);
}

/* Goes on with the sockets that the kernel has. One that cannot be is closed, and gets a successor.
 */
static void adopt(struct device *d)
{
	unsigned int n = 0;

	for (unsigned int i = 0; d->o.sockets && i < d->n_slots; i++) {
		int fd = d->o.sockets[i];

		d->o.sockets[i] = -1;
		if (fd >= 0 && fill_slot_take(d, &d->slots[i], fd) == 0)
			n++;
	}
	if (n > 0)
		log_notice(d->o.volume->spec, "goes on with %u of %u sockets of nbd%d", n,
			   d->n_slots, d->index);
}

/* A socket that the kernel dropped is at its end as soon as we have closed our copy. */
static bool has_taken_one(const struct device *d)
{
	for (unsigned int i = 0; i < d->n_slots; i++) {
		const struct conn *c = d->slots[i].conn;
		struct pollfd p = { .events = POLLRDHUP };

		p.fd = c && conn_lost(c) == CONN_RUNNING ? conn_fd(c) : -1;
		if (p.fd >= 0 && poll(&p, 1, 0) == 0)
			return true;
	}
	return false;
}

/*
 * Of a predecessor that died just now, or whose sockets systemd still holds, the kernel takes the
 * old ones for alive and ours for too many. Whoever reads the device before it has one, as udev
 * does, waits for it.
 */
static void wait_taken(struct device *d)
{
	int64_t end = clock_ms() + TAKEN_MS;
	struct pollfd p = { .fd = loop_fd(d->loop), .events = POLLIN };

	while (!has_taken_one(d)) {
		int64_t left = end - clock_ms();

		if (interrupt_is_raised(d->o.interrupt))
			return;
		if (left <= 0 || d->is_going) {
			log_warning(d->o.volume->spec, "nbd%d takes no socket so far", d->index);
			return;
		}
		(void)poll(&p, 1, interrupt_slice(d->o.interrupt, left));
		device_sockets_look(d);
	}
}

int device_sockets_start(struct device *d, struct fault *f)
{
	struct nbdctl_device n;
	unsigned int n_fds;
	int *fds, r;

	adopt(d);
	r = open_slots(d, &fds, &n_fds);
	if (r < 0) {
		(void)fault_set(f, EXIT_MEMORY, r, "cannot open the device's sockets: %s",
				strerror(-r));
	} else if (n_fds > 0) {
		device_describe(d, &n);
		n.sockets = fds;
		n.n_sockets = n_fds;
		r = d->o.is_attach ? nbdctl_reconfigure(d->ctl, d->o.index, &n, f)
				   : connect_new(d, &n, f);
	}
	close_ends(fds, n_fds);
	if (r == 0)
		wait_taken(d);
	return r;
}

void device_sockets_forsake(struct device *d)
{
	loop_remove(d->o.loop, &d->keeper);
}

void device_sockets_free(struct device *d)
{
	end_all(d);
	/* Only now: a conn raises it when it ends. The event socket is libnl's. */
	if (d->ended.fd >= 0)
		(void)close(d->ended.fd);
	if (d->retry.fd >= 0)
		(void)close(d->retry.fd);
	d->loop = loop_free(d->loop);
	free(d->slots);
	free(d->lingering);
}
