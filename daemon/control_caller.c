/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Copyright (C) 2026 the rbdcrypt-nbd authors */

/*
 * One connection, one call at a time. What a call asks for may take as long as it does; but the
 * daemon's control thread waits for nothing, so that it answers in between on another connection,
 * if it is not stopped or wedged.
 *
 * Systemd may hold the socket while no daemon is there: then connections wait for the next one,
 * which does not hang. Each daemon listens itself on a socket that it was passed, so the kernel
 * says whether it was a daemon who listened last, and which.
 */

#include "control_caller.h"

#include <errno.h>
#include <json-c/json_tokener.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "control.h"
#include "control_request.h"
#include "silence.h"

/* The list of all volumes of a large host. */
#define REPLY_MAX (64u << 20)
#define DAEMON "the host's daemon"
#define OUR_COMM "rbdcrypt-nbd"
/* Between two looks at who should answer. */
#define STEP_S 5

/* ---- who is there ---- */

/* Whether the listener's process is there, and is a daemon. One that cannot be looked at is. */
static bool is_daemon_there(int pid)
{
	char path[32], comm[32] = "";
	FILE *file;

	if (pid == 0)
		return true;
	(void)snprintf(path, sizeof(path), "/proc/%d/comm", pid);
	file = fopen(path, "re");
	if (!file)
		return kill(pid, 0) == 0 || errno == EPERM;
	if (!fgets(comm, sizeof(comm), file))
		comm[0] = '\0';
	(void)fclose(file);
	comm[strcspn(comm, "\n")] = '\0';
	/* Under another name it has that of who asks. */
	return strcmp(comm, OUR_COMM) == 0 ||
	       (comm[0] && strncmp(comm, program_invocation_short_name, 15) == 0);
}

int caller_open(const char *run_dir, struct control_caller *ret, struct fault *f)
{
	struct sockaddr_un a = { .sun_family = AF_UNIX };
	struct ucred peer;
	socklen_t len = sizeof(peer);
	int fd, r;

	if (snprintf(a.sun_path, sizeof(a.sun_path), "%s/" CONTROL_NAME, run_dir) >=
	    (int)sizeof(a.sun_path))
		return -ENOENT;
	fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	if (fd < 0)
		return fault_set(f, EXIT_MEMORY, -errno, "cannot make a socket");
	r = silence_limit_send(fd);
	if (r == 0 && connect(fd, (const struct sockaddr *)&a, sizeof(a)) < 0)
		r = -errno;
	if (r < 0) {
		(void)close(fd);
		if (r == -ENOENT || r == -ECONNREFUSED || r == -ENOTDIR)
			return -ENOENT;
		/* Hundreds wait already. */
		if (r == -EAGAIN)
			return silence_fault(f, DAEMON, 0);
		(void)fault_set(f, EXIT_PASSPHRASE, r, "cannot ask the daemon at %s: %s",
				a.sun_path, strerror(-r));
		fault_hint(f, "be root, or in the group that the daemon's --control-group names");
		return r;
	}
	ret->run_dir = run_dir;
	ret->fd = fd;
	ret->pid = getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &peer, &len) == 0 ? peer.pid : 0;
	return 0;
}

void caller_close(struct control_caller *c)
{
	(void)close(c->fd);
}

/* ---- one call ---- */

/* The descriptors go with the first byte. */
static int send_all(int fd, const char *text, size_t len, const int *fds, unsigned int n_fds)
{
	union {
		struct cmsghdr align;
		char bytes[CMSG_SPACE(sizeof(int) * CONTROL_FDS_MAX)];
	} control;
	struct iovec iov = { (char *)(uintptr_t)text, len };
	struct msghdr m = { .msg_iov = &iov, .msg_iovlen = 1 };

	if (n_fds > CONTROL_FDS_MAX)
		return -EMFILE;
	if (n_fds > 0) {
		struct cmsghdr *h;

		memset(&control, 0, sizeof(control));
		m.msg_control = &control;
		m.msg_controllen = CMSG_SPACE(sizeof(int) * n_fds);
		h = CMSG_FIRSTHDR(&m);
		h->cmsg_level = SOL_SOCKET;
		h->cmsg_type = SCM_RIGHTS;
		h->cmsg_len = CMSG_LEN(sizeof(int) * n_fds);
		memcpy(CMSG_DATA(h), fds, sizeof(int) * n_fds);
	}
	while (iov.iov_len > 0) {
		ssize_t n = sendmsg(fd, &m, MSG_NOSIGNAL);

		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return -errno;
		iov.iov_base = (char *)iov.iov_base + n;
		iov.iov_len -= (size_t)n;
		m.msg_control = NULL;
		m.msg_controllen = 0;
	}
	return 0;
}

/* Takes parameters. */
static struct json_object *make_message(const char *interface, const char *method,
					struct json_object *parameters)
{
	struct json_object *o = json_object_new_object();
	char name[128];

	(void)snprintf(name, sizeof(name), "%s.%s", interface, method);
	if (!o || !parameters || json_object_object_add(o, "parameters", parameters) < 0) {
		json_object_put(parameters);
		json_object_put(o);
		return NULL;
	}
	if (json_object_object_add(o, "method", json_object_new_string(name)) < 0) {
		json_object_put(o);
		return NULL;
	}
	return o;
}

/* Takes parameters. */
static int send_message(struct control_caller *c, const char *interface, const char *method,
			struct json_object *parameters, const int *fds, unsigned int n_fds)
{
	struct json_object *o = make_message(interface, method, parameters);
	const char *text;
	size_t len;
	int r;

