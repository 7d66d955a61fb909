/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Copyright (C) 2026 the rbdcrypt-nbd authors */

/* Main thread only. */

#include "process.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/capability.h>
#include <linux/prctl.h>
#include <malloc.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/signalfd.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/sysinfo.h>
#include <sys/wait.h>
#include <unistd.h>

#include "fault.h"

/* For some thousands of volumes. Not all that the system would give: libraries make tables of it.
 */
#define FILES_ENOUGH 65536u

static void ours(sigset_t *set)
{
	(void)sigemptyset(set);
	(void)sigaddset(set, SIGTERM);
	(void)sigaddset(set, SIGINT);
	(void)sigaddset(set, SIGHUP);
}

/*
 * What programs get by default is for those that call select(). A volume takes about fifteen
 * descriptors, so that would do for seventy, and librados ends the process when it is refused one.
 */
static void allow_files(void)
{
	struct rlimit l;

	if (getrlimit(RLIMIT_NOFILE, &l) < 0 || l.rlim_cur >= FILES_ENOUGH)
		return;
	l.rlim_cur = l.rlim_max < FILES_ENOUGH ? l.rlim_max : FILES_ENOUGH;
	/* Else it stays as it was, and the first volume too many says so. */
	(void)setrlimit(RLIMIT_NOFILE, &l);
}

int process_setup(void)
{
	sigset_t set;
	struct sigaction ignore = { .sa_handler = SIG_IGN };

	ours(&set);
	/* A file that may not grow any more, of a volume or a log, is an error and not the end. */
	if (sigprocmask(SIG_BLOCK, &set, NULL) < 0 || sigaction(SIGPIPE, &ignore, NULL) < 0 ||
	    sigaction(SIGXFSZ, &ignore, NULL) < 0)
		return -errno;
	/*
	 * By default glibc has eight arenas per processor. Each thread that starts a volume would
	 * get one of its own, and leave some hundreds of kilobytes in it for good.
	 */
	(void)mallopt(M_ARENA_MAX, get_nprocs());
	allow_files();
	return 0;
}

int process_signal_fd(void)
{
	sigset_t set;
	int fd;

	ours(&set);
	fd = signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK);
	return fd < 0 ? -errno : fd;
}

int process_next_signal(int fd)
{
	struct signalfd_siginfo s;

	return read(fd, &s, sizeof(s)) == (ssize_t)sizeof(s) ? (int)s.ssi_signo : 0;
}

static bool is_one_pending(void *arg)
{
	const struct process_hold *h = arg;
	sigset_t pending;

	if (sigpending(&pending) < 0 || sigandset(&pending, &pending, &h->held) < 0)
		return false;
	return !sigisemptyset(&pending);
}

void process_hold(struct process_hold *h)
{
	static const int signals[] = { SIGTERM, SIGINT, SIGHUP };
	struct sigaction now;

	(void)sigemptyset(&h->held);
	/* One that is ignored, as by nohup(1), would be pending all the same. */
	for (size_t i = 0; i < sizeof(signals) / sizeof(signals[0]); i++)
		if (sigaction(signals[i], NULL, &now) == 0 && now.sa_handler != SIG_IGN)
			(void)sigaddset(&h->held, signals[i]);
	(void)sigprocmask(SIG_BLOCK, &h->held, &h->before);
	h->interrupt = (struct interrupt){ is_one_pending, h };
}

void process_release(const struct process_hold *h)
{
	(void)sigprocmask(SIG_SETMASK, &h->before, NULL);
}

/* For now and for what is started later. */
static int drop_capability(unsigned int capability)
{
	struct __user_cap_header_struct header = { .version = _LINUX_CAPABILITY_VERSION_3 };
	struct __user_cap_data_struct data[_LINUX_CAPABILITY_U32S_3] = { 0 };
	struct __user_cap_data_struct *d = &data[CAP_TO_INDEX(capability)];

	if (syscall(SYS_capget, &header, data) < 0)
		return -errno;
	d->effective &= ~CAP_TO_MASK(capability);
	d->permitted &= ~CAP_TO_MASK(capability);
	d->inheritable &= ~CAP_TO_MASK(capability);
	return syscall(SYS_capset, &header, data) < 0 ? -errno : 0;
}

int process_set_io_flusher(void)
{
	if (prctl(PR_SET_IO_FLUSHER, 1, 0, 0, 0) < 0)
		return -errno;
	return drop_capability(CAP_SYS_RESOURCE);
}

/* Waits for the child's word on fd, or its end; never returns. */
static _Noreturn void be_parent(pid_t child, int fd)
{
	int signals = process_signal_fd(), status;
	struct pollfd p[] = { { .fd = fd, .events = POLLIN }, { .fd = signals, .events = POLLIN } };
	unsigned char ready;

	for (;;) {
		if (poll(p, 2, -1) < 0 && errno != EINTR)
			break;
		/* The child undoes what it has begun, and says how that ended. */
		if (p[1].revents && process_next_signal(signals))
			(void)kill(child, SIGTERM);
		if (p[0].revents)
			break;
	}
	if (read(fd, &ready, 1) == 1)
		_exit(EXIT_OK);
	while (waitpid(child, &status, 0) < 0 && errno == EINTR)
		;
	if (WIFEXITED(status) && WEXITSTATUS(status) != EXIT_OK)
		_exit(WEXITSTATUS(status));
	if (WIFSIGNALED(status))
		(void)fprintf(stderr, "rbdcrypt-nbd: the daemon died of signal %d\n",
			      WTERMSIG(status));
	else
		(void)fprintf(stderr, "rbdcrypt-nbd: the daemon ended before it was ready\n");
	_exit(EXIT_KERNEL);
}

int process_fork(int *ret_ready_fd)
{
	int fds[2];
	pid_t child;

	if (pipe2(fds, O_CLOEXEC) < 0)
		return -errno;
	child = fork();
	if (child < 0) {
		int r = -errno;

		(void)close(fds[0]);
		(void)close(fds[1]);
		return r;
	}
	if (child > 0) {
		(void)close(fds[1]);
		be_parent(child, fds[0]);
	}
	(void)close(fds[0]);
	/* Its own session, so that a terminal's Ctrl-C or end reaches the parent only. */
	(void)setsid();
	*ret_ready_fd = fds[1];
	return 0;
}

int process_ready(int ready_fd)
{
	int null = open("/dev/null", O_RDWR | O_CLOEXEC);

	/* Who reads our output to its end would wait for ours. */
	if (null < 0)
		return -errno;
	if (write(ready_fd, "r", 1) != 1) {
		(void)close(null);
		return -EPIPE;
	}
	(void)close(ready_fd);
	(void)dup2(null, STDIN_FILENO);
	(void)dup2(null, STDOUT_FILENO);
	(void)dup2(null, STDERR_FILENO);
	(void)close(null);
	/* No directory is kept busy by us. */
	return chdir("/") < 0 ? -errno : 0;
}
