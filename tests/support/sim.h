/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Copyright (C) 2026 the rbdcrypt-nbd authors */

#ifndef TESTS_SIM_H
#define TESTS_SIM_H

#include "store.h"

/*
 * A store in memory, for tests: layers with objects, delays that reorder completions,
 * faults, sectors that tear, and a crash that forgets what was not flushed. The same seed
 * gives the same delays and choices for the same sequence of calls.
 */
#define SIM_MAX_LAYERS 4u

struct sim_options {
	unsigned int n_layers; /* 0 is taken as 1 */
	uint64_t raw_size; /* bytes of every layer */
	uint64_t object_size; /* bytes; 0: 4 MiB */
	uint64_t data_offset[SIM_MAX_LAYERS]; /* bytes */
	/* Bytes of the device that layer i sees of layer i + 1; 0: all. */
	uint64_t overlap[SIM_MAX_LAYERS];
	uint64_t seed;
	/* Everything finishes inside the call, on the caller's thread; no delays. */
	bool is_inline;
	unsigned int n_threads; /* 0 is taken as 2 */
	unsigned int delay_us; /* the longest; each request gets a random part of it */
	/* Reads and writes move 64 bytes at a time and let others in between. */
	bool is_tearing;
	bool is_encrypted;
	bool is_read_only;
	bool is_writethrough;
	bool has_no_status;
};

enum sim_op { SIM_READ, SIM_WRITE, SIM_ZERO, SIM_DISCARD, SIM_FLUSH, SIM_STATUS, SIM_N_OPS };

struct sim_counts {
	unsigned int ops[SIM_N_OPS]; /* asked for */
	unsigned int failed; /* by sim_fail() */
	unsigned int in_flight, max_in_flight;
	/* Writes, zeros and discards that were in flight together with another on their bytes. */
	unsigned int overlapping_writes;
	uint64_t bytes_read, bytes_written;
};

/* 0 or -errno. store_close() frees it. */
int sim_new(const struct sim_options *o, struct store **ret);

/* The nth call of op from now (1: the next) fails with error; a write may be half done. */
void sim_fail(struct store *s, enum sim_op op, unsigned int nth, int error);
/* As above, for all calls from the nth on. sim_fail(s, op, 0, 0) ends it. */
void sim_fail_from(struct store *s, enum sim_op op, unsigned int nth, int error);

/* Nothing completes any more, until sim_resume(). Not for is_inline. */
void sim_pause(struct store *s);
void sim_resume(struct store *s);

/* Raw bytes of one layer, as if written (and flushed) by another client; makes its objects. */
void sim_poke(struct store *s, unsigned int layer, uint64_t raw_off, const void *buf, size_t len);
/* Raw bytes that the layer itself has; zeros where it has no object. */
void sim_peek(struct store *s, unsigned int layer, uint64_t raw_off, void *buf, size_t len);
/* Whether the layer has the object of that raw offset. */
bool sim_has_object(struct store *s, unsigned int layer, uint64_t raw_off);

/*
 * The power fails: each 512 bytes that were written since the last flush stay or are
 * forgotten (keeps_some), or all of them are forgotten. No call may be under way.
 */
void sim_crash(struct store *s, bool keeps_some);

/* Another client resizes layer 0: bytes beyond the end are gone. Calls store.changed. */
void sim_resize(struct store *s, uint64_t raw_size);

void sim_counts(struct store *s, struct sim_counts *ret);

#endif
