/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Copyright (C) 2026 the rbdcrypt-nbd authors */

/*
 * Accepts clients, cuts what they send into messages, and sends the answers. A client can do
 * nothing to us but waste a place: everything it can make us hold is bounded, and for how long: one
 * whose message is not complete, or whose answer is not taken, some seconds after it began is cut,
 * however it goes about it. Nothing is held for one that is silent, and of a message that is under
 * way nothing but what is to be answered. When all places are taken, the one that has said nothing
 * for longest makes room.
 *
 * Calls of one client are answered in order: the next is looked at when the last has its answer,
 * and until then what it sends stays in the socket.
 */

#include "control.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "acceptor.h"
#include "clock.h"
#include "control_message.h"
#include "control_request.h"
#include "log.h"
#include "peers.h"
#include "unix_socket.h"
#include "utf8.h"

/* A call each, of all volumes of a large host, when it starts or is emptied. */
#define CLIENTS_MAX 512
/* Of those who are not trusted. */
#define OTHERS_MAX 56
#define MESSAGE_MAX (256u << 10)
#define ROOM_MIN 4096u
#define SWEEP_MS 1000
/* From the first byte of a message to its last, and for taking an answer. */
#define SLOW_MS 10000

struct control_call {
	struct control_call *next;
	struct control *control;
	struct watch watch;
	bool is_trusted;
	uid_t uid;
	char *in; /* NULL while in_len is 0 */
	size_t in_len, in_room;
	int fds[CONTROL_FDS_MAX]; /* of the message that is being read */
	unsigned int n_fds;
	char *out; /* being sent, or NULL */
	size_t out_len, out_done;
	int64_t since_ms; /* of the message or answer that is on its way, or of the last one */
	bool is_under_way; /* a call */
	struct control_message message; /* held while the call begins */
	bool is_dead; /* to be freed once nobody of ours is inside */
};

struct control {
	struct control_options o;
	struct unix_socket_name name; /* to be removed, or "" */
	struct acceptor acceptor;
	struct watch sweep;
	struct control_call *clients;
	unsigned int n, n_others; /* all, and those who are not trusted */
	bool is_sweeping;
	struct log_limit turned_away;
};

/* ---- a client's end ---- */

/*
 * A reply as it is sent, from the heap; error NULL: of a call that succeeded. Takes the parameters.
 * *ret_len counts the zero byte, which is part of it. NULL: no memory.
 */
static char *compose(const char *error, struct json_object *parameters, size_t *ret_len)
{
	struct json_object *o = json_object_new_object();
	const char *text = NULL;
	char *ret = NULL;
	size_t len = 0;

	if (o && error)
		(void)json_object_object_add(o, "error", json_object_new_string(error));
	if (o && parameters && json_object_object_add(o, "parameters", parameters) == 0) {
		parameters = NULL;
		text = json_object_to_json_string_length(
			o, JSON_C_TO_STRING_PLAIN | JSON_C_TO_STRING_NOSLASHESCAPE, &len);
	}
	json_object_put(parameters);
	if (text)
		ret = malloc(len + 1);
	if (ret) {
		memcpy(ret, text, len + 1);
		utf8_clean(ret);
		*ret_len = len + 1;
	}
	json_object_put(o);
	return ret;
}

/*
 * Whoever asked would take a mere hang-up for the daemon's death. Nothing of ours is in the socket:
 * there is room.
 */
static void say_goodbye(int fd, const struct fault *f)
{
	size_t len;
	char *text = compose(CONTROL_FAILED, control_fault_write(f), &len);

	if (text)
		(void)!send(fd, text, len, MSG_NOSIGNAL | MSG_DONTWAIT);
	free(text);
}

static void close_fds(struct control_call *c)
{
	for (unsigned int i = 0; i < c->n_fds; i++)
		if (c->fds[i] >= 0)
			(void)close(c->fds[i]);
	c->n_fds = 0;
}

static void forget_message(struct control_call *c)
{
	control_message_done(&c->message);
	close_fds(c);
}

static void forget_input(struct control_call *c)
{
	free(c->in);
	c->in = NULL;
	c->in_len = c->in_room = 0;
}

static void drop(struct control_call *c)
{
	struct control *control = c->control;
	struct control_call **link = &control->clients;

	while (*link != c)
		link = &(*link)->next;
	*link = c->next;
	control->n--;
	control->n_others -= c->is_trusted ? 0 : 1;
	loop_remove(control->o.loop, &c->watch);
	if (c->is_under_way)
		control->o.abandoned(control->o.arg, c);
	forget_message(c);
	forget_input(c);
	(void)close(c->watch.fd);
	free(c->out);
	free(c);
}

