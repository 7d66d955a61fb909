/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Copyright (C) 2026 the rbdcrypt-nbd authors */

/*
 * The kernel's nbd driver over generic netlink. One handle is two sockets: one for
 * commands, each sent and waited for, and one that only listens for LINK_DEAD.
 * A handle belongs to one thread at a time (a volume's, or a command's);
 * threads that need the kernel at the same time open one each. RECONFIGURE with a
 * size waits until requests in flight are answered, so it never runs on a thread
 * that answers them.
 *
 * Two worlds of errors end here: libnl's own codes (nl_error) for what went wrong
 * on our side, and the kernel's errno with its text for what it refused, which
 * refuse.c explains.
 *
 * linux/nbd-netlink.h is included here only: its NBD_CMD_ names collide with the wire's.
 */

#include "internal.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/nbd-netlink.h>
#include <linux/netlink.h>
#include <netlink/genl/ctrl.h>
#include <netlink/genl/genl.h>
#include <netlink/netlink.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "log.h"
#include "scope.h"

/* LINK_DEAD comes once per socket; a few hundred may die at once. */
#define EVENT_BUFFER_BYTES (256 << 10)
#define EVENTS_PER_CALL 256u

struct nbdctl {
	struct nl_sock *commands;
	struct nl_sock *events; /* NULL until nbdctl_event_fd() */
	int family;
	int block_fd; /* /sys/block */
};

static void scope_free_msg(struct nl_msg **msg)
{
	nlmsg_free(*msg);
}
#define scope_msg __attribute__((cleanup(scope_free_msg)))

static void scope_put_cb(struct nl_cb **cb)
{
	nl_cb_put(*cb);
}
#define scope_cb __attribute__((cleanup(scope_put_cb)))

/* libnl's code, negative as its functions return it, as -errno. */
static int nl_error(int code)
{
	switch (-code) {
	case NLE_INTR:
		return -EINTR;
	case NLE_BAD_SOCK:
		return -EBADF;
	case NLE_AGAIN:
		return -EAGAIN;
	case NLE_NOMEM:
		/* Also what it says when the kernel dropped messages for lack of buffer. */
		return -ENOBUFS;
	case NLE_EXIST:
		return -EEXIST;
	case NLE_INVAL:
	case NLE_RANGE:
		return -EINVAL;
	case NLE_MSGSIZE:
	case NLE_MSG_OVERFLOW:
	case NLE_MSG_TRUNC:
		return -EMSGSIZE;
	case NLE_OPNOTSUPP:
		return -EOPNOTSUPP;
	case NLE_AF_NOSUPPORT:
	case NLE_PROTO_MISMATCH:
		return -EPROTONOSUPPORT;
	case NLE_OBJ_NOTFOUND:
	case NLE_NOATTR:
	case NLE_MISSING_ATTR:
		return -ENOENT;
	case NLE_BUSY:
		return -EBUSY;
	case NLE_PERM:
	case NLE_NOACCESS:
		return -EPERM;
	case NLE_NODEV:
		return -ENODEV;
	default:
		return -EIO;
	}
}

/* ---- one command and its answer ---- */

struct answer {
	bool is_done;
	struct verdict verdict;
	int index; /* -1: it named none */
};

static int parse_attrs(struct nl_msg *msg, struct nlattr *ret[NBD_ATTR_MAX + 1])
{
	static const struct nla_policy policy[NBD_ATTR_MAX + 1] = {
		[NBD_ATTR_INDEX] = { .type = NLA_U32 },
	};

	/* libnl does not write to the policy, but older prototypes do not say so. */
	return genlmsg_parse(nlmsg_hdr(msg), 0, ret, NBD_ATTR_MAX,
			     (struct nla_policy *)(uintptr_t)policy);
}

static int on_valid(struct nl_msg *msg, void *arg)
{
	struct nlattr *attr[NBD_ATTR_MAX + 1];
	struct answer *a = arg;

	if (parse_attrs(msg, attr) < 0)
		return NL_SKIP;
	if (attr[NBD_ATTR_INDEX])
		a->index = (int)nla_get_u32(attr[NBD_ATTR_INDEX]);
	return NL_OK;
}

static int on_ack(struct nl_msg *msg, void *arg)
{
	struct answer *a = arg;

	a->is_done = true;
	return NL_STOP;
}

static int on_error(struct sockaddr_nl *from, struct nlmsgerr *error, void *arg)
{
	struct answer *a = arg;

	a->is_done = true;
	/* A positive number would be a kernel bug; it must not look like success. */
	a->verdict.error = error->error < 0 ? error->error : -EIO;
	return NL_STOP;
}

