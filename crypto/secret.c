// SPDX-License-Identifier: GPL-2.0-or-later
// Copyright (C) 2026 the rbdcrypt-nbd authors

/*
 * Memory for keys and passphrases. It hides what the kernel offers against
 * leaks: locked pages against swap, advice against core dumps and fork, and
 * inaccessible pages on both sides against stray reads and writes.
 *
 * Called by whoever holds a key: the commands, the unlock, the ciphers. Every
 * secret has exactly one owner, which frees it; sharing for reading is fine from
 * any thread. Layout of one mapping:
 *
 *	| guard page | unused ... data | guard page |
 *
 * The data ends where the last readable page ends (but for rounding), so that an
 * overrun faults at once.
 *
 * The pages are not given to a forked child at all: a child that reached for the
 * key would crash instead of working on with a key of zeros. Therefore go to the
 * background first and read secrets afterwards.
 */

#include "secret.h"

#include <assert.h>
#include <errno.h>
#include <linux/capability.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

/* Cipher code likes its keys on such a boundary. */
#define DATA_ALIGN 16u

/* First guess at what a pipe holds; passphrases are seldom longer. */
#define READ_START 4096u

struct secret {
	unsigned char *data;
	size_t len;
	unsigned char *map; /* starts with the guard page */
	size_t map_len;
	pid_t owner; /* the pages exist in this process only */
};

static size_t page_size(void)
{
	return (size_t)sysconf(_SC_PAGESIZE);
}

/* As secret_new(), without the upper limit: a reader needs one byte more to see "too long". */
static int secret_map(size_t len, struct secret **ret)
{
	const size_t page = page_size();
	const size_t room = (len + page - 1) / page * page;
	struct secret *s = calloc(1, sizeof(*s));

	if (!s)
		return -ENOMEM;
	s->map_len = room + 2 * page;
	s->map = mmap(NULL, s->map_len, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	if (s->map == MAP_FAILED) {
		free(s);
		return -ENOMEM;
	}
	if (mprotect(s->map + page, room, PROT_READ | PROT_WRITE) < 0) {
		(void)munmap(s->map, s->map_len);
		free(s);
		return -ENOMEM;
	}

	/* Each is a hardening; a kernel or a limit that refuses one does not stop us. */
	(void)mlock(s->map + page, room);
	(void)madvise(s->map + page, room, MADV_DONTDUMP);
	(void)madvise(s->map + page, room, MADV_DONTFORK);

	s->data = s->map + page + room - (len + DATA_ALIGN - 1) / DATA_ALIGN * DATA_ALIGN;
	s->len = len;
	s->owner = getpid();
	*ret = s;
	return 0;
}

int secret_new(size_t len, struct secret **ret)
{
	if (len == 0 || len > SECRET_MAX)
		return -EINVAL;
	return secret_map(len, ret);
}

struct secret *secret_free(struct secret *s)
{
	if (!s)
		return NULL;
	if (s->owner == getpid()) {
		const size_t page = page_size();

		/* All of the room: a truncated secret was longer once. */
		explicit_bzero(s->map + page, s->map_len - 2 * page);
		(void)munmap(s->map, s->map_len);
	}
	free(s);
	return NULL;
}

unsigned char *secret_data(struct secret *s)
{
	return s->data;
}

const unsigned char *secret_bytes(const struct secret *s)
{
	return s->data;
}

size_t secret_len(const struct secret *s)
{
	return s->len;
}

void secret_truncate(struct secret *s, size_t len)
{
	assert(len >= 1 && len <= s->len);
	explicit_bzero(s->data + len, s->len - len);
	s->len = len;
}

int secret_copy(const struct secret *s, struct secret **ret)
{
	struct secret *copy;
	int r;

	r = secret_map(s->len, &copy);
	if (r < 0)
		return r;
	memcpy(copy->data, s->data, s->len);
	*ret = copy;
	return 0;
}

bool secret_equal(const struct secret *a, const struct secret *b)
{
	volatile unsigned char difference = 0;

	if (a->len != b->len)
		return false;
	for (size_t i = 0; i < a->len; i++)
		difference |= a->data[i] ^ b->data[i];
	return difference == 0;
}

/* Room for at least one byte more than the file has, so that a second read() finds the end. */
static size_t first_room(int fd, size_t limit)
{
	struct stat st;
	size_t room = READ_START;

	if (fstat(fd, &st) == 0 && S_ISREG(st.st_mode) && st.st_size > 0)
		room = (uint64_t)st.st_size < limit ? (size_t)st.st_size + 1 : limit;
	return room < limit ? room : limit;
}

/* Replaces *s by a larger one with the same first used bytes. */
static int grow(struct secret **s, size_t used, size_t room)
{
	struct secret *bigger;
	int r;

	r = secret_map(room, &bigger);
	if (r < 0)
		return r;
	memcpy(bigger->data, (*s)->data, used);
	secret_free(*s);
	*s = bigger;
	return 0;
}

int secret_read_fd(int fd, size_t max, int (*wait)(void *arg, int fd), void *arg,
		   struct secret **ret)
{
	struct secret *s __attribute__((cleanup(secret_freep))) = NULL;
	size_t limit, used = 0;
	int r;

	if (max == 0 || max > SECRET_MAX)
		return -EINVAL;
	limit = max + 1;
	r = secret_map(first_room(fd, limit), &s);
	if (r < 0)
		return r;

	for (;;) {
		ssize_t n;

		if (used == s->len) {
			if (used == limit)
				return -EFBIG;
			r = grow(&s, used, s->len < limit / 2 ? s->len * 2 : limit);
			if (r < 0)
				return r;
		}
		r = wait ? wait(arg, fd) : 0;
		if (r < 0)
			return r;
		n = read(fd, s->data + used, s->len - used);
		if (n < 0) {
			if (errno == EINTR || (errno == EAGAIN && wait))
				continue;
			return -errno;
		}
		if (n == 0)
			break;
		used += (size_t)n;
	}
	if (used == 0)
		return -ENODATA;
	secret_truncate(s, used);
	*ret = s;
	s = NULL;
	return 0;
}

/* Whether this process may lock without limit. */
static bool may_lock_all(void)
{
	struct __user_cap_header_struct header = { .version = _LINUX_CAPABILITY_VERSION_3 };
	struct __user_cap_data_struct data[_LINUX_CAPABILITY_U32S_3] = { 0 };
	struct rlimit limit;

	if (syscall(SYS_capget, &header, data) == 0 &&
	    (data[CAP_TO_INDEX(CAP_IPC_LOCK)].effective & CAP_TO_MASK(CAP_IPC_LOCK)))
		return true;
	return getrlimit(RLIMIT_MEMLOCK, &limit) == 0 && limit.rlim_cur == RLIM_INFINITY;
}

int secret_protect_process(void)
{
	const struct rlimit none = { .rlim_cur = 0, .rlim_max = 0 };

	if (setrlimit(RLIMIT_CORE, &none) < 0)
		return -errno;
	if (prctl(PR_SET_DUMPABLE, 0, 0, 0, 0) < 0)
		return -errno;
	/*
	 * Under a limit, MCL_FUTURE would make every later mmap() fail once the
	 * limit is reached, so it is all or only the secrets. ONFAULT: thread
	 * stacks and caches are reserved generously and used little.
	 */
	if (may_lock_all())
		(void)mlockall(MCL_CURRENT | MCL_FUTURE | MCL_ONFAULT);
	return 0;
}
