/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Copyright (C) 2026 the rbdcrypt-nbd authors */

/*
 * Passphrases that a program prints. No shell stands between; the program gets no input and none of
 * our descriptors, its own process group, and limits on its processor time, core and file size.
 * Whatever happens, the group is dead when we return. What it says on standard error is kept in a
 * memory file, which cannot fill up a pipe and stop it, and shown in the fault or the log.
 *
 * Blocking; any thread that may wait. posix_spawn(), because there are other threads by now.
 */

#include "key_kind.h"

#include <ctype.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <spawn.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/select.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "log.h"

#define STDERR_MAX (1u << 20)
#define SAID_MAX 400
#define CPU_SECONDS_DEFAULT 600u
/* How long one that is no longer wanted may take to end by itself. */
#define TERM_MS 500

/* ---- starting it ---- */

static int add_actions(posix_spawn_file_actions_t *actions, int out, int err)
{
	int r = posix_spawn_file_actions_addopen(actions, 0, "/dev/null", O_RDONLY, 0);

	if (r == 0)
		r = posix_spawn_file_actions_adddup2(actions, out, 1);
	if (r == 0)
		r = posix_spawn_file_actions_adddup2(actions, err, 2);
	if (r == 0)
		r = posix_spawn_file_actions_addclosefrom_np(actions, 3);
	/* Where the daemon will be when it runs it again. */
	if (r == 0)
		r = posix_spawn_file_actions_addchdir_np(actions, "/");
	return -r;
}

/* A group of its own, every signal at its default and none blocked, whatever this thread has. */
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
		r = posix_spawnattr_setpgroup(attr, 0);
	if (r == 0)
		r = posix_spawnattr_setflags(attr, POSIX_SPAWN_SETSIGDEF | POSIX_SPAWN_SETSIGMASK |
							   POSIX_SPAWN_SETPGROUP);
	return -r;
}

static int spawn(char *const *argv, int out, int err, pid_t *ret)
{
	posix_spawn_file_actions_t actions;
	posix_spawnattr_t attr;
	int r = -posix_spawn_file_actions_init(&actions);

	if (r < 0)
		return r;
	r = -posix_spawnattr_init(&attr);
	if (r == 0) {
		r = add_actions(&actions, out, err);
		if (r == 0)
			r = set_attributes(&attr);
		if (r == 0)
			r = -posix_spawn(ret, argv[0], &actions, &attr, argv, environ);
		(void)posix_spawnattr_destroy(&attr);
	}
	(void)posix_spawn_file_actions_destroy(&actions);
	return r;
}

/* Set from outside, since posix_spawn() cannot; a moment late is early enough for what they stop.
 */
static void limit(pid_t pid, unsigned int seconds)
{
	const struct rlimit core = { 0, 0 }, size = { STDERR_MAX, STDERR_MAX };
	const struct rlimit cpu = { seconds, seconds };
	struct rlimit files;

	(void)prlimit(pid, RLIMIT_CORE, &core, NULL);
	(void)prlimit(pid, RLIMIT_FSIZE, &size, NULL);
	(void)prlimit(pid, RLIMIT_CPU, &cpu, NULL);
	/* We raised ours; it may be one that calls select(). */
	if (prlimit(pid, RLIMIT_NOFILE, NULL, &files) == 0 && files.rlim_cur > FD_SETSIZE) {
		files.rlim_cur = FD_SETSIZE;
		(void)prlimit(pid, RLIMIT_NOFILE, &files, NULL);
	}
}

/* ---- what it said ---- */

/* The end of it on one line, without blanks around. */
static void read_said(int fd, char said[SAID_MAX])
{
	off_t len = lseek(fd, 0, SEEK_END);
	ssize_t n = 0;

	if (len > 0)
		n = pread(fd, said, SAID_MAX - 1, len < SAID_MAX ? 0 : len - (SAID_MAX - 1));
	while (n > 0 && isspace((unsigned char)said[n - 1]))
		n--;
	said[n > 0 ? n : 0] = '\0';
	for (char *p = said; *p; p++)
		if (iscntrl((unsigned char)*p))
			*p = ' ';
}

