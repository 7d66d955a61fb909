/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Copyright (C) 2026 the rbdcrypt-nbd authors */

/*
 * The file store and file layers, with a kernel that fails on demand: this program's own
 * pread, pwrite and so on come before the C library's, and do the system call unless the
 * test said otherwise. rbd/file_store.c is included, to see how it wakes its threads.
 */

#include <pthread.h>

static int wake_up(pthread_cond_t *cond);
#define pthread_cond_signal wake_up
#include "../../rbd/file_store.c"
#undef pthread_cond_signal

#include "checker.h"
#include "image.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/falloc.h>
#include <semaphore.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <time.h>
#include <unistd.h>

#include <cmocka.h>

#define SIZE (1u << 20)

/* ---- the kernel ---- */

enum call { PREAD, PREADV2, PWRITE, FALLOCATE, FDATASYNC, LOCK, N_CALLS };
static struct {
	int error; /* 0: works */
	unsigned int times; /* how often it fails; UINT_MAX: always */
	bool is_short; /* moves less than asked for */
	bool is_late; /* what fails says so after a while */
	unsigned int calls;
} kernel[N_CALLS];

static bool fails(enum call c)
{
	__atomic_add_fetch(&kernel[c].calls, 1, __ATOMIC_RELAXED);
	if (!kernel[c].error || kernel[c].times == 0)
		return false;
	if (kernel[c].times != UINT32_MAX)
		kernel[c].times--;
	errno = kernel[c].error;
	return true;
}

static size_t shorten(enum call c, size_t len)
{
	return kernel[c].is_short && len > 1000 ? 1000 : len;
}

ssize_t pread(int fd, void *buf, size_t len, off_t off)
{
	if (fails(PREAD))
		return -1;
	return syscall(SYS_pread64, fd, buf, shorten(PREAD, len), off);
}

ssize_t preadv2(int fd, const struct iovec *iov, int n, off_t off, int flags)
{
	if (fails(PREADV2))
		return -1;
	return syscall(SYS_pread64, fd, iov->iov_base, shorten(PREADV2, iov->iov_len), off);
}

ssize_t pwrite(int fd, const void *buf, size_t len, off_t off)
{
	if (fails(PWRITE))
		return kernel[PWRITE].error == ENODATA ? 0 : -1;
	return syscall(SYS_pwrite64, fd, buf, shorten(PWRITE, len), off);
}

int fallocate(int fd, int mode, off_t off, off_t len)
{
	return fails(FALLOCATE) ? -1 : (int)syscall(SYS_fallocate, fd, mode, off, len);
}

int fdatasync(int fd)
{
	const struct timespec while_others_ask = { .tv_nsec = 200000000 };

	if (!fails(FDATASYNC))
		return (int)syscall(SYS_fdatasync, fd);
	if (kernel[FDATASYNC].is_late) {
		(void)nanosleep(&while_others_ask, NULL);
		errno = kernel[FDATASYNC].error;
	}
	return -1;
}

int fcntl(int fd, int cmd, ...)
{
	va_list ap;
	long arg;

	va_start(ap, cmd);
	arg = va_arg(ap, long);
	va_end(ap);
	if (cmd == F_OFD_SETLK && fails(LOCK))
		return -1;
	return (int)syscall(SYS_fcntl, fd, cmd, arg);
}

/* ---- its threads ---- */

/*
 * Whoever wakes one holds the lock, always: else another could end the request just then, and its
 * end may be that of the store.
 */
static int wake_up(pthread_cond_t *cond)
{
	struct file_store *fs =
		(struct file_store *)((char *)cond - offsetof(struct file_store, more));

	int r = pthread_mutex_trylock(&fs->lock);

	if (r == 0)
		(void)pthread_mutex_unlock(&fs->lock);
	assert_int_equal(r, EBUSY);
	return pthread_cond_signal(cond);
}

/* ---- one store ---- */

