// SPDX-License-Identifier: GPL-2.0-or-later
// Copyright (C) 2026 the rbdcrypt-nbd authors

/*
 * The parent's side of an unlock against children that fail, lie, die and hang,
 * and against a system that refuses each call in turn. crypto/unlock.c is included
 * so that its calls can be replaced. The children are this program again, told by
 * argv[0] what to do.
 */

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <errno.h>
#include <fcntl.h>
#include <spawn.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "leftovers.h"

#define CHILD "unlock-test-child-"

static int fails_at = -1; /* counted over all replaced calls; below zero: none fails */
static const char *behaviour; /* of the next child */
static const char *executable = "/proc/self/exe";

static bool fails_now(void)
{
	return fails_at >= 0 && fails_at-- == 0;
}

static int faulty_memfd_create(const char *name, unsigned int flags)
{
	if (fails_now()) {
		errno = EMFILE;
		return -1;
	}
	/* A kernel before 6.3 is met in every test. */
	if (flags & 0x8U) {
		errno = EINVAL;
		return -1;
	}
	return memfd_create(name, flags);
}

static int faulty_ftruncate(int fd, off_t len)
{
	if (fails_now()) {
		errno = EFBIG;
		return -1;
	}
	return ftruncate(fd, len);
}

static ssize_t faulty_pwrite(int fd, const void *buf, size_t len, off_t off)
{
	static int calls;

	if (fails_now()) {
		errno = ENOSPC;
		return -1;
	}
	if (++calls % 3 == 0) {
		errno = EINTR;
		return -1;
	}
	return pwrite(fd, buf, len > 1000 ? 1000 : len, off);
}

static int faulty_fcntl(int fd, int command, int arg)
{
	if (fails_now()) {
		errno = EMFILE;
		return -1;
	}
	return fcntl(fd, command, arg);
}

static int faulty_socketpair(int domain, int type, int protocol, int pair[2])
{
	if (fails_now()) {
		errno = ENFILE;
		return -1;
	}
	return socketpair(domain, type, protocol, pair);
}

static int faulty_spawn(pid_t *ret, const char *path, const posix_spawn_file_actions_t *actions,
			const posix_spawnattr_t *attr, char *const argv[], char *const envp[])
{
	char name[64];
	char *const other[] = { name, NULL };

	if (fails_now())
		return EAGAIN;
	assert_string_equal(argv[0], "rbdcrypt-nbd-unlock");
	assert_null(argv[1]);
	assert_null(envp[0]);
	assert_string_equal(path, "/proc/self/exe");
	snprintf(name, sizeof(name), CHILD "%s", behaviour);
	return posix_spawn(ret, executable, actions, attr, other, envp);
}

static int faulty_actions_init(posix_spawn_file_actions_t *actions)
{
	return fails_now() ? ENOMEM : posix_spawn_file_actions_init(actions);
}

static int faulty_attr_init(posix_spawnattr_t *attr)
{
	return fails_now() ? ENOMEM : posix_spawnattr_init(attr);
}

static int faulty_adddup2(posix_spawn_file_actions_t *actions, int fd, int other)
{
	return fails_now() ? ENOMEM : posix_spawn_file_actions_adddup2(actions, fd, other);
}

static int faulty_addopen(posix_spawn_file_actions_t *actions, int fd, const char *path, int flags,
			  mode_t mode)
{
	return fails_now() ? ENOMEM
			   : posix_spawn_file_actions_addopen(actions, fd, path, flags, mode);
}

static int faulty_closefrom(posix_spawn_file_actions_t *actions, int fd)
{
	return fails_now() ? ENOMEM : posix_spawn_file_actions_addclosefrom_np(actions, fd);
}

#define memfd_create faulty_memfd_create
#define ftruncate faulty_ftruncate
#define pwrite faulty_pwrite
#define fcntl faulty_fcntl
#define socketpair faulty_socketpair
#define posix_spawn faulty_spawn
#define posix_spawn_file_actions_init faulty_actions_init
#define posix_spawnattr_init faulty_attr_init
#define posix_spawn_file_actions_adddup2 faulty_adddup2
#define posix_spawn_file_actions_addopen faulty_addopen
#define posix_spawn_file_actions_addclosefrom_np faulty_closefrom
#include "../../crypto/unlock.c"
#undef memfd_create
#undef ftruncate
#undef pwrite
#undef fcntl
#undef socketpair
#undef posix_spawn
#undef posix_spawn_file_actions_init
#undef posix_spawnattr_init
#undef posix_spawn_file_actions_adddup2
#undef posix_spawn_file_actions_addopen
#undef posix_spawn_file_actions_addclosefrom_np

/* ---- the children ---- */

