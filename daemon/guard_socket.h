/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Copyright (C) 2026 the rbdcrypt-nbd authors */

#ifndef DAEMON_GUARD_SOCKET_H
#define DAEMON_GUARD_SOCKET_H

#include <stdbool.h>

#include "fault.h"
#include "loop.h"
#include "state.h"

/*
 * Where commands ask a volume's guard for a check or a look: a socket beside its state file, for
 * its own user and root. It is there without the host's daemon, too.
 */
struct guard_socket;

enum guard_ask {
	GUARD_CHECK, /* could it be opened again? */
	GUARD_ACCEPT, /* the same, and a changed header is the one to expect */
	GUARD_LOOK, /* is its state file as things are now? */
};

struct guard_socket_options {
	struct loop *loop;
	const char *run_dir, *key; /* of the volume; outlive the socket */
	/*
	 * Somebody asks; guard_socket_answer(), or guard_socket_looked() after GUARD_LOOK, must
	 * follow, from here or later.
	 */
	void (*asked)(void *arg, enum guard_ask what);
	void *arg;
};

/* The volume's thread, as all below. 0 or -errno. */
int guard_socket_new(const struct guard_socket_options *o, struct guard_socket **ret);
/* Answers all who wait for a check: f->error 0 when all is well. */
void guard_socket_answer(struct guard_socket *s, const struct fault *f);
/* Answers all who wait for a look. */
void guard_socket_looked(struct guard_socket *s);
/* Who waits is cut off. The file goes. NULL is fine. Returns NULL. */
struct guard_socket *guard_socket_free(struct guard_socket *s);

/*
 * The commands' end: has the keys of v checked by its daemon and waits for the result, seconds. 0
 * at once when nothing of it is encrypted or its daemon is gone. EXIT_SAFEGUARD when a layer might
 * not open again, or when that cannot be found out; EXIT_PASSPHRASE when this user may not ask;
 * EXIT_TIMED_OUT (-ETIMEDOUT) when its daemon hangs.
 */
int guard_ask(const char *run_dir, const struct volume_state *v, bool is_accepting,
	      struct fault *f);

/*
 * Has the daemons of v[0] to v[n - 1] look at what only the cluster knows, all at the same time,
 * and waits for at most timeout_ms. ret[i]: 0 when the state file of v[i] is of this moment, or
 * when nobody is there who could look; -ETIMEDOUT; or why it cannot be asked. 0 or -ENOMEM.
 */
int guard_look(const char *run_dir, const struct volume_state *v, unsigned int n,
	       unsigned int timeout_ms, int *ret);

#endif
