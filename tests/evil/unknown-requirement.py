# SPDX-License-Identifier: GPL-2.0-or-later
# Copyright (C) 2026 the rbdcrypt-nbd authors

"""A requirement of the future."""

from luks_image import Luks2, refuse

h = Luks2()
h.config["requirements"] = {"mandatory": ["inline-hw-tags"]}
refuse(h.build(), "ENOTSUP", "the requirement inline-hw-tags")
