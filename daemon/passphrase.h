/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Copyright (C) 2026 the rbdcrypt-nbd authors */

#ifndef DAEMON_PASSPHRASE_H
#define DAEMON_PASSPHRASE_H

#include <stdbool.h>

#include "fault.h"
#include "secret.h"

/*
 * The whole file, byte for byte, as rbd of Reef and cryptsetup --key-file read it; "-" is standard
 * input. At most 8 MiB. Every failure is EXIT_PASSPHRASE and names the file.
 */
int passphrase_read(const char *path, struct secret **ret, struct fault *f);

/* Whether it ends in a newline that an older rbd would not have counted. */
bool passphrase_has_newline(const struct secret *s);

#endif
