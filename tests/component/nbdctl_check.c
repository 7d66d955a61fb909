/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Copyright (C) 2026 the rbdcrypt-nbd authors */

/*
 * nbdctl, sysfs, udev and "in use" against the real nbd driver, with a server of a
 * few lines in the same process. Needs root and the driver (the test kernel of
 * tests/lib/uml.sh has both); exits with 77 elsewhere. Devices that are in use by
 * others are not touched.
 */

#include <errno.h>
#include <fcntl.h>
#include <linux/fs.h>
#include <poll.h>
#include <pthread.h>
#include <sched.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mount.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/swap.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "nbdctl.h"
#include "wire.h"

#define DISK_BYTES (64u << 20)
#define LINKS_MAX 3
#define TIMEOUT_MS 20000

/* ---- a server ---- */

struct link {
	struct server *server;
	pthread_t thread;
	int ours, kernels;
	_Atomic unsigned int requests;
};

struct server {
	unsigned char *disk;
	_Atomic unsigned int flushes, trims;
	unsigned int n_links;
	struct link link[LINKS_MAX];

	struct nbdctl *n;
	struct fault f;
	int index; /* -1: not connected */
};

static int transfer(int fd, void *buf, size_t len, bool is_read)
{
	unsigned char *p = buf;

	while (len > 0) {
		ssize_t n = is_read ? recv(fd, p, len, 0) : send(fd, p, len, MSG_NOSIGNAL);

		if (n <= 0)
			return -1;
		p += n;
		len -= (size_t)n;
	}
	return 0;
}

static void *serve(void *arg)
{
	struct link *l = arg;
	unsigned char *disk = l->server->disk;
	unsigned char head[WIRE_REQUEST_BYTES], reply[WIRE_REPLY_MAX];
	struct wire_request r;

	while (transfer(l->ours, head, sizeof(head), true) == 0 &&
	       wire_request_decode(head, &r) == 0 && r.type != WIRE_DISC) {
		int error = 0;

		if (r.type <= WIRE_WRITE && (r.len > DISK_BYTES || r.offset > DISK_BYTES - r.len))
			break;
		if (r.type == WIRE_WRITE && transfer(l->ours, disk + r.offset, r.len, true) < 0)
			break;
		if (r.type == WIRE_FLUSH)
			l->server->flushes++;
		else if (r.type == WIRE_TRIM)
			l->server->trims++;
		else if (r.type > WIRE_WRITE)
			error = -EINVAL;
		l->requests++;
		if (transfer(l->ours, reply, wire_simple_reply(reply, r.cookie, error), false) < 0)
			break;
		if (r.type == WIRE_READ && transfer(l->ours, disk + r.offset, r.len, false) < 0)
			break;
	}
	return NULL;
}

static void start_link(struct server *s, struct link *l)
{
	int fds[2];

	assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM, 0, fds), 0);
	l->server = s;
	l->ours = fds[0];
	l->kernels = fds[1];
	l->requests = 0;
	assert_int_equal(pthread_create(&l->thread, NULL, serve, l), 0);
}

/* The kernel sees the other end die. */
static void stop_link(struct link *l)
{
	shutdown(l->ours, SHUT_RDWR);
	pthread_join(l->thread, NULL);
	close(l->ours);
	close(l->kernels);
}

static int setup(void **state)
{
	struct server *s = calloc(1, sizeof(*s));

	assert_non_null(s);
	s->disk = calloc(1, DISK_BYTES);
	assert_non_null(s->disk);
	s->index = -1;
	assert_int_equal(nbdctl_open(&s->n, &s->f), 0);
	for (s->n_links = 0; s->n_links < 2; s->n_links++)
		start_link(s, &s->link[s->n_links]);
	*state = s;
	return 0;
}

static int teardown(void **state)
{
	struct server *s = *state;
	unsigned int i;

	if (s->index >= 0)
		(void)nbdctl_disconnect(s->n, s->index, NULL);
	for (i = 0; i < s->n_links; i++)
		stop_link(&s->link[i]);
	nbdctl_close(s->n);
	free(s->disk);
	free(s);
	return 0;
}

