# SPDX-License-Identifier: GPL-2.0-or-later
# Copyright (C) 2026 the rbdcrypt-nbd authors

"""A name without an end."""

from luks_image import Luks1, refuse

h = Luks1()
h.hash = b"s" * 32
refuse(h.build(), "EBADMSG", "the hash is not text")
