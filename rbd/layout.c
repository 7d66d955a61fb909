/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Copyright (C) 2026 the rbdcrypt-nbd authors */

/*
 * Arithmetic on an image's layout. Pure functions, any thread. Offsets are raw: the data
 * area need not start on an object's boundary.
 */

#include "layout.h"

/*
 * Cutting an object's tail off or removing it whole is seen as "nothing there" by every
 * client. A hole in the middle of an object is not: librbd's encryption decrypts its zeros
 * when it reads little of it, and so makes garbage.
 */
void layout_freeable(const struct layout *l, uint64_t raw_size, uint64_t off, uint64_t len,
		     uint64_t *ret_off, uint64_t *ret_len)
{
	uint64_t period = l->object_size * l->stripe_count;
	uint64_t start = off, end = off + len;

	*ret_off = off;
	*ret_len = 0;
	/* With one object after the other any start is the start of a tail. */
	if (l->stripe_count > 1)
		start = (off + period - 1) / period * period;
	if (end != raw_size)
		end = end / period * period;
	if (start >= end)
		return;
	*ret_off = start;
	*ret_len = end - start;
}

uint64_t layout_object(const struct layout *l, uint64_t off, uint64_t *ret_object,
		       uint64_t *ret_object_off)
{
	uint64_t unit, stripe, units_per_object, at;

	if (l->stripe_count == 1) {
		*ret_object = off / l->object_size;
		*ret_object_off = off % l->object_size;
		return l->object_size - off % l->object_size;
	}
	unit = off / l->stripe_unit;
	at = off % l->stripe_unit;
	stripe = unit / l->stripe_count;
	units_per_object = l->object_size / l->stripe_unit;
	*ret_object = stripe / units_per_object * l->stripe_count + unit % l->stripe_count;
	*ret_object_off = stripe % units_per_object * l->stripe_unit + at;
	return l->stripe_unit - at;
}

uint64_t layout_last_piece(const struct layout *l, uint64_t off, uint64_t len, uint64_t objects)
{
	uint64_t periods = objects > l->stripe_count ? objects / l->stripe_count : 1;
	uint64_t most = periods * l->object_size * l->stripe_count;
	uint64_t piece = (off + len - 1) % most + 1;

	return piece < len ? piece : len;
}

uint64_t layout_objects(const struct layout *l, uint64_t raw_size)
{
	uint64_t period = l->object_size * l->stripe_count, rest = raw_size % period;
	uint64_t units = rest / l->stripe_unit + (rest % l->stripe_unit != 0);

	return raw_size / period * l->stripe_count +
	       (units < l->stripe_count ? units : l->stripe_count);
}

uint64_t layout_image_offset(const struct layout *l, uint64_t object, uint64_t object_off)
{
	uint64_t units_per_object, stripe;

	if (l->stripe_count == 1)
		return object * l->object_size + object_off;
	units_per_object = l->object_size / l->stripe_unit;
	stripe = object / l->stripe_count * units_per_object + object_off / l->stripe_unit;
	return (stripe * l->stripe_count + object % l->stripe_count) * l->stripe_unit +
	       object_off % l->stripe_unit;
}

static uint64_t without(uint64_t size, uint64_t header)
{
	return size > header ? size - header : 0;
}

uint64_t layout_overlap(uint64_t raw_overlap, uint64_t header, uint64_t parent_size,
			uint64_t parent_header)
{
	uint64_t seen = without(raw_overlap, header), there = without(parent_size, parent_header);

	return seen < there ? seen : there;
}
