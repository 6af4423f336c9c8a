"""A connection into a directory that holds a machine's tree: what runs there has its own processes and sees its own /proc."""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess

from ansible.errors import AnsibleError
from ansible.plugins.connection import ConnectionBase

DOCUMENTATION = """
name: tree
short_description: chroot into the tree of a machine
description: The tree is an overlay that is mounted already.
options:
  tree:
    description: The directory.
    vars: [{name: nodewatch_tree}]
    required: true
"""


class Connection(ConnectionBase):
    """No state of its own: each command enters the tree anew."""

    transport = "tree"
    has_pipelining = True

    def _connect(self):
        self._connected = True
        return self

    def exec_command(self, cmd, in_data=None, sudoable=False):  # noqa: ARG002 (Ansible passes it)
        """Run a shell command in the tree."""
        tree = self.get_option("tree")
        enter = f"mount -t proc proc {shlex.quote(tree)}/proc && exec chroot {shlex.quote(tree)} /bin/sh -c {shlex.quote(cmd)}"
        env = {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "HOME": "/root", "LC_ALL": "C.UTF-8"}
        done = subprocess.run(
            ["unshare", "--mount", "--pid", "--fork", "--kill-child", "sh", "-c", enter],
            input=in_data or b"",
            capture_output=True,
            check=False,
            env=env,
        )
        return done.returncode, done.stdout, done.stderr

    def put_file(self, in_path, out_path):
        """Copy a file into the tree."""
        self._copy(in_path, self._inside(out_path))

    def fetch_file(self, in_path, out_path):
        """Copy a file out of the tree."""
        self._copy(self._inside(in_path), out_path)

    def close(self):
        """Nothing is held open."""
        self._connected = False

    def _inside(self, path):
        return os.path.join(self.get_option("tree"), path.lstrip("/"))  # noqa: PTH118

    @staticmethod
    def _copy(source, target):
        try:
            shutil.copyfile(source, target)
        except OSError as error:
            raise AnsibleError(f"{source} could not be copied to {target}: {error}") from error
