# SPDX-License-Identifier: GPL-2.0-or-later
# Copyright (C) 2026 the rbdcrypt-nbd authors

"""Two areas of data."""

from luks_image import Luks2, refuse

h = Luks2()
h.json["segments"]["1"] = dict(h.segment)
refuse(h.build(), "ENOTSUP", "2 segments")
