"""What Slurm's hooks run: one question to the agent on this node, or one file for the controller.

Guarantees, whatever the agent or the disk does: no hook calls Slurm, takes more than about a second, or fails with a
traceback. A hook that gets no answer allows (or denies, where the site said so) and leaves one line in
``hook-misses``. A slurmctld hook always exits 0: a PrologSlurmctld that fails would requeue the job, held.

The formats are docs/interfaces.md sections 2 and 3. This file is installed alone, without the package around it, and
runs under ``python3 -I -S``: the standard library only, and of that only modules that start fast. ``socket`` and
``json`` cost 5 ms each, on every node, for every job, since they pull in ``enum`` and ``re``; the C modules below them
cost nothing. Where an interpreter lacks those, the public ones are used.
"""

import os
import sys
import time

try:
    import _socket as socket
except ImportError:  # an interpreter that names its C modules otherwise
    import socket  # type: ignore[no-redef]

DEADLINE_S = 1.0
#: Of the deadline, what a prolog that denies may spend on the job's output file, which may be on a file system that hangs.
TELL_USER_S = 0.3
ANSWER_MAX_BYTES = 65536
MISSES_MAX_BYTES = 1 << 20

#: Name in the question -> what slurmd calls it in the environment of Prolog and Epilog.
JOB_VARIABLES = (
    ("id", "SLURM_JOB_ID"),
    ("user", "SLURM_JOB_USER"),
    ("uid", "SLURM_JOB_UID"),
    ("nodes", "SLURM_JOB_NODELIST"),
    ("restart", "SLURM_JOB_RESTART_COUNT"),
    ("auto_resume", "SPANK_NODEWATCH_AUTO_RESUME"),
    # These six come with the job's credential, the name and Extra on later releases alone.
    ("partition", "SLURM_JOB_PARTITION"),
    ("account", "SLURM_JOB_ACCOUNT"),
    ("name", "SLURM_JOB_NAME"),
    ("comment", "SLURM_JOB_COMMENT"),
    ("extra", "SLURM_JOB_EXTRA"),
    ("het", "SLURM_HET_JOB_ID"),
)


class NoAnswerError(Exception):
    """The agent gave no usable answer; the text says what happened."""


def main(argv: list[str]) -> int:
    """Run the hook named by ``argv[0]`` (a path or a plain name); return its exit code."""
    name = argv[0].rpartition("/")[2] if argv else ""
    hook = HOOKS.get(name)
    if hook is None:
        print(f"nodewatch: no hook is called {name!r}; known are {', '.join(sorted(HOOKS))}", file=sys.stderr)
        return 2
    return hook()


# --- hooks that ask the agent -----------------------------------------------------------------------------------------


def prolog() -> int:
    """May this job start on this node? When not, its output file says why."""
    deadline = time.monotonic() + DEADLINE_S
    reason = _ask_and_print("prolog", _job(), deadline)
    if reason is None:
        return 0
    try:
        _tell_user(reason, min(deadline, time.monotonic() + TELL_USER_S))
    except Exception as error:  # the answer stands, whether or not the user can be told
        print(f"nodewatch: the job's output could not be written: {error}", file=sys.stderr)
    return 1


def epilog() -> int:
    """Is this node fit for another job? Slurm drains it when this exits non-zero."""
    return 0 if _ask_and_print("epilog", _job(), time.monotonic() + DEADLINE_S) is None else 1


def healthcheck() -> int:
    """Let the agent know that slurmd is alive, and pass its opinion on."""
    return 0 if _ask_and_print("healthcheck", None, time.monotonic() + DEADLINE_S) is None else 1


def _job() -> dict[str, str]:
    env = os.environ
    job = {name: env[variable] for name, variable in JOB_VARIABLES if variable in env}
    # Where its errors go, so that the agent can read what it said last. Slurm's guide to prologs and epilogs names the
    # variables for both; by default errors go where the output goes.
    path = _output_path(env, env.get("SLURM_JOB_STDERR") or env.get("SLURM_JOB_STDOUT", ""))
    if path is not None:
        job["output"] = path
    return job


