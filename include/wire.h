/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Copyright (C) 2026 the rbdcrypt-nbd authors */

#ifndef RBDCRYPT_WIRE_H
#define RBDCRYPT_WIRE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/*
 * The NBD protocol: numbers, encodings, and the server's side of the handshake.
 * Source: doc/proto.md of the NBD reference implementation. No thread, no
 * socket ownership, no policy.
 */

/* Transmission flags. */
#define WIRE_FLAG_HAS_FLAGS (1u << 0)
#define WIRE_FLAG_READ_ONLY (1u << 1)
#define WIRE_FLAG_SEND_FLUSH (1u << 2)
#define WIRE_FLAG_SEND_FUA (1u << 3)
#define WIRE_FLAG_SEND_TRIM (1u << 5)
#define WIRE_FLAG_SEND_WRITE_ZEROES (1u << 6)
#define WIRE_FLAG_SEND_DF (1u << 7)
#define WIRE_FLAG_CAN_MULTI_CONN (1u << 8)
#define WIRE_FLAG_SEND_FAST_ZERO (1u << 11)

enum wire_command {
	WIRE_READ = 0,
	WIRE_WRITE = 1,
	WIRE_DISC = 2,
	WIRE_FLUSH = 3,
	WIRE_TRIM = 4,
	WIRE_CACHE = 5,
	WIRE_WRITE_ZEROES = 6,
	WIRE_BLOCK_STATUS = 7,
};

/* Command flags. */
#define WIRE_CMD_FUA (1u << 0)
#define WIRE_CMD_NO_HOLE (1u << 1)
#define WIRE_CMD_DF (1u << 2)
#define WIRE_CMD_REQ_ONE (1u << 3)
#define WIRE_CMD_FAST_ZERO (1u << 4)

#define WIRE_REQUEST_BYTES 28
#define WIRE_MAX_PAYLOAD (32u << 20) /* bytes per READ or WRITE */

struct wire_request {
	uint16_t flags;
	uint16_t type; /* enum wire_command, or a number we do not know */
	uint64_t cookie; /* opaque: sent back as it came */
	uint64_t offset;
	uint32_t len;
};

/* 0, or -EPROTO when the magic is wrong (the stream cannot be followed any more). */
int wire_request_decode(const unsigned char buf[WIRE_REQUEST_BYTES], struct wire_request *ret);

/* Our -errno to the code that goes out; the only place that knows both. */
uint32_t wire_error(int error);

/* Header of the reply, into buf; returns its length. The largest is WIRE_REPLY_MAX. */
#define WIRE_REPLY_MAX 64
size_t wire_simple_reply(unsigned char *buf, uint64_t cookie, int error);
/* One OFFSET_DATA chunk that ends the reply; len bytes follow it. len 0: a NONE chunk. */
size_t wire_data_chunk(unsigned char *buf, uint64_t cookie, uint64_t offset, uint32_t len);
/* One NONE chunk that ends the reply. */
size_t wire_none_chunk(unsigned char *buf, uint64_t cookie);
/* One ERROR chunk that ends the reply (no message). error is negative. */
size_t wire_error_chunk(unsigned char *buf, uint64_t cookie, int error);
/*
 * One BLOCK_STATUS chunk for n descriptors, ending the reply: the header into buf, and each
 * descriptor by wire_status_descriptor() after it (8 bytes each).
 */
size_t wire_status_chunk(unsigned char *buf, uint64_t cookie, uint32_t context_id, uint32_t n);
#define WIRE_MAX_DESCRIPTORS (1u << 20) /* n is 1..this */
#define WIRE_STATE_HOLE 1u
#define WIRE_STATE_ZERO 2u
void wire_status_descriptor(unsigned char buf[8], uint32_t len, uint32_t state);

/* ---- handshake, server side, fixed newstyle ---- */

struct wire_export {
	const char *name; /* the export's name; "" is also accepted by clients as the default */
	const char *description; /* or NULL */
	uint64_t size; /* bytes */
	uint16_t flags; /* transmission flags, without DF (the handshake adds it) */
	/*
	 * Bytes. min_block above 1 is a demand: clients that do not ask for block sizes are
	 * refused, as the protocol allows. Serve 1 where any alignment works.
	 */
	uint32_t min_block, preferred_block, max_block;
	bool has_status; /* base:allocation is offered */
};

struct wire_session {
	bool has_structured; /* structured replies negotiated */
	bool has_status; /* base:allocation negotiated */
	uint32_t status_context; /* its id */
	uint16_t flags; /* transmission flags as sent */
	uint64_t size; /* as told to this client */
};

/*
 * Asked when the client names an export. Returns 0 and fills ret (pointers stay valid until the
 * handshake ends), or -ENOENT. name is NUL-terminated, at most 4096 bytes.
 */
typedef int (*wire_find_export_fn)(void *arg, const char *name, struct wire_export *ret);
/* Calls back once per export for LIST. */
typedef int (*wire_list_exports_fn)(void *arg, unsigned int i, struct wire_export *ret);

/*
 * Blocking, on the connection's reader thread; rfd and wfd may be the same socket, or pipes (then
 * SIGPIPE must be ignored). Takes not one byte beyond the handshake. list may be NULL. stop_fd
 * becomes readable when the server stops, or is -1. Memory and the number of options are bounded.
 *   0            transmission may begin
 *   -ECONNRESET  the client left or aborted properly
 *   -ENOENT      it chose an unknown export by EXPORT_NAME, which has no error reply
 *   -EPROTO      it broke the protocol, or asked for too much
 *   -ETIMEDOUT   the greeting or one option was not complete after timeout_ms (negative: no limit)
 *   -ECANCELED   stop_fd
 *   -errno       the socket failed, or no memory
 */
int wire_handshake(int rfd, int wfd, int stop_fd, int timeout_ms, wire_find_export_fn find,
		   wire_list_exports_fn list, void *arg, struct wire_session *ret);

#endif
