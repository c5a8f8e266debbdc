"""Hosts in Ray actors: the only module that knows Ray.

What        `RayEngine` starts (or joins) Ray once and keeps its actors over all runs of a sweep; `RayPool` is one run
            on it: each actor holds a shard of hosts, gets one message per epoch and sends one reply.
Units       Simulated time in ns; time-outs in seconds of wall time.
Invariants  [CL-1] replies are folded in host_id order.
            [CL-2] an actor that dies is rebuilt from specs, plan and the log of what it was sent, and the run goes on
                   to the same bytes.
            [CL-3] every message carries (run, shard, epoch, attempt) and every reply must repeat it.
Departs     From Ray's own fault tolerance, on purpose: max_restarts=0 and max_task_retries=0. A restarted actor would
            come back empty, and retried calls are re-run out of order.
"""

from __future__ import annotations

import logging
import os
import re
import secrets
import socket
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, NamedTuple, TypeAlias

import podcluster
from podcluster.cluster.plan import actor_count, cores
from podcluster.cluster.pool import CommandsByHost, HostPlan, HostShard, MakeHost, deal, fold, make_host
from podcluster.config import EngineConfig
from podcluster.errors import ConfigError, InvariantError, PodclusterError
from podcluster.records import HostReport, HostSpec

logger = logging.getLogger(__name__)

OBJECT_STORE_BYTES: Final = 256 * 1024**2  # messages are small; Ray's default is 30 % of the machine's memory
MOST_ATTEMPTS: Final = 4  # of one epoch: a shard that dies in the same place again and again will go on doing so
WARN_ACTORS_PER_CORE: Final = 4
KNOCK_S: Final = 5.0
SOURCE: Final = str(Path(podcluster.__file__).resolve().parent.parent)
COLOUR: Final = re.compile(r"\x1b\[[0-9;]*m")


class Tag(NamedTuple):
    """Which message this is [CL-3]."""

    run: str
    shard: int
    epoch: int
    attempt: int


class ShardActor:
    """What runs in an actor: a shard, built anew for every run, and one line of work per message."""

    def __init__(self) -> None:
        self._shard: HostShard | None = None

    def pid(self) -> int:
        """Process id of the actor."""
        return os.getpid()

    def build(self, tag: Tag, specs: Sequence[HostSpec], plan: HostPlan, make: MakeHost, log: Sequence[Step]) -> Tag:
        """Build the shard and bring it to where `log` ends; the reports of a replay are known already."""
        self._shard = HostShard(specs, plan, make)
        for step in log:
            self._shard.advance(step.until_ns, step.commands)
        return tag

    def advance(self, tag: Tag, until_ns: int, commands: CommandsByHost) -> tuple[Tag, list[HostReport]]:
        """Step the shard one epoch."""
        if self._shard is None:
            raise InvariantError(f"[CL-3] a shard is built before it steps violated: {tag}")
        return tag, self._shard.advance(until_ns, commands)


class Step(NamedTuple):
    """One entry of a shard's command log."""

    until_ns: int
    commands: CommandsByHost


Send: TypeAlias = "Callable[[_Shard], Any]"


@dataclass(slots=True)
class _Shard:
    """The driver's side of one shard: what it takes to make it again [CL-2]."""

    index: int
    specs: list[HostSpec]
    actor: Any
    log: list[Step] = field(default_factory=list)
    attempt: int = 0


def start_ray(address: str) -> bool:
    """Start or join Ray; whether it is ours to shut down."""
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    local = address == "local"
    if local and "RAY_AUTH_MODE" not in os.environ and "ray" not in sys.modules:
        # Authentication stays on, with a token of this process alone: Ray would else write one to the home directory,
        # readable by all. It reads the mode when it is imported, so a process that has imported it already keeps its
        # own.
        os.environ["RAY_AUTH_MODE"] = "token"
        os.environ.setdefault("RAY_AUTH_TOKEN", secrets.token_hex(32))
    import ray

    if ray.is_initialized():
        return False
    if not local:
        knock(address)
    path = os.environ.get("PYTHONPATH")
    if local:
        # Workers take their path from here; a source tree need be neither installed nor the current folder.
        os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, [SOURCE, path]))
    try:
        # `address` is always given: a bare ray.init() joins whatever cluster somebody left running.
        ray.init(
            address=address,
            include_dashboard=False if local else None,
            log_to_driver=False,
            logging_level=logging.ERROR,
            object_store_memory=OBJECT_STORE_BYTES if local else None,
        )
    except (ConnectionError, TimeoutError, RuntimeError, ValueError, OSError) as error:
        if local:
            raise PodclusterError(
                f"Ray did not start on this machine ({one_line(error)}): try engine=inline, or a short RAY_TMPDIR with "
                "free space"
            ) from error
        raise unreachable(address, error) from error
    finally:
        if path is not None:
            os.environ["PYTHONPATH"] = path
        elif local:
            del os.environ["PYTHONPATH"]
    return True