static struct nbdctl_device device(const struct server *s, int sockets[2])
{
	sockets[0] = s->link[0].kernels;
	sockets[1] = s->link[1].kernels;
	return (struct nbdctl_device){
		.size = DISK_BYTES / 2,
		.block_size = 512,
		.server_flags = WIRE_FLAG_HAS_FLAGS | WIRE_FLAG_SEND_FLUSH | WIRE_FLAG_SEND_TRIM |
				WIRE_FLAG_CAN_MULTI_CONN,
		.io_timeout_s = 0,
		.dead_conn_timeout_s = 30,
		.cookie = "rbd/nbdctl check",
		.sockets = sockets,
		.n_sockets = 2,
	};
}

static void say_fault(const struct server *s, int r)
{
	if (r < 0)
		print_message("%d: %s\n", r, s->f.message);
}

static void connect_with(struct server *s, const struct nbdctl_device *d)
{
	int r = nbdctl_connect(s->n, -1, d, &s->index, &s->f);

	say_fault(s, r);
	assert_int_equal(r, 0);
	assert_int_equal(nbd_udev_settle(s->index, TIMEOUT_MS, NULL), 0);
}

static void connect_usual(struct server *s)
{
	int sockets[2];
	struct nbdctl_device d = device(s, sockets);

	connect_with(s, &d);
}

static int open_device(const struct server *s, int flags)
{
	char path[32];
	int fd;

	(void)snprintf(path, sizeof(path), "/dev/nbd%d", s->index);
	fd = open(path, flags | O_CLOEXEC);
	assert_true(fd >= 0);
	return fd;
}

static void disconnect(struct server *s)
{
	int r = nbdctl_disconnect(s->n, s->index, &s->f);

	say_fault(s, r);
	assert_int_equal(r, 0);
}

/* The command finds the device's path in $DEV. */
static bool shell(const struct server *s, const char *command)
{
	char path[32];
	int status;

	(void)snprintf(path, sizeof(path), "/dev/nbd%d", s->index);
	assert_int_equal(setenv("DEV", path, 1), 0);
	status = system(command);
	return WIFEXITED(status) && WEXITSTATUS(status) == 0;
}

/* ---- claims ---- */

static void the_kernel_takes_what_it_was_given(void **state)
{
	struct server *s = *state;
	struct nbd_sysfs sys;

	connect_usual(s);
	assert_int_equal(nbd_sysfs_read(s->index, &sys), 0);
	assert_true(sys.is_connected);
	assert_int_equal(sys.pid, getpid());
	assert_int_equal(sys.size, DISK_BYTES / 2);
	assert_int_equal(sys.logical_block, 512);
	assert_int_equal(sys.physical_block, 512);
	assert_false(sys.is_read_only);
	assert_true(sys.has_write_cache);
	assert_false(sys.has_fua);
	assert_true(sys.discard_max > 0);
	assert_true(sys.max_hw_kib >= 1024);
	assert_string_equal(sys.cookie, "rbd/nbdctl check");
	disconnect(s);
	assert_int_equal(nbd_sysfs_read(s->index, &sys), 0);
	assert_false(sys.is_connected);
	assert_string_equal(sys.cookie, "");
}

static void a_read_only_device_with_large_blocks_is_both(void **state)
{
	struct server *s = *state;
	int sockets[2];
	struct nbdctl_device d = device(s, sockets);
	struct nbd_sysfs sys;

	d.block_size = 4096;
	d.n_sockets = 1;
	d.cookie = NULL;
	d.server_flags = WIRE_FLAG_HAS_FLAGS | WIRE_FLAG_READ_ONLY;
	connect_with(s, &d);
	assert_int_equal(nbd_sysfs_read(s->index, &sys), 0);
	assert_int_equal(sys.logical_block, 4096);
	assert_true(sys.is_read_only);
	assert_false(sys.has_write_cache);
	assert_int_equal(sys.discard_max, 0);
	assert_string_equal(sys.cookie, "");
	assert_int_equal(nbd_sync(s->index), 0);
}

