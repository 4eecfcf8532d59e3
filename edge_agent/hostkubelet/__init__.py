"""A kubelet API that makes a plain Linux box look like one pod: a shell, systemd units and log files.

It is served by `server.HostKubelet`. Nothing is imported here: a box without `[host]` loads the settings alone, and
saves 3 MB.
"""
