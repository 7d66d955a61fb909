/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Copyright (C) 2026 the rbdcrypt-nbd authors */

/*
 * Admission of changes to an image. Writes enter and leave on connection threads and
 * librados' callback threads; the owner's thread opens, closes and drains. The order in which
 * writes came is the order in which they are let in.
 */

#include "gate.h"

#include <errno.h>

#include "clock.h"

void gate_init(struct gate *g)
{
	*g = (struct gate){ 0 };
	(void)pthread_mutex_init(&g->lock, NULL);
	clock_cond_init(&g->empty);
	g->tail = &g->head;
}

void gate_done(struct gate *g)
{
	(void)pthread_cond_destroy(&g->empty);
	(void)pthread_mutex_destroy(&g->lock);
}

bool gate_enter(struct gate *g, struct gate_pass *p)
{
	bool is_in;
	int error;

	(void)pthread_mutex_lock(&g->lock);
	error = g->error;
	/* Nobody overtakes those who are waiting to be let in. */
	is_in = g->is_open && !g->head;
	if (!is_in && !error && !g->is_open)
		error = g->no_waiting;
	if (is_in) {
		g->inside++;
	} else if (!error) {
		p->next = NULL;
		*g->tail = p;
		g->tail = &p->next;
	}
	(void)pthread_mutex_unlock(&g->lock);
	if (error)
		p->go(p, error);
	return is_in;
}

void gate_leave(struct gate *g)
{
	(void)pthread_mutex_lock(&g->lock);
	if (--g->inside == 0 && !g->is_open)
		(void)pthread_cond_broadcast(&g->empty);
	(void)pthread_mutex_unlock(&g->lock);
}

static struct gate_pass *take_waiting(struct gate *g)
{
	struct gate_pass *p = g->head;

	g->head = NULL;
	g->tail = &g->head;
	return p;
}

static void turn_away(struct gate_pass *p, int error)
{
	struct gate_pass *next;

	for (; p; p = next) {
		next = p->next;
		p->go(p, error);
	}
}

void gate_close(struct gate *g)
{
	struct gate_pass *p = NULL;
	int error;

	(void)pthread_mutex_lock(&g->lock);
	g->is_open = false;
	g->closings++;
	error = g->no_waiting;
	if (error)
		p = take_waiting(g);
	(void)pthread_mutex_unlock(&g->lock);
	turn_away(p, error);
}

int gate_drain(struct gate *g, const struct patience *p)
{
	int r = 0;

	(void)pthread_mutex_lock(&g->lock);
	while (g->inside > 0 && r == 0)
		if (!patience_wait(p, &g->empty, &g->lock))
			r = -ETIMEDOUT;
	(void)pthread_mutex_unlock(&g->lock);
	return r;
}

/* One at a time, as the gate may be closed again while they go. NULL: none may. */
static struct gate_pass *next_in(struct gate *g)
{
	struct gate_pass *p = NULL;

	(void)pthread_mutex_lock(&g->lock);
	if (g->is_open && g->head) {
		p = g->head;
		g->head = p->next;
		if (!g->head)
			g->tail = &g->head;
		g->inside++;
	}
	(void)pthread_mutex_unlock(&g->lock);
	return p;
}

unsigned int gate_closings(struct gate *g)
{
	unsigned int n;

	(void)pthread_mutex_lock(&g->lock);
	n = g->closings;
	(void)pthread_mutex_unlock(&g->lock);
	return n;
}

void gate_open_since(struct gate *g, unsigned int closings)
{
	struct gate_pass *p;

	(void)pthread_mutex_lock(&g->lock);
	if (g->closings == closings)
		g->is_open = g->error == 0;
	(void)pthread_mutex_unlock(&g->lock);
	while ((p = next_in(g)))
		p->go(p, 0);
}

void gate_end_waiting(struct gate *g, int error)
{
	struct gate_pass *p = NULL;

	(void)pthread_mutex_lock(&g->lock);
	g->no_waiting = error;
	/* Of an open one, they are being let in just now. */
	if (!g->is_open)
		p = take_waiting(g);
	(void)pthread_mutex_unlock(&g->lock);
	turn_away(p, error);
}

void gate_fail(struct gate *g, int error)
{
	struct gate_pass *p;

	(void)pthread_mutex_lock(&g->lock);
	g->is_open = false;
	if (!g->error)
		g->error = error;
	error = g->error;
	p = take_waiting(g);
	(void)pthread_mutex_unlock(&g->lock);
	turn_away(p, error);
}
