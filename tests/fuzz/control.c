/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Copyright (C) 2026 the rbdcrypt-nbd authors */

/*
 * libFuzzer target: the input is what a client of the control socket sends, behind three bytes that
 * say how: how many descriptors come with it, where it is cut in two, and flags (trusted, answered
 * by an error). Whatever it is, the client is answered or cut, and nothing of it is left. Requests
 * for volumes are read as the daemon would; from who is not trusted, no option names a file. What
 * can be done without a volume is done.
 *
 * Build: clang -fsanitize=fuzzer,address,undefined with the whole daemon.
 */

#include <errno.h>
#include <fcntl.h>
#include <json-c/json_tokener.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "../../daemon/control_methods.h"
#include "../../daemon/control_request.h"
#include "../../daemon/key.h"
#include "log.h"

#define FLAG_TRUSTED 1u
#define FLAG_REFUSE 2u
#define FDS_MAX 20
#define HEAD 3

int LLVMFuzzerInitialize(int *argc, char ***argv);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len);

static struct host *host;
static struct methods *methods;
static struct loop *host_loop, *loop;
static unsigned int flags;

#define CHECK(what)                                                                                \
	do {                                                                                       \
		if (!(what))                                                                       \
			abort();                                                                   \
	} while (0)

/* ---- what a request may be ---- */

static int null_fd(void *arg, unsigned int i)
{
	return open("/dev/null", O_RDONLY | O_CLOEXEC);
}

static int message_fd(void *arg, unsigned int i)
{
	return control_take_fd(arg, i);
}

static void free_options(struct options *o)
{
	options_done(o);
	free(o);
}

static struct json_object *write_request(const struct options *o)
{
	unsigned int keys[64], n = 0;
	struct json_object *json;

	for (unsigned int i = 0; i < o->n_key_fds; i++)
		if (o->key_fds[i] >= 0)
			keys[n++] = i;
	json = control_request_write(o, keys, n);
	CHECK(json);
	return json;
}

/* Written and read again it is the same. */
static void check_twice(const struct options *o, enum command command)
{
	struct json_object *first = write_request(o), *second;
	struct options *again = NULL;
	struct fault f = { 0 };

	CHECK(control_request_read(first, command, true, null_fd, NULL, &again, &f) == 0);
	second = write_request(again);
	CHECK(json_object_equal(first, second));
	json_object_put(first);
	json_object_put(second);
	free_options(again);
}

static void check_untrusted(const struct options *o)
{
	CHECK(!o->spec.is_file && o->ceph_argc <= 1 && !o->ceph_args);
	CHECK(!o->conf && !o->socket && !o->log_file && !o->run_dir);
	CHECK(o->passphrase_files.n > 0);
	for (unsigned int i = 0; i < o->passphrase_files.n; i++) {
		if (i < o->n_key_fds && o->key_fds[i] >= 0)
			CHECK(strcmp(o->passphrase_files.items[i], "-") == 0);
		else
			CHECK(key_is_none(o->passphrase_files.items[i]));
	}
}

static void check_options(const struct options *o, enum command command)
{
	CHECK(o->command == command && (o->operand || o->spec.image));
	CHECK(!o->key_fds || o->n_key_fds == o->passphrase_files.n);
	for (int i = 1; i < o->ceph_argc; i++)
		CHECK(strcmp(o->ceph_argv[i], "--key") != 0);
	if (!(flags & FLAG_TRUSTED))
		check_untrusted(o);
	check_twice(o, command);
}

static void check_fault(const struct fault *f)
{
	struct json_object *o = control_fault_write(f);
	struct fault again = { 0 };

	CHECK(o && f->message[0] && control_fault_read(o, &again));
	CHECK(again.status == f->status && again.error == f->error &&
	      strcmp(again.message, f->message) == 0 && strcmp(again.hint, f->hint) == 0);
	json_object_put(o);
}

static void read_request(struct control_call *call, enum command command)
{
	struct options *o = NULL;
	struct fault f = { 0 };

	if (control_request_read(control_parameters(call), command, flags & FLAG_TRUSTED,
				 message_fd, call, &o, &f) == 0) {
		check_options(o, command);
		free_options(o);
	} else {
		CHECK(!o);
		check_fault(&f);
	}
}

/* ---- the daemon ---- */

