/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Copyright (C) 2026 the rbdcrypt-nbd authors */

/*
 * Files that are locked for as long as their owner lives. The locks are the kernel's open file
 * description locks: they belong to the descriptor, survive fork(), end with the last
 * copy of it, and unlike flock() can be asked for without being taken, by anybody who
 * may read the file. A reader can therefore neither disturb an owner nor pretend to be one.
 *
 * A file is replaced, never changed: the new one is locked before rename() gives it the name, and
 * the old one is let go after. Whoever opens the name in between holds an
 * inode without a link; a reader sees that and opens again.
 *
 * Called by state.c on the threads its header names. Owns only the descriptors it returns.
 */

#include "state_file.h"

#include <ctype.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "state_json.h"
#include "text.h"

#define FILE_BYTES_MAX (1u << 20)
#define KEY_PART_MAX 160
#define TEMP_PREFIX ".tmp-"
/* A writer needs milliseconds between making a temporary file and locking it. */
#define TEMP_AGE_S 60

static void close_fd(int *fd)
{
	if (*fd >= 0)
		(void)close(*fd);
}
#define cleanup_fd __attribute__((cleanup(close_fd)))

static void free_text(char **p)
{
	free(*p);
}
#define cleanup_text __attribute__((cleanup(free_text)))

void state_file_name(const char *key, char name[STATE_NAME_BYTES])
{
	size_t n = 0;

	for (const char *p = key; *p; p++) {
		unsigned char c = (unsigned char)*p;
		bool is_plain = isascii(c) && (isalnum(c) || strchr("_@-", c) || (c == '.' && n));

		if (n + 3 > KEY_PART_MAX) {
			n += (size_t)sprintf(name + n, "~%016llx",
					     (unsigned long long)text_hash(key));
			break;
		}
		if (is_plain)
			name[n++] = (char)c;
		else
			n += (size_t)sprintf(name + n, "%%%02X", c);
	}
	memcpy(name + n, ".json", sizeof(".json"));
}

bool state_file_is_named(const char *name)
{
	size_t len = strlen(name);

	return name[0] != '.' && len > 5 && !strcmp(name + len - 5, ".json");
}

int state_file_lock(int fd)
{
	struct flock lock = { .l_type = F_WRLCK, .l_whence = SEEK_SET };

	if (fcntl(fd, F_OFD_SETLK, &lock) < 0)
		return errno == EACCES ? -EAGAIN : -errno;
	return 0;
}

/* Only a write lock counts: it needs the right to write, so it is an owner's. */
static int is_locked(int fd, bool *ret)
{
	struct flock lock = { .l_type = F_RDLCK, .l_whence = SEEK_SET };

	if (fcntl(fd, F_OFD_GETLK, &lock) < 0)
		return -errno;
	*ret = lock.l_type != F_UNLCK;
	return 0;
}

static int read_all(int fd, char **ret, size_t *ret_len)
{
	cleanup_text char *text = malloc(FILE_BYTES_MAX + 1);
	size_t len = 0;

	if (!text)
		return -ENOMEM;
	while (len <= FILE_BYTES_MAX) {
		ssize_t n = read(fd, text + len, FILE_BYTES_MAX + 1 - len);

		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return -errno;
		if (n == 0)
			break;
		len += (size_t)n;
	}
	if (len > FILE_BYTES_MAX)
		return -EFBIG;
	*ret = text;
	*ret_len = len;
	text = NULL;
	return 0;
}

/* Opens the file that has the name now; an answer about another is worthless. -ESTALE: once more.
 */
static int read_once(int dir_fd, const char *name, struct volume_state *ret, bool *ret_alive,
		     const char **why)
{
	cleanup_fd int fd = openat(dir_fd, name,
				   O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK | O_NOCTTY);
	cleanup_text char *text = NULL;
	struct volume_state v;
	size_t len = 0;
	struct stat st;
	bool alive = false, is_long;
	int r;

	*why = "cannot be read";
	if (fd < 0)
		return -errno;
	if (fstat(fd, &st) < 0)
		return -errno;
	if (!S_ISREG(st.st_mode)) {
		*why = "not a regular file";
		*ret_alive = false;
		return -EBADMSG;
	}
	r = read_all(fd, &text, &len);
	if (r && r != -EFBIG)
		return r;
	is_long = r == -EFBIG;
	r = is_locked(fd, &alive);
	if (r)
		return r;
	if (fstat(fd, &st) < 0)
		return -errno;
	if (!alive && st.st_nlink == 0)
		return -ESTALE;
	*ret_alive = alive;
	*why = "too long";
	if (is_long)
		return -EBADMSG;
	r = state_from_text(text, len, &v, why);
	if (r)
		return r;
	if (ret)
		*ret = v;
	else
		volume_state_done(&v);
	return 0;
}

