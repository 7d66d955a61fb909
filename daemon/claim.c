/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Copyright (C) 2026 the rbdcrypt-nbd authors */

/*
 * A device belongs to its image until it is unmapped, also while no daemon serves it. Giving it
 * another image would put one filesystem's blocks into another, so every doubt is a refusal.
 */

#include "claim.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "nbdctl.h"
#include "text.h"
#include "unfenced.h"

/* Of a path that is too long, as much as fits, and what tells it from others that begin so. */
static void identify_file(const char *path, char *buf, size_t len)
{
	char rest[18];
	int n = snprintf(buf, len, "file:%s", path);

	if (n >= 0 && (size_t)n < len)
		return;
	(void)snprintf(rest, sizeof(rest), "~%016llx", (unsigned long long)text_hash(path));
	memcpy(buf + len - sizeof(rest), rest, sizeof(rest));
}

void claim_identity(const struct volume_state *s, char *buf, size_t len)
{
	if (s->file[0])
		identify_file(s->file, buf, len);
	else if (s->snap_id == UINT64_MAX)
		(void)snprintf(buf, len, "%s/%lld/%s", s->fsid, (long long)s->pool_id, s->image_id);
	else
		(void)snprintf(buf, len, "%s/%lld/%s@%llu", s->fsid, (long long)s->pool_id,
			       s->image_id, (unsigned long long)s->snap_id);
}

static int check_leftover(const struct volume_state *old, const char *spec, struct fault *f)
{
	struct nbd_sysfs kernel;

	if (old->device < 0 || nbd_sysfs_read(old->device, &kernel) < 0 || !kernel.is_connected ||
	    (kernel.cookie[0] && strcmp(kernel.cookie, old->cookie) != 0))
		return 0;
	(void)fault_set(f, EXIT_BUSY, -EBUSY,
			"%s is still mapped to /dev/nbd%d, whose daemon is gone", spec,
			old->device);
	fault_hint(f,
		   "rbdcrypt-nbd attach --device /dev/nbd%d %s, or rbdcrypt-nbd unmap /dev/nbd%d",
		   old->device, spec, old->device);
	return -EBUSY;
}

/* Another writer of the same image. One that lives and has our name, the claim itself meets. */
static int check_writer(const struct volume_state *other, const char *id, const char *spec,
			struct fault *f)
{
	if (!volume_is_alive(other))
		return check_leftover(other, spec, f);
	if (strcmp(other->key, id) == 0)
		return 0;
	return fault_set(f, EXIT_BUSY, -EBUSY, "%s: mapped by process %d already, with --new", spec,
			 other->pid);
}

int claim_check_start(const char *run_dir, const struct volume_state *mine, const char *spec,
		      struct fault *f)
{
	struct state_list l;
	char id[CLAIM_IDENTITY_LEN], other_id[CLAIM_IDENTITY_LEN];
	int r;

	if (mine->is_read_only)
		return 0;
	r = state_list(run_dir, &l, f);
	if (r < 0)
		return r;
	claim_identity(mine, id, sizeof(id));
	for (unsigned int i = 0; r == 0 && i < l.n; i++) {
		if (l.volumes[i].is_read_only)
			continue;
		claim_identity(&l.volumes[i], other_id, sizeof(other_id));
		if (strcmp(other_id, id) == 0)
			r = check_writer(&l.volumes[i], id, spec, f);
	}
	state_list_done(&l);
	return r;
}

static int refuse_image(struct fault *f)
{
	fault_hint(f, "attach the image that was mapped, with the cookie it was mapped with");
	return -EINVAL;
}

static bool has_same_header(const struct volume_state *a, const struct volume_state *b)
{
	return a->n_layers == 0 || b->n_layers == 0 ||
	       (strcmp(a->layers[0].format, b->layers[0].format) == 0 &&
		strcmp(a->layers[0].uuid, b->layers[0].uuid) == 0 &&
		a->data_offset == b->data_offset);
}

static int check_kernel(const struct volume_state *mine, const char *spec, struct nbd_sysfs *ret,
			struct fault *f)
{
	int index = mine->device, r = nbd_sysfs_read(index, ret);

