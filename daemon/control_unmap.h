/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Copyright (C) 2026 the rbdcrypt-nbd authors */

#ifndef DAEMON_CONTROL_UNMAP_H
#define DAEMON_CONTROL_UNMAP_H

#include "control_methods.h"

/*
 * The methods that end a volume. Each answers, or notes the call for later, or fails with the
 * fault. Control thread.
 */
int methods_unmap(struct methods *m, struct control_call *call, struct fault *f);
int methods_detach(struct methods *m, struct control_call *call, struct fault *f);

#endif
