/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Copyright (C) 2026 the rbdcrypt-nbd authors */

/*
 * The commands that end a service. A volume of the host's daemon is ended by that. Of all others
 * the keys are looked at first, by whoever has them; then the kernel is asked to disconnect, the
 * daemon sees that and ends, and the lock on its state file says when it has.
 */

#include "unmap.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "claim.h"
#include "control_client.h"
#include "guard_socket.h"
#include "lookup.h"
#include "nbdctl.h"
#include "operand.h"
#include "state.h"
#include "text.h"

#define STEP_MS 20
/* Finding who uses a device means looking at every process. */
#define WAIT_STEP_MS 100
#define NAME_BYTES 4096
/* A process without volumes ends within moments, unless the cluster does not let it go. */
#define EXIT_MS 5000

/* poll() counts in ints; nobody waits for longer than that. */
static int to_ms(int timeout_s)
{
	return timeout_s > INT_MAX / 1000 ? INT_MAX : timeout_s * 1000;
}

/* ---- which one ---- */

/*
 * *ret points into l, or is NULL for a device that the kernel knows and the run directory does not.
 * *ret_index: its device, -1 for a socket. name: what the user calls it.
 */
static int find(struct options *o, struct state_list *l, char name[NAME_BYTES],
		const struct volume_state **ret, int *ret_index, struct fault *f)
{
	struct nbd_sysfs kernel;
	int r = operand_name(o, name, NAME_BYTES, f);

	*ret = NULL;
	if (r < 0)
		return r;
	if (nbd_index_parse(name, ret_index) == 0 && nbd_sysfs_read(*ret_index, &kernel) == 0 &&
	    kernel.is_connected) {
		if (lookup_name(l, name, ret, NULL) < 0)
			*ret = NULL;
		return 0;
	}
	r = lookup_name(l, name, ret, f);
	if (r == 0)
		*ret_index = (*ret)->device;
	return r;
}

/* ---- ending it ---- */

/*
 * A pidfd of the owner, if it still is who v says: the pid is taken hold of first and the lock
 * asked again then. -ESRCH when it is gone. -EXDEV: in another pid namespace, where its pid is
 * somebody else's here.
 */
static int open_owner(const char *run_dir, const struct volume_state *v)
{
	int fd;

	if (v->pid_namespace != state_pid_namespace())
		return -EXDEV;
	fd = (int)syscall(SYS_pidfd_open, v->pid, 0);
	if (fd < 0)
		return -errno;
	if (state_wait_gone(run_dir, v, 0) < 0)
		return fd;
	(void)close(fd);
	return -ESRCH;
}

/*
 * Until the owner has given the volume up, which is what counts; and then for a moment until its
 * process has ended, so that its log file and its cluster connection are gone too. owner: from
 * open_owner(), or negative.
 */
static int wait_owner(const char *run_dir, const struct volume_state *v, int owner, int timeout_s,
		      struct fault *f)
{
	struct pollfd p = { .fd = owner, .events = POLLIN };
	int r = state_wait_gone(run_dir, v, to_ms(timeout_s));

	if (r == -ETIMEDOUT) {
		(void)fault_set(f, EXIT_TIMED_OUT, r, "process %d still serves after %d seconds",
				v->pid, timeout_s);
		fault_hint(f, "it finishes what is in flight first; is the cluster reachable?");
	} else if (r == 0 && owner >= 0) {
		(void)poll(&p, 1, EXIT_MS);
	}
	return r;
}

/* SIGTERM, and until it had its effect. */
static int end_owner(const struct options *o, const char *run_dir, const struct volume_state *v,
		     struct fault *f)
{
	int fd = v->is_hosted ? -ESRCH : open_owner(run_dir, v), r = fd < 0 ? fd : 0;

