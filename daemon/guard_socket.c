/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Copyright (C) 2026 the rbdcrypt-nbd authors */

/*
 * Both ends of the guard's socket. It carries packets: one byte that asks, for a check of the keys
 * or for a look at what the state file says, and one answer
 *
 *	exit status, newline, message, newline, hint
 *
 * with nothing behind the newlines when all is well. Only the volume's own user and root can
 * connect, by the mode of the file. A client that says nothing costs a place until it goes; when
 * all places are taken, the next one is cut off and told so by that.
 */

#include "guard_socket.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include "acceptor.h"
#include "clock.h"
#include "silence.h"
#include "text.h"

#define CLIENTS_MAX 16
#define ANSWER_MAX 2048
#define ASK_CHECK 'c'
#define ASK_ACCEPT 'a'
#define ASK_LOOK 'l'

struct client {
	struct watch watch; /* fd -1: free */
	struct guard_socket *socket;
	bool is_waiting, is_looking; /* for a check, for a look */
};

struct guard_socket {
	struct guard_socket_options o;
	char path[4400];
	struct acceptor acceptor;
	struct client clients[CLIENTS_MAX];
};

/*
 * The names of state files are longer than a socket's address may be. So the socket is made under a
 * short name and renamed, and connected to through a descriptor of its file.
 */
static void address_at(int fd, const char *name, struct sockaddr_un *ret)
{
	memset(ret, 0, sizeof(*ret));
	ret->sun_family = AF_UNIX;
	(void)snprintf(ret->sun_path, sizeof(ret->sun_path), "/proc/self/fd/%d%s%s", fd,
		       name ? "/" : "", name ? name : "");
}

/* ---- the daemon's end ---- */

static void forget(struct client *c)
{
	loop_remove(c->socket->o.loop, &c->watch);
	if (c->watch.fd >= 0)
		(void)close(c->watch.fd);
	c->watch.fd = -1;
	c->is_waiting = c->is_looking = false;
}

static void on_client(struct watch *w)
{
	struct client *c = (struct client *)((char *)w - offsetof(struct client, watch));
	static const char asks[] = { ASK_CHECK, ASK_ACCEPT, ASK_LOOK };
	char ask = '?';
	ssize_t n = recv(w->fd, &ask, 1, MSG_DONTWAIT);

	if (n < 0 && (errno == EAGAIN || errno == EINTR))
		return;
	/* The end, a second question, or none that we know. */
	if (n <= 0 || c->is_waiting || c->is_looking || !memchr(asks, ask, sizeof(asks))) {
		forget(c);
		return;
	}
	c->is_looking = ask == ASK_LOOK;
	c->is_waiting = !c->is_looking;
	c->socket->o.asked(c->socket->o.arg, ask == ASK_LOOK	 ? GUARD_LOOK
					     : ask == ASK_ACCEPT ? GUARD_ACCEPT
								 : GUARD_CHECK);
}

static void on_came(struct acceptor *a, int fd)
{
	struct guard_socket *s =
		(struct guard_socket *)((char *)a - offsetof(struct guard_socket, acceptor));

	for (unsigned int i = 0; i < CLIENTS_MAX; i++) {
		struct client *c = &s->clients[i];

		if (c->watch.fd >= 0)
			continue;
		c->watch.fd = fd;
		if (loop_add(s->o.loop, &c->watch) < 0)
			forget(c);
		return;
	}
	(void)close(fd);
}

static void answer(struct client *c, const char *text, size_t n)
{
	(void)!send(c->watch.fd, text, n, MSG_DONTWAIT | MSG_NOSIGNAL);
	forget(c);
}

void guard_socket_answer(struct guard_socket *s, const struct fault *f)
{
	char text[ANSWER_MAX];
	int n = snprintf(text, sizeof(text), "%d\n%s\n%s", f->error ? (int)f->status : EXIT_OK,
			 f->message, f->hint);

	for (unsigned int i = 0; n > 0 && i < CLIENTS_MAX; i++)
		if (s->clients[i].is_waiting)
			answer(&s->clients[i], text, (size_t)n);
}

void guard_socket_looked(struct guard_socket *s)
{
	static const char done[] = "0\n\n";

	for (unsigned int i = 0; i < CLIENTS_MAX; i++)
		if (s->clients[i].is_looking)
			answer(&s->clients[i], done, sizeof(done) - 1);
}

