/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Copyright (C) 2026 the rbdcrypt-nbd authors */

/*
 * The table of commands and options, and looking things up in it. Constant data:
 * the parser (options.c), the help and the manual page (usage.c) read it, from
 * any thread. To add an option: a field in struct options and a row here.
 */

#include "option_table.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "log.h"
#include "secret.h"

#define C_MAP (1u << COMMAND_MAP)
#define C_UNMAP (1u << COMMAND_UNMAP)
#define C_ATTACH (1u << COMMAND_ATTACH)
#define C_DETACH (1u << COMMAND_DETACH)
#define C_LIST (1u << COMMAND_LIST)
#define C_STATUS (1u << COMMAND_STATUS)
#define C_STATS (1u << COMMAND_STATS)
#define C_CHECK_KEYS (1u << COMMAND_CHECK_KEYS)
#define C_DOCTOR (1u << COMMAND_DOCTOR)
#define C_SERVE (1u << COMMAND_SERVE)
#define C_HOST (1u << COMMAND_DAEMON)
#define C_DEVICE (C_MAP | C_ATTACH)
#define C_DAEMON (C_MAP | C_ATTACH | C_SERVE)
#define C_DRY (C_MAP | C_SERVE)
#define C_PRINTS (C_LIST | C_STATUS | C_STATS | C_CHECK_KEYS | C_DOCTOR | C_DRY)
#define C_NAMED (C_DAEMON | C_UNMAP | C_DETACH | C_STATUS | C_STATS | C_CHECK_KEYS | C_DOCTOR)
#define C_ALL (C_NAMED | C_LIST | C_HOST)

#define AT(field) offsetof(struct options, field)

#define MONTH_S (30u * 86400u)
#define KIB UINT64_C(1024)
#define MIB (KIB * KIB)

