/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Copyright (C) 2026 the rbdcrypt-nbd authors */

#ifndef TESTS_RIG_H
#define TESTS_RIG_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include "../../daemon/conn.h"
#include "sim.h"
#include "../../daemon/volume.h"
#include "wire.h"

/*
 * A volume of the real request code over a sim or file store, and peers: the other ends of its
 * connections, which speak NBD byte by byte. Whatever should not fail ends the test when it does.
 */
struct rig_options {
	struct sim_options sim; /* is_encrypted and n_layers follow from the fields below */
	const char *file; /* a file to serve instead of a sim */
	uint32_t sector; /* bytes of a crypto sector; 0: not encrypted */
	unsigned int n_layers; /* 0 is taken as 1; each has a key of its own */
	bool is_read_only, has_no_trim;
	size_t memory; /* bytes; 0: the least that is allowed */
	size_t inline_threshold; /* bytes; 0: 32 KiB, so that workers are used */
};

struct rig {
	struct volume *volume;
	struct store *store; /* the volume's */
	struct xts **xts; /* the volume's; NULL when not encrypted */
	struct pool *pool;
	uint64_t size; /* bytes of the plain device */
};

void rig_start(const struct rig_options *o, struct rig *ret);
/* Every connection has been freed: nothing is in flight, no range is held. */
void rig_check(struct rig *rig);
/* Checks so, and that all memory is back. */
void rig_stop(struct rig *rig);
/* Plain bytes into a layer of a sim, as another client with that layer's key would write them. */
void rig_poke(struct rig *rig, unsigned int layer, uint64_t dev_off, const void *buf, size_t len);

struct peer {
	int fd; /* blocking */
	struct conn *conn;
	int ended; /* eventfd */
};

enum peer_kind {
	PEER_KERNEL,
	PEER_CLIENT,
	PEER_RAW, /* a client that has not even begun its handshake */
};

/* A connection, and its handshake for a client. */
void peer_open(struct rig *rig, enum peer_kind kind, struct peer *ret);
/* Hangs up, and waits until the connection has ended. How it did. */
enum conn_end peer_close(struct peer *p);
/* As above, but the socket stays as it is. Fails the test after timeout_ms. */
enum conn_end peer_wait_end(struct peer *p, int timeout_ms);

/* Another connection on the kernel's socket after CONN_LEFT, as the next process would make it. */
void peer_succeed(struct rig *rig, struct peer *p);

void peer_encode(unsigned char buf[WIRE_REQUEST_BYTES], uint16_t type, uint16_t flags,
		 uint64_t cookie, uint64_t off, uint32_t len);
/* data goes behind a WRITE's header. False when the socket is dead. */
bool peer_send(struct peer *p, uint16_t type, uint16_t flags, uint64_t cookie, uint64_t off,
	       uint32_t len, const void *data);
bool peer_send_bytes(struct peer *p, const void *buf, size_t len);
bool peer_recv_bytes(struct peer *p, void *buf, size_t len);
/* The header of one simple reply. False when the socket is dead. */
bool peer_recv(struct peer *p, uint64_t *ret_cookie, uint32_t *ret_error);
/* One request and its reply: the protocol's error, 0 for none, or UINT32_MAX for a dead socket. */
uint32_t peer_do(struct peer *p, uint16_t type, uint16_t flags, uint64_t off, uint32_t len,
		 void *data);
/* Whether a reply arrives within so many milliseconds. */
bool peer_has_reply(struct peer *p, int timeout_ms);

/* What the protocol calls errors. */
enum peer_error {
	PEER_EPERM = 1,
	PEER_EIO = 5,
	PEER_ENOMEM = 12,
	PEER_EINVAL = 22,
	PEER_ENOSPC = 28,
	PEER_EOVERFLOW = 75,
	PEER_ENOTSUP = 95,
	PEER_ESHUTDOWN = 108,
};

/* Seeded numbers. The seed is RBDCRYPT_TEST_SEED, or the default, and is printed once. */
uint64_t rig_random(uint64_t *state);
uint64_t rig_seed(uint64_t by_default);
/* How long a test that repeats may take: RBDCRYPT_TEST_SECONDS, or the default. */
double rig_seconds(double by_default);
double rig_now(void);
/* Until is_true(arg), at most so long. */
bool rig_wait(bool (*is_true)(void *arg), void *arg, int timeout_ms);

#endif
