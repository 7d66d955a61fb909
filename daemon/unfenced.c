/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Copyright (C) 2026 the rbdcrypt-nbd authors */

/* The name of a file is made from both its lines, so that neither needs a lock nor is there twice.
 */

#include "unfenced.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "state.h"

/* Identity, client and two newlines. */
#define TEXT_MAX 800

static int make_path(const char *run_dir, const char *id, const char *client, char *buf, size_t len)
{
	char key[TEXT_MAX];
	int n = snprintf(key, sizeof(key), "%s %s", id, client);

	if (n < 0 || (size_t)n >= sizeof(key) - 2)
		return -ENAMETOOLONG;
	return state_beside(run_dir, key, UNFENCED_SUFFIX, buf, len);
}

int unfenced_note(const char *run_dir, const char *id, const char *client)
{
	char path[4400], text[TEXT_MAX];
	int r = make_path(run_dir, id, client, path, sizeof(path)), fd, n;

	if (r < 0)
		return r;
	/* Whoever died before it was complete left nothing that counts. */
	fd = open(path, O_WRONLY | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0644);
	if (fd < 0)
		return -errno;
	n = snprintf(text, sizeof(text), "%s\n%s\n", id, client);
	errno = EIO;
	if (write(fd, text, (size_t)n) != n)
		r = -errno;
	(void)close(fd);
	return r;
}

void unfenced_forget(const char *run_dir, const char *id, const char *client)
{
	char path[4400];

	if (make_path(run_dir, id, client, path, sizeof(path)) == 0)
		(void)unlink(path);
}

/* The client, if the file is complete and of this image. */
static char *read_client(int dir_fd, const char *name, const char *id, char text[TEXT_MAX])
{
	int fd = openat(dir_fd, name, O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK);
	ssize_t n = fd < 0 ? -1 : read(fd, text, TEXT_MAX - 1);
	size_t len = strlen(id);
	char *end;

	if (fd >= 0)
		(void)close(fd);
	if (n < 0)
		return NULL;
	text[n] = '\0';
	if (strncmp(text, id, len) != 0 || text[len] != '\n')
		return NULL;
	end = strchr(text + len + 1, '\n');
	if (!end)
		return NULL;
	*end = '\0';
	return text + len + 1;
}

void unfenced_each(const char *run_dir, const char *id, void (*each)(void *arg, const char *client),
		   void *arg)
{
	DIR *dir = opendir(run_dir);
	const size_t suffix = strlen(UNFENCED_SUFFIX);
	struct dirent *entry;

	while (dir && (entry = readdir(dir))) {
		size_t len = strlen(entry->d_name);
		char text[TEXT_MAX], *client;

		if (len <= suffix || strcmp(entry->d_name + len - suffix, UNFENCED_SUFFIX) != 0)
			continue;
		client = read_client(dirfd(dir), entry->d_name, id, text);
		if (client)
			each(arg, client);
	}
	if (dir)
		(void)closedir(dir);
}
