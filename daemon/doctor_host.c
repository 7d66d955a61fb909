/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Copyright (C) 2026 the rbdcrypt-nbd authors */

/* What the doctor sees of this machine. Part of doctor.c; owns nothing. */

#include "doctor.h"

#include <errno.h>
#include <libgen.h>
#include <linux/capability.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <sys/utsname.h>
#include <unistd.h>

#include "nbdctl.h"
#include "state.h"
#include "stats.h"
#include "wire.h"

/* The kernel keeps a cookie with a device from here on. */
#define KERNEL_MAJOR 5
#define KERNEL_MINOR 14

static void check_kernel(struct doctor *d)
{
	struct utsname u;
	int major = 0, minor = 0;

	if (uname(&u) < 0 || sscanf(u.release, "%d.%d", &major, &minor) != 2)
		return;
	if (major > KERNEL_MAJOR || (major == KERNEL_MAJOR && minor >= KERNEL_MINOR))
		doctor_note(d, DOCTOR_OK, "kernel", NULL, "Linux %s", u.release);
	else
		doctor_note(
			d, DOCTOR_WARN, "kernel",
			"take a newer one: without cookies, attach cannot tell whether a device "
			"is the image's",
			"Linux %s keeps no cookies with nbd devices; %d.%d does", u.release,
			KERNEL_MAJOR, KERNEL_MINOR);
}

static bool may_control_devices(void)
{
	struct __user_cap_header_struct header = { .version = _LINUX_CAPABILITY_VERSION_3 };
	struct __user_cap_data_struct data[_LINUX_CAPABILITY_U32S_3] = { 0 };

	return syscall(SYS_capget, &header, data) < 0 ||
	       data[CAP_TO_INDEX(CAP_SYS_ADMIN)].effective & CAP_TO_MASK(CAP_SYS_ADMIN);
}

static void check_driver(struct doctor *d)
{
	struct nbdctl *ctl = NULL;
	struct fault f = { 0 };

	/* The driver answers everybody. */
	if (!may_control_devices())
		doctor_note(d, DOCTOR_WARN, "nbd",
			    "be root, or a member of the --control-group of this host's daemon; "
			    "serve works without",
			    "to map, unmap and attach, CAP_SYS_ADMIN is needed, and is not there");
	if (access("/sys/module/nbd", F_OK) < 0) {
		doctor_note(d, DOCTOR_WARN, "nbd",
			    "modprobe nbd; a container needs it loaded by its host. serve works "
			    "without",
			    "the kernel's nbd driver is not loaded: map loads it if it can");
		return;
	}
	if (nbdctl_open(&ctl, &f) < 0)
		doctor_note(d, DOCTOR_WARN, "nbd", f.hint, "%s; serve works without", f.message);
	else
		doctor_note(d, DOCTOR_OK, "nbd", NULL, "the driver is there and answers");
	(void)nbdctl_close(ctl);
}

static bool has_swap(void)
{
	FILE *file = fopen("/proc/swaps", "re");
	char line[512];
	int n = 0;

	if (!file)
		return false;
	while (fgets(line, sizeof(line), file))
		n++;
	(void)fclose(file);
	/* The first says what the columns are. */
	return n > 1;
}

static void check_memory(struct doctor *d)
{
	struct rlimit limit = { 0 };

	if (!has_swap() || geteuid() == 0 ||
	    (getrlimit(RLIMIT_MEMLOCK, &limit) == 0 && limit.rlim_cur >= 1u << 20))
		doctor_note(d, DOCTOR_OK, "memory", NULL, "keys are not swapped out");
	else
		doctor_note(d, DOCTOR_WARN, "memory",
			    "ulimit -l, or LimitMEMLOCK= in the unit; or encrypt the swap space",
			    "only %llu bytes may be locked, and swap is in use: keys may get there",
			    (unsigned long long)limit.rlim_cur);
}

