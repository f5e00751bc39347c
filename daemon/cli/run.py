"""`inferd run`: one answer to stdout, or a chat when nobody says what to answer."""

import json
import sys
from typing import TYPE_CHECKING, Annotated, Any, Literal, TextIO

import typer

from .common import CONTROLS, FAILED, USAGE, Address, AsJson, Model, connect, fields_of, guarded, print_json
from .common import stop as end
from .waiting import Waiting

if TYPE_CHECKING:
    from ...protos.answer import Answer
    from ...protos.client import Client
    from ...protos.compose import GenerateOptions
    from ...protos.streams import Generation

Priority = Literal["interactive", "normal", "batch"]
Prompt = Annotated[
    str | None,
    typer.Argument(metavar="PROMPT", help="What to say; - or a pipe reads stdin. Without it, a chat begins."),
]
MaxTokens = Annotated[int | None, typer.Option(metavar="N", help="End the answer after so many tokens.")]
Temperature = Annotated[float | None, typer.Option(metavar="T", help="0 always takes the likeliest token.")]
TopP = Annotated[float | None, typer.Option(metavar="P", help="Keep the likeliest tokens up to this probability.")]
TopK = Annotated[int | None, typer.Option(metavar="K", help="Keep the K likeliest tokens; 0 keeps all.")]
MinP = Annotated[float | None, typer.Option(metavar="P", help="Drop tokens less likely than P of the likeliest.")]
Seed = Annotated[int | None, typer.Option(metavar="S", help="Repeat an answer.")]
Stop = Annotated[list[str] | None, typer.Option(metavar="TEXT", help="End the answer here; may be repeated.")]
PriorityOption = Annotated[Priority, typer.Option(help="Who goes first when others wait.")]
Session = Annotated[str | None, typer.Option(metavar="ID", help="Name the conversation that this is a turn of.")]
System = Annotated[str | None, typer.Option(metavar="TEXT", help="The system message.")]
Raw = Annotated[bool, typer.Option("--raw", help="Send the prompt as it is, without the chat template.")]
JsonObject = Annotated[bool, typer.Option("--json-object", help="Have the answer be a JSON object.")]
Schema = Annotated[
    typer.FileText | None, typer.Option("--schema", metavar="FILE", help="Have the answer be JSON of this schema.")
]
Grammar = Annotated[
    typer.FileText | None, typer.Option("--grammar", metavar="FILE", help="Have the answer follow this GBNF grammar.")
]
Tools = Annotated[
    typer.FileText | None, typer.Option("--tools", metavar="FILE", help="JSON: a list of functions that it may call.")
]
ToolChoice = Annotated[
    str | None, typer.Option("--tool-choice", metavar="C", help="auto, none, required, or a function's name.")
]
Deadline = Annotated[int | None, typer.Option(metavar="MS", help="Give up after so many milliseconds.")]
Lora = Annotated[str | None, typer.Option(metavar="NAME", help="Answer with one of the model's LoRA adapters.")]
Stats = Annotated[bool, typer.Option("--stats", help="Say on stderr how fast it was.")]


@guarded
def run(
    model: Model,
    prompt: Prompt = None,
    max_tokens: MaxTokens = None,
    temperature: Temperature = None,
    top_p: TopP = None,
    top_k: TopK = None,
    min_p: MinP = None,
    seed: Seed = None,
    stop: Stop = None,
    priority: PriorityOption = "interactive",
    session: Session = None,
    system: System = None,
    raw: Raw = False,
    json_object: JsonObject = False,
    schema: Schema = None,
    grammar: Grammar = None,
    tools: Tools = None,
    tool_choice: ToolChoice = None,
    deadline_ms: Deadline = None,
    lora: Lora = None,
    stats: Stats = False,
    address: Address = None,
    as_json: AsJson = False,
) -> None:
    """Answer a prompt, or chat."""
    options: GenerateOptions = {
        "max_tokens": max_tokens, "temperature": temperature, "top_p": top_p, "top_k": top_k, "min_p": min_p,
        "seed": seed, "stop": stop, "priority": priority, "session_id": session, "deadline_ms": deadline_ms,
        "raw": raw, "lora": lora, "system": system, "response_format": response_format(json_object, schema, grammar),
        "tools": read_tools(tools),
        "tool_choice": tool_choice if tool_choice in (None, "auto", "none", "required") else {"function": tool_choice},
    }  # fmt: skip
    text = read_prompt(prompt, sys.stdin, as_json=as_json)
    with connect(address) as client:
        if text is None:
            from .chat import Chat

            Chat(client, model, options, stats=stats).loop()
        else:
            one_shot(client, model, text, options, stats=stats, as_json=as_json)


