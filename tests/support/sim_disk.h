/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Copyright (C) 2026 the rbdcrypt-nbd authors */

#ifndef TESTS_SIM_DISK_H
#define TESTS_SIM_DISK_H

#include <pthread.h>

#include "sim.h"

/* Layer 0's bytes that were written since the last flush. */
struct sim_record {
	struct sim_record *next;
	uint64_t off, len; /* raw */
	uint64_t number;
	unsigned char bytes[];
};

struct sim_layer {
	unsigned char *bytes; /* raw_size, 8-byte aligned */
	unsigned char *has_object; /* one per object */
};

/* The bytes of a simulated chain. Any thread. */
struct sim_disk {
	struct sim_options o;
	struct sim_layer layers[SIM_MAX_LAYERS];
	struct sim_layer durable; /* layer 0 after a crash */
	uint64_t room; /* bytes allocated per layer */
	pthread_mutex_t lock; /* all below, objects, and bytes unless tearing */
	uint64_t raw_size; /* of layer 0 */
	struct sim_record *records, **tail; /* oldest first */
	uint64_t last_number;
	uint64_t random;
	unsigned int n_moves; /* atomic */
};

int disk_init(struct sim_disk *d, const struct sim_options *o);
void disk_done(struct sim_disk *d);
/* Adds the pieces to io. 0 or -errno. */
int disk_read(struct sim_disk *d, struct store_io *io, uint64_t dev_off, void *buf, uint64_t len);
int disk_write(struct sim_disk *d, uint64_t dev_off, const void *buf, uint64_t len);
int disk_zero(struct sim_disk *d, uint64_t dev_off, uint64_t len);
int disk_status(struct sim_disk *d, struct store_io *io, uint64_t dev_off, uint64_t len);
/* The mark of now; later disk_flush(d, mark) makes durable what was written before it. */
uint64_t disk_mark(struct sim_disk *d);
void disk_flush(struct sim_disk *d, uint64_t mark);
void disk_crash(struct sim_disk *d, bool keeps_some);
void disk_freeable(struct sim_disk *d, uint64_t dev_off, uint64_t len, uint64_t *ret_off,
		   uint64_t *ret_len);

/* See sim.h. */
void disk_poke(struct sim_disk *d, unsigned int layer, uint64_t raw_off, const void *buf,
	       uint64_t len);
void disk_peek(struct sim_disk *d, unsigned int layer, uint64_t raw_off, void *buf, uint64_t len);
bool disk_has_object(struct sim_disk *d, unsigned int layer, uint64_t raw_off);
int disk_resize(struct sim_disk *d, uint64_t raw_size);
uint64_t disk_size(struct sim_disk *d);

uint64_t sim_random(uint64_t *state);

#endif
