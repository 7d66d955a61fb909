/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Copyright (C) 2026 the rbdcrypt-nbd authors */

#ifndef DAEMON_RECRYPT_H
#define DAEMON_RECRYPT_H

#include "store.h"

/*
 * A store's recrypt: a parent's bytes, decrypted with the keys of the layers that hold them and
 * encrypted with the child's. arg is the struct volume, which is encrypted. Any thread; large
 * pieces are shared with the workers.
 */
void volume_recrypt(void *arg, struct store_recrypt *r);

#endif
