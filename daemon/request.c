/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Copyright (C) 2026 the rbdcrypt-nbd authors */

/*
 * The life of one NBD command between its socket and the store:
 *
 *   BEGIN -> ORDERED (holds its range)
 *     READ         -> store -> READ -> decrypt -> DECRYPTED -> FINISHED
 *     WRITE        -> PIECE [-> store -> HEAD] [-> store -> TAIL] -> MERGED -> encrypt -> ENCRYPTED
 *                     -> store -> WRITTEN -> DURABLE [-> flush -> LAST] -> FINISHED
 *     WRITE_ZEROES -> ZERO -> (store frees -> FREED | PIECE as a WRITE of zeros ... WRITTEN)
 *                     -> ZERO ... -> DURABLE -> as above
 *     TRIM         -> store -> DURABLE -> as above
 *     FLUSH, BLOCK_STATUS -> store -> LAST -> FINISHED
 *
 * Each arrow through the store or the workers may be crossed on another thread; the thread that
 * completes an operation carries the request on. request_start(), io_done() and job_done() are the
 * three ways in. A step that finished inside its call just goes on in the loop, so nothing here
 * recurses.
 *
 * Ranges: a write is alone on its sectors, so a sub-sector write cannot lose what a neighbour
 * writes, and a copy of a write that the kernel sends again waits for the first copy. Reads wait
 * only where the store itself could show half of a sector's new bytes.
 */

#include "request.h"

#include <errno.h>
#include <string.h>

#include "conn.h"

/* WRITE_ZEROES where space cannot be freed: this much is encrypted and written at a time. */
#define ZERO_PIECE (512u << 10)

enum { WAIT = 0, GO_ON = STORE_DONE };

static uint64_t round_down(uint64_t x, uint32_t unit)
{
	return x - x % unit;
}

static uint64_t round_up(uint64_t x, uint32_t unit)
{
	return round_down(x + unit - 1, unit);
}

static bool is_write(const struct request *req)
{
	return req->wire.type == WIRE_WRITE || req->wire.type == WIRE_WRITE_ZEROES ||
	       req->wire.type == WIRE_TRIM;
}

static void fail(struct request *req, int error)
{
	if (!req->error)
		req->error = error;
	req->step = STEP_FINISHED;
}

size_t request_memory(const struct volume *v, const struct wire_request *w)
{
	uint64_t start = round_down(w->offset, v->sector);
	uint64_t end = round_up(w->offset + w->len, v->sector);
	uint64_t len = end - start;

	switch (w->type) {
	case WIRE_READ:
		return len;
	case WIRE_WRITE_ZEROES:
		if (!v->is_encrypted)
			return 0;
		if (len > ZERO_PIECE)
			len = ZERO_PIECE;
		/* fallthrough: a piece may have edges of its own */
		return len + 2 * (size_t)v->sector;
	case WIRE_WRITE:
		if (start == w->offset && len == w->len)
			return len;
		return len + 2 * (size_t)v->sector;
	case WIRE_BLOCK_STATUS:
		return CONN_STATUS_MAX * 8;
	default:
		return 0;
	}
}

static void set_piece(struct request *req, uint64_t off, size_t len)
{
	req->piece = off;
	req->piece_len = len;
	req->window = round_down(off, req->volume->sector);
	req->window_len = (size_t)(round_up(off + len, req->volume->sector) - req->window);
}

unsigned char *request_payload(struct request *req)
{
	return req->buf + (req->wire.offset - round_down(req->wire.offset, req->volume->sector));
}

/* ---- AES, here or shared with the workers ---- */

/* Part of the window, from byte at to byte end of it. 0 or -errno. */
static int crypt_part(struct request *req, bool is_encrypt, size_t at, size_t end)
{
	struct volume *v = req->volume;

	if (is_encrypt)
		return v->xts[0] ? xts_encrypt(v->xts[0], req->buf + at, end - at, req->window + at)
				 : 0;
	return volume_decrypt(v, &req->io, req->buf + at, req->window + at, req->window + end);
}

static void job_piece(struct job *job, unsigned int i)
{
	struct request *req = (struct request *)((char *)job - offsetof(struct request, job));
	size_t at = i * req->job_piece_bytes, end = at + req->job_piece_bytes;
	int r, expected = 0;

	if (end > req->window_len)
		end = req->window_len;
	r = crypt_part(req, req->job_is_encrypt, at, end);
	if (r < 0)
		(void)atomic_compare_exchange_strong(&req->job_error, &expected, r);
}

static void run(struct request *req);

static void job_done(struct job *job)
{
	run((struct request *)((char *)job - offsetof(struct request, job)));
}

