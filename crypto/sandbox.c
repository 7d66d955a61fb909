// SPDX-License-Identifier: GPL-2.0-or-later
// Copyright (C) 2026 the rbdcrypt-nbd authors

/*
 * The walls around the unlock child: resource limits, no privileges to gain or
 * keep, and a list of the system calls that libcryptsetup, OpenSSL, libargon2 and
 * the C library need to turn a passphrase and a header into a key. Called once, by
 * the child, before it looks at a single byte of the header.
 *
 * The child may open files for reading, because OpenSSL loads its configuration
 * and modules late; it cannot write, connect, start programs or signal. What it
 * knows can leave only through the socket it was given.
 */

#include "sandbox.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/capability.h>
#include <sched.h>
#include <seccomp.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <unistd.h>

#if defined(__has_feature)
#define CLANG_SANITIZED (__has_feature(address_sanitizer) || __has_feature(thread_sanitizer))
#else
#define CLANG_SANITIZED 0
#endif
#if CLANG_SANITIZED || defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
#define IS_SANITIZED 1 /* their shadow memory is terabytes of address space */
#else
#define IS_SANITIZED 0
#endif

/* Compared with nothing: these are harmless whatever their arguments. */
static const int allowed_calls[] = {
	/* memory */
	SCMP_SYS(brk),
	SCMP_SYS(madvise),
	SCMP_SYS(mlock),
	SCMP_SYS(mremap),
	SCMP_SYS(munlock),
	SCMP_SYS(munmap),
	SCMP_SYS(get_mempolicy),
	/* descriptors it has, and files it may read */
	SCMP_SYS(access),
	SCMP_SYS(close),
	SCMP_SYS(faccessat),
	SCMP_SYS(faccessat2),
	SCMP_SYS(fadvise64),
	SCMP_SYS(fstat),
	SCMP_SYS(fstatfs),
	SCMP_SYS(getdents64),
	SCMP_SYS(lseek),
	SCMP_SYS(lstat),
	SCMP_SYS(newfstatat),
	SCMP_SYS(pread64),
	SCMP_SYS(read),
	SCMP_SYS(readlink),
	SCMP_SYS(readlinkat),
	SCMP_SYS(readv),
	SCMP_SYS(stat),
	SCMP_SYS(statfs),
	SCMP_SYS(statx),
	SCMP_SYS(write),
	/* threads and time */
	SCMP_SYS(clock_getres),
	SCMP_SYS(clock_gettime),
	SCMP_SYS(clock_nanosleep),
	SCMP_SYS(exit),
	SCMP_SYS(exit_group),
	SCMP_SYS(futex),
	SCMP_SYS(get_robust_list),
	SCMP_SYS(gettimeofday),
	SCMP_SYS(membarrier),
	SCMP_SYS(nanosleep),
	SCMP_SYS(restart_syscall),
	SCMP_SYS(rseq),
	SCMP_SYS(rt_sigaction),
	SCMP_SYS(rt_sigprocmask),
	SCMP_SYS(rt_sigreturn),
	SCMP_SYS(sched_getaffinity),
	SCMP_SYS(sched_yield),
	SCMP_SYS(set_robust_list),
	SCMP_SYS(sigaltstack),
	/* who and where */
	SCMP_SYS(getegid),
	SCMP_SYS(geteuid),
	SCMP_SYS(getgid),
	SCMP_SYS(getpid),
	SCMP_SYS(getppid),
	SCMP_SYS(getpriority),
	SCMP_SYS(getrandom),
	SCMP_SYS(getrusage),
	SCMP_SYS(gettid),
	SCMP_SYS(getuid),
	SCMP_SYS(sysinfo),
	SCMP_SYS(uname),
};

/* Refused with an error that their callers know how to live with. */
static const struct {
	int call;
	int error;
} denied_calls[] = {
	/* Its flags are in memory, where a filter cannot see them; clone() is tried next. */
	{ SCMP_SYS(clone3), ENOSYS },
	/* Hardening and comfort that the libraries try and can do without. */
	{ SCMP_SYS(ioctl), ENOTTY },
	{ SCMP_SYS(prctl), EPERM },
	{ SCMP_SYS(prlimit64), EPERM },
	{ SCMP_SYS(setpriority), EPERM },
	{ SCMP_SYS(sched_setscheduler), EPERM },
	{ SCMP_SYS(mlockall), EPERM },
	{ SCMP_SYS(munlockall), EPERM },
	{ SCMP_SYS(fcntl), EPERM },
	{ SCMP_SYS(socket), EPERM },
};

