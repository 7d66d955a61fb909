/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Copyright (C) 2026 the rbdcrypt-nbd authors */

/*
 * The server's side of NBD's fixed newstyle handshake: option haggling with a
 * client that nobody has authenticated. Runs on the connection's reader thread.
 * Owns one block of memory for the length of the handshake; whatever the client
 * sends, it never needs more. An option we cannot read is answered with an
 * error and haggling goes on; only what cannot be followed any more, or is plainly
 * an attack (too many options, megabytes of data), ends the connection.
 */

#include "wire.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "be.h"
#include "stream.h"

#define INIT_MAGIC 0x4e42444d41474943ull /* "NBDMAGIC" */
#define OPTION_MAGIC 0x49484156454f5054ull /* "IHAVEOPT" */
#define REPLY_MAGIC 0x0003e889045565a9ull

/* Handshake flags: what we offer, and exactly what a client may answer. */
#define FIXED_NEWSTYLE (1u << 0)
#define NO_ZEROES (1u << 1)

#define NAME_MAX_BYTES 4096u /* the protocol's limit for every string */
#define OPTION_MAX_BYTES (32u << 10) /* more is skipped and answered "too big" */
#define SKIP_MAX_BYTES (1u << 20) /* more is an attack */
#define OPTIONS_MAX 256u /* per connection */

#define STATUS_CONTEXT_ID 1u
#define STATUS_CONTEXT "base:allocation"
#define STATUS_NAMESPACE "base:"

enum option {
	OPT_EXPORT_NAME = 1,
	OPT_ABORT = 2,
	OPT_LIST = 3,
	OPT_INFO = 6,
	OPT_GO = 7,
	OPT_STRUCTURED_REPLY = 8,
	OPT_LIST_META_CONTEXT = 9,
	OPT_SET_META_CONTEXT = 10,
};

enum reply_type {
	REP_ACK = 1,
	REP_SERVER = 2,
	REP_INFO = 3,
	REP_META_CONTEXT = 4,
};

/* Kept apart from reply_type: bit 31 does not fit an int. */
#define REP_ERR(n) ((1u << 31) + (n))
#define REP_ERR_UNSUP REP_ERR(1)
#define REP_ERR_INVALID REP_ERR(3)
#define REP_ERR_UNKNOWN REP_ERR(6)
#define REP_ERR_BLOCK_SIZE_REQD REP_ERR(8)
#define REP_ERR_TOO_BIG REP_ERR(9)

enum info_type {
	INFO_EXPORT = 0,
	INFO_NAME = 1,
	INFO_DESCRIPTION = 2,
	INFO_BLOCK_SIZE = 3,
};

struct handshake {
	struct stream stream;
	wire_find_export_fn find;
	wire_list_exports_fn list;
	void *arg;

	bool is_no_zeroes;
	bool has_structured;
	/* The export for which base:allocation was selected, or NULL. Lives as long as we do. */
	const char *status_export;

	/* The option being answered. */
	uint32_t option;
	uint32_t len;
	unsigned char data[OPTION_MAX_BYTES];
	char name[NAME_MAX_BYTES + 1];
};

/* What is left of an option's data. */
struct cursor {
	const unsigned char *p;
	size_t left;
};

static bool take_be16(struct cursor *c, uint16_t *ret)
{
	if (c->left < 2)
		return false;
	*ret = get_be16(c->p);
	c->p += 2;
	c->left -= 2;
	return true;
}

static bool take_be32(struct cursor *c, uint32_t *ret)
{
	if (c->left < 4)
		return false;
	*ret = get_be32(c->p);
	c->p += 4;
	c->left -= 4;
	return true;
}

static bool take_bytes(struct cursor *c, size_t len, const unsigned char **ret)
{
	if (c->left < len)
		return false;
	*ret = c->p;
	c->p += len;
	c->left -= len;
	return true;
}

/* ---- replies ---- */

static int begin_reply(struct handshake *h, uint32_t type, size_t len)
{
	unsigned char buf[20], *p = buf;

	p = put_be64(p, REPLY_MAGIC);
	p = put_be32(p, h->option);
	p = put_be32(p, type);
	p = put_be32(p, (uint32_t)len);
	return stream_put(&h->stream, buf, (size_t)(p - buf));
}

static int reply(struct handshake *h, uint32_t type, const void *data, size_t len)
{
	int r = begin_reply(h, type, len);

	return r < 0 ? r : stream_put(&h->stream, data, len);
}

static int reply_ack(struct handshake *h)
{
	return reply(h, REP_ACK, "", 0);
}

