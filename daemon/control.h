/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Copyright (C) 2026 the rbdcrypt-nbd authors */

#ifndef DAEMON_CONTROL_H
#define DAEMON_CONTROL_H

#include <json-c/json_object.h>
#include <stdbool.h>
#include <sys/types.h>

#include "fault.h"
#include "loop.h"

/*
 * The control socket: who may speak, and messages in varlink's form, each a JSON object with a zero
 * byte behind it. Control thread only; never blocks on a client.
 * What the messages mean is control_methods.c's.
 */
struct control;

/* A method call, from when it was read until it is answered or its client has gone. */
struct control_call;

#define CONTROL_NAME "control" /* in the run directory */
#define CONTROL_FDS_MAX 16 /* descriptors with one message */

struct control_options {
	struct loop *loop;
	const char *run_dir;
	int fd; /* a listening socket that was passed; -1: make one. Taken on success. */
	gid_t group; /* whose members may speak; (gid_t)-1: none but root and ourselves */
	/*
	 * One was read. control_reply() or control_refuse() must follow, now or later; what it says
	 * and what came with it is gone when this returns.
	 */
	void (*called)(void *arg, struct control_call *call);
	/* Its client has gone before it was answered: forget it. */
	void (*abandoned)(void *arg, struct control_call *call);
	void *arg; /* of both */
};

/* EXIT_BUSY when another daemon listens there. On failure nothing is left. */
int control_new(const struct control_options *o, struct control **ret, struct fault *f);
/* Its socket's file goes, unless it was passed. Calls under way are abandoned: nobody may answer
 * them any more. NULL is fine. Returns NULL. */
struct control *control_free(struct control *c);

/* "org.example.Interface.Method" */
const char *control_method(const struct control_call *call);
/* An object, perhaps empty; the call's. Only inside called(), as all that it says. */
struct json_object *control_parameters(const struct control_call *call);
/* Root, or who this daemon runs as: may do all that we can. */
bool control_is_trusted(const struct control_call *call);
/* The i-th descriptor that came with it, the caller's from now on; -EBADF. */
int control_take_fd(struct control_call *call, unsigned int i);

/* Answers; the call is over. parameters are taken; NULL (no memory) ends the connection. */
void control_reply(struct control_call *call, struct json_object *parameters);
/* The same with an error, by its qualified name. */
void control_refuse(struct control_call *call, const char *error, struct json_object *parameters);

#endif
