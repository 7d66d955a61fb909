/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Copyright (C) 2026 the rbdcrypt-nbd authors */

/*
 * The bytes of a simulated chain: layers, objects, what is durable. Called from the sim's
 * threads and from tests. A write to an object that only a parent has copies the parent's
 * raw bytes up first, as librbd does without encryption.
 *
 * Without tearing a request holds the lock while it moves bytes, so that each is atomic. With
 * tearing bytes move outside the lock, 64 at a time; they are atomic words then, so that a
 * torn sector is something a test can see and not a data race.
 */

#include "sim_disk.h"

#include <errno.h>
#include <sched.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#define PIECE 64u
#define SECTOR 512u

uint64_t sim_random(uint64_t *state)
{
	*state ^= *state << 13;
	*state ^= *state >> 7;
	*state ^= *state << 17;
	return *state;
}

static int layer_init(struct sim_layer *l, uint64_t room, uint64_t object_size)
{
	l->bytes = calloc(1, room);
	l->has_object = calloc(1, room / object_size);
	return l->bytes && l->has_object ? 0 : -ENOMEM;
}

static void layer_done(struct sim_layer *l)
{
	free(l->bytes);
	free(l->has_object);
}

int disk_init(struct sim_disk *d, const struct sim_options *o)
{
	int r = 0;

	d->o = *o;
	if (d->o.n_layers == 0)
		d->o.n_layers = 1;
	if (d->o.object_size == 0)
		d->o.object_size = 4u << 20;
	d->raw_size = o->raw_size;
	/* Room to grow by as much again, in whole objects. */
	d->room = (o->raw_size * 2 + d->o.object_size - 1) / d->o.object_size * d->o.object_size;
	d->random = o->seed * 2654435761u + 1;
	d->tail = &d->records;
	(void)pthread_mutex_init(&d->lock, NULL);
	for (unsigned int i = 0; r == 0 && i < d->o.n_layers; i++)
		r = layer_init(&d->layers[i], d->room, d->o.object_size);
	return r == 0 ? layer_init(&d->durable, d->room, d->o.object_size) : r;
}

static void forget_first(struct sim_disk *d)
{
	struct sim_record *r = d->records;

	d->records = r->next;
	if (!d->records)
		d->tail = &d->records;
	free(r);
}

void disk_done(struct sim_disk *d)
{
	while (d->records)
		forget_first(d);
	for (unsigned int i = 0; i < SIM_MAX_LAYERS; i++)
		layer_done(&d->layers[i]);
	layer_done(&d->durable);
	(void)pthread_mutex_destroy(&d->lock);
}

/* ---- moving bytes ---- */

static void move_word(unsigned char *to, const unsigned char *from)
{
	uint64_t word;

	if (((uintptr_t)to | (uintptr_t)from) % sizeof(word) == 0) {
		word = __atomic_load_n((const uint64_t *)(const void *)from, __ATOMIC_RELAXED);
		__atomic_store_n((uint64_t *)(void *)to, word, __ATOMIC_RELAXED);
		return;
	}
	for (unsigned int i = 0; i < sizeof(word); i++)
		__atomic_store_n(to + i, __atomic_load_n(from + i, __ATOMIC_RELAXED),
				 __ATOMIC_RELAXED);
}

/*
 * Never holds the lock when tearing: whoever wants to come in between, does. Once on the way, at
 * another piece each time, it sleeps; on a busy machine nobody would come in otherwise.
 */
static void move(struct sim_disk *d, unsigned char *to, const unsigned char *from, uint64_t len)
{
	const struct timespec nap = { .tv_nsec = 5000 };
	uint64_t i, break_at;

	if (!d->o.is_tearing) {
		memcpy(to, from, len);
		return;
	}
	break_at = __atomic_fetch_add(&d->n_moves, 1, __ATOMIC_RELAXED) * 7 % (len / PIECE + 1) *
		   PIECE;
	for (i = 0; i + sizeof(uint64_t) <= len; i += sizeof(uint64_t)) {
		if (i == break_at)
			(void)nanosleep(&nap, NULL);
		else if (i % PIECE == 0)
			(void)sched_yield();
		move_word(to + i, from + i);
	}
	for (; i < len; i++)
		__atomic_store_n(to + i, __atomic_load_n(from + i, __ATOMIC_RELAXED),
				 __ATOMIC_RELAXED);
}

