# SPDX-License-Identifier: GPL-2.0-or-later
# Copyright (C) 2026 the rbdcrypt-nbd authors

"""A key of four gigabytes."""

from luks_image import Luks1, refuse

h = Luks1()
h.key_bytes = 2 ** 32 - 1
refuse(h.build(), "ENOTSUP", "a volume key of")
