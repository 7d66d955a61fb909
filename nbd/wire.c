/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Copyright (C) 2026 the rbdcrypt-nbd authors */

/*
 * The transmission phase of NBD as bytes: one request header in, reply headers
 * out. Called by connection readers and by whoever sends replies, from any
 * thread; it owns nothing and keeps nothing. The handshake is in handshake.c.
 */

#include "wire.h"

#include <assert.h>
#include <errno.h>

#include "be.h"
#include "log.h"

#define REQUEST_MAGIC 0x25609513u
#define SIMPLE_REPLY_MAGIC 0x67446698u
#define STRUCTURED_REPLY_MAGIC 0x668e33efu

#define CHUNK_DONE (1u << 0)

enum chunk_type {
	CHUNK_NONE = 0,
	CHUNK_OFFSET_DATA = 1,
	CHUNK_BLOCK_STATUS = 5,
	CHUNK_ERROR = 0x8001,
};

/* The numbers that may stand in an error field; they look like errno, but are the protocol's. */
enum wire_errno {
	WIRE_EPERM = 1,
	WIRE_EIO = 5,
	WIRE_ENOMEM = 12,
	WIRE_EINVAL = 22,
	WIRE_ENOSPC = 28,
	WIRE_EOVERFLOW = 75,
	WIRE_ENOTSUP = 95,
	WIRE_ESHUTDOWN = 108,
};

int wire_request_decode(const unsigned char buf[WIRE_REQUEST_BYTES], struct wire_request *ret)
{
	if (get_be32(buf) != REQUEST_MAGIC)
		return -EPROTO;
	*ret = (struct wire_request){
		.flags = get_be16(buf + 4),
		.type = get_be16(buf + 6),
		.cookie = get_be64(buf + 8),
		.offset = get_be64(buf + 16),
		.len = get_be32(buf + 24),
	};
	return 0;
}

uint32_t wire_error(int error)
{
	switch (-error) {
	case 0:
		return 0;
	case EPERM:
	case EROFS:
		return WIRE_EPERM;
	case EIO:
		return WIRE_EIO;
	case ENOMEM:
		return WIRE_ENOMEM;
	case EINVAL:
		return WIRE_EINVAL;
	case ENOSPC:
	case EDQUOT:
	case EFBIG:
		return WIRE_ENOSPC;
	case EOVERFLOW:
		return WIRE_EOVERFLOW;
	case ENOTSUP:
		return WIRE_ENOTSUP;
	case ESHUTDOWN:
		return WIRE_ESHUTDOWN;
	default:
		/* The client only learns "IO error"; the operator should be able to learn more. */
		log_debug(NULL, "error %d is sent to the client as EIO", error);
		return WIRE_EIO;
	}
}

size_t wire_simple_reply(unsigned char *buf, uint64_t cookie, int error)
{
	unsigned char *p = buf;

	p = put_be32(p, SIMPLE_REPLY_MAGIC);
	p = put_be32(p, wire_error(error));
	p = put_be64(p, cookie);
	return (size_t)(p - buf);
}

/* Every chunk we send is the last of its reply: a read is complete or an error. */
static unsigned char *put_chunk(unsigned char *p, enum chunk_type type, uint64_t cookie,
				uint32_t payload_bytes)
{
	p = put_be32(p, STRUCTURED_REPLY_MAGIC);
	p = put_be16(p, CHUNK_DONE);
	p = put_be16(p, (uint16_t)type);
	p = put_be64(p, cookie);
	return put_be32(p, payload_bytes);
}

size_t wire_data_chunk(unsigned char *buf, uint64_t cookie, uint64_t offset, uint32_t len)
{
	unsigned char *p;

	assert(len <= WIRE_MAX_PAYLOAD);
	/* A data chunk must not be empty; a read of nothing has succeeded without one. */
	if (len == 0)
		return wire_none_chunk(buf, cookie);
	p = put_chunk(buf, CHUNK_OFFSET_DATA, cookie, 8 + len);
	p = put_be64(p, offset);
	return (size_t)(p - buf);
}

size_t wire_none_chunk(unsigned char *buf, uint64_t cookie)
{
	return (size_t)(put_chunk(buf, CHUNK_NONE, cookie, 0) - buf);
}

size_t wire_error_chunk(unsigned char *buf, uint64_t cookie, int error)
{
	unsigned char *p;

	assert(error < 0);
	p = put_chunk(buf, CHUNK_ERROR, cookie, 6);
	p = put_be32(p, wire_error(error));
	p = put_be16(p, 0); /* length of the message that does not follow */
	return (size_t)(p - buf);
}

size_t wire_status_chunk(unsigned char *buf, uint64_t cookie, uint32_t context_id, uint32_t n)
{
	unsigned char *p;

	assert(n > 0 && n <= WIRE_MAX_DESCRIPTORS);
	p = put_chunk(buf, CHUNK_BLOCK_STATUS, cookie, 4 + 8 * n);
	p = put_be32(p, context_id);
	return (size_t)(p - buf);
}

void wire_status_descriptor(unsigned char buf[8], uint32_t len, uint32_t state)
{
	put_be32(put_be32(buf, len), state);
}
