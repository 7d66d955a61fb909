# SPDX-License-Identifier: GPL-2.0-or-later
# Copyright (C) 2026 the rbdcrypt-nbd authors

"""No data at all."""

from luks_image import Luks2, refuse

h = Luks2()
h.json["segments"] = {}
refuse(h.build(), "ENOTSUP", "0 segments")
