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
 *
 * We never disconnect our own device because of a socket.
 *
 * A daemon that is restarted leaves its sockets to the next one (handover.c), which reads on where
 * this one stopped; the kernel sees nothing of it.
 */

#include "device.h"

#include <errno.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include "clock.h"
#include "conn.h"

#define RETRY_FIRST_MS 50
#define RETRY_MAX_MS 5000
/* A connection that lived so long was not dropped at the door. */
#define SETTLED_MS 1000
#define UDEV_MS 30000
#define SIZE_MS 2000
#define SIZE_STEP_MS 10

/* A connection that cannot be left so soon is ended instead: its requests come again. */
#define LEAVE_MS 10000

/* More dead sockets than this per slot wait for their requests before they get a successor. */
#define LINGERING_MAX 16

struct slot {
	struct conn *conn; /* NULL: dead, waits for the next try */
	int64_t since_ms;
};

struct device {
	struct device_options o;
	char *cookie;
	struct nbdctl *ctl;
	int index;
	struct slot *slots;
	unsigned int n_slots;
	struct conn **lingering; /* of dead sockets, with requests in flight */
	unsigned int n_lingering;
	unsigned int retry_ms;
	bool is_going; /* the kernel said DISC */
	/* Watches: a connection ended; time to try again; LINK_DEAD. */
	struct watch ended, retry, events;
};

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

static void describe(const struct device *d, struct nbdctl_device *n)
{
	memset(n, 0, sizeof(*n));
	n->io_timeout_s = d->o.io_timeout_s;
	n->dead_conn_timeout_s = d->o.reattach_timeout_s;
	n->cookie = d->cookie;
}

/* ---- keeping it alive ---- */

