/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Copyright (C) 2026 the rbdcrypt-nbd authors */

/*
 * User Mode Linux 6.1 keeps 2696 bytes of its guests' extended processor state. On a processor
 * with more of it (AMX: 11008) the host refuses a part, and the guest's first process dies of
 * "ptrace set fp regs failed, errno = 14". Preloaded into linux.uml, this hands over a whole
 * one, the rest of it being in its initial state: nothing in the guest may use AMX, because
 * UML lets no process ask for it.
 */

#define _GNU_SOURCE
#include <dlfcn.h>
#include <elf.h>
#include <stdarg.h>
#include <string.h>
#include <sys/ptrace.h>
#include <sys/types.h>
#include <sys/uio.h>

/* One kernel thread asks, hence no lock; glibc declares ptrace as variadic. */
long ptrace(enum __ptrace_request request, ...)
{
	static long (*real)(enum __ptrace_request, pid_t, void *, void *);
	static char whole[65536] __attribute__((aligned(64)));
	static size_t whole_bytes;
	struct iovec iov = { whole, sizeof(whole) };
	const struct iovec *given;
	va_list args;
	pid_t pid;
	void *addr, *data;

	va_start(args, request);
	pid = va_arg(args, pid_t);
	addr = va_arg(args, void *);
	data = va_arg(args, void *);
	va_end(args);

	if (!real)
		*(void **)&real = dlsym(RTLD_NEXT, "ptrace");
	if (request != PTRACE_SETREGSET || addr != (void *)NT_X86_XSTATE)
		return real(request, pid, addr, data);

	if (!whole_bytes) {
		if (real(PTRACE_GETREGSET, pid, addr, &iov) < 0)
			return -1;
		whole_bytes = iov.iov_len;
		memset(whole, 0, sizeof(whole));
	}
	given = data;
	if (given->iov_len >= whole_bytes)
		return real(request, pid, addr, data);
	memcpy(whole, given->iov_base, given->iov_len);
	iov.iov_len = whole_bytes;
	return real(request, pid, addr, &iov);
}