static void called(void *arg, struct control_call *call)
{
	static const struct {
		const char *name;
		enum command command; /* NONE: it would start a process */
	} kept[] = {
		{ CONTROL_INTERFACE ".Map", COMMAND_MAP },
		{ CONTROL_INTERFACE ".Attach", COMMAND_ATTACH },
		{ CONTROL_INTERFACE ".Serve", COMMAND_SERVE },
		{ CONTROL_INTERFACE ".Unmap", COMMAND_NONE },
	};
	struct json_object *o = json_object_get(control_parameters(call));
	struct fault f = { 0 };

	for (size_t i = 0; i < sizeof(kept) / sizeof(kept[0]); i++) {
		if (strcmp(control_method(call), kept[i].name) != 0)
			continue;
		if (kept[i].command != COMMAND_NONE)
			read_request(call, kept[i].command);
		(void)control_fault_read(o, &f);
		if (flags & FLAG_REFUSE)
			control_refuse(call, CONTROL_FAILED, o);
		else
			control_reply(call, o);
		return;
	}
	json_object_put(o);
	methods_called(methods, call);
}

static void reload(void *arg)
{
}

static struct control *start(struct sockaddr_un *address, socklen_t *len)
{
	struct control_options o = { .run_dir = "/nowhere",
				     .group = (gid_t)-1,
				     .called = called,
				     .abandoned = methods_abandoned };
	struct control *control;

	CHECK(loop_new(&loop) == 0);
	o.arg = methods;
	o.loop = loop;
	o.fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	address->sun_family = AF_UNIX;
	CHECK(bind(o.fd, (struct sockaddr *)address, sizeof(sa_family_t)) == 0);
	CHECK(getsockname(o.fd, (struct sockaddr *)address, len) == 0 && listen(o.fd, 1) == 0);
	CHECK(control_new(&o, &control, NULL) == 0);
	return control;
}

/* ---- the client ---- */

static void send_part(int fd, const uint8_t *data, size_t len, unsigned int n_fds)
{
	union {
		struct cmsghdr align;
		char bytes[CMSG_SPACE(sizeof(int) * FDS_MAX)];
	} u = { 0 };
	struct iovec iov = { (void *)(uintptr_t)data, len };
	struct msghdr m = { .msg_iov = &iov, .msg_iovlen = 1 };
	int fds[FDS_MAX], null = null_fd(NULL, 0);

	for (unsigned int i = 0; i < FDS_MAX; i++)
		fds[i] = null;
	if (n_fds > 0) {
		m.msg_control = &u;
		m.msg_controllen = CMSG_SPACE(sizeof(int) * n_fds);
		u.align.cmsg_level = SOL_SOCKET;
		u.align.cmsg_type = SCM_RIGHTS;
		u.align.cmsg_len = CMSG_LEN(sizeof(int) * n_fds);
		memcpy(CMSG_DATA(&u.align), fds, sizeof(int) * n_fds);
	}
	if (len > 0)
		(void)sendmsg(fd, &m, MSG_NOSIGNAL | MSG_DONTWAIT);
	(void)close(null);
}

static void on_answer(struct watch *w)
{
	char text[4096];

	if (recv(w->fd, text, sizeof(text), MSG_DONTWAIT) <= 0 && errno != EAGAIN)
		loop_quit(loop);
	errno = 0;
}

int LLVMFuzzerInitialize(int *argc, char ***argv)
{
	struct methods_options m = { .run_dir = "/nowhere", .reload = reload };
	struct host_options h = { .run_dir = "/nowhere", .workers = 1 };

	log_set_level(LOG_LEVEL_ERROR);
	CHECK(loop_new(&host_loop) == 0);
	h.loop = m.loop = host_loop;
	CHECK(host_new(&h, &host) == 0);
	m.host = host;
	CHECK(methods_new(&m, &methods) == 0);
	return 0;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len)
{
	struct sockaddr_un address = { 0 };
	socklen_t address_len = sizeof(address);
	struct watch client = { .ready = on_answer };
	struct control *control;
	unsigned int n_fds;
	size_t cut;
	int before, after;

	if (len < HEAD || len > 16384)
		return 0;
	before = null_fd(NULL, 0);
	(void)close(before);
	n_fds = data[0] % (FDS_MAX + 1);
	flags = data[2];
	cut = (len - HEAD) * data[1] / 256;
	control = start(&address, &address_len);
	client.fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	CHECK(connect(client.fd, (struct sockaddr *)&address, address_len) == 0);
	CHECK(loop_add(loop, &client) == 0);
	send_part(client.fd, data + HEAD, cut, n_fds / 2);
	send_part(client.fd, data + HEAD + cut, len - HEAD - cut, n_fds - n_fds / 2);
	(void)shutdown(client.fd, SHUT_WR);
	CHECK(loop_run(loop) == 0);
	(void)close(client.fd);
	(void)control_free(control);
	loop = loop_free(loop);
	after = null_fd(NULL, 0);
	(void)close(after);
	CHECK(before == after);
	return 0;
}
