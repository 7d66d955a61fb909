# SPDX-License-Identifier: GPL-2.0-or-later
# Copyright (C) 2026 the rbdcrypt-nbd authors

"""Control characters where the UUID should be."""

from luks_image import Luks1, refuse

h = Luks1()
h.uuid = b"\x07\x08"
refuse(h.build(), "EBADMSG", "the UUID is not text")
