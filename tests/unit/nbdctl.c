/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Copyright (C) 2026 the rbdcrypt-nbd authors */

/*
 * nbdctl against a kernel made up here. The doubles of nl_socket_alloc(),
 * genl_connect() and nl_socket_add_membership() below take the place of libnl's; everything else
 * is the real libnl, whose bytes are taken off and put on at the place where they would meet the
 * kernel. So what is checked is each message as it would be sent, attribute by attribute, and what
 * comes back is as the kernel lays it out.
 */

#include <errno.h>
#include <fcntl.h>
#include <linux/genetlink.h>
#include <linux/nbd-netlink.h>
#include <linux/netlink.h>
#include <netlink/genl/genl.h>
#include <netlink/msg.h>
#include <netlink/netlink.h>
#include <netlink/socket.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#include "../../nbd/internal.h"
#include "wire.h"

#define FAMILY 0x1c
#define GROUP 5

/* ---- bytes ---- */

struct bytes {
	size_t n;
	unsigned char b[8192] __attribute__((aligned(8)));
};

static void put(struct bytes *m, const void *data, size_t len)
{
	assert_true(m->n + NLMSG_ALIGN(len) <= sizeof(m->b));
	memset(m->b + m->n, 0, NLMSG_ALIGN(len));
	if (len > 0)
		memcpy(m->b + m->n, data, len);
	m->n += NLMSG_ALIGN(len);
}

/* An attribute; returns where it is, for close_attr(). */
static size_t put_attr(struct bytes *m, uint16_t type, const void *data, size_t len)
{
	struct nlattr a = { (uint16_t)(NLA_HDRLEN + len), type };
	size_t at = m->n;

	put(m, &a, sizeof(a));
	put(m, data, len);
	return at;
}

static void close_attr(struct bytes *m, size_t at)
{
	uint16_t len = (uint16_t)(m->n - at);

	memcpy(m->b + at, &len, sizeof(len));
}

static void put_u32(struct bytes *m, uint16_t type, uint32_t v)
{
	put_attr(m, type, &v, sizeof(v));
}

static void put_u64(struct bytes *m, uint16_t type, uint64_t v)
{
	put_attr(m, type, &v, sizeof(v));
}

/* ---- the kernel ---- */

static struct kernel {
	/* What it was sent last: without the netlink header. */
	struct nlmsghdr header;
	struct bytes request;
	unsigned int n_requests;
	/* What it will do. */
	bool has_no_driver;
	int connect_error, send_error, recv_error, join_error; /* libnl's codes, or 0 */
	int error; /* -errno it answers with */
	const char *text; /* with this explanation, or NULL */
	bool is_capped; /* and without the request */
	struct bytes answer; /* genetlink header and attributes before the ack, or nothing */
	/* What is on its way to whoever reads: datagrams. */
	unsigned int n_queue, at_queue;
	struct bytes queue[8];
	int joined;
} * kernel;

static struct bytes *new_datagram(void)
{
	assert_true(kernel->n_queue < 8);
	kernel->queue[kernel->n_queue].n = 0;
	return &kernel->queue[kernel->n_queue++];
}

/* A message that answers the last request. */
static struct bytes *begin_message(uint16_t type, uint16_t flags)
{
	struct nlmsghdr h = { 0, type, flags, kernel->header.nlmsg_seq, kernel->header.nlmsg_pid };
	struct bytes *m = new_datagram();

	put(m, &h, sizeof(h));
	return m;
}

static void end_message(struct bytes *m)
{
	uint32_t len = (uint32_t)m->n;

	memcpy(m->b, &len, sizeof(len));
}

/* The ack or the refusal, as netlink lays it out: with the request unless it was fine or capped. */
static void answer_verdict(void)
{
	bool is_short = kernel->error == 0 || kernel->is_capped;
	struct bytes *m = begin_message(
		NLMSG_ERROR,
		(uint16_t)((is_short ? NLM_F_CAPPED : 0) | (kernel->text ? NLM_F_ACK_TLVS : 0)));
	int32_t error = kernel->error;

	put(m, &error, sizeof(error));
	put(m, &kernel->header, sizeof(kernel->header));
	if (!is_short)
		put(m, kernel->request.b, kernel->request.n);
	if (kernel->text)
		put_attr(m, NLMSGERR_ATTR_MSG, kernel->text, strlen(kernel->text) + 1);
	end_message(m);
}