struct fixture {
	char path[64], spec[80];
	struct layer *layer;
	struct store *store;
	pthread_mutex_t lock;
	pthread_cond_t cond;
	bool is_done;
	struct store_io io;
};
static struct fixture fx;

static void io_done(struct store_io *io)
{
	(void)io;
	pthread_mutex_lock(&fx.lock);
	fx.is_done = true;
	pthread_cond_signal(&fx.cond);
	pthread_mutex_unlock(&fx.lock);
}

static int wait_for(int r)
{
	pthread_mutex_lock(&fx.lock);
	while (r != STORE_DONE && !fx.is_done)
		pthread_cond_wait(&fx.cond, &fx.lock);
	fx.is_done = false;
	pthread_mutex_unlock(&fx.lock);
	return fx.io.result;
}

static struct store_io *fresh(void)
{
	store_io_reset(&fx.io);
	fx.io.done = io_done;
	return &fx.io;
}

static int do_read(void *buf, uint64_t off, size_t len)
{
	return wait_for(fx.store->ops->read(fx.store, fresh(), off, buf, len));
}

static int do_write(const void *buf, uint64_t off, size_t len)
{
	return wait_for(fx.store->ops->write(fx.store, fresh(), off, buf, len));
}

static int do_zero(uint64_t off, uint64_t len, unsigned int flags)
{
	return wait_for(fx.store->ops->zero(fx.store, fresh(), off, len, flags));
}

static int do_discard(uint64_t off, uint64_t len)
{
	return wait_for(fx.store->ops->discard(fx.store, fresh(), off, len));
}

static int do_flush(void)
{
	return wait_for(fx.store->ops->flush(fx.store, fresh()));
}

static int open_layer(const char *text, struct layer **ret, struct fault *f)
{
	struct image_spec spec = IMAGE_SPEC_INIT;
	int r = image_spec_parse(text, &spec, f);

	if (r == 0)
		r = layer_open(NULL, &spec, 5, NULL, ret, f);
	image_spec_done(&spec);
	return r;
}

static int reopen(const struct store_options *o, struct fault *f)
{
	store_close(fx.store);
	fx.store = NULL;
	return store_open_file(fx.layer, o, &fx.store, f);
}

static int setup_in(const char *dir)
{
	const struct store_options o = { 0 };
	struct fault f = { 0 };
	int fd;

	memset(&fx, 0, sizeof(fx));
	memset(kernel, 0, sizeof(kernel));
	pthread_mutex_init(&fx.lock, NULL);
	pthread_cond_init(&fx.cond, NULL);
	(void)snprintf(fx.path, sizeof(fx.path), "%s/store_file.XXXXXX", dir);
	fd = mkostemp(fx.path, O_CLOEXEC);
	assert_true(fd >= 0);
	assert_int_equal(ftruncate(fd, SIZE), 0);
	close(fd);
	(void)snprintf(fx.spec, sizeof(fx.spec), "file:%s", fx.path);
	assert_int_equal(open_layer(fx.spec, &fx.layer, &f), 0);
	assert_int_equal(reopen(&o, &f), 0);
	return 0;
}

static int on_disk(void **state)
{
	(void)state;
	return setup_in("/var/tmp");
}

static int in_memory(void **state)
{
	(void)state;
	return setup_in("/dev/shm");
}

static int teardown(void **state)
{
	(void)state;
	memset(kernel, 0, sizeof(kernel));
	store_io_reset(&fx.io);
	store_close(fx.store);
	layer_close(fx.layer);
	pthread_cond_destroy(&fx.cond);
	pthread_mutex_destroy(&fx.lock);
	return unlink(fx.path);
}

/* ---- what works ---- */

static void random_io_agrees_with_the_model(void **state)
{
	struct checker *c = checker_new(fx.store, SIZE, 8, 3);

	(void)state;
	checker_load(c);
	checker_run(c, 2000);
	checker_compare(c, fx.store);
	checker_free(c);
}