static void what_is_written_comes_back(void **state)
{
	static unsigned char in[1 << 20], out[1 << 20];
	struct server *s = *state;
	unsigned int i;
	int fd;

	connect_usual(s);
	for (i = 0; i < sizeof(in); i++)
		in[i] = (unsigned char)(i * 7 + i / 512);
	fd = open_device(s, O_RDWR);
	assert_int_equal(pwrite(fd, in, sizeof(in), 3 << 20), sizeof(in));
	assert_int_equal(fsync(fd), 0);
	assert_memory_equal(s->disk + (3 << 20), in, sizeof(in));
	assert_int_equal(ioctl(fd, BLKFLSBUF, 0), 0);
	assert_int_equal(pread(fd, out, sizeof(out), 3 << 20), sizeof(out));
	assert_memory_equal(in, out, sizeof(in));
	close(fd);
}

static void sync_writes_back_and_flushes(void **state)
{
	struct server *s = *state;
	unsigned int before;
	int fd;

	connect_usual(s);
	fd = open_device(s, O_RDWR);
	assert_int_equal(pwrite(fd, "late", 4, 8192), 4);
	before = s->flushes;
	assert_int_equal(nbd_sync(s->index), 0);
	assert_memory_equal(s->disk + 8192, "late", 4);
	assert_true(s->flushes > before);
	close(fd);
}

static void a_used_index_is_busy_and_an_impossible_one_unknown(void **state)
{
	struct server *s = *state;
	int sockets[2], index = -7;
	struct nbdctl_device d = device(s, sockets);

	connect_usual(s);
	assert_int_equal(nbdctl_connect(s->n, s->index, &d, &index, &s->f), -EBUSY);
	assert_int_equal(s->f.status, EXIT_BUSY);
	print_message("%s\n", s->f.message);
	fault_clear(&s->f);
	assert_int_equal(nbdctl_connect(s->n, 1 << 20, &d, &index, &s->f), -ENODEV);
	assert_int_equal(s->f.status, EXIT_NOT_FOUND);
	print_message("%s\n", s->f.message);
	fault_clear(&s->f);
	assert_int_equal(nbdctl_disconnect(s->n, 1 << 20, &s->f), -ENODEV);
	assert_int_equal(s->f.status, EXIT_NOT_FOUND);
	assert_int_equal(index, -7);
}

static void a_size_can_change_both_ways(void **state)
{
	struct nbdctl_device d = { .cookie = "rbd/nbdctl check",
				   .io_timeout_s = -1,
				   .dead_conn_timeout_s = -1 };
	const uint64_t sizes[] = { DISK_BYTES, DISK_BYTES / 4 };
	struct server *s = *state;
	struct nbd_sysfs sys;
	unsigned int i;

	connect_usual(s);
	for (i = 0; i < 2; i++) {
		uint64_t bytes = 0;
		int fd, r;

		d.size = sizes[i];
		r = nbdctl_reconfigure(s->n, s->index, &d, &s->f);
		say_fault(s, r);
		assert_int_equal(r, 0);
		assert_int_equal(nbd_sysfs_read(s->index, &sys), 0);
		assert_int_equal(sys.size, sizes[i]);
		fd = open_device(s, O_RDONLY);
		assert_int_equal(ioctl(fd, BLKGETSIZE64, &bytes), 0);
		assert_int_equal(bytes, sizes[i]);
		close(fd);
	}
}

static void an_open_device_is_busy_though_not_connected(void **state)
{
	struct server *s = *state;
	int sockets[2], index = -7, fd;
	struct nbdctl_device d = device(s, sockets);

	connect_usual(s);
	disconnect(s);
	assert_int_equal(nbd_udev_settle(s->index, TIMEOUT_MS, NULL), 0);
	fd = open_device(s, O_RDONLY);
	assert_int_equal(nbdctl_connect(s->n, s->index, &d, &index, &s->f), -EBUSY);
	print_message("%s\n", s->f.message);
	assert_non_null(strstr(s->f.message, "has it open"));
	close(fd);
}

