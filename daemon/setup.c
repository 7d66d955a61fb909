/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Copyright (C) 2026 the rbdcrypt-nbd authors */

/*
 * What a volume and a dry run do in the same way: connect as the user said, and turn options into
 * those of a chain and of a socket. The thread of the volume, or of the command; owns nothing.
 */

#include "setup.h"

#include <errno.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>

#include "key.h"
#include "log.h"
#include "text.h"

int setup_cluster(struct options *o, struct clusters *clusters, const struct interrupt *i,
		  struct cluster **ret, struct fault *f)
{
	struct cluster_options c = { .conf = o->conf,
				     .cluster = o->cluster,
				     .name = o->name,
				     .argc = o->ceph_argc,
				     .argv = o->ceph_argv,
				     .args = o->ceph_args,
				     .timeout_s = (unsigned int)o->open_timeout_s };
	struct cluster *cluster;
	char pool[128];
	int r;

	*ret = NULL;
	if (o->spec.is_file)
		return 0;
	r = clusters_get(clusters, &c, i, &cluster, f);
	if (r < 0)
		return r;
	*ret = cluster;
	if (o->spec.pool)
		return 0;
	r = cluster_conf_get(cluster, "rbd_default_pool", pool, sizeof(pool));
	o->spec.pool = strdup(r == 0 && pool[0] ? pool : "rbd");
	return o->spec.pool ? 0
			    : fault_set(f, EXIT_MEMORY, -ENOMEM, "no memory for the pool's name");
}

void setup_chain(const struct options *o, struct cluster *c, const struct image_spec *spec,
		 const char *turnstile, struct setup_sources *sources, struct chain_options *ret)
{
	sources->list = o->passphrase_files;
	if (sources->list.n == 1 && key_is_none(sources->list.items[0]))
		sources->list.n = 0;
	memset(ret, 0, sizeof(*ret));
	chain_options_set(o, ret);
	ret->cluster = c;
	ret->spec = spec;
	ret->passphrase_files = &sources->list;
	ret->limits.turnstile = turnstile;
	sources->is_told = o->passphrase_files.n > 0;
}

/* Whether the image, served raw, would show a header that a kept passphrase is for. */
static int find_default(struct setup_sources *sources, const struct chain_options *o,
			struct chain *raw, struct fault *f)
{
	struct key_place place = chain_place(o, raw, 0);
	char *found;
	int r = key_default("", &place, &found);

	if (r < 0)
		return r == -ENOENT ? 0
				    : fault_set(f, EXIT_MEMORY, r, "no memory for a passphrase");
	log_notice(layer_info(raw->layers[0].layer)->spec,
		   "no passphrase file was given: %s is used", found);
	free(found);
	text_copy(sources->default_source, sizeof(sources->default_source), "default:");
	sources->default_sources[0] = sources->default_source;
	sources->list = (struct option_list){ .items = sources->default_sources, .n = 1 };
	return 0;
}

int setup_open(struct setup_sources *sources, const struct chain_options *o, struct chain *ret,
	       struct fault *f)
{
	/* What a survey has to say of it, it says below. */
	struct chain_options quiet = *o;
	struct chain raw = { 0 };
	int r;

	if (sources->is_told)
		return chain_open(o, ret, f);
	quiet.note = NULL;
	r = chain_open(&quiet, &raw, f);
	if (r == 0 && raw.has_raw_header)
		r = find_default(sources, o, &raw, f);
	if (r == 0 && sources->list.n == 0 && !o->note) {
		*ret = raw;
		return 0;
	}
	chain_done(&raw);
	if (r < 0 && !o->note)
		return r;
	fault_clear(f);
	return chain_open(o, ret, f);
}

static mode_t socket_mode(const struct options *o)
{
	if (o->socket_mode != UINT_MAX)
		return o->socket_mode;
	if (o->socket_group)
		return 0660;
	/* Where a list decides, whoever is on it must get that far. */
	return o->allow_users.n + o->allow_groups.n > 0 ? 0666 : 0600;
}

int setup_access(const struct options *o, struct peers **ret_peers,
		 struct unix_socket_access *ret_access, struct fault *f)
{
	int r = peers_new(&o->allow_users, &o->allow_groups, ret_peers, f);

	*ret_access = (struct unix_socket_access){ socket_mode(o), (uid_t)-1, (gid_t)-1 };
	if (r == 0 && o->socket_owner)
		r = peers_find_user("--socket-owner", o->socket_owner, &ret_access->owner, f);
	if (r == 0 && o->socket_group)
		r = peers_find_group("--socket-group", o->socket_group, &ret_access->group, f);
	return r;
}
