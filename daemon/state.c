/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Copyright (C) 2026 the rbdcrypt-nbd authors */

/*
 * The run directory: who serves what on this machine. Owners claim a name before they open
 * anything, update it as they come up, and give it up at the end; commands list the volumes
 * and wait for owners to go. How a file proves that its owner lives is state_file.c's
 * business. Claims are made one at a time, under the lock of the file ".lock",
 * because two of them could find the same owner dead and both take its place; nothing else needs
 * that lock. Main thread, control thread or a volume's; owns descriptors only.
 */

#include "state.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/inotify.h>
#include <sys/stat.h>
#include <unistd.h>

#include "clock.h"
#include "state_file.h"
#include "text.h"

#define CLAIM_WAIT_MS 3000
#define POLL_MS 20
#define WATCH_MS 500

struct state {
	int dir_fd;
	int fd; /* holds the lock */
	char key[640];
	char name[STATE_NAME_BYTES];
};

static void close_fd(int *fd)
{
	if (*fd >= 0)
		(void)close(*fd);
}
#define cleanup_fd __attribute__((cleanup(close_fd)))

static void sleep_ms(int ms)
{
	(void)poll(NULL, 0, ms);
}

/* ---- the volume ---- */

void volume_state_init(struct volume_state *v)
{
	memset(v, 0, sizeof(*v));
	v->snap_id = UINT64_MAX;
	v->pool_id = -1;
	v->device = -1;
	v->io_timeout_s = -1;
	v->reattach_timeout_s = -1;
}

void volume_state_done(struct volume_state *v)
{
	free(v->request);
	v->request = NULL;
	free(v->layers);
	v->layers = NULL;
	v->n_layers = 0;
}

void volume_state_spec(const struct volume_state *v, char *buf, size_t len)
{
	char snap[300] = "";

	if (v->snap[0])
		(void)snprintf(snap, sizeof(snap), "@%s", v->snap);
	else if (v->snap_id != UINT64_MAX)
		(void)snprintf(snap, sizeof(snap), "@%llu", (unsigned long long)v->snap_id);
	if (v->file[0])
		(void)snprintf(buf, len, "file:%s", v->file);
	else
		(void)snprintf(buf, len, "%s/%s%s%s%s", v->pool, v->nspace, v->nspace[0] ? "/" : "",
			       v->image, snap);
}

const char *volume_status_name(enum volume_status s)
{
	switch (s) {
	case VOLUME_STARTING:
		return "starting";
	case VOLUME_MAPPED:
		return "mapped";
	case VOLUME_SERVING:
		return "serving";
	case VOLUME_DETACHED:
		return "detached";
	case VOLUME_DEAD:
		return "dead";
	}
	return "";
}

/* ---- the directory ---- */

int state_run_dir(const char *given, char *buf, size_t len, struct fault *f)
{
	const char *base = getenv("XDG_RUNTIME_DIR");
	int n;

	if (!given)
		given = getenv("RBDCRYPT_NBD_RUN_DIR");
	if (given && given[0]) {
		n = snprintf(buf, len, "%s", given);
	} else if (geteuid() == 0) {
		n = snprintf(buf, len, "/run/rbdcrypt-nbd");
	} else if (base && base[0]) {
		n = snprintf(buf, len, "%s/rbdcrypt-nbd", base);
	} else {
		(void)fault_set(f, EXIT_USAGE, -ENOENT,
				"no run directory: not root, and "
				"XDG_RUNTIME_DIR is not set");
		fault_hint(f, "name one with --run-dir or RBDCRYPT_NBD_RUN_DIR");
		return -ENOENT;
	}
	if (n < 0 || (size_t)n >= len)
		return fault_set(f, EXIT_USAGE, -ENAMETOOLONG,
				 "run directory: the name is too long");
	return 0;
}

static int directory_fault(const char *run_dir, int error, struct fault *f)
{
	enum exit_status status = fault_status(error, EXIT_NOT_FOUND);

	(void)fault_set(f, status, error, "%s: cannot use it as run directory: %s", run_dir,
			strerror(-error));
	if (status != EXIT_MEMORY)
		fault_hint(f, "run as root, or name another directory with --run-dir");
	return error;
}

