/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Copyright (C) 2026 the rbdcrypt-nbd authors */

#ifndef DAEMON_STATS_H
#define DAEMON_STATS_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/*
 * What a volume has done, counted while it does it, in memory that is a file in the run directory:
 * anybody who may read that file sees the numbers of a volume as they are, also when its daemon
 * answers nobody. Counting takes no lock and makes no system call; every counter only grows, but
 * in_flight.
 */

#define STATS_OPS 8 /* by enum wire_command */
#define STATS_SIZES 17 /* up to 512 bytes, 1 KiB, 2 KiB ... 32 MiB */
#define STATS_BUCKETS 116 /* of latencies, see stats_bucket() */
#define STATS_SHARDS 8
#define STATS_SLOW_MS 1000
/* The clock costs more than all counting: one request of so many is timed to the nanosecond. */
#define STATS_SAMPLE 16

struct stats_op {
	atomic_ullong sizes[2][STATS_SIZES]; /* whole encryption sectors; others */
	atomic_ullong bytes, errors; /* bytes: of requests without error */
	atomic_ullong latency[STATS_BUCKETS]; /* of one request in STATS_SAMPLE */
};

/* Connections take turns, so that they seldom meet in a cache line. */
struct stats_shard {
	_Alignas(64) struct stats_op op[STATS_OPS];
};

/* The file, in this machine's byte order. */
struct stats_page {
	char magic[8]; /* STATS_MAGIC */
	uint32_t version, page_bytes;
	uint64_t started_ms; /* since 1970 */
	_Alignas(64) atomic_uint in_flight;
	atomic_uint connections; /* so far */
	atomic_ullong slow; /* requests that took STATS_SLOW_MS or more; of all, not of a sample */
	atomic_ullong slowest_ms;
	atomic_ullong refused; /* clients that are not on the list of those who may connect */
	struct stats_shard shards[STATS_SHARDS];
};
#define STATS_MAGIC "rbdcrypt"
#define STATS_VERSION 1u

/* The time a request came, kept with it. */
struct stats_mark {
	uint64_t ns; /* 0: it is not timed to the nanosecond */
	uint64_t ms;
};

/* ---- counting: any thread ---- */

/* The reader of a connection, when a request has come; turn is the connection's own count. */
void stats_begin(struct stats_mark *mark, unsigned int *turn);
/* op: any number; error: 0 or -errno. is_aligned: nothing outside whole sectors is touched. */
void stats_end(struct stats_page *p, unsigned int shard, const struct stats_mark *mark,
	       unsigned int op, uint32_t len, bool is_aligned, int error);

/* ---- the memory; the volume's thread ---- */

/* In memory of this process only. 0 or -ENOMEM. */
int stats_new(struct stats_page **ret);
/*
 * In the file path, made anew. All its space is taken now: running out of it later would be a
 * signal. 0 or -errno.
 */
int stats_new_file(const char *path, struct stats_page **ret);
/* The file stays. NULL is fine. Returns NULL. */
struct stats_page *stats_free(struct stats_page *p);

/* ---- reading ---- */

/* All shards together. */
struct stats_total {
	uint64_t requests, errors, bytes;
	uint64_t sizes[2][STATS_SIZES];
	uint64_t latency[STATS_BUCKETS], sampled;
};
struct stats_sum {
	struct stats_total op[STATS_OPS];
	unsigned int in_flight;
	uint64_t slow, slowest_ms, refused, started_ms;
};
void stats_sum(struct stats_page *p, struct stats_sum *ret);
/* A copy of the file. -EBADMSG when it is none, or another version's; -errno. */
int stats_read_file(const char *path, struct stats_sum *ret);
/* What was counted since before; in_flight and the like stay. */
void stats_subtract(struct stats_sum *sum, const struct stats_sum *before);

/* The latency in nanoseconds that part (0 to 1) of the sampled requests did not exceed; 0: none. */
uint64_t stats_percentile(const struct stats_total *t, double part);

/* Four buckets for each doubling, from 256 ns on. Pure. */
unsigned int stats_bucket(uint64_t ns);
/* The first latency behind the bucket. */
uint64_t stats_bucket_end(unsigned int bucket);
/* The class of a size, and the largest size of a class. */
unsigned int stats_size_class(uint32_t len);
uint64_t stats_class_bytes(unsigned int size_class);

#endif