/* ---- messages ---- */

/* Takes the next whole message out of the buffer and has it done. -EAGAIN: there is none. */
static int next_message(struct control_call *c)
{
	const char *end = c->in ? memchr(c->in, 0, c->in_len) : NULL;
	size_t len = end ? (size_t)(end - c->in) : 0;
	int r;

	if (!end)
		return c->in_len < MESSAGE_MAX ? -EAGAIN : -EMSGSIZE;
	r = control_message_open(c->in, len, &c->message);
	c->in_len -= len + 1;
	memmove(c->in, end + 1, c->in_len);
	if (c->in_len == 0)
		forget_input(c);
	if (r == 0) {
		c->is_under_way = true;
		c->control->o.called(c->control->o.arg, c);
	}
	forget_message(c);
	return r;
}

/* ---- input ---- */

static int take_fds(struct control_call *c, struct msghdr *m)
{
	int r = m->msg_flags & MSG_CTRUNC ? -EMFILE : 0;

	for (struct cmsghdr *h = CMSG_FIRSTHDR(m); h; h = CMSG_NXTHDR(m, h)) {
		size_t n = (h->cmsg_len - CMSG_LEN(0)) / sizeof(int);

		if (h->cmsg_level != SOL_SOCKET || h->cmsg_type != SCM_RIGHTS)
			continue;
		for (size_t i = 0; i < n; i++) {
			int fd;

			memcpy(&fd, CMSG_DATA(h) + i * sizeof(int), sizeof(fd));
			if (c->n_fds < CONTROL_FDS_MAX) {
				c->fds[c->n_fds++] = fd;
			} else {
				(void)close(fd);
				r = -EMFILE;
			}
		}
	}
	return r;
}

/* Room for more of a message, which is below its limit. */
static int make_input_room(struct control_call *c)
{
	size_t room = c->in_room > 0 ? c->in_room * 2 : ROOM_MIN;
	char *in;

	if (c->in_len < c->in_room)
		return 0;
	in = realloc(c->in, room);
	if (!in)
		return -ENOMEM;
	c->in = in;
	c->in_room = room;
	return 0;
}

static int receive_into(struct control_call *c)
{
	union {
		struct cmsghdr align;
		char bytes[CMSG_SPACE(sizeof(int) * CONTROL_FDS_MAX)];
	} control;
	struct iovec iov = { c->in + c->in_len, c->in_room - c->in_len };
	struct msghdr m = { .msg_iov = &iov,
			    .msg_iovlen = 1,
			    .msg_control = &control,
			    .msg_controllen = sizeof(control) };
	bool is_first = c->in_len == 0 && c->n_fds == 0;
	ssize_t n = recvmsg(c->watch.fd, &m, MSG_CMSG_CLOEXEC | MSG_DONTWAIT);
	int r;

	if (n < 0)
		return errno == EINTR ? -EAGAIN : -errno;
	r = take_fds(c, &m);
	if (r < 0)
		return r;
	if (n == 0)
		return -ECONNRESET;
	if (is_first)
		c->since_ms = clock_ms();
	c->in_len += (size_t)n;
	return (int)n;
}

/* Bytes read; -EAGAIN; -ECONNRESET at the end. */
static int receive(struct control_call *c)
{
	int r = make_input_room(c);

	if (r == 0)
		r = receive_into(c);
	if (c->in_len == 0)
		forget_input(c);
	return r;
}

/* ---- output ---- */

static int send_some(struct control_call *c)
{
	while (c->out) {
		ssize_t n = send(c->watch.fd, c->out + c->out_done, c->out_len - c->out_done,
				 MSG_NOSIGNAL | MSG_DONTWAIT);

		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return errno == EAGAIN ? 0 : -errno;
		c->out_done += (size_t)n;
		if (c->out_done == c->out_len) {
			free(c->out);
			c->out = NULL;
			/* What came of the next message meanwhile was not looked at. */
			c->since_ms = clock_ms();
		}
	}
	return 0;
}

/* The answer to the call under way, whose end this is. */
static void answer(struct control_call *c, const char *error, struct json_object *parameters)
{
	if (c->message.is_oneway) {
		json_object_put(parameters);
	} else {
		c->out = compose(error, parameters, &c->out_len);
		c->out_done = 0;
		c->is_dead = c->is_dead || !c->out;
	}
	c->is_under_way = false;
	c->since_ms = clock_ms();
	/* The rest happens in the loop: whoever answers may be in the middle of other things. */
	loop_want(c->control->o.loop, &c->watch, false, true);
}