#define UUID "d93a3a9b-1e54-415c-80de-72e8c19c614f"
#define DATA_OFFSET ((uint64_t)1 << 20)
#define HEADER_BYTES 5000u

static struct unlock_reply good_reply(void)
{
	struct unlock_reply reply = {
		.is_loaded = 1,
		.keyslot = 3,
		.key_bytes = 64,
		.sector_size = 4096,
		.data_offset = DATA_OFFSET,
		.cipher = "aes",
		.mode = "xts-plain64",
		.uuid = UUID,
	};

	return reply;
}

static void child_read(void *buf, size_t len)
{
	size_t done = 0;

	while (done < len) {
		ssize_t n = read(0, (char *)buf + done, len - done);

		if (n <= 0)
			_exit(70);
		done += (size_t)n;
	}
}

static void child_say(const void *buf, size_t len)
{
	if (write(0, buf, len) != (ssize_t)len)
		_exit(71);
}

static void hang(void)
{
	for (;;)
		pause();
}

/* What an honest child would find around it; the exit status is the number of the complaint. */
static void check_surroundings(const struct unlock_request *request, const unsigned char *pass)
{
	unsigned char bytes[HEADER_BYTES], c;
	struct stat st;
	int seals;

	if (request->parent != getppid() || request->passphrase_len != 100000 || pass[99999] != 'p')
		_exit(1);
	if (fstat(UNLOCK_FD_HEADER, &st) < 0 || st.st_size < (off_t)DATA_OFFSET)
		_exit(2);
	seals = fcntl(UNLOCK_FD_HEADER, F_GET_SEALS);
	if (seals != (F_SEAL_WRITE | F_SEAL_GROW | F_SEAL_SHRINK | F_SEAL_SEAL))
		_exit(3);
	if (pwrite(UNLOCK_FD_HEADER, "x", 1, 0) >= 0 || ftruncate(UNLOCK_FD_HEADER, 0) >= 0)
		_exit(4);
	if (pread(UNLOCK_FD_HEADER, bytes, sizeof(bytes), 0) != sizeof(bytes))
		_exit(5);
	for (size_t i = 0; i < sizeof(bytes); i++)
		if (bytes[i] != (unsigned char)(i * 3))
			_exit(6);
	if (pread(UNLOCK_FD_HEADER, &c, 1, HEADER_BYTES) != 1 || c != 0)
		_exit(7);
	if (pread(UNLOCK_FD_HEADER, &c, 1, 600000) != 1 || c != 'A')
		_exit(8);
	if (environ[0])
		_exit(9);
	for (int fd = UNLOCK_FD_TURNSTILE + (request->has_turnstile ? 1 : 0); fd < 1024; fd++)
		if (fcntl(fd, F_GETFD) >= 0)
			_exit(10);
}

static void child(const char *what)
{
	struct unlock_reply turn = { .is_turn = 1 }, reply = good_reply();
	static unsigned char pass[100000], key[64];
	struct unlock_request request;

	if (strcmp(what, "die-at-once") == 0)
		_exit(3);
	if (strcmp(what, "read-nothing") == 0)
		hang();
	child_read(&request, sizeof(request));
	child_read(pass, sizeof(pass));
	if (strcmp(what, "no-turn") == 0)
		hang();
	check_surroundings(&request, pass);
	child_say(&turn, sizeof(turn));
	memset(key, 'K', sizeof(key));

	if (strcmp(what, "no-answer") == 0)
		hang();
	if (strcmp(what, "exit") == 0)
		_exit(0);
	if (strcmp(what, "sigsys") == 0)
		(void)kill(getpid(), SIGSYS);
	if (strcmp(what, "sigkill") == 0)
		(void)kill(getpid(), SIGKILL);
	if (strcmp(what, "sigxcpu") == 0)
		(void)kill(getpid(), SIGXCPU);
	if (strcmp(what, "sigterm") == 0)
		(void)kill(getpid(), SIGTERM);
	if (strcmp(what, "half-a-reply") == 0) {
		child_say(&reply, sizeof(reply) / 2);
		_exit(0);
	}
	if (strcmp(what, "half-a-key") == 0) {
		child_say(&reply, sizeof(reply));
		child_say(key, 32);
		_exit(0);
	}
	if (strcmp(what, "key-never") == 0) {
		child_say(&reply, sizeof(reply));
		hang();
	}
	if (strcmp(what, "other-cipher") == 0)
		strcpy(reply.cipher, "serpent");
	if (strcmp(what, "other-mode") == 0)
		memset(reply.mode, 'm', sizeof(reply.mode));
	if (strcmp(what, "other-sector") == 0)
		reply.sector_size = 512;
	if (strcmp(what, "other-offset") == 0)
		reply.data_offset++;
	if (strcmp(what, "other-uuid") == 0)
		reply.uuid[0] = 'x';
	if (strcmp(what, "short-key") == 0)
		reply.key_bytes = 32;
	if (strcmp(what, "huge-key") == 0)
		reply.key_bytes = UINT32_MAX;
	if (strcmp(what, "positive-result") == 0)
		reply.result = 12345;
	if (strcmp(what, "perm") == 0)
		reply.result = -EPERM;
	if (strcmp(what, "perm-unloaded") == 0) {
		reply.result = -EPERM;
		reply.is_loaded = 0;
	}
	if (strcmp(what, "nomem") == 0)
		reply.result = -ENOMEM;
	if (strcmp(what, "inval") == 0) {
		reply.result = -EINVAL;
		memset(reply.text, 't', sizeof(reply.text));
		reply.text[20] = '\n';
	}
	child_say(&reply, sizeof(reply));
	child_say(key, sizeof(key));
	/* An answer is an answer, even if the child then stays. */
	if (strcmp(what, "good-but-stays") == 0)
		hang();
	_exit(0);
}