/* Sees each message before libnl judges it: libnl 3.7 has no eye for extended acks. */
static int on_message(struct nl_msg *msg, void *arg)
{
	struct nlmsghdr *h = nlmsg_hdr(msg);
	struct answer *a = arg;
	struct nlmsgerr *e = nlmsg_data(h);
	struct nlattr *text;
	size_t skip = sizeof(*e);

	if (h->nlmsg_type != NLMSG_ERROR || !(h->nlmsg_flags & NLM_F_ACK_TLVS) ||
	    nlmsg_datalen(h) < (int)sizeof(*e))
		return NL_OK;
	/* An error carries our whole request back, unless capped to the header e has. */
	if (!(h->nlmsg_flags & NLM_F_CAPPED) && e->msg.nlmsg_len >= sizeof(e->msg))
		skip += e->msg.nlmsg_len - sizeof(e->msg);
	skip = NLMSG_ALIGN(skip);
	if (skip >= (size_t)nlmsg_datalen(h))
		return NL_OK;
	text = nla_find((struct nlattr *)((char *)e + skip), nlmsg_datalen(h) - (int)skip,
			NLMSGERR_ATTR_MSG);
	if (text)
		(void)snprintf(a->verdict.text, sizeof(a->verdict.text), "%.*s", nla_len(text),
			       (const char *)nla_data(text));
	return NL_OK;
}

/*
 * Sends, and reads until the kernel has acknowledged or refused. 0: the kernel's verdict is in a.
 * -errno: it could not be asked.
 */
static int transact(struct nbdctl *n, struct nl_msg *msg, struct answer *a)
{
	scope_cb struct nl_cb *cb = NULL;
	struct nl_cb *defaults = nl_socket_get_cb(n->commands);
	int r;

	cb = nl_cb_clone(defaults);
	nl_cb_put(defaults);
	if (!cb)
		return -ENOMEM;
	nl_cb_set(cb, NL_CB_MSG_IN, NL_CB_CUSTOM, on_message, a);
	nl_cb_set(cb, NL_CB_VALID, NL_CB_CUSTOM, on_valid, a);
	nl_cb_set(cb, NL_CB_ACK, NL_CB_CUSTOM, on_ack, a);
	nl_cb_err(cb, NL_CB_CUSTOM, on_error, a);
	r = nl_send_auto(n->commands, msg);
	while (r >= 0 && !a->is_done)
		r = nl_recvmsgs(n->commands, cb);
	/* When the kernel refused, libnl says so a second time, in fewer words. */
	if (!a->is_done)
		return nl_error(r);
	log_debug(NULL, "nbd netlink: %d %s", a->verdict.error, a->verdict.text);
	return 0;
}

static struct nl_msg *new_command(struct nbdctl *n, uint8_t command, size_t more_bytes)
{
	struct nl_msg *msg = nlmsg_alloc_size(512 + more_bytes);

	if (msg && !genlmsg_put(msg, NL_AUTO_PORT, NL_AUTO_SEQ, n->family, 0, 0, command,
				NBD_GENL_VERSION)) {
		nlmsg_free(msg);
		msg = NULL;
	}
	return msg;
}

/* ---- opening ---- */

struct nbdctl *nbdctl_close(struct nbdctl *n)
{
	if (!n)
		return NULL;
	nl_socket_free(n->events);
	nl_socket_free(n->commands);
	if (n->block_fd >= 0)
		close(n->block_fd);
	free(n);
	return NULL;
}

static int fail_open(struct fault *f, const char *what, int code)
{
	int error = nl_error(code);

	if (error == -EPERM)
		return fault_set(f, EXIT_PASSPHRASE, error, "netlink: %s: no permission", what);
	return fault_set(f, EXIT_KERNEL, error, "netlink: %s: %s", what, nl_geterror(code));
}

int nbdctl_open_at_take(int *block_fd, struct nbdctl **ret, struct fault *f)
{
	struct nbdctl *n = calloc(1, sizeof(*n));
	int on = 1, r;

	if (!n) {
		close(*block_fd);
		*block_fd = -1;
		return fault_set(f, EXIT_MEMORY, -ENOMEM, "netlink: out of memory");
	}
	n->block_fd = *block_fd;
	*block_fd = -1;
	n->commands = nl_socket_alloc();
	if (!n->commands) {
		nbdctl_close(n);
		return fault_set(f, EXIT_MEMORY, -ENOMEM, "netlink: out of memory");
	}
	r = genl_connect(n->commands);
	if (r < 0) {
		nbdctl_close(n);
		return fail_open(f, "cannot open a socket", r);
	}
	/* Explanations are a courtesy of newer kernels; without them there are still numbers. */
	if (setsockopt(nl_socket_get_fd(n->commands), SOL_NETLINK, NETLINK_EXT_ACK, &on,
		       sizeof(on)) < 0)
		log_debug(NULL, "netlink: no extended acks: %d", -errno);
	/* Says "not found" for every failure; the likely one is told. */
	r = genl_ctrl_resolve(n->commands, NBD_GENL_FAMILY_NAME);
	if (r < 0) {
		nbdctl_close(n);
		fault_set(f, EXIT_KERNEL, -ENOENT, "this kernel has no nbd driver loaded");
		fault_hint(f, "load it: modprobe nbd");
		return -ENOENT;
	}
	n->family = r;
	*ret = n;
	return 0;
}

