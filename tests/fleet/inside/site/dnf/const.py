# Copyright: the fleet.microcode authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Kinds of packages in groups, of which there are none."""
GROUP_PACKAGE_TYPES = ()
