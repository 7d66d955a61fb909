/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Copyright (C) 2026 the rbdcrypt-nbd authors */

/*
 * The kinds of passphrase sources, and what they have in common: a prefix, a deadline, and words
 * for what went wrong. Everything that is read stays in the memory of include/secret.h; no stream
 * buffers it on the way. Called by chain_keys.c, and by control_client.c for a daemon. To add a
 * kind: a function in a file of its own and a row here.
 */

#include "key_kind.h"

#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "clock.h"
#include "path.h"

/* What is skipped, at a time. */
#define SKIP_BYTES ((size_t)65536)

struct kind {
	const char *prefix;
	int (*read)(const struct key_request *q, struct secret **ret, struct fault *f);
	int (*expand)(const char *text, const struct key_place *place, char **ret, struct fault *f);
	/* Whether it could be read, by permissions and names alone; NULL: that cannot be said. */
	int (*check)(const struct key_request *q, struct fault *f);
	enum key_repeat repeat;
	bool is_path; /* what follows the prefix */
	bool is_whole; /* it has no parts */
};

static const struct kind kinds[] = {
	{ "fd:", key_fd_read, key_expand, .repeat = KEY_ONCE },
	{ "cred:", key_cred_read, key_expand, .repeat = KEY_REPEATS },
	{ "ask:", key_ask_read, key_expand, .repeat = KEY_ASKS, .is_whole = true },
	{ "exec:", key_exec_read, key_words_expand, key_exec_check, .repeat = KEY_REPEATS },
	{ "unix:", key_socket_read, key_expand, key_socket_check, KEY_REPEATS, .is_path = true },
	/* As cryptsetup writes it; the percent sign is no specifier. */
	{ "keyring:%user:", key_ring_read, key_expand, .repeat = KEY_REPEATS, .is_whole = true },
	{ "keyring:", key_ring_read, key_expand, .repeat = KEY_REPEATS, .is_whole = true },
};
static const struct kind from_stdin = { "-", key_stdin_read, key_expand, .repeat = KEY_ONCE };
static const struct kind from_path = { "",	    key_file_read,  key_expand, key_file_check,
				       KEY_REPEATS, .is_path = true };

static const char default_source[] = "default:", no_source[] = "none";

static const struct kind *kind_of(const char *source)
{
	if (strcmp(source, "-") == 0)
		return &from_stdin;
	for (size_t i = 0; i < sizeof(kinds) / sizeof(kinds[0]); i++)
		if (strncmp(source, kinds[i].prefix, strlen(kinds[i].prefix)) == 0)
			return &kinds[i];
	return &from_path;
}

static int no_memory(struct fault *f)
{
	return fault_set(f, EXIT_MEMORY, -ENOMEM, "no memory for a passphrase source");
}

static int resolve_default(const struct key_place *place, char **ret, struct fault *f)
{
	int r = key_default("", place, ret);

	if (r == -ENOMEM)
		return no_memory(f);
	if (r < 0) {
		(void)fault_set(f, EXIT_PASSPHRASE, r, "there is no default passphrase for %s%s%s",
				place->pool, place->pool[0] ? "/" : "", place->image);
		fault_hint(f, "it would be the credential rbdcrypt.passphrase, or the file "
			      "POOL/IMAGE.key in /etc/rbdcrypt-keys.d or /run/rbdcrypt-keys.d");
	}
	return r;
}

int key_resolve(const char *source, const struct key_place *place, char **ret, struct fault *f)
{
	const struct kind *kind;
	char *text, *whole;
	int r;

	if (strcmp(source, default_source) == 0)
		return resolve_default(place, ret, f);
	kind = kind_of(source);
	if (kind == &from_stdin) {
		*ret = strdup(source);
		return *ret ? 0 : no_memory(f);
	}
	r = kind->expand(source + strlen(kind->prefix), place, &text, f);
	if (r < 0) {
		if (r == -ENOMEM)
			return no_memory(f);
		fault_prefix(f, "%s", source);
		return r;
	}
	r = asprintf(&whole, "%s%s", kind->prefix, text);
	free(text);
	if (r < 0)
		return no_memory(f);
	*ret = whole;
	return 0;
}

/* A path that leads to a pipe, or to whatever a descriptor of ours is. */
static bool is_stream(const char *path)
{
	static const char *const links[] = { "/dev/fd/", "/dev/std", "/proc/self/fd/" };
	struct stat st;

	for (size_t i = 0; i < sizeof(links) / sizeof(links[0]); i++)
		if (strncmp(path, links[i], strlen(links[i])) == 0)
			return true;
	return stat(path, &st) == 0 && (S_ISFIFO(st.st_mode) || S_ISCHR(st.st_mode));
}