	if (r < 0 || !ret->is_connected) {
		(void)fault_set(f, EXIT_NOT_FOUND, -ENODEV, "/dev/nbd%d is not mapped", index);
		fault_hint(f, "rbdcrypt-nbd map %s", spec);
		return -ENODEV;
	}
	if (ret->cookie[0] && strcmp(ret->cookie, mine->cookie) != 0) {
		(void)fault_set(f, EXIT_NOT_FOUND, -EINVAL,
				"/dev/nbd%d was mapped with cookie '%s', not '%s'", index,
				ret->cookie, mine->cookie);
		return refuse_image(f);
	}
	if (mine->is_read_only && !ret->is_read_only) {
		(void)fault_set(f, EXIT_USAGE, -EINVAL, "/dev/nbd%d was mapped writable", index);
		fault_hint(f, "the kernel cannot change that; attach it without --read-only");
		return -EINVAL;
	}
	if (mine->block_size > 0 && mine->block_size != ret->logical_block) {
		(void)fault_set(f, EXIT_USAGE, -EINVAL, "/dev/nbd%d has blocks of %u bytes, not %u",
				index, ret->logical_block, mine->block_size);
		fault_hint(f, "its filesystem counts on them; attach it without --block-size");
		return -EINVAL;
	}
	return 0;
}

/* What the run directory says of the device's last owner, who is gone. */
static int check_last_owner(const struct volume_state *old, const struct nbd_sysfs *kernel,
			    struct volume_state *mine, struct fault *f)
{
	char old_id[CLAIM_IDENTITY_LEN], id[CLAIM_IDENTITY_LEN];

	/* The device was somebody else's since. */
	if (kernel->cookie[0] && strcmp(kernel->cookie, old->cookie) != 0)
		return 0;
	claim_identity(old, old_id, sizeof(old_id));
	claim_identity(mine, id, sizeof(id));
	if (strcmp(old_id, id) != 0) {
		(void)fault_set(f, EXIT_NOT_FOUND, -EINVAL,
				"/dev/nbd%d was mapped from another image: %s, not %s", old->device,
				old_id, id);
		return refuse_image(f);
	}
	/* The kernel would go on with other bytes: raw ones, or those of another key. */
	if (!has_same_header(old, mine)) {
		(void)fault_set(f, EXIT_SAFEGUARD, -EINVAL,
				"/dev/nbd%d was mapped with encryption %s, not %s, or with another "
				"header",
				old->device, old->layers[0].format, mine->layers[0].format);
		fault_hint(f, "attach it with the same passphrase sources, or without as it was");
		return -EINVAL;
	}
	if (old->connections > 0)
		mine->connections = old->connections;
	mine->named = old->named;
	if (old->status == VOLUME_DETACHED && old->io_timeout_s == mine->io_timeout_s &&
	    old->reattach_timeout_s == mine->reattach_timeout_s)
		text_copy(mine->handed_over, sizeof(mine->handed_over), old->handed_over);
	return 0;
}

int claim_check_attach(const char *run_dir, struct volume_state *mine, const char *spec,
		       struct fault *f)
{
	struct nbd_sysfs kernel;
	struct state_list l;
	int r;

	if (mine->device < 0) {
		(void)fault_set(f, EXIT_USAGE, -EINVAL, "attach needs --device");
		fault_hint(f, "the device that %s was mapped to, for example --device /dev/nbd0",
			   spec);
		return -EINVAL;
	}
	r = state_list(run_dir, &l, f);
	if (r < 0)
		return r;
	for (unsigned int i = 0; r == 0 && i < l.n; i++)
		if (l.volumes[i].device == mine->device && volume_is_alive(&l.volumes[i]))
			r = fault_set(f, EXIT_BUSY, -EBUSY,
				      "/dev/nbd%d is served by process %d already", mine->device,
				      l.volumes[i].pid);
	if (r == 0)
		r = check_kernel(mine, spec, &kernel, f);
	for (unsigned int i = 0; r == 0 && i < l.n; i++)
		if (l.volumes[i].device == mine->device)
			r = check_last_owner(&l.volumes[i], &kernel, mine, f);
	state_list_done(&l);
	if (r == 0)
		mine->block_size = kernel.logical_block;
	return r;
}

static int refuse_socket(struct fault *f)
{
	fault_hint(f, "its clients would go on with other bytes than they know: unmap it, and "
		      "serve it again");
	return -EINVAL;
}