/* clang-format off */
const struct option_row option_rows[] = {
	{ "conf", 'c', OPTION_STRING, GROUP_CEPH, C_ALL, OPTION_TOLERATED | OPTION_PATH, AT(conf), "FILE",
	  .help = "Ceph configuration file. Default: $CEPH_CONF, /etc/ceph/CLUSTER.conf, ~/.ceph/CLUSTER.conf." },
	{ "cluster", 0, OPTION_STRING, GROUP_CEPH, C_ALL, OPTION_TOLERATED, AT(cluster), "NAME",
	  .help = "Name of the cluster, which the default configuration file is named after. Default: ceph." },
	{ "id", 'i', OPTION_ID, GROUP_CEPH, C_ALL, OPTION_TOLERATED, AT(name), "ID",
	  .help = "Ceph user without the type: --id admin is --name client.admin." },
	{ "user", 0, OPTION_ID, GROUP_CEPH, C_ALL, OPTION_TOLERATED | OPTION_ALIAS, AT(name), "ID",
	  .help = "The same as --id." },
	{ "name", 'n', OPTION_STRING, GROUP_CEPH, C_ALL, OPTION_TOLERATED, AT(name), "TYPE.ID",
	  .help = "Ceph user with its type. Default: client.admin." },

	{ "pool", 'p', OPTION_STRING, GROUP_IMAGE, C_NAMED, 0, AT(spec.pool), "NAME",
	  .help = "Pool of the image, for those who do not write it into SPEC. Default: what rbd_default_pool says." },
	{ "namespace", 0, OPTION_STRING, GROUP_IMAGE, C_NAMED, OPTION_MAY_BE_EMPTY, AT(spec.nspace), "NAME",
	  .help = "Namespace inside the pool." },
	{ "image", 0, OPTION_STRING, GROUP_IMAGE, C_NAMED, 0, AT(spec.image), "NAME",
	  .help = "Image, instead of SPEC." },
	{ "snap", 0, OPTION_STRING, GROUP_IMAGE, C_NAMED, 0, AT(spec.snap), "NAME",
	  .help = "Snapshot of the image. A snapshot is always read-only." },
	{ "snap-id", 0, OPTION_COUNT, GROUP_IMAGE, C_NAMED, OPTION_TOLERATED, AT(spec.snap_id), "N",
	  .min = 1, .max = UINT64_MAX - 2,
	  .help = "Snapshot by its number instead of its name. Not together with a name." },

	{ "encryption-format", 0, OPTION_LIST, GROUP_ENCRYPTION, C_DAEMON | C_DOCTOR, OPTION_TOLERATED, AT(formats), "FORMAT",
	  .choices = "luks|luks1|luks2",
	  .help = "Encryption format that the layer must have: luks (either), luks1 or luks2. Once per passphrase file, in the same order, or not at all." },
	{ "encryption-passphrase-file", 0, OPTION_LIST, GROUP_ENCRYPTION, C_DAEMON | C_DOCTOR, OPTION_TOLERATED, AT(passphrase_files), "SOURCE",
	  .help = "Where the passphrase is: a file, which counts byte for byte, or another source, see PASSPHRASES. Repeat it for a chain of clones: the image first, then its parent, and so on; the last one is also tried on what lies further up. none: serve the image as it is, also if there is a default." },
	{ "allow-insecure-permissions", 0, OPTION_FLAG, GROUP_ENCRYPTION, C_DAEMON | C_DOCTOR, 0, AT(is_insecure_allowed), NULL,
	  .help = "Accept passphrase files that other users can read." },
	{ "keyfile-offset", 0, OPTION_BYTES_LIST, GROUP_ENCRYPTION, C_DAEMON | C_DOCTOR, 0, AT(keyfile_offsets), "BYTES",
	  .max = INT64_MAX,
	  .help = "Where the passphrase begins in its source. Once for all passphrase files, or once for each, in the same order. Not for what is typed or in a keyring." },
	{ "keyfile-size", 0, OPTION_BYTES_LIST, GROUP_ENCRYPTION, C_DAEMON | C_DOCTOR, 0, AT(keyfile_sizes), "BYTES",
	  .max = SECRET_MAX,
	  .help = "How long the passphrase is: that much is read of its source, which must have it. 0: to the end. As with --keyfile-offset." },
	{ "tries", 0, OPTION_UINT, GROUP_ENCRYPTION, C_DAEMON, 0, AT(tries), "N",
	  .fallback = "3", .min = 1, .max = 100,
	  .help = "How often somebody is asked for a passphrase (ask:) that turns out to be wrong. Where the command asks for the daemon of the host, once." },
	{ "key-timeout", 0, OPTION_SECONDS, GROUP_ENCRYPTION, C_DAEMON | C_DOCTOR, 0, AT(key_timeout_s), "SECONDS",
	  .fallback = "90", .max = 86400,
	  .help = "Time limit for getting one passphrase: from whoever is asked, a program, a socket or a pipe. 0: none." },
	{ "key-check-interval", 0, OPTION_SECONDS, GROUP_ENCRYPTION, C_DAEMON, 0, AT(key_check_interval_s), "SECONDS",
	  .fallback = "24h", .max = MONTH_S,
	  .help = "How often to make sure that the volume could be opened again, see LOSS PROTECTION. 0: never." },
	{ "encryption-strict", 0, OPTION_FLAG, GROUP_ENCRYPTION, C_DAEMON, 0, AT(is_encryption_strict), NULL,
	  .help = "Refuse a chain that has an ancestor without encryption." },
	{ "passphrase-newline", 0, OPTION_CHOICE, GROUP_ENCRYPTION, C_DAEMON, 0, AT(newline), "POLICY",
	  .choices = "auto|keep|strip", .fallback = "auto",
	  .help = "What to do with one newline at the end of a passphrase file. auto: try the file as it is, then without the newline, and say so; keep: as it is; strip: without." },

	{ "device", 0, OPTION_STRING, GROUP_DEVICE, C_DEVICE, OPTION_TOLERATED, AT(device), "/dev/nbdN",
	  .help = "The device to use. One that is free but that somebody has open is waited for, five seconds at most. Default: a free one. attach needs it." },
	{ "read-only", 0, OPTION_FLAG, GROUP_DEVICE, C_DAEMON | C_DOCTOR, OPTION_TOLERATED, AT(is_read_only), NULL,
	  .help = "Refuse writes." },
	{ "exclusive", 0, OPTION_FLAG, GROUP_DEVICE, C_DAEMON, OPTION_TOLERATED, AT(is_exclusive), NULL,
	  .help = "Take the image's exclusive lock now and keep it: writes by other clients block. A volume that is read-only takes none." },
	{ "without-exclusive-lock", 0, OPTION_FLAG, GROUP_DEVICE, C_DAEMON, 0, AT(is_without_lock), NULL,
	  .help = "Write to a chain of clones with different keys although the image has no exclusive-lock feature. Nothing keeps a second writer out then." },
	{ "notrim", 0, OPTION_FLAG, GROUP_DEVICE, C_DAEMON, OPTION_TOLERATED, AT(is_notrim), NULL,
	  .help = "Do not offer discard." },
	{ "io-timeout", 0, OPTION_SECONDS, GROUP_DEVICE, C_DEVICE, OPTION_TOLERATED, AT(io_timeout_s), "SECONDS",
	  .max = MONTH_S,
	  .help = "After this time the kernel gives a request up on its socket and sends it again on another. 0: it waits for ever and only warns. Default: the kernel's own, which waits." },
	{ "timeout", 0, OPTION_SECONDS, GROUP_DEVICE, C_DEVICE, OPTION_TOLERATED | OPTION_ALIAS, AT(io_timeout_s), "SECONDS",
	  .max = MONTH_S, .help = "The old name of --io-timeout." },
	{ "reattach-timeout", 0, OPTION_SECONDS, GROUP_DEVICE, C_DEVICE | C_UNMAP | C_DETACH, OPTION_TOLERATED, AT(reattach_timeout_s), "SECONDS",
	  .fallback = "30", .max = MONTH_S,
	  .help = "How long requests wait for the daemon to come back before they fail; for unmap and detach, how long to wait until the daemon is gone, and for unmap before that, until the device can be opened and the kernel has written back." },
	{ "cookie", 0, OPTION_STRING, GROUP_DEVICE, C_DEVICE, OPTION_TOLERATED, AT(cookie), "TEXT",
	  .max = 511,
	  .help = "Text that the kernel keeps with the device and demands again at attach, so that a device cannot get the wrong image. Anybody can read it. Default: made from the cluster, pool, image and snapshot ids." },
	{ "show-cookie", 0, OPTION_FLAG, GROUP_DEVICE, C_DEVICE, OPTION_TOLERATED, AT(is_cookie_shown), NULL,
	  .help = "Print the cookie after the device." },
	{ "block-size", 0, OPTION_BLOCK_SIZE, GROUP_DEVICE, C_DAEMON, 0, AT(block_size), "BYTES",
	  .choices = "auto|512|1024|2048|4096", .fallback = "auto",
	  .help = "Block size of the device. auto: the encryption's sector size, but 512 when a partition table or filesystem made for 512 is found." },
	{ "connections", 0, OPTION_UINT, GROUP_DEVICE, C_DEVICE, 0, AT(connections), "N",
	  .min = 1, .max = 64,
	  .help = "Sockets between the kernel and the daemon. Default: one per processor, four at most." },
	{ "new", 0, OPTION_FLAG, GROUP_DEVICE, C_MAP, 0, AT(is_new), NULL,
	  .help = "Map the image once more although it is mapped already. Two devices of one image do not see each other's caches." },
	{ "resume", 0, OPTION_FLAG, GROUP_DEVICE, C_MAP, 0, AT(is_resuming), NULL,
	  .help = "If the image is still mapped to a device whose daemon is gone, attach it there instead of refusing; for services that are restarted." },
	{ "no-udev-wait", 0, OPTION_FLAG, GROUP_DEVICE, C_DEVICE, 0, AT(is_udev_ignored), NULL,
	  .help = "Do not wait until udev has seen the device; for containers without udev events." },
	{ "nbds_max", 0, OPTION_UINT, GROUP_DEVICE, C_DEVICE, OPTION_TOLERATED | OPTION_COSTLY, AT(nbds_max), "N",
	  .min = 1, .max = 1u << 20,
	  .help = "Number of devices, if the kernel module has to be loaded." },
	{ "max_part", 0, OPTION_UINT, GROUP_DEVICE, C_DEVICE, OPTION_TOLERATED | OPTION_COSTLY, AT(max_part), "N",
	  .min = 1, .max = 255,
	  .help = "Partitions per device, if the kernel module has to be loaded." },
	{ "force", 0, OPTION_FLAG, GROUP_DEVICE, C_UNMAP | C_DETACH, 0, AT(is_forced), NULL,
	  .help = "Unmap although the device is in use, cannot be opened, or might not open again (see LOSS PROTECTION). What its users have not written yet is lost. detach: although it might not open again." },
	{ "wait", 0, OPTION_SECONDS, GROUP_DEVICE, C_UNMAP, 0, AT(wait_s), "SECONDS",
	  .fallback = "0", .max = 86400,
	  .help = "How long to wait for those who use the device before refusing." },
	{ "try-netlink", 0, OPTION_IGNORED, GROUP_DEVICE, C_DEVICE, OPTION_TOLERATED, 0, NULL,
	  .help = "Accepted for rbd-nbd's sake: netlink is the only way here." },
	{ "quiesce", 0, OPTION_REFUSED, GROUP_DEVICE, C_DEVICE, OPTION_TOLERATED, 0, NULL,
	  .help = "Not supported yet, and refused." },
	{ "quiesce-hook", 0, OPTION_REFUSED_VALUE, GROUP_DEVICE, C_DEVICE, OPTION_TOLERATED, 0, "FILE",
	  .help = "Not supported yet, and refused." },

	{ "socket", 'U', OPTION_STRING, GROUP_SERVE, C_SERVE, OPTION_PATH, AT(socket), "PATH",
	  .max = 107, .help = "Unix socket to listen on." },
	{ "allow-user", 0, OPTION_LIST, GROUP_SERVE, C_SERVE, 0, AT(allow_users), "USER",
	  .help = "User who may connect, by name or number; can be repeated. With this or --allow-group nobody else may but root and the user that the daemon runs as. See VIRTUAL MACHINES." },
	{ "allow-group", 0, OPTION_LIST, GROUP_SERVE, C_SERVE, 0, AT(allow_groups), "GROUP",
	  .help = "Group whose members may connect, by name or number; can be repeated." },
	{ "socket-mode", 0, OPTION_MODE, GROUP_SERVE, C_SERVE, 0, AT(socket_mode), "MODE",
	  .help = "Permissions of the socket's file, in octal; who connects needs to write. Default: 0660 when a group is given, else 0666 when there is a list of users or groups, which decides then, else 0600." },
	{ "socket-owner", 0, OPTION_STRING, GROUP_SERVE, C_SERVE, 0, AT(socket_owner), "USER",
	  .max = 255, .help = "Owner of the socket's file, by name or number." },
	{ "socket-group", 0, OPTION_STRING, GROUP_SERVE, C_SERVE, 0, AT(socket_group), "GROUP",
	  .max = 255, .help = "Group of the socket's file, by name or number." },
	{ "single", 's', OPTION_FLAG, GROUP_SERVE, C_SERVE, OPTION_OWN_PROCESS, AT(is_single), NULL,
	  .help = "Serve one client on standard input and output." },
	{ "export-name", 0, OPTION_STRING, GROUP_SERVE, C_SERVE, OPTION_MAY_BE_EMPTY, AT(export_name), "NAME",
	  .max = 4096, .help = "Name of the export. Default: SPEC. The empty name always works too." },

	{ "dry-run", 0, OPTION_FLAG, GROUP_OUTPUT, C_DRY, OPTION_OWN_PROCESS, AT(is_dry_run), NULL,
	  .help = "Map nothing: show the layers of the image, how many passphrases they need and in which order, and everything that would be refused. No passphrase is tried. The exit status is 0 if nothing stands in the way, else that of the first refusal." },
	{ "test-keys", 0, OPTION_FLAG, GROUP_OUTPUT, C_DRY, 0, AT(is_key_tested), NULL,
	  .help = "With --dry-run: also try the passphrase files, and say which file opens which layer. It takes as long as unlocking does." },
	{ "format", 0, OPTION_CHOICE, GROUP_OUTPUT, C_PRINTS, OPTION_TOLERATED, AT(format), "FORMAT",
	  .choices = "plain|json|xml", .fallback = "plain", .help = "Output format." },
	{ "json", 0, OPTION_CONST, GROUP_OUTPUT, C_PRINTS, 0, AT(format), NULL,
	  .min = OUTPUT_JSON, .help = "The same as --format json." },
	{ "pretty-format", 0, OPTION_FLAG, GROUP_OUTPUT, C_PRINTS, OPTION_TOLERATED, AT(is_pretty), NULL,
	  .help = "Lay json and xml out for people." },
	{ "accept-header", 0, OPTION_FLAG, GROUP_OUTPUT, C_CHECK_KEYS, 0, AT(is_header_accepted), NULL,
	  .help = "A header that has changed, but still opens with the same key, is the one to expect from now on: after a passphrase was changed." },
	{ "interval", 0, OPTION_SECONDS, GROUP_OUTPUT, C_STATS, 0, AT(interval_s), "SECONDS",
	  .fallback = "1", .max = 86400,
	  .help = "How long to measure. 0: only what was counted so far." },
	{ "all", 0, OPTION_FLAG, GROUP_OUTPUT, C_LIST, 0, AT(is_all), NULL,
	  .help = "Also list volumes that are served on a socket, and devices whose daemon is gone." },

	{ "options", 'o', OPTION_KEYS, GROUP_PROCESS, C_ALL, 0, 0, "KEY[=VALUE],...",
	  .help = "Other options without their dashes, separated by commas. A comma inside a value is written \\, and a backslash \\\\. Can be repeated." },
	{ "foreground", 'f', OPTION_FLAG, GROUP_PROCESS, C_DAEMON, OPTION_TOLERATED | OPTION_OWN_PROCESS, AT(is_foreground), NULL,
	  .help = "Stay in the foreground." },
	{ "no-daemon", 0, OPTION_FLAG, GROUP_PROCESS, C_DAEMON | C_UNMAP | C_DETACH, OPTION_OWN_PROCESS, AT(is_private), NULL,
	  .help = "Do not ask the host's daemon although it runs: map, attach and serve start a process for this volume alone; unmap and detach act themselves." },
	{ "control-group", 0, OPTION_STRING, GROUP_PROCESS, C_HOST, 0, AT(control_group), "GROUP",
	  .max = 255, .help = "Group whose members may use the control socket, with some limits. Default: only root." },
	{ "debug", 'd', OPTION_FLAG, GROUP_PROCESS, C_ALL, OPTION_TOLERATED | OPTION_ALSO_CEPH | OPTION_OWN_PROCESS, AT(is_debug), NULL,
	  .help = "Stay in the foreground and log everything to standard error." },
	{ "log-file", 0, OPTION_STRING, GROUP_PROCESS, C_DAEMON | C_HOST, OPTION_TOLERATED | OPTION_ALSO_CEPH | OPTION_OWN_PROCESS, AT(log_file), "FILE",
	  .help = "Append the log to this file; Ceph's own log goes there too. Default: the journal, or syslog." },
	{ "log-level", 0, OPTION_CHOICE, GROUP_PROCESS, C_ALL, OPTION_OWN_PROCESS, AT(log_level), "LEVEL",
	  .choices = "error|warning|notice|info|debug", .fallback = "notice", .help = "How much to log." },
	{ "open-timeout", 0, OPTION_SECONDS, GROUP_PROCESS, C_DAEMON | C_DOCTOR, 0, AT(open_timeout_s), "SECONDS",
	  .fallback = "30", .max = 86400,
	  .help = "Time limit for reaching the cluster and opening the image. 0: none." },
	{ "run-dir", 0, OPTION_STRING, GROUP_PROCESS, C_ALL, OPTION_OWN_PROCESS, AT(run_dir), "DIR",
	  .max = 4000, .help = "Where the state of the volumes is kept. Every command must be told the same. Default: /run/rbdcrypt-nbd, and in $XDG_RUNTIME_DIR for users other than root." },
	{ "workers", 0, OPTION_UINT, GROUP_PROCESS, C_DAEMON | C_HOST, OPTION_OWN_PROCESS, AT(workers), "N",
	  .min = 1, .max = 1024, .help = "Encryption threads. Default: one per processor." },
	{ "queue-memory", 0, OPTION_BYTES, GROUP_PROCESS, C_DAEMON, OPTION_COSTLY, AT(queue_memory), "BYTES",
	  .fallback = "96M", .min = 33 * MIB, .max = 1024 * 1024 * MIB,
	  .help = "Memory for requests under way, per volume; at least 33M." },
	{ "inline-threshold", 0, OPTION_BYTES, GROUP_PROCESS, C_DAEMON, 0, AT(inline_threshold), "BYTES",
	  .max = 32 * MIB,
	  .help = "Requests up to this size are not handed to an encryption thread. Default: measured at start." },
	{ "crypto-engine", 0, OPTION_CHOICE, GROUP_PROCESS, C_DAEMON, 0, AT(crypto_engine), "ENGINE",
	  .choices = XTS_CHOICES, .fallback = "auto",
	  .help = "What encrypts and decrypts. auto: the fastest that the processor can run. Each is compared with openssl when the volume is opened; if one differs, or the processor cannot run it, openssl is used and the log says so." },
	{ "store", 0, OPTION_CHOICE, GROUP_PROCESS, C_DAEMON, 0, AT(store), "STORE",
	  .choices = "auto|librbd|rados", .fallback = "auto",
	  .help = "How the image's objects are reached. librbd: by Ceph's library; rados: by the program itself, layer by layer. auto: rados for a chain of clones with different keys, for clones of clones with one key that have the exclusive-lock feature, and for snapshots; else librbd, past which go reads that need nothing of it." },
	{ "help", 'h', OPTION_COMMAND, GROUP_PROCESS, C_ALL, 0, 0, NULL, .min = COMMAND_HELP,
	  .help = "Show what the command takes." },
	{ "version", 'v', OPTION_COMMAND, GROUP_PROCESS, C_ALL, 0, 0, NULL, .min = COMMAND_VERSION,
	  .help = "Show the version." },
	{ "dump-options", 0, OPTION_COMMAND, GROUP_PROCESS, 0, OPTION_HIDDEN, 0, NULL, .min = COMMAND_DUMP_OPTIONS,
	  .help = "The OPTIONS section of the manual page." },
	{ "dump-completion", 0, OPTION_COMMAND, GROUP_PROCESS, 0, OPTION_HIDDEN, 0, NULL, .min = COMMAND_DUMP_COMPLETION,
	  .help = "The completion for bash." },

	{ "unlock-timeout", 0, OPTION_SECONDS, GROUP_LIMITS, C_DAEMON, 0, AT(unlock_timeout_s), "SECONDS",
	  .fallback = "2m", .max = 86400,
	  .help = "Time limit for trying one passphrase on one header. 0: none." },
	{ "luks-pbkdf2-iterations-max", 0, OPTION_COUNT, GROUP_LIMITS, C_DAEMON, 0, AT(pbkdf2_iterations_max), "N",
	  .fallback = "50000000", .min = 1, .max = UINT32_MAX,
	  .help = "Refuse a header that asks for more PBKDF2 iterations than this." },
	{ "luks-argon2-time-max", 0, OPTION_UINT, GROUP_LIMITS, C_DAEMON, 0, AT(argon2_time_max), "N",
	  .fallback = "64", .min = 1, .max = UINT32_MAX,
	  .help = "Refuse a header that asks for more Argon2 passes than this." },
	{ "luks-argon2-memory-max", 0, OPTION_BYTES, GROUP_LIMITS, C_DAEMON, 0, AT(argon2_memory_max), "BYTES",
	  .fallback = "4G", .min = 32 * KIB, .max = 4 * KIB * MIB,
	  .help = "Refuse a header that asks for more Argon2 memory than this." },
	{ "luks-argon2-lanes-max", 0, OPTION_UINT, GROUP_LIMITS, C_DAEMON, 0, AT(argon2_lanes_max), "N",
	  .fallback = "16", .min = 1, .max = 64,
	  .help = "Refuse a header that asks for more Argon2 lanes than this." },
};
/* clang-format on */
const unsigned int option_row_count = sizeof(option_rows) / sizeof(option_rows[0]);

