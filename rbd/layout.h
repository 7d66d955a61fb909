/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Copyright (C) 2026 the rbdcrypt-nbd authors */

#ifndef RBD_LAYOUT_H
#define RBD_LAYOUT_H

#include <stdint.h>

/* How an image is laid out over its objects. */
struct layout {
	uint64_t object_size; /* bytes */
	uint64_t stripe_unit; /* bytes */
	uint64_t stripe_count;
};

/*
 * Whatever removes goes out in pieces of at most so many objects, each after the last: the largest
 * request of the kernel has a thousand, and nothing but the number of requests bounds how many of a
 * volume are under way.
 */
#define PIECE_OBJECTS 16

/*
 * The part of [off, off + len) of the raw image whose removal leaves no hole in the middle of an
 * object: from off to the end of the last object that is covered to its end. With more than
 * one object per stripe: whole stripe periods. raw_size is where the last object ends,
 * whatever its full size. Bytes; *ret_len 0: none. Pure.
 */
void layout_freeable(const struct layout *l, uint64_t raw_size, uint64_t off, uint64_t len,
		     uint64_t *ret_off, uint64_t *ret_len);

/*
 * The object that holds byte off of the raw image, and where in it. Returns how many bytes
 * from there on lie in the same object one after the other. Pure.
 */
uint64_t layout_object(const struct layout *l, uint64_t off, uint64_t *ret_object,
		       uint64_t *ret_object_off);

/*
 * How long the last piece of a range of the raw image is, when it is cut into pieces of at most so
 * many objects, or of one stripe period where that has more. No object is cut; len is not 0. Bytes.
 * Pure.
 */
uint64_t layout_last_piece(const struct layout *l, uint64_t off, uint64_t len, uint64_t objects);

/*
 * How many objects an image of so many bytes can have, as librbd counts for its object map. In a
 * last stripe period that is not full, all objects of the stripe count once one stripe is full.
 * Pure.
 */
uint64_t layout_objects(const struct layout *l, uint64_t raw_size);

/* The other way: the byte of the raw image that is at object_off of object. Pure. */
uint64_t layout_image_offset(const struct layout *l, uint64_t object, uint64_t object_off);

/*
 * How many bytes of the device a layer sees of its parent's device, by Reef's rule and on every
 * release: an area of data maps to the area of data, whatever the headers before them take.
 * raw_overlap and header are the layer's own, in bytes; parent_size and parent_header the
 * parent's at its snapshot. Not rounded. Pure. (spec: librbd-encryption 4.2)
 */
uint64_t layout_overlap(uint64_t raw_overlap, uint64_t header, uint64_t parent_size,
			uint64_t parent_header);

#endif
