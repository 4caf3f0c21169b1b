"""Sources of flows for several tests."""

from __future__ import annotations

import textwrap

_ONE_STEP = """
{top}
class F(FlowSpec):
    {decorators}
    @step
    def start(self):
        {body}
        self.next(self.end)
    @step
    def end(self):
        {end}
"""
_FOREACH = """
import os, random, subprocess, sys, time
{top}
class F(FlowSpec):
{members}
    @step
    def start(self):
        self.items = {items}
        self.next(self.work, foreach="items")
    {decorators}
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


def one_step(body: str = "pass", decorators: str = "", *, end: str = "pass", top: str = "") -> str:
    """Return a flow whose first step has a body and some decorators.

    Args:
        body: Statements of the step ``start``; all lines but the first are indented by 8 blanks.
        decorators: The decorators above it.
        end: Statements of the step ``end``, likewise.
        top: Statements of the module.
    """
    return _ONE_STEP.format(body=body, decorators=decorators, end=end, top=top)


def foreach(
    body: str = "pass", *, items: str = "range(3)", decorators: str = "", top: str = "", members: str = ""
) -> str:
    """Return a flow with a foreach over a step ``work``.

    Args:
        body: Statements of the step ``work``; the end's ``self.all`` lists the branches' ``self.got``.
        items: Expression for the items.
        decorators: The decorators above the step ``work``.
        top: Statements of the module.
        members: Parameters and other statements of the class.
    """
    body, members = body.replace("\n", "\n        "), textwrap.indent(members, "    ")
    return _FOREACH.format(body=body, items=items, decorators=decorators, top=top, members=members)