int state_file_read(int dir_fd, const char *name, struct volume_state *ret, bool *ret_alive,
		    const char **why)
{
	int r;

	do
		r = read_once(dir_fd, name, ret, ret_alive, why);
	while (r == -ESTALE);
	return r;
}

static int write_all(int fd, const char *text, size_t len)
{
	while (len) {
		ssize_t n = write(fd, text, len);

		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return -errno;
		text += n;
		len -= (size_t)n;
	}
	return 0;
}

static int write_state(int fd, const struct volume_state *v)
{
	struct json_object *o = state_to_json(v);
	const char *text;
	size_t len = 0;
	int r = -ENOMEM;

	text = o ? json_object_to_json_string_length(
			   o, JSON_C_TO_STRING_PRETTY | JSON_C_TO_STRING_NOSLASHESCAPE, &len)
		 : NULL;
	if (text)
		r = write_all(fd, text, len);
	if (!r)
		r = write_all(fd, "\n", 1);
	json_object_put(o);
	return r;
}

/* A new file under a name that nobody else has. */
static int make_temp(int dir_fd, char name[64])
{
	struct timespec now;

	for (unsigned int i = 0; i < 100; i++) {
		int fd;

		(void)clock_gettime(CLOCK_REALTIME, &now);
		(void)snprintf(name, 64, TEMP_PREFIX "%d-%lld-%ld-%u", (int)getpid(),
			       (long long)now.tv_sec, now.tv_nsec, i);
		fd = openat(dir_fd, name, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC | O_NOFOLLOW, 0644);
		if (fd >= 0)
			return fd;
		if (errno != EEXIST)
			return -errno;
	}
	return -EEXIST;
}

int state_file_replace(int dir_fd, const char *name, const struct volume_state *v, int *ret_fd)
{
	char temp[64];
	cleanup_fd int fd = make_temp(dir_fd, temp);
	int r;

	if (fd < 0)
		return fd;
	r = state_file_lock(fd);
	/* readable for all, whatever the umask: it holds no secret, and list needs no privilege */
	if (!r && fchmod(fd, 0644) < 0)
		r = -errno;
	if (!r)
		r = write_state(fd, v);
	if (!r && renameat(dir_fd, temp, dir_fd, name) < 0)
		r = -errno;
	if (r) {
		(void)unlinkat(dir_fd, temp, 0);
		return r;
	}
	*ret_fd = fd;
	fd = -1;
	return 0;
}

int state_file_unlink(int dir_fd, const char *name)
{
	static const char *const suffixes[] = { STATE_STATS, STATE_KEYS };
	int stem = (int)(strlen(name) - strlen(".json"));
	char beside[STATE_NAME_BYTES];

	for (size_t i = 0; i < sizeof(suffixes) / sizeof(suffixes[0]); i++) {
		(void)snprintf(beside, sizeof(beside), "%.*s%s", stem, name, suffixes[i]);
		(void)unlinkat(dir_fd, beside, 0);
	}
	return unlinkat(dir_fd, name, 0) < 0 ? -errno : 0;
}

static bool is_left_behind(int dir_fd, const char *name)
{
	cleanup_fd int fd = openat(dir_fd, name, O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK);
	struct stat st;
	bool locked = false;

	if (fd < 0 || fstat(fd, &st) < 0 || !S_ISREG(st.st_mode) || is_locked(fd, &locked) < 0)
		return false;
	return !locked && st.st_mtime + TEMP_AGE_S < time(NULL);
}

void state_file_clean(int dir_fd)
{
	int fd = openat(dir_fd, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	DIR *dir = fd < 0 ? NULL : fdopendir(fd);
	struct dirent *entry;

	if (!dir) {
		close_fd(&fd);
		return;
	}
	while ((entry = readdir(dir)))
		if (!strncmp(entry->d_name, TEMP_PREFIX, strlen(TEMP_PREFIX)) &&
		    is_left_behind(dir_fd, entry->d_name))
			(void)unlinkat(dir_fd, entry->d_name, 0);
	(void)closedir(dir);
}