_Static_assert(sizeof(option_rows) / sizeof(option_rows[0]) <= OPTION_ROWS_MAX,
	       "struct options.is_given has room for that many");
_Static_assert(LOG_LEVEL_NOTICE == 2 && LOG_LEVEL_DEBUG == 4, "the choices of --log-level");
_Static_assert(OUTPUT_JSON == 1 && OUTPUT_XML == 2, "the choices of --format");
_Static_assert(XTS_OPENSSL == 1 && XTS_VAES512 == 4, "the choices of --crypto-engine");
_Static_assert(STORE_LIBRBD == 1 && STORE_RADOS == 2, "the choices of --store");
_Static_assert(NEWLINE_KEEP == 1 && NEWLINE_STRIP == 2, "the choices of --passphrase-newline");

const struct command_row command_rows[] = {
	{ COMMAND_MAP, "map", "SPEC",
	  "Map an image or snapshot to a device and print the device." },
	{ COMMAND_UNMAP, "unmap", "DEVICE|SPEC|COOKIE", "Take the device away." },
	{ COMMAND_ATTACH, "attach", "--device DEVICE SPEC",
	  "Serve a device whose daemon is gone again." },
	{ COMMAND_DETACH, "detach", "DEVICE|SPEC|COOKIE",
	  "Stop the daemon and leave the device waiting for attach." },
	{ COMMAND_LIST, "list|list-mapped|ls|show-mapped", "",
	  "List the volumes of this machine." },
	{ COMMAND_STATUS, "status", "[DEVICE|SPEC|COOKIE]", "Show volumes in detail." },
	{ COMMAND_STATS, "stats", "[DEVICE|SPEC|COOKIE]", "Show what volumes do." },
	{ COMMAND_CHECK_KEYS, "check-keys", "[DEVICE|SPEC|COOKIE]",
	  "Make sure that volumes could be opened again." },
	{ COMMAND_DOCTOR, "doctor", "[SPEC]",
	  "Look at what volumes stand on, and say what is wrong." },
	{ COMMAND_SERVE, "serve", "SPEC", "Serve an image or snapshot as NBD on a unix socket." },
	{ COMMAND_DAEMON, "daemon", "",
	  "Be the daemon of this host: one process for many volumes." },
	{ COMMAND_HELP, "help", "[COMMAND]", "Show what a command takes." },
	{ COMMAND_VERSION, "version", "", "Show the version." },
};
const unsigned int command_row_count = sizeof(command_rows) / sizeof(command_rows[0]);

