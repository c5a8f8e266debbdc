"""Hosts in Ray actors: the only module that knows Ray.

What        `RayEngine` starts (or joins) Ray once and keeps its actors over all runs of a sweep; `RayPool` is one run
            on it: each actor holds a shard of hosts, gets one message per epoch and sends one reply. What becomes of
            actors that die, hang or answer late is `exchange.py`'s.
Units       Simulated time in ns; time-outs in seconds of wall time.
Invariants  [CL-1] replies are folded in host_id order.
Departs     From Ray's own fault tolerance, on purpose: max_restarts=0 and max_task_retries=0. A restarted actor would
            come back empty, and retried calls are re-run out of order. And what Ray's head is asked has a deadline of
            ours: Ray waits for minutes for a head that does not answer, or for ever.
"""

from __future__ import annotations

import logging
import os
import re
import secrets
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final, TypeVar

import podcluster
from podcluster.cluster.ahead import Ahead
from podcluster.cluster.deadline import left_behind, within
from podcluster.cluster.exchange import START_S, Death, Exchange, Failure, Message, ShardServer, Tag
from podcluster.cluster.plan import actor_count, cores
from podcluster.cluster.pool import (
    NOTHING_PACKED,
    PACKING,
    CommandsByHost,
    HostPlan,
    MakeHost,
    Packed,
    Packing,
    deal,
    fold,
    make_host,
)
from podcluster.cluster.processes import Watch, agents_of_ray
from podcluster.config import EngineConfig, host_and_port
from podcluster.errors import ConfigError, InvariantError, PodclusterError
from podcluster.records.hosts import HostSpec
from podcluster.records.reports import HostReport

logger = logging.getLogger(__name__)

OBJECT_STORE_BYTES: Final = 256 * 1024**2  # messages are small; Ray's default is 30 % of the machine's memory
# Larger messages go by the object store, through Ray's node manager, which costs several times what they are worth from
# process to process. Ray's own 100 kB is a few samples of some hosts.
DIRECT_BYTES: Final = 4 * 1024**2
ACTOR_CPUS: Final = 0.001
GET_S: Final = 60.0  # for a reply that is said to be there
WARN_ACTORS_PER_CORE: Final = 4
KNOCK_S: Final = 5.0
JOIN_S: Final = 50.0  # Ray tells a wrong token from nobody after 20 s; at 60 s it would end this process
ANSWER_S: Final = 30.0  # most that a head may take for what takes it some ms
WORKERS_S: Final = 10.0  # for workers that have been started and not yet joined
LOOK_S: Final = 0.5  # between two looks at who has joined
SOURCE: Final = str(Path(podcluster.__file__).resolve().parent.parent)
COLOUR: Final = re.compile(r"\x1b\[[0-9;]*m")

T = TypeVar("T")
Nodes = Sequence[Mapping[str, Any]]
"""What Ray says of its nodes, those that are gone included."""


def start_ray(address: str) -> bool:
    """Start or join Ray; whether it is ours to shut down. `auto`: the cluster that this process is a job of."""
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
        address = knock(address)
    path = os.environ.get("PYTHONPATH")
    if local:
        # Workers take their path from here; a source tree need be neither installed nor the current folder.
        os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, [SOURCE, path]))
    in_main = threading.current_thread() is threading.main_thread()
    before = signal.getsignal(signal.SIGTERM)

    def init() -> None:
        # `address` is always given: a bare ray.init() joins whatever cluster somebody left running.
        ray.init(
            address=address,
            include_dashboard=False if local else None,
            log_to_driver=False,
            logging_level=logging.ERROR,
            object_store_memory=OBJECT_STORE_BYTES if local else None,
            _system_config={"max_direct_call_object_size": DIRECT_BYTES} if local else None,
        )

    try:
        if local:
            init()  # not in a thread: what it starts is ended by the system together with the thread that started it
        else:
            within(JOIN_S, init, unreachable(address, f"somebody listens there who did not answer in {JOIN_S:g} s"))
    except (ConnectionError, TimeoutError, RuntimeError, ValueError, OSError) as error:
        if local:
            raise PodclusterError(
                f"Ray did not start on this machine ({one_line(error)}): try engine=inline, or a short RAY_TMPDIR with "
                "free space"
            ) from error
        raise unreachable(address, error) from error
    finally:
        if in_main and before is not None:
            signal.signal(signal.SIGTERM, before)  # Ray puts its own there, which ends the process with its status
        if path is not None:
            os.environ["PYTHONPATH"] = path
        elif local:
            del os.environ["PYTHONPATH"]
    return True


def unreachable(address: str, error: BaseException | str) -> ConfigError:
    """What to say of an address at which no Ray cluster lets us in."""
    why = error if isinstance(error, str) else one_line(error)
    return ConfigError(
        f"engine.address must be 'local', the host:port of a Ray cluster that can be reached, or 'auto' in a job that "
        f"was submitted to one, got {address} ({why}): start it, or set RAY_AUTH_TOKEN to its token"
    )


