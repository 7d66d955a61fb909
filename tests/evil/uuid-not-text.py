# SPDX-License-Identifier: GPL-2.0-or-later
# Copyright (C) 2026 the rbdcrypt-nbd authors

"""Control characters where the UUID should be."""

from luks_image import Luks2, refuse

h = Luks2()
h.uuid = b"\x1b[2J\n"
refuse(h.build(), "EBADMSG", "the UUID is not text")
