# SPDX-License-Identifier: GPL-2.0-or-later
# Copyright (C) 2026 the rbdcrypt-nbd authors

"""Requirements that hide from a careless reader."""

from luks_image import Luks2, refuse

h = Luks2()
h.config["requirements"] = ["online-reencrypt-v2"]
refuse(h.build(), "EBADMSG", "\"requirements\" is not an object")