static void memory_is_served_inside_the_call(void **state)
{
	char buf[4096] = "x";

	(void)state;
	assert_int_equal(fx.store->ops->write(fx.store, fresh(), 0, buf, sizeof(buf)), STORE_DONE);
	assert_int_equal(fx.store->ops->read(fx.store, fresh(), 0, buf, sizeof(buf)), STORE_DONE);
	assert_int_equal(fx.store->ops->flush(fx.store, fresh()), STORE_DONE);
}

static void the_page_cache_answers_inside_the_call(void **state)
{
	char buf[4096] = "x";

	(void)state;
	assert_int_equal(do_write(buf, 0, sizeof(buf)), 0);
	assert_int_equal(fx.store->ops->read(fx.store, fresh(), 0, buf, sizeof(buf)), STORE_DONE);
	assert_int_equal(fx.io.result, 0);
	assert_int_equal(fx.io.extents[0].len, sizeof(buf));
}

static void what_would_wait_goes_to_a_thread(void **state)
{
	char buf[4096] = "x", back[4096];

	(void)state;
	assert_int_equal(do_write(buf, 0, sizeof(buf)), 0);
	kernel[PREADV2].error = EAGAIN;
	kernel[PREADV2].times = 1;
	assert_int_equal(fx.store->ops->read(fx.store, fresh(), 0, back, sizeof(back)), 0);
	assert_int_equal(wait_for(0), 0);
	assert_memory_equal(buf, back, sizeof(buf));
	/* Part of it in the cache: the thread reads it all. */
	kernel[PREADV2].is_short = true;
	assert_int_equal(do_read(back, 0, sizeof(back)), 0);
	assert_memory_equal(buf, back, sizeof(buf));
}

static void a_kernel_that_cannot_tell_is_asked_once(void **state)
{
	char buf[512];

	(void)state;
	kernel[PREADV2].error = EOPNOTSUPP;
	kernel[PREADV2].times = UINT32_MAX;
	assert_int_equal(do_read(buf, 0, sizeof(buf)), 0);
	assert_int_equal(do_read(buf, 0, sizeof(buf)), 0);
	assert_int_equal(kernel[PREADV2].calls, 1);
}

static void the_data_offset_is_added(void **state)
{
	const struct store_options o = { .data_offset = 8192, .is_encrypted = true };
	struct fault f = { 0 };
	char buf[512] = "data", raw[512];
	uint64_t off, len;

	(void)state;
	assert_int_equal(reopen(&o, &f), 0);
	assert_int_equal(do_write(buf, 1024, sizeof(buf)), 0);
	assert_int_equal(layer_read(fx.layer, 8192 + 1024, raw, sizeof(raw)), 0);
	assert_memory_equal(buf, raw, sizeof(buf));
	/* A hole in an encrypted file is garbage to dm-crypt: nothing is promised. */
	fx.store->ops->freeable(fx.store, 0, 4096, &off, &len);
	assert_int_equal(len, 0);
}

static void short_transfers_are_continued(void **state)
{
	char buf[8192], back[8192];

	(void)state;
	memset(buf, 3, sizeof(buf));
	kernel[PWRITE].is_short = kernel[PREAD].is_short = kernel[PREADV2].is_short = true;
	assert_int_equal(do_write(buf, 0, sizeof(buf)), 0);
	assert_int_equal(do_read(back, 0, sizeof(back)), 0);
	assert_memory_equal(buf, back, sizeof(buf));
}

static void interruptions_are_not_errors(void **state)
{
	char buf[512] = "x";

	(void)state;
	kernel[PREADV2].error = kernel[PREAD].error = kernel[PWRITE].error = EINTR;
	kernel[FDATASYNC].error = kernel[FALLOCATE].error = EINTR;
	for (int i = 0; i < N_CALLS; i++)
		kernel[i].times = 2;
	assert_int_equal(do_write(buf, 0, sizeof(buf)), 0);
	assert_int_equal(do_read(buf, 0, sizeof(buf)), 0);
	assert_int_equal(do_zero(0, 512, 0), 0);
	assert_int_equal(do_flush(), 0);
}

