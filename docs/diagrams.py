"""Draw the protocol's state diagrams from its tables.

`python docs/diagrams.py` prints what stands in docs/protocol.md.
"""

from fedseal.privacy.secagg import client, server


def site_diagram() -> str:
    """The site's states and events, as Mermaid."""
    lines = ["stateDiagram-v2", "    [*] --> Idle"]
    lines += [f"    {s.__name__} --> {t.to.__name__}: {e.__name__}" for (s, e), t in client.TRANSITIONS.items()]
    return "\n".join([*lines, "    Done --> [*]"])


def server_diagram() -> str:
    """The server's states; replies are taken in the state, the end of a stage leads on."""
    lines = ["stateDiagram-v2", "    [*] --> Advertising: open_round"]
    for state, closing in server.CLOSES.items():
        taken = [reply.__name__ for s, reply in server.RECEIVES if s is state]
        lines.append(f"    {state.__name__} --> {state.__name__}: {', '.join(taken)}, Refusal")
        lines.append(f"    {state.__name__} --> {closing.to.__name__}: close, enough answered")
        lines.append(f"    {state.__name__} --> Aborted: close, too few")
    return "\n".join([*lines, "    Finished --> [*]", "    Aborted --> [*]"])


if __name__ == "__main__":
    print(f"```mermaid\n{site_diagram()}\n```\n\n```mermaid\n{server_diagram()}\n```")