def knock(address: str) -> str:
    """See that somebody listens at host:port before Ray, which would try for minutes; the address that Ray is given."""
    found = address
    if address == "auto":
        # Only what Ray tells its jobs: left to itself it would take any cluster that somebody left running here.
        found = os.environ.get("RAY_ADDRESS", "")
        if not found:
            raise unreachable(address, "RAY_ADDRESS is not set")
    place = host_and_port(found)
    if place is None:
        raise unreachable(address, f"{found} is no host:port")
    try:
        with socket.create_connection(place, timeout=KNOCK_S):
            return found
    except OSError as error:
        raise unreachable(address, error) from error


def silent(address: str, what: str) -> PodclusterError:
    """What to say of a Ray that has let us in and now does not answer."""
    where = "on this machine" if address == "local" else f"at {address}"
    return PodclusterError(
        f"the head of Ray {where} must answer, got nothing in {ANSWER_S:g} s ({what}): see what keeps it; the same "
        "command goes on from the last checkpoint"
    )


def cpus_of(nodes: Nodes) -> float:
    """CPUs of the nodes that are alive."""
    return float(sum(node.get("Resources", {}).get("CPU", 0) for node in nodes if node["Alive"]))


def cluster_cpus(address: str, ask_nodes: Callable[[], Nodes], wait_s: float) -> int:
    """CPUs that the cluster has for actors, after `wait_s` at most in which a first worker may join."""
    until_s = time.monotonic() + wait_s
    while not cpus_of(nodes := ask_nodes()):
        if time.monotonic() >= until_s:
            alive = sum(bool(node["Alive"]) for node in nodes)
            raise ConfigError(
                f"engine.address must be of a Ray cluster that has CPUs for hosts, got {address} (nodes: {alive}, "
                f"CPUs: 0, after {wait_s:g} s): add a node with `ray start --address=HEAD:PORT`"
            )
        time.sleep(LOOK_S)
    return max(1, int(cpus_of(nodes)))


def one_line(error: BaseException) -> str:
    """The first line of what an exception says."""
    return (COLOUR.sub("", str(error)).strip().splitlines() or [type(error).__name__])[0][:200]


class RayEngine:
    """Ray for as long as a study lasts: started once, actors handed from run to run."""

    def __init__(self, address: str) -> None:
        self._address = address
        self._ours = start_ray(address)
        self._watch = Watch(agents_of_ray()) if self._ours and address == "local" else None
        self.actors: list[Any] = []

    def pool(
        self,
        engine: EngineConfig,
        specs: Sequence[HostSpec],
        plan: HostPlan,
        make: MakeHost = make_host,
        packing: Packing = PACKING,
        packed: Packed = NOTHING_PACKED,
    ) -> RayPool:
        """Build the hosts of one run in as many actors as `engine` asks for."""
        cpus = cores() if self._address == "local" else cluster_cpus(self._address, self._nodes, WORKERS_S)
        count = actor_count(engine, len(specs), cpus)
        if count > WARN_ACTORS_PER_CORE * cpus:
            logger.warning(
                "%d actors on %d CPUs: each takes 0.3 s to start and 110 MB; engine.actors=%d would do the same work",
                count,
                cpus,
                cpus,
            )
        while len(self.actors) < count:
            self.actors.append(self._ask("an actor", new_actor))
        hands = deal(specs, count)
        exchange = Exchange(
            _RayTransport(self),
            hands,
            plan,
            secrets.token_hex(4),
            timeout_s=engine.timeout_s,
            make=make,
            packing=packing,
            packed=packed,
        )
        return RayPool(exchange, len(specs))

    def replace(self, index: int) -> None:
        """End an actor, if it is still there, and put a new one in its place."""
        import ray

        left = any(node["Alive"] for node in self._nodes())
        try:
            if left and self._address != "local":
                # As long as a new server is given to answer: the node of the old one may be starting again.
                cluster_cpus(self._address, self._nodes, START_S)
        except ConfigError:
            left = False
        if not left:
            raise PodclusterError(
                "no node of Ray is left to make an actor on: the same command goes on from the last checkpoint"
            )
        # It may be dead; it may as well hang, or be on a node that nobody reaches for a while.
        self._ask("the end of an actor", lambda: ray.kill(self.actors[index], no_restart=True))
        self.actors[index] = self._ask("an actor", new_actor)

    def pids(self) -> list[int]:
        """Process ids of the actors."""
        import ray

        return [int(pid) for pid in ray.get([actor.pid.remote() for actor in self.actors], timeout=60)]

    def close(self) -> None:
        """End our actors, and Ray if we started it."""
        import ray

        if not ray.is_initialized():
            return
        actors = self.actors.copy()
        self.actors.clear()

        def end() -> None:
            for actor in actors:
                ray.kill(actor, no_restart=True)
            if self._ours:
                ray.shutdown()

        # Who has not answered before is not asked again: actors end with this process.
        if not left_behind():
            try:
                self._ask("goodbye", end)
            except PodclusterError as error:
                # What the run was for is done, or has its own error.
                logger.warning("%s", error)
        if self._watch is not None:
            self._watch.close()

    def _nodes(self) -> Nodes:
        import ray

        nodes: Callable[[], Nodes] = ray.nodes  # its annotations do not say what it returns
        return self._ask("its nodes", nodes)

    def _ask(self, what: str, call: Callable[[], T]) -> T:
        """What Ray has to say, or one clear error that its head says nothing."""
        return within(ANSWER_S, call, silent(self._address, what))


