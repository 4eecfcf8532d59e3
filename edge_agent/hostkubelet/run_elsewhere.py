"""Has a command run by the service that becomes other accounts (command_service.py), and ends as the command does.

The agent starts this in the place of the command: `python -I -S run_elsewhere.py SOCKET ACCOUNT WORD...`, on the pipes
or the terminal that the command is to have, which are handed over. It imports nothing of ours and little else, since
there is one for each command that runs. SIGHUP is handed on; when this process ends, so does the command.
"""

import array
import json
import os
import signal
import socket
import sys

NOT_STARTED = 126
"""The exit code of a shell for what cannot be executed."""


def main() -> None:
    """Runs one command."""
    path, account, *argv = sys.argv[1:]
    asked = {"account": account, "argv": argv, "tty": os.isatty(0)}
    request = json.dumps({**asked, "shell": os.environ.get("SHELL", "")}).encode()
    with socket.socket(socket.AF_UNIX) as connection:
        try:
            connection.connect(path)
            _ask(connection, request)
        except OSError as error:
            _fail(f"commands are run by {path}, which cannot be asked: {error.strerror}")
        signal.signal(signal.SIGHUP, lambda _number, _frame: connection.sendall(b"H"))
        # They are the command's now: nobody may wait for this process to read or to close them.
        nothing = os.open(os.devnull, os.O_RDWR)
        os.dup2(nothing, 0)
        os.dup2(nothing, 1)
        answer = b""
        while not answer.endswith(b"\n"):
            try:
                more = connection.recv(4096)
            except OSError:
                more = b""
            if not more:
                _fail(f"the service at {path} ended before the command did")
            answer += more
    said = json.loads(answer)
    if "refused" in said:
        _fail(said["refused"])
    sys.exit(said["exit"])


def _ask(connection: socket.socket, request: bytes) -> None:
    """Sends a request and hands over the pipes or the terminal, as far as the service takes it: whom it refuses at
    sight has the answer already, and nobody reads the rest.
    """
    rights = (socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [0, 1, 2]))
    try:
        connection.sendmsg([len(request).to_bytes(4, "big")], [rights])
        connection.sendall(request)
    except (BrokenPipeError, ConnectionResetError):
        return


def _fail(text: str) -> None:
    os.write(2, f"{text}\n".encode())
    sys.exit(NOT_STARTED)


if __name__ == "__main__":
    main()
