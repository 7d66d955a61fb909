# SPDX-License-Identifier: GPL-2.0-or-later
# Copyright (C) 2026 the rbdcrypt-nbd authors

"""A cipher we do not have."""

from luks_image import Luks1, refuse

h = Luks1()
h.cipher = b"serpent"
refuse(h.build(), "ENOTSUP", "the cipher serpent-xts-plain64")
