"""What a person should know before the cell runs as a sweep: what changes, what is left out, what gets lost."""

import ast
from collections.abc import Iterator, Sequence

from mce_notebook.declare.names import callee, read_names, stores
from mce_notebook.declare.nesting import Noise, is_progress
from mce_notebook.declare.reading import Reading

_SEEDS = {
    "np.random.seed", "numpy.random.seed", "random.seed", "torch.manual_seed", "tf.random.set_seed", "set_seed",
    "seed_everything",
}  # fmt: skip
_PLOTS = {"show", "figure", "plot", "imshow", "subplots", "scatter", "hist"}
_SAVES = {
    "save",
    "savefig",
    "savez",
    "savetxt",
    "to_csv",
    "to_pickle",
    "to_parquet",
    "dump",
    "savemat",
    "write_text",
    "savez_compressed",
}
_TRACKERS = {"wandb.log", "mlflow.log_metric", "mlflow.log_metrics", "mlflow.log_param"}


def find_notes(
    loop: ast.For, head: Sequence[ast.stmt], tail: Sequence[ast.stmt], reading: Reading, noise: Noise
) -> list[str]:
    """Collect the remarks about a cell that was read."""
    notes = [
        *_seeds(head, reading),
        *_caught(reading),
        *_side_effects(reading),
        *_left_out(loop, noise),
        *_late(reading),
    ]
    lost = _lost(loop, tail, reading)
    if lost:
        notes.append(f"after the loops {lost} will not be what the last turn left: only results come back")
    if tail:
        notes.append("the statements after the loops are offered as the next cell")
    return list(dict.fromkeys(notes))


def _calls(nodes: Sequence[ast.AST]) -> Iterator[tuple[str, ast.Call]]:
    for node in nodes:
        for child in ast.walk(node):
            if isinstance(child, ast.Call):
                yield callee(child), child


def _seeds(head: Sequence[ast.stmt], reading: Reading) -> Iterator[str]:
    for name, call in _calls(head):
        if name in _SEEDS:
            yield f"`{ast.unparse(call)}` above the loops is superseded: each point gets its own stream"
    for _, statements, _ in reading.setups:
        for name, call in _calls(statements):
            if name in _SEEDS:
                yield f"`{ast.unparse(call)}` between the loops holds for the setup; each point gets its own stream"


def _caught(reading: Reading) -> Iterator[str]:
    for statement in reading.point:
        for node in ast.walk(statement):
            if isinstance(node, ast.ExceptHandler) and not any(isinstance(n, ast.Raise) for n in ast.walk(node)):
                what = ast.unparse(node.type) if node.type is not None else "every exception"
                yield f"`except` hides {what}: such points count as done, not as failed"


def _side_effects(reading: Reading) -> Iterator[str]:
    drawn = [name for name, _ in _calls(reading.point) if _draws(name)]
    if drawn:
        names = ", ".join(f"`{name}`" for name in dict.fromkeys(drawn))
        yield f"{names}: drawn on a worker, where nobody sees it"
    for name, call in _calls(reading.point):
        short = name.rpartition(".")[2]
        if short in _SAVES and "." in name:
            yield f"`{name}` writes a file from every point; mce.scratch() is the folder that is kept"
        elif name == "open" and any(isinstance(a, ast.Constant) and str(a.value)[:1] in "wax" for a in call.args[1:]):
            yield "`open` writes a file from every point; mce.scratch() is the folder that is kept"
        elif name in _TRACKERS:
            yield f"`{name}` reports from every worker"


def _draws(name: str) -> bool:
    short = name.rpartition(".")[2]
    return short not in _SAVES and (name.startswith(("plt.", "sns.")) or (short in _PLOTS and name.startswith("ax")))


def _left_out(loop: ast.For, noise: Noise) -> Iterator[str]:
    bars = any(is_progress(node) for node in ast.walk(loop) if isinstance(node, ast.Call)) or bool(noise.bars)
    words = ["progress bars"] if bars else []
    words += ["prints between the loops"] if any(name == "print" for name, _ in _calls(noise.removed)) else []
    words += [f"the counter `{name}`" for name in noise.counters]
    if words:
        yield f"left out: {', '.join(words)}"


def _late(reading: Reading) -> Iterator[str]:
    made = {name for _, _, provides in reading.setups for name in provides}
    for statement in reading.point:
        if not isinstance(statement, ast.If) or not isinstance(statement.body[-1], ast.Continue):
            return
        if read_names(statement.test) & made:
            yield f"`if {ast.unparse(statement.test)}` reads what a setup makes: such points are skipped when they run"


def _lost(loop: ast.For, tail: Sequence[ast.stmt], reading: Reading) -> str:
    kept = reading.sinks.bases | {slot.base for slot in reading.outline.slots}
    names = sorted((read_names(list(tail)) & stores(loop)) - kept - stores(list(tail)))
    return ", ".join(f"`{name}`" for name in names)
