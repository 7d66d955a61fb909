/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Copyright (C) 2026 the rbdcrypt-nbd authors */

/*
 * The header of an image, read in one operation of its OSD, so that size, snapshots and parent are
 * of the same moment. Called by the thread that keeps the image's lock, after each time it was
 * taken and each time somebody said that the header changed. Owns nothing between calls.
 *
 * The answers go to one block of memory, which the cluster may still write to after patience ran
 * out; then it is not ours any more. All in it is checked: a list of snapshots that is not in
 * order, say, would make librados refuse every write.
 */

#include "facts.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "bytes.h"
#include "cls.h"

#define ORDER_MIN 12
#define ORDER_MAX 30
#define SNAPS_LEN 16384u /* room for 2000 snapshots; more when that is too little */
#define SNAPS_LEN_MAX (SNAPS_LEN << 8)

enum fact { FACT_SIZE, FACT_FEATURES, FACT_FLAGS, FACT_OVERLAP, FACT_PARENT, FACT_SNAPS, N_FACTS };

struct reply {
	char *at; /* into bytes */
	size_t cap, len;
	int error;
};

struct replies {
	struct reply v[N_FACTS];
	char bytes[];
};

static struct replies *replies_new(size_t snaps_len)
{
	static const size_t small[N_FACTS] = { 64, 64, 64, 64, 1024, 0 };
	size_t used = 0, sum = snaps_len;
	struct replies *re;

	for (unsigned int i = 0; i < N_FACTS; i++)
		sum += small[i];
	re = calloc(1, sizeof(*re) + sum);
	if (!re)
		return NULL;
	for (unsigned int i = 0; i < N_FACTS; i++) {
		re->v[i].at = re->bytes + used;
		re->v[i].cap = i == FACT_SNAPS ? snaps_len : small[i];
		used += re->v[i].cap;
	}
	return re;
}

/* ---- asking ---- */

static void ask(rados_read_op_t op, const char *method, const struct bytes_out *in,
		struct reply *re)
{
	rados_read_op_exec_user_buf(op, "rbd", method, (const char *)in->buf, in->len, re->at,
				    re->cap, &re->len, &re->error);
}

static int send_all(rados_ioctx_t io, const char *object, struct replies *re,
		    const struct patience *p, bool *ret_is_late)
{
	rados_read_op_t op = rados_create_read_op();
	unsigned char buf[16];
	struct bytes_out in = { .buf = buf, .cap = sizeof(buf) };

	*ret_is_late = false;
	if (!op)
		return -ENOMEM;
	ask(op, "get_snapcontext", &in, &re->v[FACT_SNAPS]);
	ask(op, "parent_get", &in, &re->v[FACT_PARENT]);
	put_u64(&in, CLS_NOSNAP);
	ask(op, "get_size", &in, &re->v[FACT_SIZE]);
	ask(op, "get_flags", &in, &re->v[FACT_FLAGS]);
	ask(op, "parent_overlap_get", &in, &re->v[FACT_OVERLAP]);
	put_u8(&in, 0); /* who asks may write */
	ask(op, "get_features", &in, &re->v[FACT_FEATURES]);
	return osd_read(io, object, op, p, re, ret_is_late);
}

/* ---- understanding ---- */

static struct bytes_in in(const struct reply *re)
{
	const unsigned char *at = (const unsigned char *)re->at;

	return (struct bytes_in){ .at = at, .end = at + (re->len < re->cap ? re->len : re->cap) };
}

static bool decode_numbers(const struct replies *re, struct image_facts *f)
{
	struct bytes_in size = in(&re->v[FACT_SIZE]), features = in(&re->v[FACT_FEATURES]);
	struct bytes_in flags = in(&re->v[FACT_FLAGS]);

	f->order = get_u8(&size);
	f->size = get_u64(&size);
	f->features = get_u64(&features);
	f->incompatible = get_u64(&features);
	f->flags = get_u64(&flags);
	return !size.is_short && !features.is_short && !flags.is_short && f->order >= ORDER_MIN &&
	       f->order <= ORDER_MAX;
}

