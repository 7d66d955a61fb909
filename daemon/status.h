/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Copyright (C) 2026 the rbdcrypt-nbd authors */

#ifndef RBDCRYPT_STATUS_H
#define RBDCRYPT_STATUS_H

#include <stdio.h>

#include "state.h"

/* One volume for people: everything that is known of it, one fact per line. Main thread. */
void status_print_tree(FILE *out, const struct volume_state *v);

#endif