static void unlock_to_tear(struct sim_disk *d)
{
	if (d->o.is_tearing)
		(void)pthread_mutex_unlock(&d->lock);
}

static void lock_after_tear(struct sim_disk *d)
{
	if (d->o.is_tearing)
		(void)pthread_mutex_lock(&d->lock);
}

/* ---- layers; all under the lock ---- */

static uint64_t overlap_of(const struct sim_disk *d, unsigned int layer)
{
	if (layer + 1 >= d->o.n_layers)
		return 0;
	return d->o.overlap[layer] ? d->o.overlap[layer] : UINT64_MAX;
}

/*
 * Who has the bytes at dev_off: the layer, or STORE_LAYER_ZERO; and for how many bytes that
 * is so, at most len.
 */
static uint16_t find_layer(const struct sim_disk *d, uint64_t dev_off, uint64_t *len)
{
	for (unsigned int i = 0; i < d->o.n_layers; i++) {
		uint64_t raw = d->o.data_offset[i] + dev_off;
		uint64_t size = i == 0 ? d->raw_size : d->o.raw_size;
		uint64_t to_end = d->o.object_size - raw % d->o.object_size;

		if (raw >= size)
			return STORE_LAYER_ZERO;
		if (*len > to_end)
			*len = to_end;
		if (d->layers[i].has_object[raw / d->o.object_size])
			return (uint16_t)i;
		if (dev_off >= overlap_of(d, i))
			return STORE_LAYER_ZERO;
		if (*len > overlap_of(d, i) - dev_off)
			*len = overlap_of(d, i) - dev_off;
	}
	return STORE_LAYER_ZERO;
}

static void harden(struct sim_disk *d, uint64_t off, const unsigned char *bytes, uint64_t len)
{
	memcpy(d->durable.bytes + off, bytes, len);
	for (uint64_t o = off / d->o.object_size; o * d->o.object_size < off + len; o++)
		d->durable.has_object[o] = 1;
}

/*
 * Raw bytes of the object, from the nearest ancestor that has them. They are what every
 * reader saw before, so they may be durable at once.
 */
static void copy_up(struct sim_disk *d, uint64_t object)
{
	uint64_t raw = object * d->o.object_size, end = raw + d->o.object_size, n;

	if (d->layers[0].has_object[object])
		return;
	for (uint64_t at = raw; at < end && at < d->raw_size; at += n) {
		uint64_t dev_off = at - d->o.data_offset[0];
		uint16_t from = STORE_LAYER_ZERO;

		n = end - at;
		if (at >= d->o.data_offset[0])
			from = find_layer(d, dev_off, &n);
		else if (n > d->o.data_offset[0] - at)
			n = d->o.data_offset[0] - at;
		if (from != STORE_LAYER_ZERO)
			memcpy(d->layers[0].bytes + at,
			       d->layers[from].bytes + d->o.data_offset[from] + dev_off, n);
	}
	d->layers[0].has_object[object] = 1;
	if (d->o.n_layers > 1)
		harden(d, raw, d->layers[0].bytes + raw, end - raw);
}

static int img_off(const struct sim_disk *d, uint64_t dev_off, uint64_t len, uint64_t *ret)
{
	uint64_t off = d->o.data_offset[0] + dev_off;

	if (off > d->raw_size || len > d->raw_size - off)
		return -EIO;
	*ret = off;
	return 0;
}

static void harden_until(struct sim_disk *d, uint64_t mark)
{
	while (d->records && d->records->number <= mark) {
		harden(d, d->records->off, d->records->bytes, d->records->len);
		forget_first(d);
	}
}

