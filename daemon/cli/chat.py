"""The chat of `inferd run MODEL`: lines in, answers out, the history kept as messages."""

import sys
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from ...protos.errors import InferdError
from .common import show_error
from .run import print_answer, print_stats
from .waiting import Waiting

if TYPE_CHECKING:
    from ...protos.client import Client
    from ...protos.compose import GenerateOptions

HELP = """\
/system TEXT  set the system message (alone: take it away)
/clear        forget the conversation
/bye          leave, as does Ctrl-D
Ctrl-C ends an answer, not the chat."""


class Chat:
    """One conversation. With `raw`, every line is a prompt of its own."""

    def __init__(self, client: "Client", model: str, options: "GenerateOptions", *, stats: bool = False) -> None:
        self._client = client
        self._model = model
        self._options = options.copy()
        self._stats = stats
        self.messages: list[dict[str, Any]] = []

    def loop(self, ask: Callable[[str], str] = input) -> None:
        """Talk until the user leaves."""
        _enable_line_editing()
        print(f"chatting with {self._model}; /help for help, Ctrl-D to leave", file=sys.stderr)
        while True:
            try:
                line = ask(">>> ")
            except EOFError:
                print()
                return
            except KeyboardInterrupt:
                print("\nCtrl-D or /bye leaves", file=sys.stderr)
                continue
            if line.strip() == "/bye":
                return
            if line.startswith("/"):
                self.command(line)
            elif line.strip():
                self.say(line)

    def command(self, line: str) -> None:
        """Carry out a line that begins with a slash."""
        verb, _, rest = line.strip().partition(" ")
        if verb == "/system":
            self._options["system"] = rest.strip() or None
        elif verb == "/clear":
            self.messages.clear()
        elif verb == "/help":
            print(HELP, file=sys.stderr)
        else:
            print(f"there is no {verb}; /help shows what there is", file=sys.stderr)

    def say(self, line: str) -> None:
        """Send one message and print the answer. One that failed leaves no trace in the history."""
        asked = {"role": "user", "content": line}
        prompt: str | list[dict[str, Any]] = line if self._options.get("raw") else [*self.messages, asked]
        try:
            generation = self._client.generate(self._model, prompt, **self._options)
            try:
                print_answer(generation, Waiting(self._client, self._model))
            except KeyboardInterrupt:
                generation.cancel()
        except InferdError as error:
            show_error(error)
            return
        # What was said before Ctrl-C is part of the conversation.
        answer = generation.message()
        if answer["content"] or "tool_calls" in answer:
            self.messages += [asked, answer]
        if self._stats:
            print_stats(generation)


def _enable_line_editing() -> None:
    """Arrow keys and history in input(), where Python was built with them."""
    try:
        import readline  # noqa: F401
    except ImportError:
        return
