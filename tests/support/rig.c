/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Copyright (C) 2026 the rbdcrypt-nbd authors */

/*
 * A volume under test and its peers. Called from a test's threads; a peer belongs to one thread
 * for sending and one for receiving. assert() here judges the test's own surroundings.
 */

#include "rig.h"

#undef NDEBUG
#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include "image.h"

#define THRESHOLD (32u << 10)
#define WORKERS 2
#define END_MS 30000

uint64_t rig_random(uint64_t *state)
{
	uint64_t x = *state += 0x9e3779b97f4a7c15;

	x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9;
	x = (x ^ (x >> 27)) * 0x94d049bb133111eb;
	return x ^ (x >> 31);
}

uint64_t rig_seed(uint64_t by_default)
{
	const char *text = getenv("RBDCRYPT_TEST_SEED");
	uint64_t seed = text ? strtoull(text, NULL, 0) : by_default;

	printf("# seed %llu\n", (unsigned long long)seed);
	return seed;
}

double rig_seconds(double by_default)
{
	const char *text = getenv("RBDCRYPT_TEST_SECONDS");

	return text ? strtod(text, NULL) : by_default;
}

double rig_now(void)
{
	struct timespec t;

	(void)clock_gettime(CLOCK_MONOTONIC, &t);
	return (double)t.tv_sec + (double)t.tv_nsec / 1e9;
}

bool rig_wait(bool (*is_true)(void *arg), void *arg, int timeout_ms)
{
	double end = rig_now() + timeout_ms / 1e3;
	struct timespec step = { .tv_nsec = 500000 };

	while (!is_true(arg)) {
		if (rig_now() > end)
			return false;
		(void)nanosleep(&step, NULL);
	}
	return true;
}

/* ---- the volume ---- */

static struct store *open_file_store(const struct rig_options *o)
{
	struct image_spec spec = IMAGE_SPEC_INIT;
	struct store_options so = { .is_read_only = o->is_read_only,
				    .is_encrypted = o->sector > 0 };
	struct fault f = { 0 };
	struct layer *layer;
	struct store *s;
	char text[4200];

	(void)snprintf(text, sizeof(text), "file:%s", o->file);
	assert(image_spec_parse(text, &spec, &f) == 0);
	assert(layer_open(NULL, &spec, 0, NULL, &layer, &f) == 0);
	assert(store_open_file(layer, &so, &s, &f) == 0);
	layer_close(layer);
	image_spec_done(&spec);
	return s;
}

static struct store *open_sim(const struct rig_options *o)
{
	struct sim_options so = o->sim;
	struct store *s;

	so.is_encrypted = o->sector > 0;
	so.is_read_only = o->is_read_only;
	so.n_layers = o->n_layers;
	assert(sim_new(&so, &s) == 0);
	return s;
}

static struct xts **make_keys(const struct rig_options *o, unsigned int n)
{
	struct xts **xts = calloc(n, sizeof(struct xts *));

	assert(xts);
	for (unsigned int i = 0; i < n; i++) {
		struct secret *key;
		unsigned char *bytes;

		assert(secret_new(64, &key) == 0);
		bytes = secret_data(key);
		for (unsigned int j = 0; j < 64; j++)
			bytes[j] = (unsigned char)(j * 7 + i + 1);
		assert(xts_new_take(XTS_AUTO, &key, o->sector, &xts[i]) == 0);
	}
	return xts;
}

void rig_start(const struct rig_options *o, struct rig *ret)
{
	unsigned int n = o->n_layers ? o->n_layers : 1;
	struct volume_options vo = { .spec = "test",
				     .is_read_only = o->is_read_only,
				     .has_trim = !o->has_no_trim,
				     .block_size = 512,
				     .inline_threshold = o->inline_threshold ? o->inline_threshold
									     : THRESHOLD,
				     .share_limit = UINT_MAX,
				     .memory = o->memory ? o->memory : BUFFERS_LARGEST };
	struct store *s = o->file ? open_file_store(o) : open_sim(o);
	struct xts **xts = o->sector ? make_keys(o, n) : NULL;

	memset(ret, 0, sizeof(*ret));
	ret->store = s;
	ret->xts = xts;
	assert(pool_new(WORKERS, &ret->pool) == 0);
	assert(s->ops->raw_size(s, &vo.raw_size) == 0);
	assert(volume_new_take(&vo, ret->pool, &s, &xts, n, &ret->volume) == 0);
	ret->size = atomic_load(&ret->volume->size);
}

