/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Copyright (C) 2026 the rbdcrypt-nbd authors */

/*
 * rbdcrypt-generator: what systemd runs early at boot and at each daemon-reload to turn
 * rbdcrypttab(5) into units (systemd.generator(7)). It writes below its first argument:
 *
 *	rbdcrypt-nbd@NAME.service.d/50-rbdcrypttab.conf   the volume
 *	rbdcrypt.target.requires|wants/...                started at boot
 *	DEVICE.device.wants/, rbdcrypt-wanted@NAME.service.d/...  started when a mount asks for it
 *	rbdcrypt-keys@NAME.path.d/..., MOUNT.mount.wants/ started when its key comes
 *
 * No file system but the root's may be there yet, and nothing may be asked of systemd. A wrong
 * line costs one volume, with a message, and the exit status; the rest is written all the same.
 *
 * One thread; started by the service manager as root, or by hand with a folder to look at.
 */

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "../daemon/link_name.h"
#include "tab.h"
#include "unit_text.h"

#define DROP_IN "50-rbdcrypttab.conf"
#define DEV "/dev/rbdcrypt/"

struct generator {
	const char *dir; /* to write to */
	struct tab tab;
	char **files; /* names of what was read, which the tab's entries point to */
	unsigned int n_files;
	int kmsg; /* -1: to standard error only */
	bool has_failed;
};

/* ---- saying ---- */

/*
 * There is no journal yet: the kernel's buffer is where a generator's words are found. One write is
 * one message; not dprintf, which in glibc 2.36 fails on a device that has no position. The kernel
 * refuses what is longer than 1024 bytes together with what it puts before it, and shows a message
 * without a newline only after the next one.
 */
static void say(struct generator *g, const char *message)
{
	char line[960];

	(void)fprintf(stderr, "rbdcrypt-generator: %s\n", message);
	(void)snprintf(line, sizeof(line), "<3>rbdcrypt-generator[%d]: %.900s\n", (int)getpid(),
		       message);
	if (g->kmsg >= 0)
		(void)!write(g->kmsg, line, strlen(line));
	g->has_failed = true;
}

static void told(void *arg, const char *message)
{
	say(arg, message);
}

static int complain(struct generator *g, int error, const char *what)
{
	char message[PATH_MAX + 128];

	(void)snprintf(message, sizeof(message), "%s: %s", what, strerror(-error));
	say(g, message);
	return error;
}

/* ---- writing ---- */

static int make_folders(const char *path)
{
	char part[PATH_MAX];

	for (const char *p = strchr(path + 1, '/'); p; p = strchr(p + 1, '/')) {
		(void)snprintf(part, sizeof(part), "%.*s", (int)(p - path), path);
		if (mkdir(part, 0755) < 0 && errno != EEXIST)
			return -errno;
	}
	return 0;
}

__attribute__((format(printf, 4, 5))) static int name_file(const struct generator *g, char *buf,
							   size_t len, const char *fmt, ...)
{
	int n = snprintf(buf, len, "%s/", g->dir);
	va_list ap;

	va_start(ap, fmt);
	if (n >= 0 && (size_t)n < len)
		n += vsnprintf(buf + n, len - (size_t)n, fmt, ap);
	va_end(ap);
	return n < 0 || (size_t)n >= len ? -ENAMETOOLONG : make_folders(buf);
}

/* A unit that folder (such as "rbdcrypt.target.wants") pulls in. */
static int add_link(struct generator *g, const char *folder, const char *unit, const char *template)
{
	char path[PATH_MAX], to[PATH_MAX];
	int r = name_file(g, path, sizeof(path), "%s/%s", folder, unit);

	(void)snprintf(to, sizeof(to), UNITDIR "/%s", template);
	if (r == 0 && symlink(to, path) < 0 && errno != EEXIST)
		r = -errno;
	return r < 0 ? complain(g, r, path) : 0;
}

