/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Copyright (C) 2026 the rbdcrypt-nbd authors */

/*
 * The kernel's files and block devices: the only place that calls open, pread, fallocate
 * and their like for data. Called by the file store and by file layers, on any thread;
 * everything but file_read_nowait() may wait for a disk. A struct file owns its descriptor,
 * and with it the hold: O_EXCL on a block device (which also finds a mounted one), a write
 * lock on the open file description of a regular file, which QEMU respects as well. Both
 * end with the descriptor, however the process ends.
 */

#include "file.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/falloc.h>
#include <linux/fs.h>
#include <linux/magic.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <sys/vfs.h>
#include <unistd.h>

static int explain_open(const char *path, int error, bool is_writer, struct fault *f)
{
	enum exit_status status = fault_status(error, EXIT_NOT_FOUND);

	if (error == -EBUSY) {
		fault_set(f, EXIT_BUSY, error, "%s: in use: mounted, or held by another program",
			  path);
		fault_hint(f, "free it, or use --read-only");
		return error;
	}
	fault_set(f, status, error, "%s: cannot open it%s: %s", path,
		  is_writer ? " for writing" : "", strerror(-error));
	if (status == EXIT_PASSPHRASE && is_writer)
		fault_hint(f, "check its permissions, or use --read-only");
	return error;
}

/* A second writer would tear sectors that this process keeps whole. */
static int hold(const char *path, int fd, struct fault *f)
{
	struct flock lock = { .l_type = F_WRLCK, .l_whence = SEEK_SET };
	int error;

	if (fcntl(fd, F_OFD_SETLK, &lock) == 0)
		return 0;
	error = -errno;
	if (error == -EAGAIN || error == -EACCES) {
		fault_set(f, EXIT_BUSY, -EBUSY, "%s: in use: another program has it locked", path);
		fault_hint(f, "stop the other program, or use --read-only");
		return -EBUSY;
	}
	fault_set(f, EXIT_SAFEGUARD, error,
		  "%s: cannot be locked, so a second writer could not be kept out: %s", path,
		  strerror(-error));
	fault_hint(f, "use --read-only, or a file system that has locks");
	return error;
}

static int look(const char *path, struct file *file, struct fault *f)
{
	struct statfs fs;
	struct stat st;
	int block = 0, error;

	if (fstat(file->fd, &st) < 0) {
		error = -errno;
		return fault_set(f, EXIT_NOT_FOUND, error, "%s: %s", path, strerror(-error));
	}
	if (!S_ISREG(st.st_mode) && !S_ISBLK(st.st_mode))
		return fault_set(f, EXIT_NOT_FOUND, -EINVAL,
				 "%s: neither a regular file nor a block device", path);
	file->is_block = S_ISBLK(st.st_mode);
	file->dev = file->is_block ? st.st_rdev : st.st_dev;
	file->ino = file->is_block ? 0 : st.st_ino;
	file->logical_block = 1;
	if (file->is_block && ioctl(file->fd, BLKSSZGET, &block) == 0 && block > 0)
		file->logical_block = (uint32_t)block;
	file->is_memory = !file->is_block && fstatfs(file->fd, &fs) == 0 &&
			  (fs.f_type == TMPFS_MAGIC || fs.f_type == RAMFS_MAGIC);
	return 0;
}

int file_open(const char *path, bool is_writer, struct file *ret, struct fault *f)
{
	struct file file = { .fd = -1 };
	int flags = O_CLOEXEC | O_NONBLOCK | O_NOCTTY, error;
	struct stat st;

	/* Without O_CREAT the flag is defined for block devices only. */
	if (is_writer)
		flags |= stat(path, &st) == 0 && S_ISBLK(st.st_mode) ? O_RDWR | O_EXCL : O_RDWR;
	else
		flags |= O_RDONLY;
	file.fd = open(path, flags);
	if (file.fd < 0) {
		error = -errno;
		return explain_open(path, error, is_writer, f);
	}
	error = look(path, &file, f);
	if (error == 0 && is_writer && !file.is_block)
		error = hold(path, file.fd, f);
	if (error < 0) {
		file_done(&file);
		return error;
	}
	*ret = file;
	return 0;
}

void file_done(struct file *file)
{
	if (file->fd >= 0)
		(void)close(file->fd);
	file->fd = -1;
}