enum key_repeat key_repeat(const char *resolved)
{
	const struct kind *kind = kind_of(resolved);

	return kind == &from_path && is_stream(resolved) ? KEY_ONCE : kind->repeat;
}

bool key_is_file(const char *resolved)
{
	return kind_of(resolved) == &from_path;
}

bool key_is_none(const char *source)
{
	return strcmp(source, no_source) == 0;
}

/* The name of the folder was not typed: a percent sign in it begins no specifier. */
static int path_with_folder(char **path)
{
	size_t typed = strlen(*path), here;
	char *text, *to;
	int r = path_make_absolute(path);

	if (r < 0)
		return r;
	here = strlen(*path) - typed;
	text = to = malloc(2 * here + typed + 1);
	if (!text)
		return -ENOMEM;
	for (size_t i = 0; i < here; i++) {
		if ((*path)[i] == '%')
			*to++ = '%';
		*to++ = (*path)[i];
	}
	memcpy(to, *path + here, typed + 1);
	free(*path);
	*path = text;
	return 0;
}

int key_make_absolute(char **source)
{
	const struct kind *kind = kind_of(*source);
	size_t n = strlen(kind->prefix);
	char *path, *whole;
	int r;

	/* Without a path it is badly written, and no folder's name may hide that. */
	if (!kind->is_path || (*source)[n] == '/' || !(*source)[n] ||
	    strcmp(*source, default_source) == 0 || key_is_none(*source))
		return 0;
	path = strdup(*source + n);
	if (!path)
		return -ENOMEM;
	r = path_with_folder(&path);
	if (r == 0 && asprintf(&whole, "%s%s", kind->prefix, path) < 0)
		r = -ENOMEM;
	free(path);
	if (r < 0)
		return r;
	free(*source);
	*source = whole;
	return 0;
}

/* ---- waiting ---- */

int key_is_late(const struct key_request *q)
{
	if (interrupt_is_raised(q->o->interrupt))
		return -EINTR;
	return q->deadline_ms && clock_ms() >= q->deadline_ms ? -ETIMEDOUT : 0;
}

int key_wait(const struct key_request *q, int fd, short events)
{
	struct pollfd p = { .fd = fd, .events = events };

	for (;;) {
		int n = poll(&p, 1, 0), r;

		if (n > 0)
			return 0;
		r = n < 0 && errno != EINTR ? -errno : key_is_late(q);
		if (r < 0)
			return r;
		(void)poll(&p, 1, INTERRUPT_SLICE_MS);
	}
}

static int wait_to_read(void *arg, int fd)
{
	return key_wait(arg, fd, POLLIN);
}

/* Reads n bytes into s, whatever pieces they come in. -ENOMSG when there are fewer. */
static int read_exactly(const struct key_request *q, int fd, struct secret *s, size_t n)
{
	for (size_t used = 0; used < n;) {
		int r = key_wait(q, fd, POLLIN);
		ssize_t got;

		if (r < 0)
			return r;
		got = read(fd, secret_data(s) + used, n - used);
		if (got < 0 && errno != EINTR && errno != EAGAIN)
			return -errno;
		if (got == 0)
			return -ENOMSG;
		used += got > 0 ? (size_t)got : 0;
	}
	return 0;
}

/* What cannot be sought in is read and forgotten. */
static int skip_offset(const struct key_request *q, int fd)
{
	uint64_t left = q->o->offset_bytes;
	struct secret *s;
	int r;

	if (left == 0 || lseek(fd, (off_t)left, SEEK_CUR) >= 0)
		return 0;
	r = errno == ESPIPE ? secret_new(SKIP_BYTES, &s) : -errno;
	if (r < 0)
		return r;
	while (r == 0 && left > 0) {
		size_t n = left < SKIP_BYTES ? (size_t)left : SKIP_BYTES;

		r = read_exactly(q, fd, s, n);
		left -= n;
	}
	(void)secret_free(s);
	return r;
}

static int read_part(const struct key_request *q, int fd, struct secret **ret)
{
	struct secret *s;
	int r = secret_new(q->o->size_bytes, &s);

	if (r == 0)
		r = read_exactly(q, fd, s, q->o->size_bytes);
	else
		s = NULL;
	if (r < 0)
		(void)secret_free(s);
	else
		*ret = s;
	return r;
}

