# SPDX-License-Identifier: GPL-2.0-or-later
# Copyright (C) 2026 the rbdcrypt-nbd authors

"""32-bit sector numbers: right only for the first 2 TiB."""

from luks_image import Luks2, refuse

h = Luks2()
h.segment["encryption"] = "aes-xts-plain"
refuse(h.build(), "ENOTSUP", "the cipher aes-xts-plain ")
