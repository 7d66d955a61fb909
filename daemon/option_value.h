/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Copyright (C) 2026 the rbdcrypt-nbd authors */

#ifndef RBDCRYPT_OPTION_VALUE_H
#define RBDCRYPT_OPTION_VALUE_H

#include "option_table.h"

/*
 * Checks a value's text and stores it in the row's field of o. shown is how the user
 * wrote the option ("--io-timeout", "-p"), for the message; value is NULL where none was
 * given. Does not handle OPTION_KEYS and OPTION_COMMAND. -EINVAL (EXIT_USAGE), -ENOMEM.
 */
int option_store(struct options *o, const struct option_row *row, const char *shown,
		 const char *value, struct fault *f);

/* What holds when nothing is said. -ENOMEM. */
int option_store_defaults(struct options *o, struct fault *f);

/* Whether the type takes a value at all. */
bool option_takes_value(enum option_type type);

/* Frees the strings and lists of all rows. */
void option_values_done(struct options *o);

/* Appends a copy. -ENOMEM. */
int option_list_add(struct option_list *list, const char *word, struct fault *f);
void option_list_done(struct option_list *list);

#endif