static void zero_reads_as_zeros_whatever_the_file_system_can(void **state)
{
	static char buf[200000], zeros[200000];

	(void)state;
	for (int i = 0; i < 3; i++) {
		memset(buf, 1, sizeof(buf));
		assert_int_equal(do_write(buf, 512, sizeof(buf)), 0);
		kernel[FALLOCATE].error = EOPNOTSUPP;
		kernel[FALLOCATE].times = i == 0 ? 0 : i == 1 ? 1 : UINT32_MAX;
		assert_int_equal(do_zero(512, sizeof(buf), i == 2 ? STORE_ZERO_NO_HOLE : 0), 0);
		assert_int_equal(do_read(buf, 512, sizeof(buf)), 0);
		assert_memory_equal(buf, zeros, sizeof(buf));
	}
}

static uint64_t allocated(void)
{
	struct stat st;

	assert_int_equal(stat(fx.path, &st), 0);
	return (uint64_t)st.st_blocks * 512;
}

static void discard_gives_space_back(void **state)
{
	static char buf[SIZE];

	(void)state;
	memset(buf, 1, sizeof(buf));
	assert_int_equal(do_write(buf, 0, sizeof(buf)), 0);
	assert_int_equal(do_flush(), 0);
	assert_true(allocated() >= SIZE);
	assert_int_equal(do_discard(0, SIZE / 2), 0);
	assert_true(allocated() < SIZE * 3 / 4);
	assert_int_equal(do_zero(SIZE / 2, SIZE / 2, STORE_ZERO_NO_HOLE), 0);
	assert_true(allocated() >= SIZE / 2);
}

static void discard_is_only_a_hint(void **state)
{
	(void)state;
	kernel[FALLOCATE].error = EOPNOTSUPP;
	kernel[FALLOCATE].times = UINT32_MAX;
	assert_int_equal(do_discard(0, 4096), 0);
	kernel[FALLOCATE].error = EIO;
	assert_int_equal(do_discard(0, 4096), -EIO);
}

static void status_finds_holes(void **state)
{
	char buf[4096] = "x";

	(void)state;
	assert_int_equal(do_write(buf, 65536, sizeof(buf)), 0);
	assert_int_equal(wait_for(fx.store->ops->status(fx.store, fresh(), 0, SIZE)), 0);
	assert_int_equal(fx.io.n_extents, 3);
	assert_true(fx.io.extents[0].is_hole);
	assert_false(fx.io.extents[1].is_hole);
	assert_int_equal(fx.io.extents[1].dev_off, 65536);
	assert_true(fx.io.extents[2].is_hole);
	assert_int_equal(fx.io.extents[2].dev_off + fx.io.extents[2].len, SIZE);
}

static void the_size_is_asked_again(void **state)
{
	uint64_t size;

	(void)state;
	assert_int_equal(truncate(fx.path, 2 * SIZE), 0);
	assert_int_equal(fx.store->ops->raw_size(fx.store, &size), 0);
	assert_int_equal(size, 2 * SIZE);
}

/* ---- what fails ---- */

static void errors_are_reported_as_they_are(void **state)
{
	char buf[4096] = "x";

	(void)state;
	kernel[PREADV2].error = kernel[PREAD].error = EIO;
	kernel[PREADV2].times = kernel[PREAD].times = 1;
	assert_int_equal(do_read(buf, 0, sizeof(buf)), -EIO);
	kernel[PWRITE].error = ENOSPC;
	kernel[PWRITE].times = 1;
	assert_int_equal(do_write(buf, 0, sizeof(buf)), -ENOSPC);
	kernel[PWRITE].error = ENODATA; /* writes nothing, and says so */
	kernel[PWRITE].times = 1;
	assert_int_equal(do_write(buf, 0, sizeof(buf)), -EIO);
	kernel[FALLOCATE].error = EIO;
	kernel[FALLOCATE].times = 1;
	assert_int_equal(do_zero(0, 4096, 0), -EIO);
}

