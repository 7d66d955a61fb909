/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Copyright (C) 2026 the rbdcrypt-nbd authors */

/* From an open chain to its description for other commands. The volume's thread. */

#include "describe.h"

#include <stdlib.h>
#include <time.h>

#include "text.h"

static void describe_layer(const struct chain_layer *c, struct layer_state *ret)
{
	text_copy(ret->spec, sizeof(ret->spec), layer_info(c->layer)->spec);
	ret->raw_size = layer_info(c->layer)->raw_size;
	text_copy(ret->format, sizeof(ret->format),
		  !c->is_encrypted	 ? "none"
		  : c->luks.version == 1 ? "luks1"
					 : "luks2");
	if (!c->is_encrypted)
		return;
	text_copy(ret->cipher, sizeof(ret->cipher), c->luks.cipher);
	text_copy(ret->uuid, sizeof(ret->uuid), c->luks.uuid);
	ret->data_offset = c->luks.data_offset;
	ret->sector_size = c->luks.sector_size;
	ret->key_bits = c->luks.key_bytes * 8;
	ret->is_clone_magic = c->luks.is_clone_magic;
}

/* Without memory the layers are not told; everything else works. */
static void describe_layers(const struct chain *c, struct volume_state *ret)
{
	ret->layers = calloc(c->n, sizeof(*ret->layers));
	if (!ret->layers)
		return;
	ret->n_layers = c->n;
	for (unsigned int i = 0; i < c->n; i++)
		describe_layer(&c->layers[i], &ret->layers[i]);
}

void describe_image(const struct chain_options *o, const struct chain *c, struct volume_state *ret)
{
	const struct layer_info *i = layer_info(c->layers[0].layer);
	/* A volume keeps the name that its users know. */
	const struct layer_info *named = o->known ? o->known : i;
	struct timespec now;
	char *path;

	volume_state_init(ret);
	ret->status = VOLUME_STARTING;
	ret->raw_size = i->raw_size;
	ret->data_offset = chain_data_offset(c);
	ret->is_read_only = i->snap_id != UINT64_MAX;
	(void)clock_gettime(CLOCK_REALTIME, &now);
	ret->started = (uint64_t)now.tv_sec;
	ret->named = (uint64_t)now.tv_sec * 1000 + (uint64_t)now.tv_nsec / 1000000;
	describe_layers(c, ret);
	if (i->is_file) {
		path = realpath(o->spec->image, NULL);
		text_copy(ret->file, sizeof(ret->file), path ? path : o->spec->image);
		free(path);
		return;
	}
	text_copy(ret->pool, sizeof(ret->pool), named->pool);
	text_copy(ret->nspace, sizeof(ret->nspace), named->nspace);
	text_copy(ret->image, sizeof(ret->image), named->image);
	text_copy(ret->snap, sizeof(ret->snap), named->snap);
	text_copy(ret->image_id, sizeof(ret->image_id), i->image_id);
	ret->snap_id = i->snap_id;
	ret->pool_id = i->pool_id;
	(void)cluster_fsid(o->cluster, ret->fsid, sizeof(ret->fsid));
	text_copy(ret->conf, sizeof(ret->conf), cluster_conf_file(o->cluster));
	text_copy(ret->user, sizeof(ret->user), cluster_user(o->cluster));
	(void)cluster_conf_get(o->cluster, "mon_host", ret->mons, sizeof(ret->mons));
}
