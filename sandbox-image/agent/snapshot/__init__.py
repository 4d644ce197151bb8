"""What survives a sandbox: a namespace, the process around it, and the workspace's files, as pieces and a manifest.

`saving` and `keeper` write a namespace from a fork of the worker, `rehearsal` tries it in a fork of the zygote, and
`restoring` brings it back in a fresh worker; `workspace_scan` and `workspace_restore` do the same for files. None of
them knows the channel: bytes go out through callables and come back through them, a piece at a time.
"""
