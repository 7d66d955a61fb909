/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Copyright (C) 2026 the rbdcrypt-nbd authors */

/*
 * Who has the image's lock. Only the cluster knows, so it is asked on a thread of its own: when the
 * image changed, and when somebody wants to see the volume. A cluster that does not answer keeps
 * that thread, and nobody else. On the volume's thread; the store and m->lock_found are the
 * errand's while it runs.
 */

#include "mapping_private.h"

#include <string.h>
#include <time.h>

#include "text.h"

static void ask(void *arg)
{
	struct mapping *m = arg;

	store_lock(m->volume->store, &m->lock_found);
}

static void take_answer(struct mapping *m)
{
	text_copy(m->state.lock, sizeof(m->state.lock), m->lock_found.state);
	text_copy(m->state.lock_owner, sizeof(m->state.lock_owner), m->lock_found.owner);
	text_copy(m->state.lock_reason, sizeof(m->state.lock_reason), m->lock_found.why);
	m->state.lock_seen = (uint64_t)time(NULL);
}

static void on_answer(void *arg)
{
	struct mapping *m = arg;

	take_answer(m);
	if (m->is_lock_asked_again) {
		m->is_lock_asked_again = false;
		if (errand_start(&m->lock) == 0)
			return;
	}
	mapping_publish(m);
	if (m->guard)
		guard_looked(m->guard);
}

void mapping_look_at_lock(void *arg)
{
	struct mapping *m = arg;

	/* The one under way may have looked too early. */
	m->is_lock_asked_again = m->lock.is_running;
	if (errand_start(&m->lock) < 0 && m->guard)
		guard_looked(m->guard);
}

int mapping_start_lock(struct mapping *m, struct fault *f)
{
	int r;

	m->lock.run = ask;
	m->lock.ended = on_answer;
	m->lock.arg = m;
	m->lock.name = "lock";
	r = errand_init(&m->lock, m->o.loop);
	if (r < 0)
		return fault_set(f, EXIT_MEMORY, r, "%s: cannot be set up: %s", m->spec,
				 strerror(-r));
	/* The start waits for the cluster anyway, and then it is known from the first moment. */
	ask(m);
	take_answer(m);
	return 0;
}

void mapping_stop_lock(struct mapping *m)
{
	errand_done(&m->lock);
}