static int remember(struct sim_disk *d, uint64_t raw, const unsigned char *bytes, uint64_t len)
{
	struct sim_record *r = malloc(sizeof(*r) + len);

	if (!r)
		return -ENOMEM;
	r->next = NULL;
	r->off = raw;
	r->len = len;
	r->number = ++d->last_number;
	if (bytes)
		memcpy(r->bytes, bytes, len);
	else
		memset(r->bytes, 0, len);
	*d->tail = r;
	d->tail = &r->next;
	if (d->o.is_writethrough)
		harden_until(d, r->number);
	return 0;
}

/* ---- requests ---- */

int disk_read(struct sim_disk *d, struct store_io *io, uint64_t dev_off, void *buf, uint64_t len)
{
	unsigned char *to = buf;
	uint64_t off;
	int r;

	(void)pthread_mutex_lock(&d->lock);
	r = img_off(d, dev_off, len, &off);
	while (r == 0 && len > 0) {
		uint64_t n = len;
		uint16_t layer = find_layer(d, dev_off, &n);

		if (layer == STORE_LAYER_ZERO) {
			memset(to, 0, n);
		} else {
			unlock_to_tear(d);
			move(d, to, d->layers[layer].bytes + d->o.data_offset[layer] + dev_off, n);
			lock_after_tear(d);
		}
		r = store_io_add(io, dev_off, n, layer, false);
		to += n;
		dev_off += n;
		len -= n;
	}
	(void)pthread_mutex_unlock(&d->lock);
	return r;
}

static void touch_objects(struct sim_disk *d, uint64_t raw, uint64_t len)
{
	for (uint64_t o = raw / d->o.object_size; o * d->o.object_size < raw + len; o++)
		copy_up(d, o);
}

int disk_write(struct sim_disk *d, uint64_t dev_off, const void *buf, uint64_t len)
{
	uint64_t raw;
	int r;

	(void)pthread_mutex_lock(&d->lock);
	r = img_off(d, dev_off, len, &raw);
	if (r == 0) {
		touch_objects(d, raw, len);
		unlock_to_tear(d);
		move(d, d->layers[0].bytes + raw, buf, len);
		lock_after_tear(d);
		r = remember(d, raw, buf, len);
	}
	(void)pthread_mutex_unlock(&d->lock);
	return r;
}

/* Whole objects that hide nothing go away; what they held reads as zeros. */
static void drop_objects(struct sim_disk *d, uint64_t raw, uint64_t len)
{
	uint64_t size = d->o.object_size, first = (raw + size - 1) / size;

	for (uint64_t o = first; (o + 1) * size <= raw + len; o++)
		if (d->o.n_layers == 1)
			d->layers[0].has_object[o] = 0;
}

int disk_zero(struct sim_disk *d, uint64_t dev_off, uint64_t len)
{
	uint64_t raw;
	int r;

	(void)pthread_mutex_lock(&d->lock);
	r = img_off(d, dev_off, len, &raw);
	if (r == 0) {
		touch_objects(d, raw, len);
		for (uint64_t i = 0; i < len; i++)
			__atomic_store_n(d->layers[0].bytes + raw + i, 0, __ATOMIC_RELAXED);
		drop_objects(d, raw, len);
		r = remember(d, raw, NULL, len);
	}
	(void)pthread_mutex_unlock(&d->lock);
	return r;
}

int disk_status(struct sim_disk *d, struct store_io *io, uint64_t dev_off, uint64_t len)
{
	uint64_t off;
	int r;

	(void)pthread_mutex_lock(&d->lock);
	r = img_off(d, dev_off, len, &off);
	while (r == 0 && len > 0) {
		uint64_t n = len;
		uint16_t layer = find_layer(d, dev_off, &n);

		r = store_io_add(io, dev_off, n, layer == STORE_LAYER_ZERO ? layer : 0,
				 layer == STORE_LAYER_ZERO);
		dev_off += n;
		len -= n;
	}
	(void)pthread_mutex_unlock(&d->lock);
	return r;
}