/* The controller: which family is "nbd", and which are its groups. */
static void answer_family(void)
{
	struct genlmsghdr g = { CTRL_CMD_NEWFAMILY, 2, 0 };
	uint16_t id = FAMILY;
	struct bytes *m;
	size_t groups, group;

	assert_non_null(memmem(kernel->request.b, kernel->request.n, "nbd", 4));
	if (kernel->has_no_driver) {
		kernel->error = -ENOENT;
		answer_verdict();
		kernel->error = 0;
		return;
	}
	m = begin_message(GENL_ID_CTRL, 0);
	put(m, &g, sizeof(g));
	put_attr(m, CTRL_ATTR_FAMILY_NAME, "nbd", 4);
	put_attr(m, CTRL_ATTR_FAMILY_ID, &id, sizeof(id));
	groups = put_attr(m, CTRL_ATTR_MCAST_GROUPS, NULL, 0);
	group = put_attr(m, 1, NULL, 0);
	put_u32(m, CTRL_ATTR_MCAST_GRP_ID, GROUP);
	put_attr(m, CTRL_ATTR_MCAST_GRP_NAME, "nbd_mc_group", 13);
	close_attr(m, group);
	close_attr(m, groups);
	end_message(m);
	answer_verdict();
}

static int kernel_send(struct nl_sock *s, struct nl_msg *msg)
{
	struct nlmsghdr *h = nlmsg_hdr(msg);

	if (kernel->send_error)
		return kernel->send_error;
	kernel->header = *h;
	kernel->request.n = 0;
	put(&kernel->request, nlmsg_data(h), h->nlmsg_len - NLMSG_HDRLEN);
	kernel->n_queue = kernel->at_queue = 0;
	if (h->nlmsg_type == GENL_ID_CTRL) {
		answer_family();
		return (int)h->nlmsg_len;
	}
	kernel->n_requests++;
	assert_int_equal(h->nlmsg_type, FAMILY);
	assert_true(h->nlmsg_flags & NLM_F_REQUEST);
	assert_true(h->nlmsg_flags & NLM_F_ACK);
	if (kernel->answer.n > 0) {
		struct bytes *m = begin_message(FAMILY, 0);

		put(m, kernel->answer.b, kernel->answer.n);
		end_message(m);
	}
	answer_verdict();
	return (int)h->nlmsg_len;
}

static int kernel_recv(struct nl_sock *s, struct sockaddr_nl *from, unsigned char **buf,
		       struct ucred **creds)
{
	struct bytes *m;

	if (kernel->recv_error)
		return kernel->recv_error;
	if (kernel->at_queue == kernel->n_queue)
		return -NLE_AGAIN;
	m = &kernel->queue[kernel->at_queue++];
	memset(from, 0, sizeof(*from));
	from->nl_family = AF_NETLINK;
	*buf = malloc(m->n);
	assert_non_null(*buf);
	memcpy(*buf, m->b, m->n);
	return (int)m->n;
}

/* In place of libnl's: the same socket, but its bytes come here. */
struct nl_sock *nl_socket_alloc(void)
{
	struct nl_cb *cb = nl_cb_alloc(NL_CB_DEFAULT);
	struct nl_sock *s;

	assert_non_null(cb);
	nl_cb_overwrite_send(cb, kernel_send);
	nl_cb_overwrite_recv(cb, kernel_recv);
	s = nl_socket_alloc_cb(cb);
	nl_cb_put(cb);
	return s;
}

int genl_connect(struct nl_sock *s)
{
	return kernel->connect_error ? kernel->connect_error : nl_connect(s, NETLINK_GENERIC);
}

int nl_socket_add_membership(struct nl_sock *s, int group)
{
	kernel->joined = group;
	return kernel->join_error;
}

/* ---- the house ---- */

struct house {
	char path[64];
	struct nbdctl *n;
	struct fault f;
};

static void put_file(const struct house *h, const char *path, const char *text)
{
	char full[200];
	FILE *f;

	(void)snprintf(full, sizeof(full), "%s/%s", h->path, path);
	f = fopen(full, "w");
	assert_non_null(f);
	assert_true(fputs(text, f) >= 0);
	assert_int_equal(fclose(f), 0);
}

/* /sys/block with nbd3 alone; connected or not. */
static void put_device(const struct house *h, const char *cookie)
{
	char full[200];

	(void)snprintf(full, sizeof(full), "%s/nbd3", h->path);
	assert_int_equal(mkdir(full, 0755), 0);
	put_file(h, "nbd3/size", "0\n");
	if (cookie) {
		put_file(h, "nbd3/pid", "1\n");
		put_file(h, "nbd3/backend", cookie);
	}
}