static int check_last_socket(const struct volume_state *old, const struct volume_state *mine,
			     struct fault *f)
{
	char old_id[CLAIM_IDENTITY_LEN], id[CLAIM_IDENTITY_LEN];

	claim_identity(old, old_id, sizeof(old_id));
	claim_identity(mine, id, sizeof(id));
	if (strcmp(old_id, id) != 0) {
		(void)fault_set(f, EXIT_NOT_FOUND, -EINVAL, "%s served another image: %s, not %s",
				old->socket, old_id, id);
		return refuse_socket(f);
	}
	if (!has_same_header(old, mine)) {
		(void)fault_set(f, EXIT_SAFEGUARD, -EINVAL,
				"%s served encryption %s, not %s, or had another header",
				old->socket, old->layers[0].format, mine->layers[0].format);
		return refuse_socket(f);
	}
	return 0;
}

int claim_check_socket(const char *run_dir, const struct volume_state *mine, struct fault *f)
{
	const struct volume_state *old;
	struct state_list l;
	int r = state_list(run_dir, &l, f);

	if (r < 0)
		return r;
	old = state_list_key(&l, mine->key);
	r = old ? check_last_socket(old, mine, f) : 0;
	state_list_done(&l);
	return r;
}

bool claim_image_left(const char *run_dir, const char *key, struct layer_info *ret)
{
	const struct volume_state *v;
	struct state_list l;

	if (state_list(run_dir, &l, NULL) < 0)
		return false;
	v = state_list_key(&l, key);
	/* A snapshot by its name alone is found by that. */
	if (v && (!v->image_id[0] || (v->snap[0] && v->snap_id == UINT64_MAX)))
		v = NULL;
	if (v) {
		memset(ret, 0, sizeof(*ret));
		volume_state_spec(v, ret->spec, sizeof(ret->spec));
		text_copy(ret->pool, sizeof(ret->pool), v->pool);
		text_copy(ret->nspace, sizeof(ret->nspace), v->nspace);
		text_copy(ret->image, sizeof(ret->image), v->image);
		text_copy(ret->snap, sizeof(ret->snap), v->snap);
		text_copy(ret->image_id, sizeof(ret->image_id), v->image_id);
		ret->pool_id = v->pool_id;
		ret->snap_id = v->snap_id;
	}
	state_list_done(&l);
	return v != NULL;
}

bool claim_is_left(const char *run_dir, const char *key)
{
	struct state_list l;
	bool is_left;

	if (state_list(run_dir, &l, NULL) < 0)
		return false;
	is_left = state_list_key(&l, key);
	state_list_done(&l);
	return is_left;
}

void claim_who_has(const char *run_dir, int index, char *buf, size_t len)
{
	char spec[1024];
	struct state_list l;

	buf[0] = '\0';
	if (state_list(run_dir, &l, NULL) < 0)
		return;
	for (unsigned int i = 0; !buf[0] && i < l.n; i++) {
		if (l.volumes[i].device != index)
			continue;
		volume_state_spec(&l.volumes[i], spec, sizeof(spec));
		(void)snprintf(buf, len, "%s is mapped to it", spec);
	}
	state_list_done(&l);
	if (!buf[0] && nbd_in_use(index, buf, len) != -EBUSY)
		buf[0] = '\0';
}

/* A daemon has one client for all its volumes, so it may be alive for another of them. */
static bool is_client_alive(const struct state_list *l, const char *client)
{
	for (unsigned int i = 0; i < l->n; i++)
		if (volume_is_alive(&l->volumes[i]) && strcmp(l->volumes[i].client, client) == 0)
			return true;
	return false;
}

/* Whom a dead owner has left: one that it had not shut out itself, or its own. */
static const char *client_left(const struct state_list *l, const struct volume_state *v)
{
	if (volume_is_alive(v))
		return "";
	if (v->dead_client[0])
		return v->dead_client;
	/* One that detached has finished and closed. */
	return v->status == VOLUME_DETACHED || is_client_alive(l, v->client) ? "" : v->client;
}

