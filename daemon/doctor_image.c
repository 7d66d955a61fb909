/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Copyright (C) 2026 the rbdcrypt-nbd authors */

/*
 * What the doctor sees of the cluster and of one image: everything that map would do before a key
 * is derived, and whether the user may write, which is found out by opening the image as a writer
 * does (that leaves a watch for a moment, and writes nothing). Part of doctor.c; owns its
 * connection.
 */

#include "doctor.h"

#include <stdlib.h>
#include <string.h>

#include "clusters.h"
#include "setup.h"

static void on_refusal(void *arg, const struct fault *f)
{
	doctor_fault(arg, "image", f);
}

static void check_cluster(struct doctor *d, struct cluster *c)
{
	char fsid[40] = "", conf[256] = "";

	(void)cluster_fsid(c, fsid, sizeof(fsid));
	(void)cluster_conf_get(c, "mon_host", conf, sizeof(conf));
	doctor_note(d, DOCTOR_OK, "conf", NULL, "user %s, monitors %s",
		    d->options->name ? d->options->name : "client.admin", conf);
	doctor_note(d, DOCTOR_OK, "cluster", NULL, "%s answers", fsid);
}

static void check_features(struct doctor *d, const struct layer_info *i)
{
	char advice[400], image[sizeof(i->spec)];

	if (i->is_file)
		return;
	layer_image_spec(i, image, sizeof(image));
	if (i->features & IMAGE_FEATURE_EXCLUSIVE_LOCK) {
		doctor_note(d, DOCTOR_OK, "features", NULL, "%s has an exclusive lock", i->spec);
	} else {
		(void)snprintf(advice, sizeof(advice), "rbd feature enable %.200s exclusive-lock",
			       image);
		doctor_note(d, DOCTOR_WARN, "features", advice,
			    "%s has no exclusive lock: two writers are not kept apart", i->spec);
	}
	if (!(i->features & IMAGE_FEATURE_OBJECT_MAP)) {
		(void)snprintf(advice, sizeof(advice),
			       "rbd feature enable %.200s object-map fast-diff", image);
		doctor_note(d, DOCTOR_WARN, "features", advice,
			    "%s has no object map: who asks what it holds is answered slowly",
			    i->spec);
	}
}

static void check_headers(struct doctor *d, const struct chain *c)
{
	for (unsigned int i = 0; i < c->n; i++) {
		const struct chain_layer *l = &c->layers[i];
		const struct layer_info *info = layer_info(l->layer);

		if (!l->is_encrypted && i > 0)
			doctor_note(d, DOCTOR_WARN, "header",
				    "anybody who can read the cluster can read this layer; "
				    "--encryption-strict refuses it",
				    "layer %u: %s is plaintext", i + 1, info->spec);
		if (!l->is_encrypted)
			continue;
		doctor_note(d, DOCTOR_OK, "header", NULL,
			    "layer %u: %s is luks%d, %s, %u keyslot%s", i + 1, info->spec,
			    l->luks.version, l->luks.cipher, l->luks.keyslots,
			    l->luks.keyslots == 1 ? "" : "s");
		if (l->luks.keyslots == 1)
			doctor_note(d, DOCTOR_WARN, "header",
				    "add a second passphrase that is kept elsewhere, and make a "
				    "backup of the header (cryptsetup luksAddKey, "
				    "luksHeaderBackup on the raw image)",
				    "layer %u: %s has one keyslot: who loses its passphrase loses "
				    "the data",
				    i + 1, info->spec);
		if (i == 0 && l->luks.sector_size > 512)
			doctor_note(d, DOCTOR_OK, "block-size", NULL,
				    "%u-byte sectors: smaller writes cost a read each",
				    l->luks.sector_size);
		if (i == 0 && !info->is_file && l->luks.data_offset % info->object_size != 0)
			doctor_note(d, DOCTOR_WARN, "header", NULL,
				    "data starts at %llu, which is not where an object does: "
				    "requests are split more often",
				    (unsigned long long)l->luks.data_offset);
	}
	if (c->has_raw_header)
		doctor_note(d, DOCTOR_WARN, "header",
			    "give --encryption-passphrase-file, or put one where a default one is "
			    "looked for",
			    "%s has a LUKS header and would be served raw",
			    layer_info(c->layers[0].layer)->spec);
}

/* Watching the image for changes needs the same rights as writing it. */
static void check_caps(struct doctor *d, const struct chain *c, struct cluster *cluster)
{
	const struct layer_info *i = layer_info(c->layers[0].layer);
	struct store_options s = { .is_read_only = d->options->is_read_only ||
						   i->snap_id != UINT64_MAX,
				   .timeout_s = (unsigned int)d->options->open_timeout_s };
	struct store *store = NULL;
	struct fault f = { 0 };
	char advice[400];

	(void)snprintf(advice, sizeof(advice),
		       "ceph auth caps %s mon 'profile rbd' osd 'profile rbd%s pool=%.100s'",
		       d->options->name ? d->options->name : "client.admin",
		       s.is_read_only ? "-read-only" : "", i->pool);
	if (store_open_librbd(cluster, c->layers[0].layer, &s, &store, &f) < 0)
		doctor_note(d, DOCTOR_FAIL, "caps", f.status == EXIT_PASSPHRASE ? advice : f.hint,
			    "%s", f.message);
	else
		doctor_note(d, DOCTOR_OK, "caps", NULL, "%s can be opened to %s", i->spec,
			    s.is_read_only ? "read" : "write");
	store_close(store);
}

static void check_image(struct doctor *d, struct cluster *cluster)
{
	struct setup_sources sources = { 0 };
	struct chain_options o = { 0 };
	struct chain c = { 0 };
	struct fault f = { 0 };
	char fsid[40] = "";

	setup_chain(d->options, cluster, &d->options->spec, NULL, &sources, &o);
	if (cluster)
		(void)cluster_fsid(cluster, fsid, sizeof(fsid));
	o.cookie = d->options->cookie;
	o.fsid = fsid;
	o.note = on_refusal;
	o.note_arg = d;
	if (setup_open(&sources, &o, &c, &f) < 0)
		doctor_fault(d, "image", &f);
	if (c.n == 0)
		return;
	doctor_note(d, DOCTOR_OK, "image", NULL, "%s has %u layer%s",
		    layer_info(c.layers[0].layer)->spec, c.n, c.n == 1 ? "" : "s");
	check_features(d, layer_info(c.layers[0].layer));
	check_headers(d, &c);
	for (unsigned int i = 0; i < c.n && sources.list.n > 0 && c.layers[i].is_encrypted; i++)
		if (i < sources.list.n || !c.layers[i - 1].is_inherited)
			doctor_key(d, &o, &c, i);
	if (cluster)
		check_caps(d, &c, cluster);
	chain_done(&c);
}

void doctor_image(struct doctor *d)
{
	struct clusters *clusters = NULL;
	struct cluster *cluster = NULL;
	struct fault f = { 0 };
	bool is_named = d->options->spec.image != NULL;

	if (clusters_new(&clusters) < 0) {
		d->is_short = true;
		return;
	}
	if (setup_cluster(d->options, clusters, /* i */ NULL, &cluster, &f) < 0) {
		doctor_fault(d, "cluster", &f);
	} else {
		if (cluster)
			check_cluster(d, cluster);
		if (is_named)
			check_image(d, cluster);
	}
	cluster = clusters_put(clusters, cluster);
	clusters = clusters_free(clusters);
}
