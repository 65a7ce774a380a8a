"""The command `mmapipc`.  Its entry is `main.main`; users do not import these rooms."""
