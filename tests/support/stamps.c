/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Copyright (C) 2026 the rbdcrypt-nbd authors */

/*
 * The judge of concurrent reads and writes. One thread, after a round has ended; owns a copy of
 * the device as it was before the round.
 *
 * A sector is judged by peeling: what was written last must show all its bytes, so it is found,
 * its bytes are taken off, and what was written before it must show all its bytes among the rest,
 * and so on down to the base. A write that was answered before the read was sent has to be found;
 * one that was under way may be missing. Peeling a write that fits is never wrong, but for two
 * things that make a choice: it forbids those that had to come after it and were not found yet,
 * and a write under way may fit by chance. There the search goes back when it fails.
 *
 * A byte alone is simpler: it shows a write that no later write, ended before the read began,
 * has covered.
 */

#include "stamps.h"

#undef NDEBUG
#include <assert.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define INDEX_BYTES 512u /* of the index, when the unit is a byte */
#define UNIT_MAX 4096u
#define CANDIDATES_MAX 1024u
#define STEPS_MAX 20000u
#define PRINT_MAX 5u

struct link {
	struct link *next;
	const struct stamp_op *op;
};

struct stamps {
	uint64_t size;
	uint32_t unit, cell; /* bytes: of what is atomic, of what is indexed */
	unsigned char *base;
	struct link **index; /* by cell: who wrote there in this round */
	struct link *links;
	size_t n_links;
	unsigned int n_wrong;
	uint64_t n_units, n_contended, n_undecided;
};

struct stamps *stamps_new(uint64_t size, uint32_t unit, const unsigned char *base)
{
	struct stamps *s = calloc(1, sizeof(*s));

	assert(s && unit <= UNIT_MAX);
	s->size = size;
	s->unit = unit;
	s->cell = unit == 1 ? INDEX_BYTES : unit;
	s->base = malloc(size);
	assert(s->base);
	memcpy(s->base, base, size);
	return s;
}

struct stamps *stamps_free(struct stamps *s)
{
	if (!s)
		return NULL;
	if (s->n_undecided)
		printf("# %llu units took too many steps to judge\n",
		       (unsigned long long)s->n_undecided);
	free(s->base);
	free(s);
	return NULL;
}

void stamps_counts(const struct stamps *s, uint64_t *ret_units, uint64_t *ret_contended)
{
	*ret_units = s->n_units;
	*ret_contended = s->n_contended;
}

static unsigned char stamp_byte(uint32_t id, uint64_t off)
{
	uint64_t x = (id * 0x9e3779b97f4a7c15) ^ ((off >> 3) * 0xbf58476d1ce4e5b9);

	x ^= x >> 29;
	x *= 0x94d049bb133111eb;
	x ^= x >> 32;
	return (unsigned char)(x >> 8 * (off & 7));
}

void stamps_fill(unsigned char *buf, uint32_t id, uint64_t off, size_t len)
{
	for (size_t i = 0; i < len; i++)
		buf[i] = stamp_byte(id, off + i);
}

static unsigned char byte_of(const struct stamp_op *w, uint64_t off)
{
	return w->kind == STAMP_WRITE ? stamp_byte(w->id, off) : 0;
}

/* ---- who wrote where ---- */

static bool is_writer(const struct stamp_op *op)
{
	return op->kind == STAMP_WRITE || op->kind == STAMP_ZERO || op->kind == STAMP_TRIM;
}

static void make_index(struct stamps *s, const struct stamp_op *ops, unsigned int n)
{
	size_t total = 0, at = 0;

	for (unsigned int i = 0; i < n; i++)
		if (is_writer(&ops[i]) && ops[i].len > 0)
			total += (ops[i].off + ops[i].len - 1) / s->cell - ops[i].off / s->cell + 1;
	s->index = calloc(s->size / s->cell + 1, sizeof(*s->index));
	s->links = calloc(total + 1, sizeof(*s->links));
	assert(s->index && s->links);
	for (unsigned int i = 0; i < n; i++) {
		if (!is_writer(&ops[i]) || ops[i].len == 0)
			continue;
		for (uint64_t c = ops[i].off / s->cell;
		     c <= (ops[i].off + ops[i].len - 1) / s->cell; c++) {
			s->links[at] = (struct link){ s->index[c], &ops[i] };
			s->index[c] = &s->links[at++];
		}
	}
}

static void drop_index(struct stamps *s)
{
	free(s->index);
	free(s->links);
	s->index = NULL;
	s->links = NULL;
}

/* ---- one sector ---- */

struct candidate {
	const struct stamp_op *op;
	uint32_t from, to; /* in the part that was read */
	bool has_to_be; /* must be found */
	bool is_gone; /* found, or forbidden */
};

struct peel {
	struct candidate c[CANDIDATES_MAX];
	unsigned int n;
	uint64_t off; /* of the part */
	uint32_t len;
	const unsigned char *seen, *base;
	bool is_explained[UNIT_MAX];
	unsigned int steps;
};

