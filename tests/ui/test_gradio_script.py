"""gradio's core script finds the same with its searches made quick, and is served in place of its own."""

from __future__ import annotations

import asyncio
from pathlib import Path

import gradio as gr
import httpx

from studio.ui.gradio_script import (
    CHANGES,
    FIND_EVENTS,
    FIND_NODE,
    SCRIPT_PATTERN,
    apply_changes,
    build_script,
)
from studio.ui.private_gradio import serve_quick_script
from support.node import run_node

# Both versions over the same random trees and events: every id, some that are nowhere, some twice;
# a tree laid out anew, and a part of it replaced.
COMPARE = """const [find, findEvents] = JSON.parse(require('fs').readFileSync(0, 'utf-8'));
let seed = 7;
const random = most => (seed = (seed * 1103515245 + 12345) % 2147483648) % most;
const grow = depth => ({id: random(60), children:
  depth ? Array.from({length: random(5)}, () => grow(depth - 1)) : random(2) ? [] : undefined});
const make = number => {
  const Z = new Function(`${find[number]} return Z`)();
  const events = new Function('Z', `return ({${findEvents[number]}return n}})`)(Z);
  return {Z, events};
};
const [plain, quick] = [make(0), make(1)];
let compared = 0, hits = 0;
const compare = root => {
  for (let id = -2; id < 64; id++) {
    const node = plain.Z(root, id);
    if (node !== quick.Z(root, id)) throw new Error(`another node of ${id}`);
    compared++;
    hits += node !== null;
  }
};
for (let turn = 0; turn < 200; turn++) {
  const root = grow(4);
  compare(root);
  root.children = Array.from({length: 3}, () => grow(3));
  compare(root);
  const part = root.children[0];
  part.children = grow(2).children;
  quick.Z.index = null; // as a part that is rendered again does it
  compare(root);
  const all = Array.from({length: 40}, () => ({targets:
    Array.from({length: random(4)}, () => [random(20), random(5) ? `event${random(4)}` : null])}));
  for (let id = 0; id < 22; id++) {
    const [one, other] = [plain, quick].map(({events}) => events.find_attached_events({id}, all));
    if (JSON.stringify(one) !== JSON.stringify(other)) throw new Error(`other events of ${id}`);
    compared++;
    hits += one.length > 0;
  }
}
console.log(JSON.stringify({compared, hits}));"""


def test_nodes_and_events_are_the_same() -> None:
    found = run_node(COMPARE, [FIND_NODE, FIND_EVENTS])
    assert found["compared"] == 200 * (3 * 66 + 22)
    assert 0 < found["hits"] < found["compared"]


def test_the_script_of_this_gradio_is_known() -> None:
    built = build_script()
    assert built, "gradio's script reads otherwise: see studio/ui/gradio_script.py"
    for old, new in CHANGES:
        assert old not in built[1]
        assert new in built[1]


def test_a_script_that_reads_otherwise_stays(tmp_path: Path) -> None:
    (tmp_path / "core-other.js").write_text(FIND_NODE[0] + FIND_EVENTS[0])  # the third is missing
    assert build_script(tmp_path) is None
    assert apply_changes(FIND_NODE[0] * 2, [FIND_NODE]) is None
    assert SCRIPT_PATTERN.startswith("core-")


def test_it_is_served_and_not_sent_twice() -> None:
    built = build_script()
    assert built
    with gr.Blocks() as page:
        gr.Textbox()
    page.app = gr.routes.App.create_app(page)
    serve_quick_script(page)
    transport = httpx.ASGITransport(page.app)

    async def ask() -> None:
        async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
            answer = await client.get(f"/assets/{built[0]}")
            assert answer.text == built[1]
            assert answer.headers["content-type"].startswith("text/javascript")
            again = await client.get(
                f"/assets/{built[0]}", headers={"If-None-Match": answer.headers["etag"]}
            )
            assert (again.status_code, again.text) == (304, "")
            other = await client.get("/assets/nothing.js")
            assert other.status_code == 404

    asyncio.run(ask())