static int explain_start(const struct key_request *q, const char *program, int r, struct fault *f)
{
	return fault_set(f, fault_status(r, EXIT_PASSPHRASE), r, "%s: cannot run %s: %s", q->source,
			 program, strerror(-r));
}

static int explain_exit(const struct key_request *q, const char *program, int status,
			const char *said, struct fault *f)
{
	const char *sep = said[0] ? ": " : "";

	if (WIFSIGNALED(status))
		return fault_set(f, EXIT_PASSPHRASE, -EREMOTEIO, "%s: %s died of signal %d%s%s",
				 q->source, program, WTERMSIG(status), sep, said);
	return fault_set(f, EXIT_PASSPHRASE, -EREMOTEIO, "%s: %s ended with exit status %d%s%s",
			 q->source, program, WEXITSTATUS(status), sep, said);
}

/* ---- all of it ---- */

/* Until it has ended, or the time is over; then it has ended too. */
static int reap(const struct key_request *q, pid_t pid, bool is_hurried, int *ret_status)
{
	int fd = (int)syscall(SYS_pidfd_open, pid, 0);
	int r = fd < 0 ? -errno : 0;

	if (r == 0 && !is_hurried)
		r = key_wait(q, fd, POLLIN);
	/* It may have something to take back: a question that it has put to others. */
	if (fd >= 0 && (r < 0 || is_hurried)) {
		(void)kill(-pid, SIGTERM);
		(void)poll(&(struct pollfd){ .fd = fd, .events = POLLIN }, 1, TERM_MS);
	}
	if (fd >= 0)
		(void)close(fd);
	/* Also what it has started and left behind. */
	(void)kill(-pid, SIGKILL);
	while (waitpid(pid, ret_status, 0) < 0)
		if (errno != EINTR)
			return -errno;
	return r;
}

static int run(const struct key_request *q, char *const *argv, const int out[2], int err,
	       struct secret **ret, struct fault *f)
{
	char said[SAID_MAX];
	int status = 0, r, ended;
	pid_t pid;

	r = spawn(argv, out[1], err, &pid);
	(void)close(out[1]);
	if (r < 0)
		return explain_start(q, argv[0], r, f);
	limit(pid, q->o->timeout_s ? q->o->timeout_s : CPU_SECONDS_DEFAULT);
	r = key_read_fd(q, out[0], ret);
	ended = reap(q, pid, r < 0 && r != -ENODATA, &status);
	read_said(err, said);
	if (r < 0 && r != -ENODATA)
		return r;
	if (ended < 0)
		return ended;
	if (!WIFEXITED(status) || WEXITSTATUS(status) != 0)
		return explain_exit(q, argv[0], status, said, f);
	if (said[0])
		log_warning(NULL, "%s says: %s", q->source, said);
	return r;
}

int key_run(const struct key_request *q, char *const *argv, struct secret **ret, struct fault *f)
{
	struct secret *s = NULL;
	int out[2], err, r;

	err = memfd_create("stderr", MFD_CLOEXEC);
	if (err < 0)
		return -errno;
	if (pipe2(out, O_CLOEXEC) < 0) {
		r = -errno;
		(void)close(err);
		return r;
	}
	r = run(q, argv, out, err, &s, f);
	(void)close(out[0]);
	(void)close(err);
	/* One that printed something and then failed did not mean it. */
	if (r < 0)
		(void)secret_free(s);
	else
		*ret = s;
	return r;
}

static int split(const struct key_request *q, char ***ret, struct fault *f)
{
	int r = key_words_split(q->text, ret, f);

	if (r < 0)
		fault_prefix(f, "%s", q->source);
	return r;
}

int key_exec_read(const struct key_request *q, struct secret **ret, struct fault *f)
{
	char **words;
	int r = split(q, &words, f);

	if (r < 0)
		return r;
	r = key_run(q, words, ret, f);
	(void)key_words_free(words);
	return r;
}

int key_exec_check(const struct key_request *q, struct fault *f)
{
	char **words;
	int r = split(q, &words, f);

	if (r < 0)
		return r;
	if (access(words[0], X_OK) < 0)
		r = explain_start(q, words[0], -errno, f);
	(void)key_words_free(words);
	return r;
}