const char *option_group_title(enum option_group group)
{
	switch (group) {
	case GROUP_CEPH:
		return "Ceph";
	case GROUP_IMAGE:
		return "Image";
	case GROUP_ENCRYPTION:
		return "Encryption";
	case GROUP_DEVICE:
		return "Device";
	case GROUP_SERVE:
		return "Serving on a socket";
	case GROUP_OUTPUT:
		return "Output";
	case GROUP_PROCESS:
		return "Process";
	case GROUP_LIMITS:
		return "Limits on what a header may cost";
	}
	return "";
}

int choice_index(const char *choices, const char *word)
{
	size_t len = strlen(word);

	for (int i = 0; choices; i++) {
		size_t n = strcspn(choices, "|");

		if (n == len && !memcmp(choices, word, len))
			return i;
		choices = choices[n] ? choices + n + 1 : NULL;
	}
	return -ENOENT;
}

static char same_dash(char c)
{
	return c == '_' ? '-' : c;
}

const struct option_row *option_find(const char *name, size_t len)
{
	for (unsigned int i = 0; i < option_row_count; i++) {
		const char *have = option_rows[i].name;
		size_t n = 0;

		while (n < len && have[n] && same_dash(have[n]) == same_dash(name[n]))
			n++;
		if (n == len && !have[n])
			return &option_rows[i];
	}
	return NULL;
}