	if (v->is_hosted) {
		(void)fault_set(f, EXIT_USAGE, r,
				"the host's daemon (process %d) serves it among others", v->pid);
		fault_hint(f, "leave --no-daemon away, so that it is asked");
		return r;
	}
	if (r == -EXDEV) {
		(void)fault_set(f, EXIT_SAFEGUARD, r,
				"the daemon (process %d there) is in another pid namespace",
				v->pid);
		fault_hint(f, "run this in the container that it was started in");
		return r;
	}
	if (r == 0 && syscall(SYS_pidfd_send_signal, fd, SIGTERM, NULL, 0) < 0)
		r = -errno;
	if (r == 0)
		r = wait_owner(run_dir, v, fd, o->reattach_timeout_s, f);
	else if (r == -ESRCH)
		r = wait_owner(run_dir, v, -1, 0, f);
	else
		(void)fault_set(f, EXIT_PASSPHRASE, r, "cannot end process %d: %s", v->pid,
				strerror(-r));
	if (fd >= 0)
		(void)close(fd);
	return r;
}

static int wait_kernel(int index, int timeout_s, struct fault *f)
{
	struct timespec step = { .tv_nsec = STEP_MS * 1000000L };
	struct nbd_sysfs kernel;

	for (int ms = 0;; ms += STEP_MS) {
		if (nbd_sysfs_read(index, &kernel) < 0 || !kernel.is_connected)
			return 0;
		if (ms > to_ms(timeout_s) - STEP_MS)
			break;
		(void)nanosleep(&step, NULL);
	}
	return fault_set(f, EXIT_TIMED_OUT, -ETIMEDOUT,
			 "/dev/nbd%d is disconnected, but somebody keeps it open", index);
}

/*
 * work(index), in a process of its own, because nothing can end the wait for a cluster that does
 * not answer, or for a daemon that is gone, not even a signal. It keeps nothing open: who reads
 * what we say to its end would wait for it too.
 */
static int do_within(int (*work)(int index), int index, int timeout_s)
{
	struct pollfd p = { .fd = -1, .events = POLLIN };
	pid_t child = fork();
	int status = 0, r;

	if (child < 0)
		return -errno;
	if (child == 0) {
		if (close_range(0, UINT_MAX, 0) < 0)
			_exit(errno);
		_exit(-work(index));
	}
	p.fd = (int)syscall(SYS_pidfd_open, child, 0);
	if (p.fd >= 0) {
		do
			r = poll(&p, 1, to_ms(timeout_s));
		while (r < 0 && errno == EINTR);
		(void)close(p.fd);
		if (r == 0) {
			/* It ends when the kernel lets it; then init has it. */
			(void)kill(child, SIGKILL);
			return -ETIMEDOUT;
		}
	}
	while (waitpid(child, &status, 0) < 0)
		if (errno != EINTR)
			return -errno;
	return WIFEXITED(status) ? -WEXITSTATUS(status) : -EIO;
}

/* Whether the device can be opened is all that counts; how it went, others ask again. */
static int open_once(int index)
{
	char path[32];
	int fd;

	(void)snprintf(path, sizeof(path), "/dev/nbd%d", index);
	fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
	if (fd >= 0)
		(void)close(fd);
	return 0;
}

/*
 * -EBUSY with who uses it; 0 when nobody does, and then *ret_fd keeps others from mounting it (-1:
 * not held); or -errno.
 */
static int try_hold(int index, int *ret_fd, char *who, size_t len)
{
	char path[32];
	int r = nbd_in_use(index, who, len);

	if (r < 0)
		return r;
	(void)snprintf(path, sizeof(path), "/dev/nbd%d", index);
	*ret_fd = open(path, O_RDONLY | O_EXCL | O_CLOEXEC | O_NONBLOCK);
	if (*ret_fd >= 0 || errno != EBUSY)
		return 0;
	text_copy(who, len, "opened by another process");
	return -EBUSY;
}

/*
 * Refuses a device in use once --wait is over; holds it between our look and the disconnect, as
 * try_hold(). Forced, it does neither: the device may be one that cannot be opened any more.
 */
