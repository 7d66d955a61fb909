/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Copyright (C) 2026 the rbdcrypt-nbd authors */

#ifndef DAEMON_VIEW_H
#define DAEMON_VIEW_H

#include <json-c/json.h>

#include "state.h"

/*
 * A volume as users see it: what is in its state file, without the process id of an owner that is
 * gone, and with the names that its device has now ("links"). The caller's; NULL: no memory. Any
 * thread.
 */
struct json_object *view_to_json(const struct volume_state *v);

#endif