void disk_freeable(struct sim_disk *d, uint64_t dev_off, uint64_t len, uint64_t *ret_off,
		   uint64_t *ret_len)
{
	uint64_t raw = d->o.data_offset[0] + dev_off, end = raw + len, raw_size;

	(void)pthread_mutex_lock(&d->lock);
	raw_size = d->raw_size;
	(void)pthread_mutex_unlock(&d->lock);
	*ret_off = dev_off;
	if (d->o.is_encrypted && end != raw_size)
		end = end / d->o.object_size * d->o.object_size;
	*ret_len = end > raw ? end - raw : 0;
}

/* ---- what survives ---- */

uint64_t disk_mark(struct sim_disk *d)
{
	uint64_t mark;

	(void)pthread_mutex_lock(&d->lock);
	mark = d->last_number;
	(void)pthread_mutex_unlock(&d->lock);
	return mark;
}

void disk_flush(struct sim_disk *d, uint64_t mark)
{
	(void)pthread_mutex_lock(&d->lock);
	harden_until(d, mark);
	(void)pthread_mutex_unlock(&d->lock);
}

static void keep_some_sectors(struct sim_disk *d, const struct sim_record *r)
{
	for (uint64_t at = 0; at < r->len; at += SECTOR) {
		uint64_t n = r->len - at < SECTOR ? r->len - at : SECTOR;

		if (sim_random(&d->random) % 2)
			harden(d, r->off + at, r->bytes + at, n);
	}
}

void disk_crash(struct sim_disk *d, bool keeps_some)
{
	struct sim_layer *now = &d->layers[0];

	(void)pthread_mutex_lock(&d->lock);
	while (d->records) {
		if (keeps_some)
			keep_some_sectors(d, d->records);
		forget_first(d);
	}
	memcpy(now->bytes, d->durable.bytes, d->room);
	memcpy(now->has_object, d->durable.has_object, d->room / d->o.object_size);
	(void)pthread_mutex_unlock(&d->lock);
}

/* ---- for tests ---- */

void disk_poke(struct sim_disk *d, unsigned int layer, uint64_t raw_off, const void *buf,
	       uint64_t len)
{
	(void)pthread_mutex_lock(&d->lock);
	memcpy(d->layers[layer].bytes + raw_off, buf, len);
	for (uint64_t o = raw_off / d->o.object_size; o * d->o.object_size < raw_off + len; o++)
		d->layers[layer].has_object[o] = 1;
	if (layer == 0)
		harden(d, raw_off, buf, len);
	(void)pthread_mutex_unlock(&d->lock);
}

void disk_peek(struct sim_disk *d, unsigned int layer, uint64_t raw_off, void *buf, uint64_t len)
{
	unsigned char *to = buf;

	(void)pthread_mutex_lock(&d->lock);
	for (uint64_t i = 0; i < len; i++)
		to[i] = d->layers[layer].has_object[(raw_off + i) / d->o.object_size]
				? d->layers[layer].bytes[raw_off + i]
				: 0;
	(void)pthread_mutex_unlock(&d->lock);
}

bool disk_has_object(struct sim_disk *d, unsigned int layer, uint64_t raw_off)
{
	bool has;

	(void)pthread_mutex_lock(&d->lock);
	has = d->layers[layer].has_object[raw_off / d->o.object_size];
	(void)pthread_mutex_unlock(&d->lock);
	return has;
}

int disk_resize(struct sim_disk *d, uint64_t raw_size)
{
	uint64_t size = d->o.object_size;
	int r = raw_size <= d->room ? 0 : -ENOSPC;

	(void)pthread_mutex_lock(&d->lock);
	if (r == 0 && raw_size < d->raw_size) {
		memset(d->layers[0].bytes + raw_size, 0, d->room - raw_size);
		memset(d->durable.bytes + raw_size, 0, d->room - raw_size);
		for (uint64_t o = (raw_size + size - 1) / size; o < d->room / size; o++)
			d->layers[0].has_object[o] = d->durable.has_object[o] = 0;
	}
	if (r == 0)
		d->raw_size = raw_size;
	(void)pthread_mutex_unlock(&d->lock);
	return r;
}

uint64_t disk_size(struct sim_disk *d)
{
	uint64_t size;

	(void)pthread_mutex_lock(&d->lock);
	size = d->raw_size;
	(void)pthread_mutex_unlock(&d->lock);
	return size;
}
