/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Copyright (C) 2026 the rbdcrypt-nbd authors */

/* From the command line to how a chain is opened. Pure; what it refers to are the options' strings.
 */

#include "chain.h"

static void set_limits(struct luks_limits *l, const struct options *o)
{
	luks_limits_default(l);
	l->pbkdf2_iterations = o->pbkdf2_iterations_max;
	l->argon2_time = o->argon2_time_max;
	l->argon2_memory_kib = (uint32_t)(o->argon2_memory_max >> 10);
	l->argon2_lanes = o->argon2_lanes_max;
	l->unlock_timeout_s = (unsigned int)o->unlock_timeout_s;
}

void chain_options_set(const struct options *o, struct chain_options *ret)
{
	ret->passphrase_files = &o->passphrase_files;
	ret->passphrase_fds = o->key_fds;
	ret->formats = &o->formats;
	ret->newline = o->newline;
	ret->is_strict = o->is_encryption_strict;
	ret->engine = o->crypto_engine;
	ret->timeout_s = (unsigned int)o->open_timeout_s;
	ret->store = o->store;
	ret->is_without_lock = o->is_without_lock;
	ret->keys.is_insecure_allowed = o->is_insecure_allowed;
	ret->keys.timeout_s = (unsigned int)o->key_timeout_s;
	ret->keyfile_offsets = &o->keyfile_offsets;
	ret->keyfile_sizes = &o->keyfile_sizes;
	ret->tries = o->tries;
	set_limits(&ret->limits, o);
}

void chain_options_interrupt(struct chain_options *c, const struct interrupt *i)
{
	c->interrupt = c->keys.interrupt = c->limits.interrupt = i;
}
