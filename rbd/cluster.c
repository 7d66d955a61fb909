/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Copyright (C) 2026 the rbdcrypt-nbd authors */

/*
 * The connection to a Ceph cluster: one rados_t per cluster and user, which all volumes
 * share. Called from commands and the threads of volumes; librados brings its own threads. The
 * struct is counted, because a call that ran out of time still uses the connection (see
 * limit.h).
 *
 * Configuration is read as Ceph's own tools read it: file, environment, CEPH_ARGS, command
 * line, each over the last. Nothing is set that would make IO fail while OSDs are away: a
 * block device waits.
 */

#include "cluster.h"
#include "limit.h"
#include "words.h"

#include <errno.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

struct cluster {
	rados_t rados;
	atomic_uint refs;
	unsigned int timeout_s;
	char name[256]; /* "client.admin" */
	char conf[4096]; /* the file that was read, or empty */
	char keyfile[512]; /* of --keyfile, or empty */
};

struct cluster *cluster_ref(struct cluster *c)
{
	atomic_fetch_add(&c->refs, 1);
	return c;
}

struct cluster *cluster_unref(struct cluster *c)
{
	if (c && atomic_fetch_sub(&c->refs, 1) == 1) {
		if (c->rados)
			rados_shutdown(c->rados);
		free(c);
	}
	return NULL;
}

struct cluster *cluster_free(struct cluster *c)
{
	return cluster_unref(c);
}

rados_t cluster_rados(struct cluster *c)
{
	return c->rados;
}

int cluster_ioctx(struct cluster *c, int64_t pool_id, const char *nspace, rados_ioctx_t *ret)
{
	rados_ioctx_t io;
	int r = rados_ioctx_create2(c->rados, pool_id, &io);

	if (r < 0)
		return r;
	rados_ioctx_set_namespace(io, nspace);
	*ret = io;
	return 0;
}

int cluster_fault(struct fault *f, int error, const char *subject, const char *doing)
{
	enum exit_status status = EXIT_CLUSTER;
	const char *why = strerror(-error);

	switch (-error) {
	case ENOENT:
		status = EXIT_NOT_FOUND;
		break;
	case EPERM:
	case EACCES:
		status = EXIT_PASSPHRASE;
		why = "the Ceph user has no permission for this";
		break;
	case ETIMEDOUT:
		status = EXIT_TIMED_OUT;
		why = "no answer in time";
		break;
	case EINTR:
		return fault_set(f, EXIT_TIMED_OUT, error, "%s: interrupted", subject);
	case ENOMEM:
	case EAGAIN:
		status = EXIT_MEMORY;
		break;
	case ESHUTDOWN: /* Ceph's EBLOCKLISTED */
		why = "this client has been blocklisted";
		break;
	default:
		break;
	}
	fault_set(f, status, error, "%s: %s: %s", subject, doing, why);
	if (status == EXIT_PASSPHRASE)
		fault_hint(f, "the user needs the caps mon 'profile rbd' and osd 'profile rbd "
			      "pool=POOL'; see 'ceph auth get'");
	if (status == EXIT_TIMED_OUT)
		fault_hint(f, "see 'ceph health' for OSDs that are down");
	return error;
}

/* ---- configuration ---- */

static bool is_set(const char *s)
{
	return s && s[0];
}

/* Where Ceph looks by itself, for a message only. */
static void find_default_conf(const char *cluster, char *buf, size_t len)
{
	const char *home = getenv("HOME");

	(void)snprintf(buf, len, "/etc/ceph/%s.conf", cluster);
	if (access(buf, F_OK) == 0)
		return;
	(void)snprintf(buf, len, "%s/.ceph/%s.conf", home ? home : "", cluster);
	if (access(buf, F_OK) == 0)
		return;
	(void)snprintf(buf, len, "%s.conf", cluster);
	if (access(buf, F_OK) != 0)
		buf[0] = '\0';
}

