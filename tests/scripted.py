"""A client that says what a test wants it to say."""

from collections.abc import Mapping, Sequence

from saelens_n2g.clients.base import Capabilities, Got, one_by_one
from saelens_n2g.clients.messages import Answer, Generated, Reply, Request, Usage
from saelens_n2g.progress import Tick


def answer(text: str) -> Answer:
    """What `Scripted` says to a prompt that it has no script for: the prompt. Five tokens in, one out."""
    return Answer(text, "stop", Usage(5, 1, None), "scripted", (Generated(text, -0.5, ()),))


class Scripted:
    """Answers with the text of the request, or with what `script` has for it, one reply after another."""

    name = "scripted"

    def __init__(self, script: Mapping[str, Sequence[Reply]] | None = None, *, model: str = "scripted") -> None:
        self.script = {text: list(replies) for text, replies in (script or {}).items()}
        self.model, self.identity = model, {"client": self.name, "model": model}
        self.asked: list[Request] = []

    def capabilities(self) -> Capabilities:
        return Capabilities(*[True] * 7)

    def count(self, request: Request) -> int:
        assert isinstance(request, Request)
        return 5

    def one_token(self, text: str) -> bool | None:
        return len(text) == 1

    def ask(self, request: Request) -> Reply:
        self.asked.append(request)
        planned = self.script.get(request.text)
        return planned.pop(0) if planned else answer(request.text)

    def ask_many(self, requests: Sequence[Request], tick: Tick | None = None, got: Got | None = None) -> list[Reply]:
        return one_by_one(self.ask, requests, tick, got)