/* ---- the parent ---- */

static struct secret *passphrase(void)
{
	struct secret *s;

	assert_int_equal(secret_new(100000, &s), 0);
	memset(secret_data(s), 'p', 100000);
	return s;
}

static unsigned char meta[HEADER_BYTES], area[100];

static struct luks_header header(void)
{
	struct luks_header h = {
		.info = { .version = 2,
			  .data_offset = DATA_OFFSET,
			  .sector_size = 4096,
			  .key_bytes = 64,
			  .keyslots = 1,
			  .uuid = UUID },
		.argon2_memory_kib = 2048,
		.argon2_lanes = 4,
		.n_regions = 2,
		.regions = { { 0, sizeof(meta), meta }, { 600000, sizeof(area), area } },
	};

	for (size_t i = 0; i < sizeof(meta); i++)
		meta[i] = (unsigned char)(i * 3);
	memset(area, 'A', sizeof(area));
	return h;
}

/* Runs one unlock; nothing may be left behind, whatever comes out. */
static int attempt(const char *what, unsigned int timeout_s, struct fault *f)
{
	struct luks_limits limits = { .unlock_timeout_s = timeout_s };
	struct secret *pass = passphrase(), *key = NULL;
	struct luks_header h = header();
	const int fds = count_fds();
	int slot = -1, r;

	memset(f, 0, sizeof(*f));
	behaviour = what;
	r = luks_unlock(&h, pass, &limits, &key, &slot, f);
	assert_int_equal(count_fds(), fds);
	assert_int_equal(waitpid(-1, NULL, WNOHANG), -1);
	if (r == 0) {
		assert_int_equal(slot, 3);
		assert_int_equal(secret_len(key), 64);
		assert_int_equal(secret_bytes(key)[63], 'K');
		assert_int_equal(f->message[0], 0);
	} else {
		assert_null(key);
		assert_int_equal(slot, -1);
		assert_int_equal(f->error, r);
		assert_int_not_equal(f->message[0], 0);
	}
	secret_free(key);
	secret_free(pass);
	return r;
}

static void fails(const char *what, int error, enum exit_status status, const char *words)
{
	struct fault f;

	assert_int_equal(attempt(what, 30, &f), error);
	assert_int_equal(f.status, status);
	if (!strstr(f.message, words))
		fail_msg("\"%s\" is not in \"%s\"", words, f.message);
}

static void good_child_is_believed(void **state)
{
	struct fault f;

	if (attempt("good", 30, &f) < 0)
		fail_msg("%s", f.message);
	assert_int_equal(attempt("good-but-stays", 0, &f), 0);
}

static void dead_child_is_explained(void **state)
{
	fails("die-at-once", -EIO, EXIT_HEADER, "without an answer");
	fails("exit", -EIO, EXIT_HEADER, "without an answer");
	fails("half-a-reply", -EIO, EXIT_HEADER, "without an answer");
	fails("half-a-key", -EIO, EXIT_HEADER, "without an answer");
	fails("sigsys", -EIO, EXIT_HEADER, "system-call filter");
	fails("sigkill", -ENOMEM, EXIT_MEMORY, "lack of memory");
	fails("sigxcpu", -ETIMEDOUT, EXIT_TIMED_OUT, "processor time");
	fails("sigterm", -EIO, EXIT_HEADER, "signal 15");
}

static void hanging_child_is_ended(void **state)
{
	static const char *const where[] = { "read-nothing", "no-turn", "no-answer", "key-never" };

	for (size_t i = 0; i < sizeof(where) / sizeof(where[0]); i++) {
		struct fault f;

		assert_int_equal(attempt(where[i], 1, &f), -ETIMEDOUT);
		assert_int_equal(f.status, EXIT_TIMED_OUT);
	}
}

