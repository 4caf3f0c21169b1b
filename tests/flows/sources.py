"""Sources of flows for several tests."""

from __future__ import annotations

import textwrap

_FOREACH = """
import os, random, subprocess, sys, time
{top}
class F(FlowSpec):
{members}
    @step
    def start(self):
        self.items = {items}
        self.next(self.work, foreach="items")
    @step
    def work(self):
        {body}
        self.next(self.join)
    @step
    def join(self, inputs):
        self.all = [getattr(branch, "got", None) for branch in inputs]
        self.next(self.end)
    @step
    def end(self): pass
"""


def foreach(body: str, *, items: str = "range(3)", top: str = "", members: str = "") -> str:
    """Return a flow with a foreach over a step ``work``.

    Args:
        body: Statements of the step ``work``; the end's ``self.all`` lists the branches' ``self.got``.
        items: Expression for the items.
        top: Statements of the module.
        members: Parameters and other statements of the class.
    """
    body = body.replace("\n", "\n        ")
    return _FOREACH.format(body=body, items=items, top=top, members=textwrap.indent(members, "    "))
