# SPDX-License-Identifier: GPL-2.0-or-later
# Copyright (C) 2026 the rbdcrypt-nbd authors

"""A cipher we do not have."""

from luks_image import Luks1, refuse

h = Luks1()
h.mode = b"cbc-essiv:sha256"
refuse(h.build(), "ENOTSUP", "the cipher aes-cbc-essiv:sha256")