const struct option_row *option_find_letter(char letter)
{
	for (unsigned int i = 0; i < option_row_count; i++)
		if (letter && option_rows[i].letter == letter)
			return &option_rows[i];
	return NULL;
}

int command_find(const char *word, enum command *ret)
{
	for (unsigned int i = 0; i < command_row_count; i++) {
		if (choice_index(command_rows[i].names, word) < 0)
			continue;
		*ret = command_rows[i].command;
		return 0;
	}
	return -ENOENT;
}

/* Longer words are not typing errors of ours. */
#define NEAR_MAX 40

/* Insertions, deletions, replacements and swaps of neighbours that turn a into b. */
static unsigned int distance(const char *a, size_t na, const char *b, size_t nb)
{
	unsigned int d[NEAR_MAX + 1][NEAR_MAX + 1];

	if (na > NEAR_MAX || nb > NEAR_MAX)
		return NEAR_MAX;
	for (size_t i = 0; i <= na; i++) {
		for (size_t j = 0; j <= nb; j++) {
			unsigned int best;

			if (!i || !j) {
				d[i][j] = (unsigned int)(i + j);
				continue;
			}
			best = d[i - 1][j - 1] + (same_dash(a[i - 1]) != same_dash(b[j - 1]));
			if (d[i - 1][j] + 1 < best)
				best = d[i - 1][j] + 1;
			if (d[i][j - 1] + 1 < best)
				best = d[i][j - 1] + 1;
			if (i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1] &&
			    d[i - 2][j - 2] + 1 < best)
				best = d[i - 2][j - 2] + 1;
			d[i][j] = best;
		}
	}
	return d[na][nb];
}