static void a_wrong_cookie_changes_nothing(void **state)
{
	struct nbdctl_device d = {
		.cookie = "rbd/other", .io_timeout_s = -1, .dead_conn_timeout_s = -1, .size = 4096
	};
	struct server *s = *state;
	struct nbd_sysfs sys;

	connect_usual(s);
	assert_int_equal(nbdctl_reconfigure(s->n, s->index, &d, &s->f), -ESTALE);
	assert_int_equal(s->f.status, EXIT_NOT_FOUND);
	print_message("%s\n", s->f.message);
	assert_int_equal(nbd_sysfs_read(s->index, &sys), 0);
	assert_int_equal(sys.size, DISK_BYTES / 2);
	disconnect(s);
	fault_clear(&s->f);
	assert_int_equal(nbdctl_reconfigure(s->n, s->index, &d, &s->f), -ENOTCONN);
	assert_int_equal(s->f.status, EXIT_NOT_FOUND);
	/* Nothing to disconnect is no error. */
	disconnect(s);
}

static void hear(void *arg, int index)
{
	struct server *s = arg;

	assert_int_equal(index, s->index);
}

static void a_dead_socket_is_heard_of_and_replaced(void **state)
{
	struct server *s = *state;
	struct nbdctl_device d = { .cookie = "rbd/nbdctl check",
				   .io_timeout_s = -1,
				   .dead_conn_timeout_s = -1,
				   .n_sockets = 1 };
	char buf[4096] __attribute__((aligned(4096)));
	struct pollfd p = { .events = POLLIN };
	int fd, i;

	connect_usual(s);
	p.fd = nbdctl_event_fd(s->n, &s->f);
	assert_true(p.fd >= 0);
	/* Both die; a request that finds none waits for the next. */
	stop_link(&s->link[0]);
	stop_link(&s->link[1]);
	s->n_links = 0;
	assert_int_equal(poll(&p, 1, TIMEOUT_MS), 1);
	assert_int_equal(nbdctl_read_events(s->n, hear, s), 0);
	for (i = 0; i < 2; i++, s->n_links++) {
		start_link(s, &s->link[i]);
		d.sockets = &s->link[i].kernels;
		assert_int_equal(nbdctl_reconfigure(s->n, s->index, &d, &s->f), 0);
	}
	fd = open_device(s, O_RDONLY | O_DIRECT);
	assert_int_equal(pread(fd, buf, sizeof(buf), 65536), sizeof(buf));
	close(fd);
	assert_true(s->link[0].requests + s->link[1].requests > 0);
}

static void a_socket_too_many_is_ignored_by_the_kernel(void **state)
{
	struct server *s = *state;
	struct nbdctl_device d = { .cookie = "rbd/nbdctl check",
				   .io_timeout_s = -1,
				   .dead_conn_timeout_s = -1,
				   .n_sockets = 1 };
	char buf[4096] __attribute__((aligned(4096)));
	int fd;

	connect_usual(s);
	start_link(s, &s->link[s->n_links++]);
	d.sockets = &s->link[2].kernels;
	assert_int_equal(nbdctl_reconfigure(s->n, s->index, &d, &s->f), 0);
	fd = open_device(s, O_RDONLY | O_DIRECT);
	assert_int_equal(pread(fd, buf, sizeof(buf), 65536), sizeof(buf));
	close(fd);
	assert_int_equal(s->link[2].requests, 0);
}

static void expect_user(const struct server *s, const char *who)
{
	char got[256] = "";
	int r = nbd_in_use(s->index, got, sizeof(got));

	print_message("in use: %d %s\n", r, got);
	assert_int_equal(r, who ? -EBUSY : 0);
	if (who)
		assert_non_null(strstr(got, who));
}