def response_format(json_object: bool, schema: TextIO | None, grammar: TextIO | None) -> "str | dict[str, str] | None":
    """What the options say of the answer's form; None lets it be any text."""
    if json_object + (schema is not None) + (grammar is not None) > 1:
        end(USAGE, "only one of --json-object, --schema and --grammar can be given")
    if schema is not None:
        return {"json_schema": schema.read()}
    if grammar is not None:
        return {"grammar": grammar.read()}
    return "json_object" if json_object else None


def read_tools(file: TextIO | None) -> "list[Any] | None":
    """A list of tools, as Client.generate takes them."""
    if file is None:
        return None
    try:
        tools = json.loads(file.read())
    except ValueError as error:
        end(USAGE, f"--tools: this is not JSON: {error}")
    if not isinstance(tools, list) or not all(isinstance(tool, dict) for tool in tools):
        end(USAGE, "--tools: there must be a list of objects")
    return tools


def read_prompt(prompt: str | None, stdin: TextIO, *, as_json: bool) -> str | None:
    """The text to answer; None asks for a chat."""
    if prompt is None and stdin.isatty():
        if as_json:
            end(USAGE, "--json needs a PROMPT")
        return None
    text = stdin.read() if prompt in (None, "-") else prompt
    if not text:
        end(USAGE, "the prompt is empty")
    return text


def one_shot(
    client: "Client", model: str, text: str, options: "GenerateOptions", *, stats: bool, as_json: bool
) -> None:
    """One answer, streamed to stdout as it comes or printed as JSON once it is done."""
    generation = client.generate(model, text, **options)
    print_answer(generation, Waiting(client, model), silent=as_json)
    if as_json:
        calls = [fields_of(call, ("id", "name", "arguments")) for call in generation.tool_calls]
        print_json(twin(generation) | ({"tool_calls": calls} if options.get("tools") else {}))
    if stats:
        print_stats(generation)
    if generation.finish_reason == "cancelled":
        end(FAILED, "the request was cancelled")


def print_answer(generation: "Generation", waiting: Waiting, *, silent: bool = False) -> None:
    """Write each piece at once, and calls at the end. A terminal gets nothing that it would obey; a pipe every byte."""
    controls = CONTROLS if sys.stdout.isatty() else {}
    open_line = False
    try:
        for event in generation.events():
            if not event.HasField("delta"):
                waiting.update(generation)
            elif (text := event.delta.text) and not silent:
                waiting.clear()
                open_line = not text.endswith("\n")  # before the write: Ctrl-C may come right after it
                sys.stdout.write(text.translate(controls) if controls else text)
                sys.stdout.flush()
    finally:
        waiting.clear()
        if open_line:
            sys.stdout.write("\n")
            sys.stdout.flush()
    for call in () if silent else generation.tool_calls:
        print(f"{call.name}({call.arguments.translate(controls)})")


def twin(answer: "Answer") -> dict[str, Any]:
    """The answer as scripts see it, once it is done."""
    return {
        "text": answer.text_so_far(),
        "finish_reason": answer.finish_reason,
        "request_id": answer.request_id,
        "model": answer.model,
        "usage": fields_of(answer.usage, ("prompt_tokens", "cached_tokens", "completion_tokens")),
        "timings": fields_of(answer.timings, ("queue_ms", "ttft_ms", "tpot_ms", "e2e_ms")),
    }


def print_stats(answer: "Answer") -> None:
    """One line about speed, on stderr."""
    usage, timings = answer.usage, answer.timings
    if usage is None or timings is None:
        return
    parts = [f"{usage.completion_tokens} tokens"]
    if timings.tpot_ms > 0:
        parts.append(f"{1000 / timings.tpot_ms:.1f} tokens/s")
    parts.append(f"first after {timings.ttft_ms:.0f} ms")
    parts.append(f"{usage.cached_tokens} of {usage.prompt_tokens} prompt tokens cached")
    if timings.draft_n:
        parts.append(f"{timings.draft_n_accepted} of {timings.draft_n} guessed tokens right")
    if answer.resumed:
        parts.append(f"resumed {answer.resumed} times")
    line = ", ".join(parts)
    print(f"\x1b[2m{line}\x1b[0m" if sys.stderr.isatty() else line, file=sys.stderr)