void control_reply(struct control_call *call, struct json_object *parameters)
{
	answer(call, NULL, parameters);
}

void control_refuse(struct control_call *call, const char *error, struct json_object *parameters)
{
	answer(call, error, parameters);
}

/* ---- a client's turn ---- */

static int take_turn(struct control_call *c)
{
	int r = c->is_dead ? -ENOMEM : send_some(c);

	/* One whose call is under way is only looked at to see whether it is still there. */
	if (r == 0 && c->is_under_way) {
		struct pollfd p = { .fd = c->watch.fd };

		return poll(&p, 1, 0) > 0 ? -ECONNRESET : 0;
	}
	while (r == 0 && !c->out && !c->is_under_way && !c->is_dead) {
		r = next_message(c);
		if (r == -EAGAIN) {
			r = receive(c);
			if (r == -EAGAIN)
				return 0;
			r = r < 0 ? r : 0;
		}
	}
	return r;
}

static void on_client(struct watch *w)
{
	struct control_call *c =
		(struct control_call *)((char *)w - offsetof(struct control_call, watch));
	int r = take_turn(c);

	if (r < 0) {
		if (r == -EBADMSG || r == -EMSGSIZE || r == -EMFILE)
			log_notice(NULL, "control: a client of user %u sent no message: cut",
				   (unsigned int)c->uid);
		drop(c);
		return;
	}
	loop_want(c->control->o.loop, &c->watch, !c->out && !c->is_under_way, c->out != NULL);
}

/* ---- new clients ---- */

/*
 * Places are few: who has said nothing for longest, and waits for nothing, makes room; one of their
 * own when those who are not trusted have all of theirs.
 */
static bool make_room(struct control *control, bool is_trusted)
{
	bool is_share_used = !is_trusted && control->n_others >= OTHERS_MAX;
	struct control_call *oldest = NULL;

	if (control->n < CLIENTS_MAX && !is_share_used)
		return true;
	for (struct control_call *c = control->clients; c; c = c->next)
		if (!c->is_under_way && !c->out && !(is_share_used && c->is_trusted) &&
		    (!oldest || c->since_ms < oldest->since_ms))
			oldest = c;
	if (oldest)
		drop(oldest);
	return oldest != NULL;
}

static int add_client(struct control *control, int fd)
{
	struct control_call *c;
	struct ucred peer;
	int r = peers_credentials(fd, &peer);

	if (r < 0)
		return r;
	if (!peers_is_trusted(&peer) && !peers_is_in_group(fd, &peer, control->o.group))
		return -EACCES;
	if (!make_room(control, peers_is_trusted(&peer)))
		return -EBUSY;
	c = calloc(1, sizeof(*c));
	if (!c)
		return -ENOMEM;
	c->control = control;
	c->uid = peer.uid;
	c->is_trusted = peers_is_trusted(&peer);
	c->since_ms = clock_ms();
	c->watch.fd = fd;
	c->watch.ready = on_client;
	if (loop_add(control->o.loop, &c->watch) < 0) {
		free(c);
		return -ENOMEM;
	}
	c->next = control->clients;
	control->clients = c;
	control->n++;
	control->n_others += c->is_trusted ? 0 : 1;
	if (!control->is_sweeping)
		timer_set(control->sweep.fd, SWEEP_MS);
	control->is_sweeping = true;
	return 0;
}

static void turn_away(int fd, int error)
{
	struct fault f = { 0 };

	if (error == -EBUSY) {
		(void)fault_set(&f, EXIT_MEMORY, error,
				"too many clients wait for the daemon's answers");
		fault_hint(&f, "try again when some have theirs");
	} else {
		(void)fault_set(&f, fault_status(error, EXIT_MEMORY), error,
				"the daemon does not take this client: %s", strerror(-error));
	}
	say_goodbye(fd, &f);
	(void)close(fd);
}

static void on_came(struct acceptor *a, int fd)
{
	struct control *c = (struct control *)((char *)a - offsetof(struct control, acceptor));
	int r = add_client(c, fd);
	unsigned int n;

	if (r == 0)
		return;
	if (log_allowed(&c->turned_away, &n))
		log_notice(NULL, "control: turned a client away: %s%s", strerror(-r),
			   n > 0 ? ", and others before" : "");
	turn_away(fd, r);
}