def unreachable(address: str, error: BaseException) -> ConfigError:
    """What to say of an address at which no Ray cluster lets us in."""
    return ConfigError(
        f"engine.address must be 'local' or the host:port of a Ray cluster that can be reached, got {address} "
        f"({one_line(error)}): start it, or set RAY_AUTH_TOKEN to its token"
    )


def knock(address: str) -> None:
    """See that somebody listens at host:port before Ray, which would try for minutes."""
    host, _, port = address.removeprefix("ray://").rpartition(":")
    try:
        with socket.create_connection((host, int(port)), timeout=KNOCK_S):
            pass
    except (OSError, ValueError) as error:
        raise unreachable(address, error) from error


def one_line(error: BaseException) -> str:
    """The first line of what an exception says."""
    return (COLOUR.sub("", str(error)).strip().splitlines() or [type(error).__name__])[0][:200]


class RayEngine:
    """Ray for as long as a study lasts: started once, actors handed from run to run."""

    def __init__(self, address: str) -> None:
        self._address = address
        self._ours = start_ray(address)
        self._actors: list[Any] = []

    def pool(
        self, engine: EngineConfig, specs: Sequence[HostSpec], plan: HostPlan, run: str, make: MakeHost = make_host
    ) -> RayPool:
        """Build the hosts of one run in as many actors as `engine` asks for."""
        import ray

        cpus = cores()
        if self._address != "local":
            resources: Any = ray.cluster_resources  # its annotations do not say what it returns
            cpus = int(resources().get("CPU", 1))
        count = actor_count(engine, len(specs), cpus)
        if count > WARN_ACTORS_PER_CORE * cpus:
            logger.warning(
                "%d actors on %d CPUs: each takes 0.3 s to start and 110 MB; engine.actors=%d would do the same work",
                count,
                cpus,
                cpus,
            )
        while len(self._actors) < count:
            self._actors.append(new_actor())
        return RayPool(self, self._actors[:count], engine.timeout_s, specs, plan, run, make)

    def replace(self, dead: Any) -> Any:
        """Take a dead actor out of the engine and put a new one in its place."""
        actor = new_actor()
        self._actors[self._actors.index(dead)] = actor
        return actor

    def pids(self) -> list[int]:
        """Process ids of the actors."""
        import ray

        return [int(pid) for pid in ray.get([actor.pid.remote() for actor in self._actors], timeout=60)]

    def close(self) -> None:
        """End our actors, and Ray if we started it."""
        import ray

        if not ray.is_initialized():
            return
        for actor in self._actors:
            ray.kill(actor, no_restart=True)
        self._actors.clear()
        if self._ours:
            ray.shutdown()


def new_actor() -> Any:
    """One empty actor; num_cpus=0, since a third actor of one CPU would wait for ever on a machine of two."""
    import ray

    return ray.remote(ShardActor).options(num_cpus=0, max_restarts=0, max_task_retries=0).remote()