static FILE *open_drop_in(struct generator *g, const char *unit)
{
	char path[PATH_MAX];
	int r = name_file(g, path, sizeof(path), "%s.d/" DROP_IN, unit);
	FILE *out = r < 0 ? NULL : fopen(path, "we");

	if (!out) {
		(void)complain(g, r < 0 ? r : -errno, path);
		return NULL;
	}
	fputs("# Made by rbdcrypt-generator; changes are lost.\n", out);
	return out;
}

static int close_drop_in(struct generator *g, FILE *out, const char *unit)
{
	bool is_bad = ferror(out);

	if (fclose(out) != 0 || is_bad)
		return complain(g, -EIO, unit);
	return 0;
}

/* ---- one volume ---- */

static void put_command(FILE *out, const struct tab_entry *e)
{
	fputs("ExecStart=" BINDIR "/rbdcrypt-nbd map " MAP_OPTIONS, out);
	for (unsigned int i = 0; i < e->n_keys; i++) {
		fputs(" --encryption-passphrase-file ", out);
		unit_put_argument(out, e->keys[i]);
	}
	if (e->options[0]) {
		fputs(" -o ", out);
		unit_put_argument(out, e->options);
	}
	/* As in the template; the last one counts where an option is given twice. */
	fputs(" $RBDCRYPT_OPTIONS -- ", out);
	unit_put_argument(out, e->spec);
	fputc('\n', out);
}

/* The file system that a key is on. What a specifier stands for is known later, its folder now. */
static void put_mount_of(FILE *out, const char *key)
{
	char folder[PATH_MAX];
	const char *specifier = strchr(key, '%');
	size_t n = specifier ? (size_t)(specifier - key) : strlen(key);

	while (specifier && key[n - 1] != '/')
		n--;
	if (n >= sizeof(folder))
		return;
	(void)snprintf(folder, sizeof(folder), "%.*s", (int)n, key);
	fputs("RequiresMountsFor=", out);
	unit_put_word(out, folder);
	fputc('\n', out);
}

/* device: its unit's name without the suffix, or "" when it has none. */
static int write_service(struct generator *g, const struct tab_entry *e, const char *unit,
			 const char *device)
{
	FILE *out = open_drop_in(g, unit);

	if (!out)
		return -EIO;
	/*
	 * First of all: of a file that it cannot read to its end, systemd keeps the beginning, and
	 * the template's command is for an image that has the unit's name.
	 */
	fputs("[Service]\nExecStart=\n\n[Unit]\nDescription=Volume ", out);
	unit_put_value(out, e->name);
	fputs(" (", out);
	unit_put_value(out, e->spec);
	fputs(")\nSourcePath=", out);
	unit_put_value(out, e->file);
	fputc('\n', out);
	for (unsigned int i = 0; i < e->n_keys; i++) {
		if (e->keys[i][0] == '/')
			put_mount_of(out, e->keys[i]);
	}
	if (e->key_mount) {
		fputs("AssertPathIsMountPoint=", out);
		unit_put_value(out, e->key_mount);
		fputs("\nRequiresMountsFor=", out);
		unit_put_word(out, e->key_mount);
		fputc('\n', out);
	}
	/* What mounts this very device is ordered after that target, and stops before us. */
	if (device[0])
		fprintf(out, "Wants=blockdev@%s.target\nBefore=blockdev@%s.target\n", device,
			device);
	if (!e->is_optional && !e->is_waiting && !e->is_manual)
		fputs("Before=rbdcrypt.target\n", out);
	fputs("\n[Service]\n", out);
	for (unsigned int i = 0; i < e->n_keys; i++) {
		/* The template's services have a keyring each, with nothing in it. */
		if (strncmp(e->keys[i], "keyring:", 8) == 0)
			fputs("KeyringMode=shared\n", out);
	}
	if (e->start_timeout)
		fprintf(out, "TimeoutStartSec=%s\n", e->start_timeout);
	put_command(out, e);
	return close_drop_in(g, out, unit);
}

