# SPDX-License-Identifier: GPL-2.0-or-later
# Copyright (C) 2026 the rbdcrypt-nbd authors

"""The only segment is not the first."""

from luks_image import Luks2, refuse

h = Luks2()
h.json["segments"] = {"1": h.segment}
refuse(h.build(), "EBADMSG", "segments: \"0\" is missing")
