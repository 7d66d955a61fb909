/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Copyright (C) 2026 the rbdcrypt-nbd authors */

/*
 * What a command line asks the host's daemon for. A passphrase that the daemon could not get as we
 * do is read here and travels as a pipe: from standard input, inherited descriptors and people
 * always, and from every source when we are not root, because the daemon must not read for us what
 * we could not.
 */

#include "control_client.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <systemd/sd-daemon.h>
#include <unistd.h>

#include "ceph_paths.h"
#include "chain.h"
#include "control.h"
#include "control_caller.h"
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
/* For a daemon that systemd starts to answer. One that was not there starts nothing. */
#define ABSENT_S 10

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
static void take_back(const struct options *o, struct control_caller *c, const char *name,
		      struct fault *f)
{
	const bool is_attach = o->command == COMMAND_ATTACH;
	struct json_object *parameters = json_object_new_object(), *reply = NULL;
	/* What the command says is that its output cannot be written. */
	struct fault unsaid = { 0 };

	if (parameters)
		(void)json_object_object_add(parameters, "name", json_object_new_string(name));
	if (parameters && !is_attach)
		(void)json_object_object_add(parameters, "force", json_object_new_boolean(true));
	if (caller_call(c, is_attach ? "Detach" : "Unmap", parameters, NULL, 0, &reply, &unsaid) <
	    0)
		fault_hint(f, "it is there: rbdcrypt-nbd unmap %s", name);
	json_object_put(reply);
}

/* As the command itself would have printed. */
static int print_reply(const struct options *o, struct control_caller *c, struct json_object *reply,
		       struct fault *f)
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
		take_back(o, c, json_object_get_string(device ?: socket), f);
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
	struct control_caller c;
	int r;

	if (wants_own_process(o))
		return -ENOENT;
	r = caller_open(run_dir, &c, f);
	if (r < 0)
		return r;
	/* Before somebody types a passphrase. */
	r = caller_greet(&c, 0, f);
	if (r == 0)
		r = settle_paths(o, f);
	if (r == 0 && !is_text(o))
		r = -ENOENT;
	if (r == 0)
		r = open_keys(o, &k, f);
	if (r == 0)
		r = caller_call(&c, method_of(o->command), control_request_write(o, k.items, k.n),
				k.fds, k.n, &reply, f);
	if (r == 0)
		r = print_reply(o, &c, reply, f);
	json_object_put(reply);
	keys_done(&k);
	caller_close(&c);
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
	struct control_caller c;
	char name[1024];
	int r = caller_open(run_dir, &c, f);

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
	r = caller_greet(&c, 0, f);
	if (r == 0)
		r = caller_call(&c, stop_method(o), stop_parameters(o, name), NULL, 0, &reply, f);
	json_object_put(reply);
	caller_close(&c);
	return r;
}

int client_stop_starting(const struct options *o, const char *run_dir, const char *name,
			 struct fault *f)
{
	struct json_object *reply = NULL;
	struct fault unheard = { 0 };
	struct control_caller c;
	char *answer = NULL;
	int r;

	if (caller_open(run_dir, &c, &unheard) < 0)
		return -ENOENT;
	r = caller_greet(&c, ABSENT_S, &unheard);
	/* One that hangs may have it, and so may one that has no time for us. */
	if (r == -ETIMEDOUT || r == -EBUSY)
		*f = unheard;
	else if (r < 0)
		r = -ENOENT;
	else
		r = caller_ask(&c, stop_method(o), stop_parameters(o, name), NULL, 0, &answer, f);
	caller_close(&c);
	/* It has ended, and what was starting with it. */
	if (r < 0)
		return f->error ? r : -ENOENT;
	r = caller_read(answer, &reply, f);
	json_object_put(reply);
	return r;
}