def new_actor() -> Any:
    """One empty actor, on whichever node has fewest.

    It asks for a thousandth of a CPU: with a whole one, a third actor would wait for ever on a machine of two; with
    none, it might land on a head node that has been given no CPUs so that it is left alone.
    """
    import ray

    placed = {"num_cpus": ACTOR_CPUS, "scheduling_strategy": "SPREAD"}
    return ray.remote(ShardServer).options(max_restarts=0, max_task_retries=0, **placed).remote()


class _RayTransport:
    """Carries the messages of one run to the engine's actors."""

    def __init__(self, engine: RayEngine) -> None:
        self._engine = engine
        self._sent: dict[Any, Tag] = {}  # by the reference to the reply

    def send(self, tag: Tag, message: Message) -> None:
        actor = self._engine.actors[tag.shard]
        self._sent[getattr(actor, message.method).remote(tag, *message.arguments)] = tag

    def tell(self, tag: Tag, message: Message) -> None:
        actor = self._engine.actors[tag.shard]
        getattr(actor, message.method).options(num_returns=0).remote(tag, *message.arguments)

    def receive(self, timeout_s: float) -> list[tuple[Tag, Any]]:
        import ray

        # One at a time: what the first has to say is read while the others compute.
        ready, _ = ray.wait(list(self._sent), timeout=timeout_s)
        return [self._answer(ref) for ref in ready]

    def renew(self, shard: int) -> None:
        # What the old one was sent is nobody's business any more.
        self._sent = {ref: tag for ref, tag in self._sent.items() if tag.shard != shard}
        self._engine.replace(shard)

    def _answer(self, ref: Any) -> tuple[Tag, Any]:
        import ray
        from ray.exceptions import RayActorError, RayError, RayTaskError

        tag = self._sent.pop(ref)
        try:
            reply: tuple[Tag, Any] = ray.get(ref, timeout=GET_S)
        except RayTaskError as error:
            cause = error.cause
            return tag, Failure(type(cause)(str(cause)) if isinstance(cause, PodclusterError) else error)
        except RayActorError as error:
            if getattr(error, "actor_init_failed", False):
                return tag, Failure(_unmakable(error))
            return tag, Death(one_line(error))
        except RayError as error:
            # A reply that cannot be had: its node died after it was given, or it could not be stored.
            return tag, Death(one_line(error))
        return reply


def _unmakable(error: BaseException) -> PodclusterError:
    # Nothing of ours runs there: the text is that of a whole traceback, and its last line says what is missing.
    last = COLOUR.sub("", str(error)).strip().splitlines()[-1]
    return PodclusterError(
        f"no actor can be made ({last[:200]}): podcluster {podcluster.__version__} must be installed on every node of "
        "the Ray cluster; try engine=inline"
    )


class RayPool:
    """One run's hosts in actors."""

    kind = "ray"

    def __init__(self, exchange: Exchange, hosts: int) -> None:
        self._exchange: Exchange | None = exchange
        self._hosts = hosts
        self.actors = exchange.shards

    def advance(self, until_ns: int, commands: CommandsByHost, ahead: Ahead | None = None) -> list[HostReport]:
        """Step every shard to `until_ns`: one message and one reply per actor, and a word on the step after it."""
        return fold(self._open().advance(until_ns, commands, ahead), self._hosts, until_ns)

    def pack(self) -> Iterator[tuple[int, bytes]]:
        """A few hosts of each actor at a time."""
        return self._open().pack()

    def rely_on(self, packed: Packed) -> None:
        """Make the shards of actors that die of these hosts."""
        self._open().rely_on(packed)

    def close(self) -> None:
        """Forget the run; its actors stay with the engine for the next one."""
        self._exchange = None

    def _open(self) -> Exchange:
        if self._exchange is None:
            raise InvariantError("[CL-3] a pool is used while it is open violated")
        return self._exchange