def _ask_and_print(ask: str, job: dict[str, str] | None, deadline: float) -> str | None:
    """Return None when it is allowed, else the reason, which was printed for slurmd's log."""
    try:
        allow, reason = _ask_agent(ask, job, deadline)
    except NoAnswerError as miss:
        _count_miss(ask, job, str(miss))
        # Slurm drains a node whose epilog fails, and 25.11 requeues the job: a restarting agent is no reason for that.
        allow = ask == "epilog" or not _deny_without_agent()
        reason = f"the agent on this node did not answer ({miss}), and this site denies in that case"
    except Exception as error:  # a fault of ours is no reason to stop a job
        _count_miss(ask, job, f"{type(error).__name__}: {error}")
        return None
    if allow:
        return None
    message = f"nodewatch: {reason.removeprefix('nodewatch:').strip() or 'the agent gave no reason'}"
    # slurmd logs one of the two streams, or both: it depends on its release and on the hook.
    for stream in (sys.stdout, sys.stderr):
        try:  # noqa: SIM105 (contextlib costs 1 ms to import)
            print(message, file=stream, flush=True)
        except OSError:
            pass  # a closed stream must not turn "denied" into a traceback
    return message


def _ask_agent(ask: str, job: dict[str, str] | None, deadline: float) -> tuple[bool, str]:
    """Return (allow, reason), or raise NoAnswerError by the deadline (monotonic clock)."""
    question: dict[str, object] = {"v": 1, "ask": ask}
    if job is not None:
        question["job"] = job
    path = os.environ.get("NODEWATCH_AGENT_SOCKET", "/run/nodewatch/agent.sock")
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        _connect(sock, path, deadline)
        _set_deadline(sock, deadline)
        sock.sendall(_to_json(question).encode() + b"\n")
        raw = b""
        while not raw.endswith(b"\n"):
            _set_deadline(sock, deadline)
            chunk = sock.recv(ANSWER_MAX_BYTES)
            raw += chunk
            if not chunk or len(raw) > ANSWER_MAX_BYTES:
                break
    except TimeoutError:
        raise NoAnswerError(f"nothing within {DEADLINE_S:g} s") from None
    except OSError as error:
        raise NoAnswerError(f"{path}: {error.strerror or error}") from None
    finally:
        sock.close()
    return _understand(raw)


def _connect(sock: "socket.socket", path: str, deadline: float) -> None:
    while True:
        _set_deadline(sock, deadline)
        try:
            sock.connect(path)
            return
        except BlockingIOError:  # its queue is full: every job of a big node starts at once
            time.sleep(0.01)


def _set_deadline(sock: "socket.socket", deadline: float) -> None:
    left = deadline - time.monotonic()
    if left <= 0:  # settimeout(0) would mean "do not wait", and fail with another error
        raise TimeoutError
    sock.settimeout(left)


def _understand(raw: bytes) -> tuple[bool, str]:
    if not raw:
        raise NoAnswerError("it closed the connection without a word")
    if not raw.endswith(b"\n"):  # half a line could still be valid JSON and mean something else
        raise NoAnswerError("its answer is cut off")
    try:
        answer = _from_json(raw.decode().strip())
    except ValueError:
        raise NoAnswerError("its answer is not JSON") from None
    if not isinstance(answer, dict) or not isinstance(answer.get("allow"), bool):
        raise NoAnswerError("its answer has no true or false under 'allow'")
    if answer.get("v") != 1:
        raise NoAnswerError(f"it speaks version {answer.get('v')!r} of the hook protocol, this hook version 1")
    reason = answer.get("reason")
    return answer["allow"], " ".join(reason.split()) if isinstance(reason, str) else ""


SETTINGS = ("NODEWATCH_ON_NO_AGENT", "NODEWATCH_DENY_PARTITIONS", "NODEWATCH_ALLOW_PARTITIONS")


