/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Copyright (C) 2026 the rbdcrypt-nbd authors */

#ifndef DAEMON_CEPH_PATHS_H
#define DAEMON_CEPH_PATHS_H

#include "options.h"

/*
 * Makes the files that Ceph is told of, in the words that are kept for it, in CEPH_ARGS and
 * CEPH_KEYRING, mean the same from every folder and in every environment. Main thread. 0, or
 * EXIT_USAGE or EXIT_MEMORY.
 */
int ceph_paths_settle(struct options *o, struct fault *f);

#endif
