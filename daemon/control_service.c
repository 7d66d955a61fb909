/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Copyright (C) 2026 the rbdcrypt-nbd authors */

/* What every varlink service says of itself; see varlink.org. Pure text. */

#include "control_request.h"

#include <string.h>

static const char service_interface[] =
	"interface org.varlink.service\n"
	"method GetInfo() -> (vendor: string, product: string, version: string, url: string,\n"
	"  interfaces: []string)\n"
	"method GetInterfaceDescription(interface: string) -> (description: string)\n"
	"error InterfaceNotFound (interface: string)\n"
	"error MethodNotFound (method: string)\n"
	"error MethodNotImplemented (method: string)\n"
	"error InvalidParameter (parameter: string)\n"
	"error PermissionDenied ()\n"
	"error ExpectedMore ()\n";

const char *control_description(const char *interface)
{
	return strcmp(interface, CONTROL_SERVICE) == 0	   ? service_interface
	       : strcmp(interface, CONTROL_INTERFACE) == 0 ? control_interface
							   : NULL;
}
