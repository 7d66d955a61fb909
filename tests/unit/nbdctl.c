/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Copyright (C) 2026 the rbdcrypt-nbd authors */

/*
 * Each message that nbdctl sends, attribute by attribute, and what it makes of the answers.
 */

#include "kernel.h"

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

static void disconnect_sends_the_index(void **state)
{
	struct house *h = *state;
	struct bytes want;

	assert_int_equal(nbdctl_disconnect(h->n, 3, &h->f), 0);
	begin_request(&want, NBD_CMD_DISCONNECT);
	put_u32(&want, NBD_ATTR_INDEX, 3);
	expect_request(&want);
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
		cmocka_unit_test_setup_teardown(disconnect_sends_the_index, setup, teardown),
		cmocka_unit_test_setup_teardown(dead_links_are_heard_and_nothing_else, setup,
						teardown),
		cmocka_unit_test_setup_teardown(lost_events_are_said, setup, teardown),
		cmocka_unit_test_setup_teardown(a_group_that_cannot_be_joined_is_said, setup,
						teardown),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
