/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Copyright (C) 2026 the rbdcrypt-nbd authors */

/* From the command line to the command, and from a fault to what the user sees and the exit status.
 */

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "control_client.h"
#include "dry_run.h"
#include "check_keys.h"
#include "doctor.h"
#include "fault.h"
#include "image.h"
#include "list.h"
#include "lookup.h"
#include "luks.h"
#include "nbdctl.h"
#include "options.h"
#include "output.h"
#include "run.h"
#include "service.h"
#include "state.h"
#include "stats_command.h"
#include "status_command.h"
#include "unmap.h"
#include "unmap_child.h"

static int list_run(const struct options *o, struct fault *f)
{
	struct list_options how = { .format = o->format,
				    .is_pretty = o->is_pretty,
				    .is_all = o->is_all };
	struct lookup l;
	int r = lookup_open(o, &l, f);

	if (r < 0)
		return r;
	list_drop_stale(&l.list, nbd_sysfs_read);
	if (l.list.n_damaged > 0)
		(void)fprintf(stderr, "rbdcrypt-nbd: %u state file%s cannot be read: %s\n",
			      l.list.n_damaged, l.list.n_damaged == 1 ? "" : "s", l.list.damaged);
	r = output_finish(list_print(stdout, &l.list, &how), f);
	lookup_done(&l);
	return r;
}

/* By the host's daemon if there is one, else by one for this volume alone. */
static int start_volume(struct options *o, enum mapping_kind kind, struct fault *f)
{
	char run_dir[4096];
	int r = state_run_dir(o->run_dir, run_dir, sizeof(run_dir), f);

	if (r == 0)
		r = client_start(o, run_dir, f);
	return r == -ENOENT && f->error == 0 ? run_volume(o, kind, f) : r;
}

static int dispatch(struct options *o, struct fault *f)
{
	if (o->is_dry_run)
		return dry_run(o, f);
	switch (o->command) {
	case COMMAND_MAP:
		return start_volume(o, MAPPING_MAP, f);
	case COMMAND_ATTACH:
		return start_volume(o, MAPPING_ATTACH, f);
	case COMMAND_STATS:
		return stats_run(o, f);
	case COMMAND_CHECK_KEYS:
		return check_keys_run(o, f);
	case COMMAND_DOCTOR:
		return doctor_run(o, f);
	case COMMAND_SERVE:
		return start_volume(o, MAPPING_SERVE, f);
	case COMMAND_DAEMON:
		return service_run(o, f);
	case COMMAND_UNMAP:
		return unmap_run(o, f);
	case COMMAND_DETACH:
		return detach_run(o, f);
	case COMMAND_LIST:
		return list_run(o, f);
	case COMMAND_STATUS:
		return status_run(o, f);
	case COMMAND_HELP:
		options_help(stdout, o->help_topic);
		return output_finish(0, f);
	case COMMAND_VERSION:
		(void)printf("rbdcrypt-nbd %s\n", VERSION);
		return output_finish(0, f);
	case COMMAND_DUMP_OPTIONS:
		options_dump_mdoc(stdout);
		return output_finish(0, f);
	case COMMAND_DUMP_COMPLETION:
		options_dump_completion(stdout);
		return output_finish(0, f);
	case COMMAND_NONE:
		break;
	}
	return fault_set(f, EXIT_USAGE, -EINVAL, "no command");
}

/* What Ceph has no use for is not kept for it: two volumes of one cluster differ in nothing else.
 */
static void drop_words(struct options *o, int n, const char *const *words)
{
	int kept = 1;

	for (int i = 1, w = 1; i < o->ceph_argc; i++) {
		if (w < n && words[w] == o->ceph_argv[i])
			w++;
		else
			o->ceph_argv[kept++] = o->ceph_argv[i];
	}
	o->ceph_argc = kept;
}

/* The words that are neither our options nor Ceph's: the command and its operand. */
static int settle_command(struct options *o, struct fault *f)
{
	int n = o->ceph_argc, r = 0;
	const char **words = calloc((size_t)n + 1, sizeof(*words));

	if (!words)
		return fault_set(f, EXIT_MEMORY, -ENOMEM, "no memory for the command line");
	/* A copy: Ceph reads its own again when it is connected. */
	memcpy(words, o->ceph_argv, (size_t)n * sizeof(*words));
	if (options_has_foreign(o))
		r = cluster_strip_words(n, words, &n, f);
	if (r == 0)
		r = options_positionals(o, n, words, f);
	drop_words(o, n, words);
	free(words);
	return r;
}

/*
 * What whoever started us may have left in a state that we do not expect: children of ours would
 * vanish with their status, and a descriptor of ours would get the number of a standard one, which
 * is exchanged later.
 */
static void settle_process(void)
{
	(void)signal(SIGCHLD, SIG_DFL);
	for (int fd = STDIN_FILENO; fd <= STDERR_FILENO; fd++) {
		/* The lowest free number is this one. The wrong way round: using it stays an error.
		 */
		if (fcntl(fd, F_GETFD) < 0 &&
		    open("/dev/null", fd == STDIN_FILENO ? O_WRONLY : O_RDONLY) < 0)
			return;
	}
}

int main(int argc, char **argv)
{
	struct options o;
	struct fault f = { 0 };
	int r;

	/* First of all: we may have been started only to unlock a header, or to unmap. */
	luks_unlock_child_main(argc, argv);
	unmap_child_main(argc, argv);
	settle_process();
	memset(&o, 0, sizeof(o));
	r = options_parse(argc, argv, &o, &f);
	if (r == 0 && o.command == COMMAND_NONE)
		r = settle_command(&o, &f);
	if (r == 0)
		r = dispatch(&o, &f);
	options_done(&o);
	if (r == 0)
		return EXIT_OK;
	fault_print(stderr, &f);
	/* Whatever it was, it was no success. */
	return f.status != EXIT_OK ? f.status : EXIT_USAGE;
}
