/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Copyright (C) 2026 the rbdcrypt-nbd authors */

/*
 * Starts and stops a device. What keeps its sockets alive is in device_sockets.c. We never
 * disconnect our own device because of a socket.
 *
 * A daemon that is restarted leaves its sockets to the next one (handover.c), which reads on where
 * this one stopped; the kernel sees nothing of it.
 */

#include "device_private.h"

#include <errno.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "clock.h"

#define UDEV_MS 30000
#define SIZE_MS 2000
#define SIZE_STEP_MS 10

/* A connection that cannot be left so soon is ended instead: its requests come again. */
#define LEAVE_MS 10000

void device_describe(const struct device *d, struct nbdctl_device *n)
{
	memset(n, 0, sizeof(*n));
	n->io_timeout_s = d->o.io_timeout_s;
	n->dead_conn_timeout_s = d->o.reattach_timeout_s;
	n->cookie = d->cookie;
}

/* ---- start ---- */

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
		return fault_set(f, EXIT_KERNEL, -EPROTO,
				 "nbd%d should have %llu bytes, but the kernel says %llu", d->index,
				 (unsigned long long)size, (unsigned long long)s.size);
	if (s.logical_block != v->block_size)
		return fault_set(f, EXIT_KERNEL, -EPROTO,
				 "nbd%d should have blocks of %u bytes, but the kernel says %u",
				 d->index, v->block_size, s.logical_block);
	if (v->is_read_only && !s.is_read_only)
		return fault_set(f, EXIT_KERNEL, -EPROTO,
				 "nbd%d should be read-only, but the kernel says it is not",
				 d->index);
	if (!v->is_read_only && !s.has_write_cache)
		return fault_set(f, EXIT_KERNEL, -EPROTO, "nbd%d would never be flushed", d->index);
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
	d->is_starting = true;
	r = device_sockets_new(d, o->connections);
	d->cookie = o->cookie ? strdup(o->cookie) : NULL;
	if (r < 0 || (o->cookie && !d->cookie)) {
		r = fault_set(f, EXIT_MEMORY, -ENOMEM, "no memory for the device");
		goto fail;
	}
	r = nbdctl_load_module(o->nbds_max, o->max_part, f);
	if (r == 0)
		r = nbdctl_open(&d->ctl, f);
	if (r == 0)
		r = device_sockets_keep(d, f);
	if (r == 0)
		r = device_sockets_start(d, f);
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

int device_settle(struct device *d, struct fault *f)
{
	const struct nbd_meanwhile m = { loop_fd(d->loop), device_sockets_look, d, d->o.interrupt };
	int r = d->o.waits_for_udev ? nbd_udev_settle(d->index, UDEV_MS, &m) : 0;

	/* What was kept from its user until now is seen by the loop. */
	d->is_starting = false;
	if (d->is_going)
		event_raise(d->ended.fd);
	if (r == -EINTR)
		return fault_set(f, EXIT_TIMED_OUT, r, "interrupted while udev made /dev/nbd%d",
				 d->index);
	if (r == 0)
		return 0;
	(void)fault_set(f, EXIT_TIMED_OUT, r, "udev did not finish with /dev/nbd%d: %s", d->index,
			strerror(-r));
	fault_hint(f, "udev is stuck, or does not see devices from here: --no-udev-wait does not "
		      "wait for it");
	return r;
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

	device_describe(d, &n);
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

struct device *device_stop(struct device *d, bool disconnect)
{
	struct fault f = { 0 };

	if (!d)
		return NULL;
	/* First, so that nobody revives what is about to end. */
	device_sockets_forsake(d);
	if (disconnect && d->index >= 0 && !d->is_going &&
	    nbdctl_disconnect(d->ctl, d->index, &f) < 0)
		log_warning(d->o.volume->spec, "cannot disconnect nbd%d: %s", d->index, f.message);
	device_sockets_free(d);
	(void)nbdctl_close(d->ctl);
	free(d->cookie);
	free(d);
	return NULL;
}
