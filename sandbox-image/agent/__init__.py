"""The program inside a sandbox: supervisor (PID 1), zygote, worker. Imports the standard library only."""
