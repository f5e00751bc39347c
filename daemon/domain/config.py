"""What the operator decides. packaging/inferd.toml writes every default down with its reason."""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec
from msgspec import Meta

from ...backends.facts import KvLayout, KvType, Numerics, Sandbox

Positive = Annotated[int, Meta(ge=1)]
Seconds = Annotated[float, Meta(ge=0)]
Verify = Literal["stamp", "always", "never"]
Percent = Annotated[float, Meta(gt=0)]


class Tls(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """PEM files of the TCP addresses; they may be replaced while the daemon runs."""

    certificate: str = ""  # with those between it and its CA; empty: no TLS
    key: str = ""
    client_ca: str = ""  # whose certificates clients must have; empty: none are asked for


class Server(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    address: str = ""  # empty: the default Unix socket; a `unix:` path or host:port
    tcp_address: str = ""  # host:port beside it; empty: none
    admin_address: str = ""  # a Unix socket for the role admin; empty: beside the first; "none": none
    tls: Tls = Tls()
    max_message_bytes: Annotated[int, Meta(ge=64 * 1024, le=64 * 2**20)] = 4 * 2**20
    max_streams_per_connection: Positive = 1024
    drain_s: Seconds = 30.0  # how long running requests may go on after SIGTERM
    slow_consumer_s: Seconds = 30.0  # a stream whose reader stands still this long is cut
    step_limit_s: Seconds = 60.0  # a worker that takes longer over one step, and ten times its longest, is replaced


class Access(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Roles of those who bring no token."""

    loopback_role: Literal["none", "viewer", "user", "operator"] = "operator"  # none: a token is needed
    certificate_role: Literal["viewer", "user", "operator", "admin"] = "user"


class TenantLimits(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What one tenant may have waiting; None: what `[queue]` says for each."""

    max_requests: Positive | None = None
    max_tokens: Positive | None = None


class ModelOptions(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How a model is loaded; None takes the value from `[models.defaults]`, or from the model itself."""

    context_tokens: Positive | None = None  # one request's prompt + completion; default: the model's, at most 8,192
    slots: Annotated[int, Meta(ge=1, le=64)] | None = None
    kv_cells: Positive | None = None  # default: what all slots need, at most 4 full contexts
    kv_type: KvType | None = None
    kv_layout: KvLayout | None = None
    pooling: Literal["none", "mean", "cls", "last"] | None = None  # llama.cpp's names; none: generate text
    numerics: Numerics | None = None
    # LoRA: what requests call them -> files below a folder of models
    adapters: dict[Annotated[str, Meta(min_length=1, max_length=128)], str] | None = None
    prefix_caching: bool | None = None  # requests that begin alike share what is computed
    cache_bytes: Annotated[int, Meta(ge=0)] | None = None  # of host RAM, for computed prompts whose cells are gone
    spec_type: Literal["none", "ngram-simple", "draft-simple"] | None = None  # what guesses tokens, llama.cpp's names
    draft_model: Annotated[str, Meta(min_length=1)] | None = None  # its name; guesses tokens of this one
    flash_attention: bool | None = None
    threads: Positive | None = None  # default: the physical cores this process may use
    ubatch_tokens: Annotated[int, Meta(ge=64, le=4096)] | None = None
    gpu_layers: Annotated[int, Meta(ge=-1)] | None = None  # -1 is all of them
    mmap: bool | None = None
    keep_alive_s: Annotated[float, Meta(ge=-1, le=1e9)] | None = None  # negative: never unloaded for being idle
    pinned: bool | None = None  # stays once it is loaded: never makes way for another model, nor goes when idle
    # Of models that take tensors, in Triton's words: requests that share a call.
    max_batch_size: Annotated[int, Meta(ge=0, le=1024)] | None = None  # rows of one; 0: none share; default: 32
    preferred_batch_size: tuple[Positive, ...] | None = None  # default: what is measured to be best
    max_queue_delay_microseconds: Annotated[int, Meta(ge=0, le=1_000_000)] | None = None  # to wait for company
    preserve_ordering: bool | None = None  # answers come in the order of the requests
    instances: Annotated[int, Meta(ge=1, le=256)] | None = None  # calls side by side; default: one for each thread
    replicas: Annotated[int, Meta(ge=1, le=16)] | None = None  # copies at a time, each on devices of its own


class Models(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    folders: tuple[str, ...] = ()
    # Which files are read again before a load is believed: those that changed since they were imported, all, or none
    verify: Verify = "stamp"
    defaults: ModelOptions = ModelOptions()
    by_name: dict[str, ModelOptions] = msgspec.field(default_factory=dict, name="model")
    pull_folder: str = ""  # for what is pulled; empty: the first of the folders, else one in the state folder
    pull_max_bytes: Positive | None = None  # the most that may lie in it; None: what the disk has
    pull_min_free_bytes: Annotated[int, Meta(ge=0)] = 2 * 2**30  # of its disk, never taken by a pull


class Hub(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Where models are pulled from. Clients name a repository there, and never an address."""

    endpoint: Annotated[str, Meta(pattern=r"^https?://[^\s/?#@\\]+(/[^\s?#@\\]*)?$")] = "https://huggingface.co"
    token_file: str = ""  # read at each pull; empty: nobody's token
    max_pulls: Annotated[int, Meta(ge=1, le=16)] = 2  # at the same time
    partial_ttl_s: Seconds = 604_800.0  # so long a pull that was given up can be gone on with; 0: not at all


class Workers(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What a process may do that holds a model; a model file may be made by anybody."""

    sandbox: Sandbox = "auto"  # as far as the kernel can; "required": nothing is loaded where that is not all of it
    memory_slack: Annotated[float, Meta(ge=1, le=100)] = 2.0  # times what it reserves, in a cgroup of its own


class Queue(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    max_requests: Positive = 2048
    max_requests_per_tenant: Positive = 1024
    max_tokens: Positive = 8 * 2**20  # prompts and the answers they may get, estimated until a prompt is read
    max_tokens_per_tenant: Positive = 4 * 2**20
    max_tensor_bytes: Positive = 2**30  # of inputs, from arrival until their request is over


class ClassOptions(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What one class of requests may count on."""

    floor_share: Annotated[float, Meta(ge=0, le=0.5)] = 0.0  # of the tokens served, while it waits
    max_wait_s: Seconds = 2.0  # then a model makes way for the one it needs, and the class gets a slot
    first_token_limit_s: Annotated[float, Meta(gt=0)] | None = None  # refused when the forecast is later
    itl_target_ms: Annotated[float, Meta(gt=0)] | None = None  # between two tokens, while prompts are computed beside


class Turns(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Who is served when."""

    policy: Literal["fair", "fifo"] = "fair"
    preempt: bool = True  # an interactive request that finds no slot parks one of a lower class
    max_parks: Annotated[int, Meta(ge=0, le=100)] = 3  # of one request
    min_resident_s: Seconds = 0.5  # a model that was loaded stays at least this long
    interactive: ClassOptions = ClassOptions()
    normal: ClassOptions = ClassOptions(floor_share=0.10, max_wait_s=10.0)
    batch: ClassOptions = ClassOptions(floor_share=0.05, max_wait_s=60.0, itl_target_ms=1000.0)


class Memory(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    host_margin_bytes: Annotated[int, Meta(ge=0)] = 512 * 2**20  # never given to models
    host_budget_bytes: Annotated[int, Meta(ge=0)] | None = None  # the most that models may take; None: what there is
    device_margin_bytes: Annotated[int, Meta(ge=0)] = 256 * 2**20
    device_budget_bytes: Annotated[int, Meta(ge=0)] | None = None  # of each device
    # PSI, `some avg10` of memory in per cent: no prefetching, no loads, batch is shed, everything is refused
    pressure: tuple[Percent, Percent, Percent, Percent] = (10.0, 20.0, 40.0, 60.0)


class Cache(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What has been computed, kept for requests that begin alike."""

    share_between_tenants: bool = False  # who has the same prompt can tell from the time it takes that another had it
    session_s: Seconds = 600.0  # so long after a turn of a session others make way before what it has computed
    disk_bytes: Annotated[int, Meta(ge=0)] = 4 * 2**30  # for what no longer is in RAM; 0: nothing is kept on disk
    disk_ttl_s: Annotated[float, Meta(gt=0)] = 604_800.0  # after so long without use a file goes
    folder: str = ""  # default: the cache folder of the service or the user


class Jobs(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Work that outlives its client and the daemon."""

    folder: str = ""  # default: the state folder of the service or the user
    max_jobs: Positive = 10_000  # that have not ended
    max_jobs_per_tenant: Positive = 5_000
    max_bytes: Positive = 2 * 2**30  # of the file; nothing that may still be read is thrown away for a new one
    tenant_share: Annotated[float, Meta(gt=0, le=1)] = 0.5  # of max_bytes: one tenant must not close it for the others
    keep_s: Annotated[float, Meta(gt=0)] = 604_800.0  # after its end a job can be read so long, and its key is taken


class Records(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Files that grow with every request; empty: none."""

    arrivals_file: str = ""  # CSV, for `inferd bench --trace`
    decisions_file: str = ""  # JSON lines: every decision with its inputs


class Fake(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Every catalog name runs on the fake engine: no weights, a set rate. For tests, demos and benchmarks."""

    enabled: bool = False
    tokens_per_s: Annotated[float, Meta(ge=0)] = 0.0  # per stream; 0 is as fast as it can
    prefill_tokens_per_s: Annotated[float, Meta(ge=0)] = 0.0  # one prompt after another; 0 is instantly
    load_s: Seconds = 0.0


class Config(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    server: Server = Server()
    models: Models = Models()
    hub: Hub = Hub()
    workers: Workers = Workers()
    access: Access = Access()
    queue: Queue = Queue()
    tenants: dict[Annotated[str, Meta(min_length=1, max_length=64)], TenantLimits] = msgspec.field(
        default_factory=dict, name="tenant"
    )
    scheduler: Turns = Turns()
    memory: Memory = Memory()
    cache: Cache = Cache()
    jobs: Jobs = Jobs()
    records: Records = Records()
    fake: Fake = Fake()
    log_level: Literal["debug", "info", "warning", "error"] = "info"