static int read_conf(struct cluster *c, const char *conf, const char *cluster, struct fault *f)
{
	int r;

	if (!is_set(conf))
		conf = getenv("CEPH_CONF");
	if (is_set(conf))
		(void)snprintf(c->conf, sizeof(c->conf), "%s", conf);
	else
		find_default_conf(cluster, c->conf, sizeof(c->conf));
	r = rados_conf_read_file(c->rados, is_set(conf) ? conf : NULL);
	/* No file at all is fine: --mon-host, a key and the environment may say enough. */
	if (r == 0 || (r == -ENOENT && !is_set(conf)))
		return 0;
	if (r == -ENOENT)
		fault_set(f, EXIT_CLUSTER, r, "%s: cannot read this Ceph configuration: %s",
			  c->conf, strerror(-r));
	else
		fault_set(f, EXIT_CLUSTER, r, "%s: not a valid Ceph configuration: %s", c->conf,
			  strerror(-r));
	fault_hint(f, "name the file with --conf or CEPH_CONF; 'ceph-conf -c FILE "
		      "--show-config-value mon_host' must succeed");
	return r;
}

/* For a message only: to Ceph it is the option key, and nothing at all if it cannot be read. */
static void note_keyfile(struct cluster *c, int argc, const char *const *argv)
{
	const char *keyfile = words_value(argc, argv, "--keyfile", "-K");

	if (keyfile)
		(void)snprintf(c->keyfile, sizeof(c->keyfile), "%s", keyfile);
}

/* Words that Ceph does not know stay, in order, behind argv[0]. */
static int take_words(rados_t rados, int *argc, const char **argv, const char *from,
		      struct fault *f)
{
	const char **rest;
	int r, n = 0;

	if (*argc <= 1)
		return 0;
	rest = calloc((size_t)*argc, sizeof(*rest));
	if (!rest)
		return fault_set(f, EXIT_MEMORY, -ENOMEM, "out of memory");
	r = rados_conf_parse_argv_remainder(rados, *argc, argv, rest);
	if (r < 0) {
		fault_set(f, EXIT_USAGE, r, "%s: a Ceph option has a wrong value", from);
		fault_hint(f,
			   "Ceph says above which; 'ceph config help OPTION' says what it takes");
	} else {
		while (n < *argc && rest[n]) {
			argv[n] = rest[n];
			n++;
		}
		*argc = n;
	}
	free(rest);
	return r < 0 ? r : 0;
}

/*
 * Ceph's client lets so many operations, and bytes of them, be under way, of all images together,
 * and whoever wants one more waits: the thread that calls us, and the few threads that serve all
 * images of librbd. So a volume whose pool does not answer would take its neighbours with it. Each
 * volume has bounds of its own: the requests of its connections, and their memory. 0: no limit.
 */
#define N_LIMITS 2
static const char *const limits[N_LIMITS] = { "objecter_inflight_ops",
					      "objecter_inflight_op_bytes" };
struct limit_value {
	char text[24]; /* empty: unknown */
};

static void get_limits(struct cluster *c, struct limit_value ret[N_LIMITS])
{
	for (int i = 0; i < N_LIMITS; i++)
		if (rados_conf_get(c->rados, limits[i], ret[i].text, sizeof(ret[i].text)) < 0)
			ret[i].text[0] = '\0';
}

/*
 * But for those that somebody changed, who will have a reason. What the monitors keep for clients
 * ("ceph config set") comes while we connect, when this is decided, and counts for less than what a
 * program sets: it is not observed.
 */
static int lift_limits(struct cluster *c, const struct limit_value unset[N_LIMITS], struct fault *f)
{
	struct limit_value now[N_LIMITS];

	get_limits(c, now);
	for (int i = 0; i < N_LIMITS; i++) {
		int r = strcmp(now[i].text, unset[i].text) == 0
				? rados_conf_set(c->rados, limits[i], "0")
				: 0;

		if (r < 0)
			return fault_set(f, EXIT_CLUSTER, r, "cannot set %s of Ceph's client: %s",
					 limits[i], strerror(-r));
	}
	return 0;
}

