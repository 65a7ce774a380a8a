"""Windows: named memory as mapping objects, roles as named semaphores.  `system` fulfils the contract."""
