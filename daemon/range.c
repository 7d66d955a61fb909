/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Copyright (C) 2026 the rbdcrypt-nbd authors */

/*
 * One list in order of arrival per volume. A range is held when no older range,
 * held or waiting, conflicts with it; "or waiting" is what makes it fair and what keeps
 * a write that the kernel sends again behind the first copy of itself. The
 * list is as long as the volume has requests in flight (hundreds at the most), and
 * walking it costs less than one wake-up.
 */

#include "range.h"

#include <stddef.h>

void range_lock_init(struct range_lock *l)
{
	(void)pthread_mutex_init(&l->mutex, NULL);
	l->first = l->last = NULL;
	l->waiting = 0;
}

void range_lock_done(struct range_lock *l)
{
	(void)pthread_mutex_destroy(&l->mutex);
}

static bool conflicts(const struct range *a, const struct range *b)
{
	return (a->is_write || b->is_write) && a->start < b->end && b->start < a->end;
}

/* Call with the mutex held: whether nobody older is in the way of r. */
static bool is_free(const struct range *r)
{
	for (const struct range *o = r->prev; o; o = o->prev)
		if (conflicts(o, r))
			return false;
	return true;
}

bool range_acquire(struct range_lock *l, struct range *r)
{
	bool is_held;

	(void)pthread_mutex_lock(&l->mutex);
	r->next = NULL;
	r->ready = NULL;
	r->prev = l->last;
	if (l->last)
		l->last->next = r;
	else
		l->first = r;
	l->last = r;
	is_held = r->is_held = is_free(r);
	if (!is_held)
		l->waiting++;
	(void)pthread_mutex_unlock(&l->mutex);
	/* Not r->is_held: from here on another thread may have it. */
	return is_held;
}

struct range *range_release(struct range_lock *l, struct range *r)
{
	struct range *ready = NULL, **tail = &ready;

	(void)pthread_mutex_lock(&l->mutex);
	if (r->prev)
		r->prev->next = r->next;
	else
		l->first = r->next;
	if (r->next)
		r->next->prev = r->prev;
	else
		l->last = r->prev;
	if (l->waiting > 0) {
		for (struct range *o = r->next; o; o = o->next) {
			if (o->is_held || !conflicts(o, r) || !is_free(o))
				continue;
			o->is_held = true;
			l->waiting--;
			*tail = o;
			tail = &o->ready;
		}
	}
	(void)pthread_mutex_unlock(&l->mutex);
	return ready;
}
