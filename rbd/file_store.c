/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Copyright (C) 2026 the rbdcrypt-nbd authors */

/*
 * The file store: raw bytes in a file or block device. Called from readers and workers;
 * nothing here waits on their threads. What is in the page cache, or lives in memory
 * altogether, is read in the call; the rest goes to the store's own threads, which are the
 * only ones that wait for a disk.
 *
 * Threads: N_THREADS of our own, started at open (none for a file in memory). They hold a
 * store_io from the queue until they call its done. The lock guards the queue and stopping;
 * it is never held across a system call that does IO.
 */

#include "file.h"
#include "image.h"
#include "layer.h"
#include "status.h"

#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

#define N_THREADS 4u

enum file_op { FILE_READ, FILE_WRITE, FILE_ZERO, FILE_DISCARD, FILE_FLUSH, FILE_STATUS };

struct file_store {
	struct store base;
	struct file file;
	bool is_read_only;
	/* The kernel can tell whether a read would wait. */
	atomic_bool has_nowait;
	struct {
		pthread_mutex_t lock;
		pthread_cond_t over;
		uint64_t n_begun, n_over; /* lock; at most one is under way */
		/*
		 * lock; the first failed fdatasync. The kernel reports lost pages once and calls
		 * them clean afterwards, so a later success would be a lie.
		 */
		int error;
	} sync;
	pthread_mutex_t lock;
	pthread_cond_t more;
	struct store_io *head, **tail; /* lock */
	bool stopping; /* lock */
	pthread_t threads[N_THREADS];
	unsigned int n_threads;
};

static struct file_store *of(struct store *s)
{
	return (struct file_store *)s;
}

/* The one place where an offset in the device becomes one in the file. */
static uint64_t img_off(const struct file_store *fs, uint64_t dev_off)
{
	return fs->base.data_offset + dev_off;
}

/*
 * One at a time: of two at once, the kernel would report lost pages to one, and the other might
 * say that all is well before that is known here. Who waits for one that has begun shares the next
 * with all who do.
 */
static int sync_all(struct file_store *fs)
{
	uint64_t ours;
	int r;

	(void)pthread_mutex_lock(&fs->sync.lock);
	ours = fs->sync.n_begun + 1;
	while (fs->sync.n_over < ours) {
		if (fs->sync.n_begun > fs->sync.n_over) {
			(void)pthread_cond_wait(&fs->sync.over, &fs->sync.lock);
			continue;
		}
		fs->sync.n_begun++;
		(void)pthread_mutex_unlock(&fs->sync.lock);
		r = file_sync(&fs->file);
		(void)pthread_mutex_lock(&fs->sync.lock);
		if (r < 0 && !fs->sync.error)
			fs->sync.error = r;
		fs->sync.n_over++;
		(void)pthread_cond_broadcast(&fs->sync.over);
	}
	r = fs->sync.error;
	(void)pthread_mutex_unlock(&fs->sync.lock);
	return r;
}

static int find_holes(struct file_store *fs, struct store_io *io)
{
	uint64_t pos = img_off(fs, io->dev_off), end = pos + io->len, from, to;
	struct status st;
	int r = 0;

	status_begin(&st, io, io->dev_off, io->len);
	while (r == 0 && pos < end && file_next_hole(&fs->file, pos, &from, &to) == 0 &&
	       from < end) {
		r = status_hole(&st, from - fs->base.data_offset, to - fs->base.data_offset);
		pos = to;
	}
	if (r == STATUS_FULL)
		return 0;
	return r < 0 ? r : status_end(&st);
}

