/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Copyright (C) 2026 the rbdcrypt-nbd authors */

/*
 * Accepts clients and forgets them when they have gone. A client costs a thread and
 * its requests, so their number is bounded; the ones too many are turned away at once, and so are
 * those who are not on the list of the volume, if it has one: before they have cost anything, and
 * before they have been sent a byte.
 */

#include "listener.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "acceptor.h"
#include "conn.h"
#include "unix_socket.h"

#define CLIENTS_MAX 64
#define PREFERRED_BLOCK 4096

struct client {
	struct conn *conn;
	struct client *next;
};

struct listener {
	struct listener_options o;
	char *export_name;
	struct unix_socket_name name; /* to be removed, or "" */
	struct client *clients;
	unsigned int n_clients;
	struct log_limit refusals;
	struct acceptor acceptor;
	struct watch ended;
};

static void on_conn_ended(void *arg)
{
	struct listener *l = arg;

	event_raise(l->ended.fd);
}

/* ---- what the handshake asks; on the reader ---- */

static void describe(const struct listener *l, struct wire_export *ret)
{
	const struct volume *v = l->o.volume;

	memset(ret, 0, sizeof(*ret));
	ret->name = l->export_name;
	ret->description = v->spec;
	ret->size = atomic_load(&v->size);
	ret->flags = volume_flags(v);
	/* A larger minimum would turn clients away that do not ask for it; we serve any alignment.
	 */
	ret->min_block = 1;
	ret->preferred_block = PREFERRED_BLOCK;
	ret->max_block = WIRE_MAX_PAYLOAD;
	ret->has_status = v->store->ops->status != NULL;
}

static int find_export(void *arg, const char *name, struct wire_export *ret)
{
	struct listener *l = arg;

	if (name[0] && strcmp(name, l->export_name) != 0)
		return -ENOENT;
	describe(l, ret);
	return 0;
}

static int list_export(void *arg, unsigned int i, struct wire_export *ret)
{
	if (i > 0)
		return -ENOENT;
	describe(arg, ret);
	return 0;
}

/* ---- clients ---- */

/* Takes the descriptors on success. */
static int add_client(struct listener *l, int rfd, int wfd)
{
	struct conn_options o = { .volume = l->o.volume,
				  .rfd = rfd,
				  .wfd = wfd,
				  .find = find_export,
				  .list = list_export,
				  .export_arg = l,
				  .ended = on_conn_ended,
				  .ended_arg = l };
	struct client *c = calloc(1, sizeof(*c));
	int r;

	if (!c)
		return -ENOMEM;
	r = conn_new(&o, &c->conn);
	if (r < 0) {
		free(c);
		return r;
	}
	c->next = l->clients;
	l->clients = c;
	l->n_clients++;
	return 0;
}

/* By the list. A client that is not on it can come as often as it likes, so it is told seldom. */
static bool is_welcome(struct listener *l, int fd)
{
	struct ucred peer = { .uid = (uid_t)-1 };
	unsigned int more;
	int r;

	if (!l->o.peers)
		return true;
	r = peers_credentials(fd, &peer);
	if (r == 0 && peers_allow(l->o.peers, fd, &peer))
		return true;
	atomic_fetch_add(&l->o.volume->stats->refused, 1);
	if (!log_allowed(&l->refusals, &more))
		return false;
	if (r < 0)
		log_warning(l->o.volume->spec, "turned a client away: who it is cannot be told: %s",
			    strerror(-r));
	else
		log_warning(l->o.volume->spec,
			    "turned a client away: process %d of user %u is not on the list "
			    "(%u more since the last message)",
			    (int)peer.pid, (unsigned int)peer.uid, more);
	return false;
}

static void on_came(struct acceptor *a, int fd)
{
	struct listener *l = (struct listener *)((char *)a - offsetof(struct listener, acceptor));
	unsigned int more;
	int r;

	if (!is_welcome(l, fd)) {
		(void)close(fd);
		return;
	}
	r = l->n_clients < CLIENTS_MAX ? add_client(l, fd, fd) : -EMFILE;
	if (r == 0)
		return;
	if (log_allowed(&l->refusals, &more))
		log_warning(l->o.volume->spec,
			    "turned a client away: %s (%u more since the last message)",
			    strerror(-r), more);
	(void)close(fd);
}

static void on_ended(struct watch *w)
{
	struct listener *l = (struct listener *)((char *)w - offsetof(struct listener, ended));
	struct client **link = &l->clients;

	event_clear(w->fd);
	while (*link) {
		struct client *c = *link;

		if (conn_ended(c->conn) == CONN_RUNNING) {
			link = &c->next;
			continue;
		}
		*link = c->next;
		(void)conn_free(c->conn);
		free(c);
		l->n_clients--;
	}
	if (l->o.is_single && l->n_clients == 0)
		l->o.gone(l->o.gone_arg);
}

/* ---- the socket ---- */

