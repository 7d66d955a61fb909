/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Copyright (C) 2026 the rbdcrypt-nbd authors */

#ifndef RBDCRYPT_IMAGE_H
#define RBDCRYPT_IMAGE_H

#include <stdbool.h>
#include <stdint.h>

#include "fault.h"
#include "interrupt.h"
#include "store.h"

/*
 * Ceph images and files as the daemon sees them: a connection, the layers of a
 * chain, and stores made from them. Blocking calls, bounded by the connection's
 * time limit; never from an IO thread.
 */

/* ---- the connection: one rados_t per cluster and user, shared by volumes ---- */

struct cluster_options {
	const char *conf; /* path, or NULL: CEPH_CONF, /etc/ceph, ~/.ceph */
	const char *cluster; /* name, or NULL: "ceph" */
	const char *name; /* "client.admin", or NULL */
	/*
	 * What else the user said, for Ceph to parse: "--mon-host", "1.2.3.4", "--keyring=/k" ...
	 * argv[0] is skipped. Words Ceph does not take are left in ret_rest.
	 */
	int argc;
	const char **argv;
	const char *args; /* in place of $CEPH_ARGS; NULL: that */
	unsigned int timeout_s; /* for connecting and for each blocking call; 0: for ever */
};

struct cluster;

/*
 * Reads configuration (file, then CEPH_ARGS, then argv), sets what our IO needs
 * (cache off, writes copied) and returns unconnected. The words that Ceph did not
 * take are moved to the front of argv, behind argv[0], which is counted in *ret_argc.
 * Where conf, cluster or name is NULL, CEPH_ARGS may name it. EXIT_CLUSTER with
 * the file's name when the configuration cannot be read or parsed, EXIT_USAGE for a
 * bad value among the words.
 */
int cluster_new(const struct cluster_options *o, int *ret_argc, struct cluster **ret,
		struct fault *f);
/*
 * EXIT_CLUSTER (no monitor answers), EXIT_PASSPHRASE (no keyring, refused key). -EINTR
 * (EXIT_TIMED_OUT) soon after i, or NULL, was raised. After a failure the connection is only good
 * for cluster_free().
 */
int cluster_connect(struct cluster *c, const struct interrupt *i, struct fault *f);
/* A value of Ceph's configuration ("rbd_default_pool"). 0 or -errno. Before connecting is fine. */
int cluster_conf_get(struct cluster *c, const char *option, char *buf, size_t len);
/* The configuration file that was read ("" for none), and the user ("client.admin"). */
const char *cluster_conf_file(const struct cluster *c);
const char *cluster_user(const struct cluster *c);
/* The cluster's fsid as text; connected only. */
int cluster_fsid(struct cluster *c, char *buf, size_t len);
/* The connection's own address, as it would be blocklisted ("10.0.0.1:0/123"); connected only. */
int cluster_address(struct cluster *c, char *buf, size_t len);
/*
 * Keeps a client that is dead from having anything carried out that may still be under way, and
 * ends its watches, for an hour. Blocking, at most timeout_s. 0 or -errno; -EINVAL for our own
 * address and for one that is no client's; -EINTR soon after i, or NULL, was raised.
 */
int cluster_fence(struct cluster *c, const char *address, unsigned int timeout_s,
		  const struct interrupt *i);
/* No image may be open. NULL is fine. Returns NULL. */
struct cluster *cluster_free(struct cluster *c);

/*
 * Takes the words that Ceph understands ("--debug-rbd 20", "-m HOST") out of argv without reading
 * configuration or connecting, so that commands that need no cluster can find their operands.
 * argv[0] is skipped; *ret_argc words remain, argv[0] included. -EINVAL (EXIT_USAGE) when Ceph
 * refuses a value.
 */
int cluster_strip_words(int argc, const char **argv, int *ret_argc, struct fault *f);

/* ---- which image ---- */

struct image_spec {
	char *pool; /* NULL: the default pool */
	char *nspace; /* NULL or "": none */
	char *image; /* file: the path */
	char *snap; /* NULL: the head */
	uint64_t snap_id; /* UINT64_MAX: by name */
	bool is_file; /* "file:PATH" */
};

/*
 * "[pool/[namespace/]]image[@snap]" or "file:PATH". -EINVAL (EXIT_USAGE) says what is wrong. Fields
 * already set in ret by split options (--pool, --image ...) are kept where text is silent and
 * refused where both speak. text may be NULL when --image is given. Start from IMAGE_SPEC_INIT.
 */
#define IMAGE_SPEC_INIT                                                                            \
	{                                                                                          \
		.snap_id = UINT64_MAX                                                              \
	}
int image_spec_parse(const char *text, struct image_spec *ret, struct fault *f);
/* As the user would type it: pool/[ns/]image[@snap]. At most len bytes. */
void image_spec_format(const struct image_spec *s, char *buf, size_t len);
void image_spec_done(struct image_spec *s);

/* ---- one layer, read-only: for headers and the walk up the parents ---- */

/* Of layer_info.features: as librbd numbers them. */
#define IMAGE_FEATURE_EXCLUSIVE_LOCK UINT64_C(4)
#define IMAGE_FEATURE_OBJECT_MAP UINT64_C(8)

