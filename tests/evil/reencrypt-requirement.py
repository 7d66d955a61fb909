# SPDX-License-Identifier: GPL-2.0-or-later
# Copyright (C) 2026 the rbdcrypt-nbd authors

"""An online reencryption is under way."""

from luks_image import Luks2, refuse

h = Luks2()
h.config["requirements"] = {"mandatory": ["online-reencrypt-v2"]}
refuse(h.build(), "ENOTSUP", "the requirement online-reencrypt-v2")
