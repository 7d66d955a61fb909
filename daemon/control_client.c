/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Copyright (C) 2026 the rbdcrypt-nbd authors */

/*
 * One connection, one call, one answer. A passphrase that the daemon could not get as we do
 * is read here and travels as a pipe: from standard input, inherited descriptors and people always,
 * and from every source when we are not root, because the daemon must not read for us what we could
 * not.
 */

#include "control_client.h"

#include <errno.h>
#include <fcntl.h>
#include <json-c/json_tokener.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/time.h>
#include <sys/un.h>
#include <systemd/sd-daemon.h>
#include <unistd.h>

#include "ceph_paths.h"
#include "chain.h"
#include "control.h"
#include "control_request.h"
#include "image.h"
#include "key.h"
#include "option_table.h"
#include "option_value.h"
#include "output.h"
#include "path.h"
#include "process.h"
#include "secret.h"
#include "text.h"
#include "utf8.h"

#define FILE_PREFIX "file:"
/* The list of all volumes of a large host. */
#define REPLY_MAX (64u << 20)
/* A daemon that is there answers what costs it nothing within moments. */
#define ANSWER_S 10

/* A connection to the daemon of run_dir. -ENOENT, and no fault: none listens there. */
static int connect_daemon(const char *run_dir, int *ret_fd, struct fault *f)
{
	struct sockaddr_un a = { .sun_family = AF_UNIX };
	int fd, r = 0;

	if (snprintf(a.sun_path, sizeof(a.sun_path), "%s/" CONTROL_NAME, run_dir) >=
	    (int)sizeof(a.sun_path))
		return -ENOENT;
	fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	if (fd < 0)
		return fault_set(f, EXIT_MEMORY, -errno, "cannot make a socket");
	if (connect(fd, (const struct sockaddr *)&a, sizeof(a)) < 0)
		r = -errno;
	if (r < 0) {
		(void)close(fd);
		if (r == -ENOENT || r == -ECONNREFUSED || r == -ENOTDIR)
			return -ENOENT;
		(void)fault_set(f, EXIT_PASSPHRASE, r, "cannot ask the daemon at %s: %s",
				a.sun_path, strerror(-r));
		fault_hint(f, "be root, or in the group that the daemon's --control-group names");
		return r;
	}
	*ret_fd = fd;
	return 0;
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

/* Up to the zero byte; the caller frees. */
static int receive(int fd, char **ret)
{
	char *text = NULL;
	size_t len = 0, size = 0;

	for (;;) {
		ssize_t n;

		if (len == size) {
			char *more = size < REPLY_MAX ? realloc(text, size + 65536) : NULL;

			if (!more) {
				free(text);
				return -ENOMEM;
			}
			text = more;
			size += 65536;
		}
		n = recv(fd, text + len, size - len, 0);
		if (n < 0 && errno == EINTR)
			continue;
		if (n <= 0) {
			int r = n < 0 ? -errno : -ECONNRESET;

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

/* Takes parameters. */
static struct json_object *make_message(const char *method, struct json_object *parameters)
{
	struct json_object *o = json_object_new_object();
	char name[128];

	(void)snprintf(name, sizeof(name), CONTROL_INTERFACE ".%s", method);
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

/*
 * Calls a method of CONTROL_INTERFACE by its short name and waits for the answer. Takes parameters.
 * The caller frees *ret_answer.
 */
static int exchange(int fd, const char *method, struct json_object *parameters, const int *fds,
		    unsigned int n_fds, char **ret_answer)
{
	struct json_object *o = make_message(method, parameters);
	const char *text;
	size_t len;
	int r;

	if (!o)
		return -ENOMEM;
	text = json_object_to_json_string_length(
		o, JSON_C_TO_STRING_PLAIN | JSON_C_TO_STRING_NOSLASHESCAPE, &len);
	r = send_all(fd, text, len + 1, fds, n_fds);
	json_object_put(o);
	/* Whoever is turned away is told so before being heard. */
	if (r < 0 && r != -EPIPE && r != -ECONNRESET)
		return r;
	return receive(fd, ret_answer);
}

/* Takes answer. */
static int read_answer(char *answer, struct json_object **ret_reply, struct fault *f)
{
	struct json_object *o = json_tokener_parse(answer);
	int r = read_reply(o, ret_reply, f);

	json_object_put(o);
	free(answer);
	return r;
}

/*
 * *ret_reply, the answer's parameters, is for json_object_put(). A daemon's fault comes as it was.
 */
static int call_daemon(int fd, const char *method, struct json_object *parameters, const int *fds,
		       unsigned int n_fds, struct json_object **ret_reply, struct fault *f)
{
	char *answer = NULL;
	int r = exchange(fd, method, parameters, fds, n_fds, &answer);

	if (r == -ENOMEM)
		return fault_set(f, EXIT_MEMORY, r, "no memory for a request");
	if (r < 0)
		return fault_set(f, EXIT_KERNEL, r, "the daemon went away: %s", strerror(-r));
	return read_answer(answer, ret_reply, f);
}

/* ---- map, attach, serve ---- */

/* Whether the options are about the process, so that it has to be ours. */
static bool wants_own_process(const struct options *o)
{
	for (unsigned int i = 0; i < o->settings.n; i++) {
		const char *setting = o->settings.items[i];
		const struct option_row *row = option_find(setting, strcspn(setting, "="));

		if (row && row->flags & OPTION_OWN_PROCESS && strcmp(row->name, "run-dir") != 0)
			return true;
	}
	if (control_request_has_key(o))
		return true;
	/* Its socket is in our hands. */
	return o->command == COMMAND_SERVE && sd_listen_fds(0) > 0;
}

static int make_absolute(char **path, struct fault *f)
{
	return path_fault(path_make_absolute(path), f);
}

/* The daemon works in another folder, and with another environment. */
static int settle_paths(struct options *o, struct fault *f)
{
	const char *conf = getenv("CEPH_CONF");
	char *path, *whole;
	int r;

	if (!o->conf && conf && conf[0]) {
		o->conf = strdup(conf);
		r = o->conf ? option_list_add(&o->settings, "conf", f)
			    : fault_set(f, EXIT_MEMORY, -ENOMEM, "no memory for the request");
		if (r < 0)
			return r;
	}
	r = make_absolute(&o->conf, f);
	for (unsigned int i = 0; r == 0 && i < o->passphrase_files.n; i++)
		r = path_fault(key_make_absolute(&o->passphrase_files.items[i]), f);
	if (r == 0)
		r = ceph_paths_settle(o, f);
	if (r == 0)
		r = make_absolute(&o->socket, f);
	if (r < 0 || !o->operand || strncmp(o->operand, FILE_PREFIX, strlen(FILE_PREFIX)) != 0)
		return r;
	path = strdup(o->operand + strlen(FILE_PREFIX));
	r = path ? make_absolute(&path, f)
		 : fault_set(f, EXIT_MEMORY, -ENOMEM, "no memory for the request");
	if (r == 0 && asprintf(&whole, FILE_PREFIX "%s", path) < 0)
		r = fault_set(f, EXIT_MEMORY, -ENOMEM, "no memory for the request");
	free(path);
	if (r < 0)
		return r;
	free(o->operand);
	o->operand = whole;
	return 0;
}

struct keys {
	unsigned int items[CONTROL_FDS_MAX]; /* which passphrase */
	int fds[CONTROL_FDS_MAX];
	unsigned int n;
};

static void keys_done(struct keys *k)
{
	for (unsigned int i = 0; i < k->n; i++)
		(void)close(k->fds[i]);
	k->n = 0;
}

/* A pipe that holds the passphrase: the kernel keeps it in memory that is never swapped. */
static int put_in_pipe(const struct secret *s, const char *source, int *ret_fd, struct fault *f)
{
	size_t len = secret_len(s);
	int fds[2], size;

	if (pipe2(fds, O_CLOEXEC | O_NONBLOCK) < 0)
		return fault_set(f, EXIT_MEMORY, -errno, "cannot make a pipe");
	size = fcntl(fds[1], F_GETPIPE_SZ);
	if (size >= 0 && (size_t)size < len)
		(void)fcntl(fds[1], F_SETPIPE_SZ, (int)len);
	if (write(fds[1], secret_bytes(s), len) != (ssize_t)len) {
		(void)close(fds[0]);
		(void)close(fds[1]);
		(void)fault_set(f, EXIT_PASSPHRASE, -EFBIG,
				"the passphrase in %s is too long to be handed to the daemon",
				source);
		fault_hint(f, "name a file that root can read, or give --no-daemon");
		return -EFBIG;
	}
	(void)close(fds[1]);
	*ret_fd = fds[0];
	return 0;
}

/* Reads here what the daemon cannot or must not: its descriptor then travels. */
static int open_key(struct options *o, const struct chain_options *chain,
		    const struct image_spec *spec, unsigned int i, struct keys *k, struct fault *f)
{
	const struct key_options how = chain_key_options(chain, i);
	const struct key_place place = { .pool = spec->pool ?: "",
					 .nspace = spec->nspace ?: "",
					 .image = spec->image ?: "",
					 .snap = spec->snap ?: "",
					 .cookie = o->cookie ?: "",
					 .fsid = "",
					 .layer = i + 1 };
	const char *source = o->passphrase_files.items[i];
	struct secret *s = NULL;
	char *resolved = NULL;
	int r;

	if (key_is_none(source) || (geteuid() == 0 && key_repeat(source) == KEY_REPEATS))
		return 0;
	if (k->n == CONTROL_FDS_MAX)
		return fault_set(f, EXIT_USAGE, -E2BIG, "a daemon takes %d passphrases at most",
				 CONTROL_FDS_MAX);
	r = key_resolve(source, &place, &resolved, f);
	if (r == 0)
		r = key_read(resolved, &place, &how, &s, f);
	if (r == 0)
		r = put_in_pipe(s, source, &k->fds[k->n], f);
	if (r == 0)
		k->items[k->n++] = i;
	s = secret_free(s);
	free(resolved);
	return r;
}

static int open_keys(struct options *o, struct keys *k, struct fault *f)
{
	struct image_spec spec = IMAGE_SPEC_INIT;
	struct chain_options chain = { 0 };
	struct process_hold hold;
	int r = 0;

	if (o->passphrase_files.n == 0)
		return 0;
	if (secret_protect_process() < 0)
		return fault_set(f, EXIT_MEMORY, -ENOMEM, "cannot keep secrets out of core dumps");
	/* Only for specifiers: who splits the name into options has to be content without. */
	if (o->operand)
		r = image_spec_parse(o->operand, &spec, f);
	chain_options_set(o, &chain);
	process_hold(&hold);
	chain_options_interrupt(&chain, &hold.interrupt);
	for (unsigned int i = 0; r == 0 && i < o->passphrase_files.n; i++)
		r = open_key(o, &chain, &spec, i, k, f);
	process_release(&hold);
	image_spec_done(&spec);
	return r;
}

/* Nobody can use what nobody was told of; so it ends as that of a process for itself would. */
static void take_back(const struct options *o, int fd, const char *name, struct fault *f)
{
	const bool is_attach = o->command == COMMAND_ATTACH;
	struct json_object *parameters = json_object_new_object(), *reply = NULL;
	/* What the command says is that its output cannot be written. */
	struct fault unsaid = { 0 };

	if (parameters)
		(void)json_object_object_add(parameters, "name", json_object_new_string(name));
	if (parameters && !is_attach)
		(void)json_object_object_add(parameters, "force", json_object_new_boolean(true));
	if (call_daemon(fd, is_attach ? "Detach" : "Unmap", parameters, NULL, 0, &reply, &unsaid) <
	    0)
		fault_hint(f, "it is there: rbdcrypt-nbd unmap %s", name);
	json_object_put(reply);
}

/* As the command itself would have printed. */
static int print_reply(const struct options *o, int fd, struct json_object *reply, struct fault *f)
{
	struct json_object *device = NULL, *cookie = NULL, *socket = NULL;
	int r;

	(void)json_object_object_get_ex(reply, "device", &device);
	(void)json_object_object_get_ex(reply, "cookie", &cookie);
	(void)json_object_object_get_ex(reply, "socket", &socket);
	if (device && cookie && o->is_cookie_shown)
		(void)printf("%s %s\n", json_object_get_string(device),
			     json_object_get_string(cookie));
	else if (device)
		(void)printf("%s\n", json_object_get_string(device));
	else if (socket)
		output_socket(stdout, json_object_get_string(socket));
	else
		return fault_set(f, EXIT_KERNEL, -EBADMSG, "the daemon gave no answer we know");
	r = output_finish(0, f);
	if (r < 0)
		take_back(o, fd, json_object_get_string(device ?: socket), f);
	return r;
}

/* Whether a message can say it: names are bytes, and those of files need not be UTF-8. */
static bool is_text(const struct options *o)
{
	struct json_object *request = control_request_write(o, NULL, 0);
	bool is_it = !request ||
		     utf8_is_valid(json_object_to_json_string_ext(request, JSON_C_TO_STRING_PLAIN));

	json_object_put(request);
	return is_it;
}

static const char *method_of(enum command c)
{
	return c == COMMAND_MAP ? "Map" : c == COMMAND_ATTACH ? "Attach" : "Serve";
}

int client_start(struct options *o, const char *run_dir, struct fault *f)
{
	struct json_object *reply = NULL;
	struct keys k = { .n = 0 };
	int fd, r;

	if (wants_own_process(o))
		return -ENOENT;
	r = connect_daemon(run_dir, &fd, f);
	if (r < 0)
		return r;
	r = settle_paths(o, f);
	if (r == 0 && !is_text(o))
		r = -ENOENT;
	if (r == 0)
		r = open_keys(o, &k, f);
	if (r == 0)
		r = call_daemon(fd, method_of(o->command), control_request_write(o, k.items, k.n),
				k.fds, k.n, &reply, f);
	if (r == 0)
		r = print_reply(o, fd, reply, f);
	json_object_put(reply);
	keys_done(&k);
	(void)close(fd);
	/* -ENOENT without a fault means something else. */
	return r;
}

/* ---- unmap, detach ---- */

static const char *stop_method(const struct options *o)
{
	return o->command == COMMAND_UNMAP ? "Unmap" : "Detach";
}

static struct json_object *stop_parameters(const struct options *o, const char *name)
{
	struct json_object *parameters = json_object_new_object();

	if (parameters) {
		(void)json_object_object_add(parameters, "name", json_object_new_string(name));
		(void)json_object_object_add(parameters, "force",
					     json_object_new_boolean(o->is_forced));
		(void)json_object_object_add(parameters, "timeout",
					     json_object_new_int(o->reattach_timeout_s));
	}
	return parameters;
}

int client_stop(const struct options *o, const char *run_dir, const struct volume_state *v,
		struct fault *f)
{
	struct json_object *reply = NULL;
	char name[1024];
	int fd, r = connect_daemon(run_dir, &fd, f);

	if (v->device >= 0)
		(void)snprintf(name, sizeof(name), "/dev/nbd%d", v->device);
	else if (v->socket[0])
		text_copy(name, sizeof(name), v->socket);
	else
		volume_state_spec(v, name, sizeof(name));
	if (r == -ENOENT)
		return fault_set(f, EXIT_TIMED_OUT, r, "the daemon that serves %s does not listen",
				 name);
	if (r < 0)
		return r;
	r = call_daemon(fd, stop_method(o), stop_parameters(o, name), NULL, 0, &reply, f);
	json_object_put(reply);
	(void)close(fd);
	return r;
}

/*
 * Whether the daemon takes calls. Where systemd holds its socket, connections are made while no
 * daemon is there, and wait for the next.
 */
static bool is_answering(int fd, const char *name)
{
	const struct timeval patience = { .tv_sec = ANSWER_S }, none = { 0 };
	struct json_object *parameters = json_object_new_object();
	char *answer = NULL;
	bool is_it;

	if (parameters)
		(void)json_object_object_add(parameters, "name", json_object_new_string(name));
	(void)setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof(patience));
	is_it = exchange(fd, "Status", parameters, NULL, 0, &answer) == 0;
	free(answer);
	(void)setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &none, sizeof(none));
	return is_it;
}

int client_stop_starting(const struct options *o, const char *run_dir, const char *name,
			 struct fault *f)
{
	struct json_object *reply = NULL;
	struct fault unheard = { 0 };
	char *answer = NULL;
	int fd, r;

	if (connect_daemon(run_dir, &fd, &unheard) < 0)
		return -ENOENT;
	r = is_answering(fd, name)
		    ? exchange(fd, stop_method(o), stop_parameters(o, name), NULL, 0, &answer)
		    : -ENOENT;
	(void)close(fd);
	if (r == -ENOMEM)
		return fault_set(f, EXIT_MEMORY, r, "no memory for a request");
	/* It ends, and what was starting with it. */
	if (r < 0)
		return -ENOENT;
	r = read_answer(answer, &reply, f);
	json_object_put(reply);
	return r;
}