static int open_house(struct house *h)
{
	int fd = open(h->path, O_PATH | O_DIRECTORY);
	int r;

	assert_true(fd >= 0);
	memset(&h->f, 0, sizeof(h->f));
	r = nbdctl_open_at_take(&fd, &h->n, &h->f);
	assert_int_equal(fd, -1);
	return r;
}

static int setup(void **state)
{
	struct house *h = calloc(1, sizeof(*h));

	kernel = calloc(1, sizeof(*kernel));
	assert_non_null(h);
	assert_non_null(kernel);
	strcpy(h->path, "/tmp/nbdctl-test-XXXXXX");
	assert_non_null(mkdtemp(h->path));
	assert_int_equal(open_house(h), 0);
	kernel->n_requests = 0;
	*state = h;
	return 0;
}

static int teardown(void **state)
{
	static const char *const files[] = { "nbd3/size", "nbd3/pid", "nbd3/backend", "nbd3", "" };
	struct house *h = *state;
	char full[200];
	unsigned int i;

	assert_null(nbdctl_close(h->n));
	for (i = 0; i < 5; i++) {
		(void)snprintf(full, sizeof(full), "%s/%s", h->path, files[i]);
		(void)remove(full);
	}
	free(h);
	free(kernel);
	return 0;
}

static const int two_sockets[] = { 10, 11 };

static struct nbdctl_device device(void)
{
	return (struct nbdctl_device){
		.size = UINT64_C(0x123456000),
		.block_size = 4096,
		.server_flags = WIRE_FLAG_HAS_FLAGS | WIRE_FLAG_CAN_MULTI_CONN,
		.io_timeout_s = -1,
		.dead_conn_timeout_s = -1,
		.sockets = two_sockets,
		.n_sockets = 2,
	};
}

static void will_answer(uint8_t command, uint32_t index)
{
	struct genlmsghdr g = { command, 1, 0 };

	kernel->answer.n = 0;
	put(&kernel->answer, &g, sizeof(g));
	put_u32(&kernel->answer, NBD_ATTR_INDEX, index);
}

static void expect_request(const struct bytes *want)
{
	assert_int_equal(kernel->request.n, want->n);
	assert_memory_equal(kernel->request.b, want->b, want->n);
}

static void begin_request(struct bytes *m, uint8_t command)
{
	struct genlmsghdr g = { command, NBD_GENL_VERSION, 0 };

	m->n = 0;
	put(m, &g, sizeof(g));
}

static void put_sockets(struct bytes *m, unsigned int n, const int *fds)
{
	size_t list = put_attr(m, NBD_ATTR_SOCKETS | NLA_F_NESTED, NULL, 0);
	unsigned int i;

	for (i = 0; i < n; i++) {
		size_t item = put_attr(m, NBD_SOCK_ITEM | NLA_F_NESTED, NULL, 0);

		put_u32(m, NBD_SOCK_FD, (uint32_t)fds[i]);
		close_attr(m, item);
	}
	close_attr(m, list);
}

/* ---- claims ---- */

static void a_kernel_without_the_driver_is_said(void **state)
{
	struct house *h = *state;

	nbdctl_close(h->n);
	h->n = NULL;
	kernel->has_no_driver = true;
	assert_int_equal(open_house(h), -ENOENT);
	assert_null(h->n);
	assert_int_equal(h->f.status, EXIT_KERNEL);
	assert_non_null(strstr(h->f.message, "no nbd driver"));
	assert_non_null(strstr(h->f.hint, "modprobe nbd"));
}

static void a_socket_that_fails_is_said(void **state)
{
	static const struct {
		int code, error;
		enum exit_status status;
	} table[] = {
		{ -NLE_PERM, -EPERM, EXIT_PASSPHRASE },
		{ -NLE_NOMEM, -ENOBUFS, EXIT_KERNEL },
		{ -NLE_BAD_SOCK, -EBADF, EXIT_KERNEL },
		{ -NLE_FAILURE, -EIO, EXIT_KERNEL },
	};
	struct house *h = *state;
	unsigned int i;

	nbdctl_close(h->n);
	h->n = NULL;
	for (i = 0; i < 4; i++) {
		kernel->connect_error = table[i].code;
		assert_int_equal(open_house(h), table[i].error);
		assert_null(h->n);
		assert_int_equal(h->f.status, table[i].status);
	}
}

