/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Copyright (C) 2026 the rbdcrypt-nbd authors */

/*
 * A volume in service follows its image: size, lock and health go into the device and into the
 * state file. On the volume's thread; the store only raises an event.
 */

#include "mapping_private.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "text.h"

/* A size that could not be asked for, or that the kernel did not take, is tried again. */
#define AGAIN_MS 10000

/* The worst first: what stops writes, what the kernel did not take, what will not come back. */
static void publish_health(struct mapping *m)
{
	struct store *s = m->volume->store;
	char *health = m->state.health;

	health[0] = '\0';
	if (s->ops->health)
		s->ops->health(s, health, sizeof(m->state.health));
	if (!health[0] && m->resize_problem[0])
		text_copy(health, sizeof(m->state.health), m->resize_problem);
	if (!health[0] && m->guard)
		text_copy(health, sizeof(m->state.health), guard_health(m->guard));
}

void mapping_publish(void *arg)
{
	struct mapping *m = arg;
	int r;

	m->state.size = atomic_load(&m->volume->size);
	m->state.block_size = m->volume->block_size;
	m->state.inline_threshold = m->volume->inline_threshold;
	text_copy(m->state.store, sizeof(m->state.store), m->volume->store->ops->name);
	if (m->volume->is_encrypted)
		text_copy(m->state.engine, sizeof(m->state.engine), xts_engine(m->volume->xts[0]));
	publish_health(m);
	r = state_update(m->state_file, &m->state);
	if (r < 0)
		log_warning(m->spec, "cannot update the state file: %s", strerror(-r));
}

static void resize(struct mapping *m, uint64_t raw_size)
{
	struct volume *v = m->volume;
	unsigned long long old = atomic_load(&v->size), size = volume_size_for(v, raw_size);
	struct fault f = { 0 };

	m->state.raw_size = raw_size;
	if (size == old && !m->resize_problem[0])
		return;
	atomic_store(&v->size, size);
	if (size < old)
		log_warning(m->spec, "the image shrank: the device goes from %llu to %llu bytes",
			    old, size);
	else if (size > old)
		log_notice(m->spec, "the image grew: the device goes from %llu to %llu bytes", old,
			   size);
	m->resize_problem[0] = '\0';
	if (m->device && device_resize(m->device, &f) < 0) {
		log_error(m->spec, "the kernel does not take the new size: %s", f.message);
		(void)snprintf(m->resize_problem, sizeof(m->resize_problem),
			       "resize to %llu bytes failed", size);
		timer_set(m->again.fd, AGAIN_MS);
	}
	if (m->device)
		(void)nbd_sysfs_read(m->state.device, &m->state.kernel);
}

static void on_change(void *arg)
{
	struct mapping *m = arg;

	event_raise(m->changed.fd);
}

static void look(struct mapping *m)
{
	uint64_t raw_size;
	int r = m->volume->store->ops->raw_size(m->volume->store, &raw_size);

	if (r < 0) {
		log_warning(m->spec, "the image changed but its size cannot be read: %s",
			    strerror(-r));
		timer_set(m->again.fd, AGAIN_MS);
		return;
	}
	resize(m, raw_size);
	mapping_publish(m);
	mapping_look_at_lock(m);
}

static void on_changed(struct watch *w)
{
	event_clear(w->fd);
	look((struct mapping *)((char *)w - offsetof(struct mapping, changed)));
}

static void on_again(struct watch *w)
{
	timer_clear(w->fd);
	look((struct mapping *)((char *)w - offsetof(struct mapping, again)));
}

int mapping_start_watch(struct mapping *m, struct fault *f)
{
	int r = loop_watch(m->o.loop, &m->changed, event_new(), on_changed);

	if (r == 0)
		r = loop_watch(m->o.loop, &m->again, timer_new(), on_again);
	if (r < 0)
		return fault_set(f, EXIT_MEMORY, r, "cannot watch the image: %s", strerror(-r));
	store_on_change(m->volume->store, on_change, m);
	/* What changed while we were starting. */
	on_change(m);
	mapping_publish(m);
	return 0;
}

void mapping_stop_watch(struct mapping *m)
{
	store_on_change(m->volume->store, NULL, NULL);
	loop_remove(m->o.loop, &m->changed);
	loop_remove(m->o.loop, &m->again);
	if (m->again.fd >= 0)
		(void)close(m->again.fd);
	/* The descriptor stays open until the store is closed: a late call may still raise it. */
}