static int hold(const struct options *o, int index, int *ret_fd, struct fault *f)
{
	struct timespec step = { .tv_nsec = WAIT_STEP_MS * 1000000L };
	char who[512] = "";
	int r;

	*ret_fd = -1;
	if (o->is_forced)
		return 0;
	/* Who opened it first may be reading its partitions, and holds up all others meanwhile. */
	r = do_within(open_once, index, o->reattach_timeout_s > 0 ? o->reattach_timeout_s : 1);
	if (r == -ETIMEDOUT) {
		(void)fault_set(f, EXIT_TIMED_OUT, r,
				"/dev/nbd%d cannot be opened: another program waits for its data",
				index);
		fault_hint(f, "--force unmaps it all the same and loses what was not written");
		return r;
	}
	for (int ms = 0;; ms += WAIT_STEP_MS) {
		r = try_hold(index, ret_fd, who, sizeof(who));
		if (r != -EBUSY || ms >= to_ms(o->wait_s))
			break;
		(void)nanosleep(&step, NULL);
	}
	if (r == 0 || r == -ENODEV)
		return 0;
	if (r != -EBUSY) {
		(void)fault_set(f, r == -EACCES ? EXIT_PASSPHRASE : EXIT_SAFEGUARD, r,
				"cannot see whether /dev/nbd%d is in use: %s", index, strerror(-r));
		fault_hint(f, r == -EACCES ? "this needs root" : "--force does not look");
		return r;
	}
	(void)fault_set(f, EXIT_BUSY, r, "/dev/nbd%d is in use: %s", index, who);
	fault_hint(f, "unmount or close it first; --force unmaps it all the same and loses what "
		      "was not written");
	return r;
}

/* While it is in use its data can still be saved; so it is not taken away when it is all there is.
 */
static int check_keys(const struct options *o, const char *run_dir, const struct volume_state *v,
		      struct fault *f)
{
	return o->is_forced ? 0 : guard_ask(run_dir, v, false, f);
}

static int disconnect(const struct options *o, const char *run_dir, const struct volume_state *v,
		      int index, struct fault *f)
{
	bool is_served = v && volume_is_alive(v);
	struct nbdctl *ctl = NULL;
	int fd, r = hold(o, index, &fd, f);

	if (r < 0)
		return r;
	if (is_served)
		r = check_keys(o, run_dir, v, f);
	if (r == 0)
		r = nbdctl_open(&ctl, f);
	/* Without a daemon nothing can be written back, and trying would wait. */
	if (r == 0 && is_served) {
		r = do_within(nbd_sync, index, o->reattach_timeout_s);
		if (r < 0 && o->is_forced)
			r = 0;
		if (r < 0) {
			(void)fault_set(f, r == -ETIMEDOUT ? EXIT_TIMED_OUT : EXIT_SAFEGUARD, r,
					"/dev/nbd%d cannot be written back: %s", index,
					strerror(-r));
			fault_hint(f,
				   "--force unmaps it all the same and loses what was not written");
		}
	}
	if (r == 0)
		r = nbdctl_disconnect(ctl, index, f);
	if (fd >= 0)
		(void)close(fd);
	(void)nbdctl_close(ctl);
	return r;
}

/* What a dead owner left. */
static int remove_dead(const char *run_dir, const struct volume_state *v, struct fault *f)
{
	int r = claim_remove_dead(run_dir, v->key);
	char spec[1024];

	volume_state_spec(v, spec, sizeof(spec));
	return r < 0 ? fault_set(f, r == -EBUSY ? EXIT_BUSY : EXIT_PASSPHRASE, r,
				 "%s: its state file cannot be removed: %s", spec, strerror(-r))
		     : 0;
}

/* One that died as it was to end has cleared nothing away. Another may have the name by now. */
static int remove_if_dead(const char *run_dir, const struct volume_state *v, struct fault *f)
{
	int r = remove_dead(run_dir, v, f);

	if (r != -EBUSY)
		return r;
	fault_clear(f);
	return 0;
}