/* Makes fd's file and gives it its name. */
static int bind_file(int fd, const char *run_dir, const char *path)
{
	int dir = open(run_dir, O_PATH | O_DIRECTORY | O_CLOEXEC), r = 0;
	struct sockaddr_un a;
	char name[48];

	if (dir < 0)
		return -errno;
	/* Unlike all others that live: the number of the socket is ours. */
	(void)snprintf(name, sizeof(name), ".keys-%d-%d", (int)getpid(), fd);
	address_at(dir, name, &a);
	if (unlinkat(dir, name, 0) < 0 && errno != ENOENT)
		r = -errno;
	/* Before bind(): the file gets this mode at once. */
	if (r == 0 &&
	    (fchmod(fd, 0600) < 0 || bind(fd, (const struct sockaddr *)&a, sizeof(a)) < 0))
		r = -errno;
	if (r == 0 && renameat(dir, name, AT_FDCWD, path) < 0) {
		r = -errno;
		(void)unlinkat(dir, name, 0);
	}
	(void)close(dir);
	return r;
}

static int listen_at(const struct guard_socket *s)
{
	int fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0), r;

	if (fd < 0)
		return -errno;
	r = bind_file(fd, s->o.run_dir, s->path);
	if (r == 0 && listen(fd, CLIENTS_MAX) < 0) {
		r = -errno;
		(void)unlink(s->path);
	}
	if (r < 0)
		(void)close(fd);
	return r < 0 ? r : fd;
}

int guard_socket_new(const struct guard_socket_options *o, struct guard_socket **ret)
{
	struct guard_socket *s = calloc(1, sizeof(*s));
	int fd, r;

	if (!s)
		return -ENOMEM;
	s->o = *o;
	acceptor_init(&s->acceptor);
	s->acceptor.loop = o->loop;
	s->acceptor.came = on_came;
	for (unsigned int i = 0; i < CLIENTS_MAX; i++) {
		s->clients[i].watch.fd = -1;
		s->clients[i].watch.ready = on_client;
		s->clients[i].socket = s;
	}
	r = state_beside(o->run_dir, o->key, STATE_KEYS, s->path, sizeof(s->path));
	fd = r < 0 ? r : listen_at(s);
	r = fd < 0 ? fd : acceptor_start(&s->acceptor, fd);
	if (r < 0 && fd >= 0) {
		(void)unlink(s->path);
		(void)close(fd);
	}
	if (r < 0) {
		(void)guard_socket_free(s);
		return r;
	}
	*ret = s;
	return 0;
}

struct guard_socket *guard_socket_free(struct guard_socket *s)
{
	if (!s)
		return NULL;
	for (unsigned int i = 0; i < CLIENTS_MAX; i++)
		forget(&s->clients[i]);
	if (s->acceptor.listening.fd >= 0)
		(void)unlink(s->path);
	acceptor_stop(&s->acceptor);
	free(s);
	return NULL;
}

/* ---- the commands' end ---- */

static bool has_keys(const struct volume_state *v)
{
	for (unsigned int i = 0; i < v->n_layers; i++)
		if (v->layers[i].key_health[0] && strcmp(v->layers[i].key_health, "none") != 0)
			return true;
	return false;
}

/* A connection, or -errno. */
static int dial(const char *path, int flags)
{
	int file = open(path, O_PATH | O_CLOEXEC), fd, r = 0;
	struct sockaddr_un a;

	if (file < 0)
		return -errno;
	address_at(file, NULL, &a);
	fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | flags, 0);
	if (fd < 0 || silence_limit_send(fd) < 0 ||
	    connect(fd, (const struct sockaddr *)&a, sizeof(a)) < 0)
		r = -errno;
	(void)close(file);
	if (r < 0 && fd >= 0)
		(void)close(fd);
	return r < 0 ? r : fd;
}

/* One on which the question is asked. */
static int ask_at(const char *path, char ask, int flags)
{
	int fd = dial(path, flags), r;

	if (fd < 0 || send(fd, &ask, 1, MSG_NOSIGNAL) == 1)
		return fd;
	r = -errno;
	(void)close(fd);
	return r;
}

/* A client that goes without a question is forgotten at once, by who is not wedged. */
static bool is_listening(const char *path)
{
	int fd = dial(path, 0), r;

	if (fd < 0)
		return fd != -EAGAIN;
	(void)shutdown(fd, SHUT_WR);
	r = silence_wait(fd, SILENCE_S);
	(void)close(fd);
	return r != -ETIMEDOUT;
}

static int exchange(const char *path, char ask, char answer[ANSWER_MAX])
{
	int fd = ask_at(path, ask, 0), r;
	ssize_t n = 0;

	if (fd < 0)
		/* A queue that nobody empties. */
		return fd == -EAGAIN ? -ETIMEDOUT : fd;
	/* A check takes as long as keys and cluster do. */
	r = silence_outwait(fd, is_listening, path);
	while (r == 0 && (n = recv(fd, answer, ANSWER_MAX - 1, 0)) < 0)
		if (errno != EINTR)
			r = -errno;
	if (r == 0 && n == 0)
		r = -ECONNRESET;
	if (r == 0)
		answer[n] = '\0';
	(void)close(fd);
	return r;
}