/* A third of the word wrong is no longer that word. */
static bool is_nearer(unsigned int d, size_t len, unsigned int *best)
{
	if (d > (len + 2) / 3 || d >= *best)
		return false;
	*best = d;
	return true;
}

/* What rbd, cryptsetup, qemu-nbd and mount say for what we have another word for. */
struct other_word {
	const char *names; /* separated by '|' */
	const char *ours;
};

static const struct other_word option_words[] = {
	{ "key-file|passphrase-file|passphrase|password-file|key", "encryption-passphrase-file" },
	{ "type", "encryption-format" },
	{ "r|ro", "read-only" },
	{ "sector-size", "block-size" },
	{ "test-passphrase", "test-keys" },
	{ "verbose", "debug" },
};

static const struct other_word command_words[] = {
	{ "open|luksOpen|connect|mount|add", "map" },
	{ "close|luksClose|disconnect|umount|unmount|remove", "unmap" },
	{ "show|info|luksDump", "status" },
};

static const char *word_of_ours(const struct other_word *words, size_t n, const char *word)
{
	for (size_t i = 0; i < n; i++)
		if (choice_index(words[i].names, word) >= 0)
			return words[i].ours;
	return NULL;
}
#define WORD_OF_OURS(words, word) word_of_ours(words, sizeof(words) / sizeof((words)[0]), word)

