/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Copyright (C) 2026 the rbdcrypt-nbd authors */

/*
 * "status" for people. Not a format to parse: that is what --json is for. Called by
 * list.c on the main thread of a command; owns nothing.
 */

#include "status.h"

#include <stdint.h>
#include <string.h>
#include <time.h>

#include "link_name.h"
#include "output.h"

static void put_label(FILE *out, const char *label)
{
	fprintf(out, "  %-12s", label);
}

static void put_line(FILE *out, const char *label, const char *text)
{
	if (!text[0])
		return;
	put_label(out, label);
	output_text(out, text);
	fputc('\n', out);
}

/* "10485760 bytes (10 MiB)": the exact number, and one to read. */
static void put_size(FILE *out, uint64_t bytes)
{
	static const char *const units[] = { "KiB", "MiB", "GiB", "TiB", "PiB", "EiB" };
	double n = (double)bytes / 1024;
	size_t unit = 0;

	fprintf(out, "%llu bytes", (unsigned long long)bytes);
	if (bytes < 1024)
		return;
	while (n >= 1024 && unit + 1 < sizeof(units) / sizeof(units[0])) {
		n /= 1024;
		unit++;
	}
	fprintf(out, " (%.4g %s)", n, units[unit]);
}

static void put_time(FILE *out, uint64_t seconds)
{
	time_t t = (time_t)seconds;
	char when[64];
	struct tm tm;

	if (localtime_r(&t, &tm) && strftime(when, sizeof(when), "%F %T %z", &tm))
		fprintf(out, "%s", when);
}

static void put_state(FILE *out, const struct volume_state *v)
{
	put_label(out, "state");
	fprintf(out, "%s", volume_status_name(v->status));
	if (volume_is_alive(v))
		fprintf(out, ", process %d", v->pid);
	if (v->started) {
		fprintf(out, ", started ");
		put_time(out, v->started);
	}
	fputc('\n', out);
}

static void put_exposure(FILE *out, const struct volume_state *v)
{
	char links[LINKS_MAX][LINK_LEN];
	unsigned int n_links = link_find("/dev", v, links);

	if (v->device >= 0) {
		put_label(out, "device");
		fprintf(out, "/dev/nbd%d\n", v->device);
	}
	for (unsigned int i = 0; i < n_links; i++)
		put_line(out, "link", links[i]);
	put_line(out, "socket", v->socket);
	put_line(out, "cookie", v->cookie);
}

static void put_cluster(FILE *out, const struct volume_state *v)
{
	put_line(out, "cluster", v->fsid);
	put_line(out, "monitors", v->mons);
	if (v->user[0]) {
		put_label(out, "user");
		output_text(out, v->user);
		if (v->client[0]) {
			fprintf(out, " at ");
			output_text(out, v->client);
		}
		fputc('\n', out);
	}
	put_line(out, "conf", v->conf);
	if (v->image_id[0]) {
		put_label(out, "image");
		fprintf(out, "id ");
		output_text(out, v->image_id);
		fprintf(out, " in pool %lld\n", (long long)v->pool_id);
	}
}

static void put_sizes(FILE *out, const struct volume_state *v)
{
	put_label(out, "size");
	put_size(out, v->size);
	fputc('\n', out);
	put_label(out, "raw size");
	put_size(out, v->raw_size);
	if (v->data_offset) {
		fprintf(out, ", of which the header takes ");
		put_size(out, v->data_offset);
	}
	fputc('\n', out);
	put_label(out, "block size");
	fprintf(out, "%u bytes\n", v->block_size);
	put_label(out, "access");
	fprintf(out, "%s%s%s\n", v->is_read_only ? "read-only" : "read and write",
		v->is_exclusive ? ", exclusive" : "", v->is_trim_offered ? ", discard" : "");
}

static void put_seconds(FILE *out, int seconds, const char *none)
{
	if (seconds < 0)
		fprintf(out, "%s", none);
	else
		fprintf(out, "%d s", seconds);
}