/* Whether all that it still has to show is there, and how many bytes that is. */
static bool fits(const struct peel *p, const struct candidate *c, uint32_t *ret_shown)
{
	uint32_t shown = 0;

	for (uint32_t i = c->from; i < c->to; i++) {
		if (p->is_explained[i])
			continue;
		if (p->seen[i] != byte_of(c->op, p->off + i))
			return false;
		shown++;
	}
	*ret_shown = shown;
	return true;
}

static bool is_blocked(const struct peel *p, const struct candidate *c)
{
	for (unsigned int i = 0; i < p->n; i++)
		if (!p->c[i].is_gone && p->c[i].has_to_be && &p->c[i] != c &&
		    c->op->end < p->c[i].op->begin)
			return true;
	return false;
}

static unsigned int forbids(const struct peel *p, const struct candidate *c)
{
	unsigned int n = 0;

	for (unsigned int i = 0; i < p->n; i++)
		n += !p->c[i].is_gone && !p->c[i].has_to_be && &p->c[i] != c &&
		     c->op->end < p->c[i].op->begin;
	return n;
}

static void take_off(struct peel *p, struct candidate *c)
{
	c->is_gone = true;
	for (uint32_t i = c->from; i < c->to; i++)
		p->is_explained[i] = true;
	for (unsigned int i = 0; i < p->n; i++) {
		struct candidate *o = &p->c[i];

		if (o->is_gone)
			continue;
		if (c->op->end < o->op->begin)
			o->is_gone = true;
		else if (o->op->end < c->op->begin && o->op->kind != STAMP_TRIM)
			o->has_to_be = true;
	}
}

static bool is_base(const struct peel *p)
{
	for (unsigned int i = 0; i < p->n; i++)
		if (!p->c[i].is_gone && p->c[i].has_to_be)
			return false;
	for (uint32_t i = 0; i < p->len; i++)
		if (!p->is_explained[i] && p->seen[i] != p->base[i])
			return false;
	return true;
}

static bool peel(struct peel *p);

static bool try_one(struct peel *p, unsigned int i)
{
	struct peel *copy = malloc(sizeof(*copy));
	bool is_right;

	assert(copy);
	memcpy(copy, p, sizeof(*copy));
	take_off(copy, &copy->c[i]);
	is_right = peel(copy);
	p->steps = copy->steps;
	free(copy);
	return is_right;
}

/* Takes off what leaves no choice; true when something was. */
static bool peel_surely(struct peel *p)
{
	for (unsigned int i = 0; i < p->n; i++) {
		struct candidate *c = &p->c[i];
		uint32_t shown;

		if (c->is_gone || is_blocked(p, c) || forbids(p, c) > 0 || !fits(p, c, &shown))
			continue;
		/* What may be missing counts when it shows so much that chance is ruled out. */
		if (!c->has_to_be && (shown < 8 || c->op->kind != STAMP_WRITE))
			continue;
		take_off(p, c);
		return true;
	}
	return false;
}

static bool peel(struct peel *p)
{
	while (peel_surely(p))
		;
	if (is_base(p))
		return true;
	for (unsigned int i = 0; i < p->n; i++) {
		struct candidate *c = &p->c[i];
		uint32_t shown;

		if (c->is_gone || is_blocked(p, c) || !fits(p, c, &shown) ||
		    (!c->has_to_be && shown == 0))
			continue;
		/* Given up: not called wrong, but counted. */
		if (++p->steps > STEPS_MAX)
			return true;
		if (try_one(p, i))
			return true;
	}
	return false;
}

/* What a trim may do: whole units only. */
static void clip_trim(const struct stamps *s, const struct stamp_op *op, uint64_t *from,
		      uint64_t *to)
{
	if (op->kind != STAMP_TRIM)
		return;
	*from = (*from + s->unit - 1) / s->unit * s->unit;
	*to = *to / s->unit * s->unit;
}

/* Fills p->c. False when the unit cannot be judged. */
static bool collect(struct stamps *s, const struct stamp_op *read, struct peel *p)
{
	for (const struct link *l = s->index[p->off / s->cell]; l; l = l->next) {
		const struct stamp_op *w = l->op;
		uint64_t from = w->off, to = w->off + w->len;

		clip_trim(s, w, &from, &to);
		if (w->has_failed && from < to)
			return false;
		if (from < p->off)
			from = p->off;
		if (to > p->off + p->len)
			to = p->off + p->len;
		if (from >= to || w->begin > read->end)
			continue;
		assert(p->n < CANDIDATES_MAX);
		p->c[p->n++] = (struct candidate){ .op = w,
						   .from = (uint32_t)(from - p->off),
						   .to = (uint32_t)(to - p->off),
						   .has_to_be = w->kind != STAMP_TRIM &&
								w->end < read->begin };
	}
	return true;
}