static int unmap_device(const struct options *o, const char *run_dir, const struct volume_state *v,
			int index, struct fault *f)
{
	bool is_served = v && volume_is_alive(v);
	struct nbd_sysfs kernel;
	int owner, r;

	r = nbd_sysfs_read(index, &kernel);
	/* A dead owner's device may be gone, or somebody else's by now. */
	if (v && !is_served &&
	    (r < 0 || !kernel.is_connected ||
	     (kernel.cookie[0] && strcmp(kernel.cookie, v->cookie) != 0)))
		return remove_dead(run_dir, v, f);
	owner = is_served && !v->is_hosted ? open_owner(run_dir, v) : -1;
	r = disconnect(o, run_dir, v, index, f);
	if (r == 0 && is_served)
		r = wait_owner(run_dir, v, owner, o->reattach_timeout_s, f);
	if (r == 0 && v)
		(void)claim_remove_dead(run_dir, v->key);
	if (owner >= 0)
		(void)close(owner);
	/* Forced: whoever has it open keeps the number, not the data. */
	if (r == 0 && !o->is_forced)
		r = wait_kernel(index, o->reattach_timeout_s, f);
	return r;
}

/*
 * Whether the host's daemon serves it and does it for us; or has it waiting, and we are who has to
 * ask for everything.
 */
static bool is_asked_for(const struct options *o, const char *run_dir, const struct volume_state *v)
{
	return !o->is_private && v && v->is_hosted &&
	       (volume_is_alive(v) || access(run_dir, W_OK) < 0);
}

/*
 * Nobody knows it but perhaps the host's daemon: before a volume has connected to its cluster, it
 * has no state file. *f says that it is not mapped, and goes on to do so if the daemon does.
 */
static int end_starting(const struct options *o, const char *run_dir, const char *name,
			struct fault *f)
{
	struct fault answer = { 0 };
	int r = client_stop_starting(o, run_dir, name, &answer);

	if (r != -ENOENT)
		*f = answer;
	return r;
}

int unmap_run(struct options *o, struct fault *f)
{
	const struct volume_state *v;
	struct lookup l;
	char name[NAME_BYTES];
	int index, r = lookup_open(o, &l, f);

	if (r < 0)
		return r;
	r = find(o, &l.list, name, &v, &index, f);
	if (r == -ENOENT && name[0] && !o->is_private) {
		r = end_starting(o, l.run_dir, name, f);
	} else if (r == 0 && is_asked_for(o, l.run_dir, v)) {
		r = client_stop(o, l.run_dir, v, f);
	} else if (r == 0 && index >= 0) {
		r = unmap_device(o, l.run_dir, v, index, f);
	} else if (r == 0 && !volume_is_alive(v)) {
		r = remove_dead(l.run_dir, v, f);
	} else if (r == 0) {
		r = check_keys(o, l.run_dir, v, f);
		if (r == 0)
			r = end_owner(o, l.run_dir, v, f);
		if (r == 0)
			r = remove_if_dead(l.run_dir, v, f);
	}
	lookup_done(&l);
	return r;
}

int detach_run(struct options *o, struct fault *f)
{
	const struct volume_state *v;
	struct lookup l;
	char name[NAME_BYTES];
	int index, r = lookup_open(o, &l, f);

	if (r < 0)
		return r;
	r = find(o, &l.list, name, &v, &index, f);
	if (r == 0 && index < 0)
		r = fault_set(f, EXIT_USAGE, -EINVAL, "%s has no device to leave behind",
			      o->operand);
	else if (r == 0 && (!v || !volume_is_alive(v)))
		r = fault_set(f, EXIT_NOT_FOUND, -ESRCH, "/dev/nbd%d has no daemon", index);
	if (r == 0 && is_asked_for(o, l.run_dir, v)) {
		r = client_stop(o, l.run_dir, v, f);
	} else if (r == 0) {
		/* With the daemon the key goes, as it does with unmap. */
		r = check_keys(o, l.run_dir, v, f);
		if (r == 0)
			r = end_owner(o, l.run_dir, v, f);
	}
	lookup_done(&l);
	return r;
}

int unmap_check(struct options *o, struct fault *f)
{
	const struct volume_state *v;
	struct lookup l;
	char name[NAME_BYTES];
	int index, r = lookup_open(o, &l, f);

	if (r < 0)
		return r;
	r = find(o, &l.list, name, &v, &index, f);
	if (r == 0 && v)
		r = check_keys(o, l.run_dir, v, f);
	lookup_done(&l);
	return r;
}
