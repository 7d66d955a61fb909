/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Copyright (C) 2026 the rbdcrypt-nbd authors */

/*
 * Writes to a device and knows what must be found there afterwards.
 *
 *   stamp run DEVICE TABLE UNIT UNITS THREADS    until SIGTERM or the first error
 *   stamp check DEVICE TABLE [exact]             what is there against what the table says
 *
 * The device is units, each filled with a stamp: a number that only grows, and bytes made of that
 * number and of the unit's place. Each thread has units of its own, so it knows at any moment which
 * number it must read back; a copy of a write that lands late, a torn unit, a unit in the wrong
 * place or a lost write cannot look right. The table, a file, outlives the process: per unit the
 * last number that was sent, answered, and answered before an answered flush. The last is what must
 * survive anything; "exact" is for when nothing was interrupted.
 *
 * run wipes first, says "running", and ends with 0 after SIGTERM, 2 after an error of the device, 1
 * when it read something wrong. It prints how many operations there were and the longest wait for
 * one, in milliseconds.
 */

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

#define THREADS_MAX 64
#define RUN_MAX 16 /* units in one write */
#define BAD_MAX 10 /* told of */

struct entry {
	uint64_t sent, answered, flushed;
};

struct table {
	uint64_t unit, n_units;
	_Atomic uint64_t last;
	struct entry entry[];
};

struct work {
	pthread_t thread;
	int fd;
	struct table *t;
	uint64_t first, n; /* its units */
	unsigned char *buf;
	uint64_t random;
	const atomic_bool *is_over;
	atomic_int *status;
	unsigned long n_ops;
	long longest_ms;
};

/* ---- stamps ---- */

static uint64_t mix(uint64_t x)
{
	x ^= x >> 30;
	x *= UINT64_C(0xbf58476d1ce4e5b9);
	x ^= x >> 27;
	x *= UINT64_C(0x94d049bb133111eb);
	return x ^ x >> 31;
}

static void make_stamp(unsigned char *to, uint64_t unit, uint64_t place, uint64_t number)
{
	uint64_t word = number;

	for (uint64_t i = 0; i < unit; i += sizeof(word)) {
		memcpy(to + i, &word, sizeof(word));
		word = mix(number * 1000003 + place * 4099 + i + 1);
	}
}

/* The number of the stamp, 0 for a unit of zeros, UINT64_MAX for anything else. */
static uint64_t read_stamp(const unsigned char *from, uint64_t unit, uint64_t place,
			   unsigned char *scratch)
{
	uint64_t number;

	memcpy(&number, from, sizeof(number));
	if (number == 0) {
		memset(scratch, 0, unit);
		return memcmp(from, scratch, unit) == 0 ? 0 : UINT64_MAX;
	}
	make_stamp(scratch, unit, place, number);
	return memcmp(from, scratch, unit) == 0 ? number : UINT64_MAX;
}

/* ---- run ---- */

static uint64_t next_random(struct work *w)
{
	w->random += UINT64_C(0x9e3779b97f4a7c15);
	return mix(w->random);
}

static long now_ms(void)
{
	struct timespec ts;

	(void)clock_gettime(CLOCK_MONOTONIC, &ts);
	return ts.tv_sec * 1000 + ts.tv_nsec / 1000000;
}

static int give_up(struct work *w, int status, const char *what, uint64_t place)
{
	int expected = 0;

	if (atomic_compare_exchange_strong(w->status, &expected, status))
		(void)printf("%s unit %llu: %s\n", what, (unsigned long long)place,
			     status == 2 ? strerror(errno) : "wrong");
	return -1;
}