/* The whole window. Its result is in job_error at the next step. */
static int crypt(struct request *req, bool is_encrypt)
{
	struct volume *v = req->volume;
	size_t piece;

	atomic_store(&req->job_error, 0);
	if (!v->is_encrypted)
		return GO_ON;
	if (!volume_shares(v, req->window_len)) {
		atomic_store(&req->job_error, crypt_part(req, is_encrypt, 0, req->window_len));
		return GO_ON;
	}
	piece = pool_piece(v->pool, req->window_len, v->sector);
	req->job_piece_bytes = piece;
	req->job_is_encrypt = is_encrypt;
	req->job.n_pieces = (unsigned int)((req->window_len + piece - 1) / piece);
	req->job.piece = job_piece;
	req->job.done = job_done;
	return pool_run(v->pool, &req->job) ? GO_ON : WAIT;
}

/* ---- the steps ---- */

static void io_done(struct store_io *io)
{
	run((struct request *)((char *)io - offsetof(struct request, io)));
}

static struct store_io *fresh_io(struct request *req)
{
	store_io_reset(&req->io);
	req->io.done = io_done;
	req->io.result = 0;
	return &req->io;
}

/* Whether the request has to be alone, or in company of reads, on its sectors. */
static bool needs_order(const struct request *req)
{
	if (req->wire.type == WIRE_READ)
		return req->volume->is_encrypted && !req->volume->store->has_atomic_sectors;
	return is_write(req);
}

static int step_begin(struct request *req)
{
	struct volume *v = req->volume;

	req->step = STEP_ORDERED;
	if (!needs_order(req))
		return GO_ON;
	req->range.start = round_down(req->wire.offset, v->sector);
	req->range.end = round_up(req->wire.offset + req->wire.len, v->sector);
	req->range.is_write = is_write(req);
	return range_acquire(&v->ranges, &req->range) ? GO_ON : WAIT;
}

static int step_trim(struct request *req)
{
	struct volume *v = req->volume;
	uint64_t start = round_up(req->wire.offset, v->sector);
	uint64_t end = round_down(req->wire.offset + req->wire.len, v->sector);

	req->step = STEP_DURABLE;
	/* A hint: what cannot be freed stays as it is. */
	if (start >= end)
		return GO_ON;
	return v->store->ops->discard(v->store, fresh_io(req), start, end - start);
}

/* The next part of a WRITE_ZEROES on an encrypted volume that can be freed: dev_off and length, 0
 * for none. */
static void next_freeable(struct request *req, uint64_t *ret_off, uint64_t *ret_len)
{
	struct volume *v = req->volume;
	uint64_t start = round_up(req->cursor, v->sector);
	uint64_t end = round_down(req->wire.offset + req->wire.len, v->sector);

	*ret_off = 0;
	*ret_len = 0;
	if (start < end && !(req->wire.flags & WIRE_CMD_NO_HOLE))
		v->store->ops->freeable(v->store, start, end - start, ret_off, ret_len);
}

static int step_ordered(struct request *req)
{
	struct volume *v = req->volume;
	const struct store_ops *ops = v->store->ops;
	uint64_t off, len;

	/*
	 * The kernel sends a write again when its socket died, perhaps on another connection, and
	 * so does a client that reconnects. This copy now holds its range, so a later copy comes
	 * after it; but one that came before it, with what was written since, must not be
	 * overwritten. Such a copy can only exist if the socket had died by now.
	 */
	if (is_write(req) && conn_is_abandoned(req->conn)) {
		fail(req, -ESHUTDOWN);
		return GO_ON;
	}
	switch ((enum wire_command)req->wire.type) {
	case WIRE_READ:
		set_piece(req, req->wire.offset, req->wire.len);
		req->step = STEP_READ;
		return ops->read(v->store, fresh_io(req), req->window, req->buf, req->window_len);
	case WIRE_WRITE:
		set_piece(req, req->wire.offset, req->wire.len);
		req->step = STEP_PIECE;
		return GO_ON;
	case WIRE_TRIM:
		return step_trim(req);
	case WIRE_WRITE_ZEROES:
		req->cursor = req->wire.offset;
		if (!v->is_encrypted) {
			/* Keeping the space means writing it. */
			if ((req->wire.flags & WIRE_CMD_FAST_ZERO) &&
			    (req->wire.flags & WIRE_CMD_NO_HOLE)) {
				fail(req, -EOPNOTSUPP);
				return GO_ON;
			}
			req->step = STEP_DURABLE;
			return ops->zero(v->store, fresh_io(req), req->wire.offset, req->wire.len,
					 req->wire.flags & WIRE_CMD_NO_HOLE ? STORE_ZERO_NO_HOLE
									    : 0);
		}
		if (req->wire.flags & WIRE_CMD_FAST_ZERO) {
			next_freeable(req, &off, &len);
			if (off != req->wire.offset || len != req->wire.len) {
				fail(req, -EOPNOTSUPP);
				return GO_ON;
			}
		}
		req->step = STEP_ZERO;
		return GO_ON;
	case WIRE_FLUSH:
		req->step = STEP_LAST;
		return ops->flush(v->store, fresh_io(req));
	case WIRE_BLOCK_STATUS:
		req->step = STEP_LAST;
		return ops->status(v->store, fresh_io(req), round_down(req->wire.offset, v->sector),
				   round_up(req->wire.offset + req->wire.len, v->sector) -
					   round_down(req->wire.offset, v->sector));
	case WIRE_CACHE:
	case WIRE_DISC:
		break;
	}
	fail(req, -EINVAL);
	return GO_ON;
}

