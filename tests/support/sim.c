/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Copyright (C) 2026 the rbdcrypt-nbd authors */

/*
 * The sim store: requests, their delays and their faults; the bytes are sim_disk.c's.
 *
 * Threads: o.n_threads of our own, which carry requests out in the order of their due times,
 * not of their arrival. The lock guards all fields that say so; done runs without it.
 */

#include "sim_disk.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

struct sim_fault {
	unsigned int countdown; /* 0: none */
	int error;
	bool is_lasting;
};

/* A request that is under way. */
struct sim_request {
	struct sim_request *next;
	struct store_io *io;
	uint64_t due_ns;
	uint64_t mark; /* flush: what it covers */
	int fault; /* 0 or -errno */
};

struct sim {
	struct store base;
	struct sim_disk disk;
	pthread_mutex_t lock;
	pthread_cond_t more;
	struct sim_request *queue; /* lock; by due_ns */
	struct sim_request *running; /* lock */
	bool is_paused, stopping; /* lock */
	struct sim_fault faults[SIM_N_OPS]; /* lock */
	struct sim_counts counts; /* lock */
	uint64_t random; /* lock */
	pthread_t *threads;
	unsigned int n_threads;
};

static struct sim *of(struct store *s)
{
	return (struct sim *)s;
}

static uint64_t now_ns(void)
{
	struct timespec ts;

	(void)clock_gettime(CLOCK_MONOTONIC, &ts);
	return (uint64_t)ts.tv_sec * 1000000000u + (uint64_t)ts.tv_nsec;
}

static bool is_change(int op)
{
	return op == SIM_WRITE || op == SIM_ZERO || op == SIM_DISCARD;
}

/* ---- carrying out ---- */

/* A write that fails may have been half done. */
static int perform_fault(struct sim *sim, const struct store_io *io, int error)
{
	if (io->op == SIM_WRITE && io->len >= 1024)
		(void)disk_write(&sim->disk, io->dev_off, io->buf, io->len / 1024 * 512);
	return error;
}

static int perform(struct sim *sim, struct store_io *io, uint64_t mark)
{
	uint64_t off, len;

	switch ((enum sim_op)io->op) {
	case SIM_READ:
		return disk_read(&sim->disk, io, io->dev_off, io->buf, io->len);
	case SIM_WRITE:
		return disk_write(&sim->disk, io->dev_off, io->buf, io->len);
	case SIM_ZERO:
		return disk_zero(&sim->disk, io->dev_off, io->len);
	case SIM_DISCARD:
		disk_freeable(&sim->disk, io->dev_off, io->len, &off, &len);
		return len > 0 ? disk_zero(&sim->disk, off, len) : 0;
	case SIM_FLUSH:
		disk_flush(&sim->disk, mark);
		return 0;
	case SIM_STATUS:
		return disk_status(&sim->disk, io, io->dev_off, io->len);
	case SIM_N_OPS:
		break;
	}
	return -EINVAL;
}

static void carry_out(struct sim *sim, struct store_io *io, uint64_t mark, int fault)
{
	io->result = fault ? perform_fault(sim, io, fault) : perform(sim, io, mark);
}

/* Under the lock. */
static void count_end(struct sim *sim, const struct store_io *io)
{
	sim->counts.in_flight--;
	if (io->result == 0 && io->op == SIM_READ)
		sim->counts.bytes_read += io->len;
	if (io->result == 0 && io->op == SIM_WRITE)
		sim->counts.bytes_written += io->len;
}

/* Under the lock: waits until a request is due, or NULL when it is time to go. */
static struct sim_request *take_due(struct sim *sim)
{
	for (;;) {
		struct sim_request *q = sim->queue;
		struct timespec until;

		if (!q && sim->stopping)
			return NULL;
		if (!q || sim->is_paused) {
			(void)pthread_cond_wait(&sim->more, &sim->lock);
			continue;
		}
		if (q->due_ns <= now_ns()) {
			sim->queue = q->next;
			q->next = sim->running;
			sim->running = q;
			return q;
		}
		until.tv_sec = (time_t)(q->due_ns / 1000000000u);
		until.tv_nsec = (long)(q->due_ns % 1000000000u);
		(void)pthread_cond_timedwait(&sim->more, &sim->lock, &until);
	}
}

static void remove_running(struct sim *sim, struct sim_request *q)
{
	struct sim_request **p = &sim->running;

	while (*p != q)
		p = &(*p)->next;
	*p = q->next;
}

static void *serve(void *arg)
{
	struct sim *sim = arg;
	struct sim_request *q;

	(void)pthread_mutex_lock(&sim->lock);
	while ((q = take_due(sim))) {
		struct store_io *io = q->io;

		(void)pthread_mutex_unlock(&sim->lock);
		carry_out(sim, io, q->mark, q->fault);
		(void)pthread_mutex_lock(&sim->lock);
		remove_running(sim, q);
		count_end(sim, io);
		(void)pthread_mutex_unlock(&sim->lock);
		free(q);
		io->done(io);
		(void)pthread_mutex_lock(&sim->lock);
	}
	(void)pthread_mutex_unlock(&sim->lock);
	return NULL;
}

