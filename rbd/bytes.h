/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Copyright (C) 2026 the rbdcrypt-nbd authors */

#ifndef RBD_BYTES_H
#define RBD_BYTES_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/*
 * Ceph's encoding of numbers, strings and versioned structures, into and out of buffers of the
 * caller. Nothing overruns: what does not fit, or is not there, is noted, and asked once at the
 * end. Pure. (spec: rados-engine 1)
 */

struct bytes_out {
	unsigned char *buf;
	size_t len, cap;
	bool is_full; /* something did not fit */
};

void put_u8(struct bytes_out *o, uint8_t v);
void put_u32(struct bytes_out *o, uint32_t v);
void put_u64(struct bytes_out *o, uint64_t v);
/* Length and bytes. */
void put_string(struct bytes_out *o, const char *s);
/* A versioned structure: begin returns where it started, end fills in its length. */
size_t put_begin(struct bytes_out *o, uint8_t version, uint8_t compat);
void put_end(struct bytes_out *o, size_t start);

struct bytes_in {
	const unsigned char *at, *end;
	bool is_short; /* something was not there, or made no sense */
};

uint8_t get_u8(struct bytes_in *i);
uint32_t get_u32(struct bytes_in *i);
uint64_t get_u64(struct bytes_in *i);
/* A string of fewer than len bytes without NUL, terminated; else is_short and "". */
void get_string(struct bytes_in *i, char *buf, size_t len);
void get_skip(struct bytes_in *i, size_t len);
/*
 * A versioned structure: returns its version and narrows i to it; end goes on behind it, whatever
 * was not read of it, as newer versions add at the end. is_short when its compat is above known.
 */
uint8_t get_begin(struct bytes_in *i, uint8_t known, struct bytes_in *ret_rest);
void get_end(struct bytes_in *i, const struct bytes_in *rest);

#endif
