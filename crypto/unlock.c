// SPDX-License-Identifier: GPL-2.0-or-later
// Copyright (C) 2026 the rbdcrypt-nbd authors

/*
 * From a judged header and a passphrase to a volume key, by way of another process
 * (unlock_child.c), because parsing headers and deriving keys is the part of us
 * that meets the most hostile input with the most foreign code.
 *
 * The process is a fresh start of this program, not a fork: by now there are
 * threads, and a fork would inherit their locks and our memory. It gets the
 * private copy of the header as a sealed memory file, as long as the data offset
 * promises, and a socket. A socket and not two pipes, because it reports a dead
 * child as an error where a pipe would send SIGPIPE. Whatever happens, the child
 * is dead and waited for when luks_unlock() returns.
 *
 * Blocking; called from a thread that may wait, several at once if need be. With
 * a turnstile file the children of all processes work one after the other, so that
 * ten volumes at boot do not need ten times the memory of Argon2.
 */

#include "unlock.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <spawn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include "clock.h"
#include "header.h"
#include "log.h"

/* libcryptsetup wants to see a data area behind the header. */
#define DATA_BYTES ((uint64_t)16 << 20)

/* Above the numbers the child wants to see its own descriptors at. */
#define FD_MIN 10

#ifndef MFD_NOEXEC_SEAL
#define MFD_NOEXEC_SEAL 0x0008U
#endif

struct child {
	const struct luks_limits *limits;
	pid_t pid; /* 0: not started */
	int sock; /* -1: closed */
	int64_t deadline_ms; /* monotonic clock, 0: none */
};

static void close_fdp(const int *fd)
{
	if (*fd >= 0)
		(void)close(*fd);
}

static void set_deadline(struct child *c)
{
	const unsigned int timeout_s = c->limits->unlock_timeout_s;

	c->deadline_ms = timeout_s ? clock_ms() + (int64_t)timeout_s * 1000 : 0;
}

/* ---- the header as a file ---- */

static int new_memfd(void)
{
	const unsigned int flags = MFD_CLOEXEC | MFD_ALLOW_SEALING;
	int fd = memfd_create("luks-header", flags | MFD_NOEXEC_SEAL);

	if (fd < 0 && errno == EINVAL) /* before Linux 6.3 */
		fd = memfd_create("luks-header", flags);
	return fd < 0 ? -errno : fd;
}

static int write_region(int fd, const struct header_region *region)
{
	size_t done = 0;

	while (done < region->len) {
		ssize_t n = pwrite(fd, region->bytes + done, region->len - done,
				   (off_t)(region->off + done));

		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return -errno;
		done += (size_t)n;
	}
	return 0;
}

/* Moves fd out of the way of the child's numbers. Returns the new one or -errno. */
static int lift_fd_take(int *fd)
{
	int lifted = fcntl(*fd, F_DUPFD_CLOEXEC, FD_MIN);
	int r = lifted < 0 ? -errno : lifted;

	(void)close(*fd);
	*fd = -1;
	return r;
}

static int header_memfd(const struct luks_header *h)
{
	int fd __attribute__((cleanup(close_fdp))) = new_memfd();
	int r;

	if (fd < 0)
		return fd;
	if (h->info.data_offset > INT64_MAX - DATA_BYTES)
		return -EFBIG;
	if (ftruncate(fd, (off_t)(h->info.data_offset + DATA_BYTES)) < 0)
		return -errno;
	for (unsigned int i = 0; i < h->n_regions; i++) {
		r = write_region(fd, &h->regions[i]);
		if (r < 0)
			return r;
	}
	if (fcntl(fd, F_ADD_SEALS, F_SEAL_WRITE | F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL) < 0)
		return -errno;
	return lift_fd_take(&fd);
}

/* ---- the process ---- */

static int add_actions(posix_spawn_file_actions_t *actions, int sock, int header, int turnstile)
{
	const int n_fds = turnstile < 0 ? UNLOCK_FD_TURNSTILE : UNLOCK_FD_TURNSTILE + 1;
	int r;

	r = posix_spawn_file_actions_adddup2(actions, sock, UNLOCK_FD_PARENT);
	if (r == 0)
		r = posix_spawn_file_actions_addopen(actions, 1, "/dev/null", O_RDWR, 0);
	if (r == 0)
		r = posix_spawn_file_actions_addopen(actions, 2, "/dev/null", O_RDWR, 0);
	if (r == 0)
		r = posix_spawn_file_actions_adddup2(actions, header, UNLOCK_FD_HEADER);
	if (r == 0 && turnstile >= 0)
		r = posix_spawn_file_actions_adddup2(actions, turnstile, UNLOCK_FD_TURNSTILE);
	if (r == 0)
		r = posix_spawn_file_actions_addclosefrom_np(actions, n_fds);
	return -r;
}