/* What our IO needs, over whatever the files say. */
static int set_ours(struct cluster *c, struct fault *f)
{
	char seconds[16];
	const char *const ours[][2] = {
		/* The page cache above us is the cache; below us it would hold ciphertext. */
		{ "rbd_cache", "false" },
		/* Where an image or a pool insists on it: no answer before the data is stored. */
		{ "rbd_cache_policy", "writethrough" },
		/*
		 * Of a write that is not copied librbd answers when nobody has its buffer any more;
		 * its cache keeps that, and of a write that it refuses (of what the image has just
		 * lost, say) it never lets go.
		 */
		{ "rbd_disable_zero_copy_writes", "true" },
		/* No cache or copy of its own between us and the objects. */
		{ "rbd_plugins", "" },
		{ "rbd_clone_copy_on_read", "false" },
		/* What is given up may still happen: after the lock was handed over, too. */
		{ "rados_osd_op_timeout", "0" },
		{ "client_mount_timeout", seconds },
	};

	(void)snprintf(seconds, sizeof(seconds), "%u", c->timeout_s);
	for (size_t i = 0; i < sizeof(ours) / sizeof(ours[0]); i++) {
		int r = rados_conf_set(c->rados, ours[i][0], ours[i][1]);

		if (r < 0)
			return fault_set(f, EXIT_CLUSTER, r, "cannot set %s of Ceph's client: %s",
					 ours[i][0], strerror(-r));
	}
	return 0;
}

static int configure(struct cluster *c, const struct cluster_options *o, struct words *env,
		     int *argc, struct fault *f)
{
	const char *cluster = is_set(o->cluster)     ? o->cluster
			      : is_set(env->cluster) ? env->cluster
						     : "ceph";
	struct limit_value unset[N_LIMITS];
	int r;

	/* Ceph makes names of files of it. */
	if (strchr(cluster, '/')) {
		(void)fault_set(f, EXIT_USAGE, -EINVAL, "'%s' is no name of a cluster", cluster);
		fault_hint(f, "a configuration is named with --conf");
		return -EINVAL;
	}
	(void)snprintf(c->name, sizeof(c->name), "%s",
		       is_set(o->name)	   ? o->name
		       : is_set(env->name) ? env->name
					   : "client.admin");
	r = rados_create2(&c->rados, cluster, c->name, 0);
	if (r < 0) {
		c->rados = NULL;
		fault_set(f, EXIT_USAGE, r, "'%s' is not a Ceph user name", c->name);
		fault_hint(f, "write --id NAME or --name client.NAME");
		return r;
	}
	get_limits(c, unset);
	note_keyfile(c, env->n, env->v);
	note_keyfile(c, *argc, o->argv);
	r = read_conf(c, is_set(o->conf) ? o->conf : env->conf, cluster, f);
	if (r == 0)
		r = take_words(c->rados, &env->n, env->v, "CEPH_ARGS", f);
	if (r == 0)
		r = take_words(c->rados, argc, o->argv, "command line", f);
	if (r == 0)
		r = lift_limits(c, unset, f);
	return r == 0 ? set_ours(c, f) : r;
}

int cluster_new(const struct cluster_options *o, int *ret_argc, struct cluster **ret,
		struct fault *f)
{
	struct cluster *c = calloc(1, sizeof(*c));
	struct words env = { 0 };
	int r, argc = o->argc;

	if (!c)
		return fault_set(f, EXIT_MEMORY, -ENOMEM, "out of memory");
	atomic_init(&c->refs, 1);
	c->timeout_s = o->timeout_s;
	r = words_parse(o->args ? o->args : getenv("CEPH_ARGS"), &env);
	if (r < 0)
		fault_set(f, EXIT_MEMORY, r, "out of memory");
	else
		r = configure(c, o, &env, &argc, f);
	words_done(&env);
	if (r < 0) {
		cluster_unref(c);
		return r;
	}
	*ret_argc = argc;
	*ret = c;
	return 0;
}

int cluster_conf_get(struct cluster *c, const char *option, char *buf, size_t len)
{
	return rados_conf_get(c->rados, option, buf, len);
}

const char *cluster_conf_file(const struct cluster *c)
{
	return c->conf;
}

const char *cluster_user(const struct cluster *c)
{
	return c->name;
}

int cluster_fsid(struct cluster *c, char *buf, size_t len)
{
	int r = rados_cluster_fsid(c->rados, buf, len);

	return r < 0 ? r : 0;
}

/* ---- connecting ---- */

static int connect_call(void *arg)
{
	struct cluster *c = arg;

	return rados_connect(c->rados);
}

static void connect_late(void *arg)
{
	cluster_unref(arg);
}

static bool conf_is_set(struct cluster *c, const char *option)
{
	char value[1024];
	int r = rados_conf_get(c->rados, option, value, sizeof(value));

	return r == -ENAMETOOLONG || (r == 0 && value[0]);
}

