/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Copyright (C) 2026 the rbdcrypt-nbd authors */

/*
 * walls: tries what our services may not do, and prints a line for each thing that works: all of
 * them outside a unit's walls, none inside. "walls names" prints what there is to try. Nothing has
 * an effect outside either: each try is in a process of its own, with arguments that come to
 * nothing, and any answer of the kernel but a refusal is as good as success.
 */

#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/personality.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/swap.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#define NAME "/walls"

static long open_path(const char *path, int flags)
{
	return open(path, flags | O_CLOEXEC);
}

static long create_in(const char *folder)
{
	char path[64];
	int fd;

	(void)snprintf(path, sizeof(path), "%s" NAME, folder);
	fd = open(path, O_WRONLY | O_CREAT | O_CLOEXEC, 0600);
	if (fd >= 0)
		(void)unlink(path);
	return fd;
}

static long other_device(void)
{
	return open_path("/dev/loop0", O_RDONLY);
}

static long kernel_log(void)
{
	return open_path("/dev/kmsg", O_WRONLY);
}

static long mounting(void)
{
	return mount("none", "/tmp", "nosuchtype", 0, NULL);
}

static long new_mounting(void)
{
	return syscall(SYS_fsopen, "nosuchtype", ~0u);
}

static long name_space(void)
{
	return unshare(CLONE_NEWNS);
}

static long load_module(void)
{
	return syscall(SYS_init_module, NULL, 0, NULL);
}

static long swap_on(void)
{
	return swapon("/dev/null", 0);
}

static long set_clock(void)
{
	return syscall(SYS_clock_settime, 0, NULL);
}

static long bpf(void)
{
	return syscall(SYS_bpf, 999, NULL, 0);
}

static long trace(void)
{
	return syscall(SYS_ptrace, 0, 0, NULL, NULL);
}

static long perf(void)
{
	return syscall(SYS_perf_event_open, NULL, 0, -1, -1, ~0ul);
}

static long handles(void)
{
	return syscall(SYS_open_by_handle_at, -1, NULL, 0);
}

static long change_personality(void)
{
	return personality(ADDR_COMPAT_LAYOUT);
}

static long real_time(void)
{
	struct sched_param p = { .sched_priority = 1 };

	return sched_setscheduler(0, SCHED_FIFO, &p);
}

static long packets(void)
{
	return socket(AF_PACKET, SOCK_RAW | SOCK_CLOEXEC, 0);
}

static long code_from_data(void)
{
	void *p = mmap(NULL, 4096, PROT_READ | PROT_WRITE | PROT_EXEC, MAP_PRIVATE | MAP_ANONYMOUS,
		       -1, 0);

	return p == MAP_FAILED ? -1 : 0;
}

static long set_user_id(void)
{
	int fd = open("/tmp" NAME, O_WRONLY | O_CREAT | O_CLOEXEC, 0600);
	int r = fd < 0 ? -1 : fchmod(fd, 04755), error = errno;

	(void)unlink("/tmp" NAME);
	errno = error;
	return r;
}

static long write_usr(void)
{
	return create_in("/usr");
}

static long write_etc(void)
{
	return create_in("/etc");
}

static long write_home(void)
{
	return create_in("/root");
}

static long kernel_settings(void)
{
	return open_path("/proc/sys/kernel/hostname", O_WRONLY);
}

static long control_groups(void)
{
	return open_path("/sys/fs/cgroup/cgroup.procs", O_WRONLY);
}

static const struct wall {
	const char *name;
	long (*climb)(void); /* -1 and errno */
} walls[] = {
	{ "other-device", other_device },
	{ "kernel-log", kernel_log },
	{ "mount", mounting },
	{ "new-mount", new_mounting },
	{ "namespace", name_space },
	{ "load-module", load_module },
	{ "swap-on", swap_on },
	{ "clock", set_clock },
	{ "bpf", bpf },
	{ "trace", trace },
	{ "perf", perf },
	{ "handles", handles },
	{ "personality", change_personality },
	{ "real-time", real_time },
	{ "packets", packets },
	{ "code-from-data", code_from_data },
	{ "set-user-id", set_user_id },
	{ "write-usr", write_usr },
	{ "write-etc", write_etc },
	{ "write-home", write_home },
	{ "kernel-settings", kernel_settings },
	{ "control-groups", control_groups },
};

static int is_refusal(int error)
{
	return error == EPERM || error == EACCES || error == EROFS || error == EAFNOSUPPORT ||
	       error == ENOENT;
}

static int works(const struct wall *w)
{
	pid_t pid = fork();
	int status = 0;

	if (pid == 0)
		_exit(w->climb() == -1 && is_refusal(errno) ? 1 : 0);
	if (pid < 0 || waitpid(pid, &status, 0) != pid || !WIFEXITED(status)) {
		(void)fprintf(stderr, "walls: %s: it was not tried\n", w->name);
		return 1;
	}
	return WEXITSTATUS(status) == 0;
}

int main(int argc, char **argv)
{
	int is_list = argc == 2 && strcmp(argv[1], "names") == 0;

	for (unsigned int i = 0; i < sizeof(walls) / sizeof(*walls); i++)
		if (is_list || works(&walls[i]))
			(void)printf("%s\n", walls[i].name);
	return 0;
}