/* text is what the client's user reads. */
static int reply_error(struct handshake *h, uint32_t type, const char *text)
{
	return reply(h, type, text, strlen(text));
}

static int reply_info_text(struct handshake *h, enum info_type type, const char *text)
{
	size_t len = strnlen(text, NAME_MAX_BYTES);
	unsigned char buf[2];
	int r;

	put_be16(buf, (uint16_t)type);
	r = begin_reply(h, REP_INFO, sizeof(buf) + len);
	if (r < 0)
		return r;
	r = stream_put(&h->stream, buf, sizeof(buf));
	return r < 0 ? r : stream_put(&h->stream, text, len);
}

static int reply_info_export(struct handshake *h, const struct wire_session *session)
{
	unsigned char buf[12], *p = buf;

	p = put_be16(p, INFO_EXPORT);
	p = put_be64(p, session->size);
	p = put_be16(p, session->flags);
	return reply(h, REP_INFO, buf, (size_t)(p - buf));
}

static int reply_info_block_size(struct handshake *h, const struct wire_export *e)
{
	unsigned char buf[14], *p = buf;

	p = put_be16(p, INFO_BLOCK_SIZE);
	p = put_be32(p, e->min_block);
	p = put_be32(p, e->preferred_block);
	p = put_be32(p, e->max_block);
	return reply(h, REP_INFO, buf, (size_t)(p - buf));
}

/* ---- options ---- */

/*
 * How an option was dealt with: haggling goes on, transmission begins, or -errno.
 */
#define GO_ON 0
#define BEGIN_TRANSMISSION 1

/*
 * Copies a name into h->name. 0, or the error reply it deserves. A NUL inside would make us
 * look up another name than the client sent.
 */
static uint32_t keep_name(struct handshake *h, const unsigned char *bytes, size_t len)
{
	if (len > NAME_MAX_BYTES)
		return REP_ERR_TOO_BIG;
	if (memchr(bytes, 0, len))
		return REP_ERR_INVALID;
	memcpy(h->name, bytes, len);
	h->name[len] = 0;
	return 0;
}

/* A name preceded by its length. */
static uint32_t take_name(struct handshake *h, struct cursor *c)
{
	const unsigned char *bytes;
	uint32_t len;

	if (!take_be32(c, &len) || !take_bytes(c, len, &bytes))
		return REP_ERR_INVALID;
	return keep_name(h, bytes, len);
}

static struct wire_session make_session(const struct handshake *h, const struct wire_export *e)
{
	struct wire_session s = {
		.has_structured = h->has_structured,
		.flags = (uint16_t)(e->flags | WIRE_FLAG_HAS_FLAGS),
		.size = e->size,
	};

	s.flags &= (uint16_t)~WIRE_FLAG_SEND_DF;
	if (h->has_structured)
		s.flags |= WIRE_FLAG_SEND_DF;
	if (e->has_status && h->status_export && strcmp(h->status_export, e->name) == 0) {
		s.has_status = true;
		s.status_context = STATUS_CONTEXT_ID;
	}
	return s;
}

/* The one option that knows no error reply: what cannot be granted ends the connection. */
static int option_export_name(struct handshake *h, struct wire_session *ret)
{
	static const unsigned char zeroes[124];
	struct wire_export e = { 0 };
	struct wire_session session;
	unsigned char buf[10];
	int r;

	if (keep_name(h, h->data, h->len) != 0)
		return -EPROTO;
	if (h->find(h->arg, h->name, &e) < 0)
		return -ENOENT;
	/* Such a client cannot learn that we want larger blocks. */
	if (e.min_block > 1)
		return -EPROTO;
	session = make_session(h, &e);
	put_be16(put_be64(buf, session.size), session.flags);
	r = stream_put(&h->stream, buf, sizeof(buf));
	if (r == 0 && !h->is_no_zeroes)
		r = stream_put(&h->stream, zeroes, sizeof(zeroes));
	if (r < 0)
		return r;
	*ret = session;
	return BEGIN_TRANSMISSION;
}

