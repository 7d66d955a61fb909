/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Copyright (C) 2026 the rbdcrypt-nbd authors */

/*
 * Which parts of an image hold something: librbd's diff against nothing, which blocks, on
 * a thread of the store's own that the first status call starts. The lock of the store
 * guards its queue.
 *
 * The diff counts the parents and asks the objects themselves, never the object map; what
 * it reports in any way is data. So a hole is only what no layer has.
 */

#include "librbd.h"
#include "status.h"

#include <errno.h>
#include <signal.h>
#include <stdlib.h>

/* Bytes looked at per call: with 4 MiB objects, 256 of them. The client asks on. */
#define MAX_LOOK (1ull << 30)

struct found {
	uint64_t from, to; /* raw */
};

struct finder {
	struct found *list;
	size_t n, room;
	int error;
};

static int add_found(uint64_t off, size_t len, int exists, void *arg)
{
	struct finder *f = arg;

	(void)exists;
	if (f->n == f->room) {
		size_t room = f->room ? f->room * 2 : 64;
		struct found *list = reallocarray(f->list, room, sizeof(*list));

		if (!list)
			return f->error = -ENOMEM;
		f->list = list;
		f->room = room;
	}
	f->list[f->n++] = (struct found){ .from = off, .to = off + len };
	return 0;
}

static int by_place(const void *a, const void *b)
{
	const struct found *x = a, *y = b;

	return x->from < y->from ? -1 : x->from > y->from;
}

/* What lies between what was found. With striping it is found in the order of the objects. */
static int report(struct finder *f, struct store_io *io, uint64_t dev_off, uint64_t off,
		  uint64_t len)
{
	uint64_t pos = off, end = off + len;
	struct status st;
	int r = 0;

	if (f->n > 0)
		qsort(f->list, f->n, sizeof(*f->list), by_place);
	status_begin(&st, io, dev_off, len);
	for (size_t i = 0; r == 0 && i < f->n; i++) {
		if (f->list[i].from > pos)
			r = status_hole(&st, dev_off + (pos - off),
					dev_off + (f->list[i].from - off));
		if (f->list[i].to > pos)
			pos = f->list[i].to;
	}
	if (r == 0 && pos < end)
		r = status_hole(&st, dev_off + (pos - off), dev_off + len);
	if (r == STATUS_FULL)
		return 0;
	return r < 0 ? r : status_end(&st);
}

static int look(struct librbd_store *ls, struct store_io *io)
{
	uint64_t len = io->len < MAX_LOOK ? io->len : MAX_LOOK, off;
	struct finder f = { 0 };
	int r = librbd_img_off(ls, io->dev_off, len, &off);

	if (r < 0)
		return r;
	r = rbd_diff_iterate2(ls->handle->image, /* from */ NULL, off, len,
			      /* include_parent */ 1, /* whole_object */ 0, add_found, &f);
	if (r >= 0)
		r = f.error;
	/* Of a snapshot that is gone, nothing would be found. */
	if (r >= 0 && ls->is_snapshot && librbd_ask_gone(ls) != 0)
		r = -EIO;
	if (r >= 0)
		r = report(&f, io, io->dev_off, off, len);
	free(f.list);
	return r;
}

static void *serve(void *arg)
{
	struct librbd_store *ls = arg;
	struct store_io *io;

	(void)pthread_mutex_lock(&ls->lock);
	for (;;) {
		while (!ls->head && !ls->stopping)
			(void)pthread_cond_wait(&ls->more, &ls->lock);
		if (!ls->head)
			break;
		io = ls->head;
		ls->head = io->next;
		if (!ls->head)
			ls->tail = &ls->head;
		(void)pthread_mutex_unlock(&ls->lock);
		io->result = look(ls, io);
		io->done(io);
		(void)pthread_mutex_lock(&ls->lock);
	}
	(void)pthread_mutex_unlock(&ls->lock);
	return NULL;
}

/* Under the lock. */
static int start(struct librbd_store *ls)
{
	sigset_t all, old;
	int r;

	if (ls->has_thread)
		return 0;
	(void)sigfillset(&all);
	(void)pthread_sigmask(SIG_SETMASK, &all, &old);
	r = -pthread_create(&ls->thread, NULL, serve, ls);
	(void)pthread_sigmask(SIG_SETMASK, &old, NULL);
	if (r == 0)
		(void)pthread_setname_np(ls->thread, "rbd-status");
	ls->has_thread = r == 0;
	return r;
}

int librbd_status(struct store *s, struct store_io *io, uint64_t dev_off, uint64_t len)
{
	struct librbd_store *ls = librbd_of(s);
	int r;

	io->store = s;
	io->dev_off = dev_off;
	io->len = len;
	io->next = NULL;
	(void)pthread_mutex_lock(&ls->lock);
	r = start(ls);
	if (r == 0) {
		*ls->tail = io;
		ls->tail = &io->next;
		(void)pthread_cond_signal(&ls->more);
	}
	(void)pthread_mutex_unlock(&ls->lock);
	if (r == 0)
		return 0;
	io->result = r;
	return STORE_DONE;
}

void librbd_status_stop(struct librbd_store *ls)
{
	(void)pthread_mutex_lock(&ls->lock);
	ls->stopping = true;
	(void)pthread_cond_signal(&ls->more);
	(void)pthread_mutex_unlock(&ls->lock);
	if (ls->has_thread)
		(void)pthread_join(ls->thread, NULL);
}