/* Nothing but its key starts it: the file, or the mount that the file is on. noauto: nothing. */
static int write_wait(struct generator *g, const struct tab_entry *e, const char *unit)
{
	char path_unit[256], mount[PATH_MAX], folder[PATH_MAX];
	FILE *out;
	int r;

	(void)snprintf(path_unit, sizeof(path_unit), "rbdcrypt-keys@%s.path", e->name);
	out = open_drop_in(g, path_unit);
	if (!out)
		return -EIO;
	fputs("[Path]\nPathExists=", out);
	unit_put_value(out, e->awaited);
	fputc('\n', out);
	r = close_drop_in(g, out, path_unit);
	if (r == 0 && !e->is_manual)
		r = add_link(g, "rbdcrypt.target.wants", path_unit, "rbdcrypt-keys@.path");
	if (r < 0 || e->is_manual || !e->key_mount)
		return r;
	/* A path unit does not see that something is mounted over the folder it looks into. */
	r = unit_escape_path(e->key_mount, mount, sizeof(mount) - 16);
	if (r < 0)
		return complain(g, r, e->key_mount);
	(void)snprintf(folder, sizeof(folder), "%.4000s.mount.wants", mount);
	return add_link(g, folder, unit, "rbdcrypt-nbd@.service");
}

/* Whoever asks for the device, at path, starts the volume, if the device is not there. */
static int write_wanted(struct generator *g, const struct tab_entry *e, const char *path,
			const char *device)
{
	char unit[256], folder[4200];
	FILE *out;
	int r;

	(void)snprintf(unit, sizeof(unit), "rbdcrypt-wanted@%s.service", e->name);
	out = open_drop_in(g, unit);
	if (!out)
		return -EIO;
	fputs("[Unit]\nConditionPathExists=!", out);
	unit_put_value(out, path);
	fputc('\n', out);
	r = close_drop_in(g, out, unit);
	if (r < 0)
		return r;
	(void)snprintf(folder, sizeof(folder), "%s.device.wants", device);
	return add_link(g, folder, unit, "rbdcrypt-wanted@.service");
}

/*
 * The service of a line that is left out may be running. Without its drop-in it would still have
 * the template's command, and a restart would leave the device to a process that cannot serve it.
 * A unit without a command is neither started nor restarted; it can be stopped.
 */
static void write_refusal(struct generator *g, const struct tab_refusal *refusal)
{
	char unit[256];
	FILE *out;

	(void)snprintf(unit, sizeof(unit), "rbdcrypt-nbd@%s.service", refusal->name);
	out = open_drop_in(g, unit);
	if (!out)
		return;
	fputs("[Service]\nExecStart=\n\n[Unit]\nSourcePath=", out);
	unit_put_value(out, refusal->file);
	/* The last line, as it holds anything that stood in the table. */
	fputs("\nDescription=", out);
	unit_put_value(out, refusal->message);
	fputc('\n', out);
	(void)close_drop_in(g, out, unit);
}

static int write_volume(struct generator *g, const struct tab_entry *e)
{
	char unit[256], link[2048], path[sizeof(DEV) + sizeof(link)], device[4096] = "";
	int r = 0;

	(void)snprintf(unit, sizeof(unit), "rbdcrypt-nbd@%s.service", e->name);
	if (!e->image.is_file) {
		r = link_of_image(e->image.pool, e->image.nspace, e->image.image, e->image.snap,
				  e->image.snap_id, link, sizeof(link));
		(void)snprintf(path, sizeof(path), DEV "%s", r == 0 ? link : "");
		if (r == 0)
			r = unit_escape_path(path, device, sizeof(device));
		/* No unit can have that name; the volume works all the same. */
		if (r < 0 || strlen(device) > NAME_MAX - strlen("blockdev@.target"))
			device[0] = 0;
	}
	r = write_service(g, e, unit, device);
	if (r < 0)
		return r;
	if (e->is_waiting)
		return write_wait(g, e, unit);
	if (device[0])
		r = write_wanted(g, e, path, device);
	if (r < 0 || e->is_manual)
		return r;
	return add_link(g, e->is_optional ? "rbdcrypt.target.wants" : "rbdcrypt.target.requires",
			unit, "rbdcrypt-nbd@.service");
}