class RayPool:
    """One run's hosts in actors."""

    kind = "ray"

    def __init__(
        self,
        engine: RayEngine,
        actors: Sequence[Any],
        timeout_s: int,
        specs: Sequence[HostSpec],
        plan: HostPlan,
        run: str,
        make: MakeHost,
    ) -> None:
        self._engine = engine
        self._timeout_s = timeout_s
        self._plan = plan
        self._run = run
        self._make = make
        self._hosts = len(specs)
        self._epoch = 0
        hands = deal(specs, len(actors))
        self._shards = [_Shard(index, hand, actors[index]) for index, hand in enumerate(hands)]
        self._collect([(shard, self._build(shard)) for shard in self._shards], self._build, 0)

    @property
    def actors(self) -> int:
        """Actors that hold the hosts."""
        return len(self._shards)

    def advance(self, until_ns: int, commands: CommandsByHost) -> list[HostReport]:
        """Step every shard to `until_ns`: one message and one reply per actor."""
        self._epoch += 1
        steps = [
            Step(until_ns, {spec.host_id: commands[spec.host_id] for spec in shard.specs if spec.host_id in commands})
            for shard in self._shards
        ]

        def send(shard: _Shard) -> Any:
            return shard.actor.advance.remote(self._tag(shard), *steps[shard.index])

        replies = self._collect([(shard, send(shard)) for shard in self._shards], send, 0)
        for shard, step in zip(self._shards, steps, strict=True):
            shard.log.append(step)
            shard.attempt = 0
        return fold([report for _, reports in replies for report in reports], self._hosts, until_ns)

    def close(self) -> None:
        """Forget the run; its actors stay with the engine for the next one."""
        self._shards.clear()

    def _tag(self, shard: _Shard) -> Tag:
        return Tag(self._run, shard.index, self._epoch, shard.attempt)

    def _build(self, shard: _Shard) -> Any:
        return shard.actor.build.remote(self._tag(shard), shard.specs, self._plan, self._make, shard.log)

    def _collect(self, sent: list[tuple[_Shard, Any]], send: Send, replayed_steps: int) -> list[Any]:
        """Wait for all replies; shards whose actor died are made again and sent their message again.

        A message may take `engine.timeout_s`; one that replays a log, as much for each step of it.
        """
        import ray
        from ray.exceptions import RayActorError, RayTaskError

        timeout_s = float(self._timeout_s * (1 + replayed_steps))
        refs = [ref for _, ref in sent]
        _, late = ray.wait(refs, num_returns=len(refs), timeout=timeout_s)
        if late:
            raise PodclusterError(
                f"engine.timeout_s must be longer than a message takes, got {self._timeout_s}: {len(late)} of "
                f"{len(refs)} actors did not answer in {timeout_s:.0f} s at step {self._epoch}; raise it, or use "
                "engine=inline"
            )
        replies = []
        for shard, ref in sent:
            try:
                reply = ray.get(ref, timeout=timeout_s)
            except RayActorError as error:
                reply = self._revive(shard, send, error)
            except RayTaskError as error:
                if isinstance(error.cause, PodclusterError):
                    raise type(error.cause)(str(error.cause)) from None
                raise
            self._check(shard, reply)
            replies.append(reply)
        return replies

    def _revive(self, shard: _Shard, send: Send, death: Exception) -> Any:
        """Make a shard whose actor died again, from its specs and log, and send it the message once more [CL-2]."""
        if getattr(death, "actor_init_failed", False):
            # Nothing of ours runs there: the text is that of a whole traceback, and its last line says what is missing.
            last = COLOUR.sub("", str(death)).strip().splitlines()[-1]
            raise PodclusterError(
                f"no actor can be made ({last[:200]}): podcluster {podcluster.__version__} must be installed on every "
                "node of the Ray cluster; try engine=inline"
            )
        shard.attempt += 1
        if shard.attempt >= MOST_ATTEMPTS:
            ids = [spec.host_id for spec in shard.specs]
            raise PodclusterError(
                f"the actor of hosts {ids[0]}..{ids[-1]} died {shard.attempt} times at step {self._epoch} "
                f"({one_line(death)}): if memory ran out, lower engine.actors or use engine=inline"
            )
        logger.warning(
            "an actor died at step %d (%s): rebuilding its %d hosts", self._epoch, one_line(death), len(shard.specs)
        )
        shard.actor = self._engine.replace(shard.actor)
        if send != self._build:
            self._collect([(shard, self._build(shard))], self._build, len(shard.log))
        return self._collect([(shard, send(shard))], send, len(shard.log))[0]

    def _check(self, shard: _Shard, reply: Any) -> None:
        """Refuse a reply to another message [CL-3]."""
        tag = reply if isinstance(reply, Tag) else reply[0]
        if tag != self._tag(shard):
            raise InvariantError(
                f"[CL-3] a reply repeats its message's tag violated: sent {self._tag(shard)}, got {tag}"
            )
