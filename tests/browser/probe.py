"""What a person would see of the live views, read from the page."""

import json
from typing import Any

from scripts.lab import Window

STATE = """selector => {
  const view = document.querySelector(`${selector} article.mce-view`);
  const bar = view?.querySelector('[role="progressbar"]');
  if (!bar) return null;
  return {
    name: view.querySelector('h3').textContent,
    state: view.querySelector('.mce-state')?.textContent ?? '',
    known: Number(bar.getAttribute('aria-valuenow')),
    total: Number(bar.getAttribute('aria-valuemax')),
    map: view.querySelector('canvas')?.getAttribute('aria-label') ?? '',
    message: view.querySelector('.mce-message')?.textContent ?? '',
    buttons: [...view.querySelectorAll('.mce-actions button')].map(one => one.textContent),
  };
}"""
AXE = """async selector => {
  const found = await axe.run(selector, { resultTypes: ['violations'] });
  return found.violations.filter(one => ['serious', 'critical'].includes(one.impact)).map(one =>
    `${one.id} (${one.impact}): ` + one.nodes.map(node => `${node.target}: ${node.failureSummary}`).join(' | '));
}"""


def view(window: Window, selector: str = ".jp-NotebookPanel:not(.lm-mod-hidden)") -> dict[str, Any]:
    """Return what the first live view under `selector` shows; {} where there is none."""
    return window.page.evaluate(STATE, selector) or {}


def wait_view(window: Window, condition: str, seconds: float = 30, selector: str = ".jp-NotebookPanel") -> dict:
    """Wait until the view fulfils a JavaScript condition on its `state`, and return it."""
    script = f"selector => {{ const state = ({STATE})(selector); return state && ({condition}) ? state : null; }}"
    return window.wait(script, seconds, selector)


def goes_on(window: Window, seconds: float = 20, **where: str) -> None:
    """Wait until the view shows more points than now."""
    now = wait_view(window, "state.total > 0", **where)["known"]
    wait_view(window, f"state.known > {now}", seconds, **where)


def press(window: Window, label: str, selector: str = ".jp-NotebookPanel") -> None:
    """Press a button of the view."""
    window.page.locator(f"{selector} .mce-view .mce-actions button", has_text=label).first.click(timeout=10_000)


def busy(window: Window) -> bool:
    """Whether the kernel is computing something."""
    script = "() => window.jupyterapp.shell.currentWidget.sessionContext.kernelDisplayStatus === 'busy'"
    return bool(window.page.evaluate(script))


def listed(window: Window) -> dict[str, str]:
    """Return the sweeps of the panel: name to what it says beside and below."""
    script = """() => {
      const text = node => node?.textContent ?? '';
      const items = document.querySelectorAll('.mce-ExperimentsPanel ul[aria-label=Experiments] li');
      return Object.fromEntries([...items].map(one => [
        text(one.querySelector('.mce-item-name')),
        [...one.querySelectorAll('.mce-item-state, .mce-item-detail')].map(text).join(' | '),
      ]));
    }"""
    return dict(window.page.evaluate(script))


def violations(window: Window, selector: str, axe: str) -> list[str]:
    """Return what axe-core calls serious or critical."""
    if not window.page.evaluate("() => typeof axe === 'object'"):
        window.page.evaluate(axe)
    return list(window.page.evaluate(AXE, selector))


def quoted(text: str) -> str:
    """Write text as a JavaScript string."""
    return json.dumps(text)