static void a_failed_flush_fails_for_good(void **state)
{
	(void)state;
	kernel[FDATASYNC].error = EIO;
	kernel[FDATASYNC].times = 1;
	assert_int_equal(do_flush(), -EIO);
	assert_int_equal(do_flush(), -EIO);
	assert_int_equal(kernel[FDATASYNC].calls, 2);
}

struct other_flush {
	struct store_io io;
	sem_t over;
};

static void other_done(struct store_io *io)
{
	(void)sem_post(&((struct other_flush *)io)->over);
}

/* The kernel has told the first, and only the first, which has not come back yet. */
static void nor_does_one_beside_it_succeed(void **state)
{
	struct other_flush other = { .io.done = other_done };
	const struct timespec moment = { .tv_nsec = 1000000 };

	(void)state;
	(void)sem_init(&other.over, 0, 0);
	kernel[FDATASYNC].error = EIO;
	kernel[FDATASYNC].times = 1;
	kernel[FDATASYNC].is_late = true;
	assert_int_equal(fx.store->ops->flush(fx.store, fresh()), 0);
	while (!__atomic_load_n(&kernel[FDATASYNC].calls, __ATOMIC_RELAXED))
		(void)nanosleep(&moment, NULL);
	assert_int_equal(fx.store->ops->flush(fx.store, &other.io), 0);
	(void)sem_wait(&other.over);
	assert_int_equal(other.io.result, -EIO);
	assert_int_equal(wait_for(0), -EIO);
	(void)sem_destroy(&other.over);
}

static void a_file_cut_short_is_an_error(void **state)
{
	char buf[4096];

	(void)state;
	assert_int_equal(truncate(fx.path, SIZE / 2), 0);
	assert_int_equal(do_read(buf, SIZE - sizeof(buf), sizeof(buf)), -EIO);
	assert_int_equal(layer_read(fx.layer, SIZE - sizeof(buf), buf, sizeof(buf)), -EIO);
	assert_int_equal(layer_read(fx.layer, SIZE - 1, buf, 2), -EIO);
	assert_int_equal(layer_read(fx.layer, UINT64_MAX, buf, 2), -EIO);
}

static void read_only_refuses_changes(void **state)
{
	const struct store_options o = { .is_read_only = true };
	struct fault f = { 0 };
	char buf[512] = "x";

	(void)state;
	assert_int_equal(reopen(&o, &f), 0);
	assert_int_equal(do_write(buf, 0, 512), -EROFS);
	assert_int_equal(do_zero(0, 512, 0), -EROFS);
	assert_int_equal(do_discard(0, 512), -EROFS);
	assert_int_equal(do_flush(), 0);
	assert_int_equal(do_read(buf, 0, 512), 0);
}

static void a_second_writer_is_refused(void **state)
{
	const struct store_options o = { 0 }, ro = { .is_read_only = true };
	struct store *second = NULL;
	struct fault f = { 0 };

	(void)state;
	assert_int_equal(store_open_file(fx.layer, &o, &second, &f), -EBUSY);
	assert_int_equal(f.status, EXIT_BUSY);
	assert_true(f.hint[0]);
	assert_int_equal(store_open_file(fx.layer, &ro, &second, &f), 0);
	store_close(second);
	/* The hold ends with the store. */
	fault_clear(&f);
	assert_int_equal(reopen(&o, &f), 0);
}

static void a_file_that_cannot_be_held_is_refused(void **state)
{
	const struct store_options o = { 0 };
	struct fault f = { 0 };

	(void)state;
	kernel[LOCK].error = ENOLCK;
	kernel[LOCK].times = 1;
	assert_int_equal(reopen(&o, &f), -ENOLCK);
	assert_int_equal(f.status, EXIT_SAFEGUARD);
}