/* v is one of l. */
static int remove_dead(const char *run_dir, const struct state_list *l,
		       const struct volume_state *v)
{
	char left[sizeof(v->dead_client)], id[CLAIM_IDENTITY_LEN], *save = NULL;
	int r = 0;

	text_copy(left, sizeof(left), client_left(l, v));
	claim_identity(v, id, sizeof(id));
	/* Before the file goes: whoever maps the image now finds one or the other. */
	for (char *c = strtok_r(left, " ", &save); r == 0 && c; c = strtok_r(NULL, " ", &save))
		r = unfenced_note(run_dir, id, c);
	return r < 0 ? r : state_remove(run_dir, v);
}

int claim_remove_dead(const char *run_dir, const char *key)
{
	const struct volume_state *v;
	struct state_list l;
	int r = state_list(run_dir, &l, NULL);

	if (r < 0)
		return r;
	v = state_list_key(&l, key);
	r = v ? remove_dead(run_dir, &l, v) : 0;
	state_list_done(&l);
	return r;
}

void claim_forget(const char *run_dir, int index)
{
	struct state_list l;

	if (state_list(run_dir, &l, NULL) < 0)
		return;
	for (unsigned int i = 0; i < l.n; i++)
		if (l.volumes[i].device == index && !volume_is_alive(&l.volumes[i]))
			(void)remove_dead(run_dir, &l, &l.volumes[i]);
	state_list_done(&l);
}

/* Nobody comes back for it, and it has left nobody to be shut out. Those of devices go with them.
 */
static bool is_waste(const struct state_list *l, const struct volume_state *v)
{
	return !volume_is_alive(v) && v->device < 0 && !(v->is_hosted && v->request) &&
	       !client_left(l, v)[0];
}

void claim_tidy(const char *run_dir)
{
	struct state_list l;

	if (state_list(run_dir, &l, NULL) < 0)
		return;
	for (unsigned int i = 0; i < l.n; i++)
		if (is_waste(&l, &l.volumes[i]))
			(void)state_remove(run_dir, &l.volumes[i]);
	state_list_done(&l);
}

static bool has_word(const char *list, const char *word, size_t len)
{
	for (size_t n; *list; list += n) {
		list += strspn(list, " ");
		n = strcspn(list, " ");
		if (n == len && memcmp(list, word, len) == 0)
			return true;
	}
	return false;
}

/* Each of one or more. What there is no room for stays where it was found. */
static void add_clients(void *arg, const char *clients)
{
	struct volume_state *mine = arg;

	for (size_t n; *clients; clients += n) {
		size_t used = strlen(mine->dead_client);

		clients += strspn(clients, " ");
		n = strcspn(clients, " ");
		if (n > 0 && used + n + 2 <= sizeof(mine->dead_client) &&
		    !has_word(mine->dead_client, clients, n))
			(void)snprintf(mine->dead_client + used, sizeof(mine->dead_client) - used,
				       "%s%.*s", used > 0 ? " " : "", (int)n, clients);
	}
}

bool claim_dead_client(const char *run_dir, struct volume_state *mine)
{
	struct state_list l;
	char id[CLAIM_IDENTITY_LEN], other_id[CLAIM_IDENTITY_LEN];
	bool is_own = false;

	mine->dead_client[0] = '\0';
	if (mine->is_read_only || state_list(run_dir, &l, NULL) < 0)
		return false;
	claim_identity(mine, id, sizeof(id));
	for (unsigned int i = 0; i < l.n; i++) {
		const struct volume_state *v = &l.volumes[i];
		const char *left = client_left(&l, v);

		claim_identity(v, other_id, sizeof(other_id));
		if (strcmp(other_id, id) != 0 || strcmp(v->fsid, mine->fsid) != 0)
			continue;
		add_clients(mine, left);
		is_own = is_own || (left[0] && strcmp(v->key, mine->key) == 0);
	}
	state_list_done(&l);
	unfenced_each(run_dir, id, add_clients, mine);
	return is_own;
}

void claim_client_fenced(const char *run_dir, struct volume_state *mine, const char *client)
{
	size_t n = strlen(client), all = strlen(mine->dead_client);
	char id[CLAIM_IDENTITY_LEN];

	claim_identity(mine, id, sizeof(id));
	unfenced_forget(run_dir, id, client);
	n += strspn(mine->dead_client + n, " ");
	memmove(mine->dead_client, mine->dead_client + n, all - n + 1);
}