/* Waits for the disk. */
static void perform(struct file_store *fs, struct store_io *io)
{
	uint64_t off = img_off(fs, io->dev_off);

	switch ((enum file_op)io->op) {
	case FILE_READ:
		io->result = file_read(&fs->file, off, io->buf, (size_t)io->len);
		break;
	case FILE_WRITE:
		io->result = file_write(&fs->file, off, io->buf, (size_t)io->len);
		break;
	case FILE_ZERO:
		io->result = file_zero(&fs->file, off, io->len, io->flags & STORE_ZERO_NO_HOLE);
		break;
	case FILE_DISCARD:
		io->result = file_discard(&fs->file, off, io->len);
		break;
	case FILE_FLUSH:
		io->result = sync_all(fs);
		break;
	case FILE_STATUS:
		io->result = find_holes(fs, io);
		break;
	}
	if (io->op == FILE_READ && io->result == 0)
		io->result = store_io_add(io, io->dev_off, io->len, 0, false);
}

static void *serve(void *arg)
{
	struct file_store *fs = arg;
	struct store_io *io;

	(void)pthread_mutex_lock(&fs->lock);
	for (;;) {
		while (!fs->head && !fs->stopping)
			(void)pthread_cond_wait(&fs->more, &fs->lock);
		if (!fs->head)
			break;
		io = fs->head;
		fs->head = io->next;
		if (!fs->head)
			fs->tail = &fs->head;
		(void)pthread_mutex_unlock(&fs->lock);
		perform(fs, io);
		io->done(io);
		(void)pthread_mutex_lock(&fs->lock);
	}
	(void)pthread_mutex_unlock(&fs->lock);
	return NULL;
}

static int hand_over(struct file_store *fs, struct store_io *io)
{
	io->next = NULL;
	(void)pthread_mutex_lock(&fs->lock);
	*fs->tail = io;
	fs->tail = &io->next;
	/* Under the lock: without it, io may end meanwhile, and the store with it. */
	(void)pthread_cond_signal(&fs->more);
	(void)pthread_mutex_unlock(&fs->lock);
	return 0;
}

static void fill(struct file_store *fs, struct store_io *io, enum file_op op, uint64_t dev_off,
		 void *buf, uint64_t len)
{
	io->store = &fs->base;
	io->op = op;
	io->dev_off = dev_off;
	io->buf = buf;
	io->len = len;
	io->flags = 0;
}

static int submit(struct file_store *fs, struct store_io *io)
{
	if (!fs->file.is_memory)
		return hand_over(fs, io);
	perform(fs, io);
	return STORE_DONE;
}

static int refuse(struct store_io *io)
{
	io->result = -EROFS;
	return STORE_DONE;
}

static int op_read(struct store *s, struct store_io *io, uint64_t dev_off, void *buf, size_t len)
{
	struct file_store *fs = of(s);
	int r;

	fill(fs, io, FILE_READ, dev_off, buf, len);
	if (fs->file.is_memory || !atomic_load_explicit(&fs->has_nowait, memory_order_relaxed))
		return submit(fs, io);
	r = file_read_nowait(&fs->file, img_off(fs, dev_off), buf, len);
	if (r == 0) {
		io->result = store_io_add(io, dev_off, len, 0, false);
		return STORE_DONE;
	}
	if (r == -EOPNOTSUPP)
		atomic_store_explicit(&fs->has_nowait, false, memory_order_relaxed);
	return hand_over(fs, io);
}

static int op_write(struct store *s, struct store_io *io, uint64_t dev_off, const void *buf,
		    size_t len)
{
	struct file_store *fs = of(s);

	if (fs->is_read_only)
		return refuse(io);
	/* One field serves both directions; a write never changes what it points to. */
	fill(fs, io, FILE_WRITE, dev_off, (void *)(uintptr_t)buf, len);
	return submit(fs, io);
}

static int op_zero(struct store *s, struct store_io *io, uint64_t dev_off, uint64_t len,
		   unsigned int flags)
{
	struct file_store *fs = of(s);

	if (fs->is_read_only)
		return refuse(io);
	fill(fs, io, FILE_ZERO, dev_off, NULL, len);
	io->flags = flags;
	return submit(fs, io);
}

static int op_discard(struct store *s, struct store_io *io, uint64_t dev_off, uint64_t len)
{
	struct file_store *fs = of(s);

	if (fs->is_read_only)
		return refuse(io);
	fill(fs, io, FILE_DISCARD, dev_off, NULL, len);
	return submit(fs, io);
}