const char *option_nearest(const char *name)
{
	unsigned int best = NEAR_MAX;
	char word[NEAR_MAX];
	size_t len = strcspn(name, "=");
	const char *ret;

	(void)snprintf(word, sizeof(word), "%.*s", (int)len, name);
	ret = WORD_OF_OURS(option_words, word);
	if (ret)
		return ret;
	for (unsigned int i = 0; i < option_row_count; i++) {
		const struct option_row *row = &option_rows[i];

		if (row->flags & OPTION_HIDDEN)
			continue;
		if (is_nearer(distance(name, len, row->name, strlen(row->name)), len, &best))
			ret = row->name;
	}
	return ret;
}

const char *command_nearest(const char *word)
{
	const char *ret = WORD_OF_OURS(command_words, word);
	unsigned int best = NEAR_MAX;
	size_t len = strlen(word);

	if (ret)
		return ret;
	for (unsigned int i = 0; i < command_row_count; i++) {
		const char *name = command_rows[i].names;
		size_t n = strcspn(name, "|");

		if (is_nearer(distance(word, len, name, n), len, &best))
			ret = options_command_name(command_rows[i].command);
	}
	return ret;
}

const char *options_command_name(enum command c)
{
	switch (c) {
	case COMMAND_MAP:
		return "map";
	case COMMAND_UNMAP:
		return "unmap";
	case COMMAND_ATTACH:
		return "attach";
	case COMMAND_DETACH:
		return "detach";
	case COMMAND_LIST:
		return "list";
	case COMMAND_STATUS:
		return "status";
	case COMMAND_STATS:
		return "stats";
	case COMMAND_CHECK_KEYS:
		return "check-keys";
	case COMMAND_DOCTOR:
		return "doctor";
	case COMMAND_SERVE:
		return "serve";
	case COMMAND_DAEMON:
		return "daemon";
	case COMMAND_HELP:
		return "help";
	case COMMAND_VERSION:
		return "version";
	case COMMAND_DUMP_OPTIONS:
	case COMMAND_DUMP_COMPLETION:
	case COMMAND_NONE:
		break;
	}
	return "";
}
