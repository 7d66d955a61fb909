/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Copyright (C) 2026 the rbdcrypt-nbd authors */

/*
 * Counters of requests. Counting happens on readers, workers and threads of librbd, so it is a few
 * relaxed additions to a shard of the connection's own. What costs is the clock (25 to 130 ns on
 * the machines that were measured), so most requests only look at the coarse one, which is enough
 * to see those that take far too long; one in STATS_SAMPLE is timed properly, and the percentiles
 * are those of that sample.
 *
 * The page is a file that is mapped shared: readers copy it with read(), never map it, so that they
 * cannot be hurt by what the owner does, and need no answer from it.
 */

#include "stats.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#define MIN_SHIFT 8 /* 256 ns */
#define SUB_BITS 2 /* four buckets for each doubling */
#define SIZE_SHIFT 9 /* 512 bytes */

static uint64_t clock_ns(clockid_t clock)
{
	struct timespec t;

	(void)clock_gettime(clock, &t);
	return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

static void add(atomic_ullong *counter, uint64_t n)
{
	(void)atomic_fetch_add_explicit(counter, n, memory_order_relaxed);
}

static uint64_t get(atomic_ullong *counter)
{
	return atomic_load_explicit(counter, memory_order_relaxed);
}

/* ---- classes ---- */

static unsigned int log2_floor(uint64_t n)
{
	return 63u - (unsigned int)__builtin_clzll(n);
}

unsigned int stats_bucket(uint64_t ns)
{
	uint64_t n = ns >> MIN_SHIFT;
	unsigned int e, b;

	if (n < (1u << SUB_BITS))
		return (unsigned int)n;
	e = log2_floor(n) - SUB_BITS;
	b = ((e + 1) << SUB_BITS) + (unsigned int)((n >> e) & ((1u << SUB_BITS) - 1));
	return b < STATS_BUCKETS ? b : STATS_BUCKETS - 1;
}

uint64_t stats_bucket_end(unsigned int bucket)
{
	unsigned int e = bucket >> SUB_BITS;
	uint64_t sub = bucket & ((1u << SUB_BITS) - 1);

	if (e == 0)
		return (sub + 1) << MIN_SHIFT;
	return (sub + 1 + (1u << SUB_BITS)) << (e - 1 + MIN_SHIFT);
}

unsigned int stats_size_class(uint32_t len)
{
	unsigned int c;

	if (len <= 1u << SIZE_SHIFT)
		return 0;
	c = log2_floor((uint64_t)len - 1) + 1 - SIZE_SHIFT;
	return c < STATS_SIZES ? c : STATS_SIZES - 1;
}

uint64_t stats_class_bytes(unsigned int size_class)
{
	return UINT64_C(1) << (size_class + SIZE_SHIFT);
}

/* ---- counting ---- */

void stats_begin(struct stats_mark *mark, unsigned int *turn)
{
	mark->ns = 0;
	if ((*turn)++ % STATS_SAMPLE == 0) {
		mark->ns = clock_ns(CLOCK_MONOTONIC);
		mark->ms = mark->ns / 1000000;
	} else {
		mark->ms = clock_ns(CLOCK_MONOTONIC_COARSE) / 1000000;
	}
}

static void count_slow(struct stats_page *p, uint64_t ms)
{
	unsigned long long slowest = atomic_load_explicit(&p->slowest_ms, memory_order_relaxed);

	if (ms >= STATS_SLOW_MS)
		add(&p->slow, 1);
	while (ms > slowest &&
	       !atomic_compare_exchange_weak_explicit(&p->slowest_ms, &slowest, ms,
						      memory_order_relaxed, memory_order_relaxed))
		;
}

void stats_end(struct stats_page *p, unsigned int shard, const struct stats_mark *mark,
	       unsigned int op, uint32_t len, bool is_aligned, int error)
{
	struct stats_op *o;
	uint64_t ms;

	/* There is nothing to say about a command that does not exist. */
	if (op >= STATS_OPS)
		return;
	o = &p->shards[shard % STATS_SHARDS].op[op];
	add(&o->sizes[!is_aligned][stats_size_class(len)], 1);
	if (error)
		add(&o->errors, 1);
	else
		add(&o->bytes, len);
	if (mark->ns) {
		uint64_t ns = clock_ns(CLOCK_MONOTONIC);

		add(&o->latency[stats_bucket(ns > mark->ns ? ns - mark->ns : 0)], 1);
		ms = ns / 1000000;
	} else {
		ms = clock_ns(CLOCK_MONOTONIC_COARSE) / 1000000;
	}
	/* The coarse clock lags behind the other. */
	if (ms > mark->ms)
		count_slow(p, ms - mark->ms);
}

/* ---- the memory ---- */

static int map(int fd, struct stats_page **ret)
{
	int flags = fd < 0 ? MAP_PRIVATE | MAP_ANONYMOUS : MAP_SHARED;
	struct stats_page *p = mmap(NULL, sizeof(*p), PROT_READ | PROT_WRITE, flags, fd, 0);

	if (p == MAP_FAILED)
		return -errno;
	p->version = STATS_VERSION;
	p->page_bytes = sizeof(*p);
	p->started_ms = clock_ns(CLOCK_REALTIME) / 1000000;
	/* Last: a reader takes the rest for true from here on. */
	atomic_thread_fence(memory_order_release);
	memcpy(p->magic, STATS_MAGIC, sizeof(p->magic));
	*ret = p;
	return 0;
}

int stats_new(struct stats_page **ret)
{
	return map(-1, ret);
}

int stats_new_file(const char *path, struct stats_page **ret)
{
	int fd, r;

	/* Another file, so that nobody who has the old one open is in our way. */
	if (unlink(path) < 0 && errno != ENOENT)
		return -errno;
	fd = open(path, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC | O_NOFOLLOW, 0644);
	if (fd < 0)
		return -errno;
	r = -posix_fallocate(fd, 0, sizeof(struct stats_page));
	/* Readable for all, whatever the umask: it holds no secret. */
	if (r == 0 && fchmod(fd, 0644) < 0)
		r = -errno;
	if (r == 0)
		r = map(fd, ret);
	if (r < 0)
		(void)unlink(path);
	(void)close(fd);
	return r;
}

struct stats_page *stats_free(struct stats_page *p)
{
	if (p)
		(void)munmap(p, sizeof(*p));
	return NULL;
}

/* ---- reading ---- */

static void sum_op(struct stats_op *from, struct stats_total *to)
{
	to->bytes += get(&from->bytes);
	to->errors += get(&from->errors);
	for (unsigned int a = 0; a < 2; a++) {
		for (unsigned int i = 0; i < STATS_SIZES; i++) {
			uint64_t n = get(&from->sizes[a][i]);

			to->sizes[a][i] += n;
			to->requests += n;
		}
	}
	for (unsigned int i = 0; i < STATS_BUCKETS; i++) {
		uint64_t n = get(&from->latency[i]);

		to->latency[i] += n;
		to->sampled += n;
	}
}

void stats_sum(struct stats_page *p, struct stats_sum *ret)
{
	memset(ret, 0, sizeof(*ret));
	for (unsigned int s = 0; s < STATS_SHARDS; s++)
		for (unsigned int i = 0; i < STATS_OPS; i++)
			sum_op(&p->shards[s].op[i], &ret->op[i]);
	ret->in_flight = atomic_load(&p->in_flight);
	ret->slow = get(&p->slow);
	ret->slowest_ms = get(&p->slowest_ms);
	ret->refused = get(&p->refused);
	ret->started_ms = p->started_ms;
}

static int read_page(int fd, struct stats_page *p)
{
	size_t done = 0;

	while (done < sizeof(*p)) {
		ssize_t n = pread(fd, (char *)p + done, sizeof(*p) - done, (off_t)done);

		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return -errno;
		if (n == 0)
			return -EBADMSG;
		done += (size_t)n;
	}
	if (memcmp(p->magic, STATS_MAGIC, sizeof(p->magic)) != 0 || p->version != STATS_VERSION ||
	    p->page_bytes != sizeof(*p))
		return -EBADMSG;
	return 0;
}

int stats_read_file(const char *path, struct stats_sum *ret)
{
	int fd = open(path, O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK | O_NOCTTY);
	struct stats_page *p;
	int r = fd < 0 ? -errno : stats_new(&p);

	if (r == 0) {
		r = read_page(fd, p);
		if (r == 0)
			stats_sum(p, ret);
		(void)stats_free(p);
	}
	if (fd >= 0)
		(void)close(fd);
	return r;
}

static void subtract(uint64_t *from, const uint64_t *what, size_t n)
{
	for (size_t i = 0; i < n; i++)
		from[i] -= what[i] < from[i] ? what[i] : from[i];
}

void stats_subtract(struct stats_sum *sum, const struct stats_sum *before)
{
	for (unsigned int i = 0; i < STATS_OPS; i++) {
		struct stats_total *t = &sum->op[i];
		const struct stats_total *b = &before->op[i];

		subtract(&t->requests, &b->requests, 1);
		subtract(&t->errors, &b->errors, 1);
		subtract(&t->bytes, &b->bytes, 1);
		subtract(&t->sampled, &b->sampled, 1);
		subtract(t->sizes[0], b->sizes[0], STATS_SIZES);
		subtract(t->sizes[1], b->sizes[1], STATS_SIZES);
		subtract(t->latency, b->latency, STATS_BUCKETS);
	}
	subtract(&sum->slow, &before->slow, 1);
}

uint64_t stats_percentile(const struct stats_total *t, double part)
{
	uint64_t seen = 0;

	if (t->sampled == 0)
		return 0;
	for (unsigned int i = 0; i < STATS_BUCKETS; i++) {
		seen += t->latency[i];
		if ((double)seen >= part * (double)t->sampled)
			return stats_bucket_end(i);
	}
	return stats_bucket_end(STATS_BUCKETS - 1);
}
