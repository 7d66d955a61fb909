/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Copyright (C) 2026 the rbdcrypt-nbd authors */

/*
 * Buffers by size class: powers of two up to 1 MiB, then whole MiB. A returned
 * buffer is kept for the next request of its class, because fresh pages cost more
 * than the crypto of what they hold; when another class needs the room, or nobody uses the volume,
 * kept buffers are given back to the system. The line of waiters is first come, first served, or a
 * large request would starve behind small ones.
 */

#include "buffers.h"

#include <errno.h>
#include <pthread.h>
#include <stdlib.h>
#include <sys/mman.h>

#define SMALLEST_SHIFT 12 /* 4 KiB */
#define MIB_SHIFT 20
#define N_POWERS (MIB_SHIFT - SMALLEST_SHIFT + 1)
#define N_CLASSES (N_POWERS + (BUFFERS_LARGEST >> MIB_SHIFT) - 1)
/*
 * What is taken at once, in small buffers: requests go on being answered when the system has
 * nothing left. No more, because a daemon may have hundreds of volumes, of which few are busy.
 */
#define FIRST_SMALL 16

struct kept {
	struct kept *next;
	unsigned int class; /* while it waits to be unmapped */
};

struct buffers {
	pthread_mutex_t mutex;
	/* Guarded by mutex: */
	struct kept *kept[N_CLASSES];
	size_t total; /* bytes in use and kept */
	struct buffers_waiter *first, *last;
	/* Constant: */
	size_t limit;
};

static unsigned int class_of(size_t len)
{
	unsigned int c = 0;

	if (len > (size_t)1 << MIB_SHIFT)
		return N_POWERS - 1 + (unsigned int)((len + ((1u << MIB_SHIFT) - 1)) >> MIB_SHIFT) -
		       1;
	while (len > (size_t)1 << (SMALLEST_SHIFT + c))
		c++;
	return c;
}

static size_t class_bytes(unsigned int c)
{
	if (c < N_POWERS)
		return (size_t)1 << (SMALLEST_SHIFT + c);
	return (size_t)(c - N_POWERS + 2) << MIB_SHIFT;
}

/*
 * Call with the mutex held. Takes kept buffers out of the account until room bytes fit, largest
 * first; they are to be unmapped later.
 */
static bool make_room(struct buffers *b, size_t room, struct kept **ret_unmap)
{
	for (unsigned int c = N_CLASSES; c-- > 0 && b->total + room > b->limit;) {
		while (b->kept[c] && b->total + room > b->limit) {
			struct kept *k = b->kept[c];

			b->kept[c] = k->next;
			k->next = *ret_unmap;
			k->class = c;
			*ret_unmap = k;
			b->total -= class_bytes(c);
		}
	}
	return b->total + room <= b->limit;
}

/* What the system does for us, without the mutex: it can take milliseconds. */
static void *map(unsigned int c)
{
	void *m = mmap(NULL, class_bytes(c), PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS,
		       -1, 0);

	if (m == MAP_FAILED)
		return NULL;
	/* Plaintext passes through here; it has no business in a core dump. */
	(void)madvise(m, class_bytes(c), MADV_DONTDUMP);
	/*
	 * MAP_POPULATE does nothing where all memory is locked on fault (secret.h). Before Linux
	 * 5.14 the pages come when they are used.
	 */
	if (madvise(m, class_bytes(c), MADV_POPULATE_WRITE) < 0 && errno == ENOMEM) {
		(void)munmap(m, class_bytes(c));
		return NULL;
	}
	return m;
}

static void unmap(struct kept *list)
{
	while (list) {
		struct kept *k = list;

		list = k->next;
		(void)munmap(k, class_bytes(k->class));
	}
}

/* Call with the mutex held. */
static void leave(struct buffers *b, struct buffers_waiter *w)
{
	struct buffers_waiter **link = &b->first, *before = NULL;

	if (!w->is_queued)
		return;
	while (*link != w) {
		before = *link;
		link = &(*link)->next;
	}
	*link = w->next;
	if (b->last == w)
		b->last = before;
	w->is_queued = false;
}

/* Call with the mutex held. */
static void queue(struct buffers *b, struct buffers_waiter *w)
{
	if (w->is_queued)
		return;
	w->next = NULL;
	w->is_queued = true;
	if (b->first)
		b->last->next = w;
	else
		b->first = w;
	b->last = w;
}

