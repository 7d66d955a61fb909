# SPDX-License-Identifier: GPL-2.0-or-later
# Copyright (C) 2026 the rbdcrypt-nbd authors

"""The data area would overwrite the keyslots."""

from luks_image import KIB, Luks2, refuse

h = Luks2()
h.segment["offset"] = str(256 * KIB)
refuse(h.build(), "EINVAL", "the data area begins at 262144, inside the header")