static int step_read(struct request *req)
{
	if (req->io.result < 0) {
		fail(req, req->io.result);
		return GO_ON;
	}
	req->step = STEP_DECRYPTED;
	return crypt(req, false);
}

static void step_decrypted(struct request *req)
{
	int r = atomic_load(&req->job_error);

	if (r < 0) {
		fail(req, r);
		return;
	}
	req->data = req->buf + (req->piece - req->window);
	req->data_len = req->piece_len;
	req->step = STEP_FINISHED;
}

/* The edge sectors' old bytes that the piece leaves standing. */
static int read_edge(struct request *req, uint64_t sector_off, unsigned char *scratch)
{
	struct volume *v = req->volume;

	return v->store->ops->read(v->store, fresh_io(req), sector_off, scratch, v->sector);
}

static unsigned char *scratch_of(struct request *req, unsigned int i)
{
	return req->buf + req->buf_len - (2 - i) * (size_t)req->volume->sector;
}

static bool has_head(const struct request *req)
{
	return req->piece > req->window;
}

static bool has_tail(const struct request *req)
{
	return req->piece + req->piece_len < req->window + req->window_len;
}

static int step_piece(struct request *req)
{
	struct volume *v = req->volume;

	if (has_head(req)) {
		req->step = STEP_HEAD;
		return read_edge(req, req->window, scratch_of(req, 0));
	}
	if (has_tail(req)) {
		req->step = STEP_TAIL;
		return read_edge(req, req->window + req->window_len - v->sector,
				 scratch_of(req, 1));
	}
	req->step = STEP_MERGED;
	return GO_ON;
}

/* Decrypts a sector that read_edge() read. 0 or -errno. */
static int decrypt_edge(struct request *req, uint64_t sector_off, unsigned char *scratch)
{
	struct volume *v = req->volume;

	if (req->io.result < 0)
		return req->io.result;
	return v->is_encrypted
		       ? volume_decrypt(v, &req->io, scratch, sector_off, sector_off + v->sector)
		       : 0;
}

static int step_head(struct request *req)
{
	struct volume *v = req->volume;
	size_t before = (size_t)(req->piece - req->window);
	size_t to = before + req->piece_len;
	unsigned char *scratch = scratch_of(req, 0);
	int r = decrypt_edge(req, req->window, scratch);

	if (r < 0) {
		fail(req, r);
		return GO_ON;
	}
	memcpy(req->buf, scratch, before);
	if (!has_tail(req)) {
		req->step = STEP_MERGED;
		return GO_ON;
	}
	if (req->window_len == v->sector) {
		memcpy(req->buf + to, scratch + to, v->sector - to);
		req->step = STEP_MERGED;
		return GO_ON;
	}
	req->step = STEP_TAIL;
	return read_edge(req, req->window + req->window_len - v->sector, scratch_of(req, 1));
}

static void step_tail(struct request *req)
{
	struct volume *v = req->volume;
	size_t last = req->window_len - v->sector; /* the sector, in the window */
	size_t to = (size_t)(req->piece - req->window) + req->piece_len;
	unsigned char *scratch = scratch_of(req, 1);
	int r = decrypt_edge(req, req->window + last, scratch);

	if (r < 0) {
		fail(req, r);
		return;
	}
	memcpy(req->buf + to, scratch + (to - last), req->window_len - to);
	req->step = STEP_MERGED;
}

static int step_merged(struct request *req)
{
	req->step = STEP_ENCRYPTED;
	return crypt(req, true);
}