static void a_replaced_file_is_noticed(void **state)
{
	const struct store_options o = { 0 };
	struct fault f = { 0 };
	char other[80];
	int fd;

	(void)state;
	(void)snprintf(other, sizeof(other), "%s.new", fx.path);
	fd = open(other, O_CREAT | O_RDWR | O_CLOEXEC, 0600);
	assert_true(fd >= 0);
	close(fd);
	assert_int_equal(rename(other, fx.path), 0);
	assert_int_equal(reopen(&o, &f), -ESTALE);
	assert_int_equal(f.status, EXIT_NOT_FOUND);
}

static void expect_no_layer(const char *text, int error, enum exit_status status)
{
	struct layer *l = NULL;
	struct fault f = { 0 };

	assert_int_equal(open_layer(text, &l, &f), error);
	assert_int_equal(f.status, status);
	assert_true(f.message[0]);
	assert_null(l);
}

static void what_is_no_file_is_refused(void **state)
{
	(void)state;
	expect_no_layer("file:/nonexistent/x", -ENOENT, EXIT_NOT_FOUND);
	expect_no_layer("file:/dev", -EINVAL, EXIT_NOT_FOUND);
	expect_no_layer("file:/dev/null", -EINVAL, EXIT_NOT_FOUND);
}

static void no_permission_is_said(void **state)
{
	const struct store_options o = { 0 };
	struct fault f = { 0 };
	uid_t uid = geteuid();

	(void)state;
	assert_int_equal(chmod(fx.path, 0), 0);
	if (uid == 0)
		assert_int_equal(seteuid(65534), 0);
	expect_no_layer(fx.spec, -EACCES, EXIT_PASSPHRASE);
	assert_int_equal(reopen(&o, &f), -EACCES);
	assert_int_equal(seteuid(uid), 0);
	assert_int_equal(f.status, EXIT_PASSPHRASE);
	assert_true(f.hint[0]);
}

static void layers_of_files_have_no_parent(void **state)
{
	const struct layer_info *info = layer_info(fx.layer);
	struct layer *parent = NULL;
	struct store_lock lock;
	struct fault f = { 0 };

	(void)state;
	assert_true(info->is_file);
	assert_string_equal(info->spec, fx.spec);
	assert_int_equal(info->raw_size, SIZE);
	assert_int_equal(info->object_size, 0);
	assert_int_equal(layer_open_parent(fx.layer, &parent, &f), -ENOENT);
	assert_false(f.message[0]);
	store_lock(fx.store, &lock);
	assert_string_equal(lock.state, "-");
}

#define DISK(name) cmocka_unit_test_setup_teardown(name, on_disk, teardown)
#define MEMORY(name) cmocka_unit_test_setup_teardown(name, in_memory, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		DISK(random_io_agrees_with_the_model),
		MEMORY(random_io_agrees_with_the_model),
		MEMORY(memory_is_served_inside_the_call),
		DISK(the_page_cache_answers_inside_the_call),
		DISK(what_would_wait_goes_to_a_thread),
		DISK(a_kernel_that_cannot_tell_is_asked_once),
		DISK(the_data_offset_is_added),
		DISK(short_transfers_are_continued),
		DISK(interruptions_are_not_errors),
		DISK(zero_reads_as_zeros_whatever_the_file_system_can),
		MEMORY(zero_reads_as_zeros_whatever_the_file_system_can),
		DISK(discard_gives_space_back),
		DISK(discard_is_only_a_hint),
		DISK(status_finds_holes),
		MEMORY(status_finds_holes),
		DISK(the_size_is_asked_again),
		DISK(errors_are_reported_as_they_are),
		DISK(a_failed_flush_fails_for_good),
		DISK(nor_does_one_beside_it_succeed),
		DISK(a_file_cut_short_is_an_error),
		DISK(read_only_refuses_changes),
		DISK(a_second_writer_is_refused),
		DISK(a_file_that_cannot_be_held_is_refused),
		DISK(a_replaced_file_is_noticed),
		DISK(what_is_no_file_is_refused),
		DISK(no_permission_is_said),
		DISK(layers_of_files_have_no_parent),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