/* ---- taking in ---- */

static bool overlaps(const struct sim_request *list, const struct store_io *io)
{
	for (; list; list = list->next)
		if (is_change(list->io->op) && list->io->dev_off < io->dev_off + io->len &&
		    io->dev_off < list->io->dev_off + list->io->len)
			return true;
	return false;
}

/* Under the lock. */
static void count_begin(struct sim *sim, const struct store_io *io)
{
	sim->counts.ops[io->op]++;
	if (is_change(io->op) && (overlaps(sim->queue, io) || overlaps(sim->running, io)))
		sim->counts.overlapping_writes++;
	if (++sim->counts.in_flight > sim->counts.max_in_flight)
		sim->counts.max_in_flight = sim->counts.in_flight;
}

/* Under the lock. */
static int draw_fault(struct sim *sim, int op)
{
	struct sim_fault *f = &sim->faults[op];

	if (f->countdown == 0 || (f->countdown > 1 && f->countdown--))
		return 0;
	if (!f->is_lasting)
		f->countdown = 0;
	sim->counts.failed++;
	return f->error;
}

/* Under the lock. */
static void enqueue(struct sim *sim, struct sim_request *q)
{
	struct sim_request **p = &sim->queue;

	q->due_ns = 0;
	if (sim->disk.o.delay_us)
		q->due_ns = now_ns() +
			    sim_random(&sim->random) % (sim->disk.o.delay_us * 1000ull + 1);
	while (*p && (*p)->due_ns <= q->due_ns)
		p = &(*p)->next;
	q->next = *p;
	*p = q;
	(void)pthread_cond_broadcast(&sim->more);
}

static int submit(struct sim *sim, struct store_io *io, enum sim_op op, uint64_t dev_off, void *buf,
		  uint64_t len)
{
	struct sim_request *q = NULL;
	uint64_t mark = disk_mark(&sim->disk);
	int fault;

	io->store = &sim->base;
	io->op = op;
	io->dev_off = dev_off;
	io->buf = buf;
	io->len = len;
	if (sim->disk.o.is_read_only && is_change(op)) {
		io->result = -EROFS;
		return STORE_DONE;
	}
	if (!sim->disk.o.is_inline) {
		q = calloc(1, sizeof(*q));
		if (!q) {
			io->result = -ENOMEM;
			return STORE_DONE;
		}
	}
	(void)pthread_mutex_lock(&sim->lock);
	count_begin(sim, io);
	fault = draw_fault(sim, op);
	if (q) {
		q->io = io;
		q->mark = mark;
		q->fault = fault;
		enqueue(sim, q);
	}
	(void)pthread_mutex_unlock(&sim->lock);
	if (q)
		return 0;
	carry_out(sim, io, mark, fault);
	(void)pthread_mutex_lock(&sim->lock);
	count_end(sim, io);
	(void)pthread_mutex_unlock(&sim->lock);
	return STORE_DONE;
}

static int op_read(struct store *s, struct store_io *io, uint64_t dev_off, void *buf, size_t len)
{
	return submit(of(s), io, SIM_READ, dev_off, buf, len);
}

static int op_write(struct store *s, struct store_io *io, uint64_t dev_off, const void *buf,
		    size_t len)
{
	return submit(of(s), io, SIM_WRITE, dev_off, (void *)(uintptr_t)buf, len);
}

static int op_zero(struct store *s, struct store_io *io, uint64_t dev_off, uint64_t len,
		   unsigned int flags)
{
	(void)flags;
	return submit(of(s), io, SIM_ZERO, dev_off, NULL, len);
}

static int op_discard(struct store *s, struct store_io *io, uint64_t dev_off, uint64_t len)
{
	return submit(of(s), io, SIM_DISCARD, dev_off, NULL, len);
}

static int op_flush(struct store *s, struct store_io *io)
{
	return submit(of(s), io, SIM_FLUSH, 0, NULL, 0);
}

static int op_status(struct store *s, struct store_io *io, uint64_t dev_off, uint64_t len)
{
	return submit(of(s), io, SIM_STATUS, dev_off, NULL, len);
}

static void op_freeable(struct store *s, uint64_t dev_off, uint64_t len, uint64_t *ret_off,
			uint64_t *ret_len)
{
	disk_freeable(&of(s)->disk, dev_off, len, ret_off, ret_len);
}

static int op_raw_size(struct store *s, uint64_t *ret)
{
	*ret = disk_size(&of(s)->disk);
	return 0;
}