	if (!o)
		return -ENOMEM;
	text = json_object_to_json_string_length(
		o, JSON_C_TO_STRING_PLAIN | JSON_C_TO_STRING_NOSLASHESCAPE, &len);
	r = send_all(c->fd, text, len + 1, fds, n_fds);
	json_object_put(o);
	if (r == -EAGAIN)
		return -ETIMEDOUT;
	/* Whoever is turned away is told so before being heard. */
	return r == -EPIPE || r == -ECONNRESET ? 0 : r;
}

/* Up to the zero byte; the caller frees. wait: until there is more of it. */
static int receive(struct control_caller *c, int (*wait)(struct control_caller *c), char **ret)
{
	char *text = NULL;
	size_t len = 0, size = 0;

	for (;;) {
		ssize_t n = 0;
		int r = 0;

		if (len == size) {
			char *more = size < REPLY_MAX ? realloc(text, size + 65536) : NULL;

			if (!more) {
				free(text);
				return -ENOMEM;
			}
			text = more;
			size += 65536;
		}
		r = wait(c);
		if (r == 0)
			n = recv(c->fd, text + len, size - len, 0);
		if (n < 0 && errno == EINTR)
			continue;
		if (n <= 0) {
			if (r == 0)
				r = n < 0 ? -errno : -ECONNRESET;
			free(text);
			return r;
		}
		len += (size_t)n;
		if (text[len - 1] == '\0')
			break;
	}
	*ret = text;
	return 0;
}

static int read_reply(struct json_object *o, struct json_object **ret, struct fault *f)
{
	struct json_object *error = NULL, *parameters = NULL;

	if (o) {
		(void)json_object_object_get_ex(o, "error", &error);
		(void)json_object_object_get_ex(o, "parameters", &parameters);
	}
	if (!o || (!error && !json_object_is_type(parameters, json_type_object)))
		return fault_set(f, EXIT_KERNEL, -EBADMSG, "the daemon gave no answer we know");
	if (!error) {
		*ret = json_object_get(parameters);
		return 0;
	}
	if (strcmp(json_object_get_string(error), CONTROL_FAILED) == 0 && parameters &&
	    control_fault_read(parameters, f))
		return f->error;
	return fault_set(f, EXIT_KERNEL, -EBADMSG, "the daemon refused: %s",
			 json_object_get_string(error));
}

int caller_read(char *answer, struct json_object **ret_reply, struct fault *f)
{
	struct json_object *o = json_tokener_parse(answer);
	int r = read_reply(o, ret_reply, f);

	json_object_put(o);
	free(answer);
	return r;
}

/* Without one: it went away. */
static int set_fault(struct fault *f, const char *who, int pid, int r)
{
	if (r == -ENOMEM)
		(void)fault_set(f, EXIT_MEMORY, r, "no memory for a request");
	else if (r == -ETIMEDOUT)
		(void)silence_fault(f, who, pid);
	return r;
}

static int set_gone(struct fault *f, int r)
{
	return fault_set(f, EXIT_KERNEL, r, "the daemon went away: %s", strerror(-r));
}

/* ---- whether it is there ---- */

static void tell_waiting(void)
{
	struct fault f = { 0 };

	(void)fault_set(&f, EXIT_OK, 0, DAEMON " is not there yet: waiting until it is started");
	fault_print(stderr, &f);
}

static int wait_greeting(struct control_caller *c)
{
	int r;

	for (int s = STEP_S; (r = silence_wait(c->fd, STEP_S)) == -ETIMEDOUT; s += STEP_S) {
		if (is_daemon_there(c->pid)) {
			if (s >= SILENCE_S)
				return r;
		} else if (c->absent_s > 0) {
			if (s >= c->absent_s)
				return -ENOENT;
		} else if (s == SILENCE_LOOK_S) {
			tell_waiting();
		}
	}
	return r;
}

int caller_greet(struct control_caller *c, int absent_s, struct fault *f)
{
	struct json_object *reply = NULL;
	char *answer = NULL;
	int r = send_message(c, CONTROL_SERVICE, "GetInfo", json_object_new_object(), NULL, 0);

	c->absent_s = absent_s;
	if (r == 0)
		r = receive(c, wait_greeting, &answer);
	if (r == -ENOENT)
		return r;
	if (r < 0)
		return set_gone(f, set_fault(f, DAEMON, c->pid, r));
	r = caller_read(answer, &reply, f);
	json_object_put(reply);
	return r;
}

/* Whatever it says, and if it hangs up. */
static bool is_answering(const char *run_dir)
{
	struct fault unsaid = { 0 };
	struct control_caller c;
	int r = caller_open(run_dir, &c, &unsaid);

	if (r == 0) {
		r = caller_greet(&c, SILENCE_S, &unsaid);
		caller_close(&c);
	}
	return r != -ETIMEDOUT;
}

static int wait_answer(struct control_caller *c)
{
	return silence_outwait(c->fd, is_answering, c->run_dir);
}

/* ---- calls ---- */

int caller_ask(struct control_caller *c, const char *method, struct json_object *parameters,
	       const int *fds, unsigned int n_fds, char **ret_answer, struct fault *f)
{
	int r = send_message(c, CONTROL_INTERFACE, method, parameters, fds, n_fds);

	if (r == 0)
		r = receive(c, wait_answer, ret_answer);
	return set_fault(f, "what became of it is not known: " DAEMON, c->pid, r);
}

int caller_call(struct control_caller *c, const char *method, struct json_object *parameters,
		const int *fds, unsigned int n_fds, struct json_object **ret_reply, struct fault *f)
{
	char *answer = NULL;
	int r = caller_ask(c, method, parameters, fds, n_fds, &answer, f);

	return r < 0 ? set_gone(f, r) : caller_read(answer, ret_reply, f);
}