static int allow_conditional(scmp_filter_ctx filter)
{
	int r;

	/* Files for reading only. */
	r = seccomp_rule_add(filter, SCMP_ACT_ALLOW, SCMP_SYS(openat), 1,
			     SCMP_A2(SCMP_CMP_MASKED_EQ, O_ACCMODE | O_CREAT | O_TRUNC, O_RDONLY));
	if (r == 0)
		r = seccomp_rule_add(filter, SCMP_ACT_ERRNO(EACCES), SCMP_SYS(openat), 1,
				     SCMP_A2(SCMP_CMP_MASKED_EQ, O_WRONLY, O_WRONLY));
	if (r == 0)
		r = seccomp_rule_add(filter, SCMP_ACT_ERRNO(EACCES), SCMP_SYS(openat), 1,
				     SCMP_A2(SCMP_CMP_MASKED_EQ, O_RDWR, O_RDWR));
	/* Threads, not processes. */
	if (r == 0)
		r = seccomp_rule_add(filter, SCMP_ACT_ALLOW, SCMP_SYS(clone), 1,
				     SCMP_A0(SCMP_CMP_MASKED_EQ, CLONE_THREAD, CLONE_THREAD));
	return r;
}

/*
 * Memory is never both writable and executable. The dynamic loader maps a module's
 * code readable and executable, which it may.
 */
static int allow_memory(scmp_filter_ctx filter)
{
	const int calls[] = { SCMP_SYS(mmap), SCMP_SYS(mprotect) };
	int r = 0;

	for (unsigned int i = 0; i < sizeof(calls) / sizeof(calls[0]) && r == 0; i++) {
		r = seccomp_rule_add(filter, SCMP_ACT_ALLOW, calls[i], 1,
				     SCMP_A2(SCMP_CMP_MASKED_EQ, PROT_WRITE, 0));
		if (r == 0)
			r = seccomp_rule_add(
				filter, SCMP_ACT_ALLOW, calls[i], 1,
				SCMP_A2(SCMP_CMP_MASKED_EQ, PROT_WRITE | PROT_EXEC, PROT_WRITE));
	}
	return r;
}

static int fill(scmp_filter_ctx filter)
{
	int r = 0;

	for (unsigned int i = 0; i < sizeof(allowed_calls) / sizeof(allowed_calls[0]); i++) {
		r = seccomp_rule_add(filter, SCMP_ACT_ALLOW, allowed_calls[i], 0);
		if (r < 0)
			return r;
	}
	for (unsigned int i = 0; i < sizeof(denied_calls) / sizeof(denied_calls[0]); i++) {
		r = seccomp_rule_add(filter, SCMP_ACT_ERRNO((uint16_t)denied_calls[i].error),
				     denied_calls[i].call, 0);
		if (r < 0)
			return r;
	}
	r = allow_conditional(filter);
	return r < 0 ? r : allow_memory(filter);
}

static int filter_calls(void)
{
	scmp_filter_ctx filter = seccomp_init(SCMP_ACT_KILL_PROCESS);
	int r;

	if (!filter)
		return -ENOMEM;
	r = fill(filter);
	if (r == 0)
		r = seccomp_load(filter);
	seccomp_release(filter);
	return r;
}

static int drop_capabilities(void)
{
	struct __user_cap_header_struct header = { .version = _LINUX_CAPABILITY_VERSION_3 };
	const struct __user_cap_data_struct none[_LINUX_CAPABILITY_U32S_3] = { 0 };

	if (prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0) < 0 && errno != EINVAL)
		return -errno;
	return syscall(SYS_capset, &header, none) < 0 ? -errno : 0;
}

/* Bytes of address space in use now. */
static uint64_t mapped_bytes(void)
{
	unsigned long pages = 0;
	FILE *f = fopen("/proc/self/statm", "re");

	if (f) {
		if (fscanf(f, "%lu", &pages) != 1)
			pages = 0;
		(void)fclose(f);
	}
	return (uint64_t)pages * (uint64_t)sysconf(_SC_PAGESIZE);
}

static int limit(int resource, uint64_t soft, uint64_t hard)
{
	struct rlimit now, l = { .rlim_cur = soft, .rlim_max = hard };

	if (getrlimit(resource, &now) < 0)
		return -errno;
	/* A limit that is lower already stays. */
	if (l.rlim_max > now.rlim_max)
		l.rlim_max = now.rlim_max;
	if (l.rlim_cur > now.rlim_cur)
		l.rlim_cur = now.rlim_cur;
	return setrlimit(resource, &l) < 0 ? -errno : 0;
}

static int limit_resources(const struct sandbox_limits *limits)
{
	const uint64_t memory = mapped_bytes() + limits->memory_bytes;
	int r;

	r = limit(RLIMIT_CORE, 0, 0);
	if (r == 0)
		r = limit(RLIMIT_FSIZE, 0, 0);
	if (r == 0)
		r = limit(RLIMIT_NOFILE, 32, 32);
	if (r == 0 && limits->cpu_s)
		r = limit(RLIMIT_CPU, limits->cpu_s, (uint64_t)limits->cpu_s + 5);
	if (r == 0 && !IS_SANITIZED)
		r = limit(RLIMIT_AS, memory, memory);
	return r;
}

int sandbox_enter(const struct sandbox_limits *limits)
{
	int r;

	r = limit_resources(limits);
	if (r < 0)
		return r;
	if (prctl(PR_SET_DUMPABLE, 0, 0, 0, 0) < 0 || prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) < 0)
		return -errno;
	r = drop_capabilities();
	return r < 0 ? r : filter_calls();
}
