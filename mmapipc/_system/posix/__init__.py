"""POSIX: named memory as files, roles as locks on files.  `system` is what fulfils the contract."""