int file_size(const struct file *file, uint64_t *ret)
{
	struct stat st;

	if (file->is_block)
		return ioctl(file->fd, BLKGETSIZE64, ret) < 0 ? -errno : 0;
	if (fstat(file->fd, &st) < 0)
		return -errno;
	*ret = (uint64_t)st.st_size;
	return 0;
}

int file_read(const struct file *file, uint64_t off, void *buf, size_t len)
{
	unsigned char *p = buf;
	ssize_t n;

	while (len > 0) {
		n = pread(file->fd, p, len, (off_t)off);
		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return -errno;
		/* Inside the size we knew, and yet the end: it was cut short under us. */
		if (n == 0)
			return -EIO;
		p += n;
		off += (uint64_t)n;
		len -= (size_t)n;
	}
	return 0;
}

int file_read_nowait(const struct file *file, uint64_t off, void *buf, size_t len)
{
	struct iovec iov = { .iov_base = buf, .iov_len = len };
	ssize_t n = preadv2(file->fd, &iov, 1, (off_t)off, RWF_NOWAIT);
	int error = -errno;

	if (n >= 0)
		return (size_t)n == len ? 0 : -EAGAIN;
	if (error == -EOPNOTSUPP || error == -ENOSYS || error == -EINVAL)
		return -EOPNOTSUPP;
	return -EAGAIN;
}

int file_write(const struct file *file, uint64_t off, const void *buf, size_t len)
{
	const unsigned char *p = buf;
	ssize_t n;

	while (len > 0) {
		n = pwrite(file->fd, p, len, (off_t)off);
		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return -errno;
		if (n == 0)
			return -EIO;
		p += n;
		off += (uint64_t)n;
		len -= (size_t)n;
	}
	return 0;
}

static int change_space(const struct file *file, int mode, uint64_t off, uint64_t len)
{
	int error;

	do {
		error = fallocate(file->fd, mode | FALLOC_FL_KEEP_SIZE, (off_t)off, (off_t)len) < 0
				? -errno
				: 0;
	} while (error == -EINTR);
	return error;
}

/* A range that is not whole blocks of a device is EINVAL there. */
static bool is_unable(int error)
{
	return error == -EOPNOTSUPP || error == -ENOSYS || error == -EINVAL;
}

int file_zero(const struct file *file, uint64_t off, uint64_t len, bool keeps_space)
{
	static const unsigned char zeros[65536];
	int r = -EOPNOTSUPP;

	if (!keeps_space)
		r = change_space(file, FALLOC_FL_PUNCH_HOLE, off, len);
	if (is_unable(r))
		r = change_space(file, FALLOC_FL_ZERO_RANGE, off, len);
	if (!is_unable(r))
		return r;
	for (r = 0; r == 0 && len > 0;) {
		size_t n = len < sizeof(zeros) ? (size_t)len : sizeof(zeros);

		r = file_write(file, off, zeros, n);
		off += n;
		len -= n;
	}
	return r;
}

int file_discard(const struct file *file, uint64_t off, uint64_t len)
{
	uint64_t start = (off + file->logical_block - 1) / file->logical_block *
			 file->logical_block;
	uint64_t end = (off + len) / file->logical_block * file->logical_block;
	uint64_t range[2] = { start, end - start };
	int r;

	if (start >= end)
		return 0;
	r = change_space(file, FALLOC_FL_PUNCH_HOLE, start, end - start);
	if (is_unable(r) && file->is_block)
		r = ioctl(file->fd, BLKDISCARD, range) < 0 ? -errno : 0;
	return is_unable(r) ? 0 : r;
}

int file_sync(const struct file *file)
{
	int error;

	do {
		error = fdatasync(file->fd) < 0 ? -errno : 0;
	} while (error == -EINTR);
	return error;
}

int file_next_hole(const struct file *file, uint64_t off, uint64_t *ret_from, uint64_t *ret_to)
{
	off_t hole = lseek(file->fd, (off_t)off, SEEK_HOLE), data;
	uint64_t size;

	if (hole < 0 || file_size(file, &size) < 0 || (uint64_t)hole >= size)
		return -ENXIO;
	data = lseek(file->fd, hole, SEEK_DATA);
	if (data < 0 && errno != ENXIO)
		return -ENXIO;
	*ret_from = (uint64_t)hole;
	*ret_to = data < 0 ? size : (uint64_t)data;
	return 0;
}