int nbdctl_open(struct nbdctl **ret, struct fault *f)
{
	int block_fd = open(SYSFS_BLOCK, O_PATH | O_DIRECTORY | O_CLOEXEC);

	if (block_fd < 0) {
		int error = -errno;

		return fault_set(f, EXIT_KERNEL, error, "%s: %s", SYSFS_BLOCK, strerror(-error));
	}
	return nbdctl_open_at_take(&block_fd, ret, f);
}

/* ---- commands ---- */

static void prefix_device(struct fault *f, int index)
{
	if (index >= 0)
		fault_prefix(f, "/dev/nbd%d", index);
}

static int put_sockets(struct nl_msg *msg, const struct nbdctl_device *d)
{
	struct nlattr *list, *item;
	unsigned int i;

	list = nla_nest_start(msg, NBD_ATTR_SOCKETS);
	if (!list)
		return -NLE_NOMEM;
	for (i = 0; i < d->n_sockets; i++) {
		item = nla_nest_start(msg, NBD_SOCK_ITEM);
		if (!item || nla_put_u32(msg, NBD_SOCK_FD, (uint32_t)d->sockets[i]) < 0)
			return -NLE_NOMEM;
		nla_nest_end(msg, item);
	}
	nla_nest_end(msg, list);
	return 0;
}

/* What CONNECT and RECONFIGURE have in common. 0 or libnl's code. */
static int put_device(struct nl_msg *msg, const struct nbdctl_device *d)
{
	int r = 0;

	if (d->size > 0)
		r = nla_put_u64(msg, NBD_ATTR_SIZE_BYTES, d->size);
	if (r == 0 && d->block_size > 0)
		r = nla_put_u64(msg, NBD_ATTR_BLOCK_SIZE_BYTES, d->block_size);
	if (r == 0 && d->io_timeout_s >= 0)
		r = nla_put_u64(msg, NBD_ATTR_TIMEOUT, (uint64_t)d->io_timeout_s);
	if (r == 0 && d->dead_conn_timeout_s >= 0)
		r = nla_put_u64(msg, NBD_ATTR_DEAD_CONN_TIMEOUT, (uint64_t)d->dead_conn_timeout_s);
	if (r == 0 && d->cookie && d->cookie[0])
		r = nla_put_string(msg, NBD_ATTR_BACKEND_IDENTIFIER, d->cookie);
	if (r == 0 && d->n_sockets > 0)
		r = put_sockets(msg, d);
	return r;
}

static size_t device_bytes(const struct nbdctl_device *d)
{
	return (d->cookie ? strlen(d->cookie) : 0) + (size_t)d->n_sockets * 16;
}

static int connect_device(struct nbdctl *n, int index, const struct nbdctl_device *d,
			  int *ret_index, struct fault *f)
{
	struct answer a = { .index = -1 };
	scope_msg struct nl_msg *msg = NULL;
	int r;

	r = refuse_device(d, true, f);
	if (r < 0)
		return r;
	msg = new_command(n, NBD_CMD_CONNECT, device_bytes(d));
	if (!msg || (index >= 0 && nla_put_u32(msg, NBD_ATTR_INDEX, (uint32_t)index) < 0) ||
	    nla_put_u64(msg, NBD_ATTR_SERVER_FLAGS, d->server_flags) < 0 || put_device(msg, d) < 0)
		return refuse_unasked(f, -ENOMEM);
	r = transact(n, msg, &a);
	if (r < 0)
		return refuse_unasked(f, r);
	if (a.verdict.error < 0)
		return refuse_connect(n->block_fd, index, &a.verdict, f);
	/* The kernel sends no name when it is short of memory. */
	if (a.index < 0)
		a.index = index;
	if (a.index < 0)
		return fault_set(f, EXIT_KERNEL, -EPROTO,
				 "the nbd driver did not say which device it chose");
	*ret_index = a.index;
	return 0;
}

int nbdctl_connect(struct nbdctl *n, int index, const struct nbdctl_device *d, int *ret_index,
		   struct fault *f)
{
	int r = connect_device(n, index, d, ret_index, f);

	if (r < 0)
		prefix_device(f, index);
	return r;
}

static int reconfigure_device(struct nbdctl *n, int index, const struct nbdctl_device *d,
			      struct fault *f)
{
	struct answer a = { .index = -1 };
	scope_msg struct nl_msg *msg = NULL;
	int r;

