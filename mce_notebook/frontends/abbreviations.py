"""Values of one parameter as people abbreviate them for `interact`, and the widgets that edit them."""

import math
from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any

import ipywidgets

from mce_notebook.errors import DeclarationError

ONE, LINEAR, LOGARITHMIC = "one value", "linear", "logarithmic"
# Longer lists are written as expressions of NumPy.
LISTED = 12
_NARROW = {"width": "10em"}
_SHORT = {"description_width": "4em"}


class Parameter(ABC):
    """One parameter of a function: the widgets that give it values.

    Parameters
    ----------
    name : str
    abbreviation
        ``(low, high)`` or ``(low, high, step)``: numbers between; a list: choices; a bool, number or string: one value.
    changed : callable
        Called after every edit.
    """

    def __init__(self, name: str, abbreviation: Any, changed: Callable[[], None]):
        self.name = name
        self._changed = changed
        self._count = ipywidgets.Label(layout={"width": "3.5em", "justify_content": "flex-end"})
        self.editors = self._editors(abbreviation)
        for editor in self.editors:
            editor.observe(self._edited, "value")
        label = ipywidgets.Label(name, layout={"width": "8em"}, tooltip=f"parameter {name}")
        self.row = ipywidgets.HBox([label, *self.editors, self._count], layout={"flex_flow": "row wrap"})
        self._edited(None)

    @abstractmethod
    def values(self) -> list[Any]:
        """Return the values chosen.

        Raises
        ------
        DeclarationError
            If there is none, or they are not possible.
        """

    @abstractmethod
    def _editors(self, abbreviation: Any) -> list[Any]:
        """Make the widgets."""

    def source(self) -> str:
        """Write the values as Python."""
        return repr(self.values())

    def _edited(self, _: Any) -> None:
        try:
            count = len(self.values())
            self._count.value = "fixed" if count == 1 else f"{count:,}"
        except DeclarationError:
            self._count.value = "?"
        self._changed()


class Numbers(Parameter):
    """Numbers: one, or several between two ends, spaced evenly or by a ratio."""

    def _editors(self, abbreviation: Any) -> list[Any]:
        low, high, count = _ends(self.name, abbreviation)
        self._whole = all(isinstance(end, int) for end in (low, high))
        several = isinstance(abbreviation, tuple)
        self._spacing = ipywidgets.Dropdown(
            options=[ONE, LINEAR, LOGARITHMIC],
            value=LINEAR if several else ONE,
            layout={"width": "9em"},
            tooltip=f"how the values of {self.name} are spaced",
        )
        number = ipywidgets.IntText if self._whole else ipywidgets.FloatText
        self._low = number(
            value=low, description="from", style=_SHORT, layout=_NARROW, tooltip=f"first value of {self.name}"
        )
        self._high = number(
            value=high, description="to", style=_SHORT, layout=_NARROW, tooltip=f"last value of {self.name}"
        )
        self._number = ipywidgets.BoundedIntText(
            value=count,
            min=2,
            max=1_000_000,
            description="values",
            style=_SHORT,
            layout=_NARROW,
            tooltip=f"number of values of {self.name}",
        )
        self._spacing.observe(lambda _: self._show(), "value")
        self._show()
        return [self._spacing, self._low, self._high, self._number]

    def _show(self) -> None:
        for widget in (self._high, self._number):
            widget.layout.visibility = "hidden" if self._spacing.value == ONE else "visible"

    def values(self) -> list[Any]:
        """Return the numbers; whole ones stay whole, and equal ones are one."""
        low, high, count = self._low.value, self._high.value, self._number.value
        if self._spacing.value == ONE:
            return [low]
        if self._spacing.value == LOGARITHMIC:
            if low <= 0 or high <= 0:
                raise DeclarationError(
                    f"`{self.name}` goes from {low} to {high}; logarithmic values have to be above zero."
                )
            found = [low * (high / low) ** (place / (count - 1)) for place in range(count)]
        else:
            found = [low + (high - low) * place / (count - 1) for place in range(count)]
        found = [round(value) for value in found] if self._whole else [float(f"{value:.12g}") for value in found]
        return list(dict.fromkeys(found))

    def source(self) -> str:
        """Write them as a list, long ones as NumPy would make them."""
        values = self.values()
        if len(values) <= LISTED or self._whole:
            return repr(values)
        function = "geomspace" if self._spacing.value == LOGARITHMIC else "linspace"
        return f"np.{function}({self._low.value!r}, {self._high.value!r}, {self._number.value})"