/* It is made, but nothing above it. */
static void check_place_of_run_dir(struct doctor *d)
{
	char *above = strdup(d->run_dir);

	if (!above) {
		d->is_short = true;
		return;
	}
	if (access(dirname(above), W_OK | X_OK) < 0)
		doctor_note(d, DOCTOR_FAIL, "run-dir",
			    "make the folder above it, be root, or choose another with --run-dir",
			    "%s cannot be made: %s", d->run_dir, strerror(errno));
	else
		doctor_note(d, DOCTOR_OK, "run-dir", NULL, "%s is made by the first volume",
			    d->run_dir);
	free(above);
}

static void check_run_dir(struct doctor *d)
{
	struct fault f = { 0 };

	if (!d->run_dir[0])
		return;
	if (access(d->run_dir, F_OK) < 0 && errno == ENOENT)
		check_place_of_run_dir(d);
	/* It is there, so nothing is made. */
	else if (state_make_run_dir(d->run_dir, &f) < 0)
		doctor_fault(d, "run-dir", &f);
	else if (access(d->run_dir, R_OK | W_OK | X_OK) < 0)
		doctor_note(d, DOCTOR_FAIL, "run-dir", "be root, or choose another with --run-dir",
			    "%s cannot be written: %s", d->run_dir, strerror(errno));
	else
		doctor_note(d, DOCTOR_OK, "run-dir", NULL, "%s", d->run_dir);
}

/* ---- the volumes that are there ---- */

/* A tenth of the writes, and enough of them to mean something. */
static bool is_misaligned(const struct stats_total *t)
{
	uint64_t others = 0;

	for (unsigned int i = 0; i < STATS_SIZES; i++)
		others += t->sizes[1][i];
	return t->requests >= 1000 && others * 10 > t->requests;
}

static void check_alignment(struct doctor *d, const struct volume_state *v, const char *spec)
{
	struct stats_sum sum;
	char path[4400];

	if (state_beside(d->run_dir, v->key, STATE_STATS, path, sizeof(path)) < 0 ||
	    stats_read_file(path, &sum) < 0 || !is_misaligned(&sum.op[WIRE_WRITE]))
		return;
	doctor_note(d, DOCTOR_WARN, "block-size",
		    "make its filesystem for blocks of the encryption's sector size, and map it "
		    "with --block-size of that; see rbdcrypt-nbd stats",
		    "%s: more than a tenth of its writes are no whole encryption sectors, and cost "
		    "a read each",
		    spec);
}

static void check_volume(struct doctor *d, const struct volume_state *v)
{
	char spec[1024];

	volume_state_spec(v, spec, sizeof(spec));
	if (!volume_is_alive(v) && v->device >= 0) {
		doctor_note(d, DOCTOR_WARN, "volumes",
			    "rbdcrypt-nbd attach --device, or rbdcrypt-nbd unmap",
			    "%s: /dev/nbd%d has no daemon any more", spec, v->device);
		return;
	}
	if (v->health[0])
		doctor_note(d, DOCTOR_FAIL, "volumes", "see rbdcrypt-nbd status", "%s: %s", spec,
			    v->health);
	if (volume_is_alive(v))
		check_alignment(d, v, spec);
}

static void check_volumes(struct doctor *d)
{
	struct fault f = { 0 };
	struct state_list l;
	unsigned int n = 0;

	if (!d->run_dir[0])
		return;
	if (state_list(d->run_dir, &l, &f) < 0) {
		doctor_fault(d, "volumes", &f);
		return;
	}
	if (l.n_damaged > 0)
		doctor_note(d, DOCTOR_WARN, "volumes", "remove the file once its volume is gone",
			    "%u state files cannot be read: %s", l.n_damaged, l.damaged);
	for (unsigned int i = 0; i < l.n; i++) {
		check_volume(d, &l.volumes[i]);
		n += volume_is_alive(&l.volumes[i]);
	}
	doctor_note(d, DOCTOR_OK, "volumes", NULL, "%u in use", n);
	state_list_done(&l);
}

void doctor_host(struct doctor *d)
{
	check_kernel(d);
	check_driver(d);
	check_memory(d);
	check_run_dir(d);
	check_volumes(d);
}
