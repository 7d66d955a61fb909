# SPDX-License-Identifier: GPL-2.0-or-later
# Copyright (C) 2026 the rbdcrypt-nbd authors

"""The object "config" is missing."""

from luks_image import Luks2, refuse

h = Luks2()
del h.json["config"]
refuse(h.build(), "EBADMSG", "JSON: \"config\" is missing")