class Choices(Parameter):
    """Values of a list, any of which may be chosen."""

    def _editors(self, abbreviation: Any) -> list[Any]:
        options = [_option(item) for item in abbreviation]
        if not options:
            raise DeclarationError(f"`{self.name}` has an empty list; give it at least one value.")
        self._select = ipywidgets.SelectMultiple(
            options=options,
            value=tuple(value for _, value in options),
            rows=min(len(options), 5),
            layout={"width": "16em"},
            tooltip=f"values of {self.name}",
        )
        return [self._select]

    def values(self) -> list[Any]:
        """Return the chosen ones, as listed."""
        if not self._select.index:
            raise DeclarationError(f"No value of `{self.name}` is chosen.")
        return [self._select.options[place][1] for place in sorted(self._select.index)]


class Switch(Choices):
    """A bool: one of the two, or both."""

    def _editors(self, abbreviation: Any) -> list[Any]:
        self._choice = ipywidgets.ToggleButtons(
            options=[("True", (True,)), ("False", (False,)), ("both", (True, False))],
            value=(bool(abbreviation),),
            style={"button_width": "5em"},
            tooltip=f"values of {self.name}",
        )
        return [self._choice]

    def values(self) -> list[Any]:
        """Return one or two bools."""
        return list(self._choice.value)


class Words(Parameter):
    """Text; several values between commas."""

    def _editors(self, abbreviation: Any) -> list[Any]:
        self._text = ipywidgets.Text(
            value=str(abbreviation),
            continuous_update=False,
            layout={"width": "20em"},
            tooltip=f"values of {self.name}, between commas",
        )
        return [self._text]

    def values(self) -> list[Any]:
        """Return the words."""
        found = list(dict.fromkeys(word.strip() for word in self._text.value.split(",")))
        if found == [""]:
            raise DeclarationError(f"`{self.name}` has no value.")
        return found


class Fixed(Parameter):
    """Any other object: as it is."""

    def _editors(self, abbreviation: Any) -> list[Any]:
        self._value = abbreviation
        text = repr(abbreviation)
        return [ipywidgets.Label(text if len(text) < 60 else text[:57] + "…")]

    def values(self) -> list[Any]:
        """Return the object."""
        return [self._value]


def parameter(name: str, abbreviation: Any, changed: Callable[[], None]) -> Parameter:
    """Choose the widgets for an abbreviation, as `interact` does."""
    if isinstance(abbreviation, bool):
        return Switch(name, abbreviation, changed)
    if isinstance(abbreviation, int | float) or (
        isinstance(abbreviation, tuple) and len(abbreviation) in (2, 3) and all(map(_number, abbreviation))
    ):
        return Numbers(name, abbreviation, changed)
    if isinstance(abbreviation, str):
        return Words(name, abbreviation, changed)
    if isinstance(abbreviation, dict):
        return Choices(name, list(abbreviation.values()), changed)
    if hasattr(abbreviation, "tolist"):
        abbreviation = abbreviation.tolist()
    if isinstance(abbreviation, list | tuple | range | set):
        return Choices(name, list(abbreviation), changed)
    return Fixed(name, abbreviation, changed)


def _number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _option(item: Any) -> tuple[str, Any]:
    labelled = isinstance(item, tuple) and len(item) == 2 and isinstance(item[0], str)
    return item if labelled else (str(getattr(item, "__name__", item)), item)


def _ends(name: str, abbreviation: Any) -> tuple[Any, Any, int]:
    if not isinstance(abbreviation, tuple):
        high = abbreviation * 10 if abbreviation > 0 else abbreviation + 10
        return abbreviation, type(abbreviation)(high), 5
    low, high = abbreviation[:2]
    if not low < high:
        raise DeclarationError(f"`{name}` goes from {low} to {high}; write the smaller one first.")
    if len(abbreviation) == 2:
        return low, high, min(high - low + 1, 9) if isinstance(low, int) and isinstance(high, int) else 9
    step = abbreviation[2]
    if step <= 0:
        raise DeclarationError(f"`{name}` has steps of {step}; they have to be above zero.")
    # The last value is the one that steps from the first one reach, as in `interact`.
    count = math.floor((high - low) / step + 1e-9) + 1
    return low, low + (count - 1) * step if count > 1 else high, max(count, 2)
