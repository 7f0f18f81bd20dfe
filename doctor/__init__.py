"""Finds which of dlink's libraries and devices this machine has, and which extra installs a missing one."""