static void users_of_the_device_are_named(void **state)
{
	struct server *s = *state;
	int go[2], ready[2], status;
	char c, name[32];
	pid_t pid;
	int fd;

	connect_usual(s);
	expect_user(s, NULL);
	/* Our own is not somebody else's. */
	fd = open_device(s, O_RDONLY);
	expect_user(s, NULL);
	close(fd);

	assert_int_equal(pipe(go), 0);
	assert_int_equal(pipe(ready), 0);
	pid = fork();
	if (pid == 0) {
		close(go[1]);
		(void)open_device(s, O_RDONLY | O_EXCL);
		(void)!write(ready[1], "", 1);
		(void)!read(go[0], &c, 1);
		_exit(0);
	}
	assert_int_equal(read(ready[0], &c, 1), 1);
	(void)snprintf(name, sizeof(name), "(pid %d)", pid);
	expect_user(s, "opened exclusively, by nbdctl_check ");
	expect_user(s, name);
	close(go[1]);
	waitpid(pid, &status, 0);
	expect_user(s, NULL);
	close(go[0]);
	close(ready[0]);
	close(ready[1]);

	assert_true(shell(s, "mkswap $DEV >/dev/null"));
	(void)snprintf(name, sizeof(name), "/dev/nbd%d", s->index);
	if (swapon(name, 0) == 0) {
		expect_user(s, "used as swap");
		assert_int_equal(swapoff(name), 0);
	}

	assert_true(shell(s, "mke2fs -q -F -t ext4 $DEV"));
	assert_int_equal(mkdir("/tmp/nbd check", 0700), 0);
	assert_int_equal(mount(name, "/tmp/nbd check", "ext4", 0, NULL), 0);
	expect_user(s, "mounted on /tmp/nbd check");
	assert_int_equal(umount("/tmp/nbd check"), 0);
	assert_int_equal(rmdir("/tmp/nbd check"), 0);
	expect_user(s, NULL);
}

static void a_mount_in_another_namespace_is_felt(void **state)
{
	struct server *s = *state;
	int go[2], ready[2], status;
	char c, path[32];
	pid_t pid;

	connect_usual(s);
	assert_true(shell(s, "mke2fs -q -F -t ext4 $DEV"));
	(void)snprintf(path, sizeof(path), "/dev/nbd%d", s->index);
	assert_int_equal(pipe(go), 0);
	assert_int_equal(pipe(ready), 0);
	pid = fork();
	if (pid == 0) {
		close(go[1]);
		if (unshare(CLONE_NEWNS) < 0 ||
		    mount("none", "/", NULL, MS_REC | MS_PRIVATE, NULL) < 0 ||
		    mount(path, "/mnt", "ext4", 0, NULL) < 0)
			_exit(1);
		(void)!write(ready[1], "", 1);
		(void)!read(go[0], &c, 1);
		_exit(0);
	}
	close(ready[1]);
	assert_int_equal(read(ready[0], &c, 1), 1);
	expect_user(s, "opened exclusively by another process");
	close(go[1]);
	waitpid(pid, &status, 0);
	assert_int_equal(status, 0);
	close(go[0]);
	close(ready[0]);
}

/* One partition of 8 MiB at 1 MiB. */
static void put_partition(const struct server *s)
{
	static const unsigned char entry[16] = { [4] = 0x83, [9] = 8, [13] = 64 };
	unsigned char sector[512] = { [510] = 0x55, [511] = 0xaa };
	int fd = open_device(s, O_RDWR);

	memcpy(sector + 446, entry, sizeof(entry));
	assert_int_equal(pwrite(fd, sector, sizeof(sector), 0), sizeof(sector));
	assert_int_equal(fsync(fd), 0);
	assert_int_equal(ioctl(fd, BLKRRPART, 0), 0);
	close(fd);
}

static void a_partition_and_what_is_on_it_are_named(void **state)
{
	struct server *s = *state;
	char who[64];

	connect_usual(s);
	put_partition(s);
	assert_int_equal(nbd_udev_settle(s->index, TIMEOUT_MS, NULL), 0);
	if (!shell(s, "modprobe dm-mod 2>/dev/null; dmsetup version >/dev/null 2>&1"))
		skip();
	assert_true(shell(s, "dmsetup create nbdcheck --table \"0 2048 linear ${DEV}p1 0\""));
	(void)snprintf(who, sizeof(who), "partition nbd%dp1 is held by dm-", s->index);
	expect_user(s, who);
	expect_user(s, "(nbdcheck)");
	assert_true(shell(s, "dmsetup remove nbdcheck"));
	expect_user(s, NULL);
}