static void connect_sends_what_was_given(void **state)
{
	struct house *h = *state;
	struct nbdctl_device d = device();
	struct bytes want;
	int index = -7;

	d.io_timeout_s = 0;
	d.dead_conn_timeout_s = 30;
	d.cookie = "rbd/vol one";
	will_answer(NBD_CMD_CONNECT, 3);
	assert_int_equal(nbdctl_connect(h->n, 3, &d, &index, &h->f), 0);
	assert_int_equal(index, 3);
	begin_request(&want, NBD_CMD_CONNECT);
	put_u32(&want, NBD_ATTR_INDEX, 3);
	put_u64(&want, NBD_ATTR_SERVER_FLAGS, d.server_flags);
	put_u64(&want, NBD_ATTR_SIZE_BYTES, d.size);
	put_u64(&want, NBD_ATTR_BLOCK_SIZE_BYTES, 4096);
	put_u64(&want, NBD_ATTR_TIMEOUT, 0);
	put_u64(&want, NBD_ATTR_DEAD_CONN_TIMEOUT, 30);
	put_attr(&want, NBD_ATTR_BACKEND_IDENTIFIER, "rbd/vol one", 12);
	put_sockets(&want, 2, two_sockets);
	expect_request(&want);
}

static void connect_leaves_to_the_kernel_what_was_not_given(void **state)
{
	struct house *h = *state;
	struct nbdctl_device d = device();
	struct bytes want;
	int index = -7;

	d.n_sockets = 1;
	d.server_flags = WIRE_FLAG_HAS_FLAGS;
	will_answer(NBD_CMD_CONNECT, 12);
	assert_int_equal(nbdctl_connect(h->n, -1, &d, &index, &h->f), 0);
	assert_int_equal(index, 12);
	begin_request(&want, NBD_CMD_CONNECT);
	put_u64(&want, NBD_ATTR_SERVER_FLAGS, WIRE_FLAG_HAS_FLAGS);
	put_u64(&want, NBD_ATTR_SIZE_BYTES, d.size);
	put_u64(&want, NBD_ATTR_BLOCK_SIZE_BYTES, 4096);
	put_sockets(&want, 1, two_sockets);
	expect_request(&want);
}

static void many_sockets_and_a_long_cookie_fit(void **state)
{
	struct house *h = *state;
	struct nbdctl_device d = device();
	int fds[256], index = -7, i;
	char cookie[511];
	struct bytes want;

	for (i = 0; i < 256; i++)
		fds[i] = 1000 + i;
	memset(cookie, 'c', sizeof(cookie));
	cookie[510] = 0;
	d.sockets = fds;
	d.n_sockets = 256;
	d.cookie = cookie;
	will_answer(NBD_CMD_CONNECT, 3);
	assert_int_equal(nbdctl_connect(h->n, -1, &d, &index, &h->f), 0);
	begin_request(&want, NBD_CMD_CONNECT);
	put_u64(&want, NBD_ATTR_SERVER_FLAGS, d.server_flags);
	put_u64(&want, NBD_ATTR_SIZE_BYTES, d.size);
	put_u64(&want, NBD_ATTR_BLOCK_SIZE_BYTES, 4096);
	put_attr(&want, NBD_ATTR_BACKEND_IDENTIFIER, cookie, 511);
	put_sockets(&want, 256, fds);
	expect_request(&want);
}

static void reconfigure_sends_only_what_changes(void **state)
{
	struct house *h = *state;
	const struct nbdctl_device nothing = { .io_timeout_s = -1, .dead_conn_timeout_s = -1 };
	struct nbdctl_device d = nothing;
	struct bytes want;

	d.size = 8192;
	d.cookie = "c";
	/* Flags cannot change any more, and are not sent. */
	d.server_flags = WIRE_FLAG_READ_ONLY;
	assert_int_equal(nbdctl_reconfigure(h->n, 3, &d, &h->f), 0);
	begin_request(&want, NBD_CMD_RECONFIGURE);
	put_u32(&want, NBD_ATTR_INDEX, 3);
	put_u64(&want, NBD_ATTR_SIZE_BYTES, 8192);
	put_attr(&want, NBD_ATTR_BACKEND_IDENTIFIER, "c", 2);
	expect_request(&want);

	d = nothing;
	d.cookie = "";
	d.sockets = two_sockets;
	d.n_sockets = 1;
	assert_int_equal(nbdctl_reconfigure(h->n, 3, &d, &h->f), 0);
	begin_request(&want, NBD_CMD_RECONFIGURE);
	put_u32(&want, NBD_ATTR_INDEX, 3);
	put_sockets(&want, 1, two_sockets);
	expect_request(&want);
}

