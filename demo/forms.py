"""The forms behind the page: what to draw, for how long, and the parameters of each plot."""

from __future__ import annotations

from typing import Any

from django import forms

from demo.models import LIVES_OFFERED
from demo.plots import PLOTS, Parameter, Plot

SHORTEST_LIFE, LONGEST_LIFE = 3, 600  # seconds
MOST_BYTES = 50 * 2**20
MOST = f"{MOST_BYTES // 2**20} MB"


def _messages(cure: str) -> dict[str, str]:
    """One message for whatever is wrong with a field: what to do about it."""
    return dict.fromkeys(("required", "invalid", "min_value", "max_value"), cure)


class OrderForm(forms.Form):
    """Which plot, and how many seconds it lives."""

    plot = forms.ChoiceField(choices=[(key, plot.title) for key, plot in PLOTS.items()])
    seconds = forms.IntegerField(
        label="Seconds to live",
        min_value=SHORTEST_LIFE,
        max_value=LONGEST_LIFE,
        error_messages=_messages(f"Use a whole number, {SHORTEST_LIFE} to {LONGEST_LIFE}"),
    )


class ParametersForm(forms.Form):
    """One number field for each parameter of a plot; the plot's key is the prefix of its names."""

    def __init__(self, key: str, data: Any = None) -> None:
        super().__init__(data, prefix=key, auto_id="%s")
        self.key = key
        self.plot: Plot = PLOTS[key]
        for parameter in self.plot.parameters:
            self.fields[parameter.name] = _field(parameter)


class UploadForm(forms.Form):
    """What a browser is about to send, and for how many seconds that lives."""

    prefix = "upload"

    file = forms.CharField(max_length=255, error_messages={"required": "Choose a file"})
    size = forms.IntegerField(min_value=0)  # bytes
    seconds = forms.TypedChoiceField(
        label="Time to live", choices=LIVES_OFFERED, coerce=int, initial=30
    )

    def clean(self) -> None:
        """Refuse a file that is too large, beside the field that chooses it."""
        if self.cleaned_data.get("size", 0) > MOST_BYTES:
            self.add_error("file", f"Choose a file of at most {MOST}")


def errors_by_field(*filled_in: forms.BaseForm) -> dict[str, str]:
    """The first error of each field, under the name that the field has on the page."""
    return {
        form.add_prefix(name): str(errors[0])
        for form in filled_in
        for name, errors in form.errors.items()
    }


def _field(parameter: Parameter) -> forms.Field:
    span = f"{parameter.minimum:g} to {parameter.maximum:g}"
    options: dict[str, Any] = {
        "label": parameter.label,
        "min_value": parameter.minimum,
        "max_value": parameter.maximum,
        "initial": parameter.initial,
        "help_text": f"{span}{parameter.unit}",
    }
    if parameter.whole:
        return forms.IntegerField(
            error_messages=_messages(f"Use a whole number, {span}"), **options
        )
    return forms.FloatField(error_messages=_messages(f"Use {span}"), **options)