/* For owners: made if missing, and nobody else may put files of his own under our names. */
static int open_own_dir(const char *run_dir, int *ret_fd, struct fault *f)
{
	int error = mkdir(run_dir, 0755) < 0 ? -errno : 0;
	const bool is_new = error == 0;
	cleanup_fd int fd = open(run_dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	struct stat st;

	if (fd < 0) {
		/* Why it is not there was said when it was to be made. */
		error = errno == ENOENT && error < 0 && error != -EEXIST ? error : -errno;
		return directory_fault(run_dir, error, f);
	}
	if ((is_new && fchmod(fd, 0755) < 0) || fstat(fd, &st) < 0)
		return directory_fault(run_dir, -errno, f);
	if ((st.st_uid != geteuid() && st.st_uid != 0) || st.st_mode & 022) {
		(void)fault_set(f, EXIT_PASSPHRASE, -EPERM,
				"%s: not a safe run directory: others can write to it", run_dir);
		fault_hint(f, "it must belong to you or root, with mode 0755");
		return -EPERM;
	}
	*ret_fd = fd;
	fd = -1;
	return 0;
}

int state_make_run_dir(const char *run_dir, struct fault *f)
{
	cleanup_fd int fd = -1;

	return open_own_dir(run_dir, &fd, f);
}

/* Of the file, since *last. */
static bool has_changed(int fd, struct timespec *last)
{
	const struct timespec before = *last;
	struct stat st;

	if (fstat(fd, &st) < 0)
		return false;
	*last = st.st_mtim;
	return last->tv_sec != before.tv_sec || last->tv_nsec != before.tv_nsec;
}

/*
 * The turn to claim, held by the descriptor. Short: nothing slow happens under it. Where many start
 * at once the line is long, but it moves: each turn leaves its time on the file, and only one that
 * takes too long ends the waiting.
 */
static int lock_dir(int dir_fd, int *ret_fd)
{
	cleanup_fd int fd = openat(dir_fd, ".lock", O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW,
				   0600);
	int64_t end = clock_ms() + CLAIM_WAIT_MS;
	struct timespec last = { 0 };
	int r;

	if (fd < 0)
		return -errno;
	while ((r = state_file_lock(fd)) == -EAGAIN) {
		if (has_changed(fd, &last))
			end = clock_ms() + CLAIM_WAIT_MS;
		else if (clock_ms() >= end)
			return -ETIMEDOUT;
		sleep_ms(POLL_MS);
	}
	if (r)
		return r;
	(void)futimens(fd, NULL);
	*ret_fd = fd;
	fd = -1;
	return 0;
}

/* ---- owners ---- */

static int busy_fault(const char *key, const struct volume_state *v, struct fault *f)
{
	char spec[1024];

	volume_state_spec(v, spec, sizeof(spec));
	if (v->device >= 0)
		(void)fault_set(f, EXIT_BUSY, -EBUSY,
				"%s: already mapped to /dev/nbd%d by process %d", spec, v->device,
				v->pid);
	else if (v->socket[0])
		(void)fault_set(f, EXIT_BUSY, -EBUSY, "%s: already served on %s by process %d",
				spec, v->socket, v->pid);
	else
		(void)fault_set(f, EXIT_BUSY, -EBUSY, "%s: already being started by process %d",
				v->key[0] ? spec : key, v->pid);
	return -EBUSY;
}

/* Whether the name is free, which a dead owner's is. */
static int check_free(const struct state *s, struct fault *f)
{
	struct volume_state v;
	bool is_alive = false;
	const char *why;
	int r = state_file_read(s->dir_fd, s->name, &v, &is_alive, &why);

	if (r == -ENOENT)
		return 0;
	if (r == 0) {
		if (is_alive)
			r = busy_fault(s->key, &v, f);
		volume_state_done(&v);
		return r;
	}
	if (r == -EBADMSG && !is_alive)
		return 0;
	if (r == -EBADMSG)
		return fault_set(f, EXIT_BUSY, -EBUSY,
				 "%s: already in use, by an owner whose state file is damaged",
				 s->key);
	return fault_set(f, fault_status(r, EXIT_PASSPHRASE), r,
			 "%s: cannot read the state file: %s", s->name, strerror(-r));
}

uint64_t state_pid_namespace(void)
{
	struct stat st;

	return stat("/proc/self/ns/pid", &st) == 0 ? st.st_ino : 0;
}

static int write_own(struct state *s, const struct volume_state *v)
{
	struct volume_state mine = *v;
	int old = s->fd;
	int r;

	mine.pid = (int)getpid();
	mine.pid_namespace = state_pid_namespace();
	(void)snprintf(mine.key, sizeof(mine.key), "%s", s->key);
	r = state_file_replace(s->dir_fd, s->name, &mine, &s->fd);
	if (!r)
		close_fd(&old);
	return r;
}

static int claim(struct state *s, const char *run_dir, const struct volume_state *v,
		 struct fault *f)
{
	cleanup_fd int lock_fd = -1;
	int r = open_own_dir(run_dir, &s->dir_fd, f);

	if (r)
		return r;
	r = lock_dir(s->dir_fd, &lock_fd);
	if (r == -ETIMEDOUT)
		return fault_set(f, EXIT_TIMED_OUT, r,
				 "%s: another start has held the directory for %d s", run_dir,
				 CLAIM_WAIT_MS / 1000);
	if (r)
		return directory_fault(run_dir, r, f);
	state_file_clean(s->dir_fd);
	r = check_free(s, f);
	if (r)
		return r;
	r = write_own(s, v);
	if (r)
		return fault_set(f, fault_status(r, EXIT_PASSPHRASE), r,
				 "%s: cannot write the state file: %s", run_dir, strerror(-r));
	return 0;
}

int state_claim(const char *run_dir, const char *key, const struct volume_state *v,
		struct state **ret, struct fault *f)
{
	struct state *s;
	int r;

	if (!key[0] || strlen(key) >= sizeof(s->key))
		return fault_set(f, EXIT_USAGE, -ENAMETOOLONG, "%s: empty or too long a name", key);
	s = calloc(1, sizeof(*s));
	if (!s)
		return fault_set(f, EXIT_MEMORY, -ENOMEM, "%s: out of memory", key);
	s->dir_fd = s->fd = -1;
	(void)snprintf(s->key, sizeof(s->key), "%s", key);
	state_file_name(key, s->name);
	r = claim(s, run_dir, v, f);
	if (r) {
		(void)state_release(s, /* is_removed */ false);
		return r;
	}
	*ret = s;
	return 0;
}

int state_update(struct state *s, const struct volume_state *v)
{
	return write_own(s, v);
}

/* Somebody may have cleared the directory, and somebody else then taken the name. */
static bool is_ours(const struct state *s)
{
	struct stat mine, there;

	return fstat(s->fd, &mine) == 0 &&
	       fstatat(s->dir_fd, s->name, &there, AT_SYMLINK_NOFOLLOW) == 0 &&
	       mine.st_ino == there.st_ino && mine.st_dev == there.st_dev;
}

struct state *state_release(struct state *s, bool is_removed)
{
	if (!s)
		return NULL;
	/* before the lock goes: afterwards the name may be another's */
	if (is_removed && s->fd >= 0 && is_ours(s))
		(void)state_file_unlink(s->dir_fd, s->name);
	close_fd(&s->fd);
	close_fd(&s->dir_fd);
	free(s);
	return NULL;
}

/* Nobody holds the file, so nobody is disturbed. */
void state_note_health(const char *run_dir, const char *key, const char *why)
{
	struct volume_state *v;
	struct state *file;
	struct state_list l;

	if (state_list(run_dir, &l, NULL) < 0)
		return;
	v = state_list_key(&l, key);
	if (v && !volume_is_alive(v)) {
		/* A dead owner stays one who may have to be shut out. */
		if (v->status == VOLUME_DEAD)
			v->status = VOLUME_MAPPED;
		text_copy(v->health, sizeof(v->health), why);
		if (state_claim(run_dir, key, v, &file, NULL) == 0)
			(void)state_release(file, /* is_removed */ false);
	}
	state_list_done(&l);
}

/* ---- everybody ---- */

static int compare_volumes(const void *pa, const void *pb)
{
	const struct volume_state *a = pa, *b = pb;
	char spec_a[VOLUME_SPEC_LEN], spec_b[VOLUME_SPEC_LEN];

	/* those without a device at the end */
	if (a->device != b->device)
		return (unsigned int)a->device < (unsigned int)b->device ? -1 : 1;
	volume_state_spec(a, spec_a, sizeof(spec_a));
	volume_state_spec(b, spec_b, sizeof(spec_b));
	return strcmp(spec_a, spec_b);
}

static void note_damaged(struct state_list *l, const char *name, const char *why)
{
	if (l->n_damaged++ == 0)
		(void)snprintf(l->damaged, sizeof(l->damaged), "%s: %s", name, why);
}

static int add_volume(struct state_list *l, int dir_fd, const char *name)
{
	struct volume_state v, *volumes;
	char expected[STATE_NAME_BYTES];
	bool is_alive = false;
	const char *why;
	int r = state_file_read(dir_fd, name, &v, &is_alive, &why);

	if (r == -ENOENT)
		return 0; /* removed since the directory was read */
	if (r == -ENOMEM)
		return r;
	if (r) {
		note_damaged(l, name, why);
		return 0;
	}
	state_file_name(v.key, expected);
	if (strcmp(expected, name) != 0) {
		note_damaged(l, name, "belongs under another name");
		volume_state_done(&v);
		return 0;
	}
	if (!is_alive && v.status != VOLUME_DETACHED)
		v.status = VOLUME_DEAD;
	volumes = reallocarray(l->volumes, l->n + 1, sizeof(*volumes));
	if (!volumes) {
		volume_state_done(&v);
		return -ENOMEM;
	}
	l->volumes = volumes;
	l->volumes[l->n++] = v;
	return 0;
}

static int fill_list(struct state_list *l, int dir_fd, DIR *dir)
{
	struct dirent *entry;
	int r = 0;

	while (!r && (errno = 0, entry = readdir(dir)))
		if (state_file_is_named(entry->d_name))
			r = add_volume(l, dir_fd, entry->d_name);
	if (!r && errno)
		r = -errno;
	return r;
}

int state_list(const char *run_dir, struct state_list *ret, struct fault *f)
{
	struct state_list l = { 0 };
	DIR *dir = opendir(run_dir);
	int r;

	if (!dir && errno != ENOENT)
		return directory_fault(run_dir, -errno, f);
	r = dir ? fill_list(&l, dirfd(dir), dir) : 0;
	if (dir)
		(void)closedir(dir);
	if (r) {
		state_list_done(&l);
		if (r == -ENOMEM)
			return fault_set(f, EXIT_MEMORY, r, "list of volumes: out of memory");
		return directory_fault(run_dir, r, f);
	}
	if (l.n)
		qsort(l.volumes, l.n, sizeof(*l.volumes), compare_volumes);
	*ret = l;
	return 0;
}

void state_list_done(struct state_list *l)
{
	for (unsigned int i = 0; i < l->n; i++)
		volume_state_done(&l->volumes[i]);
	free(l->volumes);
	l->volumes = NULL;
	l->n = 0;
}

struct volume_state *state_list_key(const struct state_list *l, const char *key)
{
	for (unsigned int i = 0; i < l->n; i++)
		if (strcmp(l->volumes[i].key, key) == 0)
			return &l->volumes[i];
	return NULL;
}

static bool is_owner(const struct volume_state *now, const struct volume_state *v)
{
	return now->pid == v->pid && now->started == v->started;
}

/* Whether this very owner still has the name. */
static bool is_held(int dir_fd, const char *name, const struct volume_state *v)
{
	struct volume_state now;
	bool is_alive = false, is_same;
	const char *why;
	int r = state_file_read(dir_fd, name, &now, &is_alive, &why);

	if (r)
		return r == -EBADMSG && is_alive;
	is_same = is_owner(&now, v);
	volume_state_done(&now);
	return is_alive && is_same;
}

int state_wait_gone(const char *run_dir, const struct volume_state *v, int timeout_ms)
{
	cleanup_fd int dir_fd = open(run_dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	cleanup_fd int watch_fd = inotify_init1(IN_CLOEXEC | IN_NONBLOCK);
	/* Without inotify the file is looked at every POLL_MS, which is as good and costs more. */
	bool is_watched = watch_fd >= 0 &&
			  inotify_add_watch(watch_fd, run_dir,
					    IN_CLOSE_WRITE | IN_DELETE | IN_MOVED_TO) >= 0;
	int64_t end = clock_ms() + timeout_ms;
	char name[STATE_NAME_BYTES];
	int wait_ms = is_watched ? WATCH_MS : POLL_MS;

	state_file_name(v->key, name);
	while (dir_fd >= 0 && is_held(dir_fd, name, v)) {
		struct pollfd p = { .fd = is_watched ? watch_fd : -1, .events = POLLIN };
		int64_t left = end - clock_ms();
		char events[4096];

		if (left <= 0)
			return -ETIMEDOUT;
		if (poll(&p, 1, left < wait_ms ? (int)left : wait_ms) > 0) {
			/* the kernel tells of the close before it drops the lock: look again soon
			 */
			while (read(watch_fd, events, sizeof(events)) > 0)
				continue;
			wait_ms = POLL_MS;
		} else {
			wait_ms = is_watched ? WATCH_MS : POLL_MS;
		}
	}
	return 0;
}

int state_beside(const char *run_dir, const char *key, const char *suffix, char *buf, size_t len)
{
	char name[STATE_NAME_BYTES];
	int n;

	state_file_name(key, name);
	n = snprintf(buf, len, "%s/%.*s%s", run_dir, (int)(strlen(name) - strlen(".json")), name,
		     suffix);
	return n < 0 || (size_t)n >= len ? -ENAMETOOLONG : 0;
}

int state_remove(const char *run_dir, const struct volume_state *v)
{
	cleanup_fd int dir_fd = open(run_dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	cleanup_fd int lock_fd = -1;
	char name[STATE_NAME_BYTES];
	struct volume_state now;
	bool is_alive = false, is_same = true;
	const char *why;
	int r;

	if (dir_fd < 0)
		return errno == ENOENT ? 0 : -errno;
	r = lock_dir(dir_fd, &lock_fd);
	if (r)
		return r;
	state_file_name(v->key, name);
	r = state_file_read(dir_fd, name, &now, &is_alive, &why);
	if (r == -ENOENT)
		return 0;
	if (r && r != -EBADMSG)
		return r;
	if (r == 0) {
		is_same = is_owner(&now, v);
		volume_state_done(&now);
	}
	if (is_alive || !is_same)
		return -EBUSY;
	return state_file_unlink(dir_fd, name);
}