static void disconnect_and_status_send_the_index(void **state)
{
	struct house *h = *state;
	struct bytes want;
	bool connected;

	assert_int_equal(nbdctl_disconnect(h->n, 3, &h->f), 0);
	begin_request(&want, NBD_CMD_DISCONNECT);
	put_u32(&want, NBD_ATTR_INDEX, 3);
	expect_request(&want);
	assert_int_equal(nbdctl_status(h->n, 3, &connected), 0);
	begin_request(&want, NBD_CMD_STATUS);
	put_u32(&want, NBD_ATTR_INDEX, 3);
	expect_request(&want);
}

static void status_is_of_the_device_that_was_asked_for(void **state)
{
	static const struct genlmsghdr g = { NBD_CMD_STATUS, 1, 0 };
	struct house *h = *state;
	uint8_t yes = 1, no = 0;
	size_t list, item;
	bool connected = true;

	/* A device the kernel does not know: an empty list. */
	kernel->answer.n = 0;
	put(&kernel->answer, &g, sizeof(g));
	list = put_attr(&kernel->answer, NBD_ATTR_DEVICE_LIST, NULL, 0);
	close_attr(&kernel->answer, list);
	assert_int_equal(nbdctl_status(h->n, 3, &connected), 0);
	assert_false(connected);

	/* Others, half an item and an unknown one are not it. */
	item = put_attr(&kernel->answer, NBD_DEVICE_ITEM, NULL, 0);
	put_u32(&kernel->answer, NBD_DEVICE_INDEX, 2);
	put_attr(&kernel->answer, NBD_DEVICE_CONNECTED, &yes, 1);
	close_attr(&kernel->answer, item);
	item = put_attr(&kernel->answer, NBD_DEVICE_ITEM, NULL, 0);
	put_u32(&kernel->answer, NBD_DEVICE_INDEX, 3);
	close_attr(&kernel->answer, item);
	put_attr(&kernel->answer, 9, "odd", 3);
	close_attr(&kernel->answer, list);
	assert_int_equal(nbdctl_status(h->n, 3, &connected), 0);
	assert_false(connected);
	assert_int_equal(nbdctl_status(h->n, 2, &connected), 0);
	assert_true(connected);

	item = put_attr(&kernel->answer, NBD_DEVICE_ITEM, NULL, 0);
	put_u32(&kernel->answer, NBD_DEVICE_INDEX, 4);
	put_attr(&kernel->answer, NBD_DEVICE_CONNECTED, &no, 1);
	close_attr(&kernel->answer, item);
	close_attr(&kernel->answer, list);
	assert_int_equal(nbdctl_status(h->n, 4, &connected), 0);
	assert_false(connected);
}

static void status_errors_are_the_kernels(void **state)
{
	struct house *h = *state;
	bool connected = true;

	kernel->error = -EMSGSIZE;
	assert_int_equal(nbdctl_status(h->n, 3, &connected), -EMSGSIZE);
	kernel->send_error = -NLE_PERM;
	assert_int_equal(nbdctl_status(h->n, 3, &connected), -EPERM);
	assert_true(connected);
}

/* ---- refusals ---- */

static void expect_connect_fault(struct house *h, int index, int error, enum exit_status status,
				 const char *message)
{
	struct nbdctl_device d = device();
	int got = -7;

	memset(&h->f, 0, sizeof(h->f));
	assert_int_equal(nbdctl_connect(h->n, index, &d, &got, &h->f), error);
	assert_int_equal(got, -7);
	assert_int_equal(h->f.status, status);
	assert_int_equal(h->f.error, error);
	assert_string_equal(h->f.message, message);
}

static void a_refused_connect_is_explained(void **state)
{
	struct house *h = *state;

	kernel->error = -EBUSY;
	expect_connect_fault(h, 3, -EBUSY, EXIT_BUSY, "/dev/nbd3: device is already in use");
	kernel->error = -EEXIST;
	expect_connect_fault(h, 3, -EBUSY, EXIT_BUSY, "/dev/nbd3: device is already in use");
	kernel->error = -ENOSPC;
	expect_connect_fault(h, -1, -EBUSY, EXIT_BUSY, "every nbd device is in use");
	kernel->error = -EPERM;
	expect_connect_fault(h, -1, -EPERM, EXIT_PASSPHRASE,
			     "no permission to control nbd devices");
	assert_non_null(strstr(h->f.hint, "CAP_SYS_ADMIN"));
	kernel->error = -ENOMEM;
	expect_connect_fault(h, -1, -ENOMEM, EXIT_MEMORY, "the kernel is out of memory");
	kernel->error = -ENODEV;
	expect_connect_fault(h, -1, -ENODEV, EXIT_KERNEL, "the nbd driver is being unloaded");
	kernel->error = -EIO;
	expect_connect_fault(h, -1, -EIO, EXIT_KERNEL,
			     "the nbd driver refused: Input/output error");
}