static int op_flush(struct store *s, struct store_io *io)
{
	struct file_store *fs = of(s);

	fill(fs, io, FILE_FLUSH, 0, NULL, 0);
	if (!fs->is_read_only)
		return submit(fs, io);
	io->result = 0;
	return STORE_DONE;
}

static int op_status(struct store *s, struct store_io *io, uint64_t dev_off, uint64_t len)
{
	fill(of(s), io, FILE_STATUS, dev_off, NULL, len);
	return submit(of(s), io);
}

static void op_freeable(struct store *s, uint64_t dev_off, uint64_t len, uint64_t *ret_off,
			uint64_t *ret_len)
{
	*ret_off = dev_off;
	*ret_len = s->is_encrypted ? 0 : len;
}

static int op_raw_size(struct store *s, uint64_t *ret)
{
	return file_size(&of(s)->file, ret);
}

static void op_close(struct store *s)
{
	struct file_store *fs = of(s);

	(void)pthread_mutex_lock(&fs->lock);
	fs->stopping = true;
	(void)pthread_cond_broadcast(&fs->more);
	(void)pthread_mutex_unlock(&fs->lock);
	for (unsigned int i = 0; i < fs->n_threads; i++)
		(void)pthread_join(fs->threads[i], NULL);
	(void)pthread_cond_destroy(&fs->sync.over);
	(void)pthread_mutex_destroy(&fs->sync.lock);
	(void)pthread_cond_destroy(&fs->more);
	(void)pthread_mutex_destroy(&fs->lock);
	file_done(&fs->file);
	free(fs);
}

static const struct store_ops file_ops = {
	.name = "file",
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

/* Signals are the daemon's: none may land on these threads. */
static int start_threads(struct file_store *fs)
{
	sigset_t all, old;
	int r = 0;

	(void)sigfillset(&all);
	(void)pthread_sigmask(SIG_SETMASK, &all, &old);
	while (r == 0 && fs->n_threads < N_THREADS) {
		r = -pthread_create(&fs->threads[fs->n_threads], NULL, serve, fs);
		if (r == 0)
			(void)pthread_setname_np(fs->threads[fs->n_threads++], "file-store");
	}
	(void)pthread_sigmask(SIG_SETMASK, &old, NULL);
	return r;
}

int store_open_file(const struct layer *l, const struct store_options *o, struct store **ret,
		    struct fault *f)
{
	const char *path = layer_info(l)->image;
	struct file_store *fs = calloc(1, sizeof(*fs));
	int r;

	if (!fs)
		return fault_set(f, EXIT_MEMORY, -ENOMEM, "%s: out of memory", path);
	fs->base.ops = &file_ops;
	fs->base.data_offset = o->data_offset;
	fs->base.is_encrypted = o->is_encrypted;
	fs->is_read_only = o->is_read_only;
	fs->tail = &fs->head;
	atomic_init(&fs->has_nowait, true);
	(void)pthread_mutex_init(&fs->sync.lock, NULL);
	(void)pthread_cond_init(&fs->sync.over, NULL);
	(void)pthread_mutex_init(&fs->lock, NULL);
	(void)pthread_cond_init(&fs->more, NULL);
	r = file_open(path, !o->is_read_only, &fs->file, f);
	if (r < 0) {
		fs->file.fd = -1;
		op_close(&fs->base);
		return r;
	}
	if (!layer_is_file(l, &fs->file))
		r = fault_set(f, EXIT_NOT_FOUND, -ESTALE, "%s: replaced while it was being opened",
			      path);
	else if (!fs->file.is_memory && start_threads(fs) < 0)
		r = fault_set(f, EXIT_MEMORY, -EAGAIN, "%s: no more threads can be started", path);
	if (r < 0) {
		op_close(&fs->base);
		return r;
	}
	*ret = &fs->base;
	return 0;
}
