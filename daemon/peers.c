/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Copyright (C) 2026 the rbdcrypt-nbd authors */

/*
 * Hides the kernel's word on who connected (SO_PEERCRED, SO_PEERGROUPS) and the system's users and
 * groups. The mode of a socket's file can name one owner and one group, and needs the right to give
 * files away, which a hardened service has not; a list of numbers that is compared with what the
 * kernel says needs neither. Called by those who accept: the control socket and the volumes that
 * are served, each on its own thread.
 */

#include "peers.h"

#include <errno.h>
#include <grp.h>
#include <pwd.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "options.h"

/*
 * What the kernel shows for every user and group without a number in this user namespace: see
 * user_namespaces(7). Who lets it in lets in whom he does not know.
 */
#define OVERFLOW_ID 65534u
/* An entry of a group lists all members. */
#define ENTRY_MAX (4u << 20)
#define GROUPS_MAX 65536 /* NGROUPS_MAX of the kernel */

struct peers {
	uid_t *users;
	gid_t *groups;
	unsigned int n_users, n_groups;
};

/* ---- names ---- */

/* found: whether the entry is there; errors of getpwnam_r() and getgrnam_r() as they are. */
static int look_up_user(const char *name, char *buf, size_t len, uint32_t *ret, bool *found)
{
	struct passwd entry, *p = NULL;
	int r = getpwnam_r(name, &entry, buf, len, &p);

	*found = p != NULL;
	if (p)
		*ret = p->pw_uid;
	return r;
}

static int look_up_group(const char *name, char *buf, size_t len, uint32_t *ret, bool *found)
{
	struct group entry, *g = NULL;
	int r = getgrnam_r(name, &entry, buf, len, &g);

	*found = g != NULL;
	if (g)
		*ret = g->gr_gid;
	return r;
}

/* -ENOENT: nobody has that name; another -errno: it cannot be known now. */
static int look_up(const char *name, bool is_group, uint32_t *ret)
{
	int r = ERANGE;

	for (size_t len = 4096; r == ERANGE && len <= ENTRY_MAX; len *= 4) {
		char *buf = malloc(len);
		bool found = false;

		if (!buf)
			return -ENOMEM;
		r = is_group ? look_up_group(name, buf, len, ret, &found)
			     : look_up_user(name, buf, len, ret, &found);
		free(buf);
		if (found)
			return 0;
	}
	/* Both mean that there is no such entry; which, depends on where names come from. */
	return r == 0 || r == ESRCH ? -ENOENT : -r;
}

static bool is_number(const char *name)
{
	return name[0] && name[strspn(name, "0123456789")] == '\0';
}

static int to_number(const char *name, uint32_t *ret)
{
	unsigned long long n;

	if (strlen(name) > 10)
		return -ERANGE;
	n = strtoull(name, NULL, 10);
	/* The last one means "none" to the kernel. */
	if (n >= UINT32_MAX)
		return -ERANGE;
	*ret = (uint32_t)n;
	return 0;
}

static int find(const char *option, const char *name, bool is_group, uint32_t *ret, struct fault *f)
{
	const char *kind = is_group ? "group" : "user";
	uint32_t id = 0;
	int r = is_number(name) ? to_number(name, &id) : look_up(name, is_group, &id);

	if (r == -ERANGE)
		return fault_set(f, EXIT_USAGE, -EINVAL, "%s: %s is no number of a %s", option,
				 name, kind);
	if (r == -ENOENT) {
		(void)fault_set(f, EXIT_USAGE, r, "%s: there is no %s '%s'", option, kind, name);
		if (is_group)
			fault_hint(f, "groupadd --system %s", name);
		else
			fault_hint(f, "getent passwd lists the users; a number will do too");
		return r;
	}
	if (r < 0)
		return fault_set(f, EXIT_USAGE, r, "%s: %s '%s' cannot be looked up: %s", option,
				 kind, name, strerror(-r));
	if (id == OVERFLOW_ID)
		return fault_set(f, EXIT_USAGE, -EINVAL,
				 "%s: %s '%s' stands for everybody whom this machine does not know",
				 option, kind, name);
	*ret = id;
	return 0;
}

int peers_find_user(const char *option, const char *name, uid_t *ret, struct fault *f)
{
	return find(option, name, false, ret, f);
}

int peers_find_group(const char *option, const char *name, gid_t *ret, struct fault *f)
{
	return find(option, name, true, ret, f);
}

/* ---- who is there ---- */

int peers_credentials(int fd, struct ucred *ret)
{
	struct ucred peer;
	socklen_t len = sizeof(peer);

	if (getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &peer, &len) < 0)
		return -errno;
	*ret = peer;
	return 0;
}

bool peers_is_trusted(const struct ucred *peer)
{
	return peer->uid == 0 || peer->uid == geteuid();
}

bool peers_is_in_group(int fd, const struct ucred *peer, gid_t group)
{
	socklen_t len = GROUPS_MAX * sizeof(gid_t);
	bool found = false;
	gid_t *groups;

	if (group == (gid_t)-1 || peer->gid == group)
		return group != (gid_t)-1;
	groups = malloc(len);
	if (groups && getsockopt(fd, SOL_SOCKET, SO_PEERGROUPS, groups, &len) == 0)
		for (size_t i = 0; !found && i < len / sizeof(groups[0]); i++)
			found = groups[i] == group;
	free(groups);
	return found;
}

/* ---- the list ---- */

static int no_memory(struct fault *f)
{
	return fault_set(f, EXIT_MEMORY, -ENOMEM, "no memory for the list of clients");
}

int peers_new(const struct option_list *users, const struct option_list *groups, struct peers **ret,
	      struct fault *f)
{
	struct peers *p;
	int r = 0;

	if (users->n == 0 && groups->n == 0) {
		*ret = NULL;
		return 0;
	}
	p = calloc(1, sizeof(*p));
	if (!p)
		return no_memory(f);
	p->users = calloc(users->n + 1, sizeof(*p->users));
	p->groups = calloc(groups->n + 1, sizeof(*p->groups));
	if (!p->users || !p->groups)
		r = no_memory(f);
	for (unsigned int i = 0; r == 0 && i < users->n; i++)
		r = peers_find_user("--allow-user", users->items[i], &p->users[p->n_users++], f);
	for (unsigned int i = 0; r == 0 && i < groups->n; i++)
		r = peers_find_group("--allow-group", groups->items[i], &p->groups[p->n_groups++],
				     f);
	if (r < 0) {
		(void)peers_free(p);
		return r;
	}
	*ret = p;
	return 0;
}

struct peers *peers_free(struct peers *p)
{
	if (!p)
		return NULL;
	free(p->users);
	free(p->groups);
	free(p);
	return NULL;
}

bool peers_allow(const struct peers *p, int fd, const struct ucred *peer)
{
	bool yes = peers_is_trusted(peer);

	for (unsigned int i = 0; !yes && i < p->n_users; i++)
		yes = p->users[i] == peer->uid;
	for (unsigned int i = 0; !yes && i < p->n_groups; i++)
		yes = peers_is_in_group(fd, peer, p->groups[i]);
	return yes;
}