def _deny_without_agent() -> bool:
    """Whether the site wants a job turned away when the agent is silent: by its partition, else for all.

    A setting that makes no sense is complained about and counts as not set.
    """
    path = os.environ.get("NODEWATCH_HOOKS_ENV", "/etc/nodewatch/hooks.env")
    try:
        with open(path, encoding="utf-8", errors="replace") as file:
            wishes = _settings(path, file.read(65536))
    except OSError:
        return False
    deny, allow = (wishes.get(name, "").replace(",", " ").split() for name in SETTINGS[1:])
    partition = os.environ.get("SLURM_JOB_PARTITION", "")
    if partition in deny and partition in allow:
        _complain(f"{path}: the partition {partition} is in {SETTINGS[1]} and in {SETTINGS[2]}: take it out of one")
    elif partition in deny or partition in allow:
        return partition in deny
    wish = wishes.get(SETTINGS[0], "")
    if wish not in ("", "allow", "deny"):
        _complain(f"{path}: {SETTINGS[0]}={wish!r} is neither allow nor deny; allowing")
    return wish == "deny"


def _settings(path: str, text: str) -> dict[str, str]:
    found = {}
    for line in text.split("\n"):
        key, equals, value = line.partition("=")
        key = key.strip().removeprefix("export ").strip()
        if equals and key in SETTINGS:
            found[key] = value.strip().strip("'\"")
        elif equals and key.startswith(SETTINGS[0]):
            _complain(f"{path}: {key} is unknown and was ignored: write partitions as {SETTINGS[1]}=one,another")
        elif equals and key.startswith("NODEWATCH_"):
            _complain(f"{path}: {key} is unknown and was ignored; known are {', '.join(SETTINGS)}")
    return found


def _complain(sentence: str) -> None:
    try:  # noqa: SIM105 (contextlib costs 1 ms to import)
        print(f"nodewatch: {sentence}", file=sys.stderr, flush=True)
    except OSError:
        pass


def _count_miss(ask: str, job: dict[str, str] | None, why: str) -> None:
    """Append one line for the agent to count. Never fails; never fills the disk of a node whose agent is gone."""
    path = os.environ.get("NODEWATCH_HOOK_MISSES", "/run/nodewatch/hook-misses")
    line: dict[str, object] = {"v": 1, "at": time.time(), "ask": ask, "why": why}
    if job is not None:
        line["job_id"] = job.get("id", "")
    try:
        # O_NOFOLLOW: this may run as root. One write of one line: hooks run side by side.
        fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW | os.O_CLOEXEC, 0o640)
        try:
            if os.fstat(fd).st_size < MISSES_MAX_BYTES:
                os.write(fd, _to_json(line).encode() + b"\n")
        finally:
            os.close(fd)
    except OSError as error:
        print(f"nodewatch: {why}; {path} could not be written: {error.strerror}", file=sys.stderr)


# --- what the user is told when a job is turned away ------------------------------------------------------------------


def _tell_user(message: str, deadline: float) -> None:
    """Append `message` to the output file of a batch job, as its user; gives up silently at `deadline`.

    Slurm itself shows nothing of a prolog's words to the user of a batch job (seen on 24.11), and the file is not there
    yet. A child writes it: the file's directory may be on a file system that hangs, and a write as root would pass
    permissions that the user has not.
    """
    env = os.environ
    path = _output_path(env, env.get("SLURM_JOB_STDOUT", ""))
    uid, gid = env.get("SLURM_JOB_UID", ""), env.get("SLURM_JOB_GID", "")
    if path is None or not uid.isdecimal():
        return
    if os.geteuid() == 0 and not gid.isdecimal():
        return
    line = (
        f"{message} (job {env.get('SLURM_JOB_ID', '?')} did not start on {env.get('SLURMD_NODENAME', 'this node')})\n"
    )
    child = os.fork()
    if child == 0:
        try:
            _write_as(int(uid), int(gid or "0"), path, line.encode("utf-8", "replace"))
        finally:
            os._exit(0)
    while time.monotonic() < deadline:
        if os.waitpid(child, os.WNOHANG)[0]:
            return
        time.sleep(0.002)
    os.kill(child, 9)  # not waited for: one that hangs in the kernel goes when the kernel lets it