/* New sockets for the slots without one. */
static void revive(struct device *d)
{
	struct nbdctl_device n;
	struct fault f = { 0 };
	int *fds = calloc(d->n_slots, sizeof(*fds));
	unsigned int n_fds = 0;
	bool is_missing = !fds;

	for (unsigned int i = 0; fds && i < d->n_slots; i++) {
		if (d->slots[i].conn)
			continue;
		if (open_slot(d, &d->slots[i], &fds[n_fds]) == 0)
			n_fds++;
		else
			is_missing = true;
	}
	if (n_fds > 0) {
		describe(d, &n);
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
	for (unsigned int i = 0; i < n_fds; i++)
		(void)close(fds[i]);
	free(fds);
	if (is_missing)
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
static void free_conns(struct device *d)
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
	volume_is_ending(d->o.volume);
	free_conns(d);
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

/* ---- start ---- */

static int add_watch(struct device *d, struct watch *w, int fd, void (*ready)(struct watch *w))
{
	if (fd < 0)
		return fd;
	w->fd = fd;
	w->ready = ready;
	return loop_add(d->o.loop, w);
}

static int start_watches(struct device *d, struct fault *f)
{
	int r = add_watch(d, &d->ended, event_new(), on_ended);

	if (r == 0)
		r = add_watch(d, &d->retry, timer_new(), on_retry);
	if (r < 0)
		return fault_set(f, EXIT_MEMORY, r, "cannot watch the connections: %s",
				 strerror(-r));
	r = nbdctl_event_fd(d->ctl, f);
	if (r < 0)
		return r;
	return add_watch(d, &d->events, r, on_events);
}

static int connect_new(struct device *d, struct nbdctl_device *n, struct fault *f)
{
	n->size = atomic_load(&d->o.volume->size);
	n->block_size = d->o.volume->block_size;
	n->server_flags = volume_flags(d->o.volume);
	return nbdctl_connect(d->ctl, d->o.index, n, &d->index, f);
}

/*
 * The image may have another size by now. Only after the sockets: a change of size waits for
 * requests in flight, and those wait for a socket.
 */
static int correct_size(struct device *d, struct fault *f)
{
	struct nbd_sysfs s;

	if (nbd_sysfs_read(d->index, &s) < 0 || s.size == atomic_load(&d->o.volume->size))
		return 0;
	return device_resize(d, f);
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

static int start_sockets(struct device *d, struct fault *f)
{
	int *fds = calloc(d->n_slots, sizeof(*fds));
	struct nbdctl_device n;
	unsigned int n_fds = 0;
	int r = fds ? 0 : -ENOMEM;

	for (unsigned int i = 0; r == 0 && i < d->n_slots; i++) {
		if (d->slots[i].conn)
			continue;
		r = open_slot(d, &d->slots[i], &fds[n_fds]);
		if (r == 0)
			n_fds++;
	}
	if (r < 0) {
		(void)fault_set(f, EXIT_MEMORY, r, "cannot open the device's sockets: %s",
				strerror(-r));
	} else if (n_fds > 0) {
		describe(d, &n);
		n.sockets = fds;
		n.n_sockets = n_fds;
		r = d->o.is_attach ? nbdctl_reconfigure(d->ctl, d->o.index, &n, f)
				   : connect_new(d, &n, f);
	}
	for (unsigned int i = 0; i < n_fds; i++)
		(void)close(fds[i]);
	free(fds);
	return r;
}

/* Newer kernels set the size a little later than they answer. */
static int wait_size(const struct device *d, struct nbd_sysfs *s)
{
	struct timespec step = { .tv_nsec = SIZE_STEP_MS * 1000000L };
	uint64_t size = atomic_load(&d->o.volume->size);

	for (int waited = 0;; waited += SIZE_STEP_MS) {
		int r = nbd_sysfs_read(d->index, s);

		if (r < 0 || (s->is_connected && s->size == size) || waited >= SIZE_MS)
			return r;
		(void)nanosleep(&step, NULL);
	}
}

/* The kernel does not always do as it is told: compare. */
static int read_back(const struct device *d, struct fault *f)
{
	const struct volume *v = d->o.volume;
	uint64_t size = atomic_load(&v->size);
	struct nbd_sysfs s;
	int r = wait_size(d, &s);

	if (r < 0)
		return fault_set(f, EXIT_KERNEL, r, "nbd%d cannot be read back from sysfs: %s",
				 d->index, strerror(-r));
	if (!s.is_connected || s.size != size)
		return fault_set(f, EXIT_KERNEL, -EIO,
				 "nbd%d should have %llu bytes, but the kernel says %llu", d->index,
				 (unsigned long long)size, (unsigned long long)s.size);
	if (s.logical_block != v->block_size)
		return fault_set(f, EXIT_KERNEL, -EIO,
				 "nbd%d should have blocks of %u bytes, but the kernel says %u",
				 d->index, v->block_size, s.logical_block);
	if (v->is_read_only && !s.is_read_only)
		return fault_set(f, EXIT_KERNEL, -EIO,
				 "nbd%d should be read-only, but the kernel says it is not",
				 d->index);
	if (!v->is_read_only && !s.has_write_cache)
		return fault_set(f, EXIT_KERNEL, -EIO, "nbd%d would never be flushed", d->index);
	if (s.cookie[0] == '\0' && d->cookie)
		log_info(v->spec, "this kernel keeps no cookie (it came with Linux 5.14)");
	if (!s.has_fua && !v->is_read_only)
		log_info(v->spec, "this kernel flushes instead of using FUA");
	return 0;
}

int device_start(const struct device_options *o, struct device **ret, struct fault *f)
{
	struct device *d = calloc(1, sizeof(*d));
	int r;

	if (!d)
		return fault_set(f, EXIT_MEMORY, -ENOMEM, "no memory for the device");
	d->o = *o;
	d->index = o->is_attach ? o->index : -1;
	d->ended.fd = d->retry.fd = d->events.fd = -1;
	d->retry_ms = RETRY_FIRST_MS;
	d->n_slots = o->connections;
	d->slots = calloc(d->n_slots, sizeof(*d->slots));
	d->lingering = calloc((size_t)d->n_slots * LINGERING_MAX, sizeof(*d->lingering));
	d->cookie = o->cookie ? strdup(o->cookie) : NULL;
	if (!d->slots || !d->lingering || (o->cookie && !d->cookie)) {
		r = fault_set(f, EXIT_MEMORY, -ENOMEM, "no memory for the device");
		goto fail;
	}
	r = nbdctl_load_module(o->nbds_max, o->max_part, f);
	if (r == 0)
		r = nbdctl_open(&d->ctl, f);
	if (r == 0)
		r = start_watches(d, f);
	if (r == 0) {
		adopt(d);
		r = start_sockets(d, f);
	}
	if (r == 0 && o->is_attach)
		r = correct_size(d, f);
	if (r == 0)
		r = read_back(d, f);
	if (r < 0)
		goto fail;
	*ret = d;
	return 0;
fail:
	/* An attached device was there before us and stays. */
	(void)device_stop(d, !o->is_attach);
	return r;
}

int device_settle(const struct device *d, struct fault *f)
{
	int r = d->o.waits_for_udev ? nbd_udev_settle(d->index, UDEV_MS) : 0;

	return r < 0 ? fault_set(f, EXIT_TIMED_OUT, r, "udev did not finish with /dev/nbd%d: %s",
				 d->index, strerror(-r))
		     : 0;
}

int device_index(const struct device *d)
{
	return d->index;
}

unsigned int device_connections(const struct device *d)
{
	return d->n_slots;
}

int device_resize(struct device *d, struct fault *f)
{
	struct nbdctl_device n;

	describe(d, &n);
	/* Timeouts are as they were; sockets stay. */
	n.io_timeout_s = n.dead_conn_timeout_s = -1;
	n.size = atomic_load(&d->o.volume->size);
	return nbdctl_reconfigure(d->ctl, d->index, &n, f);
}

/* ---- stop ---- */

/* Until every connection has ended, or the time is over. */
static void wait_left(struct device *d)
{
	struct pollfd p = { .fd = d->ended.fd, .events = POLLIN };
	int64_t end = clock_ms() + LEAVE_MS;

	for (;;) {
		int64_t left = end - clock_ms();
		bool is_running = false;

		event_clear(p.fd);
		for (unsigned int i = 0; i < d->n_slots; i++)
			is_running = is_running || (d->slots[i].conn &&
						    conn_ended(d->slots[i].conn) == CONN_RUNNING);
		if (!is_running || left <= 0)
			return;
		(void)poll(&p, 1, (int)left);
	}
}

int device_hand_over(struct device *d, struct handover *h, char *note)
{
	int *fds;
	int r;

	/* From here on this thread is in no loop that would revive what ends. */
	for (unsigned int i = 0; i < d->n_slots; i++)
		if (d->slots[i].conn)
			conn_leave(d->slots[i].conn);
	wait_left(d);
	/* What failed to become durable would be forgotten by whoever is asked for it later. */
	r = volume_flush(d->o.volume);
	if (r < 0) {
		log_error(d->o.volume->spec, "what was written is not known to be durable: %s",
			  strerror(-r));
		return r;
	}
	fds = calloc(d->n_slots, sizeof(*fds));
	if (!fds)
		return -ENOMEM;
	for (unsigned int i = 0; i < d->n_slots; i++) {
		const struct conn *c = d->slots[i].conn;

		fds[i] = c && conn_ended(c) == CONN_LEFT ? conn_fd(c) : -1;
	}
	r = handover_give(h, d->index, fds, d->n_slots, note);
	free(fds);
	return r;
}

static void close_watch(struct device *d, struct watch *w)
{
	loop_remove(d->o.loop, w);
	/* The event socket is libnl's. */
	if (w->fd >= 0 && w != &d->events)
		(void)close(w->fd);
}

struct device *device_stop(struct device *d, bool disconnect)
{
	struct fault f = { 0 };

	if (!d)
		return NULL;
	/* First, so that nobody revives what is about to end. */
	loop_remove(d->o.loop, &d->ended);
	loop_remove(d->o.loop, &d->retry);
	if (disconnect && d->index >= 0 && !d->is_going &&
	    nbdctl_disconnect(d->ctl, d->index, &f) < 0)
		log_warning(d->o.volume->spec, "cannot disconnect nbd%d: %s", d->index, f.message);
	free_conns(d);
	close_watch(d, &d->ended);
	close_watch(d, &d->retry);
	close_watch(d, &d->events);
	(void)nbdctl_close(d->ctl);
	free(d->slots);
	free(d->lingering);
	free(d->cookie);
	free(d);
	return NULL;
}