static void einval_is_a_number_too_large_or_a_device_going_down(void **state)
{
	struct house *h = *state;

	kernel->error = -EINVAL;
	expect_connect_fault(
		h, 3, -ENODEV, EXIT_NOT_FOUND,
		"/dev/nbd3: no such device, and its number is too large for the driver");
	put_device(h, NULL);
	expect_connect_fault(h, 3, -EBUSY, EXIT_BUSY, "/dev/nbd3: device is just being removed");
	expect_connect_fault(h, -1, -EINVAL, EXIT_KERNEL,
			     "the nbd driver refused: Invalid argument");
}

static void the_kernels_own_words_are_told(void **state)
{
	struct house *h = *state;

	kernel->error = -EINVAL;
	kernel->text = "Unsupported socket: should be TCP or UNIX.";
	expect_connect_fault(
		h, -1, -EINVAL, EXIT_KERNEL,
		"the nbd driver refused: Invalid argument (Unsupported socket: should be "
		"TCP or UNIX.)");
	kernel->is_capped = true;
	expect_connect_fault(
		h, -1, -EINVAL, EXIT_KERNEL,
		"the nbd driver refused: Invalid argument (Unsupported socket: should be "
		"TCP or UNIX.)");
	kernel->error = -EBUSY;
	kernel->text = "occupied";
	expect_connect_fault(h, 3, -EBUSY, EXIT_BUSY,
			     "/dev/nbd3: device is already in use: occupied");
	/* A note beside a success harms nothing. */
	kernel->error = 0;
	assert_int_equal(nbdctl_disconnect(h->n, 3, &h->f), 0);
}

static void a_success_without_an_index_is_a_failure_unless_it_is_known(void **state)
{
	struct house *h = *state;
	struct nbdctl_device d = device();
	int index = -7;

	expect_connect_fault(h, -1, -EPROTO, EXIT_KERNEL,
			     "the nbd driver did not say which device it chose");
	assert_int_equal(nbdctl_connect(h->n, 3, &d, &index, &h->f), 0);
	assert_int_equal(index, 3);
}

static void a_positive_error_is_not_success(void **state)
{
	struct house *h = *state;

	kernel->error = 5;
	assert_int_equal(nbdctl_disconnect(h->n, 3, &h->f), -EIO);
}

static void a_kernel_that_cannot_be_asked_is_said(void **state)
{
	struct house *h = *state;

	kernel->recv_error = -NLE_NOMEM;
	expect_connect_fault(
		h, 3, -ENOBUFS, EXIT_KERNEL,
		"/dev/nbd3: netlink: the nbd driver cannot be asked: No buffer space available");
	kernel->recv_error = 0;
	kernel->send_error = -NLE_MSGSIZE;
	expect_connect_fault(
		h, 3, -EMSGSIZE, EXIT_KERNEL,
		"/dev/nbd3: netlink: the nbd driver cannot be asked: Message too long");
}

static void expect_reconfigure_fault(struct house *h, const char *cookie, int error,
				     enum exit_status status, const char *message)
{
	struct nbdctl_device d = {
		.size = 4096, .cookie = cookie, .io_timeout_s = -1, .dead_conn_timeout_s = -1
	};

	memset(&h->f, 0, sizeof(h->f));
	assert_int_equal(nbdctl_reconfigure(h->n, 3, &d, &h->f), error);
	assert_int_equal(h->f.status, status);
	assert_string_equal(h->f.message, message);
}