def _output_path(env: "os._Environ[str]", path: str) -> str | None:
    """The file that `path` stands for, as far as a prolog can know; None when there is none or it cannot be told."""
    # Seen on 24.11: an input is named for batch jobs alone, an output only where the user named one.
    if not path and env.get("SLURM_JOB_STDIN"):
        path = "slurm-%A_%a.out" if "SLURM_ARRAY_TASK_ID" in env else "slurm-%j.out"
    if not path or path == "/dev/null" or "\\" in path:
        return None
    known = {
        "%": "%",
        "j": env.get("SLURM_JOB_ID"),
        "A": env.get("SLURM_ARRAY_JOB_ID", env.get("SLURM_JOB_ID")),
        "a": env.get("SLURM_ARRAY_TASK_ID"),
        "u": env.get("SLURM_JOB_USER"),
        "x": env.get("SLURM_JOB_NAME"),
    }
    out = ""
    letters = iter(path)
    for letter in letters:
        if letter != "%":
            out += letter
            continue
        value = known.get(next(letters, ""))
        if value is None:  # a node's name, a width, or what Slurm does not tell: better no word than a stray file
            return None
        out += value
    work = env.get("SLURM_JOB_WORK_DIR", "")
    if not out.startswith("/"):
        if not work.startswith("/"):
            return None
        out = f"{work}/{out}"
    return out


def _write_as(uid: int, gid: int, path: str, data: bytes) -> None:
    os.setsid()
    # slurmd waits for the end of what it reads from: a child that hangs must not hold that open.
    null = os.open("/dev/null", os.O_RDWR)
    for fd in (0, 1, 2):
        os.dup2(null, fd)
    os.closerange(3, 256)
    if os.geteuid() == 0:
        os.setgroups([])
        os.setgid(gid)
        os.setuid(uid)
    # A new file is as readable as its directory: Slurm would take the mask of the submission, which is not known here.
    mode = os.stat(path.rpartition("/")[0] or "/").st_mode & 0o644 | 0o600  # noqa: PTH116
    os.umask(0)
    flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC
    fd = os.open(path, flags, mode)
    if os.fstat(fd).st_mode & 0o170000 == 0o100000:  # a regular file: nobody waits at the other end of anything else
        os.write(fd, data)


# --- hooks that leave a file for the controller -----------------------------------------------------------------------


def prolog_slurmctld() -> int:
    """Tell the controller that a job starts, and whether it asked for --auto-resume."""
    named = ("user", "partition", "account", "name")
    return _leave_file("job_started", *((name, f"SLURM_JOB_{name.upper()}") for name in named))


def epilog_slurmctld() -> int:
    """Tell the controller that a job ended, and how."""
    return _leave_file("job_ended")


def _leave_file(kind: str, *extra: tuple[str, str]) -> int:
    env = os.environ
    inbox = env.get("NODEWATCH_INBOX", "/var/lib/nodewatch-controller/inbox")
    try:
        job_id = _number("SLURM_JOB_ID", None)
        restart_count = _number("SLURM_JOB_RESTART_COUNT", 0)
        memory = f"{inbox}/.run-{job_id}"
        if kind == "job_ended":
            restart_count = _run_that_ended(memory, restart_count)
        record: dict[str, object] = {
            "v": 1,
            "kind": kind,
            "at": time.time(),
            "job_id": job_id,
            "restart_count": restart_count,
            "nodes": env.get("SLURM_JOB_NODELIST", ""),
        }
        record.update((name, env.get(variable, "")) for name, variable in extra)
        if kind == "job_started":
            record["auto_resume"] = env.get("SPANK_NODEWATCH_AUTO_RESUME")
        else:
            record["exit_code"] = _exit_code()
        _write_whole(inbox, f"{kind}-{job_id}-{restart_count}.json", _to_json(record).encode() + b"\n")
        if kind == "job_started":
            _write_whole(inbox, f".run-{job_id}", b"%d\n" % restart_count)
        elif os.path.exists(memory):  # noqa: PTH110
            os.unlink(memory)  # noqa: PTH108
    except Exception as error:  # exit 0 all the same: a failing PrologSlurmctld requeues the job, held
        text = error.strerror if isinstance(error, OSError) else error
        print(f"nodewatch: {kind} was not handed to the controller: {inbox}: {text}", file=sys.stderr)
    return 0


