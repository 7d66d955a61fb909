/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Copyright (C) 2026 the rbdcrypt-nbd authors */

#ifndef TESTS_STAMPS_H
#define TESTS_STAMPS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/*
 * What a device may legally hold when many requests are under way at once. Every write has a
 * number and writes bytes that tell it (stamps_fill()); every request has the times at which it
 * was sent and answered. A read is right when, for each atomic unit (a crypto sector, or a byte),
 * there is an order of the writes that agrees with those times and leaves exactly the bytes seen.
 */
enum stamp_kind {
	STAMP_READ,
	STAMP_WRITE,
	STAMP_ZERO,
	STAMP_TRIM, /* whole units of its range may become zeros, or not */
	STAMP_OTHER, /* does not touch bytes */
};

struct stamp_op {
	enum stamp_kind kind;
	uint64_t off;
	uint32_t len;
	uint32_t id; /* what a write writes; not 0 */
	uint64_t begin, end; /* times; end UINT64_MAX: never answered */
	bool has_failed; /* what a write that failed did to its units, nobody knows */
	unsigned char *data; /* what a read saw */
};

struct stamps;

/* size in bytes; base is what the device holds (copied). */
struct stamps *stamps_new(uint64_t size, uint32_t unit, const unsigned char *base);
struct stamps *stamps_free(struct stamps *s);

void stamps_fill(unsigned char *buf, uint32_t id, uint64_t off, size_t len);

/*
 * Judges every read of a round, and then now, the whole device as it was read when all had ended;
 * now is the base of the next round. The number of wrong units; the first few are printed.
 */
unsigned int stamps_judge(struct stamps *s, const struct stamp_op *ops, unsigned int n,
			  const unsigned char *now);

/* How many units were looked at, and how many of them had more than one writer in the round. */
void stamps_counts(const struct stamps *s, uint64_t *ret_units, uint64_t *ret_contended);

#endif
