/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Copyright (C) 2026 the rbdcrypt-nbd authors */

#ifndef RBD_WORDS_H
#define RBD_WORDS_H

/*
 * The words of CEPH_ARGS. What must be known before a connection can be made is taken out
 * of them; the rest is an argv for Ceph's parser. Strings are owned by the struct.
 */
struct words {
	char *text;
	const char **v; /* v[0] is a placeholder, as argv[0] */
	int n;
	const char *conf, *cluster, *name; /* NULL: not given */
	char client[256];
};

/* text may be NULL. 0 or -ENOMEM. */
int words_parse(const char *text, struct words *ret);
void words_done(struct words *w);

/* What the last "--name VALUE", "--name=VALUE" or "-n VALUE" among v[0] to v[n - 1] says, or NULL.
 */
const char *words_value(int n, const char *const *v, const char *long_name, const char *short_name);

#endif