static int do_write(struct work *w, uint64_t place, uint64_t n)
{
	uint64_t unit = w->t->unit, number = atomic_fetch_add(&w->t->last, 1) + 1;

	for (uint64_t i = 0; i < n; i++) {
		make_stamp(w->buf + i * unit, unit, place + i, number);
		w->t->entry[place + i].sent = number;
	}
	if (pwrite(w->fd, w->buf, n * unit, (off_t)(place * unit)) != (ssize_t)(n * unit))
		return give_up(w, 2, "write", place);
	for (uint64_t i = 0; i < n; i++)
		w->t->entry[place + i].answered = number;
	return 0;
}

static int do_read(struct work *w, uint64_t place, uint64_t n)
{
	uint64_t unit = w->t->unit;

	if (pread(w->fd, w->buf, n * unit, (off_t)(place * unit)) != (ssize_t)(n * unit))
		return give_up(w, 2, "read", place);
	for (uint64_t i = 0; i < n; i++) {
		uint64_t number = read_stamp(w->buf + i * unit, unit, place + i,
					     w->buf + RUN_MAX * unit);

		if (number == w->t->entry[place + i].answered)
			continue;
		(void)printf("read number %lld, answered was %llu\n", (long long)number,
			     (unsigned long long)w->t->entry[place + i].answered);
		return give_up(w, 1, "read", place + i);
	}
	return 0;
}

static int do_flush(struct work *w)
{
	if (fdatasync(w->fd) < 0)
		return give_up(w, 2, "flush", w->first);
	for (uint64_t i = 0; i < w->n; i++)
		w->t->entry[w->first + i].flushed = w->t->entry[w->first + i].answered;
	return 0;
}

static void *work_main(void *arg)
{
	struct work *w = arg;
	int r = 0;

	while (r == 0 && !atomic_load(w->is_over) && atomic_load(w->status) == 0) {
		uint64_t place = w->first + next_random(w) % w->n;
		uint64_t n = 1 + next_random(w) % RUN_MAX, what = next_random(w) % 16;
		long since = now_ms(), took;

		if (n > w->first + w->n - place)
			n = w->first + w->n - place;
		if (what < 10)
			r = do_write(w, place, n);
		else if (what < 15)
			r = do_read(w, place, n);
		else
			r = do_flush(w);
		took = now_ms() - since;
		if (took > w->longest_ms)
			w->longest_ms = took;
		w->n_ops++;
	}
	return NULL;
}

static int run(int fd, struct table *t, unsigned int n_threads)
{
	static atomic_bool is_over;
	static atomic_int status;
	static struct work works[THREADS_MAX];
	unsigned long n_ops = 0;
	long longest_ms = 0;
	sigset_t term;
	int signal;

	(void)sigemptyset(&term);
	(void)sigaddset(&term, SIGTERM);
	(void)sigaddset(&term, SIGALRM);
	(void)pthread_sigmask(SIG_BLOCK, &term, NULL);
	for (unsigned int i = 0; i < n_threads; i++) {
		struct work *w = &works[i];

		w->fd = fd;
		w->t = t;
		w->first = t->n_units * i / n_threads;
		w->n = t->n_units * (i + 1) / n_threads - w->first;
		w->random = (uint64_t)now_ms() * 64 + i;
		w->is_over = &is_over;
		w->status = &status;
		if (posix_memalign((void **)&w->buf, 4096, (RUN_MAX + 1) * t->unit) != 0 ||
		    pthread_create(&w->thread, NULL, work_main, w) != 0)
			return 3;
	}
	do {
		(void)alarm(1);
		(void)sigwait(&term, &signal);
	} while (signal != SIGTERM && atomic_load(&status) == 0);
	atomic_store(&is_over, true);
	for (unsigned int i = 0; i < n_threads; i++) {
		(void)pthread_join(works[i].thread, NULL);
		n_ops += works[i].n_ops;
		if (works[i].longest_ms > longest_ms)
			longest_ms = works[i].longest_ms;
	}
	(void)printf("%lu operations, longest wait %ld ms\n", n_ops, longest_ms);
	return atomic_load(&status);
}

/* ---- check ---- */