struct layer_info {
	char spec[4608]; /* "rbd/golden@v1" or "file:PATH", for messages */
	char pool[128], nspace[128], image[4096], snap[256];
	char image_id[64];
	int64_t pool_id;
	uint64_t snap_id; /* UINT64_MAX: head */
	uint64_t raw_size; /* bytes, at that snapshot */
	uint64_t raw_overlap; /* bytes of the parent seen through it; 0 without parent */
	uint64_t object_size; /* bytes */
	uint64_t stripe_period; /* object size x stripe count, bytes */
	uint64_t features; /* IMAGE_FEATURE_... and others of Ceph's */
	bool has_parent;
	bool is_file;
};

struct layer;

/*
 * The image named by spec (its pool filled in), read-only. c is NULL for a file. Errors:
 * EXIT_NOT_FOUND (pool, namespace, image or snapshot; says which), EXIT_PASSPHRASE (no permission),
 * EXIT_TIMED_OUT. Refuses, as ENOTSUP: what layer_refusal() says. Once i (or NULL), which outlives
 * the layer, is raised, whatever waits for the layer, its parents, or the image that
 * store_open_librbd() opens by it, soon comes back with -EINTR.
 */
int layer_open(struct cluster *c, const struct image_spec *spec, unsigned int timeout_s,
	       const struct interrupt *i, struct layer **ret, struct fault *f);
/* The same, but also what must not be served; its parents too. layer_refusal() has the reasons. */
int layer_open_any(struct cluster *c, const struct image_spec *spec, unsigned int timeout_s,
		   const struct interrupt *i, struct layer **ret, struct fault *f);
/* The image or snapshot of was again, by its ids: whatever they are called by now. As layer_open().
 */
int layer_open_again(struct cluster *c, const struct layer_info *was, unsigned int timeout_s,
		     const struct interrupt *i, struct layer **ret, struct fault *f);
/*
 * The next reason from *at on why the layer must not be served, with the command that mends it:
 * -ENOTSUP (EXIT_SAFEGUARD); 0 when there is no more. Start with *at 0.
 */
int layer_refusal(const struct layer *l, unsigned int *at, struct fault *f);
/*
 * Whether clients of the image copy from its parent when they read, which is wrong where the
 * parent has another key: -ENOTSUP (EXIT_SAFEGUARD), with the command that ends it.
 */
int layer_check_copy_on_read(const struct layer *l, struct fault *f);
/* Whether the image has a lock that keeps a second writer out: as above. */
int layer_check_exclusive_lock(const struct layer *l, struct fault *f);
/* The parent at its snapshot, by id. -ENOENT when there is none (fault not filled). */
int layer_open_parent(struct layer *child, struct layer **ret, struct fault *f);
const struct layer_info *layer_info(const struct layer *l);
/* Its image, whatever the snapshot: commands that change images refuse the name of one. */
void layer_image_spec(const struct layer_info *i, char *buf, size_t len);
/* Raw bytes, read through to the parents as librbd does. Fits luks_read_fn. */
int layer_read(void *layer, uint64_t off, void *buf, size_t len);
struct layer *layer_close(struct layer *l);

/* ---- stores ---- */

struct store_options {
	bool is_read_only;
	bool is_exclusive; /* take the exclusive lock for good, and never hand it over */
	bool is_without_lock; /* rados: write although the image has no exclusive-lock feature */
	bool has_direct_reads; /* librbd: reads may go straight to their objects */
	bool is_encrypted;
	uint64_t data_offset; /* layer 0, bytes */
	unsigned int timeout_s;
};

/*
 * Flat images and clones that only inherit: raw IO through librbd. The layer names
 * the image; the store opens its own handle. EXIT_LOCKED when the lock is held by another and
 * exclusive was asked for.
 */
int store_open_librbd(struct cluster *c, const struct layer *l, const struct store_options *o,
		      struct store **ret, struct fault *f);
/* A file or block device. Refuses one in use (mounted, or held with O_EXCL) unless read-only. */
int store_open_file(const struct layer *l, const struct store_options *o, struct store **ret,
		    struct fault *f);

/*
 * Any chain, child first, above all one whose layers differ in key, data offset or sector size:
 * read straight from the objects, layer by layer, and written as the kernel's client does it, with
 * the exclusive lock held from here to the end. Without is_exclusive it is handed over for
 * maintenance by others that cannot go wrong. It keeps nothing of the layers. EXIT_LAYERED where a
 * sector would be spread over several objects, EXIT_LOCKED, EXIT_SAFEGUARD for an image that is not
 * safe to be written so.
 */
struct rados_layer {
	const struct layer *layer;
	uint64_t data_offset; /* bytes */
	uint32_t sector; /* bytes; 1 for a plaintext layer */
	unsigned int key_id; /* the same number where the key is the same; 0: plaintext */
};
int store_open_rados(struct cluster *c, const struct rados_layer *layers, unsigned int n,
		     const struct store_options *o, struct store **ret, struct fault *f);

/* As the store's lock(); "-" where it has none. */
void store_lock(struct store *s, struct store_lock *ret);

#endif
