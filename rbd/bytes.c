/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Copyright (C) 2026 the rbdcrypt-nbd authors */

/*
 * Ceph's encoding: little-endian numbers, strings with their length before them, structures with
 * version, oldest version that can read them, and length before them. Both ways are used by who
 * talks to an image's header: object class methods and notifications. Any thread; owns nothing.
 *
 * What comes in is from other clients and servers, and is believed in nothing: a length that goes
 * beyond the end makes the reader short, and a short reader gives zeros from then on.
 */

#include "bytes.h"

#include <assert.h>
#include <string.h>

#define LENGTH_AT 2 /* behind version and compat */
#define BEGIN_LEN 6

static void put_bytes(struct bytes_out *o, const void *data, size_t len)
{
	if (o->is_full || len > o->cap - o->len) {
		o->is_full = true;
		return;
	}
	if (len)
		memcpy(o->buf + o->len, data, len);
	o->len += len;
}

static void put_number(struct bytes_out *o, uint64_t v, unsigned int n)
{
	unsigned char le[8];

	for (unsigned int i = 0; i < n; i++)
		le[i] = (unsigned char)(v >> (8 * i));
	put_bytes(o, le, n);
}

void put_u8(struct bytes_out *o, uint8_t v)
{
	put_number(o, v, 1);
}

void put_u32(struct bytes_out *o, uint32_t v)
{
	put_number(o, v, 4);
}

void put_u64(struct bytes_out *o, uint64_t v)
{
	put_number(o, v, 8);
}

void put_string(struct bytes_out *o, const char *s)
{
	size_t len = strlen(s);

	if (len > UINT32_MAX) {
		o->is_full = true;
		return;
	}
	put_u32(o, (uint32_t)len);
	put_bytes(o, s, len);
}

size_t put_begin(struct bytes_out *o, uint8_t version, uint8_t compat)
{
	size_t start = o->len;

	put_u8(o, version);
	put_u8(o, compat);
	put_u32(o, 0);
	return start;
}

void put_end(struct bytes_out *o, size_t start)
{
	struct bytes_out length = *o;

	if (o->is_full)
		return;
	assert(o->len >= start + BEGIN_LEN);
	length.len = start + LENGTH_AT;
	put_u32(&length, (uint32_t)(o->len - start - BEGIN_LEN));
}

/* The next len bytes, or NULL. */
static const unsigned char *take(struct bytes_in *i, size_t len)
{
	const unsigned char *at = i->at;

	if (i->is_short || len > (size_t)(i->end - i->at)) {
		i->is_short = true;
		return NULL;
	}
	i->at += len;
	return at;
}

static uint64_t get_number(struct bytes_in *i, unsigned int n)
{
	const unsigned char *at = take(i, n);
	uint64_t v = 0;

	while (at && n-- > 0)
		v = v << 8 | at[n];
	return v;
}

uint8_t get_u8(struct bytes_in *i)
{
	return (uint8_t)get_number(i, 1);
}

uint32_t get_u32(struct bytes_in *i)
{
	return (uint32_t)get_number(i, 4);
}

uint64_t get_u64(struct bytes_in *i)
{
	return get_number(i, 8);
}

void get_string(struct bytes_in *i, char *buf, size_t len)
{
	uint32_t n = get_u32(i);
	const unsigned char *at = take(i, n);

	buf[0] = '\0';
	if (!at)
		return;
	if (n >= len || memchr(at, '\0', n)) {
		i->is_short = true;
		return;
	}
	memcpy(buf, at, n);
	buf[n] = '\0';
}

void get_skip(struct bytes_in *i, size_t len)
{
	(void)take(i, len);
}

uint8_t get_begin(struct bytes_in *i, uint8_t known, struct bytes_in *ret_rest)
{
	uint8_t version = get_u8(i), compat = get_u8(i);
	uint32_t len = get_u32(i);
	const unsigned char *at;

	if (compat > known)
		i->is_short = true;
	at = take(i, len);
	*ret_rest = *i;
	if (at) {
		i->at = at;
		i->end = at + len;
	}
	return version;
}

void get_end(struct bytes_in *i, const struct bytes_in *rest)
{
	i->at = rest->at;
	i->end = rest->end;
}