static void op_close(struct store *s)
{
	struct sim *sim = of(s);

	(void)pthread_mutex_lock(&sim->lock);
	sim->stopping = true;
	(void)pthread_cond_broadcast(&sim->more);
	(void)pthread_mutex_unlock(&sim->lock);
	for (unsigned int i = 0; i < sim->n_threads; i++)
		(void)pthread_join(sim->threads[i], NULL);
	free(sim->threads);
	(void)pthread_cond_destroy(&sim->more);
	(void)pthread_mutex_destroy(&sim->lock);
	disk_done(&sim->disk);
	free(sim);
}

static const struct store_ops ops_with_status = {
	.name = "sim",
	.read = op_read,
	.write = op_write,
	.zero = op_zero,
	.discard = op_discard,
	.flush = op_flush,
	.status = op_status,
	.freeable = op_freeable,
	.raw_size = op_raw_size,
	.close = op_close,
};
static const struct store_ops ops_without_status = {
	.name = "sim",
	.read = op_read,
	.write = op_write,
	.zero = op_zero,
	.discard = op_discard,
	.flush = op_flush,
	.freeable = op_freeable,
	.raw_size = op_raw_size,
	.close = op_close,
};

static int start_threads(struct sim *sim)
{
	unsigned int n = sim->disk.o.n_threads ? sim->disk.o.n_threads : 2;
	int r = 0;

	if (sim->disk.o.is_inline)
		return 0;
	sim->threads = calloc(n, sizeof(*sim->threads));
	if (!sim->threads)
		return -ENOMEM;
	while (r == 0 && sim->n_threads < n) {
		r = -pthread_create(&sim->threads[sim->n_threads], NULL, serve, sim);
		if (r == 0)
			sim->n_threads++;
	}
	return r;
}

int sim_new(const struct sim_options *o, struct store **ret)
{
	struct sim *sim = calloc(1, sizeof(*sim));
	pthread_condattr_t attr;
	int r;

	if (!sim)
		return -ENOMEM;
	sim->base.ops = o->has_no_status ? &ops_without_status : &ops_with_status;
	sim->base.data_offset = o->data_offset[0];
	sim->base.is_encrypted = o->is_encrypted;
	sim->base.is_writethrough = o->is_writethrough;
	sim->base.has_atomic_sectors = !o->is_tearing;
	sim->random = o->seed * 2654435761u + 1;
	(void)pthread_mutex_init(&sim->lock, NULL);
	(void)pthread_condattr_init(&attr);
	(void)pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
	(void)pthread_cond_init(&sim->more, &attr);
	(void)pthread_condattr_destroy(&attr);
	r = disk_init(&sim->disk, o);
	if (r == 0)
		r = start_threads(sim);
	if (r < 0) {
		op_close(&sim->base);
		return r;
	}
	sim->base.optimal_io = (uint32_t)sim->disk.o.object_size;
	*ret = &sim->base;
	return 0;
}

/* ---- for tests ---- */

static void set_fault(struct sim *sim, enum sim_op op, struct sim_fault fault)
{
	(void)pthread_mutex_lock(&sim->lock);
	sim->faults[op] = fault;
	(void)pthread_mutex_unlock(&sim->lock);
}

void sim_fail(struct store *s, enum sim_op op, unsigned int nth, int error)
{
	set_fault(of(s), op, (struct sim_fault){ .countdown = nth, .error = error });
}

void sim_fail_from(struct store *s, enum sim_op op, unsigned int nth, int error)
{
	set_fault(of(s), op,
		  (struct sim_fault){ .countdown = nth, .error = error, .is_lasting = true });
}

static void set_paused(struct sim *sim, bool is_paused)
{
	(void)pthread_mutex_lock(&sim->lock);
	sim->is_paused = is_paused;
	(void)pthread_cond_broadcast(&sim->more);
	(void)pthread_mutex_unlock(&sim->lock);
}

void sim_pause(struct store *s)
{
	set_paused(of(s), true);
}

void sim_resume(struct store *s)
{
	set_paused(of(s), false);
}

void sim_poke(struct store *s, unsigned int layer, uint64_t raw_off, const void *buf, size_t len)
{
	disk_poke(&of(s)->disk, layer, raw_off, buf, len);
}

void sim_peek(struct store *s, unsigned int layer, uint64_t raw_off, void *buf, size_t len)
{
	disk_peek(&of(s)->disk, layer, raw_off, buf, len);
}

bool sim_has_object(struct store *s, unsigned int layer, uint64_t raw_off)
{
	return disk_has_object(&of(s)->disk, layer, raw_off);
}

void sim_crash(struct store *s, bool keeps_some)
{
	disk_crash(&of(s)->disk, keeps_some);
}

void sim_resize(struct store *s, uint64_t raw_size)
{
	if (disk_resize(&of(s)->disk, raw_size) == 0)
		store_tell_change(s);
}

void sim_counts(struct store *s, struct sim_counts *ret)
{
	(void)pthread_mutex_lock(&of(s)->lock);
	*ret = of(s)->counts;
	(void)pthread_mutex_unlock(&of(s)->lock);
}
