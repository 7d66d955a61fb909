/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Copyright (C) 2026 the rbdcrypt-nbd authors */

/*
 * Passphrases that systemd passes as credentials, and the places where they are kept before that:
 * the service's own folder ($CREDENTIALS_DIRECTORY, decrypted by systemd), then, for commands that
 * are typed, the credential stores. An encrypted one from there is decrypted by systemd-creds,
 * which needs root. Facts: systemd.exec(5), systemd-creds(1). And what is looked for when no source
 * was given.
 */

#include "key_kind.h"

#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define SYSTEMD_CREDS "/usr/bin/systemd-creds"

static const char *const stores[] = { "/etc/credstore", "/run/credstore" };
#define N_STORES (sizeof(stores) / sizeof(stores[0]))

static bool is_name(const char *name)
{
	return name[0] && !strchr(name, '/') && strcmp(name, ".") != 0 && strcmp(name, "..") != 0;
}

static bool is_there(const char *path)
{
	return access(path, F_OK) == 0;
}

/* Its path, and whether it is encrypted. */
static int find(const char *root, const char *name, char path[PATH_MAX], bool *ret_encrypted)
{
	const char *dir = getenv("CREDENTIALS_DIRECTORY");

	*ret_encrypted = false;
	if (dir && dir[0] == '/') {
		(void)snprintf(path, PATH_MAX, "%s/%s", dir, name);
		if (is_there(path))
			return 0;
	}
	for (size_t i = 0; i < N_STORES * 2; i++) {
		*ret_encrypted = i % 2 == 1;
		(void)snprintf(path, PATH_MAX, "%s%s%s/%s", root, stores[i / 2],
			       *ret_encrypted ? ".encrypted" : "", name);
		if (is_there(path))
			return 0;
	}
	return -ENOENT;
}

static int decrypt(const struct key_request *q, const char *path, struct secret **ret,
		   struct fault *f)
{
	char name[NAME_MAX + 16], file[PATH_MAX], out[] = "-", verb[] = "decrypt",
						  program[] = SYSTEMD_CREDS;
	char *const argv[] = { program, name, verb, file, out, NULL };

	(void)snprintf(name, sizeof(name), "--name=%s", q->text);
	(void)snprintf(file, sizeof(file), "%s", path);
	return key_run(q, argv, ret, f);
}

int key_cred_read(const struct key_request *q, struct secret **ret, struct fault *f)
{
	struct key_request file = *q;
	char path[PATH_MAX];
	bool is_encrypted;

	if (!is_name(q->text) || strlen(q->text) > NAME_MAX) {
		(void)fault_set(f, EXIT_USAGE, -EINVAL, "%s: '%s' is no name of a credential",
				q->source, q->text);
		return -EINVAL;
	}
	if (find("", q->text, path, &is_encrypted) < 0) {
		(void)fault_set(f, EXIT_PASSPHRASE, -ENOENT, "there is no credential %s%s", q->text,
				getenv("CREDENTIALS_DIRECTORY")
					? ""
					: ", and systemd has passed us none at all");
		fault_hint(f,
			   "LoadCredential=%s:PATH or LoadCredentialEncrypted= in the unit, or a "
			   "file in /etc/credstore or /etc/credstore.encrypted",
			   q->text);
		return -ENOENT;
	}
	if (is_encrypted)
		return decrypt(q, path, ret, f);
	file.text = path;
	return key_file_read(&file, ret, f);
}

/* ---- where nobody told us to look ---- */

static int found(const char *prefix, const char *name, char **ret)
{
	return asprintf(ret, "%s%s", prefix, name) < 0 ? -ENOMEM : 0;
}

int key_default(const char *root, const struct key_place *place, char **ret)
{
	static const char *const folders[] = { "/etc/rbdcrypt-keys.d", "/run/rbdcrypt-keys.d" };
	char name[64], path[PATH_MAX], *tail;
	bool is_encrypted;
	int r;

	(void)snprintf(name, sizeof(name), "rbdcrypt.passphrase.%u", place->layer);
	if (find(root, name, path, &is_encrypted) == 0)
		return found("cred:", name, ret);
	(void)snprintf(name, sizeof(name), "rbdcrypt.passphrase");
	if (find(root, name, path, &is_encrypted) == 0)
		return found("cred:", name, ret);
	if (!place->pool[0])
		return -ENOENT;
	r = key_expand(place->nspace[0] ? "/%p/%n/%i.key" : "/%p/%i.key", place, &tail, NULL);
	/* A name that leads elsewhere has no file here. */
	if (r < 0)
		return r == -ENOMEM ? r : -ENOENT;
	for (size_t i = 0; i < sizeof(folders) / sizeof(folders[0]); i++) {
		(void)snprintf(path, sizeof(path), "%s%s%s", root, folders[i], tail);
		if (is_there(path)) {
			free(tail);
			return found("", path, ret);
		}
	}
	free(tail);
	return -ENOENT;
}