static void never(struct buffers_waiter *w)
{
	(void)w;
	abort();
}

/* The limit is one largest buffer, unless the test says more: it fits only when all came back. */
static void check_memory(struct buffers *b)
{
	struct buffers_waiter w = { .wake = never };
	void *all = buffers_get(b, BUFFERS_LARGEST, &w);

	assert(all);
	buffers_put(b, all, BUFFERS_LARGEST);
}

void rig_check(struct rig *rig)
{
	assert(atomic_load(&rig->volume->stats->in_flight) == 0);
	assert(!rig->volume->ranges.first && rig->volume->ranges.waiting == 0);
}

void rig_stop(struct rig *rig)
{
	rig_check(rig);
	check_memory(rig->volume->buffers);
	rig->volume = volume_free(rig->volume);
	rig->pool = pool_free(rig->pool);
}

void rig_poke(struct rig *rig, unsigned int layer, uint64_t dev_off, const void *buf, size_t len)
{
	unsigned char *bytes = malloc(len);

	assert(bytes);
	memcpy(bytes, buf, len);
	if (rig->xts)
		assert(xts_encrypt(rig->xts[layer], bytes, len, dev_off) == 0);
	/* All layers of a rig have the data offset of the first. */
	sim_poke(rig->store, layer, rig->store->data_offset + dev_off, bytes, len);
	free(bytes);
}

/* ---- peers ---- */

static void on_ended(void *arg)
{
	struct peer *p = arg;
	uint64_t one = 1;

	assert(write(p->ended, &one, sizeof(one)) == sizeof(one));
}

static int find_export(void *arg, const char *name, struct wire_export *ret)
{
	const struct volume *v = arg;

	(void)name;
	memset(ret, 0, sizeof(*ret));
	ret->name = "";
	ret->size = atomic_load(&v->size);
	ret->flags = volume_flags(v);
	ret->min_block = 1;
	ret->preferred_block = 4096;
	ret->max_block = WIRE_MAX_PAYLOAD;
	ret->has_status = v->store->ops->status != NULL;
	return 0;
}

bool peer_send_bytes(struct peer *p, const void *buf, size_t len)
{
	const unsigned char *at = buf;

	while (len > 0) {
		ssize_t n = send(p->fd, at, len, MSG_NOSIGNAL);

		if (n < 0 && errno == EINTR)
			continue;
		if (n <= 0)
			return false;
		at += n;
		len -= (size_t)n;
	}
	return true;
}

bool peer_recv_bytes(struct peer *p, void *buf, size_t len)
{
	unsigned char *at = buf;

	while (len > 0) {
		ssize_t n = recv(p->fd, at, len, 0);

		if (n < 0 && errno == EINTR)
			continue;
		if (n <= 0)
			return false;
		at += n;
		len -= (size_t)n;
	}
	return true;
}

/* Fixed newstyle without zeroes, EXPORT_NAME of the default export. */
static void shake_hands(struct peer *p)
{
	static const unsigned char flags[4] = { 0, 0, 0, 3 };
	static const unsigned char option[16] = { 'I', 'H', 'A', 'V', 'E', 'O', 'P', 'T',
						  0,   0,   0,	 1,   0,   0,	0,   0 };
	unsigned char buf[18];

	assert(peer_recv_bytes(p, buf, 18));
	assert(memcmp(buf, "NBDMAGICIHAVEOPT", 16) == 0);
	assert(peer_send_bytes(p, flags, sizeof(flags)));
	assert(peer_send_bytes(p, option, sizeof(option)));
	assert(peer_recv_bytes(p, buf, 10));
}

void peer_open(struct rig *rig, enum peer_kind kind, struct peer *ret)
{
	int pair[2];
	struct conn_options o = { .volume = rig->volume,
				  .is_kernel = kind == PEER_KERNEL,
				  .find = find_export,
				  .export_arg = rig->volume,
				  .ended = on_ended,
				  .ended_arg = ret };

	assert(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair) == 0);
	ret->fd = pair[1];
	ret->ended = eventfd(0, EFD_CLOEXEC);
	assert(ret->ended >= 0);
	o.rfd = o.wfd = pair[0];
	assert(conn_new(&o, &ret->conn) == 0);
	if (kind == PEER_CLIENT)
		shake_hands(ret);
}