/* Who may write the image, as far as anybody knows. */
static void put_lock(FILE *out, const struct volume_state *v)
{
	bool is_old = strcmp(v->lock, "unknown") == 0;

	if (!v->lock[0] || strcmp(v->lock, "-") == 0)
		return;
	put_label(out, "lock");
	output_text(out, v->lock);
	if (v->lock_reason[0]) {
		fprintf(out, ": ");
		output_text(out, v->lock_reason);
	}
	if (v->lock_owner[0]) {
		fprintf(out, is_old ? "; last seen " : ", held by ");
		output_text(out, v->lock_owner);
		if (is_old) {
			fprintf(out, ", ");
			put_time(out, v->lock_seen);
		}
	}
	fputc('\n', out);
}

static void put_transport(FILE *out, const struct volume_state *v)
{
	put_label(out, "connections");
	fprintf(out, "%u", v->connections);
	if (v->device >= 0) {
		fprintf(out, ", io timeout ");
		put_seconds(out, v->io_timeout_s, "the kernel's");
		fprintf(out, ", waits for a new daemon ");
		put_seconds(out, v->reattach_timeout_s, "not at all");
	}
	fputc('\n', out);
	put_line(out, "store", v->store);
	put_lock(out, v);
	if (v->engine[0]) {
		put_label(out, "encryption");
		output_text(out, v->engine);
		if (v->inline_threshold == SIZE_MAX)
			fprintf(out, ", always in place\n");
		else
			fprintf(out, ", in place up to %llu bytes\n",
				(unsigned long long)v->inline_threshold);
	}
}

/* Whether the layer could be opened again. */
static void put_key(FILE *out, const struct layer_state *l)
{
	if (!l->key_source[0])
		return;
	fprintf(out, "      key ");
	output_text(out, l->key_health);
	fprintf(out, ", from ");
	output_text(out, l->key_source);
	if (l->key_checked) {
		fprintf(out, ", checked ");
		put_time(out, l->key_checked);
	}
	if (l->key_reason[0]) {
		fprintf(out, ": ");
		output_text(out, l->key_reason);
	}
	fprintf(out, "\n");
}

static void put_layer(FILE *out, unsigned int i, const struct layer_state *l)
{
	/* As in messages and on the command line, the image itself is the first. */
	fprintf(out, "    %u ", i + 1);
	output_text(out, l->spec);
	fprintf(out, "\n      ");
	output_text(out, strcmp(l->format, "none") == 0 ? "no encryption" : l->format);
	if (l->sector_size) {
		fprintf(out, ", ");
		output_text(out, l->cipher);
		fprintf(out, ", %u-bit key, %u-byte sectors, data at %llu", l->key_bits,
			l->sector_size, (unsigned long long)l->data_offset);
		if (l->is_clone_magic)
			fprintf(out, ", formatted as a clone");
		if (l->is_inherited)
			fprintf(out, ", header of its parent");
		if (l->uuid[0]) {
			fprintf(out, ", uuid ");
			output_text(out, l->uuid);
		}
	}
	fprintf(out, "\n      raw size ");
	put_size(out, l->raw_size);
	fprintf(out, "\n");
	put_key(out, l);
}

static void put_kernel(FILE *out, const struct nbd_sysfs *k)
{
	put_label(out, "kernel");
	put_size(out, k->size);
	fprintf(out, ", blocks %u/%u%s%s%s", k->logical_block, k->physical_block,
		k->is_read_only ? ", read-only" : "", k->has_write_cache ? ", write cache" : "",
		k->has_fua ? ", fua" : "");
	if (k->discard_max)
		fprintf(out, ", discard");
	if (k->write_zeroes_max)
		fprintf(out, ", write zeroes");
	fputc('\n', out);
}

void status_print_tree(FILE *out, const struct volume_state *v)
{
	char spec[1024];

	volume_state_spec(v, spec, sizeof(spec));
	output_text(out, spec);
	fputc('\n', out);
	put_state(out, v);
	put_line(out, "health", v->health);
	put_exposure(out, v);
	put_cluster(out, v);
	put_sizes(out, v);
	put_transport(out, v);
	if (v->kernel.size)
		put_kernel(out, &v->kernel);
	if (v->n_layers)
		fprintf(out, "  layers\n");
	for (unsigned int i = 0; i < v->n_layers; i++)
		put_layer(out, i, &v->layers[i]);
}