/* Any of the files in Ceph's list can be read. */
static bool has_keyring(struct cluster *c)
{
	char list[4096], *save = NULL;

	if (conf_is_set(c, "key") || conf_is_set(c, "keyfile"))
		return true;
	if (rados_conf_get(c->rados, "keyring", list, sizeof(list)) < 0)
		return false;
	for (char *p = strtok_r(list, ", ;", &save); p; p = strtok_r(NULL, ", ;", &save))
		if (access(p, R_OK) == 0)
			return true;
	return false;
}

/* Where Ceph has the user's key from, or looks for it; in the order in which it does. */
static void find_key(struct cluster *c, char *buf, size_t len)
{
	const bool is_option = conf_is_set(c, "key");

	buf[0] = '\0';
	if (c->keyfile[0] && (is_option || !has_keyring(c)))
		(void)snprintf(buf, len, "%s", c->keyfile);
	else if (is_option)
		(void)snprintf(buf, len, "the option key");
	else if (conf_is_set(c, "keyfile"))
		(void)rados_conf_get(c->rados, "keyfile", buf, len);
	else
		(void)rados_conf_get(c->rados, "keyring", buf, len);
}

static int explain_connect(struct cluster *c, int error, struct fault *f)
{
	char mons[512] = "", key[512];
	const char *conf = c->conf[0] ? c->conf : "no configuration file";

	(void)rados_conf_get(c->rados, "mon_host", mons, sizeof(mons));
	find_key(c, key, sizeof(key));
	if (fault_status(error, EXIT_CLUSTER) == EXIT_MEMORY) {
		fault_set(f, EXIT_MEMORY, error, "cluster: cannot connect to %s as %s: %s", mons,
			  c->name, strerror(-error));
	} else if (!mons[0] && error != -ETIMEDOUT) {
		fault_set(f, EXIT_CLUSTER, error, "cluster: no monitors are known (%s)", conf);
		fault_hint(f, "give --mon-host, or --conf with a file that has mon_host");
	} else if (error == -ENOENT && !has_keyring(c)) {
		fault_set(f, EXIT_PASSPHRASE, error, "cluster: no key for %s in %s", c->name, key);
		fault_hint(f, "give --keyring or --keyfile, or the right user with --id");
	} else if (error == -ENOENT || error == -EACCES || error == -EPERM) {
		fault_set(f, EXIT_PASSPHRASE, error,
			  "cluster: %s refused: wrong key, or no such user", c->name);
		fault_hint(f, "compare with 'ceph auth get %s'; its key is from %s", c->name, key);
	} else if (error == -ETIMEDOUT) {
		fault_set(f, EXIT_CLUSTER, error, "cluster: no monitor answered in %u s: %s",
			  c->timeout_s, mons);
		fault_hint(f, "check the addresses (%s) and the network, or raise the time limit",
			   conf);
	} else {
		fault_set(f, EXIT_CLUSTER, error, "cluster: cannot connect to %s as %s: %s", mons,
			  c->name, strerror(-error));
		fault_hint(f, "look for a damaged key in %s and for a wrong address in %s", key,
			   conf);
	}
	return error;
}

int cluster_connect(struct cluster *c, const struct interrupt *i, struct fault *f)
{
	/* Ceph's own limit should be the first to strike, for it leaves nothing behind. */
	unsigned int limit_s = c->timeout_s ? c->timeout_s + 2 : 0;
	bool is_late;
	int r;

	(void)cluster_ref(c);
	r = limit_call_unless(i, limit_s, connect_call, connect_late, c, &is_late);
	if (is_late && r == -EINTR)
		return fault_set(f, EXIT_TIMED_OUT, r, "cluster: interrupted while connecting");
	if (!is_late)
		cluster_unref(c);
	return r < 0 ? explain_connect(c, r, f) : 0;
}

int cluster_strip_words(int argc, const char **argv, int *ret_argc, struct fault *f)
{
	rados_t rados;
	int r = rados_create(&rados, NULL);

	if (r < 0)
		return fault_set(f, EXIT_CLUSTER, r, "cannot make a Ceph client: %s", strerror(-r));
	r = take_words(rados, &argc, argv, "command line", f);
	rados_shutdown(rados);
	if (r == 0)
		*ret_argc = argc;
	return r;
}