static bool judge_sector(struct stamps *s, const struct stamp_op *read, uint64_t off, uint32_t len,
			 const unsigned char *seen)
{
	struct peel *p;
	bool is_right = true;

	if (!s->index[off / s->cell])
		return memcmp(seen, s->base + off, len) == 0;
	p = calloc(1, sizeof(*p));
	assert(p);
	p->off = off;
	p->len = len;
	p->seen = seen;
	p->base = s->base + off;
	if (collect(s, read, p)) {
		s->n_contended += p->n > 1;
		is_right = p->n > 0 ? peel(p) : memcmp(p->seen, p->base, len) == 0;
		s->n_undecided += p->steps > STEPS_MAX;
	}
	free(p);
	return is_right;
}

/* ---- bytes ---- */

/* Whether w was covered at off before the read began. */
static bool is_covered(const struct stamps *s, const struct stamp_op *read,
		       const struct stamp_op *w, uint64_t off)
{
	for (const struct link *l = s->index[off / s->cell]; l; l = l->next) {
		const struct stamp_op *o = l->op;

		if (o != w && o->kind != STAMP_TRIM && off >= o->off && off < o->off + o->len &&
		    o->end < read->begin && (!w || w->end < o->begin))
			return true;
	}
	return false;
}

static bool judge_byte(const struct stamps *s, const struct stamp_op *read, uint64_t off,
		       unsigned char seen)
{
	for (const struct link *l = s->index[off / s->cell]; l; l = l->next) {
		const struct stamp_op *w = l->op;

		if (off < w->off || off >= w->off + w->len || w->begin > read->end)
			continue;
		if (w->has_failed || (seen == byte_of(w, off) && !is_covered(s, read, w, off)))
			return true;
	}
	return seen == s->base[off] && !is_covered(s, read, NULL, off);
}

static bool judge_bytes(const struct stamps *s, const struct stamp_op *read, uint64_t off,
			uint32_t len, const unsigned char *seen)
{
	if (!s->index[off / s->cell])
		return memcmp(seen, s->base + off, len) == 0;
	for (uint32_t i = 0; i < len; i++)
		if (!judge_byte(s, read, off + i, seen[i]))
			return false;
	return true;
}

/* ---- a round ---- */

static void tell(const struct stamps *s, const struct stamp_op *read, uint64_t off, uint32_t len,
		 const unsigned char *seen)
{
	printf("# wrong: unit at %llu, %u bytes, read from %llu to %llu, seen:",
	       (unsigned long long)off, len, (unsigned long long)read->begin,
	       (unsigned long long)read->end);
	for (uint32_t i = 0; i < len; i += 512)
		printf(" %02x%02x", seen[i], i + 1 < len ? seen[i + 1] : 0);
	printf("%s\n", memcmp(seen, s->base + off, len) == 0 ? " (as before the round)" : "");
	for (const struct link *l = s->index[off / s->cell]; l; l = l->next)
		printf("#   kind %d id %u at %llu, %u bytes, %llu to %llu\n", (int)l->op->kind,
		       l->op->id, (unsigned long long)l->op->off, l->op->len,
		       (unsigned long long)l->op->begin, (unsigned long long)l->op->end);
}

static void judge_read(struct stamps *s, const struct stamp_op *read)
{
	uint64_t at = read->off, end = read->off + read->len;

	while (at < end) {
		uint64_t to = (at / s->cell + 1) * s->cell;
		const unsigned char *seen = read->data + (at - read->off);
		uint32_t len;

		if (to > end)
			to = end;
		len = (uint32_t)(to - at);
		s->n_units++;
		if (!(s->unit == 1 ? judge_bytes(s, read, at, len, seen)
				   : judge_sector(s, read, at, len, seen)) &&
		    s->n_wrong++ < PRINT_MAX)
			tell(s, read, at, len, seen);
		at = to;
	}
}

unsigned int stamps_judge(struct stamps *s, const struct stamp_op *ops, unsigned int n,
			  const unsigned char *now)
{
	struct stamp_op last = { .kind = STAMP_READ, .begin = UINT64_MAX, .end = UINT64_MAX };
	unsigned int before = s->n_wrong;

	make_index(s, ops, n);
	for (unsigned int i = 0; i < n; i++)
		if (ops[i].kind == STAMP_READ && !ops[i].has_failed && ops[i].data)
			judge_read(s, &ops[i]);
	/* In pieces, for the length of an op has 32 bits. */
	for (uint64_t at = 0; at < s->size; at += last.len) {
		last.off = at;
		last.len = s->size - at < 1u << 30 ? (uint32_t)(s->size - at) : 1u << 30;
		last.data = (unsigned char *)(uintptr_t)now + at;
		judge_read(s, &last);
	}
	drop_index(s);
	memcpy(s->base, now, s->size);
	return s->n_wrong - before;
}
