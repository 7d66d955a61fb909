/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Copyright (C) 2026 the rbdcrypt-nbd authors */

#ifndef DAEMON_UTF8_H
#define DAEMON_UTF8_H

#include <stdbool.h>
#include <stdint.h>

/* Names of images and files are bytes, which JSON, XML and unit files cannot hold. Any thread. */

/* How many bytes the character at p has, and which it is; 0: none that UTF-8 (RFC 3629) has. */
unsigned int utf8_character(const char *p, uint32_t *ret);

bool utf8_is_valid(const char *text);

/* A question mark for each byte that belongs to no character. */
void utf8_clean(char *text);

#endif