static int option_list(struct handshake *h)
{
	unsigned int i;

	if (h->len > 0)
		return reply_error(h, REP_ERR_INVALID, "NBD_OPT_LIST takes no data");
	for (i = 0; h->list; i++) {
		struct wire_export e = { 0 };
		size_t name_len, text_len;
		unsigned char buf[4];
		int r;

		if (h->list(h->arg, i, &e) < 0)
			break;
		name_len = strnlen(e.name, NAME_MAX_BYTES);
		text_len = e.description ? strnlen(e.description, NAME_MAX_BYTES) : 0;
		put_be32(buf, (uint32_t)name_len);
		r = begin_reply(h, REP_SERVER, sizeof(buf) + name_len + text_len);
		if (r == 0)
			r = stream_put(&h->stream, buf, sizeof(buf));
		if (r == 0)
			r = stream_put(&h->stream, e.name, name_len);
		if (r == 0 && text_len > 0)
			r = stream_put(&h->stream, e.description, text_len);
		if (r < 0)
			return r;
	}
	return reply_ack(h);
}

/* The information a client asked for by number; what we do not know is ignored. */
struct wanted {
	bool name, description, block_size;
};

static bool take_wanted(struct cursor *c, struct wanted *ret)
{
	struct wanted w = { false };
	uint16_t n, type;

	if (!take_be16(c, &n) || c->left != 2u * n)
		return false;
	while (take_be16(c, &type)) {
		if (type == INFO_NAME)
			w.name = true;
		else if (type == INFO_DESCRIPTION)
			w.description = true;
		else if (type == INFO_BLOCK_SIZE)
			w.block_size = true;
	}
	*ret = w;
	return true;
}

/* INFO and GO differ only in what a success leads to. */
static int option_info_go(struct handshake *h, struct wire_session *ret)
{
	struct cursor c = { h->data, h->len };
	struct wire_export e = { 0 };
	struct wire_session session;
	struct wanted wanted;
	uint32_t error;
	int r;

	error = take_name(h, &c);
	if (error == 0 && !take_wanted(&c, &wanted))
		error = REP_ERR_INVALID;
	if (error != 0)
		return reply_error(h, error, "malformed export name or list of information");
	if (h->find(h->arg, h->name, &e) < 0)
		return reply_error(h, REP_ERR_UNKNOWN, "no such export");

	/* Unasked as well: a client that is refused for it learns why without another question. */
	r = reply_info_block_size(h, &e);
	if (r < 0)
		return r;
	if (e.min_block > 1 && !wanted.block_size)
		return reply_error(h, REP_ERR_BLOCK_SIZE_REQD,
				   "this export needs a client that asks for the block size");
	session = make_session(h, &e);
	r = reply_info_export(h, &session);
	if (r == 0 && wanted.name)
		r = reply_info_text(h, INFO_NAME, e.name);
	if (r == 0 && wanted.description && e.description)
		r = reply_info_text(h, INFO_DESCRIPTION, e.description);
	if (r == 0)
		r = reply_ack(h);
	if (r < 0 || h->option == OPT_INFO)
		return r;
	*ret = session;
	return BEGIN_TRANSMISSION;
}

static int option_structured_reply(struct handshake *h)
{
	if (h->len > 0)
		return reply_error(h, REP_ERR_INVALID, "NBD_OPT_STRUCTURED_REPLY takes no data");
	h->has_structured = true;
	return reply_ack(h);
}

static bool is_text(const unsigned char *bytes, size_t len, const char *text)
{
	return len == strlen(text) && memcmp(bytes, text, len) == 0;
}

/*
 * Reads the queries; says whether one of them means base:allocation. When listing, no query at all
 * and the bare namespace mean it too. Other namespaces and leaves are not ours to judge.
 */
static bool take_queries(struct cursor *c, bool is_listing, bool *ret_match)
{
	bool match = false;
	uint32_t n, i;

	if (!take_be32(c, &n))
		return false;
	if (n == 0 && is_listing)
		match = true;
	for (i = 0; i < n; i++) {
		const unsigned char *query;
		uint32_t len;

		if (!take_be32(c, &len) || !take_bytes(c, len, &query))
			return false;
		if (is_text(query, len, STATUS_CONTEXT) ||
		    (is_listing && is_text(query, len, STATUS_NAMESPACE)))
			match = true;
	}
	*ret_match = match;
	return c->left == 0;
}

