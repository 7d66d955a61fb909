/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Copyright (C) 2026 the rbdcrypt-nbd authors */

#ifndef DAEMON_CONTROL_CALLER_H
#define DAEMON_CONTROL_CALLER_H

#include <json-c/json_object.h>

#include "fault.h"

/*
 * A command's connection to the host's daemon, for one call after the other. Blocking; main thread.
 */
struct control_caller {
	const char *run_dir; /* outlives it */
	int fd;
	int pid; /* of who listened when it was made; 0: in another pid namespace */
	int absent_s; /* of caller_greet() */
};

/*
 * Connects to the daemon of run_dir, which may be too busy to notice. -ENOENT, and no fault: none
 * listens there.
 */
int caller_open(const char *run_dir, struct control_caller *ret, struct fault *f);
void caller_close(struct control_caller *c);

/*
 * Makes sure that somebody answers, before anything is asked for that would be done much later
 * otherwise. Where systemd holds the socket, a connection waits for a daemon that is to be started:
 * for absent_s seconds, then -ENOENT and no fault; 0: for as long as it takes. EXIT_TIMED_OUT: one
 * is there and hangs.
 */
int caller_greet(struct control_caller *c, int absent_s, struct fault *f);

/*
 * Calls a method of CONTROL_INTERFACE by its short name, and waits for as long as the daemon lives.
 * Takes parameters; NULL: no memory. *ret_answer is for caller_read(). EXIT_MEMORY;
 * EXIT_TIMED_OUT: it hangs, and may do later what it was asked; -errno and no fault: it went away.
 */
int caller_ask(struct control_caller *c, const char *method, struct json_object *parameters,
	       const int *fds, unsigned int n_fds, char **ret_answer, struct fault *f);
/*
 * Takes answer. *ret_reply, its parameters, is for json_object_put(). A daemon's fault comes as it
 * was.
 */
int caller_read(char *answer, struct json_object **ret_reply, struct fault *f);
/* Both, with a fault for all that can go wrong. */
int caller_call(struct control_caller *c, const char *method, struct json_object *parameters,
		const int *fds, unsigned int n_fds, struct json_object **ret_reply,
		struct fault *f);

#endif
