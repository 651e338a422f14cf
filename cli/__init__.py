"""What the scripts share: flags, exit codes, devices, tables."""
