/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Copyright (C) 2026 the rbdcrypt-nbd authors */

/*
 * libFuzzer target: what a client sends after its handshake, into a connection on a simulated
 * store. Whatever it is, the replies are framed as the protocol says, the connection ends when the
 * client has hung up, and nothing is in flight then.
 *
 * The first byte chooses the volume. With RECORDS the rest is not the stream itself but a list of
 * requests in short, so that the fuzzer need not find the magic number again and again.
 */

#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

#include "rig.h"

#define MIB (1u << 20)
#define IN_MAX 65536u
#define HANG_MS 15000

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len);

enum choice {
	ENCRYPTED = 1,
	READ_ONLY = 2,
	INLINE = 4,
	WITHOUT_STATUS = 8,
	RECORDS = 16,
	FAULTY = 32,
};

static void put(unsigned char **at, const void *bytes, size_t len)
{
	memcpy(*at, bytes, len);
	*at += len;
}

static void put_option(unsigned char **at, uint32_t option, const void *data, uint32_t len)
{
	unsigned char head[16] = { 'I', 'H', 'A', 'V', 'E', 'O', 'P', 'T' };

	head[11] = (unsigned char)option;
	head[15] = (unsigned char)len;
	put(at, head, sizeof(head));
	put(at, data, len);
}

/* Structured replies and base:allocation, so that every command is announced. */
static void put_handshake(unsigned char **at)
{
	static const unsigned char flags[4] = { 0, 0, 0, 3 };
	static const char query[] = "\0\0\0\0"
				    "\0\0\0\1"
				    "\0\0\0\17"
				    "base:allocation";

	put(at, flags, sizeof(flags));
	put_option(at, 8, "", 0);
	put_option(at, 10, query, sizeof(query) - 1);
	put_option(at, 1, "", 0);
}

/* Nine bytes: type, flags, offset in units of 7 bytes or in sectors, length. */
static void put_records(unsigned char **at, const unsigned char *end, const uint8_t *data,
			size_t len)
{
	for (; len >= 9; data += 9, len -= 9) {
		uint64_t off = data[2] | (uint64_t)data[3] << 8 | (uint64_t)data[4] << 16;
		uint32_t n = data[5] | (uint32_t)data[6] << 8 | (uint32_t)(data[7] & 31) << 16;

		off *= data[8] & 1 ? 7 : 512;
		if (data[8] & 2)
			n = (n & 0xfff) + 1;
		if (data[0] == WIRE_WRITE)
			n &= 0x3fff;
		if (*at + WIRE_REQUEST_BYTES + (data[0] == WIRE_WRITE ? n : 0) > end)
			return;
		peer_encode(*at, data[0], data[1] & 31, off, off, n);
		*at += WIRE_REQUEST_BYTES;
		if (data[0] == WIRE_WRITE) {
			memset(*at, data[8], n);
			*at += n;
		}
	}
}

/* What comes back is followed byte by byte. */
struct follower {
	unsigned char head[20];
	size_t at;
	uint64_t skip;
};

static uint32_t be32(const unsigned char *p)
{
	return (uint32_t)p[0] << 24 | (uint32_t)p[1] << 16 | (uint32_t)p[2] << 8 | p[3];
}

static void follow(struct follower *f, const unsigned char *buf, size_t len)
{
	while (len > 0) {
		size_t n = f->skip < len ? (size_t)f->skip : len;

		if (n > 0) {
			f->skip -= n;
			buf += n;
			len -= n;
			continue;
		}
		f->head[f->at++] = *buf++;
		len--;
		if (f->at == 16 && be32(f->head) == 0x67446698) {
			f->at = 0;
		} else if (f->at == 20) {
			if (be32(f->head) != 0x668e33ef || be32(f->head + 16) > 8 + 2 * MIB)
				abort();
			f->skip = be32(f->head + 16);
			f->at = 0;
		}
	}
}

/* Reads until the server hangs up. The replies to the handshake have a known length. */
static void drain(struct peer *p, bool has_status)
{
	static unsigned char buf[MIB];
	struct follower f = { .skip = 18 + 20 + (has_status ? 20 + 4 + 15 : 0) + 20 + 10 };
	struct pollfd poll_fd = { .fd = p->fd, .events = POLLIN };

	for (;;) {
		int ready = poll(&poll_fd, 1, HANG_MS);
		ssize_t n;

		/* libFuzzer looks at its clock with a signal. */
		if (ready < 0)
			continue;
		if (ready == 0)
			abort();
		n = recv(p->fd, buf, sizeof(buf), MSG_DONTWAIT);
		if (n == 0)
			break;
		if (n < 0)
			continue;
		follow(&f, buf, (size_t)n);
	}
	/* A reply is sent whole, or the connection was cut. */
	if (f.at > 0 || f.skip > 0)
		abort();
}

/*
 * Volumes are kept from one input to the next, because making one takes longer than using it. What
 * they hold makes no difference to where a request goes.
 */
static struct rig *rig_for(uint8_t choice)
{
	static struct rig *rigs[16];
	struct rig_options o = { .sector = choice & ENCRYPTED ? 4096 : 0,
				 .is_read_only = choice & READ_ONLY,
				 .sim = { .raw_size = 2 * MIB,
					  .data_offset = { 65536 },
					  .object_size = 65536,
					  .is_inline = choice & INLINE,
					  .has_no_status = choice & WITHOUT_STATUS } };
	struct rig **rig = &rigs[choice % 16];

	if (!*rig) {
		*rig = calloc(1, sizeof(**rig));
		if (!*rig)
			abort();
		rig_start(&o, *rig);
	}
	return *rig;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len)
{
	static unsigned char in[IN_MAX];
	unsigned char *at = in;
	struct rig *rig;
	struct peer p;

	if (len < 1 || len > IN_MAX / 2)
		return 0;
	put_handshake(&at);
	if (data[0] & RECORDS)
		put_records(&at, in + sizeof(in), data + 1, len - 1);
	else
		put(&at, data + 1, len - 1);
	rig = rig_for(data[0]);
	for (enum sim_op op = SIM_READ; op < SIM_N_OPS; op++)
		sim_fail_from(rig->store, op, data[0] & FAULTY ? 1 + len % 4 : 0, -5);
	peer_open(rig, PEER_RAW, &p);
	if (!peer_send_bytes(&p, in, (size_t)(at - in)))
		abort();
	(void)shutdown(p.fd, SHUT_WR);
	drain(&p, !(data[0] & WITHOUT_STATUS));
	(void)peer_close(&p);
	rig_check(rig);
	/* The store remembers every write until a flush. */
	sim_crash(rig->store, true);
	return 0;
}
