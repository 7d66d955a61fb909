/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Copyright (C) 2026 the rbdcrypt-nbd authors */

#ifndef DAEMON_PEERS_H
#define DAEMON_PEERS_H

#include <stdbool.h>
#include <sys/socket.h>
#include <sys/types.h>

#include "fault.h"

struct option_list;

/*
 * Who is at the other end of a unix socket, as the kernel tells it, and a list of those who may be
 * there. Any thread.
 */

/*
 * The number of a user or group, given by name or, in digits only, by number; option is how the
 * user said it, for the message. May ask the network, where names come from there. The number that
 * stands for those whom this machine does not know, 65534, is refused. EXIT_USAGE.
 */
int peers_find_user(const char *option, const char *name, uid_t *ret, struct fault *f);
int peers_find_group(const char *option, const char *name, gid_t *ret, struct fault *f);

/* The other end of a connected unix socket, as it was when it connected. 0 or -errno. */
int peers_credentials(int fd, struct ucred *ret);

/* Root, and the user that we run as: what they may do to us anyway, a list does not keep from. */
bool peers_is_trusted(const struct ucred *peer);

/* Whether it is the peer's own group, or one of its others. fd: the connection. */
bool peers_is_in_group(int fd, const struct ucred *peer, gid_t group);

struct peers;

/*
 * The list of these users and groups, as peers_find_*() find them now. *ret is NULL when both are
 * empty: then there is no list. -EINVAL, -ENOENT (EXIT_USAGE), -ENOMEM.
 */
int peers_new(const struct option_list *users, const struct option_list *groups, struct peers **ret,
	      struct fault *f);
/* NULL is fine. Returns NULL. */
struct peers *peers_free(struct peers *p);

/* Whether the peer is trusted or on the list. */
bool peers_allow(const struct peers *p, int fd, const struct ucred *peer);

#endif
