/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Copyright (C) 2026 the rbdcrypt-nbd authors */

#ifndef DAEMON_PATH_H
#define DAEMON_PATH_H

#include "fault.h"

/*
 * Makes *path (from the heap, or NULL) mean the same from every folder, links left as they are. 0,
 * or -errno with *path as it was.
 */
int path_make_absolute(char **path);

/* What came of path_make_absolute(), or of what is made of it, told as EXIT_USAGE where it is
 * -errno. 0, or that. */
int path_fault(int error, struct fault *f);

#endif
