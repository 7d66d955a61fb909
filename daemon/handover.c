/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Copyright (C) 2026 the rbdcrypt-nbd authors */

/*
 * The descriptor store of systemd, or of whatever speaks the same (sd_notify(3), "FDSTORE=1"; what
 * was stored comes back as sd_listen_fds(3) says). The daemon that ends puts its sockets there, the
 * one that begins takes them out; the kernel sees nothing of it. The control thread makes and frees
 * it, the threads of volumes give and take; the mutex is held for the list only, never while
 * somebody is waited for.
 *
 * A descriptor from the store proves nothing. The number of its inode says which socket it is, as
 * long as it lives, and the state file remembers the numbers from the moment of the hand-over until
 * somebody else has the volume. So a socket that is left from an earlier life, or that another put
 * there, is never served; it is closed, which breaks it for the kernel, and then the kernel takes a
 * new one.
 *
 * A socket must not stay in the store while it is served: after a crash the kernel has to see that
 * it is broken, and does not while the service manager keeps a copy.
 *
 * systemd drops from its store what hangs up. That is wanted (no FDPOLL=0): a socket that the
 * kernel gave up is of no use to anybody.
 */

#include "handover.h"

#include <errno.h>
#include <inttypes.h>
#include <poll.h>
#include <pthread.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <systemd/sd-daemon.h>
#include <unistd.h>

#include "log.h"

/* For the service manager to read what we told it; it may be busy with a whole system. */
#define BARRIER_US (20 * UINT64_C(1000000))

struct passed {
	struct passed *next;
	int fd, device;
	unsigned int slot;
};

struct handover {
	pthread_mutex_t mutex;
	struct passed *passed; /* guarded by mutex */
};

/* ---- the store ---- */

static void name_socket(char buf[32], int device, unsigned int slot)
{
	(void)snprintf(buf, 32, "nbd%d-%u", device, slot);
}

/* Only what name_socket() writes. */
static bool parse_name(const char *name, int *ret_device, unsigned int *ret_slot)
{
	char again[32];

	if (sscanf(name, "nbd%9d-%9u", ret_device, ret_slot) != 2 || *ret_device < 0)
		return false;
	name_socket(again, *ret_device, *ret_slot);
	return strcmp(again, name) == 0;
}

/* From systemd 254 on the environment says how many it takes. Older ones are tried. */
static bool is_usable(void)
{
	const char *max = getenv("FDSTORE");

	return getenv("NOTIFY_SOCKET") && (!max || strtoul(max, NULL, 10) > 0);
}

static int store(const char *name, int fd)
{
	char message[64];
	int r;

	(void)snprintf(message, sizeof(message), "FDSTORE=1\nFDNAME=%s", name);
	r = sd_pid_notify_with_fds(0, 0, message, &fd, 1);
	return r > 0 ? 0 : r < 0 ? r : -EOPNOTSUPP;
}

static void forget(const char *name)
{
	(void)sd_notifyf(0, "FDSTOREREMOVE=1\nFDNAME=%s", name);
}

/* Until the service manager has done all that it was told. */
static int wait_done(void)
{
	int r = sd_notify_barrier(0, BARRIER_US);

	return r > 0 ? 0 : r < 0 ? r : -EOPNOTSUPP;
}

/* ---- one socket ---- */

static uint64_t inode_of(int fd)
{
	struct stat st;

	return fstat(fd, &st) == 0 && S_ISSOCK(st.st_mode) ? st.st_ino : 0;
}

static bool has_option(int fd, int option, int value)
{
	int got = -1;
	socklen_t len = sizeof(got);

	return getsockopt(fd, SOL_SOCKET, option, &got, &len) == 0 && got == value;
}

/* Whether it is a connected socket of the kind that we give the kernel, with its other end open. */
static bool is_alive(int fd)
{
	struct pollfd p = { .fd = fd, .events = POLLRDHUP };

	return has_option(fd, SO_DOMAIN, AF_UNIX) && has_option(fd, SO_TYPE, SOCK_STREAM) &&
	       has_option(fd, SO_ACCEPTCONN, 0) && poll(&p, 1, 0) >= 0 &&
	       !(p.revents & (POLLRDHUP | POLLHUP | POLLERR | POLLNVAL));
}

/* ---- giving ---- */

int handover_give(struct handover *h, int device, const int *fds, unsigned int n, char *note)
{
	char name[32], text[HANDOVER_NOTE_BYTES] = "";
	size_t len = 0;
	int r = 0, given = 0;

	if (!h || !is_usable())
		return -EOPNOTSUPP;
	for (unsigned int i = 0; r == 0 && i < n; i++) {
		uint64_t inode = fds[i] >= 0 && is_alive(fds[i]) ? inode_of(fds[i]) : 0;

		name_socket(name, device, i);
		if (inode != 0) {
			r = store(name, fds[i]);
			given++;
		}
		len += (size_t)snprintf(text + len, sizeof(text) - len, "%s%" PRIu64,
					i > 0 ? " " : "", inode);
		if (len >= sizeof(text))
			r = -ENAMETOOLONG;
	}
	/* A message of a process that has ended is nobody's to systemd. */
	if (r == 0)
		r = wait_done();
	if (r < 0)
		return r;
	memcpy(note, text, len + 1);
	return given;
}