/* Every signal at its default and none blocked, whatever this thread has. */
static int set_attributes(posix_spawnattr_t *attr)
{
	sigset_t all, none;
	int r;

	(void)sigfillset(&all);
	(void)sigemptyset(&none);
	r = posix_spawnattr_setsigdefault(attr, &all);
	if (r == 0)
		r = posix_spawnattr_setsigmask(attr, &none);
	if (r == 0)
		r = posix_spawnattr_setflags(attr, POSIX_SPAWN_SETSIGDEF | POSIX_SPAWN_SETSIGMASK);
	return -r;
}

static int spawn(int sock, int header, int turnstile, pid_t *ret)
{
	char name[] = UNLOCK_ARGV0;
	char *const argv[] = { name, NULL }, *const envp[] = { NULL };
	posix_spawn_file_actions_t actions;
	posix_spawnattr_t attr;
	int r;

	r = -posix_spawn_file_actions_init(&actions);
	if (r < 0)
		return r;
	r = -posix_spawnattr_init(&attr);
	if (r == 0) {
		r = add_actions(&actions, sock, header, turnstile);
		if (r == 0)
			r = set_attributes(&attr);
		if (r == 0)
			r = -posix_spawn(ret, "/proc/self/exe", &actions, &attr, argv, envp);
		(void)posix_spawnattr_destroy(&attr);
	}
	(void)posix_spawn_file_actions_destroy(&actions);
	return r;
}

/* Without the file, unlocks just do not take turns. */
static int open_turnstile(const char *path)
{
	int fd, r;

	if (!path)
		return -1;
	fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK, 0600);
	r = fd < 0 ? -errno : lift_fd_take(&fd);
	if (r < 0)
		log_debug(NULL, "unlock: no turnstile %s: %s", path, strerror(-r));
	return r < 0 ? -1 : r;
}

static int start(struct child *c, int header, int turnstile)
{
	int sock __attribute__((cleanup(close_fdp))) = -1;
	int pair[2], r;

	if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair) < 0)
		return -errno;
	c->sock = pair[0];
	r = lift_fd_take(&pair[1]);
	if (r < 0)
		return r;
	sock = r;
	return spawn(sock, header, turnstile, &c->pid);
}

/* Ends it if it has not ended. Returns its wait status, or -1 if that is not known. */
static int finish(struct child *c)
{
	int status = -1;

	if (c->sock >= 0)
		(void)close(c->sock);
	c->sock = -1;
	if (!c->pid)
		return -1;
	(void)kill(c->pid, SIGKILL);
	while (waitpid(c->pid, &status, 0) < 0) {
		if (errno != EINTR) /* ECHILD: this process ignores SIGCHLD */
			return -1;
	}
	c->pid = 0;
	return status;
}

static void child_done(struct child *c)
{
	(void)finish(c);
}

/* ---- talking to it ---- */

/* 0 when the socket is ready, -ETIMEDOUT, -EINTR. */
static int wait_for(struct child *c, short events)
{
	const struct luks_limits *limits = c->limits;

	for (;;) {
		struct pollfd p = { .fd = c->sock, .events = events };
		int r;

		if (c->deadline_ms && clock_ms() >= c->deadline_ms)
			return -ETIMEDOUT;
		if (interrupt_is_raised(limits->interrupt))
			return -EINTR;
		r = poll(&p, 1, INTERRUPT_SLICE_MS);
		if (r > 0)
			return 0;
		if (r < 0 && errno != EINTR)
			return -errno;
	}
}

static int send_all(struct child *c, const void *buf, size_t len)
{
	const unsigned char *p = buf;

	while (len) {
		ssize_t n;
		int r = wait_for(c, POLLOUT);

		if (r < 0)
			return r;
		n = send(c->sock, p, len, MSG_NOSIGNAL | MSG_DONTWAIT);
		if (n < 0) {
			if (errno == EAGAIN || errno == EINTR)
				continue;
			return -errno;
		}
		p += n;
		len -= (size_t)n;
	}
	return 0;
}