static int step_encrypted(struct request *req)
{
	struct volume *v = req->volume;
	int r = atomic_load(&req->job_error);

	if (r < 0) {
		fail(req, r);
		return GO_ON;
	}
	req->step = STEP_WRITTEN;
	return v->store->ops->write(v->store, fresh_io(req), req->window, req->buf,
				    req->window_len);
}

static void step_written(struct request *req)
{
	if (req->io.result < 0) {
		fail(req, req->io.result);
		return;
	}
	if (req->wire.type != WIRE_WRITE_ZEROES) {
		req->step = STEP_DURABLE;
		return;
	}
	req->cursor = req->piece + req->piece_len;
	req->step = STEP_ZERO;
}

static int step_zero(struct request *req)
{
	struct volume *v = req->volume;
	uint64_t end = req->wire.offset + req->wire.len;
	uint64_t free_off, free_len, to;

	if (req->cursor == end) {
		req->io.result = 0;
		req->step = STEP_DURABLE;
		return GO_ON;
	}
	next_freeable(req, &free_off, &free_len);
	if (free_len > 0 && free_off == req->cursor) {
		req->cursor += free_len;
		req->step = STEP_FREED;
		return v->store->ops->zero(v->store, fresh_io(req), free_off, free_len, 0);
	}
	/* Pieces end on ZERO_PIECE boundaries, so that only the first and the last have edges. */
	to = round_down(req->cursor, ZERO_PIECE) + ZERO_PIECE;
	if (free_len > 0 && free_off < to)
		to = free_off;
	if (end < to)
		to = end;
	set_piece(req, req->cursor, (size_t)(to - req->cursor));
	memset(req->buf, 0, req->window_len);
	req->step = STEP_PIECE;
	return GO_ON;
}

static void step_freed(struct request *req)
{
	if (req->io.result < 0)
		fail(req, req->io.result);
	else
		req->step = STEP_ZERO;
}

static int step_durable(struct request *req)
{
	struct volume *v = req->volume;

	if (req->io.result < 0) {
		fail(req, req->io.result);
		return GO_ON;
	}
	if (!(req->wire.flags & WIRE_CMD_FUA) || v->store->is_writethrough) {
		req->step = STEP_FINISHED;
		return GO_ON;
	}
	req->step = STEP_LAST;
	return v->store->ops->flush(v->store, fresh_io(req));
}

static void step_last(struct request *req)
{
	if (req->io.result < 0)
		fail(req, req->io.result);
	req->step = STEP_FINISHED;
}

/* Gives up the range, adds who waited for it to the work, and answers. */
static void step_finished(struct request *req, struct request ***tail)
{
	if (needs_order(req)) {
		struct range *r = range_release(&req->volume->ranges, &req->range);

		for (; r; r = r->ready) {
			struct request *o =
				(struct request *)((char *)r - offsetof(struct request, range));

			o->next = NULL;
			**tail = o;
			*tail = &o->next;
		}
	}
	conn_reply(req);
}

/* Takes one request as far as it goes without waiting. It may be anyone's afterwards. */
static void advance(struct request *req, struct request ***tail)
{
	int r = GO_ON;

	while (r == GO_ON) {
		switch (req->step) {
		case STEP_BEGIN:
			r = step_begin(req);
			break;
		case STEP_ORDERED:
			r = step_ordered(req);
			break;
		case STEP_READ:
			r = step_read(req);
			break;
		case STEP_DECRYPTED:
			step_decrypted(req);
			break;
		case STEP_PIECE:
			r = step_piece(req);
			break;
		case STEP_HEAD:
			r = step_head(req);
			break;
		case STEP_TAIL:
			step_tail(req);
			break;
		case STEP_MERGED:
			r = step_merged(req);
			break;
		case STEP_ENCRYPTED:
			r = step_encrypted(req);
			break;
		case STEP_WRITTEN:
			step_written(req);
			break;
		case STEP_ZERO:
			r = step_zero(req);
			break;
		case STEP_FREED:
			step_freed(req);
			break;
		case STEP_DURABLE:
			r = step_durable(req);
			break;
		case STEP_LAST:
			step_last(req);
			break;
		case STEP_FINISHED:
			step_finished(req, tail);
			return;
		}
	}
}

/* The request, and then those that its end lets go. */
static void run(struct request *req)
{
	struct request *work = req, **tail = &req->next;

	req->next = NULL;
	while (work) {
		struct request *now = work;

		work = now->next;
		if (!work)
			tail = &work;
		advance(now, &tail);
	}
}

void request_start(struct request *req)
{
	req->step = STEP_BEGIN;
	req->error = 0;
	req->data = NULL;
	req->data_len = 0;
	req->io.result = 0;
	(void)atomic_fetch_add(&req->volume->stats->in_flight, 1);
	run(req);
}
