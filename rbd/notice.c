/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Copyright (C) 2026 the rbdcrypt-nbd authors */

/*
 * Notifications between the clients of an image, as bytes. Called by the thread that answers them
 * and the one that keeps the lock. Owns nothing; nothing here waits.
 *
 * They come from any client that may watch the header, of any release. What newer ones add behind
 * what we know is passed over; what is missing or does not fit makes the message a bad one.
 */

#include "notice.h"

#include <errno.h>

#include "bytes.h"

#define VERSION_KNOWN 7 /* Pacific to Reef */
#define VERSION_OF_LOCKS 2 /* the oldest that says who wants the lock */

/* ---- from others ---- */

static void get_text(struct bytes_in *i)
{
	get_skip(i, get_u32(i));
}

/* The kind of a snapshot: users', groups' and so on. */
static void get_kind(struct bytes_in *i)
{
	struct bytes_in rest;

	(void)get_begin(i, UINT8_MAX, &rest);
	get_end(i, &rest);
}

/* The request's number is behind it, and nothing to us. */
static void get_client(struct bytes_in *i, struct client_id *c)
{
	c->gid = get_u64(i);
	c->handle = get_u64(i);
}

/* What stands before the client's name in other requests. */
static void skip_to_client(struct bytes_in *i, uint32_t op)
{
	switch (op) {
	case NOTICE_SNAP_CREATE:
	case NOTICE_SNAP_REMOVE:
	case NOTICE_SNAP_PROTECT:
	case NOTICE_SNAP_UNPROTECT:
		get_text(i);
		get_kind(i);
		break;
	case NOTICE_SNAP_RENAME:
		(void)get_u64(i);
		get_text(i);
		get_kind(i);
		break;
	case NOTICE_RENAME:
		get_text(i);
		break;
	case NOTICE_METADATA_UPDATE:
		get_text(i);
		if (get_u8(i) != 0)
			get_text(i);
		break;
	default:
		break;
	}
}

static void get_payload(struct bytes_in *i, uint8_t version, struct notice *n)
{
	switch (n->op) {
	case NOTICE_ACQUIRED_LOCK:
	case NOTICE_RELEASED_LOCK:
	case NOTICE_REQUEST_LOCK:
		if (version >= VERSION_OF_LOCKS)
			get_client(i, &n->client);
		return;
	case NOTICE_HEADER_UPDATE:
		return;
	case NOTICE_RESIZE:
		n->size = get_u64(i);
		break;
	case NOTICE_UPDATE_FEATURES:
		n->features = get_u64(i);
		n->is_enable = get_u8(i) != 0;
		break;
	default:
		break;
	}
	/* Before that version, not all of them said who. */
	if (version < VERSION_KNOWN || n->op > NOTICE_METADATA_UPDATE)
		return;
	skip_to_client(i, n->op);
	get_client(i, &n->client);
}

int notice_decode(const void *data, size_t len, struct notice *ret)
{
	struct bytes_in i = { .at = data, .end = (const unsigned char *)data + len }, rest;
	struct notice n = { .op = NOTICE_HEADER_UPDATE };
	uint8_t version;

	if (len > 0) {
		version = get_begin(&i, VERSION_KNOWN, &rest);
		n.op = get_u32(&i);
		get_payload(&i, version, &n);
		if (i.is_short)
			return -EBADMSG;
	}
	*ret = n;
	return 0;
}

const char *notice_name(uint32_t op)
{
	static const char *const names[] = {
		[NOTICE_ACQUIRED_LOCK] = "lock acquired",
		[NOTICE_RELEASED_LOCK] = "lock released",
		[NOTICE_REQUEST_LOCK] = "lock request",
		[NOTICE_HEADER_UPDATE] = "header update",
		[NOTICE_ASYNC_PROGRESS] = "progress",
		[NOTICE_ASYNC_COMPLETE] = "completion",
		[NOTICE_FLATTEN] = "flatten",
		[NOTICE_RESIZE] = "resize",
		[NOTICE_SNAP_CREATE] = "snap create",
		[NOTICE_SNAP_REMOVE] = "snap remove",
		[NOTICE_REBUILD_OBJECT_MAP] = "object-map rebuild",
		[NOTICE_SNAP_RENAME] = "snap rename",
		[NOTICE_SNAP_PROTECT] = "snap protect",
		[NOTICE_SNAP_UNPROTECT] = "snap unprotect",
		[NOTICE_RENAME] = "rename",
		[NOTICE_UPDATE_FEATURES] = "feature change",
		[NOTICE_MIGRATE] = "migration",
		[NOTICE_SPARSIFY] = "sparsify",
		[NOTICE_QUIESCE] = "quiesce",
		[NOTICE_UNQUIESCE] = "unquiesce",
		[NOTICE_METADATA_UPDATE] = "metadata change",
	};

	return op < sizeof(names) / sizeof(names[0]) ? names[op] : "operation";
}

/* ---- from us ---- */

size_t notice_encode(enum notice_op op, const struct client_id *us, unsigned char buf[NOTICE_MAX])
{
	struct bytes_out o = { .buf = buf, .cap = NOTICE_MAX };
	size_t start = put_begin(&o, VERSION_OF_LOCKS, 1);

	put_u32(&o, op);
	put_u64(&o, us->gid);
	put_u64(&o, us->handle);
	put_end(&o, start);
	return o.len;
}

size_t notice_encode_result(int result, unsigned char buf[NOTICE_MAX])
{
	struct bytes_out o = { .buf = buf, .cap = NOTICE_MAX };
	size_t start = put_begin(&o, 1, 1);

	put_u32(&o, (uint32_t)result);
	put_end(&o, start);
	return o.len;
}

static int decode_ack(const unsigned char *ack, uint32_t len)
{
	struct bytes_in i = { .at = ack, .end = ack + len }, rest;
	int32_t result;

	(void)get_begin(&i, 1, &rest);
	result = (int32_t)get_u32(&i);
	return i.is_short || result > 0 ? -EBADMSG : result;
}

/*
 * librados has a function for this, but it ends the process when the reply is damaged. Who
 * answered and who did not stands before and behind; only one client may say something.
 */
int notice_decode_result(char *reply, size_t len)
{
	const unsigned char *at = (const unsigned char *)reply;
	struct bytes_in i = { .at = at, .end = at + len };
	uint32_t n = len ? get_u32(&i) : 0;
	bool has_result = false;
	int result = -ETIMEDOUT;

	while (n-- > 0 && !i.is_short) {
		uint32_t ack_len;

		get_skip(&i, 16); /* the client's number and its watch's */
		ack_len = get_u32(&i);
		at = i.at;
		get_skip(&i, ack_len);
		if (i.is_short || ack_len == 0)
			continue;
		if (has_result)
			return -EBADMSG;
		has_result = true;
		result = decode_ack(at, ack_len);
	}
	return i.is_short ? -EBADMSG : result;
}
