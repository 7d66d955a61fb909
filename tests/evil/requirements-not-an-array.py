# SPDX-License-Identifier: GPL-2.0-or-later
# Copyright (C) 2026 the rbdcrypt-nbd authors

"""A requirement as a plain string."""

from luks_image import Luks2, refuse

h = Luks2()
h.config["requirements"] = {"mandatory": "online-reencrypt-v2"}
refuse(h.build(), "EBADMSG", "\"mandatory\" is not an array")