static int option_meta_context(struct handshake *h)
{
	static const char context[] = STATUS_CONTEXT;
	bool is_listing = h->option == OPT_LIST_META_CONTEXT;
	struct cursor c = { h->data, h->len };
	struct wire_export e = { 0 };
	bool match;
	uint32_t error;

	/* A new selection replaces the old one even when it fails. */
	if (!is_listing)
		h->status_export = NULL;
	if (!h->has_structured)
		return reply_error(h, REP_ERR_INVALID,
				   "structured replies must be negotiated first");
	error = take_name(h, &c);
	if (error == 0 && !take_queries(&c, is_listing, &match))
		error = REP_ERR_INVALID;
	if (error != 0)
		return reply_error(h, error, "malformed export name or queries");
	if (h->find(h->arg, h->name, &e) < 0)
		return reply_error(h, REP_ERR_UNKNOWN, "no such export");
	if (match && e.has_status) {
		unsigned char buf[4 + sizeof(context) - 1];
		int r;

		/* When listing, the identifier is reserved. */
		memcpy(put_be32(buf, is_listing ? 0 : STATUS_CONTEXT_ID), context,
		       sizeof(context) - 1);
		r = reply(h, REP_META_CONTEXT, buf, sizeof(buf));
		if (r < 0)
			return r;
		if (!is_listing)
			h->status_export = e.name;
	}
	return reply_ack(h);
}

static int answer_option(struct handshake *h, struct wire_session *ret)
{
	int r;

	switch (h->option) {
	case OPT_EXPORT_NAME:
		return option_export_name(h, ret);
	case OPT_ABORT:
		/* The client may be gone before it reads this; that is as good. */
		r = reply_ack(h);
		if (r == 0)
			r = stream_flush(&h->stream);
		return r < 0 ? r : -ECONNRESET;
	case OPT_LIST:
		return option_list(h);
	case OPT_INFO:
	case OPT_GO:
		return option_info_go(h, ret);
	case OPT_STRUCTURED_REPLY:
		return option_structured_reply(h);
	case OPT_LIST_META_CONTEXT:
	case OPT_SET_META_CONTEXT:
		return option_meta_context(h);
	default:
		return reply_error(h, REP_ERR_UNSUP, "unknown option");
	}
}

/* Reads one option with its data, and answers it. */
static int next_option(struct handshake *h, struct wire_session *ret)
{
	unsigned char head[16];
	int r;

	r = stream_read(&h->stream, head, sizeof(head));
	if (r < 0)
		return r;
	if (get_be64(head) != OPTION_MAGIC)
		return -EPROTO;
	h->option = get_be32(head + 8);
	h->len = get_be32(head + 12);
	if (h->len > SKIP_MAX_BYTES)
		return -EPROTO;
	if (h->len > sizeof(h->data)) {
		r = stream_skip(&h->stream, h->len);
		if (r < 0)
			return r;
		if (h->option == OPT_EXPORT_NAME)
			return -EPROTO;
		return reply_error(h, REP_ERR_TOO_BIG, "too much option data");
	}
	r = stream_read(&h->stream, h->data, h->len);
	return r < 0 ? r : answer_option(h, ret);
}

static int greet(struct handshake *h)
{
	unsigned char buf[18], *p = buf;
	uint32_t flags;
	int r;

	p = put_be64(p, INIT_MAGIC);
	p = put_be64(p, OPTION_MAGIC);
	p = put_be16(p, FIXED_NEWSTYLE | NO_ZEROES);
	r = stream_put(&h->stream, buf, (size_t)(p - buf));
	if (r == 0)
		r = stream_flush(&h->stream);
	if (r == 0)
		r = stream_read(&h->stream, buf, 4);
	if (r < 0)
		return r;
	flags = get_be32(buf);
	if (flags & ~(FIXED_NEWSTYLE | NO_ZEROES))
		return -EPROTO;
	/* A client that does not claim fixed newstyle will only send EXPORT_NAME; no need to check.
	 */
	h->is_no_zeroes = flags & NO_ZEROES;
	return 0;
}

static int haggle(struct handshake *h, struct wire_session *ret)
{
	struct wire_session session;
	unsigned int i;
	int r;

	r = greet(h);
	for (i = 0; r == GO_ON; i++) {
		if (i == OPTIONS_MAX)
			return -EPROTO;
		/* The time limit is per option, so that one byte now and then does not renew it. */
		stream_restart(&h->stream);
		r = next_option(h, &session);
		if (r >= 0) {
			int sent = stream_flush(&h->stream);

			if (sent < 0)
				r = sent;
		}
	}
	if (r < 0)
		return r;
	*ret = session;
	return 0;
}

int wire_handshake(int rfd, int wfd, int stop_fd, int timeout_ms, wire_find_export_fn find,
		   wire_list_exports_fn list, void *arg, struct wire_session *ret)
{
	struct handshake *h = calloc(1, sizeof(*h));
	int r;

	if (!h)
		return -ENOMEM;
	stream_init(&h->stream, rfd, wfd, stop_fd, timeout_ms);
	h->find = find;
	h->list = list;
	h->arg = arg;
	r = haggle(h, ret);
	free(h);
	return r;
}
