"""A group of verbs that imports a verb's module only when that verb is used: ``--help`` must be quick."""

from __future__ import annotations

from collections.abc import Mapping
from importlib import import_module
from typing import Any

import click
from click.shell_completion import CompletionItem


class LazyGroup(click.Group):
    """A group of verbs.

    Parameters
    ----------
    verbs
        By name: the module that has the command, followed by ``:attribute`` where it is not called like the verb,
        and what the verb does.
    """

    def __init__(self, *args: Any, verbs: Mapping[str, tuple[str, str]], **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._verbs = verbs

    def list_commands(self, ctx: click.Context) -> list[str]:
        """The verbs, in the order of their table."""
        return list(self._verbs)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import a verb; None if there is none of this name."""
        if cmd_name not in self._verbs:
            return None
        module, _, attribute = self._verbs[cmd_name][0].partition(":")
        command = getattr(import_module(module), attribute or cmd_name)
        assert isinstance(command, click.Command)  # noqa: S101 - the table is ours
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the verbs into the help, without importing them."""
        with formatter.section("Verbs"):
            formatter.write_dl([(verb, text) for verb, (_, text) in self._verbs.items()])

    def shell_complete(self, ctx: click.Context, incomplete: str) -> list[CompletionItem]:
        """The verbs, without importing them: a shell waits for this at every Tab."""
        verbs = [
            CompletionItem(verb, help=text) for verb, (_, text) in self._verbs.items() if verb.startswith(incomplete)
        ]
        return [*verbs, *click.Command.shell_complete(self, ctx, incomplete)]

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Find the verb among the words; one that is misspelt is refused with the nearest."""
        if args and args[0] not in self._verbs:
            from puffin.hints import nearest

            ctx.fail(f"no verb '{args[0]}'{nearest(args[0], self._verbs)}")
        return super().resolve_command(ctx, args)