static void a_refused_reconfigure_is_explained(void **state)
{
	struct house *h = *state;

	kernel->error = -EINVAL;
	expect_reconfigure_fault(h, "a", -ENODEV, EXIT_NOT_FOUND, "/dev/nbd3: no such device");
	put_device(h, NULL);
	expect_reconfigure_fault(h, "a", -ENOTCONN, EXIT_NOT_FOUND,
				 "/dev/nbd3: device is not connected");
	put_file(h, "nbd3/pid", "1\n");
	put_file(h, "nbd3/backend", "b\n");
	expect_reconfigure_fault(
		h, "a", -ESTALE, EXIT_NOT_FOUND,
		"/dev/nbd3: device serves another image: its cookie is \"b\", not \"a\"");
	expect_reconfigure_fault(
		h, NULL, -ESTALE, EXIT_NOT_FOUND,
		"/dev/nbd3: device serves another image: its cookie is \"b\", not \"\"");
	expect_reconfigure_fault(h, "b", -EINVAL, EXIT_KERNEL,
				 "/dev/nbd3: the nbd driver refused: Invalid argument");
	put_file(h, "nbd3/size", "odd\n");
	expect_reconfigure_fault(h, "a", -EINVAL, EXIT_KERNEL,
				 "/dev/nbd3: the nbd driver refused: Invalid argument");
	kernel->error = -EPERM;
	expect_reconfigure_fault(h, "a", -EPERM, EXIT_PASSPHRASE,
				 "/dev/nbd3: no permission to control nbd devices");
	kernel->error = -EIO;
	expect_reconfigure_fault(h, "a", -EIO, EXIT_KERNEL,
				 "/dev/nbd3: the nbd driver refused: Input/output error");
	kernel->send_error = -NLE_FAILURE;
	expect_reconfigure_fault(
		h, "a", -EIO, EXIT_KERNEL,
		"/dev/nbd3: netlink: the nbd driver cannot be asked: Input/output error");
}

static void a_refused_disconnect_is_explained(void **state)
{
	static const struct {
		int kernel, error;
		enum exit_status status;
	} table[] = {
		{ -EINVAL, -ENODEV, EXIT_NOT_FOUND },
		{ -EPERM, -EPERM, EXIT_PASSPHRASE },
		{ -EIO, -EIO, EXIT_KERNEL },
	};
	struct house *h = *state;
	unsigned int i;

	for (i = 0; i < 3; i++) {
		kernel->error = table[i].kernel;
		memset(&h->f, 0, sizeof(h->f));
		assert_int_equal(nbdctl_disconnect(h->n, 3, &h->f), table[i].error);
		assert_int_equal(h->f.status, table[i].status);
		assert_memory_equal(h->f.message, "/dev/nbd3: ", 11);
	}
	kernel->send_error = -NLE_FAILURE;
	assert_int_equal(nbdctl_disconnect(h->n, 3, &h->f), -EIO);
}

static void nonsense_never_reaches_the_kernel(void **state)
{
	static const int closed[] = { 10, -1 };
	static char long_cookie[512];
	struct house *h = *state;
	struct nbdctl_device bad[10];
	unsigned int i;
	int index = -7;

	memset(long_cookie, 'c', 511);
	for (i = 0; i < 10; i++)
		bad[i] = device();
	bad[0].block_size = 1024 + 512;
	bad[1].block_size = 8192;
	bad[2].block_size = 256;
	bad[3].n_sockets = 0;
	bad[4].size += 512;
	bad[5].size = UINT64_C(1) << 63;
	bad[6].n_sockets = 257;
	bad[7].sockets = closed;
	bad[8].cookie = long_cookie;
	bad[9].cookie = "two\nlines";
	for (i = 0; i < 10; i++) {
		memset(&h->f, 0, sizeof(h->f));
		assert_true(nbdctl_connect(h->n, -1, &bad[i], &index, &h->f) < 0);
		assert_int_equal(h->f.status, EXIT_USAGE);
		memset(&h->f, 0, sizeof(h->f));
		if (i != 3)
			assert_true(nbdctl_reconfigure(h->n, 3, &bad[i], &h->f) < 0);
	}
	bad[0] = device();
	bad[0].server_flags = WIRE_FLAG_HAS_FLAGS;
	assert_int_equal(nbdctl_connect(h->n, -1, &bad[0], &index, &h->f), -EINVAL);
	assert_int_equal(kernel->n_requests, 0);
	assert_int_equal(index, -7);
}

/* ---- events ---- */

struct heard {
	unsigned int n;
	int index[8];
};

static void hear(void *arg, int index)
{
	struct heard *heard = arg;

	assert_true(heard->n < 8);
	heard->index[heard->n++] = index;
}

/* As the kernel multicasts: no sequence number that means anything. */
static void will_send_event(uint16_t family, uint8_t command, int index)
{
	struct genlmsghdr g = { command, 1, 0 };
	struct nlmsghdr n = { 0, family, 0, 0, 0 };
	struct bytes *m = new_datagram();

	put(m, &n, sizeof(n));
	put(m, &g, sizeof(g));
	if (index >= 0)
		put_u32(m, NBD_ATTR_INDEX, (uint32_t)index);
	end_message(m);
}