	r = refuse_device(d, false, f);
	if (r < 0)
		return r;
	msg = new_command(n, NBD_CMD_RECONFIGURE, device_bytes(d));
	if (!msg || nla_put_u32(msg, NBD_ATTR_INDEX, (uint32_t)index) < 0 || put_device(msg, d) < 0)
		return refuse_unasked(f, -ENOMEM);
	r = transact(n, msg, &a);
	if (r < 0)
		return refuse_unasked(f, r);
	if (a.verdict.error < 0)
		return refuse_reconfigure(n->block_fd, index, d->cookie, &a.verdict, f);
	return 0;
}

int nbdctl_reconfigure(struct nbdctl *n, int index, const struct nbdctl_device *d, struct fault *f)
{
	int r = reconfigure_device(n, index, d, f);

	if (r < 0)
		prefix_device(f, index);
	return r;
}

static int disconnect_device(struct nbdctl *n, int index, struct fault *f)
{
	struct answer a = { .index = -1 };
	scope_msg struct nl_msg *msg = new_command(n, NBD_CMD_DISCONNECT, 0);
	int r;

	if (!msg || nla_put_u32(msg, NBD_ATTR_INDEX, (uint32_t)index) < 0)
		return refuse_unasked(f, -ENOMEM);
	r = transact(n, msg, &a);
	if (r < 0)
		return refuse_unasked(f, r);
	return a.verdict.error < 0 ? refuse_disconnect(&a.verdict, f) : 0;
}

int nbdctl_disconnect(struct nbdctl *n, int index, struct fault *f)
{
	int r = disconnect_device(n, index, f);

	if (r < 0)
		prefix_device(f, index);
	return r;
}

/* ---- events ---- */

static int open_events(struct nbdctl *n, struct nl_sock *s)
{
	int group, r;

	group = genl_ctrl_resolve_grp(n->commands, NBD_GENL_FAMILY_NAME, NBD_GENL_MCAST_GROUP_NAME);
	if (group < 0)
		return group;
	/* Events answer nothing, so they continue no sequence. */
	nl_socket_disable_seq_check(s);
	r = genl_connect(s);
	if (r >= 0)
		r = nl_socket_set_buffer_size(s, EVENT_BUFFER_BYTES, 0);
	if (r >= 0)
		r = nl_socket_set_nonblocking(s);
	if (r >= 0)
		r = nl_socket_add_membership(s, group);
	return r;
}

int nbdctl_event_fd(struct nbdctl *n, struct fault *f)
{
	struct nl_sock *s;
	int r;

	if (n->events)
		return nl_socket_get_fd(n->events);
	s = nl_socket_alloc();
	if (!s)
		return fault_set(f, EXIT_MEMORY, -ENOMEM, "netlink: out of memory");
	r = open_events(n, s);
	if (r < 0) {
		nl_socket_free(s);
		return fail_open(f, "cannot listen to the nbd driver", r);
	}
	n->events = s;
	return nl_socket_get_fd(s);
}

struct listener {
	int family;
	void (*link_dead)(void *arg, int index);
	void *arg;
};

static int on_event(struct nl_msg *msg, void *arg)
{
	struct nlattr *attr[NBD_ATTR_MAX + 1];
	struct listener *l = arg;

	/* Only the kernel, which is port 0, knows about dead links. */
	if (nlmsg_get_src(msg)->nl_pid != 0 || nlmsg_hdr(msg)->nlmsg_type != l->family)
		return NL_SKIP;
	if (parse_attrs(msg, attr) < 0 || !attr[NBD_ATTR_INDEX])
		return NL_SKIP;
	if (genlmsg_hdr(nlmsg_hdr(msg))->cmd == NBD_CMD_LINK_DEAD)
		l->link_dead(l->arg, (int)nla_get_u32(attr[NBD_ATTR_INDEX]));
	return NL_OK;
}

int nbdctl_read_events(struct nbdctl *n, void (*link_dead)(void *arg, int index), void *arg)
{
	struct listener l = { n->family, link_dead, arg };
	scope_cb struct nl_cb *cb = NULL;
	struct nl_cb *defaults;
	unsigned int i;
	int r = 0;

	if (!n->events)
		return -EINVAL;
	defaults = nl_socket_get_cb(n->events);
	cb = nl_cb_clone(defaults);
	nl_cb_put(defaults);
	if (!cb)
		return -ENOMEM;
	nl_cb_set(cb, NL_CB_VALID, NL_CB_CUSTOM, on_event, &l);
	/* Whatever remains after so many keeps the descriptor readable. */
	for (i = 0; i < EVENTS_PER_CALL && r >= 0; i++)
		r = nl_recvmsgs(n->events, cb);
	return r == -NLE_AGAIN || r >= 0 ? 0 : nl_error(r);
}
