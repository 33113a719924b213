"""The forms behind the page: what to draw, for how long, and the parameters of each plot."""

from __future__ import annotations

from typing import Any, ClassVar

from django import forms

from demo.models import Upload
from demo.plots import PLOTS, Parameter, Plot

SHORTEST_LIFE, LONGEST_LIFE = 3, 600  # seconds
MOST_MEGABYTES = 5


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


class UploadForm(forms.ModelForm):  # type: ignore[type-arg]  # which it takes in its stubs alone
    """A file, and for how long it lives."""

    prefix = "upload"

    class Meta:
        model = Upload
        fields = ("file", "seconds")
        error_messages: ClassVar = {"file": dict.fromkeys(("required", "empty"), "Choose a file")}

    def clean_file(self) -> Any:
        """Refuse a file that is too large."""
        file = self.cleaned_data["file"]
        if file.size > MOST_MEGABYTES * 2**20:
            raise forms.ValidationError(f"Choose a file of at most {MOST_MEGABYTES} MB")
        return file


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
