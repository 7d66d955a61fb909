/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Copyright (C) 2026 the rbdcrypt-nbd authors */

#ifndef RBDCRYPT_TESTS_KERNEL_H
#define RBDCRYPT_TESTS_KERNEL_H

/*
 * nbdctl against a kernel made up here. The doubles of nl_socket_alloc(),
 * nlmsg_alloc_size(), genl_connect() and nl_socket_add_membership() below take the place of
 * libnl's; everything else is the real libnl, whose bytes are taken off and put on at the place
 * where they would meet the kernel. So what is checked is each message as it would be sent,
 * attribute by attribute, and what comes back is as the kernel lays it out.
 */

#include <dlfcn.h>
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

static inline void put(struct bytes *m, const void *data, size_t len)
{
	assert_true(m->n + NLMSG_ALIGN(len) <= sizeof(m->b));
	memset(m->b + m->n, 0, NLMSG_ALIGN(len));
	if (len > 0)
		memcpy(m->b + m->n, data, len);
	m->n += NLMSG_ALIGN(len);
}

/* An attribute; returns where it is, for close_attr(). */
static inline size_t put_attr(struct bytes *m, uint16_t type, const void *data, size_t len)
{
	struct nlattr a = { (uint16_t)(NLA_HDRLEN + len), type };
	size_t at = m->n;

	put(m, &a, sizeof(a));
	put(m, data, len);
	return at;
}

static inline void close_attr(struct bytes *m, size_t at)
{
	uint16_t len = (uint16_t)(m->n - at);

	memcpy(m->b + at, &len, sizeof(len));
}

static inline void put_u32(struct bytes *m, uint16_t type, uint32_t v)
{
	put_attr(m, type, &v, sizeof(v));
}

static inline void put_u64(struct bytes *m, uint16_t type, uint64_t v)
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
	bool has_no_memory; /* for sockets and messages */
	int error; /* -errno it answers with */
	const char *text; /* with this explanation, or NULL */
	bool is_capped; /* and without the request */
	struct bytes answer; /* genetlink header and attributes before the ack, or nothing */
	/* What is on its way to whoever reads: datagrams. */
	unsigned int n_queue, at_queue;
	struct bytes queue[8];
	int joined;
} * kernel;

static inline struct bytes *new_datagram(void)
{
	assert_true(kernel->n_queue < 8);
	kernel->queue[kernel->n_queue].n = 0;
	return &kernel->queue[kernel->n_queue++];
}

/* A message that answers the last request. */
static inline struct bytes *begin_message(uint16_t type, uint16_t flags)
{
	struct nlmsghdr h = { 0, type, flags, kernel->header.nlmsg_seq, kernel->header.nlmsg_pid };
	struct bytes *m = new_datagram();

	put(m, &h, sizeof(h));
	return m;
}

static inline void end_message(struct bytes *m)
{
	uint32_t len = (uint32_t)m->n;

	memcpy(m->b, &len, sizeof(len));
}

/* The ack or the refusal, as netlink lays it out: with the request unless it was fine or capped. */
static inline void answer_verdict(void)
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
static inline void answer_family(void)
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

static inline int kernel_send(struct nl_sock *s, struct nl_msg *msg)
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

static inline int kernel_recv(struct nl_sock *s, struct sockaddr_nl *from, unsigned char **buf,
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
	struct nl_cb *cb;
	struct nl_sock *s;

	if (kernel->has_no_memory)
		return NULL;
	cb = nl_cb_alloc(NL_CB_DEFAULT);
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

struct nl_msg *nlmsg_alloc_size(size_t len)
{
	struct nl_msg *(*real)(size_t len);

	*(void **)&real = dlsym(RTLD_NEXT, "nlmsg_alloc_size");
	assert_non_null(real);
	return kernel->has_no_memory ? NULL : real(len);
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

static inline void put_file(const struct house *h, const char *path, const char *text)
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
static inline void put_device(const struct house *h, const char *cookie)
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

static inline int open_house(struct house *h)
{
	int fd = open(h->path, O_PATH | O_DIRECTORY);
	int r;

	assert_true(fd >= 0);
	memset(&h->f, 0, sizeof(h->f));
	r = nbdctl_open_at_take(&fd, &h->n, &h->f);
	assert_int_equal(fd, -1);
	return r;
}

static inline int setup(void **state)
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

static inline void drop_device(const struct house *h)
{
	static const char *const files[] = { "nbd3/size", "nbd3/pid", "nbd3/backend", "nbd3" };
	char full[200];
	unsigned int i;

	for (i = 0; i < 4; i++) {
		(void)snprintf(full, sizeof(full), "%s/%s", h->path, files[i]);
		(void)remove(full);
	}
}

static inline int teardown(void **state)
{
	struct house *h = *state;

	assert_null(nbdctl_close(h->n));
	drop_device(h);
	assert_int_equal(rmdir(h->path), 0);
	free(h);
	free(kernel);
	return 0;
}

static const int two_sockets[] = { 10, 11 };

static inline struct nbdctl_device device(void)
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

static inline void will_answer(uint8_t command, uint32_t index)
{
	struct genlmsghdr g = { command, 1, 0 };

	kernel->answer.n = 0;
	put(&kernel->answer, &g, sizeof(g));
	put_u32(&kernel->answer, NBD_ATTR_INDEX, index);
}

static inline void expect_request(const struct bytes *want)
{
	assert_int_equal(kernel->request.n, want->n);
	assert_memory_equal(kernel->request.b, want->b, want->n);
}

static inline void begin_request(struct bytes *m, uint8_t command)
{
	struct genlmsghdr g = { command, NBD_GENL_VERSION, 0 };

	m->n = 0;
	put(m, &g, sizeof(g));
}

static inline void put_sockets(struct bytes *m, unsigned int n, const int *fds)
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

#endif
