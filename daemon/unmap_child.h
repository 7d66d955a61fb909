/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Copyright (C) 2026 the rbdcrypt-nbd authors */

#ifndef DAEMON_UNMAP_CHILD_H
#define DAEMON_UNMAP_CHILD_H

#include <stdbool.h>

#include "fault.h"
#include "loop.h"

/*
 * The unmap command as a process of its own, for a daemon. Control thread only.
 */
struct unmap_child;

struct unmap_child_options {
	struct loop *loop;
	const char *run_dir, *name; /* both only until unmap_child_new() returns */
	bool is_forced;
	bool is_check; /* only whether its keys are safe */
	int timeout_s; /* -1: the command's default */
	/* It has ended; f is NULL when it did what it should. unmap_child_free() may follow. */
	void (*done)(void *arg, const struct fault *f);
	void *arg;
};

int unmap_child_new(const struct unmap_child_options *o, struct unmap_child **ret, struct fault *f);
/*
 * One that still unmaps goes on without us, which is for the end of the daemon alone: nobody waits
 * for it. NULL is fine. Returns NULL.
 */
struct unmap_child *unmap_child_free(struct unmap_child *c);

/* First in main(): becomes that process and does not return, if that is what we were started for.
 */
void unmap_child_main(int argc, char **argv);

#endif