/* -ECONNRESET: the child has ended. */
static int receive_all(struct child *c, void *buf, size_t len)
{
	unsigned char *p = buf;

	while (len) {
		ssize_t n;
		int r = wait_for(c, POLLIN);

		if (r < 0)
			return r;
		n = recv(c->sock, p, len, MSG_DONTWAIT);
		if (n < 0) {
			if (errno == EAGAIN || errno == EINTR)
				continue;
			return -errno;
		}
		if (n == 0)
			return -ECONNRESET;
		p += n;
		len -= (size_t)n;
	}
	return 0;
}

static int receive_reply(struct child *c, struct unlock_reply *reply)
{
	int r;

	r = receive_all(c, reply, sizeof(*reply));
	if (r < 0)
		return r;
	reply->cipher[sizeof(reply->cipher) - 1] = 0;
	reply->mode[sizeof(reply->mode) - 1] = 0;
	reply->uuid[sizeof(reply->uuid) - 1] = 0;
	reply->text[sizeof(reply->text) - 1] = 0;
	reply->text[strcspn(reply->text, "\n")] = 0;
	return 0;
}

/* ---- what came out ---- */

/* The child is gone without an answer. */
static int explain_death(const struct luks_header *h, int status, struct fault *f)
{
	const int sig = status >= 0 && WIFSIGNALED(status) ? WTERMSIG(status) : 0;

	if (sig == SIGKILL) {
		fault_hint(f, "the header's Argon2 cost is %u MiB of memory",
			   h->argon2_memory_kib / 1024);
		return fault_set(f, EXIT_MEMORY, -ENOMEM,
				 "the unlock process was killed, probably for lack of memory");
	}
	if (sig == SIGXCPU)
		return fault_set(f, EXIT_TIMED_OUT, -ETIMEDOUT,
				 "the unlock process used up its processor time");
	if (sig == SIGSYS)
		return fault_set(f, EXIT_HEADER, -EIO,
				 "the unlock process was stopped by its system-call filter");
	if (sig)
		return fault_set(f, EXIT_HEADER, -EIO, "the unlock process was ended by signal %d",
				 sig);
	return fault_set(f, EXIT_HEADER, -EIO, "the unlock process ended without an answer");
}

static int explain_result(const struct luks_header *h, const struct unlock_reply *reply,
			  struct fault *f)
{
	const int error = reply->result;

	if (error == -EPERM && reply->is_loaded)
		return fault_set(f, EXIT_PASSPHRASE, -EPERM,
				 "no keyslot opens with this passphrase");
	if (error == -ENOMEM) {
		fault_hint(f, "free memory, or give the keyslot a smaller Argon2 cost");
		return fault_set(f, EXIT_MEMORY, -ENOMEM,
				 "not enough memory to unlock: Argon2 needs %u MiB",
				 h->argon2_memory_kib / 1024);
	}
	if (!reply->is_loaded)
		return fault_set(f, EXIT_HEADER, -EBADMSG,
				 "libcryptsetup refuses the header: %s%s%s", strerror(-error),
				 reply->text[0] ? ": " : "", reply->text);
	return fault_set(f, EXIT_HEADER, -EIO, "the unlock failed: %s%s%s", strerror(-error),
			 reply->text[0] ? ": " : "", reply->text);
}

/* The library must have understood the header exactly as we did. */
static int compare(const struct luks_info *info, const struct unlock_reply *reply, struct fault *f)
{
	const char *what = NULL;

	if (strcmp(reply->cipher, "aes") != 0 || strcmp(reply->mode, "xts-plain64") != 0)
		what = "cipher";
	else if (reply->sector_size != info->sector_size)
		what = "sector size";
	else if (reply->data_offset != info->data_offset)
		what = "data offset";
	else if (reply->key_bytes != info->key_bytes)
		what = "key length";
	else if (strcmp(reply->uuid, info->uuid) != 0)
		what = "UUID";
	if (!what)
		return 0;
	return fault_set(f, EXIT_HEADER, -EBADMSG,
			 "encryption header: libcryptsetup reads another %s out of it than we do",
			 what);
}

/* ---- one unlock ---- */

static uint32_t cpu_limit_s(const struct luks_header *h, unsigned int timeout_s)
{
	const uint32_t threads = h->argon2_lanes ? h->argon2_lanes : 1;

	return timeout_s > UINT32_MAX / 2 / threads ? 0 : timeout_s * threads;
}