def _run_that_ended(memory: str, told: int) -> int:
    """Return the restart count of the run that just ended.

    When a running job is requeued, Slurm raises the count before it calls EpilogSlurmctld (seen on 24.11): the end of
    run 0 would be booked as the end of run 1. So the start of a run leaves its count beside the inbox's files.
    """
    try:
        with open(memory, encoding="ascii") as file:
            return int(file.read())
    except (OSError, ValueError):
        return told


def _exit_code() -> str:
    """Return ``code:signal``. Slurm gives it ready in SLURM_JOB_EXIT_CODE2, older forms as a wait status."""
    env = os.environ
    ready = env.get("SLURM_JOB_EXIT_CODE2")
    if ready:
        return ready
    status = _number("SLURM_JOB_EXIT_CODE", 0)
    return f"{status >> 8 & 255}:{status & 127}"


def _number(variable: str, default: int | None) -> int:
    text = os.environ.get(variable)
    if text is None:
        if default is None:
            raise ValueError(f"Slurm did not set {variable}")
        return default
    if not text.isdecimal():
        raise ValueError(f"{variable}={text!r} is not a number")
    return int(text)


def _write_whole(directory: str, name: str, data: bytes) -> None:
    """The file appears whole or not at all: the controller reads the inbox at any moment."""
    # The leading dot keeps the controller from taking the unfinished file.
    draft = f"{directory}/.{name}.{os.getpid()}"
    fd = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC, 0o640)
    try:
        try:
            while data:  # a disk that fills up takes part of a write
                data = data[os.write(fd, data) :]
            os.fsync(fd)
        finally:
            os.close(fd)
        os.rename(draft, f"{directory}/{name}")  # noqa: PTH104 (pathlib costs 4 ms to import)
    except BaseException:
        os.unlink(draft)  # noqa: PTH108 (the same)
        raise


# --- the hook that speaks to the user ---------------------------------------------------------------------------------


#: How long a restarted job may wait until its checkpoint is verified; without an answer its program looks by itself.
VERIFY_S = 20.0


def task_prolog() -> int:
    """Give a marked job what the agent left for it; at the top of a restarted one say why, where and from which step.

    slurmstepd takes ``export NAME=value`` into the task's environment and prints what follows ``print``. It runs as the
    user: what it reads of the job's checkpoints, the job could read.
    """
    env = os.environ
    told = _left_by_agent(env)
    mark = told.get("NODEWATCH_AUTO_RESUME", env.get("NODEWATCH_AUTO_RESUME"))
    if mark is None or env.get("NODEWATCH_AUTO_RESUME") == "off":
        return 0
    for name, value in told.items():
        print(f"export {name}={value}")
    restarts = env.get("SLURM_RESTART_COUNT", "0")
    # Once a job, in the batch script's step, which hands its environment on: not once a task.
    if "SLURM_STEP_ID" in env and env["SLURM_STEP_ID"] not in ("batch", "4294967291"):
        return 0
    if not restarts.isdecimal() or int(restarts) == 0:
        return 0
    line = f"print nodewatch: job {env.get('SLURM_JOB_ID', '?')} starts again (restart {int(restarts)})"
    if "NODEWATCH_INTERRUPTION" in told:
        line += f": {told['NODEWATCH_INTERRUPTION']}"
    directory = next((word[4:] for word in mark.split(",") if word.startswith("dir=/")), "")
    if directory:
        path, clause = _resume_point(directory)
        line += f"; {clause}"
        if path:
            print(f"export NODEWATCH_RESUME_FROM={path}")
    print(line)
    return 0