static int open_path(struct listener *l, struct fault *f)
{
	const char *path = l->o.path;
	int fd = unix_socket_listen(path, &l->o.access, CLIENTS_MAX, &l->name);

	if (fd == -ENAMETOOLONG)
		return fault_set(f, EXIT_USAGE, fd, "socket path %s is longer than %zu bytes", path,
				 sizeof(((struct sockaddr_un *)0)->sun_path) - 1);
	if (fd == -EADDRINUSE)
		return fault_set(f, EXIT_BUSY, fd, "another server listens on %s", path);
	if (fd == -EPERM)
		return fault_set(f, EXIT_PASSPHRASE, fd,
				 "socket %s: this process may not give it that owner or group",
				 path);
	if (fd < 0) {
		(void)fault_set(f, fd == -EEXIST ? EXIT_BUSY : fault_status(fd, EXIT_NOT_FOUND), fd,
				"cannot listen on %s: %s", path, strerror(-fd));
		if (fd == -EEXIST)
			fault_hint(f, "a file that is no socket is in the way");
		else if (fd == -EROFS)
			fault_hint(f, "a hardened service writes below its run directory only: "
				      "put the socket there, or use --no-daemon");
		return fd;
	}
	return fd;
}

/* One that was passed may be anything, and a blocking accept() could hold the volume's thread. */
static int check_passed(int fd, bool has_list, struct fault *f)
{
	int is_listening = 0, domain = 0, flags = fcntl(fd, F_GETFL);
	socklen_t len = sizeof(is_listening), domain_len = sizeof(domain);

	if (flags < 0 || getsockopt(fd, SOL_SOCKET, SO_ACCEPTCONN, &is_listening, &len) < 0 ||
	    !is_listening)
		return fault_set(f, EXIT_USAGE, -ENOTSOCK,
				 "descriptor %d, which was passed, is no listening stream socket",
				 fd);
	if (has_list &&
	    (getsockopt(fd, SOL_SOCKET, SO_DOMAIN, &domain, &domain_len) < 0 || domain != AF_UNIX))
		return fault_set(f, EXIT_USAGE, -EPROTOTYPE,
				 "descriptor %d, which was passed, is no unix socket: there is no "
				 "telling who connects, so there can be no list of users",
				 fd);
	if (fcntl(fd, F_SETFL, flags | O_NONBLOCK) < 0)
		return fault_set(f, EXIT_USAGE, -errno, "descriptor %d: %s", fd, strerror(errno));
	return fd;
}

static int start(struct listener *l, struct fault *f)
{
	int r = loop_watch(l->o.loop, &l->ended, event_new(), on_ended), fd = l->o.fd;

	if (r < 0)
		return fault_set(f, EXIT_MEMORY, r, "cannot watch clients: %s", strerror(-r));
	if (l->o.is_single) {
		r = add_client(l, l->o.in_fd, l->o.out_fd);
		return r < 0 ? fault_set(f, EXIT_MEMORY, r, "cannot serve on standard input: %s",
					 strerror(-r))
			     : 0;
	}
	fd = l->o.path ? open_path(l, f) : check_passed(fd, l->o.peers != NULL, f);
	if (fd < 0)
		return fd;
	r = acceptor_start(&l->acceptor, fd);
	if (r == 0)
		return 0;
	/* What was passed stays the caller's. */
	if (l->o.path) {
		unix_socket_remove(&l->name);
		(void)close(fd);
	}
	return fault_set(f, EXIT_USAGE, r, "cannot listen on the socket: %s", strerror(-r));
}

int listener_start(const struct listener_options *o, struct listener **ret, struct fault *f)
{
	struct listener *l = calloc(1, sizeof(*l));
	int r;

	if (!l)
		return fault_set(f, EXIT_MEMORY, -ENOMEM, "no memory for the socket");
	l->o = *o;
	l->ended.fd = -1;
	acceptor_init(&l->acceptor);
	l->acceptor.loop = o->loop;
	l->acceptor.subject = o->volume->spec;
	l->acceptor.came = on_came;
	l->export_name = strdup(o->export_name);
	r = l->export_name ? start(l, f)
			   : fault_set(f, EXIT_MEMORY, -ENOMEM, "no memory for the socket");
	if (r < 0) {
		(void)listener_stop(l);
		return r;
	}
	*ret = l;
	return 0;
}

struct listener *listener_stop(struct listener *l)
{
	if (!l)
		return NULL;
	loop_remove(l->o.loop, &l->ended);
	/* First the name, so that nobody new comes. */
	unix_socket_remove(&l->name);
	acceptor_stop(&l->acceptor);
	for (struct client *c = l->clients; c; c = c->next)
		conn_stop(c->conn);
	while (l->clients) {
		struct client *c = l->clients;

		l->clients = c->next;
		(void)conn_free(c->conn);
		free(c);
	}
	if (l->ended.fd >= 0)
		(void)close(l->ended.fd);
	free(l->export_name);
	free(l);
	return NULL;
}
