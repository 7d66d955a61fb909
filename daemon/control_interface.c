/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Copyright (C) 2026 the rbdcrypt-nbd authors */

/*
 * What the daemon tells of its interfaces, in varlink's language. rbdcrypt-nbd-control(7) says the
 * same at more length.
 */

#include "control_request.h"

const char control_interface[] =
	"# Encrypted Ceph RBD images as devices and NBD sockets of this machine; see\n"
	"# rbdcrypt-nbd-control(7).\n"
	"interface org.rbdcrypt.Host\n"
	"\n"
	"# A passphrase: where the daemon can read it, now and after a restart, and a descriptor\n"
	"# that came with the message, by its place there, to read it from now.\n"
	"type Key (source: ?string, fd: ?int)\n"
	"\n"
	"# An image as a device. options: as rbdcrypt-nbd map takes them, KEY or KEY=VALUE; ceph:\n"
	"# words for Ceph; ceph_args: in place of CEPH_ARGS; keys: the image's first.\n"
	"method Map(spec: ?string, options: ?[]string, ceph: ?[]string, ceph_args: ?string,\n"
	"  keys: ?[]Key) -> (device: string, cookie: string)\n"
	"\n"
	"# A device whose daemon is gone, served again.\n"
	"method Attach(spec: ?string, options: ?[]string, ceph: ?[]string, ceph_args: ?string,\n"
	"  keys: ?[]Key) -> (device: string, cookie: string)\n"
	"\n"
	"# An image as NBD on a unix socket.\n"
	"method Serve(spec: ?string, options: ?[]string, ceph: ?[]string, ceph_args: ?string,\n"
	"  keys: ?[]Key) -> (socket: string)\n"
	"\n"
	"# Takes a device or socket away; name: device, image, socket or cookie; force: although\n"
	"# it is in use, or might not open again.\n"
	"method Unmap(name: string, force: ?bool, timeout: ?int) -> ()\n"
	"\n"
	"# Leaves a device to be attached again; force: although it might not open then.\n"
	"method Detach(name: string, force: ?bool, timeout: ?int) -> ()\n"
	"\n"
	"# The volumes of this machine, or one, as rbdcrypt-nbd status --json shows them.\n"
	"method Status(name: ?string) -> (volumes: []object)\n"
	"\n"
	"# As SIGHUP does.\n"
	"method Reload() -> ()\n"
	"\n"
	"# What a command would have said; status is its exit status.\n"
	"error Failed (status: int, errno: int, message: string, hint: string)\n";