static int check(int fd, const struct table *t, bool is_exact)
{
	unsigned int n_bad = 0;
	uint64_t n_stamped = 0;
	unsigned char *buf;

	if (posix_memalign((void **)&buf, 4096, 2 * t->unit) != 0)
		return 3;
	for (uint64_t i = 0; i < t->n_units; i++) {
		const struct entry *e = &t->entry[i];
		uint64_t number, from = is_exact ? e->answered : e->flushed;

		if (pread(fd, buf, t->unit, (off_t)(i * t->unit)) != (ssize_t)t->unit) {
			perror("read");
			return 2;
		}
		number = read_stamp(buf, t->unit, i, buf + t->unit);
		n_stamped += number != 0;
		if (number >= from && number <= (is_exact ? e->answered : e->sent))
			continue;
		if (n_bad++ < BAD_MAX)
			(void)printf("unit %llu: number %lld; sent %llu, answered %llu, "
				     "flushed %llu\n",
				     (unsigned long long)i, (long long)number,
				     (unsigned long long)e->sent, (unsigned long long)e->answered,
				     (unsigned long long)e->flushed);
	}
	(void)printf("%llu of %llu units are stamped, %u are wrong\n",
		     (unsigned long long)n_stamped, (unsigned long long)t->n_units, n_bad);
	free(buf);
	return n_bad > 0 || n_stamped == 0;
}

/* What earlier runs left would look wrong. */
static int wipe(int fd, const struct table *t)
{
	size_t size = RUN_MAX * t->unit;
	unsigned char *buf;
	int r = posix_memalign((void **)&buf, 4096, size);

	if (r != 0)
		return 3;
	memset(buf, 0, size);
	for (uint64_t i = 0; r == 0 && i < t->n_units; i += RUN_MAX) {
		size_t n = t->n_units - i < RUN_MAX ? (size_t)(t->n_units - i) * t->unit : size;

		if (pwrite(fd, buf, n, (off_t)(i * t->unit)) != (ssize_t)n)
			r = 2;
	}
	free(buf);
	return r;
}

/* ---- the table ---- */

static struct table *open_table(const char *path, uint64_t unit, uint64_t n_units)
{
	int fd = open(path, O_RDWR | (unit > 0 ? O_CREAT | O_TRUNC : 0), 0600);
	struct table *t, head;
	size_t size;

	if (fd < 0)
		return NULL;
	if (unit == 0 && read(fd, &head, sizeof(head)) == (ssize_t)sizeof(head))
		n_units = head.n_units;
	size = sizeof(*t) + n_units * sizeof(t->entry[0]);
	if (unit > 0 && ftruncate(fd, (off_t)size) < 0)
		return NULL;
	t = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	if (t == MAP_FAILED)
		return NULL;
	if (unit > 0) {
		t->unit = unit;
		t->n_units = n_units;
	}
	return t;
}

int main(int argc, char **argv)
{
	bool is_run = argc == 7 && strcmp(argv[1], "run") == 0;
	unsigned int n_threads = is_run ? (unsigned int)strtoul(argv[6], NULL, 10) : 0;
	struct table *t;
	int fd;

	if (!is_run && !((argc == 4 || argc == 5) && strcmp(argv[1], "check") == 0))
		return 3;
	(void)setvbuf(stdout, NULL, _IOLBF, 0);
	t = open_table(argv[3], is_run ? strtoull(argv[4], NULL, 10) : 0,
		       is_run ? strtoull(argv[5], NULL, 10) : 0);
	fd = open(argv[2], (is_run ? O_RDWR : O_RDONLY) | O_DIRECT);
	if (!t || fd < 0 || n_threads > THREADS_MAX) {
		perror(argv[2]);
		return 3;
	}
	if (!is_run)
		return check(fd, t, argc == 5);
	if (wipe(fd, t) != 0) {
		perror("wipe");
		return 3;
	}
	(void)puts("running");
	return run(fd, t, n_threads);
}
