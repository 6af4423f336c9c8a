"""Libfabric on this node: what `fi_info` offers, and a ping-pong with itself over each EFA device.

Both ends of `fi_pingpong` run here, over one device at a time, with libfabric's shortcut through shared memory switched off:
otherwise nothing would reach the device.
"""

from __future__ import annotations

from dataclasses import replace

from nodewatch.errors import SensorError
from nodewatch.model.fabric_samples import FiInfoSample, FiPingpongSample
from nodewatch.sensors.deep.tool import Command, Outcome, Procedure, Step
from nodewatch.sensors.reading import Reading
from nodewatch.sensors.recorded import fi_info, fi_pingpong

INFO_READS = FiInfoSample
PINGPONG_READS = FiPingpongSample
LIST_S = 60.0
"""For fi_info: it opens each device, of which a p5 has 32."""
_LISTEN_S = 1.0
"""The client tries to connect once; the server is listening by then."""
_NO_SHM = {"FI_EFA_ENABLE_SHM_TRANSFER": "0"}


def info_procedure(command: str, *, expected: int | None) -> Procedure:
    """List what libfabric offers."""
    (ended,) = yield _listing(command)
    return Reading(sample=_listed(ended, expected))


def pingpong_procedure(
    info: str, pingpong: str, *, expected: int | None, most: int, port: int, each_s: float, iterations: int
) -> Procedure:
    """A ping-pong over each device that libfabric lists, `most` of them at most, one after the other."""
    (ended,) = yield _listing(info)
    domains = domains_of(_listed(ended, expected))[:most]
    if not domains:
        raise SensorError("fi_info lists no EFA device: there is nothing to send over, see what efa_provider says")
    whole = FiPingpongSample(rows=())
    for domain in domains:
        end = (pingpong, "-p", "efa", "-e", "rdm", "-d", domain, "-I", str(iterations))
        server, client = yield Step(
            commands=(
                Command(argv=(*end, "-B", str(port)), env=_NO_SHM),
                Command(argv=(*end, "-P", str(port), "127.0.0.1"), env=_NO_SHM, after_s=_LISTEN_S),
            ),
            within_s=each_s,
        )
        one = of_ends(domain, server, client, each_s=each_s)
        whole = FiPingpongSample(
            rows=(*whole.rows, *one.rows),
            errors=(*whole.errors, *one.errors),
            incomplete=whole.incomplete or one.incomplete,
        )
    return Reading(sample=whole)


def domains_of(sample: FiInfoSample) -> tuple[str, ...]:
    """Each domain once, as libfabric wants it named."""
    names = {
        item.domain for item in sample.endpoints if item.provider.split(";")[0] == "efa" and item.type == "FI_EP_RDM"
    }
    return tuple(sorted(names))


def of_ends(domain: str, server: Outcome, client: Outcome, *, each_s: float) -> FiPingpongSample:
    """What one device did. The client's table counts; the server's errors count too, unless the client measured all."""
    text = client.text if client.returncode == 0 and not client.is_late else f"{client.text}\n{server.text}"
    try:
        sample = fi_pingpong.parse(text.encode())
    except SensorError:
        sample = FiPingpongSample(rows=(), incomplete=f"{domain}: the client ended with status {client.returncode}")
    errors = tuple(f"{domain}: {line}" for line in sample.errors)
    if client.is_late:
        errors = (*errors, f"{domain}: fi_pingpong timed out: no end within {each_s:g} s")
    elif client.returncode != 0 and not errors:
        errors = (f"{domain}: fi_pingpong failed with status {client.returncode} ({client.last_line})",)
    incomplete = None if sample.incomplete is None else f"{domain}: {sample.incomplete}"
    return replace(sample, errors=errors, incomplete=incomplete)


def _listing(command: str) -> Step:
    return Step(commands=(Command(argv=(command, "-p", "efa", "-t", "FI_EP_RDM")),), within_s=LIST_S)


def _listed(ended: Outcome, expected: int | None) -> FiInfoSample:
    if ended.is_late:
        raise SensorError(f"fi_info has not ended within {LIST_S:g} s: look for efa in the kernel log")
    sample = fi_info.parse(ended.text.encode(), expected=expected)
    if ended.returncode != 0 and sample.error is None:
        raise SensorError(f"fi_info ended with status {ended.returncode} ({ended.last_line}): run it by hand")
    return sample