void peer_succeed(struct rig *rig, struct peer *p)
{
	struct conn_options o = {
		.volume = rig->volume, .is_kernel = true, .ended = on_ended, .ended_arg = p
	};
	struct pollfd f = { .fd = p->ended, .events = POLLIN };
	uint64_t count;

	assert(poll(&f, 1, END_MS) == 1 && read(p->ended, &count, sizeof(count)) == sizeof(count));
	assert(conn_ended(p->conn) == CONN_LEFT);
	o.rfd = o.wfd = fcntl(conn_fd(p->conn), F_DUPFD_CLOEXEC, 0);
	assert(o.rfd >= 0);
	p->conn = conn_free(p->conn);
	assert(conn_new(&o, &p->conn) == 0);
}

enum conn_end peer_wait_end(struct peer *p, int timeout_ms)
{
	struct pollfd f = { .fd = p->ended, .events = POLLIN };
	enum conn_end end;
	int n;

	do
		n = poll(&f, 1, timeout_ms);
	while (n < 0);
	assert(n == 1);
	end = conn_ended(p->conn);
	assert(end != CONN_RUNNING);
	p->conn = conn_free(p->conn);
	(void)close(p->ended);
	if (p->fd >= 0)
		(void)close(p->fd);
	p->fd = p->ended = -1;
	return end;
}

enum conn_end peer_close(struct peer *p)
{
	if (p->fd >= 0)
		(void)close(p->fd);
	p->fd = -1;
	return peer_wait_end(p, END_MS);
}

static unsigned char *put(unsigned char *at, uint64_t value, unsigned int bytes)
{
	for (unsigned int i = 0; i < bytes; i++)
		at[i] = (unsigned char)(value >> 8 * (bytes - 1 - i));
	return at + bytes;
}

static uint64_t get(const unsigned char *at, unsigned int bytes)
{
	uint64_t value = 0;

	for (unsigned int i = 0; i < bytes; i++)
		value = value << 8 | at[i];
	return value;
}

void peer_encode(unsigned char buf[WIRE_REQUEST_BYTES], uint16_t type, uint16_t flags,
		 uint64_t cookie, uint64_t off, uint32_t len)
{
	unsigned char *at = put(buf, 0x25609513, 4);

	at = put(at, flags, 2);
	at = put(at, type, 2);
	at = put(at, cookie, 8);
	at = put(at, off, 8);
	(void)put(at, len, 4);
}

bool peer_send(struct peer *p, uint16_t type, uint16_t flags, uint64_t cookie, uint64_t off,
	       uint32_t len, const void *data)
{
	unsigned char head[WIRE_REQUEST_BYTES];

	peer_encode(head, type, flags, cookie, off, len);
	return peer_send_bytes(p, head, sizeof(head)) &&
	       (type != WIRE_WRITE || peer_send_bytes(p, data, len));
}

bool peer_recv(struct peer *p, uint64_t *ret_cookie, uint32_t *ret_error)
{
	unsigned char head[16];

	if (!peer_recv_bytes(p, head, sizeof(head)))
		return false;
	assert(get(head, 4) == 0x67446698);
	*ret_error = (uint32_t)get(head + 4, 4);
	*ret_cookie = get(head + 8, 8);
	return true;
}

uint32_t peer_do(struct peer *p, uint16_t type, uint16_t flags, uint64_t off, uint32_t len,
		 void *data)
{
	static _Atomic uint64_t next_cookie;
	uint64_t cookie = atomic_fetch_add(&next_cookie, 1), answered;
	uint32_t error;

	if (!peer_send(p, type, flags, cookie, off, len, data) || !peer_recv(p, &answered, &error))
		return UINT32_MAX;
	assert(answered == cookie);
	if (type == WIRE_READ && error == 0 && !peer_recv_bytes(p, data, len))
		return UINT32_MAX;
	return error;
}

bool peer_has_reply(struct peer *p, int timeout_ms)
{
	struct pollfd f = { .fd = p->fd, .events = POLLIN };

	return poll(&f, 1, timeout_ms) > 0;
}