static void without_privilege_it_is_said(void **state)
{
	struct server *s = *state;
	int status, sockets[2], index;
	struct nbdctl_device d = device(s, sockets);
	pid_t pid;

	connect_usual(s);
	pid = fork();
	if (pid == 0) {
		struct nbdctl *n;
		struct fault f = { 0 };

		if (setgid(65534) < 0 || setuid(65534) < 0 || nbdctl_open(&n, &f) < 0)
			_exit(1);
		if (nbdctl_connect(n, -1, &d, &index, &f) != -EPERM || f.status != EXIT_PASSPHRASE)
			_exit(2);
		if (nbdctl_disconnect(n, s->index, &f) != -EPERM)
			_exit(3);
		_exit(0);
	}
	assert_int_equal(waitpid(pid, &status, 0), pid);
	assert_int_equal(status, 0);
}

static void connect_and_disconnect_can_follow_at_once(void **state)
{
	struct server *s = *state;
	int sockets[2], index = -1, i, r;
	struct nbdctl_device d;

	connect_usual(s);
	for (i = 0; i < 5; i++) {
		disconnect(s);
		/* The kernel announces the loss, so udev looks once more. */
		assert_int_equal(nbd_udev_settle(s->index, TIMEOUT_MS, NULL), 0);
		stop_link(&s->link[0]);
		stop_link(&s->link[1]);
		start_link(s, &s->link[0]);
		start_link(s, &s->link[1]);
		d = device(s, sockets);
		r = nbdctl_connect(s->n, s->index, &d, &index, &s->f);
		say_fault(s, r);
		assert_int_equal(r, 0);
		assert_int_equal(index, s->index);
		assert_int_equal(nbd_udev_settle(s->index, TIMEOUT_MS, NULL), 0);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(the_kernel_takes_what_it_was_given, setup,
						teardown),
		cmocka_unit_test_setup_teardown(a_read_only_device_with_large_blocks_is_both, setup,
						teardown),
		cmocka_unit_test_setup_teardown(what_is_written_comes_back, setup, teardown),
		cmocka_unit_test_setup_teardown(sync_writes_back_and_flushes, setup, teardown),
		cmocka_unit_test_setup_teardown(a_used_index_is_busy_and_an_impossible_one_unknown,
						setup, teardown),
		cmocka_unit_test_setup_teardown(a_size_can_change_both_ways, setup, teardown),
		cmocka_unit_test_setup_teardown(an_open_device_is_busy_though_not_connected, setup,
						teardown),
		cmocka_unit_test_setup_teardown(a_wrong_cookie_changes_nothing, setup, teardown),
		cmocka_unit_test_setup_teardown(a_dead_socket_is_heard_of_and_replaced, setup,
						teardown),
		cmocka_unit_test_setup_teardown(a_socket_too_many_is_ignored_by_the_kernel, setup,
						teardown),
		cmocka_unit_test_setup_teardown(users_of_the_device_are_named, setup, teardown),
		cmocka_unit_test_setup_teardown(a_mount_in_another_namespace_is_felt, setup,
						teardown),
		cmocka_unit_test_setup_teardown(a_partition_and_what_is_on_it_are_named, setup,
						teardown),
		cmocka_unit_test_setup_teardown(without_privilege_it_is_said, setup, teardown),
		cmocka_unit_test_setup_teardown(connect_and_disconnect_can_follow_at_once, setup,
						teardown),
	};
	struct nbdctl *n;
	struct fault f = { 0 };

	if (geteuid() != 0 || nbdctl_load_module(0, 0, &f) < 0 || nbdctl_open(&n, &f) < 0) {
		printf("skipped: needs root and the nbd driver: %s\n", f.message);
		return 77;
	}
	nbdctl_close(n);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
