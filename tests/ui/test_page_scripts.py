"""Every script of the page is JavaScript: what a block runs when it is drawn, what events run, the files in static/.

gradio says of a script that cannot be read only in the browser's console, and the block is dead.
"""

from __future__ import annotations

from pathlib import Path

from studio.services.submission import Services
from studio.settings import load
from studio.storage.home import Home
from studio.ui import page_html
from studio.ui.app import build_page
from support.node import run_node

# In gradio's page: the arguments of the function whose body `js_on_load` is, as in its HTML block.
CHECK = """const scripts = JSON.parse(require('fs').readFileSync(0, 'utf-8'));
const faults = [];
for (const [name, kind, script] of scripts) {
  try {
    if (kind === 'body') new Function('element', 'trigger', 'props', 'watch', 'server', script);
    else new Function(`return (${script})`);
  } catch (error) {
    faults.push(`${name}: ${error}`);
  }
}
console.log(JSON.stringify(faults));"""


def find_faults(scripts: list[tuple[str, str, str]]) -> list[str]:
    """Return the faults of scripts given as (name, "body" or "function", JavaScript)."""
    return list(run_node(CHECK, scripts))


def test_every_script_can_be_read(tmp_path: Path) -> None:
    home = Home(load(home=tmp_path / "home", device="cpu"))
    page = build_page(Services(home))
    home.gallery.close()
    scripts = [
        (f"{block.elem_id or type(block).__name__}, js_on_load", "body", block.js_on_load)
        for block in page.blocks.values()
        if getattr(block, "js_on_load", None)
    ]
    scripts += [
        (f"event {event.targets}", "function", event.js)
        for event in page.fns.values()
        if isinstance(event.js, str)
    ]
    scripts += [
        (file.name, "body", file.read_text("utf-8"))
        for file in sorted((Path(page_html.__file__).parent / "static").glob("*.js"))
    ]
    assert len(scripts) > 100
    assert find_faults(scripts) == []


def test_a_script_that_is_cut_off_is_found() -> None:
    (fault,) = find_faults([("it", "body", "if (element) {"), ("other", "function", "() => 1")])
    assert fault.startswith("it: SyntaxError")