static int ask(struct child *c, const struct luks_header *h, const struct secret *passphrase,
	       bool has_turnstile)
{
	const struct unlock_request request = {
		.passphrase_len = (uint32_t)secret_len(passphrase),
		.parent = getpid(),
		.version = h->info.version,
		.cpu_s = cpu_limit_s(h, c->limits->unlock_timeout_s),
		.argon2_memory_kib = h->argon2_memory_kib,
		.argon2_lanes = h->argon2_lanes,
		.has_turnstile = has_turnstile,
	};
	int r;

	r = send_all(c, &request, sizeof(request));
	return r < 0 ? r : send_all(c, secret_bytes(passphrase), secret_len(passphrase));
}

/* Everything that can be lost by a child that ends or hangs. -ETIMEDOUT, -EINTR, -ECONNRESET ... */
static int converse(struct child *c, const struct luks_header *h, const struct secret *passphrase,
		    bool has_turnstile, struct unlock_reply *reply, struct secret *key,
		    struct fault *f)
{
	const struct luks_limits *limits = c->limits;
	int r;

	set_deadline(c);
	r = ask(c, h, passphrase, has_turnstile);
	if (r == 0)
		r = receive_reply(c, reply);
	if (r == -ETIMEDOUT) {
		if (has_turnstile)
			fault_hint(f, "see who holds the lock on %s", limits->turnstile);
		return fault_set(f, EXIT_TIMED_OUT, r, "waited %u s for other unlocks to finish",
				 limits->unlock_timeout_s);
	}
	/* Its turn has come; the time in line does not count. */
	set_deadline(c);
	if (r == 0)
		r = receive_reply(c, reply);
	if (r == 0 && reply->result == 0 && reply->key_bytes == secret_len(key))
		r = receive_all(c, secret_data(key), secret_len(key));
	if (r == -ETIMEDOUT)
		return fault_set(f, EXIT_TIMED_OUT, r, "not unlocked within %u s",
				 limits->unlock_timeout_s);
	if (r == -EINTR)
		return fault_set(f, EXIT_TIMED_OUT, r, "interrupted while it was unlocked");
	return r;
}

static int start_fault(struct fault *f, int error)
{
	/* To our caller that would say that the passphrase is wrong. */
	if (error == -EPERM)
		error = -EACCES;
	if (error == -ENOENT || error == -EACCES)
		fault_hint(f, "/proc must be mounted, and /dev/null must be there");
	return fault_set(f, fault_status(error, EXIT_HEADER), error,
			 "cannot start the unlock process: %s", strerror(-error));
}

static int judge_answer(const struct luks_header *h, struct unlock_reply *reply, struct fault *f)
{
	if (reply->result > 0) /* no child of ours says that */
		reply->result = -EIO;
	if (reply->result < 0)
		return explain_result(h, reply, f);
	return compare(&h->info, reply, f);
}

int luks_unlock(const struct luks_header *h, const struct secret *passphrase,
		const struct luks_limits *limits, struct secret **ret_key, int *ret_keyslot,
		struct fault *f)
{
	struct child c __attribute__((cleanup(child_done))) = { .limits = limits, .sock = -1 };
	struct secret *key __attribute__((cleanup(secret_freep))) = NULL;
	int header __attribute__((cleanup(close_fdp))) = -1;
	int turnstile __attribute__((cleanup(close_fdp))) = -1;
	struct unlock_reply reply;
	int r;

	r = secret_new(h->info.key_bytes, &key);
	if (r < 0)
		return fault_set(f, EXIT_MEMORY, r, "not enough memory");
	header = header_memfd(h);
	if (header < 0)
		return start_fault(f, header);
	turnstile = open_turnstile(limits->turnstile);
	r = start(&c, header, turnstile);
	if (r < 0)
		return start_fault(f, r);

	r = converse(&c, h, passphrase, turnstile >= 0, &reply, key, f);
	if (r == -ETIMEDOUT || r == -EINTR)
		return r;
	if (r < 0)
		return explain_death(h, finish(&c), f);
	r = judge_answer(h, &reply, f);
	if (r < 0)
		return r;
	if (ret_keyslot)
		*ret_keyslot = reply.keyslot;
	*ret_key = key;
	key = NULL;
	return 0;
}