/* From text to fault; -EBADMSG. */
static int read_answer(char *answer, struct fault *f)
{
	char *message = strchr(answer, '\n'), *hint = message ? strchr(message + 1, '\n') : NULL;
	int status;

	if (!hint)
		return -EBADMSG;
	*message++ = '\0';
	*hint++ = '\0';
	status = atoi(answer);
	if (status == EXIT_OK)
		return 0;
	(void)fault_set(f, EXIT_SAFEGUARD, -EKEYREJECTED, "%s", message);
	fault_hint(f, "%s", hint);
	return -EKEYREJECTED;
}

int guard_ask(const char *run_dir, const struct volume_state *v, bool is_accepting, struct fault *f)
{
	char path[4400], answer[ANSWER_MAX], spec[1024], who[1040];
	int r;

	if (!volume_is_alive(v) || v->status == VOLUME_STARTING || !has_keys(v))
		return 0;
	r = state_beside(run_dir, v->key, STATE_KEYS, path, sizeof(path));
	if (r == 0)
		r = exchange(path, is_accepting ? ASK_ACCEPT : ASK_CHECK, answer);
	if (r == 0)
		r = read_answer(answer, f);
	/* It ended in the meantime. */
	if (r < 0 && r != -EKEYREJECTED && state_wait_gone(run_dir, v, 0) == 0)
		return 0;
	volume_state_spec(v, spec, sizeof(spec));
	if (r == -EACCES) {
		/* Who may not ask may not end it either: no word of --force. */
		(void)fault_set(f, EXIT_PASSPHRASE, r,
				"%s: its daemon (process %d) may not be asked whether it could be "
				"opened again: %s",
				spec, v->pid, strerror(-r));
		fault_hint(f, "be root, or the user that the daemon runs as");
	} else if (r == -ETIMEDOUT) {
		(void)snprintf(who, sizeof(who), "%s: its daemon", spec);
		(void)silence_fault(f, who, v->pid);
	} else if (r < 0 && r != -EKEYREJECTED) {
		(void)fault_set(f, EXIT_SAFEGUARD, r,
				"%s: its daemon (process %d) does not say whether it could be "
				"opened again: %s",
				spec, v->pid, strerror(-r));
		fault_hint(f, "unmap --force does not look");
	}
	return r;
}

/* Until all have answered that were asked, or the time is over. */
static void wait_answers(struct pollfd *p, unsigned int n, unsigned int timeout_ms, int *ret)
{
	int64_t end = clock_ms() + timeout_ms, left;
	unsigned int n_left = 0;
	char byte;

	for (unsigned int i = 0; i < n; i++)
		n_left += p[i].fd >= 0;
	while (n_left > 0 && (left = end - clock_ms()) > 0) {
		if (poll(p, n, (int)left) < 0 && errno != EINTR)
			return;
		for (unsigned int i = 0; i < n; i++) {
			if (p[i].fd < 0 || !p[i].revents)
				continue;
			ret[i] = recv(p[i].fd, &byte, 1, MSG_DONTWAIT) > 0 ? 0 : -ECONNRESET;
			(void)close(p[i].fd);
			p[i].fd = -1;
			n_left--;
		}
	}
}

static int ask_for_look(const char *run_dir, const struct volume_state *v)
{
	char path[4400];
	int r;

	if (!volume_is_alive(v) || v->status == VOLUME_STARTING)
		return -ESRCH;
	r = state_beside(run_dir, v->key, STATE_KEYS, path, sizeof(path));
	return r < 0 ? r : ask_at(path, ASK_LOOK, SOCK_NONBLOCK);
}

int guard_look(const char *run_dir, const struct volume_state *v, unsigned int n,
	       unsigned int timeout_ms, int *ret)
{
	struct pollfd *p = calloc(n + 1, sizeof(*p));

	if (!p)
		return -ENOMEM;
	for (unsigned int i = 0; i < n; i++) {
		p[i].fd = ask_for_look(run_dir, &v[i]);
		p[i].events = POLLIN;
		ret[i] = p[i].fd >= 0 ? -ETIMEDOUT : p[i].fd == -ESRCH ? 0 : p[i].fd;
	}
	wait_answers(p, n, timeout_ms, ret);
	for (unsigned int i = 0; i < n; i++)
		if (p[i].fd >= 0)
			(void)close(p[i].fd);
	free(p);
	return 0;
}