/* A head that was flattened has no overlap, though a snapshot may still have the parent. */
static bool decode_parent(const struct replies *re, struct image_facts *f)
{
	struct bytes_in overlap = in(&re->v[FACT_OVERLAP]), parent = in(&re->v[FACT_PARENT]), rest;
	bool has_overlap = get_u8(&overlap) != 0;

	(void)get_begin(&parent, 1, &rest);
	f->parent_pool = (int64_t)get_u64(&parent);
	get_string(&parent, f->parent_nspace, sizeof(f->parent_nspace));
	get_string(&parent, f->parent_id, sizeof(f->parent_id));
	f->parent_snap = get_u64(&parent);
	if (has_overlap)
		f->raw_overlap = get_u64(&overlap);
	f->has_parent = has_overlap && f->parent_pool >= 0;
	if (overlap.is_short || parent.is_short)
		return false;
	return !f->has_parent || f->parent_id[0] != '\0';
}

static void clear_parent(struct image_facts *f)
{
	f->parent_pool = -1;
	f->parent_nspace[0] = '\0';
	f->parent_id[0] = '\0';
	f->parent_snap = CLS_NOSNAP;
	f->raw_overlap = 0;
}

static int decode_snaps(const struct replies *re, struct image_facts *f)
{
	struct bytes_in i = in(&re->v[FACT_SNAPS]);
	uint64_t last;

	f->snap_seq = get_u64(&i);
	f->n_snaps = get_u32(&i);
	if (i.is_short || f->n_snaps > (size_t)(i.end - i.at) / 8 || f->snap_seq >= CLS_NOSNAP)
		return -EBADMSG;
	if (f->n_snaps == 0)
		return 0;
	f->snaps = calloc(f->n_snaps, sizeof(*f->snaps));
	if (!f->snaps)
		return -ENOMEM;
	last = f->snap_seq + 1;
	for (uint32_t n = 0; n < f->n_snaps; n++) {
		f->snaps[n] = get_u64(&i);
		if (f->snaps[n] >= last)
			return -EBADMSG;
		last = f->snaps[n];
	}
	return 0;
}

static int decode(const struct replies *re, struct image_facts *ret)
{
	struct image_facts f = { .snaps = NULL };
	int r;

	if (!decode_numbers(re, &f) || !decode_parent(re, &f))
		return -EBADMSG;
	if (!f.has_parent)
		clear_parent(&f);
	r = decode_snaps(re, &f);
	if (r < 0) {
		facts_done(&f);
		return r;
	}
	*ret = f;
	return 0;
}

/* The first answer that is an error, of an operation that was none. */
static int first_error(const struct replies *re)
{
	for (unsigned int i = 0; i < N_FACTS; i++)
		if (re->v[i].error < 0)
			return re->v[i].error;
	return 0;
}

int facts_read(rados_ioctx_t io, const char *image_id, const struct patience *p,
	       struct image_facts *ret)
{
	size_t snaps_len = SNAPS_LEN;
	char object[128];
	int r;

	if (snprintf(object, sizeof(object), "rbd_header.%s", image_id) >= (int)sizeof(object))
		return -ENAMETOOLONG;
	do {
		struct replies *re = replies_new(snaps_len);
		bool is_late, is_too_long;

		if (!re)
			return -ENOMEM;
		r = send_all(io, object, re, p, &is_late);
		if (is_late)
			return r;
		is_too_long = re->v[FACT_SNAPS].error == -ERANGE;
		if (r >= 0)
			r = first_error(re);
		if (r >= 0)
			r = decode(re, ret);
		free(re);
		if (!is_too_long)
			break;
		snaps_len *= 16;
	} while (snaps_len <= SNAPS_LEN_MAX);
	return r;
}

void facts_done(struct image_facts *f)
{
	free(f->snaps);
	f->snaps = NULL;
	f->n_snaps = 0;
}