/* ---- taking ---- */

/* Takes those that are not wanted out of the list. */
static struct passed *unlink_some(struct handover *h, bool (*is_wanted)(void *arg, int device),
				  void *arg)
{
	struct passed **link = &h->passed, *out = NULL;

	(void)pthread_mutex_lock(&h->mutex);
	while (*link) {
		struct passed *p = *link;

		if (is_wanted && is_wanted(arg, p->device)) {
			link = &p->next;
			continue;
		}
		*link = p->next;
		p->next = out;
		out = p;
	}
	(void)pthread_mutex_unlock(&h->mutex);
	return out;
}

/* The store forgets the names of the list. */
static void forget_all(const struct passed *list)
{
	char name[32];
	int r;

	if (!list)
		return;
	for (const struct passed *p = list; p; p = p->next) {
		name_socket(name, p->device, p->slot);
		forget(name);
	}
	r = wait_done();
	if (r < 0)
		log_warning(NULL,
			    "the service manager does not say that it has let go of nbd%d: %s",
			    list->device, strerror(-r));
}

static void close_all(struct passed *list)
{
	while (list) {
		struct passed *p = list;

		list = p->next;
		if (p->fd >= 0)
			(void)close(p->fd);
		free(p);
	}
}

/* The slot's number in the note, 0: none. */
static uint64_t inode_in(const char *note, unsigned int slot)
{
	char *end;

	for (unsigned int i = 0; *note >= '0' && *note <= '9'; i++) {
		uint64_t inode = strtoull(note, &end, 10);

		if (i == slot)
			return inode;
		note = *end == ' ' ? end + 1 : end;
	}
	return 0;
}

static bool is_other(void *arg, int device)
{
	return device != *(const int *)arg;
}

unsigned int handover_take(struct handover *h, int device, const char *note, unsigned int n,
			   int *ret_fds)
{
	struct passed *list = h ? unlink_some(h, is_other, &device) : NULL;
	unsigned int taken = 0;

	for (unsigned int i = 0; i < n; i++)
		ret_fds[i] = -1;
	/* First, because closing it does not break it while there is a copy. */
	forget_all(list);
	for (struct passed *p = list; p; p = p->next) {
		uint64_t inode = p->slot < n ? inode_in(note, p->slot) : 0;

		if (inode == 0 || inode != inode_of(p->fd) || !is_alive(p->fd) ||
		    ret_fds[p->slot] >= 0)
			continue;
		ret_fds[p->slot] = p->fd;
		p->fd = -1;
		taken++;
	}
	close_all(list);
	return taken;
}

void handover_sweep(struct handover *h, bool (*is_wanted)(void *arg, int device), void *arg)
{
	struct passed *list = h ? unlink_some(h, is_wanted, arg) : NULL;

	for (const struct passed *p = list; p; p = p->next)
		log_notice(NULL, "a socket of nbd%d is kept, but nobody serves it any more: closed",
			   p->device);
	forget_all(list);
	close_all(list);
}

bool handover_is_waiting(struct handover *h)
{
	bool is_waiting;

	if (!h)
		return false;
	(void)pthread_mutex_lock(&h->mutex);
	is_waiting = h->passed != NULL;
	(void)pthread_mutex_unlock(&h->mutex);
	return is_waiting;
}

/* ---- life ---- */

/* One that was passed: kept, the listener, or not ours. 0 or -ENOMEM. */
static int receive(struct handover *h, int fd, const char *name, const char *listen_name,
		   int *listen_fd)
{
	int device;
	unsigned int slot;
	struct passed *p;

	if (listen_name && strcmp(name, listen_name) == 0 && *listen_fd < 0) {
		*listen_fd = fd;
		return 0;
	}
	if (!parse_name(name, &device, &slot)) {
		log_notice(NULL, "the service manager passed '%s', which is not ours: closed",
			   name);
		forget(name);
		(void)close(fd);
		return 0;
	}
	p = calloc(1, sizeof(*p));
	if (!p)
		return -ENOMEM;
	p->fd = fd;
	p->device = device;
	p->slot = slot;
	p->next = h->passed;
	h->passed = p;
	return 0;
}

int handover_new(const char *listen_name, int *ret_listen_fd, struct handover **ret)
{
	struct handover *h = calloc(1, sizeof(*h));
	char **names = NULL;
	int n, listen_fd = -1, r = 0;

	if (!h)
		return -ENOMEM;
	(void)pthread_mutex_init(&h->mutex, NULL);
	n = sd_listen_fds_with_names(1, &names);
	for (int i = 0; i < n; i++) {
		if (r == 0)
			r = receive(h, SD_LISTEN_FDS_START + i, names[i], listen_name, &listen_fd);
		free(names[i]);
	}
	free(names);
	if (n == -ENOMEM)
		r = n;
	if (r < 0) {
		(void)handover_free(h);
		return r;
	}
	*ret_listen_fd = listen_fd;
	*ret = h;
	return 0;
}

struct handover *handover_free(struct handover *h)
{
	if (!h)
		return NULL;
	close_all(h->passed);
	(void)pthread_mutex_destroy(&h->mutex);
	free(h);
	return NULL;
}
