/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Copyright (C) 2026 the rbdcrypt-nbd authors */

#ifndef TESTS_CHECKER_H
#define TESTS_CHECKER_H

#include "store.h"

#define CHECKER_BLOCK 4096u
#define CHECKER_MAX_DEPTH 64u

/* A store against a model in memory. Ends the program at the first wrong answer. */
struct checker;

/* size: bytes of the device. The store stays the caller's. The model begins with zeros. */
struct checker *checker_new(struct store *store, uint64_t size, unsigned int depth, uint64_t seed);
void checker_free(struct checker *c);
/* The model becomes what the store holds. */
void checker_load(struct checker *c);
/* Random reads, writes, zeros, discards, flushes and status calls. */
void checker_run(struct checker *c, unsigned int ops);
/* From now on another store of the same image, whose bytes must be the model's. */
void checker_compare(struct checker *c, struct store *store);
/* What was done, as one line on stdout. */
void checker_print(const struct checker *c, const char *subject);
/* One zero() or discard() of the device's first len bytes; the model does not follow. */
void checker_clear(struct checker *c, uint64_t len, bool is_zero);
/* Random reads of one block; per second. */
double checker_bench(struct checker *c, unsigned int seconds);

#endif
