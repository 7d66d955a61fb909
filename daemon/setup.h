/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Copyright (C) 2026 the rbdcrypt-nbd authors */

#ifndef DAEMON_SETUP_H
#define DAEMON_SETUP_H

#include "chain.h"
#include "clusters.h"
#include "options.h"
#include "peers.h"
#include "unix_socket.h"

/*
 * From the command line to what a volume is opened with. The volume's thread.
 */

/*
 * The connection that the user asks for, to be given back with clusters_put() whatever is
 * returned; NULL for a file, or when there is none. The pool is filled in where the user named
 * none. Blocking, as clusters_get(). 0 or -errno with the fault filled.
 */
int setup_cluster(struct options *o, struct clusters *clusters, const struct interrupt *i,
		  struct cluster **ret, struct fault *f);

/* The sources of passphrases: those that the user gave, or the default one. */
struct setup_sources {
	struct option_list list; /* its words are the options' or the next */
	char *default_sources[1], default_source[16];
	bool is_told; /* the user said something, "none" included */
};

/*
 * Everything points into o, spec, turnstile (the file that unlocks take turns on, or NULL) and
 * sources, which outlive ret and do not move.
 */
void setup_chain(const struct options *o, struct cluster *c, const struct image_spec *spec,
		 const char *turnstile, struct setup_sources *sources, struct chain_options *ret);

/*
 * As chain_open(). An image with a header and nothing said about its passphrase: there may be one
 * where they are kept. Without one it is opened to be served as it is, as rbd-nbd would.
 */
int setup_open(struct setup_sources *sources, const struct chain_options *o, struct chain *ret,
	       struct fault *f);

/*
 * Who may connect (NULL: no list; the caller's, whatever is returned), and what the socket's file
 * says, by the names that the user gave. 0 or -errno with the fault filled.
 */
int setup_access(const struct options *o, struct peers **ret_peers,
		 struct unix_socket_access *ret_access, struct fault *f);

#endif