/* The system had no memory for what was in the account already. */
static void take_back(struct buffers *b, size_t bytes, struct buffers_waiter *w)
{
	(void)pthread_mutex_lock(&b->mutex);
	b->total -= bytes;
	queue(b, w);
	if (b->first != w)
		b->first->wake(b->first);
	(void)pthread_mutex_unlock(&b->mutex);
}

void *buffers_get(struct buffers *b, size_t len, struct buffers_waiter *w)
{
	unsigned int c = class_of(len);
	struct kept *buf = NULL, *old = NULL;
	bool is_new = false;

	(void)pthread_mutex_lock(&b->mutex);
	if (!b->first || b->first == w) {
		buf = b->kept[c];
		if (buf)
			b->kept[c] = buf->next;
		else
			is_new = make_room(b, class_bytes(c), &old);
	}
	if (is_new)
		b->total += class_bytes(c);
	if (buf || is_new) {
		leave(b, w);
		/* There may be enough left for the next in line. */
		if (b->first)
			b->first->wake(b->first);
	} else {
		queue(b, w);
	}
	(void)pthread_mutex_unlock(&b->mutex);
	unmap(old);
	if (is_new) {
		buf = map(c);
		if (!buf)
			take_back(b, class_bytes(c), w);
	}
	return buf;
}

void buffers_put(struct buffers *b, void *buf, size_t len)
{
	unsigned int c = class_of(len);
	struct kept *k = buf;

	(void)pthread_mutex_lock(&b->mutex);
	k->next = b->kept[c];
	b->kept[c] = k;
	if (b->first)
		b->first->wake(b->first);
	(void)pthread_mutex_unlock(&b->mutex);
}

bool buffers_are_wanted(struct buffers *b, const struct buffers_waiter *w)
{
	bool yes;

	(void)pthread_mutex_lock(&b->mutex);
	yes = b->first && (b->first != w || b->first->next);
	(void)pthread_mutex_unlock(&b->mutex);
	return yes;
}

void buffers_give_back(struct buffers *b)
{
	struct kept *old = NULL;

	(void)pthread_mutex_lock(&b->mutex);
	for (unsigned int c = 0; c < N_CLASSES; c++) {
		struct kept **link = &b->kept[c];

		for (unsigned int n = 0; c == 0 && *link && n < FIRST_SMALL; n++)
			link = &(*link)->next;
		while (*link) {
			struct kept *k = *link;

			*link = k->next;
			k->next = old;
			k->class = c;
			old = k;
			b->total -= class_bytes(c);
		}
	}
	(void)pthread_mutex_unlock(&b->mutex);
	unmap(old);
}

void buffers_leave(struct buffers *b, struct buffers_waiter *w)
{
	(void)pthread_mutex_lock(&b->mutex);
	leave(b, w);
	if (b->first)
		b->first->wake(b->first);
	(void)pthread_mutex_unlock(&b->mutex);
}

int buffers_new(size_t limit, struct buffers **ret)
{
	struct buffers *b;
	struct buffers_waiter nobody = { 0 };
	void *first[FIRST_SMALL];
	unsigned int n = 0;

	if (limit < BUFFERS_LARGEST)
		return -EINVAL;
	b = calloc(1, sizeof(*b));
	if (!b)
		return -ENOMEM;
	(void)pthread_mutex_init(&b->mutex, NULL);
	b->limit = limit;
	while (n < FIRST_SMALL) {
		first[n] = buffers_get(b, 1, &nobody);
		if (!first[n])
			break;
		n++;
	}
	leave(b, &nobody);
	for (unsigned int i = 0; i < n; i++)
		buffers_put(b, first[i], 1);
	if (n < FIRST_SMALL) {
		(void)buffers_free(b);
		return -ENOMEM;
	}
	*ret = b;
	return 0;
}

struct buffers *buffers_free(struct buffers *b)
{
	if (!b)
		return NULL;
	for (unsigned int c = 0; c < N_CLASSES; c++) {
		while (b->kept[c]) {
			struct kept *k = b->kept[c];

			b->kept[c] = k->next;
			(void)munmap(k, class_bytes(c));
		}
	}
	(void)pthread_mutex_destroy(&b->mutex);
	free(b);
	return NULL;
}