static void other_reading_of_the_header_is_refused(void **state)
{
	fails("other-cipher", -EBADMSG, EXIT_HEADER, "another cipher");
	fails("other-mode", -EBADMSG, EXIT_HEADER, "another cipher");
	fails("other-sector", -EBADMSG, EXIT_HEADER, "another sector size");
	fails("other-offset", -EBADMSG, EXIT_HEADER, "another data offset");
	fails("other-uuid", -EBADMSG, EXIT_HEADER, "another UUID");
	fails("short-key", -EBADMSG, EXIT_HEADER, "another key length");
	fails("huge-key", -EBADMSG, EXIT_HEADER, "another key length");
}

static void errors_of_the_library_are_told_apart(void **state)
{
	fails("perm", -EPERM, EXIT_PASSPHRASE, "no keyslot opens with this passphrase");
	fails("perm-unloaded", -EBADMSG, EXIT_HEADER, "refuses the header");
	fails("nomem", -ENOMEM, EXIT_MEMORY, "Argon2 needs 2 MiB");
	fails("inval", -EIO, EXIT_HEADER, "Invalid argument: tttttttttttttttttttt");
	fails("positive-result", -EIO, EXIT_HEADER, "the unlock failed");
}

static void program_that_cannot_be_started_is_said(void **state)
{
	struct fault f;

	executable = "/proc/no-such-program";
	assert_int_equal(attempt("good", 30, &f), -ENOENT);
	assert_non_null(strstr(f.hint, "/proc must be mounted"));
	executable = "/proc/self/exe";
}

static void every_refused_call_is_an_error_and_leaves_nothing(void **state)
{
	int steps = 0;

	for (;;) {
		struct fault f;
		int r;

		fails_at = steps;
		r = attempt("good", 30, &f);
		if (r == 0)
			break;
		steps++;
	}
	fails_at = -1;
	/* memfd twice (new and old flags), size, pieces, seals, ... : all of them were met */
	assert_true(steps > 15);
}

static void header_larger_than_any_file_is_an_error(void **state)
{
	struct luks_limits limits = { .unlock_timeout_s = 5 };
	struct luks_header h = header();
	struct secret *pass = passphrase(), *key = NULL;
	struct fault f = { 0 };

	h.info.data_offset = UINT64_MAX - 4095;
	assert_int_equal(luks_unlock(&h, pass, &limits, &key, NULL, &f), -EFBIG);
	assert_null(key);
	assert_int_not_equal(f.message[0], 0);
	secret_free(pass);
}

static void ignored_sigchld_loses_no_answer(void **state)
{
	struct luks_limits limits = { .unlock_timeout_s = 30 };
	struct luks_header h = header();
	struct secret *pass = passphrase(), *key = NULL;
	struct fault f = { 0 };

	signal(SIGCHLD, SIG_IGN);
	behaviour = "good";
	assert_int_equal(luks_unlock(&h, pass, &limits, &key, NULL, &f), 0);
	key = secret_free(key);
	behaviour = "exit";
	assert_int_equal(luks_unlock(&h, pass, &limits, &key, NULL, &f), -EIO);
	signal(SIGCHLD, SIG_DFL);
	secret_free(pass);
}

static void processor_time_is_bounded_without_overflow(void **state)
{
	struct luks_header h = header();

	assert_int_equal(cpu_limit_s(&h, 10), 40);
	assert_int_equal(cpu_limit_s(&h, 0), 0);
	assert_int_equal(cpu_limit_s(&h, UINT32_MAX), 0);
	h.argon2_lanes = 0;
	assert_int_equal(cpu_limit_s(&h, 10), 10);
}

int main(int argc, char **argv)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(good_child_is_believed),
		cmocka_unit_test(dead_child_is_explained),
		cmocka_unit_test(hanging_child_is_ended),
		cmocka_unit_test(other_reading_of_the_header_is_refused),
		cmocka_unit_test(errors_of_the_library_are_told_apart),
		cmocka_unit_test(program_that_cannot_be_started_is_said),
		cmocka_unit_test(every_refused_call_is_an_error_and_leaves_nothing),
		cmocka_unit_test(header_larger_than_any_file_is_an_error),
		cmocka_unit_test(ignored_sigchld_loses_no_answer),
		cmocka_unit_test(processor_time_is_bounded_without_overflow),
	};

	if (argc == 1 && strncmp(argv[0], CHILD, strlen(CHILD)) == 0)
		child(argv[0] + strlen(CHILD));
	return cmocka_run_group_tests(tests, NULL, NULL);
}
