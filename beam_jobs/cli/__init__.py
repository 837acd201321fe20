"""The command line: flags, launching, progress, exit statuses."""
