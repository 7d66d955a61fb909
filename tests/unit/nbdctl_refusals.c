/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Copyright (C) 2026 the rbdcrypt-nbd authors */

/*
 * What users are told when the driver cannot be asked or refuses.
 */

#include "kernel.h"

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

static void sysfs_tells_what_the_number_does_not(void **state)
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
	kernel->error = -EBUSY;
	expect_connect_fault(h, 3, -EBUSY, EXIT_BUSY,
			     "/dev/nbd3: device is not connected, but somebody has it open");
	put_file(h, "nbd3/pid", "1\n");
	expect_connect_fault(h, 3, -EBUSY, EXIT_BUSY, "/dev/nbd3: device is already in use");
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
	expect_reconfigure_fault(h, "b", -EBUSY, EXIT_BUSY,
				 "/dev/nbd3: device was disconnected, but somebody has it open");
	assert_non_null(strstr(h->f.hint, "map the image again"));
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

static void without_memory_it_is_said(void **state)
{
	struct house *h = *state;
	struct nbdctl_device d = device();
	struct nbdctl *n = h->n;
	int index = -7;

	kernel->has_no_memory = true;
	expect_connect_fault(
		h, 3, -ENOMEM, EXIT_MEMORY,
		"/dev/nbd3: netlink: the nbd driver cannot be asked: Cannot allocate memory");
	fault_clear(&h->f);
	assert_int_equal(nbdctl_reconfigure(n, 3, &d, &h->f), -ENOMEM);
	assert_int_equal(nbdctl_disconnect(n, 3, NULL), -ENOMEM);
	assert_int_equal(nbdctl_event_fd(n, NULL), -ENOMEM);
	assert_int_equal(nbdctl_connect(n, 3, &d, &index, NULL), -ENOMEM);
	h->n = NULL;
	assert_int_equal(open_house(h), -ENOMEM);
	assert_int_equal(h->f.status, EXIT_MEMORY);
	assert_null(h->n);
	h->n = n;
	assert_int_equal(index, -7);
}

/* libnl's table of codes meets ours once, and none of them is success. */
static void every_code_of_libnl_is_an_error_of_ours(void **state)
{
	static const int errors[NLE_MAX + 1] = {
		[NLE_INTR] = EINTR,	      [NLE_BAD_SOCK] = EBADF,
		[NLE_AGAIN] = EAGAIN,	      [NLE_NOMEM] = ENOBUFS,
		[NLE_EXIST] = EEXIST,	      [NLE_INVAL] = EINVAL,
		[NLE_RANGE] = EINVAL,	      [NLE_MSGSIZE] = EMSGSIZE,
		[NLE_OPNOTSUPP] = EOPNOTSUPP, [NLE_AF_NOSUPPORT] = EPROTONOSUPPORT,
		[NLE_OBJ_NOTFOUND] = ENOENT,  [NLE_NOATTR] = ENOENT,
		[NLE_MISSING_ATTR] = ENOENT,  [NLE_MSG_OVERFLOW] = EMSGSIZE,
		[NLE_MSG_TRUNC] = EMSGSIZE,   [NLE_PROTO_MISMATCH] = EPROTONOSUPPORT,
		[NLE_NOACCESS] = EPERM,	      [NLE_PERM] = EPERM,
		[NLE_BUSY] = EBUSY,	      [NLE_NODEV] = ENODEV,
	};
	struct house *h = *state;
	int code;

	for (code = 1; code <= NLE_MAX; code++) {
		kernel->recv_error = -code;
		assert_int_equal(nbdctl_disconnect(h->n, 3, NULL),
				 errors[code] ? -errors[code] : -EIO);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(a_refused_connect_is_explained, setup, teardown),
		cmocka_unit_test_setup_teardown(sysfs_tells_what_the_number_does_not, setup,
						teardown),
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
		cmocka_unit_test_setup_teardown(without_memory_it_is_said, setup, teardown),
		cmocka_unit_test_setup_teardown(every_code_of_libnl_is_an_error_of_ours, setup,
						teardown),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