static void dead_links_are_heard_and_nothing_else(void **state)
{
	struct house *h = *state;
	struct heard heard = { 0 };
	int fd = nbdctl_event_fd(h->n, &h->f);

	assert_true(fd >= 0);
	assert_true(fcntl(fd, F_GETFL) & O_NONBLOCK);
	assert_int_equal(kernel->joined, GROUP);
	/* A second call is the same socket. */
	assert_int_equal(nbdctl_event_fd(h->n, &h->f), fd);
	kernel->n_queue = kernel->at_queue = 0;
	assert_int_equal(nbdctl_read_events(h->n, hear, &heard), 0);
	assert_int_equal(heard.n, 0);
	will_send_event(FAMILY, NBD_CMD_LINK_DEAD, 3);
	will_send_event(FAMILY, NBD_CMD_LINK_DEAD, 3);
	will_send_event(FAMILY, NBD_CMD_CONNECT, 4);
	will_send_event(FAMILY + 1, NBD_CMD_LINK_DEAD, 5);
	will_send_event(FAMILY, NBD_CMD_LINK_DEAD, -1);
	will_send_event(FAMILY, NBD_CMD_LINK_DEAD, 6);
	assert_int_equal(nbdctl_read_events(h->n, hear, &heard), 0);
	assert_int_equal(heard.n, 3);
	assert_int_equal(heard.index[0], 3);
	assert_int_equal(heard.index[1], 3);
	assert_int_equal(heard.index[2], 6);
}

static void lost_events_are_said(void **state)
{
	struct house *h = *state;
	struct heard heard = { 0 };

	assert_int_equal(nbdctl_read_events(h->n, hear, &heard), -EINVAL);
	assert_true(nbdctl_event_fd(h->n, &h->f) >= 0);
	kernel->recv_error = -NLE_NOMEM;
	assert_int_equal(nbdctl_read_events(h->n, hear, &heard), -ENOBUFS);
}

static void a_group_that_cannot_be_joined_is_said(void **state)
{
	struct house *h = *state;

	kernel->join_error = -NLE_PERM;
	assert_int_equal(nbdctl_event_fd(h->n, &h->f), -EPERM);
	assert_int_equal(h->f.status, EXIT_PASSPHRASE);
	kernel->has_no_driver = true;
	memset(&h->f, 0, sizeof(h->f));
	assert_int_equal(nbdctl_event_fd(h->n, &h->f), -ENOENT);
	assert_int_equal(h->f.status, EXIT_KERNEL);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(a_kernel_without_the_driver_is_said, setup,
						teardown),
		cmocka_unit_test_setup_teardown(a_socket_that_fails_is_said, setup, teardown),
		cmocka_unit_test_setup_teardown(connect_sends_what_was_given, setup, teardown),
		cmocka_unit_test_setup_teardown(connect_leaves_to_the_kernel_what_was_not_given,
						setup, teardown),
		cmocka_unit_test_setup_teardown(many_sockets_and_a_long_cookie_fit, setup,
						teardown),
		cmocka_unit_test_setup_teardown(reconfigure_sends_only_what_changes, setup,
						teardown),
		cmocka_unit_test_setup_teardown(disconnect_and_status_send_the_index, setup,
						teardown),
		cmocka_unit_test_setup_teardown(status_is_of_the_device_that_was_asked_for, setup,
						teardown),
		cmocka_unit_test_setup_teardown(status_errors_are_the_kernels, setup, teardown),
		cmocka_unit_test_setup_teardown(a_refused_connect_is_explained, setup, teardown),
		cmocka_unit_test_setup_teardown(einval_is_a_number_too_large_or_a_device_going_down,
						setup, teardown),
		cmocka_unit_test_setup_teardown(the_kernels_own_words_are_told, setup, teardown),
		cmocka_unit_test_setup_teardown(
			a_success_without_an_index_is_a_failure_unless_it_is_known, setup,
			teardown),
		cmocka_unit_test_setup_teardown(a_positive_error_is_not_success, setup, teardown),
		cmocka_unit_test_setup_teardown(a_kernel_that_cannot_be_asked_is_said, setup,
						teardown),
		cmocka_unit_test_setup_teardown(a_refused_reconfigure_is_explained, setup,
						teardown),
		cmocka_unit_test_setup_teardown(a_refused_disconnect_is_explained, setup, teardown),
		cmocka_unit_test_setup_teardown(nonsense_never_reaches_the_kernel, setup, teardown),
		cmocka_unit_test_setup_teardown(dead_links_are_heard_and_nothing_else, setup,
						teardown),
		cmocka_unit_test_setup_teardown(lost_events_are_said, setup, teardown),
		cmocka_unit_test_setup_teardown(a_group_that_cannot_be_joined_is_said, setup,
						teardown),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