/* ---- all of them ---- */

static void read_file(struct generator *g, const char *path)
{
	char **files = realloc(g->files, (g->n_files + 1) * sizeof(*files));
	FILE *in = NULL;
	int r;

	if (files) {
		g->files = files;
		files[g->n_files] = strdup(path);
		in = files[g->n_files] ? fopen(path, "re") : NULL;
	}
	if (!in) {
		if (errno != ENOENT)
			(void)complain(g, -errno, path);
		if (files)
			free(files[g->n_files]);
		return;
	}
	r = tab_read(&g->tab, in, g->files[g->n_files++], told, g);
	if (r < 0)
		(void)complain(g, r, path);
	(void)fclose(in);
}

/* What editors and package managers leave behind is not a tab. */
static int is_tab(const struct dirent *d)
{
	size_t n = strlen(d->d_name);

	return d->d_name[0] != '.' && d->d_name[n - 1] != '~' && !strstr(d->d_name, ".dpkg-");
}

static int by_name(const struct dirent **a, const struct dirent **b)
{
	return strcmp((*a)->d_name, (*b)->d_name);
}

static void read_all(struct generator *g, const char *path)
{
	char folder[PATH_MAX - NAME_MAX - 2], file[PATH_MAX];
	struct dirent **list = NULL;
	int n;

	read_file(g, path);
	(void)snprintf(folder, sizeof(folder), "%s.d", path);
	n = scandir(folder, &list, is_tab, by_name);
	if (n < 0 && errno != ENOENT)
		(void)complain(g, -errno, folder);
	for (int i = 0; i < n; i++) {
		(void)snprintf(file, sizeof(file), "%s/%s", folder, list[i]->d_name);
		read_file(g, file);
		free(list[i]);
	}
	free(list);
}

static void write_all(struct generator *g)
{
	bool is_started = false;

	/* Before the volumes: one of the same name takes its place. */
	for (unsigned int i = 0; i < g->tab.n_refusals; i++)
		write_refusal(g, &g->tab.refusals[i]);
	for (unsigned int i = 0; i < g->tab.n; i++) {
		const struct tab_entry *e = &g->tab.entries[i];

		is_started = is_started || !e->is_manual;
		/* Said where it failed; the others are still wanted. */
		(void)write_volume(g, e);
	}
	if (is_started)
		(void)add_link(g, "remote-fs.target.wants", "rbdcrypt.target", "rbdcrypt.target");
}

int main(int argc, char **argv)
{
	const char *path = getenv("RBDCRYPTTAB");
	struct generator g = { .kmsg = -1 };

	if (argc != 2 && argc != 4) {
		(void)fprintf(stderr, "usage: rbdcrypt-generator FOLDER [EARLY LATE]\n");
		return EXIT_USAGE;
	}
	(void)umask(0022);
	/* systemd says so to its generators (systemd.generator(7)). */
	if (getenv("SYSTEMD_SCOPE"))
		g.kmsg = open("/dev/kmsg", O_WRONLY | O_CLOEXEC | O_NOCTTY);
	g.dir = argv[1];
	read_all(&g, path ? path : "/etc/rbdcrypt/rbdcrypttab");
	write_all(&g);
	tab_done(&g.tab);
	for (unsigned int i = 0; i < g.n_files; i++)
		free(g.files[i]);
	free(g.files);
	return g.has_failed ? EXIT_USAGE : EXIT_OK;
}