/* Cuts those who are half-way for too long. */
static void on_sweep(struct watch *w)
{
	struct control *control = (struct control *)((char *)w - offsetof(struct control, sweep));
	int64_t now = clock_ms();

	timer_clear(w->fd);
	for (struct control_call *c = control->clients, *next; c; c = next) {
		next = c->next;
		if (!c->is_under_way && (c->in_len > 0 || c->out || c->n_fds > 0) &&
		    now - c->since_ms >= SLOW_MS) {
			log_notice(NULL,
				   "control: a client of user %u is half-way for too long: cut",
				   (unsigned int)c->uid);
			drop(c);
		}
	}
	control->is_sweeping = control->clients != NULL;
	if (control->is_sweeping)
		timer_set(w->fd, SWEEP_MS);
}

/* ---- the socket ---- */

static int open_socket(struct control *c, struct fault *f)
{
	const struct unix_socket_access access = { 0660, (uid_t)-1, c->o.group };
	char path[sizeof(c->name.path)];
	int fd = -ENAMETOOLONG;

	if (snprintf(path, sizeof(path), "%s/" CONTROL_NAME, c->o.run_dir) < (int)sizeof(path))
		fd = unix_socket_listen(path, &access, CLIENTS_MAX, &c->name);
	if (fd == -ENAMETOOLONG)
		return fault_set(f, EXIT_USAGE, fd,
				 "run directory %s: too long a path for a socket in it",
				 c->o.run_dir);
	if (fd == -EADDRINUSE)
		return fault_set(f, EXIT_BUSY, fd, "another daemon listens on %s", path);
	if (fd < 0)
		return fault_set(f, fault_status(fd, EXIT_NOT_FOUND), fd, "cannot listen on %s: %s",
				 path, strerror(-fd));
	return fd;
}

static int start(struct control *c, struct fault *f)
{
	int r = loop_watch(c->o.loop, &c->sweep, timer_new(), on_sweep), fd;

	if (r < 0)
		return fault_set(f, EXIT_MEMORY, r, "cannot watch clients: %s", strerror(-r));
	if (c->o.fd >= 0)
		/* Listening once more tells clients, whom the kernel tells, who it is now. */
		fd = fcntl(c->o.fd, F_SETFL, O_NONBLOCK) < 0 || listen(c->o.fd, SOMAXCONN) < 0
			     ? fault_set(f, EXIT_USAGE, -errno,
					 "the control socket that was passed")
			     : c->o.fd;
	else
		fd = open_socket(c, f);
	if (fd < 0)
		return fd;
	r = acceptor_start(&c->acceptor, fd);
	if (r == 0)
		return 0;
	if (fd != c->o.fd) {
		unix_socket_remove(&c->name);
		(void)close(fd);
	}
	return fault_set(f, EXIT_USAGE, r, "cannot listen on the control socket: %s", strerror(-r));
}

int control_new(const struct control_options *o, struct control **ret, struct fault *f)
{
	struct control *c = calloc(1, sizeof(*c));
	int r;

	if (!c)
		return fault_set(f, EXIT_MEMORY, -ENOMEM, "no memory for the control socket");
	c->o = *o;
	c->sweep.fd = -1;
	acceptor_init(&c->acceptor);
	c->acceptor.loop = o->loop;
	c->acceptor.came = on_came;
	r = start(c, f);
	if (r < 0) {
		(void)control_free(c);
		return r;
	}
	*ret = c;
	return 0;
}

/* Whose call is under way, and who has sent one, asks in vain. */
static void part(struct control_call *c)
{
	struct fault f = { 0 };

	(void)fault_set(&f, EXIT_TIMED_OUT, -EINTR, "the daemon ended before this was done");
	fault_hint(&f, "rbdcrypt-nbd status shows what there is, once it runs again");
	if (c->is_under_way && !c->message.is_oneway)
		say_goodbye(c->watch.fd, &f);
	drop(c);
}

struct control *control_free(struct control *c)
{
	if (!c)
		return NULL;
	/* First the name, so that nobody new comes. */
	unix_socket_remove(&c->name);
	while (c->clients)
		part(c->clients);
	acceptor_stop(&c->acceptor);
	loop_remove(c->o.loop, &c->sweep);
	if (c->sweep.fd >= 0)
		(void)close(c->sweep.fd);
	free(c);
	return NULL;
}

/* ---- what a call says ---- */

const char *control_method(const struct control_call *call)
{
	return call->message.method;
}

struct json_object *control_parameters(const struct control_call *call)
{
	return call->message.parameters;
}

bool control_is_trusted(const struct control_call *call)
{
	return call->is_trusted;
}

int control_take_fd(struct control_call *call, unsigned int i)
{
	int fd = i < call->n_fds ? call->fds[i] : -1;

	if (fd < 0)
		return -EBADF;
	call->fds[i] = -1;
	return fd;
}