def _left_by_agent(env: "os._Environ[str]") -> dict[str, str]:
    """The agent's lines ``NAME=value`` for this job; none where it made no file."""
    job = env.get("SLURM_JOB_ID", "")
    path = f"{env.get('NODEWATCH_JOBS', '/run/nodewatch/jobs')}/{job}/environment"
    try:
        with open(path, encoding="utf-8", errors="replace", newline="\n") as file:
            lines = file.read(65536).split("\n")
    except OSError:
        return {}
    # On older releases a prolog does not know the job's name: the agent leaves its place open.
    name = "".join("_" if char in "/," or char < " " else char for char in env.get("SLURM_JOB_NAME", ""))
    found = {}
    for line in lines:
        key, equals, value = line.partition("=")
        if equals and key.startswith("NODEWATCH_"):
            found[key] = value.replace("{job_name}", "_" if name in ("", ".", "..") else name)
    return found


def _resume_point(directory: str) -> tuple[str, str]:
    """(path, clause): the newest checkpoint in `directory` that is whole; no path where none was found in time.

    A program of its own looks: the directory may be on a file system that hangs.
    """
    reading, writing = os.pipe()
    program = f"{__file__.rpartition('/')[0]}/resume_point"
    # slurmstepd waits for the end of what it reads from: a child that hangs must not hold that open.
    streams = [(os.POSIX_SPAWN_DUP2, writing, 1), (os.POSIX_SPAWN_OPEN, 2, "/dev/null", os.O_WRONLY, 0)]
    try:
        child = os.posix_spawn(program, [program, directory], os.environ, file_actions=streams, setsid=True)
    except OSError:
        return "", "its checkpoints were not looked at: the program looks by itself"
    os.close(writing)
    os.set_blocking(reading, False)
    given = os.environ.get("NODEWATCH_VERIFY_S", "")
    deadline = time.monotonic() + (int(given) if given.isdecimal() else VERIFY_S)
    answer: bytes | None = None
    while answer is None and time.monotonic() < deadline:
        try:
            answer = os.read(reading, 8192)
        except BlockingIOError:
            time.sleep(0.005)
    os.kill(child, 9)  # not waited for: one that hangs in the kernel goes when the kernel lets it
    path, tab, clause = (answer or b"").decode("utf-8", "surrogateescape").partition("\t")
    if not tab:
        return "", f"no checkpoint in {directory} could be verified in time: the program looks by itself"
    return path, clause


# --- JSON without the modules that are slow to import -----------------------------------------------------------------


def _to_json(value: object) -> str:
    """JSON of the few types used here: dict, str, bool, int, float and None."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, (int, float)):
        return repr(value)
    if isinstance(value, dict):
        return "{" + ",".join(f"{_to_json(str(key))}:{_to_json(item)}" for key, item in value.items()) + "}"
    return _quote(str(value))


def _quote(text: str) -> str:
    # Bytes of the environment that are no UTF-8 arrive as lone surrogates, which cannot be encoded again.
    text = text.encode("utf-8", "replace").decode("utf-8")
    out = []
    for char in text:
        if char in '"\\':
            out.append("\\" + char)
        elif char < " ":
            out.append(f"\\u{ord(char):04x}")
        else:
            out.append(char)
    return '"' + "".join(out) + '"'


class _ScannerSettings:
    """What the C scanner under ``json`` reads from the decoder that makes it."""

    strict = True
    object_hook = None
    object_pairs_hook = None
    parse_float = float
    parse_int = int
    parse_constant = float


def _from_json(text: str) -> object:
    """Parse one JSON value and nothing after it; ValueError otherwise."""
    try:
        from _json import make_scanner
    except ImportError:
        import json

        return json.loads(text)
    try:
        # The stubs describe its one argument wrongly, as another scanner.
        value, end = make_scanner(_ScannerSettings())(text, 0)  # type: ignore[arg-type]
    except (StopIteration, RecursionError):
        raise ValueError("not JSON") from None
    if end != len(text):
        raise ValueError("text after the value")
    return value


HOOKS = {
    "prolog": prolog,
    "epilog": epilog,
    "healthcheck": healthcheck,
    "task_prolog": task_prolog,
    "prolog_slurmctld": prolog_slurmctld,
    "epilog_slurmctld": epilog_slurmctld,
}