int key_read_fd(const struct key_request *q, int fd, struct secret **ret)
{
	struct key_request copy = *q;
	int r = skip_offset(q, fd);

	if (r < 0)
		return r;
	return q->o->size_bytes > 0 ? read_part(q, fd, ret)
				    : secret_read_fd(fd, SECRET_MAX, wait_to_read, &copy, ret);
}

/* ---- words ---- */

static int explain(const struct kind *kind, const struct key_request *q, int r, struct fault *f)
{
	const char *noun = kind == &from_path ? "passphrase file" : "passphrase source";

	switch (r) {
	case -ENODATA:
		if (q->o->offset_bytes > 0)
			return fault_set(f, EXIT_PASSPHRASE, r,
					 "%s %s has nothing behind byte %llu", noun, q->source,
					 (unsigned long long)q->o->offset_bytes);
		return fault_set(f, EXIT_PASSPHRASE, r, "%s %s is empty", noun, q->source);
	case -ENOMSG:
		(void)fault_set(f, EXIT_PASSPHRASE, r, "%s %s ends before the passphrase does",
				noun, q->source);
		fault_hint(f, "--keyfile-offset and --keyfile-size say which part of it is meant");
		return r;
	case -EFBIG:
		(void)fault_set(f, EXIT_PASSPHRASE, r, "%s %s is larger than 8 MiB", noun,
				q->source);
		fault_hint(f, "give what holds the passphrase, byte for byte");
		return r;
	case -ENOMEM:
		return fault_set(f, EXIT_MEMORY, r, "no memory for the passphrase in %s",
				 q->source);
	case -ETIMEDOUT:
		/* Without a limit of ours it is what a file system in the network said. */
		if (q->o->timeout_s == 0)
			break;
		(void)fault_set(f, EXIT_TIMED_OUT, r, "%s %s gave nothing in %u seconds", noun,
				q->source, q->o->timeout_s);
		fault_hint(f, "--key-timeout allows for more");
		return r;
	case -EINTR:
		return fault_set(f, EXIT_TIMED_OUT, r, "%s %s: interrupted", noun, q->source);
	default:
		break;
	}
	return fault_set(f, fault_status(r, EXIT_PASSPHRASE), r, "cannot read %s %s: %s", noun,
			 q->source, strerror(-r));
}

int key_check(const char *resolved, const struct key_options *o, struct fault *f)
{
	const struct kind *kind = kind_of(resolved);
	const struct key_request q = { .source = resolved,
				       .text = resolved + strlen(kind->prefix),
				       .o = o };
	int r = kind->check ? kind->check(&q, f) : 0;

	return r < 0 ? explain(kind, &q, r, f) : 0;
}

int key_read(const char *resolved, const struct key_place *place, const struct key_options *o,
	     struct secret **ret, struct fault *f)
{
	const struct kind *kind = kind_of(resolved);
	struct key_request q = {
		.source = resolved, .text = resolved + strlen(kind->prefix), .place = place, .o = o
	};
	int r;

	if (o->timeout_s > 0)
		q.deadline_ms = clock_ms() + (int64_t)o->timeout_s * 1000;
	if (kind->is_whole && (o->offset_bytes > 0 || o->size_bytes > 0)) {
		(void)fault_set(f, EXIT_USAGE, -EINVAL, "%s: has no parts", resolved);
		fault_hint(f, "--keyfile-offset and --keyfile-size are for files and what can be "
			      "read like them; 0 in its place stands for all of it");
		return -EINVAL;
	}
	r = kind->read(&q, ret, f);
	return r < 0 ? explain(kind, &q, r, f) : 0;
}

int key_read_passed(int fd, const char *resolved, const struct key_place *place,
		    const struct key_options *o, struct secret **ret, struct fault *f)
{
	/* Whoever passes it has chosen the part. */
	const struct key_options whole = { .timeout_s = o->timeout_s, .interrupt = o->interrupt };
	struct key_request q = {
		.source = resolved, .text = resolved, .place = place, .o = &whole
	};
	int r;

	if (o->timeout_s > 0)
		q.deadline_ms = clock_ms() + (int64_t)o->timeout_s * 1000;
	r = key_read_fd(&q, fd, ret);
	return r < 0 ? explain(&from_path, &q, r, f) : 0;
}

bool key_has_newline(const struct secret *s)
{
	size_t len = secret_len(s);

	return len > 1 && secret_bytes(s)[len - 1] == '\n';
}
